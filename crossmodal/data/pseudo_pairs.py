"""Pseudo-pairs of voices and faces: by gender, and by rank along the masculine–feminine cue that both carry.

No open data shows many people with voice and face. What may be learned without it is what a voice and a face share
anyway (Smith, Dunn, Baguley & Stacey 2016, "Concordant cues in faces and voices"). These pairs say nothing about who
belongs to whom and are never evidence of identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossmodal.data.prepared_voices import PreparedVoices
from crossmodal.data.voice_cues import FLOOR


@dataclass(frozen=True)
class Axis:
    """A direction, scaled so that the means of the genders lie at −1 (female) and +1 (male)."""

    weight: np.ndarray
    """``(D,)``"""
    bias: float

    def score(self, values: np.ndarray) -> np.ndarray:
        """``(N, D)`` → ``(N,)``."""
        return values @ self.weight + self.bias


def gender_axis(values: np.ndarray, male: np.ndarray, ridge: float = 0.1) -> Axis:
    """Fisher's discriminant (1936) between the genders, ridge-regularised.

    Args:
        values: ``(N, D)``.
        male: ``(N,)`` bool.
        ridge: share of the mean within-class variance added to each direction's.
    """
    means = values[~male].mean(0), values[male].mean(0)
    within = np.concatenate([values[~male] - means[0], values[male] - means[1]])
    scatter = within.T @ within / len(within)
    scatter = scatter + ridge * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    direction = np.linalg.solve(scatter, means[1] - means[0])
    ends = means[0] @ direction, means[1] @ direction
    scale = 2 / (ends[1] - ends[0])
    return Axis(direction * scale, float(-1 - ends[0] * scale))


@dataclass(frozen=True)
class VoiceScale:
    """How masculine a voice is: the mean of three views of it, each with the genders' means at ∓1."""

    embedding: Axis
    """Of the speaker embedding."""
    anatomy: Axis
    """Of log F0 and log formant spacing."""

    def score(self, voices: PreparedVoices) -> np.ndarray:
        """``(N,)``; the embedding alone where pitch or formants could not be measured."""
        anatomy = self.anatomy.score(_anatomy(voices))
        embedding = self.embedding.score(voices.embedding)
        # A shifted voice is out of the embedding's training range; its anatomy is known exactly.
        weight = np.where(voices.change == "shifted", 0.85, 0.6)
        return np.where(np.isfinite(anatomy), weight * anatomy + (1 - weight) * embedding, embedding)


def _anatomy(voices: PreparedVoices) -> np.ndarray:
    """``(N, 2)`` log F0 and log formant spacing; NaN where the unshifted pitch cannot be a voice's."""
    pitch = np.where(voices.pitch / voices.factor > FLOOR, voices.pitch, np.nan)
    return np.log(np.stack([pitch, voices.spacing], axis=1).astype(np.float64))


def voice_scale(voices: PreparedVoices) -> VoiceScale:
    """Fit on the unchanged clips of the training speakers."""
    clean = voices.pick(np.flatnonzero(voices.change == "clean"))
    male = clean.gender == "male"
    anatomy = _anatomy(clean)
    known = np.isfinite(anatomy).all(1)
    return VoiceScale(gender_axis(clean.embedding, male), gender_axis(anatomy[known], male[known]))


def matching_scores(voice: np.ndarray, voice_male: np.ndarray, face: np.ndarray, face_male: np.ndarray) -> np.ndarray:
    """Knots ``(K, 2)`` of the monotone map from voice score to face score that matches ranks within each gender.

    Args:
        voice: ``(N,)`` scores of unchanged voices.
        voice_male: ``(N,)`` bool.
        face: ``(M,)`` scores of faces.
        face_male: ``(M,)`` bool.
    """
    levels = np.linspace(0.05, 0.95, 10)
    knots = []
    for male in (False, True):
        heard = np.quantile(voice[voice_male == male], levels)
        seen = np.quantile(face[face_male == male], levels)
        knots.append(np.stack([heard, seen], axis=1))
    joined = np.concatenate(knots)
    joined = joined[np.argsort(joined[:, 0])]
    joined[:, 1] = np.maximum.accumulate(joined[:, 1])
    return joined


def match(knots: np.ndarray, voice: np.ndarray) -> np.ndarray:
    """Voice scores ``(N,)`` → face scores ``(N,)``; beyond the knots along the line through their ends."""
    x, y = knots.T
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    inside = np.interp(voice, x, y)
    beyond = np.where(voice < x[0], (voice - x[0]) * slope, np.where(voice > x[-1], (voice - x[-1]) * slope, 0.0))
    return inside + 0.5 * beyond
