"""Acoustic model: phones + speaker embedding → log-mel and F0, in one pass without autoregression.

FastSpeech 2's plan (Ren et al., ICLR 2021: predict duration, pitch and energy, then the mel) with ConvNeXt-1D blocks
(Liu
et al., "A ConvNet for the 2020s", CVPR 2022) instead of attention, each modulated by the speaker (FiLM, Perez et
al., AAAI
2018). The decoder sees, at each frame, the phone, the place within the phone, and what a pulse train at the
predicted F0 would
look like in the mel, so that its harmonics stand where the vocoder will put them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.audio import mel_filterbank
from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError
from crossmodal.models.spaces import space_size
from crossmodal.text import PHONES, PUNCTUATION, TokenSequence

AUDIO = AudioConfig()
F0_RANGE = (60.0, 600.0)
"""Hz between which F0 is predicted."""
FRAMES_PER_SECOND = AUDIO.sample_rate / AUDIO.hop_length
SPEECH_LEVEL = -3.0
"""Natural logarithm of the mean mel amplitude of the loudest half of the frames; every clip is brought to it."""


@dataclass(frozen=True)
class AcousticConfig:
    """Size and vocabulary of the acoustic model."""

    phones: tuple[str, ...] = PHONES
    """Phone inventory the embedding table was trained with; must be that of :mod:`crossmodal.text`."""
    punctuation: tuple[str, ...] = PUNCTUATION
    """Punctuation marks, likewise."""
    encoder_channels: int = 192
    encoder_blocks: int = 4
    decoder_channels: int = 256
    decoder_blocks: int = 6
    pitch_channels: int = 128
    """Width of the frame-level pitch network."""
    pitch_blocks: int = 3
    kernel: int = 7
    """Tokens or frames seen by each block's depth-wise convolution."""
    expansion: int = 3
    """Inner width of a block as a multiple of its channels."""
    speaker_hidden: int = 128
    speaker_channels: int = 96
    """Width of the condition made of the speaker embedding."""
    speaker_dropout: float = 0.1
    predictor_dropout: float = 0.3
    """Dropout in the duration and energy predictor, which overfits first."""
    input_space: str = "ge2e-256"
    """The speaker-embedding space read."""
    max_pause: float = 0.3
    """Longest pause at a punctuation mark, in seconds; a full stop inside a text may take 1.5 times that."""
    edge_pause: float = 0.1
    """Pause before the first and after the last phone, in seconds."""
    max_phone: float = 0.4
    """Longest phone, in seconds at normal speed."""

    def __post_init__(self) -> None:
        for name in ("encoder_channels", "encoder_blocks", "decoder_channels", "decoder_blocks", "pitch_channels",
                     "pitch_blocks", "expansion", "speaker_hidden", "speaker_channels"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", source="acoustic")
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, not {self.kernel}", source="acoustic")
        if self.phones != PHONES or self.punctuation != PUNCTUATION:
            raise ConfigError(
                "was trained with another set of phones or marks than this version's text front-end",
                source="acoustic",
                remedy="use a bundle made for this version",
            )
        space_size(self.input_space)

    @classmethod
    def debug(cls) -> AcousticConfig:
        """Runs in milliseconds."""
        return cls(
            encoder_channels=16, encoder_blocks=1, decoder_channels=16, decoder_blocks=1, pitch_channels=8,
            pitch_blocks=1, kernel=3, expansion=1, speaker_hidden=8, speaker_channels=8,
        )  # fmt: skip


@dataclass(frozen=True)
class AcousticOutput:
    """One spoken sentence before the vocoder: F frames of 12.5 ms."""

    mel: Tensor
    """``(100, F)`` natural-log mel (:func:`crossmodal.audio.log_mel`)."""
    f0: Tensor
    """``(F,)`` Hz; 0 where unvoiced."""
    durations: Tensor
    """``(N,)`` frames of each token; they sum to F."""


@dataclass(frozen=True)
class AcousticPrediction:
    """What :meth:`AcousticModel.forward` returns in training."""

    mel: Tensor
    """``(B, F, 100)`` normalised log-mel."""
    log_duration: Tensor
    """``(B, N)`` natural logarithm of frames."""
    energy: Tensor
    """``(B, N)`` mean normalised level of each token."""
    log_f0: Tensor
    """``(B, F)`` natural logarithm of Hz, also where unvoiced."""
    voicing: Tensor
    """``(B, F)`` logit of being voiced."""


def frame_layout(durations: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Which token each frame belongs to, and where in it.

    Args:
        durations: ``(N,)`` frames of each token.

    Returns:
        ``(F,)`` token of each frame, and ``(F, 3)``: place from 0 to 1, log frames since the token's start, log frames
        until its end.
    """
    durations = np.asarray(durations, dtype=np.int64)
    token = np.repeat(np.arange(len(durations)), durations)
    since = np.arange(len(token)) - np.repeat(np.cumsum(durations) - durations, durations)
    length = durations[token]
    place = (since + 0.5) / np.maximum(length, 1)
    position = np.stack([place, np.log1p(since) / 3.0, np.log1p(length - 1 - since) / 3.0], axis=-1)
    return token, position.astype(np.float32)


def comb_table(steps: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """What a pulse train looks like in the mel, for ``steps`` F0 values spaced evenly in log frequency.

    Returns:
        log F0 ``(S,)`` and ``(S, 100)``: log mel minus its smooth part, about [-2, 1]; flat where harmonics cannot
        be told.
    """
    grid = np.linspace(math.log(F0_RANGE[0]), math.log(F0_RANGE[1]), steps)
    window = np.hanning(AUDIO.win_length + 2)[1:-1]
    time = (np.arange(AUDIO.win_length) - AUDIO.win_length / 2) / AUDIO.sample_rate
    f0 = np.exp(grid)[:, None]  # (S, 1)
    harmonics = np.floor(AUDIO.sample_rate / 2 / f0)
    half = np.pi * f0 * time  # (S, T)
    pulse = np.abs(np.sin(half)) < 1e-9
    # Dirichlet's kernel: the sum of cos(2 k half) over k = 1 … harmonics
    train = (np.sin((2 * harmonics + 1) * half) / np.where(pulse, 1.0, np.sin(half)) - 1) / 2
    train = np.where(pulse, harmonics, train)
    spectrum = np.abs(np.fft.rfft(train * window, AUDIO.n_fft))  # (S, K)
    table = np.log(spectrum @ mel_filterbank(AUDIO.n_fft, AUDIO.n_mels).T + 1e-3)  # (S, 100)
    kernel = np.hanning(27)[1:-1]
    padded = np.pad(table, ((0, 0), (12, 12)), mode="edge")
    smooth = np.stack([np.convolve(row, kernel / kernel.sum(), mode="valid") for row in padded])
    return grid, (table - smooth).clip(-2.0, 1.5)


class FiLMBlock(nn.Module):
    """ConvNeXt-1D block whose normalised activations are scaled and shifted by the speaker condition."""

    def __init__(self, channels: int, condition: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * channels)
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)
        nn.init.normal_(self.narrow.weight, std=0.02)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """``x (B, L, C)``, ``condition (B, S)``, ``mask (B, L, 1)`` → ``(B, L, C)``."""
        y = self.depthwise((x * mask).transpose(1, 2)).transpose(1, 2)  # (B, L, C)
        scale, shift = self.film(condition)[:, None].chunk(2, dim=-1)  # (B, 1, C) each
        y = self.norm(y) * (1 + scale) + shift
        return x + self.narrow(F.gelu(self.widen(y)))


class AcousticModel(nn.Module):
    """Tokens + speaker embedding → durations, F0, voicing, energy, log-mel.

    ``forward`` is for training (durations, F0 and energy are given); :meth:`infer` speaks.
    """

    kind: ClassVar[str] = "acoustic"
    mel_mean: Tensor
    mel_std: Tensor
    voice_mean: Tensor
    voice_gain: Tensor
    f0_weight: Tensor
    f0_level: Tensor
    f0_range: Tensor
    comb_grid: Tensor
    comb: Tensor

    def __init__(self, config: AcousticConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AcousticConfig()
        speaker = space_size(config.input_space)
        enc, dec, cond = config.encoder_channels, config.decoder_channels, config.speaker_channels
        self.phone = nn.Embedding(len(config.phones), enc)
        self.stress = nn.Embedding(3, enc)
        self.word_final = nn.Embedding(2, enc)
        self.mark = nn.Embedding(len(config.punctuation), enc)
        self.speaker = nn.Sequential(
            nn.Linear(speaker, config.speaker_hidden),
            nn.GELU(),
            nn.Dropout(config.speaker_dropout),
            nn.Linear(config.speaker_hidden, cond),
        )
        self.encoder = self._blocks(config.encoder_blocks, enc, config.expansion)
        self.timing = self._blocks(1, enc, 1)  # its own block keeps the duration loss from bending the encoder
        self.timing_out = nn.Sequential(nn.Dropout(config.predictor_dropout), nn.Linear(enc, 2))
        self.pitch_in = nn.Linear(enc + 3, config.pitch_channels)
        self.pitch = self._blocks(config.pitch_blocks, config.pitch_channels, 2)
        self.pitch_out = nn.Sequential(nn.LayerNorm(config.pitch_channels), nn.Linear(config.pitch_channels, 2))
        self.pitch_line = nn.Linear(speaker, 1)
        self.frame_in = nn.Linear(enc + 3 + 1 + 2, dec)
        self.comb_in = nn.Linear(AUDIO.n_mels, dec, bias=False)
        self.decoder = self._blocks(config.decoder_blocks, dec, config.expansion)
        self.mel_out = nn.Sequential(nn.LayerNorm(dec), nn.Linear(dec, AUDIO.n_mels))
        grid, comb = comb_table()
        self.register_buffer("comb_grid", torch.tensor(grid, dtype=torch.float32), persistent=False)
        self.register_buffer("comb", torch.tensor(comb, dtype=torch.float32), persistent=False)
        self._register_statistics(speaker)
        nn.init.zeros_(self.pitch_line.weight)
        nn.init.constant_(self.pitch_line.bias, math.log(150.0))

    def _register_statistics(self, speaker: int) -> None:
        """What training measures beside the weights: mel statistics, and the calibration of F0."""
        self.register_buffer("mel_mean", torch.full((AUDIO.n_mels,), -5.0))
        self.register_buffer("mel_std", torch.full((AUDIO.n_mels,), 2.0))
        # Speech of a new voice comes out nearer to the average voice than its embedding: infer exaggerates by that.
        self.register_buffer("voice_mean", torch.zeros(speaker))
        self.register_buffer("voice_gain", torch.ones(()))
        # Fitted after training: a voice's mean log F0 is f0_level + embedding · f0_weight, and its
        # melody is widened by f0_range. A level of 0 leaves both as the network says.
        self.register_buffer("f0_weight", torch.zeros(speaker))
        self.register_buffer("f0_level", torch.zeros(()))
        self.register_buffer("f0_range", torch.ones(()))

    def _blocks(self, count: int, channels: int, expansion: int) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            FiLMBlock(channels, config.speaker_channels, config.kernel, expansion) for _ in range(count)
        )

    # ------------------------------------------------------------------ parts

    def encode(
        self, phones: Tensor, stress: Tensor, word_final: Tensor, marks: Tensor, mask: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens ``(B, N)`` and embedding ``(B, 256)`` → states ``(B, N, C)``, condition ``(B, S)``, log durations
        ``(B, N)``, energies ``(B, N)``."""
        condition = self.speaker(embedding * embedding.shape[-1] ** 0.5)
        x = self.phone(phones) + self.stress(stress) + self.word_final(word_final) + self.mark(marks)  # (B, N, C)
        keep = mask[..., None]
        for block in self.encoder:
            x = block(x, condition, keep)
        y = x
        for block in self.timing:
            y = block(y, condition, keep)
        duration, energy = self.timing_out(y).unbind(-1)
        return x * keep, condition, duration + 1.8, energy

    def contour(
        self, states: Tensor, position: Tensor, condition: Tensor, mask: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Frame states ``(B, F, C)`` → log F0 ``(B, F)`` and voicing logits ``(B, F)``."""
        x = self.pitch_in(torch.cat([states, position], dim=-1))
        for block in self.pitch:
            x = block(x, condition, mask[..., None])
        residual, voicing = self.pitch_out(x).unbind(-1)
        line = self.pitch_line(embedding * embedding.shape[-1] ** 0.5)  # (B, 1)
        return line + residual, voicing

    def harmonics(self, log_f0: Tensor, voiced: Tensor) -> Tensor:
        """The mel comb of a pulse train: log F0 ``(B, F)`` and voicing in 0..1 → ``(B, F, 100)``."""
        first, step = self.comb_grid[0], self.comb_grid[1] - self.comb_grid[0]
        place = ((log_f0 - first) / step).clamp(0, len(self.comb_grid) - 1.001)
        low = place.floor().long()
        weight = (place - low)[..., None]
        return (self.comb[low] * (1 - weight) + self.comb[low + 1] * weight) * voiced[..., None]

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
        tone = (log_f0 - 5.0) * voiced
        extra = torch.stack([energy, tone, voiced], dim=-1)  # (B, F, 3)
        x = self.frame_in(torch.cat([states, position, extra], dim=-1)) + self.comb_in(self.harmonics(log_f0, voiced))
        for block in self.decoder:
            x = block(x, condition, mask[..., None])
        return self.mel_out(x)

    @staticmethod
    def spread(values: Tensor, token: Tensor) -> Tensor:
        """Token values ``(B, N)`` or ``(B, N, C)`` → frames, by token of each frame ``(B, F)``."""
        if values.ndim == 2:
            return values.gather(1, token)
        return values.gather(1, token[..., None].expand(-1, -1, values.shape[-1]))

    # --------------------------------------------------------------- training

    def forward(
        self, phones: Tensor, stress: Tensor, word_final: Tensor, marks: Tensor, token_mask: Tensor, embedding: Tensor,
        token: Tensor, position: Tensor, frame_mask: Tensor, f0: Tensor, energy: Tensor,
    ) -> AcousticPrediction:  # fmt: skip
        """Everything at once, the decoder driven by the true F0 and energy (teacher forcing).

        Args:
            phones, stress, word_final, marks: ``(B, N)`` long.
            token_mask: ``(B, N)`` 1 where there is a token.
            embedding: ``(B, 256)`` unit-length speaker embedding of the utterance.
            token: ``(B, F)`` token of each frame; position: ``(B, F, 3)``, see :func:`frame_layout`.
            frame_mask: ``(B, F)`` 1 where there is a frame.
            f0: ``(B, F)`` Hz, 0 where unvoiced.
            energy: ``(B, N)`` mean normalised level of each token.
        """
        states, condition, log_duration, energy_hat = self.encode(
            phones, stress, word_final, marks, token_mask, embedding
        )
        frames = self.spread(states, token)  # (B, F, C)
        log_f0, voicing = self.contour(frames, position, condition, frame_mask, embedding)
        voiced = (f0 > 0).to(frames.dtype)
        given = torch.where(f0 > 0, f0.clamp_min(1.0).log(), log_f0.detach())
        mel = self.decode(frames, position, self.spread(energy, token), given, voiced, condition, frame_mask)
        return AcousticPrediction(mel, log_duration, energy_hat, log_f0, voicing)

    def normalise_mel(self, mel: Tensor) -> Tensor:
        """Log-mel ``(..., F, 100)`` → zero mean and unit deviation per band over the training data."""
        return (mel - self.mel_mean) / self.mel_std

    def restore_mel(self, mel: Tensor) -> Tensor:
        """The reverse of :meth:`normalise_mel`."""
        return mel * self.mel_std + self.mel_mean

    # -------------------------------------------------------------- inference

    @torch.no_grad()
    def infer(
        self,
        tokens: TokenSequence,
        embedding: Tensor,
        *,
        speed: float = 1.0,
        pitch: float = 0.0,
        seed: int | None = None,
        variation: float = 0.0,
    ) -> AcousticOutput:
        """Speak one sentence.

        Args:
            tokens: :func:`crossmodal.text.encode` of the sentence.
            embedding: ``(256,)`` speaker embedding.
            speed: 0.5 (half as fast) to 2.
            pitch: semitones to add, -12 to 12.
            seed: of the variation.
            variation: 0 reads the same sentence always alike; 1 varies rhythm and melody as people do.

        Returns:
            log-mel of constant loudness, F0 and durations.

        Raises:
            ConfigError: speed, pitch or the embedding's size is out of range.
        """
        self._check(embedding, speed, pitch)
        device = self.mel_mean.device
        embedding = F.normalize(embedding.to(device).float(), dim=0)[None]  # (1, 256)

        def row(values: Sequence[int | bool]) -> Tensor:
            return torch.tensor([[int(v) for v in values]], device=device)

        voice = self._exaggerate(embedding)
        phones = row(tokens.phones)
        mask = torch.ones(1, len(tokens), device=device)
        states, condition, log_duration, energy = self.encode(
            phones, row(tokens.stress), row(tokens.word_final), row(tokens.punctuation), mask, voice
        )
        noise = self._noise(len(tokens), seed, variation, device)  # (2, N)
        durations = self._durations(log_duration[0] + 0.08 * noise[0], tokens, speed)
        index, position = frame_layout(durations.tolist())
        token = torch.tensor(index, device=device)[None]  # (1, F)
        place = torch.tensor(position, device=device)[None]  # (1, F, 3)
        frame_mask = torch.ones_like(token, dtype=torch.float32)
        frames = self.spread(states, token)
        log_f0, voicing = self.contour(frames, place, condition, frame_mask, voice)
        silent = self.spread((phones == 0).float(), token)  # (1, F)
        voiced = (torch.sigmoid(voicing) > 0.5).float() * (1 - silent)
        log_f0 = self._calibrate(log_f0, voiced, embedding) + 0.05 * noise[1, index] + pitch * math.log(2) / 12
        log_f0 = log_f0.clamp(math.log(F0_RANGE[0]), math.log(F0_RANGE[1]))
        mel = self.decode(frames, place, self.spread(energy, token), log_f0, voiced, condition, frame_mask)
        mel = self._level(self.restore_mel(mel)[0], silent[0])
        return AcousticOutput(mel.T.contiguous(), (log_f0.exp() * voiced)[0], durations)

    def _check(self, embedding: Tensor, speed: float, pitch: float) -> None:
        size = space_size(self.config.input_space)
        if embedding.shape != (size,):
            raise ConfigError(
                f"expected a speaker embedding ({size},), got {tuple(embedding.shape)}", source="embedding"
            )
        if not 0.5 <= speed <= 2.0:
            raise ConfigError(f"{speed:g} is out of range", source="speed", remedy="use 0.5 to 2")
        if not -12.0 <= pitch <= 12.0:
            raise ConfigError(f"{pitch:g} is out of range", source="pitch", remedy="use -12 to 12 semitones")

    @staticmethod
    def _noise(count: int, seed: int | None, variation: float, device: torch.device) -> Tensor:
        """Slow random curves ``(2, N)`` for rhythm and melody; 0 without variation."""
        if variation == 0.0:
            return torch.zeros(2, count, device=device)
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        white = torch.randn(1, 2, count + 8, generator=generator)
        slow = F.avg_pool1d(white, 9, stride=1)[0] * 3.0  # unit deviation again
        return slow.to(device) * variation

    def _durations(self, log_duration: Tensor, tokens: TokenSequence, speed: float) -> Tensor:
        """Whole frames ``(N,)`` of each token: capped, scaled by speed, rounded without drift, at least 1."""
        config = self.config
        frames = log_duration.exp().cpu()
        limit = torch.full_like(frames, config.max_phone * FRAMES_PER_SECOND)
        for i, (phone, mark) in enumerate(zip(tokens.phones, tokens.punctuation, strict=True)):
            if phone == 0:
                ends = self.config.punctuation[mark] in (".", "?", "!")
                limit[i] = config.max_pause * FRAMES_PER_SECOND * (1.5 if ends else 1.0)
                if i in (0, len(tokens) - 1):
                    limit[i] = config.edge_pause * FRAMES_PER_SECOND
        frames = torch.minimum(frames, limit).clamp_min(1.0) / speed
        edges = frames.cumsum(0).round().long()
        durations = edges.diff(prepend=edges.new_zeros(1)).clamp_min(1)
        return durations

    def _exaggerate(self, embedding: Tensor) -> Tensor:
        """Embedding ``(1, 256)`` moved away from the mean voice; unit length, no component negative."""
        if float(self.voice_gain) == 1.0:
            return embedding
        away = self.voice_mean + self.voice_gain * (embedding - self.voice_mean)
        return F.normalize(away.clamp_min(0.0), dim=-1)

    def _calibrate(self, log_f0: Tensor, voiced: Tensor, embedding: Tensor) -> Tensor:
        """Move the contour (log F0 ``(1, F)``) to the voice's level and widen it to natural range."""
        if float(self.f0_level) == 0.0:
            return log_f0
        mean = (log_f0 * voiced).sum() / voiced.sum().clamp_min(1.0)
        return self.f0_level + embedding @ self.f0_weight + self.f0_range * (log_f0 - mean)

    def _level(self, mel: Tensor, silent: Tensor) -> Tensor:
        """Bring speech to one loudness, and let pauses fall silent (``mel (F, 100)``, ``silent (F,)``)."""
        mel = mel + (SPEECH_LEVEL - speech_level(mel, silent))
        inside = F.avg_pool1d(silent[None, None], 5, stride=1, padding=2, count_include_pad=False)[0, 0] > 0.99
        return (mel - 3.0 * inside.float()[:, None]).clamp_min(math.log(AUDIO.mel_floor))


def speech_level(mel: Tensor, silent: Tensor | None = None) -> Tensor:
    """Loudness of log-mel ``(F, 100)``: log of the mean amplitude of the louder half of the frames (that are not
    ``silent``)."""
    amplitude = mel.exp().mean(-1)  # (F,)
    if silent is not None and bool((silent < 0.5).any()):
        amplitude = amplitude[silent < 0.5]
    loud = amplitude.sort(descending=True).values[: max(1, len(amplitude) // 2)]
    return loud.mean().log()
