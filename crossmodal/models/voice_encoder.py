"""Voice encoders: speech → what a face-recognition network would see in the speaker's photo.

:class:`ConvVoiceEncoder` is the network of Speech2Face (Oh et al. 2019, table 1); :class:`ASTVoiceEncoder` puts an
Audio Spectrogram Transformer (Gong et al. 2021) in its place, as "Face From Voice" (Pietkun 2024) does. Each has its
own input, made by its ``features``::

    feature = encoder(encoder.features(waveform))    # (B, T) at 16 kHz → (B, D) in config.output_space
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.audio import complex_spectrogram, fit_length
from crossmodal.config import AudioConfig
from crossmodal.errors import AudioError, BundleError, ConfigError
from crossmodal.models.pooling import Pooling, make_pooling
from crossmodal.models.spaces import space_size

if TYPE_CHECKING:
    from transformers import ASTConfig

AUDIO = AudioConfig()


LEVEL_DBFS = -23.0
"""RMS level to which "Face From Voice" (Pietkun 2024) brings every recording."""


def at_level(waveform: Tensor, dbfs: float) -> Tensor:
    """Waveforms ``(B, T)`` scaled to an RMS level in dB, full scale = 1; silence stays as it is."""
    rms = waveform.square().mean(-1, keepdim=True).sqrt()
    return torch.where(rms > 0, waveform * (10 ** (dbfs / 20) / rms.clamp_min(1e-12)), waveform)


def polar_spectrogram(waveform: Tensor, *, seconds: float | None) -> Tensor:
    """Waveforms ``(B, T)`` at 16 kHz → magnitude^0.3 and sgn(angle)·|angle|^0.3 ``(B, 2, F, 257)``, frames centred,
    silence around (librosa's default), as "Face From Voice" (Pietkun 2024) has it."""
    if seconds is not None:
        waveform = fit_length(waveform, round(seconds * AUDIO.sample_rate))
    hop, length = AUDIO.s2f_hop_length, AUDIO.s2f_win_length
    window = torch.hann_window(length, device=waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        spectrum = torch.stft(
            waveform.float(), AUDIO.s2f_n_fft, hop, length, window, pad_mode="constant", return_complex=True
        )
        angle = spectrum.angle()
        both = torch.stack([spectrum.abs().pow(AUDIO.s2f_power), angle.sign() * angle.abs().pow(AUDIO.s2f_power)], 1)
    return both.transpose(2, 3)  # (B, 2, F, 257)


@dataclass(frozen=True)
class ConvVoiceEncoderConfig:
    """Size of the convolutional voice encoder; the defaults are Speech2Face's table 1."""

    channels: tuple[int, ...] = (64, 64, 128, 128, 128, 256, 512, 512, 512)
    """Channels of the nine convolutions."""
    hidden_size: int = 4096
    """Units of the first fully connected layer."""
    pooling: Pooling = "average"
    """How frames become one vector: ``average`` as published, or ``attentive`` statistics."""
    padding: int = 1
    """Rows and bins added on each side of every convolution's input: the paper does not print it; "Face From Voice"
    (Pietkun 2024) has none."""
    spectrogram: Literal["complex", "polar"] = "complex"
    """``complex``: real and imaginary part, as published. ``polar``: magnitude and angle, each compressed, of speech at
    -23 dBFS, as "Face From Voice" has it."""
    output_relu: bool = False
    """End in a ReLU, as VGG-Face's feature does ("Face From Voice")."""
    output_space: str = "vggface-4096"
    """The face-feature space written; its name ends in the number of components."""

    def __post_init__(self) -> None:
        if self.padding not in (0, 1):
            raise ConfigError(f"padding {self.padding} is not 0 or 1", source="voice-encoder-conv")
        if len(self.channels) != len(ConvVoiceEncoder.STRIDES):
            raise ConfigError("channels needs nine numbers, one a convolution", source="voice-encoder-conv")
        space_size(self.output_space)

    @classmethod
    def debug(cls) -> ConvVoiceEncoderConfig:
        """Runs in milliseconds."""
        return cls(channels=(2, 2, 4, 4, 4, 4, 8, 8, 8), hidden_size=32, output_space="dlib-128")


class ConvVoiceEncoder(nn.Module):
    """Speech2Face's voice encoder (Oh et al. 2019, table 1).

    Nine 4×4 convolutions, each followed by ReLU and batch normalisation, with 2×1 max pooling along time only after
    the third to sixth; mean over time, ReLU and batch normalisation (which for the last convolution stand behind the
    mean); two fully connected layers with a ReLU between. Frequency is never pooled: vocal character lives there. The
    paper does not print the padding: one row and one bin on each side, with which one second is the shortest input.
    """

    kind: ClassVar[str] = "voice-encoder-conv"
    KERNEL: ClassVar[int] = 4
    STRIDES: ClassVar[tuple[int, ...]] = (1, 1, 1, 1, 1, 1, 1, 2, 2)
    POOLED: ClassVar[tuple[int, ...]] = (2, 3, 4, 5)
    """Convolutions (from 0) with a 2×1 max pool behind them."""

    def __init__(self, config: ConvVoiceEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvVoiceEncoderConfig()
        layers: list[nn.Module] = []
        previous = 2  # real and imaginary part
        for index, (channels, stride) in enumerate(zip(config.channels, self.STRIDES)):
            layers.append(nn.Conv2d(previous, channels, self.KERNEL, stride, padding=config.padding))
            if index < len(self.STRIDES) - 1:
                layers += [nn.ReLU(), nn.BatchNorm2d(channels)]
            if index in self.POOLED:
                layers.append(nn.MaxPool2d((2, 1)))
            previous = channels
        self.convolutions = nn.Sequential(*layers)
        self.pool = make_pooling(config.pooling, previous)
        self.normalise = nn.BatchNorm1d(previous)
        bins = self.after(AUDIO.s2f_n_fft // 2 + 1, pooled=False)
        self.head = nn.Sequential(
            nn.Linear(previous * bins, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, space_size(config.output_space)),
            *([nn.ReLU()] if config.output_relu else []),
        )

    def after(self, size: int, *, pooled: bool) -> int:
        """What the convolutions leave of ``size`` frames (``pooled``) or frequency bins (not); 0 if too few."""
        for index, stride in enumerate(self.STRIDES):
            size = (size + 2 * self.config.padding - self.KERNEL) // stride + 1
            if pooled and index in self.POOLED:
                size //= 2
            if size < 1:
                return 0
        return size

    def features(self, waveform: Tensor, *, seconds: float | None = AUDIO.s2f_seconds) -> Tensor:
        """Waveforms ``(B, T)`` at 16 kHz, repeated or cut to ``seconds`` (``None``: as they are) → power-law compressed
        spectrograms ``(B, 2, F, 257)``."""
        if self.config.spectrogram == "complex":
            return complex_spectrogram(waveform, seconds=seconds)
        return polar_spectrogram(at_level(waveform, LEVEL_DBFS), seconds=seconds)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Spectrograms ``(B, 2, F, 257)``, one second or longer → face features ``(B, D)``.

        Raises:
            AudioError: fewer than 97 frames (one second), without padding 259.
        """
        if self.after(spectrogram.shape[2], pooled=True) < 1:
            problem = f"too short for the voice encoder ({spectrogram.shape[2]} frames)"
            seconds = "one second" if self.config.padding else "2.6 seconds"
            raise AudioError(problem, remedy=f"give at least {seconds} of speech")
        x = self.convolutions(spectrogram)  # (B, C, T, bins)
        x = self.normalise(F.relu(self.pool(x)))  # (B, C, bins)
        return self.head(x.flatten(1))  # (B, D)


@dataclass(frozen=True)
class ASTVoiceEncoderConfig:
    """Size of the transformer voice encoder; the defaults are AST's base size."""

    hidden_size: int = 768
    """Width of the transformer."""
    num_layers: int = 12
    """Transformer layers."""
    num_heads: int = 12
    """Attention heads; divides ``hidden_size``."""
    intermediate_size: int = 3072
    """Units of each layer's feed-forward part."""
    patch_size: int = 16
    """Side of a patch, in frames and mel bands."""
    stride: int = 10
    """Step between patches in both directions; they overlap if it is smaller than ``patch_size``."""
    n_mels: int = 128
    """Kaldi mel bands."""
    max_frames: int = 1024
    """Frames the position embeddings cover (10 ms each); shorter input is padded, longer is cut."""
    dropout: float = 0.0
    """Dropout in the transformer."""
    feature_mean: float = -4.2677393
    """Mean of the log-mels that the weights were trained on (AudioSet's)."""
    feature_std: float = 4.5689974
    """Their standard deviation; features are divided by twice it, as AST does."""
    pooling: Pooling | Literal["token"] = "token"
    """``token``: the mean of AST's class and distillation tokens, as published; or the patches' ``average`` or
    ``attentive`` statistics over time."""
    output_space: str = "vggface-4096"
    """The face-feature space written; its name ends in the number of components."""
    output_relu: bool = False
    """End in a ReLU, as VGG-Face's feature does ("Face From Voice", Pietkun 2024)."""
    level_dbfs: float | None = None
    """RMS level to which speech is brought first ("Face From Voice": -23)."""
    seconds: float = AUDIO.s2f_seconds
    """Length to which speech is repeated or cut ("Face From Voice": 10.26)."""
    tuned_layers: int = -1
    """What training changes beside the head: -1 the whole transformer (full fine-tuning), 0 nothing (frozen), k its
    last k layers and the final normalisation."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ConfigError("num_heads must divide hidden_size", source="voice-encoder-ast")
        if not -1 <= self.tuned_layers <= self.num_layers:
            problem = f"tuned_layers {self.tuned_layers} is out of range"
            raise ConfigError(problem, source="voice-encoder-ast", remedy=f"use -1 (all) to {self.num_layers}")
        if self.patch_size > min(self.n_mels, self.max_frames):
            raise ConfigError("patch_size exceeds n_mels or max_frames", source="voice-encoder-ast")
        space_size(self.output_space)

    @classmethod
    def debug(cls) -> ASTVoiceEncoderConfig:
        """Runs in milliseconds."""
        return cls(
            hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, stride=16, n_mels=32, max_frames=128,
            output_space="dlib-128",
        )  # fmt: skip

    def transformer(self) -> ASTConfig:
        """The same as ``transformers`` writes it."""
        from transformers import ASTConfig

        return ASTConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            patch_size=self.patch_size,
            frequency_stride=self.stride,
            time_stride=self.stride,
            num_mel_bins=self.n_mels,
            max_length=self.max_frames,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
        )


class ASTVoiceEncoder(nn.Module):
    """Audio Spectrogram Transformer (Gong et al. 2021) with a linear layer to a face feature."""

    kind: ClassVar[str] = "voice-encoder-ast"

    def __init__(self, config: ASTVoiceEncoderConfig | None = None) -> None:
        super().__init__()
        from transformers import ASTModel

        self.config = config = config or ASTVoiceEncoderConfig()
        self.transformer = ASTModel(config.transformer())
        self.pool = None if config.pooling == "token" else make_pooling(config.pooling, config.hidden_size)
        self.head = nn.Sequential(
            nn.LayerNorm(config.hidden_size),
            nn.Linear(config.hidden_size, space_size(config.output_space)),
            *([nn.ReLU()] if config.output_relu else []),
        )
        self._freeze(config.tuned_layers)

    def _freeze(self, tuned_layers: int) -> None:
        """Take gradients from what ``config.tuned_layers`` leaves as it is."""
        if tuned_layers < 0:
            return
        self.transformer.requires_grad_(False)
        if tuned_layers:
            layers: Any = self.transformer.layers
            for layer in layers[-tuned_layers:]:
                layer.requires_grad_(True)
            self.transformer.layernorm.requires_grad_(True)

    @classmethod
    def from_transformer(cls, source: str | Path, config: ASTVoiceEncoderConfig | None = None) -> ASTVoiceEncoder:
        """Start from an AST that was saved with ``save_pretrained``; its new head to the face feature is untrained.

        The model's sizes are taken over (mel statistics too, where there is a ``preprocessor_config.json``); pooling,
        output space and what is tuned come from ``config``.

        Args:
            source: a local folder, or a Hugging Face Hub id such as ``MIT/ast-finetuned-audioset-10-10-0.4593``
                (downloaded once, safetensors only).
            config: pooling, output space, tuned layers.

        Raises:
            BundleError: there is no such folder or id, it is not an AST, its input is not what ``features`` makes, or
                its weights are damaged.
        """
        from transformers import ASTConfig, ASTModel

        config = config or ASTVoiceEncoderConfig()
        remedy = "give a folder with config.json and model.safetensors of an audio spectrogram transformer"
        folder = Path(source) if Path(source).is_dir() else _from_hub(str(source), remedy)
        try:
            found = ASTConfig.from_pretrained(folder, local_files_only=True)
            with _quiet():  # a classifier that is left behind is no news
                loaded: Any = ASTModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            transformer, info = loaded
        except Exception as error:  # transformers, safetensors and json raise their own
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"holds no usable transformer ({reason})", source=folder, remedy=remedy) from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:3])
            raise BundleError(f"holds no weights for {missing}", source=folder, remedy=remedy)
        encoder = cls(_with_sizes(config, found, folder))
        encoder.transformer.load_state_dict(transformer.state_dict())
        return encoder.eval()

    def features(self, waveform: Tensor, *, seconds: float | None = 0.0) -> Tensor:
        """Waveforms ``(B, T)`` at 16 kHz, repeated or cut to ``seconds`` (0: ``config.seconds``, ``None``: as they are)
        → AST's normalised Kaldi log-mels ``(B, F, n_mels)``, 10 ms a frame."""
        from torchaudio.compliance.kaldi import fbank

        if self.config.level_dbfs is not None:
            waveform = at_level(waveform, self.config.level_dbfs)
        if seconds is not None:
            seconds = seconds or self.config.seconds
            waveform = fit_length(waveform, round(seconds * AUDIO.sample_rate))
        mels = [
            fbank(w[None], sample_frequency=AUDIO.sample_rate, window_type="hanning", num_mel_bins=self.config.n_mels)
            for w in waveform.float()
        ]
        return self._normalise(torch.stack(mels))  # (B, F, M)

    def _normalise(self, mels: Tensor) -> Tensor:
        return (mels - self.config.feature_mean) / (2 * self.config.feature_std)

    def forward(self, mels: Tensor) -> Tensor:
        """Normalised log-mels ``(B, F, n_mels)``, padded or cut to ``max_frames`` → face features ``(B, D)``."""
        config, frames = self.config, min(mels.shape[1], self.config.max_frames)
        silence = -config.feature_mean / (2 * config.feature_std)  # AST pads log-mels with 0 before it normalises
        mels = F.pad(mels[:, :frames], (0, 0, 0, config.max_frames - frames), value=silence)
        output: Any = self.transformer(mels)
        if self.pool is None:
            return self.head(output.pooler_output)
        bands = (config.n_mels - config.patch_size) // config.stride + 1
        patches = output.last_hidden_state[:, 2:].unflatten(1, (bands, -1)).mean(1)  # (B, steps, H)
        heard = (
            torch.arange(patches.shape[1], device=mels.device) * config.stride < frames
        )  # steps that start in speech
        return self.head(self.pool(patches.transpose(1, 2), heard.expand(len(mels), -1)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and reports of ``transformers``."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _from_hub(name: str, remedy: str) -> Path:
    """The files of an AST on the Hugging Face Hub, from the local cache where they are there.

    Raises:
        BundleError: ``name`` is neither a folder nor an id that can be had.
    """
    import re

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        raise BundleError("is not a folder", source=name, remedy=f"{remedy}, or a hub id user/model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["config.json", "preprocessor_config.json", "model.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        remedy = "check the name and the network, or give a folder"
        raise BundleError(f"cannot be had from the hub ({reason})", source=name, remedy=remedy) from error


def _with_sizes(config: ASTVoiceEncoderConfig, found: ASTConfig, folder: Path) -> ASTVoiceEncoderConfig:
    """``config`` with the sizes of a saved transformer and the mel statistics beside it.

    Raises:
        BundleError: patches or extractor are of a form that the encoder's ``features`` does not make.
    """
    import dataclasses

    if found.time_stride != found.frequency_stride or not isinstance(found.patch_size, int):
        raise BundleError("uses patches or strides that differ between time and frequency", source=folder)
    mean, std = _statistics(folder, found, config)
    return dataclasses.replace(
        config,
        hidden_size=found.hidden_size,
        num_layers=found.num_hidden_layers,
        num_heads=found.num_attention_heads,
        intermediate_size=found.intermediate_size,
        patch_size=found.patch_size,
        stride=found.time_stride,
        n_mels=found.num_mel_bins,
        max_frames=found.max_length,
        feature_mean=mean,
        feature_std=std,
    )


def _statistics(folder: Path, found: ASTConfig, config: ASTVoiceEncoderConfig) -> tuple[float, float]:
    """Mean and deviation of the log-mels as the folder's feature extractor has them; those of ``config`` without it."""
    import json

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return config.feature_mean, config.feature_std
    try:
        extractor = json.loads(path.read_text(encoding="utf-8"))
        mean, std = float(extractor.get("mean", -4.2677393)), float(extractor.get("std", 4.5689974))
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError("is no feature extractor's configuration", source=path) from error
    expected = {"sampling_rate": AUDIO.sample_rate, "num_mel_bins": found.num_mel_bins, "max_length": found.max_length}
    for name, value in expected.items():
        if extractor.get(name, value) != value:
            problem = f"its extractor has {name} {extractor[name]}, {value} is needed"
            raise BundleError(problem, source=path, remedy="use the extractor that belongs to the model")
    if not extractor.get("do_normalize", True):
        return 0.0, 0.5  # divided by twice the deviation
    if not std > 0:
        raise BundleError(f"its deviation {std} is not positive", source=path)
    return mean, std
