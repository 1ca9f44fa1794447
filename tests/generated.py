"""Generated test inputs: a drawn face that the detector finds, and a sung voice that is heard as speech."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def drawn_face(size: int = 256, seed: int = 0) -> Image.Image:
    """A drawn, shaded, frontal face, ``size`` × ``size`` RGB; ``seed`` varies colours and proportions."""
    return _large_face(seed).resize((size, size), Image.Resampling.LANCZOS)


@lru_cache(maxsize=32)
def _large_face(seed: int, edge: int = 512) -> Image.Image:
    rng = np.random.default_rng(seed)
    unit = edge / 100

    def about(value: float, spread: float) -> float:
        return float(value + spread * rng.uniform(-1, 1))

    tone = rng.uniform(0, 1)
    skin = np.array([228, 186, 160]) * (1 - tone) + np.array([120, 78, 56]) * tone
    hair = np.array([70, 48, 34]) * rng.uniform(0.3, 1.6)
    iris = np.array([[70, 110, 150], [90, 60, 35], [80, 110, 70]])[rng.integers(3)]
    background = np.array([190, 196, 204]) + rng.uniform(-20, 20)
    width, height = about(23, 1.5), about(31, 1.5)
    eye_y, eye_dx = about(46, 0.8), about(10.5, 0.6)
    nose_y, mouth_y, mouth_w = about(60, 1), about(70, 1), about(9, 1)
    cx, cy = 50.0, 54.0

    def colour(values: np.ndarray, factor: float = 1.0) -> tuple[int, int, int]:
        red, green, blue = np.clip(np.asarray(values) * factor, 0, 255).astype(int)
        return int(red), int(green), int(blue)

    image = Image.new("RGB", (edge, edge), colour(background))

    def blob(x: float, y: float, rx: float, ry: float, fill: tuple[int, int, int], blur: float = 0.0) -> None:
        """One filled ellipse with a soft edge, in hundredths of the picture."""
        mask = Image.new("L", (edge, edge))
        box = ((x - rx) * unit, (y - ry) * unit, (x + rx) * unit, (y + ry) * unit)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        image.paste(fill, mask=mask.filter(ImageFilter.GaussianBlur(blur * unit)))

    blob(cx, cy + 52, 44, 22, colour(hair, 1.3), 0.4)  # shoulders
    blob(cx, cy + 28, 11, 16, colour(skin, 0.75), 0.6)  # neck
    blob(cx, cy - 8, width + 5, height + 1, colour(hair), 0.6)  # hair
    blob(cx - width, cy - 2, 3, 6, colour(skin, 0.85), 0.3)
    blob(cx + width, cy - 2, 3, 6, colour(skin, 0.85), 0.3)
    blob(cx, cy, width, height, colour(skin, 0.88), 0.5)
    blob(cx, cy - 1, width - 3, height - 4, colour(skin), 3.0)  # light on the middle of the face
    blob(cx, cy - 18, 12, 6, colour(skin, 1.06), 3.0)
    for side in (-1, 1):
        x = cx + side * eye_dx
        blob(x, eye_y - 0.5, 6.5, 4.2, colour(skin, 0.72), 1.5)  # socket
        blob(x + side * 4, nose_y + 1, 6, 4, colour(skin * [1.05, 0.95, 0.95]), 2.5)  # cheek
        blob(x, eye_y, 4.3, 2.1, (236, 232, 228), 0.3)
        blob(x, eye_y, 2.1, 2.1, colour(iris), 0.2)
        blob(x, eye_y, 1.0, 1.0, (12, 10, 10), 0.15)
        blob(x + 0.7, eye_y - 0.8, 0.4, 0.4, (250, 250, 250), 0.1)
        blob(x, eye_y - 2.2, 4.6, 0.6, colour(hair, 0.6), 0.3)  # lid
        blob(x + side * 0.5, eye_y - 6.0, 5.8, 1.1, colour(hair, 0.8), 0.5)  # brow
        blob(cx + side * 3.6, nose_y - 6, 1.2, 8, colour(skin, 0.82), 1.2)  # flank of the nose
        blob(cx + side * 2.3, nose_y + 2.2, 1.3, 0.8, colour(skin, 0.35), 0.35)  # nostril
    blob(cx, nose_y - 6, 1.4, 9, colour(skin, 1.1), 0.9)
    blob(cx, nose_y, 2.6, 2.2, colour(skin, 1.08), 0.9)
    blob(cx, nose_y + 3.4, 3.6, 0.7, colour(skin, 0.7), 0.6)
    blob(cx, mouth_y - 0.8, mouth_w, 1.7, colour(skin * [0.85, 0.52, 0.52]), 0.4)
    blob(cx, mouth_y + 1.3, mouth_w * 0.8, 1.9, colour(skin * [0.95, 0.6, 0.6]), 0.5)
    blob(cx, mouth_y + 0.1, mouth_w, 0.45, colour(skin, 0.3), 0.25)
    blob(cx, mouth_y + 5, 5, 1.0, colour(skin, 0.78), 1.0)
    pixels = np.asarray(image, dtype=np.float64)
    shade = 1.06 - 0.16 * np.linspace(0, 1, edge)[None, :, None]  # light from the left
    pixels = pixels * shade + rng.normal(0, 2.0, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def sung_voice(seconds: float = 2.0, f0: float = 140.0, seed: int = 0) -> np.ndarray:
    """A generated voice ``(T,)``, float32 mono 16 kHz, peak 0.5: harmonics of a gliding ``f0`` through moving formants.

    Four syllables a second, each a vowel with its own formants, with vibrato and a little breath noise.
    """
    rate, rng = 16_000, np.random.default_rng(seed)
    samples = max(1, round(seconds * rate))
    time = np.arange(samples) / rate
    syllables = max(1, int(np.ceil(seconds * 4)))
    vowels = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]])
    order = rng.integers(len(vowels), size=syllables + 1)
    position = np.minimum(time * 4, syllables)
    index, phase = position.astype(int).clip(0, syllables - 1), position % 1.0
    blend = np.clip((phase - 0.7) / 0.3, 0, 1)[:, None]
    formants = vowels[order[index]] * (1 - blend) + vowels[order[index + 1]] * blend  # (T, 3)
    formants = formants * (f0 / 140) ** 0.2  # shorter vocal tracts go with higher voices
    melody = rng.normal(0, 0.06, syllables + 1)
    pitch = f0 * np.exp(np.interp(position, np.arange(syllables + 1), melody))
    pitch *= 1 + 0.01 * np.sin(2 * np.pi * 5.5 * time)
    angle = 2 * np.pi * np.cumsum(pitch) / rate
    voice = np.zeros(samples)
    for harmonic in range(1, int(4500 // f0) + 1):
        frequency = harmonic * pitch
        bandwidth = np.array([80.0, 110.0, 160.0])
        resonance = 1 / (1 + ((frequency[:, None] - formants) / bandwidth) ** 2)  # (T, 3)
        voice += (0.03 + resonance @ [1.0, 0.6, 0.3]) / harmonic**0.5 * np.sin(harmonic * angle)
    envelope = np.sin(np.pi * np.clip(phase / 0.92, 0, 1)) ** 0.5
    voice = voice * envelope / np.abs(voice).max()
    voice += 0.004 * rng.normal(size=samples) * (0.3 + envelope)
    return (0.5 * voice / np.abs(voice).max()).astype(np.float32)
