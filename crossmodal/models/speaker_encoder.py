"""GE2E speaker encoder: speech → 256-d speaker embedding (Wan et al. 2018, "Generalized End-to-End Loss for Speaker
Verification").

A stack of LSTMs over 40 mel bands; the last hidden state goes through a linear layer, a ReLU and L2 normalisation, so
an embedding has unit length and no negative component. The default size is that of Resemblyzer, whose wheel carries
weights trained with GE2E; :meth:`SpeakerEncoder.from_package` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.audio import speaker_mel
from crossmodal.config import AudioConfig
from crossmodal.errors import AudioError, BundleError, ConfigError, SpaceMismatchError
from crossmodal.files import package_folder
from crossmodal.models.foreign_weights import fit_state, read_state
from crossmodal.models.spaces import space_size
from crossmodal.models.unfilled import Unfilled

AUDIO = AudioConfig()
HOP = round(AUDIO.sample_rate * AUDIO.speaker_hop_ms / 1000)


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """Size of the speaker encoder and how a long utterance is cut."""

    n_mels: int = AUDIO.speaker_n_mels
    """Mel bands of the input."""
    hidden_size: int = 256
    """Units of each LSTM layer (Resemblyzer's; Face2Speech uses 768)."""
    num_layers: int = 3
    """LSTM layers."""
    embedding_size: int = 256
    """Components of the embedding."""
    partials_per_second: float = 1.3
    """Partial utterances that start in one second of speech; 1.3 lets 1.6 s windows overlap by half."""
    min_coverage: float = 0.75
    """The last partial is dropped if less than this share of it is speech (unless it is the only one)."""
    output_space: str = "ge2e-256"
    """Name of the embedding space."""

    def __post_init__(self) -> None:
        for name in ("n_mels", "hidden_size", "num_layers", "embedding_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", source="speaker-encoder")
        if not 0 < self.min_coverage <= 1:
            raise ConfigError("min_coverage must lie in (0, 1]", source="speaker-encoder")
        if not 1 <= self.partial_step <= AUDIO.speaker_partial_frames:
            slowest = AUDIO.sample_rate / (HOP * AUDIO.speaker_partial_frames)
            raise ConfigError(
                f"partials_per_second must lie between {slowest:g} and {AUDIO.sample_rate / HOP:g}",
                source="speaker-encoder",
                remedy="partials have to cover the utterance",
            )

    @property
    def partial_step(self) -> int:
        """Frames between the starts of two partial utterances."""
        if self.partials_per_second <= 0:
            return 0
        return round(AUDIO.sample_rate / self.partials_per_second / HOP)

    @classmethod
    def face2speech(cls) -> SpeakerEncoderConfig:
        """The size of Face2Speech (Goto et al. 2020) and of the GE2E paper: 3 × LSTM 768."""
        return cls(hidden_size=768)

    @classmethod
    def debug(cls) -> SpeakerEncoderConfig:
        """Runs in milliseconds; writes the same embedding space."""
        return cls(hidden_size=24, num_layers=2)


def raise_volume(waveform: Tensor, target_dbfs: float = AUDIO.speaker_target_dbfs) -> Tensor:
    """Scale waveforms ``(..., T)`` that are quieter than ``target_dbfs`` (RMS, full scale = 1) up to it; louder ones
    stay as they are."""
    rms = waveform.square().mean(-1, keepdim=True).sqrt()
    target = 10 ** (target_dbfs / 20)
    return torch.where((rms > 0) & (rms < target), waveform * (target / rms.clamp_min(1e-12)), waveform)


def partial_starts(samples: int, config: SpeakerEncoderConfig) -> list[int]:
    """First mel frame of each partial utterance of a waveform of ``samples`` samples; at least one."""
    frames, window = math.ceil((samples + 1) / HOP), AUDIO.speaker_partial_frames
    starts = list(range(0, max(1, frames - window + config.partial_step + 1), config.partial_step))
    covered = (samples - starts[-1] * HOP) / (window * HOP)
    return starts[:-1] if len(starts) > 1 and covered < config.min_coverage else starts


def _without_loss(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, without those of GE2E's loss."""
    return {name: value for name, value in read_state(path).items() if not name.startswith("similarity_")}


class SpeakerEncoder(nn.Module):
    """Speech → speaker embedding.

    ``forward`` embeds mel windows of equal length (training); :meth:`embed` and :meth:`embed_batch` embed whole
    utterances by averaging their 1.6 s partials (Wan et al. 2018, section 3.2).
    """

    kind: ClassVar[str] = "speaker-encoder"

    def __init__(self, config: SpeakerEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpeakerEncoderConfig()
        self.lstm = nn.LSTM(config.n_mels, config.hidden_size, config.num_layers, batch_first=True)
        self.linear = nn.Linear(config.hidden_size, config.embedding_size)

    @classmethod
    def from_package(cls) -> SpeakerEncoder:
        """The pretrained GE2E encoder whose weights the ``resemblyzer`` wheel carries, in eval mode on the CPU.

        Raises:
            DependencyError: ``resemblyzer`` is not installed.
            BundleError: its weights are damaged or of another shape.
        """
        path = cls.package_file()
        remedy = "pip install --force-reinstall resemblyzer==0.1.4"
        try:
            with Unfilled():
                encoder = cls()
            encoder.load_state_dict(_without_loss(path))
        except (BundleError, RuntimeError) as error:
            raise BundleError("does not hold the speaker encoder's weights", source=path, remedy=remedy) from error
        return encoder.eval()

    @staticmethod
    def package_file() -> Path:
        """Where the ``resemblyzer`` wheel keeps its weights.

        Raises:
            DependencyError: ``resemblyzer`` is not installed.
        """
        return package_folder("resemblyzer", remedy="pip install resemblyzer==0.1.4") / "pretrained.pt"

    @classmethod
    def from_file(cls, path: str | Path, *, space: str = "") -> SpeakerEncoder:
        """A GE2E encoder in Resemblyzer's form from a checkpoint of your own, in eval mode on the CPU.

        Args:
            path: its ``pretrained.pt``, or one with the same layer names; sizes are read from it.
            space: name of the embedding; needed unless the weights are the package's own.

        Raises:
            BundleError: the file is missing, damaged or holds another network.
            SpaceMismatchError: other weights than the package's, and ``space`` names none or the package's.
        """
        state = _without_loss(path)
        layers = sum(name.startswith("lstm.weight_ih_l") for name in state)
        if not layers or "linear.weight" not in state:
            raise BundleError("holds no GE2E speaker encoder (lstm, linear)", source=path, remedy="check the file")
        first, last = state["lstm.weight_ih_l0"], state["linear.weight"]
        own = cls.from_package().state_dict()
        same = own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)
        if not same and space in ("", SpeakerEncoderConfig.output_space):
            problem = "holds other weights than the package's, whose vectors cannot be compared"
            raise SpaceMismatchError(problem, source=path, remedy=f"name a space of its own: --space mine-{len(last)}")
        config = SpeakerEncoderConfig(
            n_mels=first.shape[1],
            hidden_size=first.shape[0] // 4,
            num_layers=layers,
            embedding_size=len(last),
            output_space=space or SpeakerEncoderConfig.output_space,
        )
        if space_size(config.output_space) != len(last):
            raise SpaceMismatchError(f"writes {len(last)} components, not those of {space}", source=path)
        encoder = cls(config)
        fit_state(encoder, state, path)
        return encoder.eval()

    def forward(self, mels: Tensor) -> Tensor:
        """Embed mel windows of equal length.

        Args:
            mels: ``(B, F, n_mels)`` power mels of :func:`crossmodal.audio.speaker_mel`.

        Returns:
            ``(B, embedding_size)``, unit length, no component negative.
        """
        with torch.autocast("cpu", enabled=False):  # many CPUs have no bf16 LSTM; does not touch CUDA's autocast
            _, (hidden, _) = self.lstm(mels)  # (L, B, H)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=-1)  # (B, E)

    def embed(self, waveform: np.ndarray | Tensor) -> Tensor:
        """Embed one utterance ``(T,)`` at 16 kHz (silence is not trimmed here: see ``audio.load_speech``).

        Returns:
            ``(embedding_size,)``, unit length, no component negative.
        """
        return self.embed_batch([waveform])[0]

    @torch.no_grad()
    def embed_batch(self, waveforms: Sequence[np.ndarray | Tensor], *, max_partials: int = 256) -> Tensor:
        """Embed utterances of any lengths, all their partials together.

        Args:
            waveforms: B waveforms ``(T_i,)`` at 16 kHz in [-1, 1]; quiet ones are raised to -30 dBFS.
            max_partials: most partial utterances in one forward pass.

        Returns:
            ``(B, embedding_size)``, unit length, no component negative, on the encoder's device.

        Raises:
            AudioError: a waveform is empty, not one-dimensional, or holds NaN or infinity.
        """
        device, window = self.linear.weight.device, AUDIO.speaker_partial_frames
        partials: list[Tensor] = []
        owners: list[int] = []
        for index, waveform in enumerate(waveforms):
            source = f"waveform {index}"
            signal = torch.as_tensor(waveform, dtype=torch.float32, device=device)
            if signal.ndim != 1 or signal.numel() == 0:
                shape = tuple(signal.shape)
                raise AudioError(f"expected samples of shape (T,), got {shape}", source=source, remedy="mix to mono")
            if not bool(torch.isfinite(signal).all()):
                raise AudioError("holds NaN or infinite samples", source=source, remedy="load it with audio.load")
            starts = partial_starts(signal.numel(), self.config)
            missing = (starts[-1] + window) * HOP - signal.numel()
            mel = speaker_mel(F.pad(raise_volume(signal), (0, max(missing, 0)))[None])[0]  # (F, M)
            partials += [mel[start : start + window] for start in starts]
            owners += [index] * len(starts)
        if not partials:
            return torch.zeros(0, self.config.embedding_size, device=device)
        embedded = torch.cat([self(chunk) for chunk in torch.stack(partials).split(max_partials)]).float()  # (P, E)
        total = embedded.new_zeros(len(waveforms), self.config.embedding_size)
        total.index_add_(0, torch.tensor(owners, device=device), embedded)
        return F.normalize(total, dim=-1)  # the mean's length does not matter
