"""Acoustic model made of coqui-tts's SpeedySpeech parts (Vainer and Dušek 2020), behind the compact model's interface.

Residual dilated convolutions with batch normalisation encode tokens and decode frames, as coqui's ``ForwardTTS`` puts
them together; durations come from outside (forced alignment) rather than from its own aligner, pitch and energy are
predicted as in FastSpeech 2, and the speaker embedding is projected and added to the encoded tokens. Training and
inference are those of :class:`~crossmodal.models.acoustic.AcousticModel`, whose networks this class replaces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError, DependencyError
from crossmodal.models.acoustic import AcousticModel
from crossmodal.models.spaces import space_size
from crossmodal.text import PHONES, PUNCTUATION

AUDIO = AudioConfig()
STRESSES, WORD_ENDS = 3, 2
SHORTEST = 13
"""coqui convolves first and pads afterwards: kernel 4 with dilation 4 needs as many tokens or frames."""


@dataclass(frozen=True)
class CoquiAcousticConfig:
    """Size and vocabulary; the defaults are SpeedySpeech's."""

    phones: tuple[str, ...] = PHONES
    """Phone inventory the embedding table was trained with; must be that of :mod:`crossmodal.text`."""
    punctuation: tuple[str, ...] = PUNCTUATION
    """Punctuation marks, likewise."""
    channels: int = 128
    encoder_blocks: int = 13
    """Residual blocks, each with dilation 1, 2 or 4 in turn."""
    decoder_blocks: int = 17
    predictor_channels: int = 128
    """Width of the predictors of duration, energy, pitch and voicing."""
    predictor_dropout: float = 0.1
    input_space: str = "ge2e-256"
    """The speaker-embedding space read."""
    max_pause: float = 0.3
    """Longest pause at a punctuation mark, in seconds; a full stop inside a text may take 1.5 times that."""
    edge_pause: float = 0.1
    """Pause before the first and after the last phone, in seconds."""
    max_phone: float = 0.4
    """Longest phone, in seconds at normal speed."""

    def __post_init__(self) -> None:
        for name in ("channels", "encoder_blocks", "decoder_blocks", "predictor_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", source="acoustic-coqui")
        if self.phones != PHONES or self.punctuation != PUNCTUATION:
            problem = "was trained with another set of phones or marks than this version's text front-end"
            raise ConfigError(problem, source="acoustic-coqui", remedy="use a bundle made for this version")
        space_size(self.input_space)

    @classmethod
    def debug(cls) -> CoquiAcousticConfig:
        """Runs in milliseconds."""
        return cls(channels=16, encoder_blocks=2, decoder_blocks=2, predictor_channels=8)


