"""Does it sound like the voice asked for? A loss on the speaker embedding of what the acoustic model says.

The speaker-consistency loss of YourTTS (Casanova et al., ICML 2022, section 2.2): predicted mel → frozen vocoder →
frozen speaker encoder, whose embedding should point to the one the model was conditioned on. Half of what is judged is
spoken in *swapped* voices, blends of two people who never said that sentence, so that the model learns to follow the
embedding where there are no recordings. There no mel says what is right: an anchor keeps it near what the model said
before this training, lest it please the encoder with sounds no one makes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.audio import speaker_mel
from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError
from crossmodal.losses.acoustic import mel_l1
from crossmodal.models.acoustic import AcousticModel
from crossmodal.models.speaker_encoder import SpeakerEncoder, raise_volume

_AUDIO = AudioConfig()
WINDOW = int(_AUDIO.speaker_partial_frames * _AUDIO.speaker_hop_ms * _AUDIO.sample_rate / 1000)
"""Samples that the speaker encoder hears at once (1.6 s)."""


@dataclass
class LikenessConfig:
    """The ``likeness`` part of an acoustic recipe."""

    vocoder: Path
    """Bundle folder with the vocoder to listen through."""
    start: Path
    """Bundle folder with the acoustic model that training starts from: the anchor, and what sets the F0 of a voice."""
    weight: float = 1.0
    """Of the cosine distance to the target embedding."""
    contrast: float = 0.3
    """Of the softmax over the batch: nearer to the own target than to the others' (GE2E, Wan et al. 2018, eq. 6)."""
    anchor: float = 0.3
    """Of the L1 distance of swapped mels to those of the model at the start."""
    scale: float = 10.0
    """Sharpness of that softmax."""
    projections: int = 2
    """The vocoder's phase-recovery steps, which cost time."""

    def __post_init__(self) -> None:
        if min(self.weight, self.contrast, self.anchor) < 0 or self.scale <= 0 or self.projections < 0:
            raise ConfigError("weights must not be negative, and scale must be above 0", source="likeness")


class Listener(nn.Module):
    """Frozen vocoder and speaker encoder: normalised mel → embedding."""

    def __init__(self, config: LikenessConfig, vocoder: nn.Module, encoder: SpeakerEncoder) -> None:
        super().__init__()
        self.config, self.vocoder, self.encoder = config, vocoder, encoder

    def forward(self, mel: Tensor, f0: Tensor) -> Tensor:
        """Embeddings ``(B, 256)`` of log-mels ``(B, F, 100)`` with F0 ``(B, F)`` in Hz; shorter ones are repeated."""
        spectrum, magnitude = self.vocoder.initial_spectrum(mel.transpose(1, 2), f0, textured=True)  # type: ignore[operator]
        wave = self.vocoder.project(spectrum, magnitude, self.config.projections)  # type: ignore[operator]
        wave = wave.repeat(1, -(-WINDOW // wave.shape[1]))[:, :WINDOW]
        heard = speaker_mel(raise_volume(wave))[:, : _AUDIO.speaker_partial_frames]
        return self.encoder(heard)


def likeness_terms(embeddings: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Cosine distance to the own target, and the softmax loss over all targets of the batch.

    Args:
        embeddings: ``(B, E)`` of what was heard, unit length.
        targets: ``(B, E)`` that were asked for, unit length.
        scale: of the cosines in the softmax.
    """
    cosine = embeddings @ targets.T  # (B, B)
    own = torch.arange(len(cosine), device=cosine.device)
    return 1.0 - cosine.diagonal().mean(), F.cross_entropy(scale * cosine, own)


def blend_voices(embeddings: Tensor) -> Tensor:
    """Each voice ``(B, E)`` of the batch moved a random way towards another one; unit length."""
    other = embeddings.roll(1, 0)
    share = torch.rand(len(embeddings), 1, device=embeddings.device)
    return F.normalize(embeddings * (1 - share) + other * share, dim=-1).roll(1, 0)


class Likeness(nn.Module):
    """The loss, with the frozen networks it needs.

    Args:
        config: weights.
        start: the model as it was when training began, its F0 calibrated.
        listener: judges.
    """

    def __init__(self, config: LikenessConfig, start: AcousticModel, listener: Listener) -> None:
        super().__init__()
        self.config, self.start, self.listener = config, start, listener
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, config: LikenessConfig) -> Likeness:
        """With the networks that ``config`` names.

        Raises:
            BundleError: a bundle lacks its network.
        """
        from crossmodal.bundle import Bundle

        listener = Listener(config, Bundle.open(config.vocoder).load("vocoder"), SpeakerEncoder.from_package())
        start = Bundle.open(config.start).load("acoustic")
        assert isinstance(start, AcousticModel)
        return cls(config, start, listener)

    def forward(self, model: AcousticModel, mel: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Terms for the mels ``(B, F, 100)`` that ``model`` predicted, and for its sentences in swapped voices.

        Returns:
            ``likeness`` (weighted sum), ``cosine`` (own voice) and ``cosine_swapped`` (not weighted, to log).
        """
        config, mask, voice = self.config, batch["frame_mask"], blend_voices(batch["embedding"])
        f0 = self._move_f0(batch["f0"], voice)
        said = self._speak(model, batch, voice, f0)
        with torch.no_grad():
            before = self._speak(self.start, batch, voice, f0)
        spoken = self._restore(model, torch.cat([mel, said]), torch.cat([mask, mask]))
        heard = self.listener(spoken, torch.cat([batch["f0"], f0]))  # in one go: the encoder's time hardly grows with B
        own, own_softmax = likeness_terms(heard[: len(mel)], batch["embedding"], config.scale)
        other, other_softmax = likeness_terms(heard[len(mel) :], voice, config.scale)
        total = config.weight * (own + other) / 2 + config.contrast * (own_softmax + other_softmax) / 2
        total = total + config.anchor * mel_l1(said, before, mask)
        return {"likeness": total, "cosine": (1 - own).detach(), "cosine_swapped": (1 - other).detach()}

    @staticmethod
    def _restore(model: AcousticModel, mel: Tensor, mask: Tensor) -> Tensor:
        """Log-mel of normalised ``mel``; what is only padding is silent."""
        return torch.where(mask[..., None] > 0, model.restore_mel(mel), math.log(_AUDIO.mel_floor))

    def _move_f0(self, f0: Tensor, voice: Tensor) -> Tensor:
        """The melody ``f0 (B, F)`` at the level that the calibration gives each ``voice (B, E)``."""
        voiced = (f0 > 0).float()
        log_f0 = f0.clamp_min(1.0).log()
        mean = (log_f0 * voiced).sum(1, keepdim=True) / voiced.sum(1, keepdim=True).clamp_min(1.0)
        level = self.start.f0_level + voice @ self.start.f0_weight  # (B,)
        return (log_f0 - mean + level[:, None]).exp() * voiced

    @staticmethod
    def _speak(model: AcousticModel, batch: Mapping[str, Any], voice: Tensor, f0: Tensor) -> Tensor:
        """Normalised mel ``(B, F, 100)`` of the batch's phones and durations in other voices."""
        return model(
            batch["phones"], batch["stress"], batch["word_final"], batch["marks"], batch["token_mask"], voice,
            batch["token"], batch["position"], batch["frame_mask"], f0, batch["energy"],
        ).mel  # fmt: skip
