"""What a cosine in the shared embedding means: how alike different people are, and the same person twice.

Speaker embeddings have no negative component, so two strangers never come near 0: every cosine needs its floor beside
it. Measured on people the bundle was not trained on; stored in the bundle as ``calibration.yaml``, where
:meth:`crossmodal.journey.Journey.match` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.errors import DataError
from crossmodal.evaluation.figures import Curve, Figure, figure
from crossmodal.journey import Journey

QUANTILES = 41
GRID = tuple(np.linspace(0.2, 1.0, 41).round(2).tolist())
"""Cosines at which the curves are drawn."""

_PEOPLE = {"same": "same person", "different": "different people"}
Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
"""For each person two embeddings ``(256,)``."""


def summary(cosines: np.ndarray) -> dict[str, Any]:
    """Mean, spread and quantiles (0 to 1 in equal steps) of cosines ``(N,)``."""
    values = np.asarray(cosines, dtype=float)
    return {
        "n": int(values.size),
        "mean": round(float(values.mean()), 4),
        "sd": round(float(values.std(ddof=1)), 4) if values.size > 1 else 0.0,
        "quantiles": [round(float(q), 4) for q in np.quantile(values, np.linspace(0, 1, QUANTILES))],
    }


def cosines(voices: Pairs, faces: Pairs) -> dict[str, dict[str, np.ndarray]]:
    """Cosines by kind of pair (voice-voice, face-face, face-voice) and people (same, different).

    Args:
        voices: for each speaker two embeddings ``(256,)`` of different stretches of speech.
        faces: for each person two embeddings ``(256,)`` of different photos.

    Returns:
        ``(N, 1)`` for the same person twice, ``(N, M)`` for different people, a row a person.

    No face of these people has a voice here, so a face-voice pair is always of different people and has no ``same``.

    Raises:
        DataError: fewer than two speakers or people.
    """
    if len(voices) < 2 or len(faces) < 2:
        raise DataError(f"{len(voices)} speakers and {len(faces)} faces: calibration needs two of each at least")
    (v1, v2), (f1, f2) = (np.stack(side) for side in zip(*voices)), (np.stack(side) for side in zip(*faces))

    def pairs(one: np.ndarray, two: np.ndarray) -> dict[str, np.ndarray]:
        cosine = one @ two.T
        off = ~np.eye(len(one), dtype=bool)
        return {"same": np.diag(cosine)[:, None], "different": cosine[off].reshape(len(one), -1)}

    return {"voice-voice": pairs(v1, v2), "face-face": pairs(f1, f2), "face-voice": {"different": f1 @ v1.T}}


def calibrate(voices: Pairs, faces: Pairs) -> dict[str, Any]:
    """What a bundle stores: :func:`summary` of each of :func:`cosines`."""
    found = cosines(voices, faces)
    return {kind: {people: summary(c.ravel()) for people, c in content.items()} for kind, content in found.items()}


def figures(voices: Pairs, faces: Pairs, seed: int = 0) -> list[Figure]:
    """Mean cosine of each kind of pair, intervals over people; the same person's beside different people's."""
    made = []
    for kind, content in cosines(voices, faces).items():
        floor = float(content["different"].mean())
        for people, cosine in content.items():
            same: dict[str, Any] = (
                {"reference": floor, "reference_name": "different people"} if people == "same" else {}
            )
            values, person = _flat(cosine)
            name = f"{kind}, {_PEOPLE[people]}: cosine"
            made.append(figure(name, values, clusters=person, seed=seed, **same))
    return made


def curves(voices: Pairs, faces: Pairs, seed: int = 0) -> list[Curve]:
    """Share of pairs below each cosine of :data:`GRID`, intervals over people."""
    made = []
    for kind, content in cosines(voices, faces).items():
        for people, cosine in content.items():
            values, person = _flat(cosine)
            points = [figure("", values <= x, clusters=person, seed=seed) for x in GRID]
            y, low, high = (tuple(getattr(p, side) for p in points) for side in ("value", "low", "high"))
            made.append(
                Curve(
                    f"{kind}, {_PEOPLE[people]}",
                    "cosine",
                    GRID,
                    "share of pairs at or below",
                    y,
                    low,
                    high,
                    len(values),
                )
            )
    return made


def _flat(cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines ``(N, M)`` → values and whose row each is, both ``(N·M,)``."""
    return cosine.ravel(), np.repeat(np.arange(len(cosine)), cosine.shape[1])


def gather(journey: Journey, data: Path) -> tuple[Pairs, Pairs]:
    """Embeddings of the held-out LibriSpeech speakers and London faces below ``data``, two of each person.

    A speaker's one utterance is cut in two halves; a person's two photos are the neutral and the smiling one.
    """
    import torch

    from crossmodal import audio
    from crossmodal.data.sets import librispeech
    from crossmodal.data.starter_split import split_of
    from crossmodal.evaluation.faces import HELD_OUT

    encoder = journey.module("speaker-encoder")
    voices = []
    for row in librispeech.rows(data / "librispeech"):
        if row.audio is None or split_of("librispeech", row.speaker, row.audio.stem) != "test":
            continue
        waveform = audio.load_speech(row.audio)
        half = len(waveform) // 2
        with torch.inference_mode():
            two = [encoder.embed(part).float().cpu().numpy() for part in (waveform[:half], waveform[half:])]
        voices.append((two[0], two[1]))
    faces = []
    for person in HELD_OUT:
        photos = (
            data / "london_faces" / "neutral_front" / f"{person}_03.jpg",
            data / "london_faces" / "smiling_front" / f"{person}_08.jpg",
        )
        if all(photo.is_file() for photo in photos):
            first, second = (journey.face_embedding(photo).numpy() for photo in photos)
            faces.append((first, second))
    return voices, faces


def measure(journey: Journey, data: Path) -> dict[str, Any]:
    """Calibrate ``journey``'s bundle on held-out people (see :func:`gather`)."""
    return calibrate(*gather(journey, data))


def table(calibration: Mapping[str, Any]) -> list[str]:
    """Lines to print: kind of pair, same or different, mean, spread, 5 % and 95 % quantiles, n."""
    lines = [f"{'pair':<12} {'people':<10} {'mean':>6} {'sd':>6} {'5 %':>6} {'95 %':>6} {'n':>7}"]
    for kind, content in calibration.items():
        for people, s in content.items():
            low, high = np.interp([0.05, 0.95], np.linspace(0, 1, len(s["quantiles"])), s["quantiles"])
            lines.append(f"{kind:<12} {people:<10} {s['mean']:6.3f} {s['sd']:6.3f} {low:6.3f} {high:6.3f} {s['n']:7d}")
    return lines
