"""Losses of the acoustic model: what is compared with what, after FastSpeech 2 (Ren et al., "FastSpeech 2: Fast and
High-Quality End-to-End Text to Speech", ICLR 2021, section 2.3) with L1 on mel and log-F0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class AcousticLossConfig:
    """Weights of the terms."""

    mel: float = 1.0
    """L1 of the normalised log-mel."""
    contrast: float = 0.3
    """L1 of the differences between neighbouring frames and neighbouring bands, against over-smoothing."""
    duration: float = 0.3
    """Huber loss of the log duration of each phone."""
    pitch: float = 1.0
    """L1 of log F0 (natural logarithm) on voiced frames."""
    voicing: float = 0.1
    """Cross-entropy of voiced against unvoiced."""
    energy: float = 0.1
    """L1 of the mean level of each phone (natural logarithm of amplitude)."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (of the same shape) is not 0; 0 if it is 0 everywhere."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp_min(1.0)


def mel_l1(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of ``(B, F, M)`` where ``mask (B, F)`` is not 0."""
    return masked_mean((predicted - target).abs().mean(-1), mask)


def mel_contrast(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 of the first differences along time and along frequency of ``(B, F, M)``.

    A blurred prediction has small differences; comparing them keeps harmonics and onsets sharp.
    """
    in_time = (predicted.diff(dim=1) - target.diff(dim=1)).abs().mean(-1)  # (B, F - 1)
    in_frequency = (predicted.diff(dim=2) - target.diff(dim=2)).abs().mean(-1)  # (B, F)
    return masked_mean(in_time, mask[:, 1:] * mask[:, :-1]) + masked_mean(in_frequency, mask)


def duration_loss(log_duration: Tensor, durations: Tensor, mask: Tensor) -> Tensor:
    """Huber loss of log durations ``(B, N)`` against ``durations (B, N)`` in frames (at least 1 where ``mask``)."""
    target = durations.clamp_min(1).to(log_duration.dtype).log()
    return masked_mean(F.smooth_l1_loss(log_duration, target, reduction="none", beta=0.5), mask)


def pitch_loss(log_f0: Tensor, f0: Tensor, mask: Tensor) -> Tensor:
    """L1 of log F0 ``(B, F)`` against ``f0 (B, F)`` in Hz on the voiced frames (``f0`` > 0) within ``mask``."""
    voiced = (f0 > 0).to(log_f0.dtype) * mask
    return masked_mean((log_f0 - torch.where(f0 > 0, f0, torch.ones_like(f0)).log()).abs(), voiced)


def voicing_loss(logits: Tensor, f0: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of voicing logits ``(B, F)`` against ``f0 > 0``."""
    return masked_mean(F.binary_cross_entropy_with_logits(logits, (f0 > 0).to(logits.dtype), reduction="none"), mask)
