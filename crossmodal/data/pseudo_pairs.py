"""Pseudo-pairs of voices and faces: by gender, and by rank along the masculine–feminine cue that both carry.

No open data shows many people with voice and face. What may be learned without it is what a voice and a face share
anyway (Smith, Dunn, Baguley & Stacey 2016, "Concordant cues in faces and voices"). These pairs say nothing about who
belongs to whom and are never evidence of identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.prepared_voices import PreparedVoices
from crossmodal.data.starter_split import speaker_split
from crossmodal.data.voice_cues import FLOOR

FACES_BETWEEN = 4000
"""Faces made by blending the features of two people of one gender, or (one in five) of both."""
WIDTH = 0.12
"""How near on the scale a face must be to fit a voice (the genders' means are 2 apart)."""


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


@dataclass(frozen=True)
class Pairing:
    """Voices and faces on the scales that tie them together."""

    voice_scale: VoiceScale
    face_axis: Axis
    knots: np.ndarray
    """``(K, 2)`` from the voices' scale to the faces' (:func:`matching_scores`)."""
    faces: np.ndarray
    """``(M, D)`` float32 features: the training people's photos, then faces between two of them."""
    places: np.ndarray
    """``(M,)`` float32 of each on the faces' scale."""

    def expected(self, places: np.ndarray, width: float = WIDTH) -> np.ndarray:
        """The mean of the faces that fit.

        A fitting face is drawn as the feature head's examples are: a place is drawn around the wanted one, and the face
        that lies there taken. This is the expectation over these draws, in closed form.

        Args:
            places: ``(N,)`` wanted, on the faces' scale; beyond all but twenty faces of an end, that end is meant.
            width: deviation of the places drawn around a wanted one.

        Returns:
            ``(N, D)`` float32.
        """
        from scipy.stats import norm

        order = np.argsort(self.places, kind="stable")
        scale = self.places[order].astype(np.float64)
        wanted = np.clip(places, scale[min(20, len(scale) - 1)], scale[-min(20, len(scale))])
        below = norm.cdf((scale - wanted[:, None]) / width)  # (N, M): chance of a draw at or below each face
        below[:, -1] = 1.0
        share = np.diff(below, axis=1, prepend=0.0)
        return (share @ self.faces[order].astype(np.float64)).astype(np.float32)


def pair(
    train: PreparedVoices,
    prepared: PreparedFaces,
    held_out: Sequence[str],
    between: int = FACES_BETWEEN,
    seed: int = 0,
) -> Pairing:
    """Fit both scales, and the curve between them, on training speakers and training people.

    Args:
        train: voices of the training speakers.
        prepared: everybody's faces.
        held_out: names of the people that are not used.
        between: how many faces to make between two people.
        seed: of these.
    """
    faces, male = training_faces(prepared, held_out)
    face_axis = gender_axis(faces, male)
    scale = voice_scale(train)
    heard = scale.score(train)
    clean = train.change == "clean"
    knots = matching_scores(heard[clean], train.gender[clean] == "male", face_axis.score(faces), male)
    everyone = np.concatenate([faces, faces_between(faces, male, between, seed)]).astype(np.float32)
    return Pairing(scale, face_axis, knots, everyone, face_axis.score(everyone).astype(np.float32))


def training_faces(prepared: PreparedFaces, held_out: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(N, D)`` of the photos of all but ``held_out``, changed copies included, and who is male ``(N,)``."""
    held = set(prepared.indices(held_out))
    rows = np.array([i for i, person in enumerate(prepared.photos.person) if person not in held])
    gender = np.array([row.get("gender", "") for row in prepared.attributes])
    return prepared.photos.features[rows].astype(np.float64), gender[prepared.photos.person[rows]] == "male"


def faces_between(faces: np.ndarray, male: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Morph-made people ``(count, D)``: blends of two, mostly of one gender, that vary as much as real people do.

    Args:
        faces: ``(N, D)`` features.
        male: ``(N,)`` bool.
        count: how many.
        seed: of whom and how.
    """
    rng = np.random.default_rng(seed)
    one = rng.integers(len(faces), size=count)
    other = rng.integers(len(faces), size=count)
    for row in np.flatnonzero(rng.random(count) > 0.2):
        same = np.flatnonzero(male == male[one[row]])
        other[row] = rng.choice(same)
    t = rng.uniform(0.0, 1.0, (count, 1))
    blend = (1 - t) * faces[one] + t * faces[other]
    mean = np.where(male[one][:, None], (1 - t) * faces[male].mean(0), (1 - t) * faces[~male].mean(0))
    mean = mean + np.where(male[other][:, None], t * faces[male].mean(0), t * faces[~male].mean(0))
    shrink = np.sqrt((1 - t) ** 2 + t**2)
    return mean + (blend - mean) * (0.5 + 0.5 / shrink)


def by_split(voices: PreparedVoices) -> dict[str, PreparedVoices]:
    """The voices of the training, validation and test speakers (:func:`.speaker_split`)."""
    owners = [name.split("/", 1) for name in voices.speaker]
    split = np.array([speaker_split(corpus, name, clip) for (corpus, name), clip in zip(owners, voices.clip)])
    return {name: voices.pick(np.flatnonzero(split == name)) for name in ("train", "validation", "test")}
