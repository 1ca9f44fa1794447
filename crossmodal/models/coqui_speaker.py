"""coqui's speaker encoders on waveforms: the H/ASP ResNet that YourTTS hears with, and the LSTM of GE2E's form.

H/ASP: Heo et al. 2020, "Clova Baseline System for the VoxCeleb Speaker Recognition Challenge 2020". The network is
built by coqui-tts from the two parts of ``config_se.json`` that describe it; its vectors form a space of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.config import AudioConfig
from crossmodal.errors import AudioError, BundleError, ConfigError, SpaceMismatchError
from crossmodal.models.spaces import space_size

_AUDIO = {"sample_rate": 16_000, "fft_size": 512, "win_length": 400, "hop_length": 160, "preemphasis": 0.97}


def _settings(**model: Any) -> str:
    model = {"model_name": "resnet", "input_dim": 64, "proj_dim": 512, "log_input": True, **model}
    audio = {**_AUDIO, "num_mels": model["input_dim"]}
    return json.dumps({"model_params": {**model, "use_torch_spec": True}, "audio": audio})


@dataclass(frozen=True)
class CoquiSpeakerEncoderConfig:
    """What coqui-tts builds the encoder from; the defaults are those of the one released with YourTTS."""

    settings: str = _settings()
    """``model_params`` and ``audio`` of ``config_se.json``, as JSON."""
    output_space: str = "yourtts-512"
    """Name of the embedding space."""

    def __post_init__(self) -> None:
        size = self.values()["model_params"].get("proj_dim")
        if size != space_size(self.output_space):
            problem = f"writes {size} components, not those of {self.output_space}"
            raise SpaceMismatchError(problem, source="speaker-encoder-coqui", remedy="name a space of that size")

    def values(self) -> dict[str, Any]:
        """The settings as a mapping.

        Raises:
            ConfigError: they are not what ``config_se.json`` holds.
        """
        try:
            values = json.loads(self.settings)
            if isinstance(values["model_params"], dict) and isinstance(values["audio"], dict):
                return values
        except (ValueError, KeyError, TypeError):
            pass
        remedy = "give model_params and audio of config_se.json"
        raise ConfigError("are not settings of a speaker encoder", source="speaker-encoder-coqui", remedy=remedy)

    @classmethod
    def debug(cls) -> CoquiSpeakerEncoderConfig:
        """Runs in milliseconds; the ResNet has one size only, so this is an LSTM."""
        model = {"model_name": "lstm", "input_dim": 16, "proj_dim": 8, "lstm_dim": 12, "num_lstm_layers": 1}
        return cls(settings=_settings(**model), output_space="coqui-8")


class CoquiSpeakerEncoder(nn.Module):
    """Speech → speaker embedding."""

    kind: ClassVar[str] = "speaker-encoder-coqui"

    def __init__(self, config: CoquiSpeakerEncoderConfig | None = None) -> None:
        super().__init__()
        from crossmodal.models.coqui_tts import build_speaker_encoder

        self.config = config = config or CoquiSpeakerEncoderConfig()
        network: Any = build_speaker_encoder(config.values())
        self.network: Any = network
        self.sample_rate = int(network.audio_config["sample_rate"])

    @classmethod
    def from_files(cls, weights: str | Path, config: str | Path, *, space: str = "") -> CoquiSpeakerEncoder:
        """Read coqui's ``model_se.pth`` and ``config_se.json``, in eval mode on the CPU.

        Args:
            weights: the checkpoint.
            config: the JSON beside it.
            space: name of the embedding; by default ``yourtts-512`` for a ResNet of that size, else ``coqui-<size>``.

        Raises:
            BundleError: a file is missing, damaged, or does not fit the other.
            ConfigError: coqui-tts cannot build such an encoder, or it reads mels instead of waveforms.
        """
        from crossmodal.models.coqui_import import read_json
        from crossmodal.models.foreign_weights import fit_state, read_state

        content = read_json(Path(config))
        kept = {key: content[key] for key in ("model_params", "audio") if isinstance(content.get(key), dict)}
        if len(kept) != 2:
            remedy = "give the config_se.json of a speaker encoder"
            raise BundleError("has no model_params and audio", source=config, remedy=remedy)
        size, name = kept["model_params"].get("proj_dim"), str(kept["model_params"].get("model_name", "")).lower()
        space = space or ("yourtts-512" if (name, size) == ("resnet", 512) else f"coqui-{size}")
        encoder = cls(CoquiSpeakerEncoderConfig(settings=json.dumps(kept), output_space=space))
        fit_state(encoder.network, read_state(weights), weights)
        return encoder.eval()

    def forward(self, waveforms: Tensor) -> Tensor:
        """Waveforms ``(B, T)`` of equal length at :attr:`sample_rate` → ``(B, D)``, unit length."""
        return self.network(waveforms.clone(), l2_norm=True)  # it writes into its input

    @torch.no_grad()
    def embed(self, waveform: np.ndarray | Tensor) -> Tensor:
        """Speech ``(T,)`` at 16 kHz → ``(D,)``, unit length: the mean over ten stretches of 250 hops, as coqui-tts
        takes it.

        Raises:
            AudioError: the waveform is empty, not one-dimensional, or holds NaN or infinity.
        """
        from torchaudio.functional import resample

        signal = torch.as_tensor(waveform, dtype=torch.float32, device=next(self.parameters()).device)
        if signal.ndim != 1 or signal.numel() == 0:
            problem = f"expected samples of shape (T,), got {tuple(signal.shape)}"
            raise AudioError(problem, source="waveform", remedy="mix to mono")
        if not bool(torch.isfinite(signal).all()):
            raise AudioError("holds NaN or infinite samples", source="waveform", remedy="load it with audio.load")
        signal = resample(signal, AudioConfig().sample_rate, self.sample_rate)
        return F.normalize(self.network.compute_embedding(signal[None])[0], dim=-1).clone()

    def embed_batch(self, waveforms: Sequence[np.ndarray | Tensor]) -> Tensor:
        """Utterances of any lengths → ``(B, D)``."""
        if not waveforms:
            return torch.zeros(0, space_size(self.config.output_space))
        return torch.stack([self.embed(waveform) for waveform in waveforms])
