"""How masculine or feminine a voice sounds, from what its anatomy leaves in it: pitch and the spacing of the formants.

Pitch follows the vocal folds, the spacing of the formants the length of the vocal tract (Fitch 1997; Reby & McComb
2003). Listeners hear both as masculine or feminine, and faces carry a cue of the same kind (Smith et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import resample_poly

FORMANTS = 4
FLOOR = 75.0
"""Hz; below it lies the hum of the mains more often than a voice."""
_RATE = 10_000
"""LPC is done on the band that holds four formants."""
_ORDER = 11


@dataclass(frozen=True)
class VoiceCues:
    """Medians over the voiced frames of a recording."""

    pitch: float
    """F0 in Hz; NaN without voiced frames."""
    spacing: float
    """Mean distance of neighbouring formants in Hz (about 1,000 for men, 1,150 for women); NaN likewise."""


def voice_cues(waveform: np.ndarray, pitch: np.ndarray, *, sample_rate: int = 16_000, frames: int = 120) -> VoiceCues:
    """Measure a recording.

    Args:
        waveform: ``(T,)`` in [-1, 1].
        pitch: ``(F,)`` F0 in Hz on a regular grid over the waveform, 0 where unvoiced.
        sample_rate: of the waveform.
        frames: how many voiced frames to look at, evenly spread.
    """
    voiced = np.flatnonzero(pitch > FLOOR)
    if len(voiced) < 5:
        return VoiceCues(float("nan"), float("nan"))
    hop = len(waveform) / max(len(pitch) - 1, 1) * _RATE / sample_rate
    low = resample_poly(waveform.astype(np.float64), _RATE // 1000, sample_rate // 1000)
    low = np.append(low[0], low[1:] - 0.97 * low[:-1])  # pre-emphasis
    width = int(0.03 * _RATE)
    window = np.hamming(width)
    found = []
    for frame in voiced[np.linspace(0, len(voiced) - 1, min(frames, len(voiced))).astype(int)]:
        start = int(frame * hop) - width // 2
        if start < 0 or start + width > len(low):
            continue
        formants = _formants(low[start : start + width] * window)
        if formants is not None:
            found.append(formants)
    spacing = _spacing(np.median(found, axis=0)) if len(found) >= 5 else float("nan")
    return VoiceCues(float(np.median(pitch[voiced])), spacing)


def _formants(frame: np.ndarray) -> np.ndarray | None:
    """The first four formants in Hz by linear prediction; ``None`` if fewer are found."""
    full = np.correlate(frame, frame, "full")[len(frame) - 1 :]
    if full[0] <= 1e-9:
        return None
    full = full[: _ORDER + 1] / full[0]
    full[0] += 1e-6
    poles = np.roots(np.append(1.0, -solve_toeplitz(full[:-1], full[1:])))
    poles = poles[poles.imag > 0]
    hertz = np.angle(poles) * _RATE / (2 * np.pi)
    bandwidth = -np.log(np.abs(poles)) * _RATE / np.pi
    kept = np.sort(hertz[(hertz > 180) & (hertz < 4800) & (bandwidth < 600)])
    return kept[:FORMANTS] if len(kept) >= FORMANTS else None


def _spacing(formants: np.ndarray) -> float:
    """Formant spacing of a uniform tube, ``F_i ≈ (i − 1/2) ΔF``, by least squares through the origin."""
    odd = np.arange(1, len(formants) + 1) - 0.5
    return float((odd @ formants) / (odd @ odd))
