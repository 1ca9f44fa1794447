"""Numbers told from speech alone: word errors, clicks, median F0; and statistics over pairs of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from crossmodal import audio
from crossmodal.config import AudioConfig

AUDIO = AudioConfig()


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Least number of substitutions, insertions and deletions (Levenshtein distance over words)."""
    row = np.arange(len(hypothesis) + 1)
    for i, word in enumerate(reference, 1):
        previous, row = row, np.empty_like(row)
        row[0] = i
        for j, heard in enumerate(hypothesis, 1):
            row[j] = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (word != heard))
    return int(row[-1])


def clicks(waveform: np.ndarray, ratio: float = 14.0) -> int:
    """Steps in ``waveform (T,)`` that stick out ``ratio``-fold from the RMS of the slope within 20 ms around."""
    slope = np.abs(np.diff(waveform.astype(np.float64)))
    window = int(0.02 * AUDIO.sample_rate) | 1
    power = np.convolve(slope**2, np.ones(window), mode="same")
    around = np.sqrt((power - slope**2).clip(0) / (window - 1))
    return int(((slope > ratio * around + 0.01) & (slope > 0.05)).sum())


def median_f0(waveform: np.ndarray) -> float:
    """Median F0 in Hz of the loud voiced frames of ``waveform (T,)``; NaN without any.

    In quiet frames pitch detectors hear the hum of the mains.
    """
    f0 = audio.pitch(waveform)
    level = (
        audio.log_mel(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))).exp().mean(0).log().numpy()
    )
    loud = level > np.sort(level)[-max(1, len(level) // 3) :].mean() - 1.5
    voiced = f0[(f0 > 0) & loud]
    return float(np.median(voiced)) if len(voiced) else float("nan")


def correlation(pairs: np.ndarray) -> float:
    """Pearson correlation of the columns of ``(N, 2)``; NaN where one is constant."""
    if len(pairs) < 2 or np.std(pairs[:, 0]) == 0 or np.std(pairs[:, 1]) == 0:
        return float("nan")
    return float(np.corrcoef(pairs.T)[0, 1])


def slope(pairs: np.ndarray) -> float:
    """Least-squares slope of the second column of ``(N, 2)`` over the first."""
    x, y = pairs.T
    return float(np.cov(x, y)[0, 1] / max(np.var(x, ddof=1), 1e-9))


def median(values: np.ndarray) -> float:
    """Median, as a statistic."""
    return float(np.median(values))


def geometric_mean(ratios: np.ndarray) -> float:
    """Mean of ratios: twice as much and half as much are 1 together."""
    return float(np.exp(np.log(ratios).mean()))
