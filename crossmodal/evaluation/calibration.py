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
from crossmodal.journey import Journey

QUANTILES = 41


def summary(cosines: np.ndarray) -> dict[str, Any]:
    """Mean, spread and quantiles (0 to 1 in equal steps) of cosines ``(N,)``."""
    values = np.asarray(cosines, dtype=float)
    return {
        "n": int(values.size),
        "mean": round(float(values.mean()), 4),
        "sd": round(float(values.std(ddof=1)), 4) if values.size > 1 else 0.0,
        "quantiles": [round(float(q), 4) for q in np.quantile(values, np.linspace(0, 1, QUANTILES))],
    }


def calibrate(voices: Sequence[tuple[np.ndarray, np.ndarray]], faces: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Calibration of voice–voice, face–face and face–voice pairs.

    Args:
        voices: for each speaker two embeddings ``(256,)`` of different stretches of speech.
        faces: for each person two embeddings ``(256,)`` of different photos.

    No face of these people has a voice here, so a face–voice pair is always of different people and has no ``same``.

    Raises:
        DataError: fewer than two speakers or people.
    """
    if len(voices) < 2 or len(faces) < 2:
        raise DataError(f"{len(voices)} speakers and {len(faces)} faces: calibration needs two of each at least")
    (v1, v2), (f1, f2) = (np.stack(side) for side in zip(*voices)), (np.stack(side) for side in zip(*faces))

    def pairs(one: np.ndarray, two: np.ndarray) -> dict[str, Any]:
        cosine = one @ two.T
        off = ~np.eye(len(one), dtype=bool)
        return {"same": summary(np.diag(cosine)), "different": summary(cosine[off])}

    return {
        "voice-voice": pairs(v1, v2),
        "face-face": pairs(f1, f2),
        "face-voice": {"different": summary((f1 @ v1.T).ravel())},
    }


def measure(journey: Journey, data: Path) -> dict[str, Any]:
    """Calibrate ``journey``'s bundle on the held-out LibriSpeech speakers and London faces below ``data``.

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
    return calibrate(voices, faces)


def table(calibration: Mapping[str, Any]) -> list[str]:
    """Lines to print: kind of pair, same or different, mean, spread, 5 % and 95 % quantiles, n."""
    lines = [f"{'pair':<12} {'people':<10} {'mean':>6} {'sd':>6} {'5 %':>6} {'95 %':>6} {'n':>7}"]
    for kind, content in calibration.items():
        for people, s in content.items():
            low, high = np.interp([0.05, 0.95], np.linspace(0, 1, len(s["quantiles"])), s["quantiles"])
            lines.append(f"{kind:<12} {people:<10} {s['mean']:6.3f} {s['sd']:6.3f} {low:6.3f} {high:6.3f} {s['n']:7d}")
    return lines
