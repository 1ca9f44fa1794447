"""Generated voices and faces: small, free of rights, the same on every machine. For debug recipes and tests.

A person is a number. It fixes a vocal tract and a pitch, the colours and proportions of a drawn face, and a point in
each embedding space, so that a network can learn to tell people apart and to go from voice to face. Nothing learnt
from them says anything about real people.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError

if TYPE_CHECKING:
    from crossmodal.data.manifest import Manifest

RATE = AudioConfig().sample_rate
VOWELS = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [660, 1720, 2410]], float)
"""First three formants of five vowels, in Hz (Peterson and Barney 1952, men)."""


def generated_voice(speaker: int, utterance: int = 0, seconds: float = 3.0) -> np.ndarray:
    """A babbling voice: harmonics of the speaker's F0 through formants that move from vowel to vowel.

    Args:
        speaker: fixes mean F0 (90–240 Hz), vocal-tract length, spectral tilt and breathiness.
        utterance: fixes melody and vowels.
        seconds: duration, positive.

    Returns:
        ``(T,)`` float32, mono, 16 kHz, peak 0.5.

    Raises:
        ConfigError: the duration is not positive.
    """
    if seconds <= 0:
        raise ConfigError(f"a duration of {seconds} s cannot be generated", source="generated voice")
    who, what = np.random.default_rng([1, speaker]), np.random.default_rng([2, speaker, utterance])
    base = 90 * (240 / 90) ** who.random()
    tract, tilt, breath = who.uniform(0.85, 1.25), who.uniform(0.6, 1.4), who.uniform(0.002, 0.02)
    time = np.arange(max(1, round(seconds * RATE))) / RATE  # (T,)
    knots = np.arange(0, seconds + 0.5, 0.25)  # four sounds a second
    formants = tract * VOWELS[what.integers(len(VOWELS), size=len(knots))]  # (K, 3)
    tracks = np.stack([np.interp(time, knots, column) for column in formants.T])  # (3, T)
    f0 = base * np.exp(np.interp(time, knots, what.normal(0, 0.08, len(knots))))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    voice = np.zeros_like(time)
    for harmonic in range(1, int(4500 / f0.max()) + 1):
        gain = sum(1 / (1 + ((harmonic * f0 - track) / 90.0) ** 2) for track in tracks)
        voice += (0.02 + gain) * harmonic**-tilt * np.sin(harmonic * phase)
    loudness = 0.15 + 0.85 * np.abs(np.sin(np.pi * 4 * time)) ** 0.5  # syllables
    voice = voice / np.abs(voice).max() + breath * what.standard_normal(len(time))
    voice *= loudness
    return (0.5 * voice / np.abs(voice).max()).astype(np.float32)


def generated_face(identity: int, variant: int = 0, size: int = 160) -> np.ndarray:
    """A drawn frontal face.

    Args:
        identity: fixes colours and proportions.
        variant: another picture of the same person: light, background and a small shift.
        size: edge in pixels.

    Returns:
        ``(size, size, 3)`` uint8 RGB.
    """
    who, what = np.random.default_rng([3, identity]), np.random.default_rng([4, identity, variant])
    skin = np.array([230, 190, 165]) * who.uniform(0.4, 1.05) + who.uniform(-12, 12, 3)
    hair, iris, lips = who.uniform(10, 190, 3), who.uniform(30, 150, 3), skin * [1.0, 0.6, 0.6]
    wide, tall, eyes, mouth = who.uniform([0.24, 0.32, 0.09, 0.07], [0.31, 0.39, 0.13, 0.13])
    eye_y, mouth_y, fringe = who.uniform([0.42, 0.66, 0.2], [0.48, 0.72, 0.36])
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)  # (S, S)
    x, y = x - 0.5 - what.uniform(-0.02, 0.02), y + what.uniform(-0.02, 0.02)
    image = np.broadcast_to(what.uniform(120, 220, 3), (size, size, 3)).copy()

    def paint(cx: float, cy: float, rx: float, ry: float, colour: np.ndarray, *, above: float = 2.0) -> None:
        distance = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        cover = np.clip((1 - distance) * size * min(rx, ry), 0, 1) * (y < above)
        image[:] = image * (1 - cover[..., None]) + colour * cover[..., None]

    paint(0, 0.5, wide + 0.05, tall + 0.07, hair)
    paint(0, 0.55, wide, tall, skin)
    paint(0, 0.5, wide + 0.02, tall + 0.04, hair, above=fringe)
    for side in (-1, 1):
        paint(side * eyes, eye_y, 0.05, 0.025, np.array([245.0, 245, 240]))
        paint(side * eyes, eye_y, 0.02, 0.024, iris)
        paint(side * eyes, eye_y - 0.06, 0.06, 0.012, hair * 0.8)
    paint(0, 0.57, 0.03, 0.06, skin * 0.88)
    paint(0, mouth_y, mouth, 0.025, lips)
    light = what.uniform(0.85, 1.1) * (1 + what.uniform(-0.2, 0.2) * x)[..., None]
    return np.clip(image * light + what.normal(0, 2, image.shape), 0, 255).round().astype(np.uint8)


def generated_feature(identity: int, variant: int, space: str) -> np.ndarray:
    """A point in an embedding space, near the identity's own: ``(D,)`` float32.

    ``ge2e-256`` has unit length and no negative component, as the speaker encoder's; any other space is Gaussian with
    the length of a dlib descriptor (1.47).
    """
    from crossmodal.models.spaces import space_size

    size = space_size(space)
    own = np.random.default_rng([5, identity, size]).standard_normal(size)
    near = own + 0.2 * np.random.default_rng([6, identity, variant, size]).standard_normal(size)
    near = np.maximum(near, 0) if space.startswith("ge2e") else near * 1.47
    return (near / np.linalg.norm(near / (1.0 if space.startswith("ge2e") else 1.47))).astype(np.float32)


def generate(
    folder: str | Path, seed: int = 0, *, people: int = 9, takes: int = 3, seconds: float = 1.7, held_out: int = 3
) -> Manifest:
    """Write a prepared data set of generated people, as ``crossmodal prepare`` writes real ones.

    Features: ``waveform``, ``ge2e-256``, ``dlib-128`` and ``chip-facenet-512``; splits ``train`` and ``validation``.

    Args:
        folder: ``manifest.parquet`` and ``features/`` go there.
        seed: other people for another seed.
        people: identities, more than ``held_out``.
        takes: clips and pictures of each.
        seconds: duration of a clip.
        held_out: identities of the validation split.
    """
    from crossmodal.audio import to_int16
    from crossmodal.data import splits
    from crossmodal.data.features import FeatureWriter, feature
    from crossmodal.data.manifest import Manifest, Row

    if not 0 < held_out < people:
        raise ConfigError(f"{held_out} of {people} people cannot be held out", source="generated data")
    folder = Path(folder)
    names = ("waveform", "ge2e-256", "dlib-128", "chip-facenet-512")
    writers = {name: FeatureWriter(folder / "features" / name, feature(name)) for name in names}
    rows, sides = [], {}
    for person in range(people):
        number = seed * 10_000 + person
        for take in range(takes):
            row = Row(
                id=f"generated/{number:05d}/{take}",
                corpus="generated",
                speaker=f"{number:05d}",
                attributes={"gender": "female" if number % 2 else "male"},
                licence="generated, no rights reserved",
                pairing="paired",
            )
            rows.append(row)
            sides[splits.split_key(row)] = "validation" if person >= people - held_out else "train"
            writers["waveform"].add(row.id, "", to_int16(generated_voice(number, take, seconds)))
            writers["chip-facenet-512"].add(row.id, "", generated_face(number, take, 160))
            for space in ("ge2e-256", "dlib-128"):
                writers[space].add(row.id, "", generated_feature(number, take, space))
    for writer in writers.values():
        writer.flush()
    manifest = splits.assign_from(Manifest(rows), sides, name="generated")
    manifest.write(folder / "manifest.parquet")
    return manifest