class CoquiAcousticModel(AcousticModel):
    """Tokens + speaker embedding → durations, F0, voicing, energy, log-mel, by coqui-tts's networks.

    Raises:
        DependencyError: ``coqui-tts`` cannot be imported.
    """

    kind: ClassVar[str] = "acoustic-coqui"
    config: CoquiAcousticConfig  # type: ignore[assignment]

    def __init__(self, config: CoquiAcousticConfig | None = None) -> None:
        nn.Module.__init__(self)  # none of the compact model's networks
        self.config = config = config or CoquiAcousticConfig()
        try:
            from TTS.tts.layers.feed_forward.decoder import Decoder
            from TTS.tts.layers.feed_forward.encoder import Encoder
            from TTS.tts.layers.generic.pos_encoding import PositionalEncoding
            from TTS.tts.layers.glow_tts.duration_predictor import DurationPredictor
        except ImportError as error:
            problem = f"cannot be imported ({error})"
            raise DependencyError(
                problem, source="coqui-tts", remedy="pip install 'coqui-tts[codec]==0.28.*'"
            ) from error

        def blocks(count: int) -> dict[str, Any]:
            dilations = [(1, 2, 4)[i % 3] for i in range(count)]
            return {"kernel_size": 4, "dilations": dilations, "num_conv_blocks": 2, "num_res_blocks": count}

        def predictor() -> nn.Module:
            return DurationPredictor(width, config.predictor_channels, 3, config.predictor_dropout)

        width = config.channels
        self.token = nn.Embedding(len(config.phones) * STRESSES * WORD_ENDS * len(config.punctuation), width)
        self.encoder: Any = Encoder(width, width, "residual_conv_bn", blocks(config.encoder_blocks))
        self.decoder: Any = Decoder(AUDIO.n_mels, width, "residual_conv_bn", blocks(config.decoder_blocks))
        self.positions = PositionalEncoding(width)
        self.timing: Any = predictor()
        self.energy = predictor()
        self.pitch: Any = predictor()
        self.voicing = predictor()
        self.tone_in = nn.Conv1d(1, width, 3, padding=1)
        self.energy_in = nn.Conv1d(1, width, 3, padding=1)
        size = space_size(config.input_space)
        self.speaker: Any = nn.Linear(size, width)
        self.pitch_line = nn.Linear(size, 1)
        nn.init.zeros_(self.pitch_line.weight)
        nn.init.constant_(self.pitch_line.bias, math.log(150.0))
        self._register_statistics(size)

    def token_ids(self, phones: Tensor, stress: Tensor, word_final: Tensor, marks: Tensor) -> Tensor:
        """One number for each combination: ``(B, N)`` each → ``(B, N)``; coqui embeds a single id a token."""
        return ((phones * STRESSES + stress) * WORD_ENDS + word_final) * len(self.config.punctuation) + marks

    def encode(
        self, phones: Tensor, stress: Tensor, word_final: Tensor, marks: Tensor, mask: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the compact model: states ``(B, N, C)``, condition ``(B, C)``, log durations and energies ``(B, N)``."""
        keep = mask[:, None].to(embedding.dtype)  # (B, 1, N)
        tokens = self.token(self.token_ids(phones, stress, word_final, marks)).transpose(1, 2)  # (B, C, N)
        condition = self.speaker(embedding * embedding.shape[-1] ** 0.5)  # (B, C)
        states = (self._run(self.encoder, tokens * keep, keep) + condition[..., None]) * keep  # (B, C, N)
        duration = self.timing(states, keep).squeeze(1) + 1.8  # (B, N)
        energy = self.energy(states, keep).squeeze(1)
        return states.transpose(1, 2), condition, duration, energy

    def contour(
        self, states: Tensor, position: Tensor, condition: Tensor, mask: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Frame states ``(B, F, C)`` → log F0 ``(B, F)`` and voicing logits ``(B, F)``."""
        keep = mask[:, None].to(states.dtype)
        x = self._placed(states, keep)  # (B, C, F)
        line = self.pitch_line(embedding * embedding.shape[-1] ** 0.5)  # (B, 1)
        return line + self.pitch(x, keep).squeeze(1), self.voicing(x, keep).squeeze(1)

    def decode(
        self,
        states: Tensor,
        position: Tensor,
        energy: Tensor,
        log_f0: Tensor,
        voiced: Tensor,
        condition: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Frame states ``(B, F, C)``, energy, log F0 and voicing ``(B, F)`` → normalised log-mel ``(B, F, 100)``."""
        keep = mask[:, None].to(states.dtype)
        tone = ((log_f0 - 5.0) * voiced)[:, None] * keep  # (B, 1, F)
        x = self._placed(states, keep) + self.tone_in(tone) + self.energy_in(energy[:, None] * keep)
        return self._run(self.decoder, x * keep, keep).transpose(1, 2)

    @staticmethod
    def _run(network: Any, x: Tensor, keep: Tensor) -> Tensor:
        """``network`` on ``x (B, C, L)`` with mask ``keep (B, 1, L)``, padded for as long as it needs."""
        missing = max(0, SHORTEST - x.shape[-1])
        return network(F.pad(x, (0, missing)), F.pad(keep, (0, missing)))[..., : x.shape[-1]]

    def _placed(self, states: Tensor, keep: Tensor) -> Tensor:
        """Frame states ``(B, F, C)`` with the sinusoidal position of each frame → ``(B, C, F)``."""
        return self.positions(states.transpose(1, 2), keep)
