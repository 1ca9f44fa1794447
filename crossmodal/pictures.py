"""Pictures of results: contact sheets, and sound one can look at. Pillow and NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK = (40, 44, 52)
_PAPER = (255, 255, 255)
# A dark-to-light map that also reads in greyscale: (position, RGB).
_COLOURS = (
    (0.0, (13, 13, 40)),
    (0.35, (90, 24, 110)),
    (0.6, (200, 60, 80)),
    (0.82, (250, 150, 60)),
    (1.0, (252, 250, 190)),
)


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str], *, columns: int | None = None, tile: int = 256
) -> Image.Image:
    """Images in a grid, each fitted into ``tile`` × ``tile`` pixels with its caption below."""
    if len(images) != len(captions) or not images:
        raise ValueError(f"{len(images)} images and {len(captions)} captions")
    columns = columns or min(len(images), math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    gap, line = 8, 20
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, rows * (tile + line + gap) + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for k, (image, caption) in enumerate(zip(images, captions)):
        x, y = gap + (k % columns) * (tile + gap), gap + (k // columns) * (tile + line + gap)
        fitted = image.convert("RGB")
        fitted = fitted.resize(_fit(fitted.size, tile), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (x + (tile - fitted.width) // 2, y + (tile - fitted.height) // 2))
        while caption and draw.textlength(caption, font=font) > tile:
            caption = caption[:-2] + "…"
        draw.text((x + tile / 2, y + tile + 2), caption, fill=_INK, font=font, anchor="ma")
    return sheet


def _fit(size: tuple[int, int], box: int) -> tuple[int, int]:
    scale = box / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def spectrogram_picture(
    log_mel: np.ndarray, f0: np.ndarray | None = None, *, size: tuple[int, int] = (720, 220), max_hz: float = 8000.0
) -> Image.Image:
    """Log-mel ``(M, F)`` → picture, low frequencies at the bottom, 60 dB of range; ``f0 (F,)`` in Hz drawn over it.

    F0 is drawn on a linear scale of its own, 0–500 Hz over the full height (0 = unvoiced is left out).
    """
    mel = np.asarray(log_mel, dtype=np.float32)
    top = float(mel.max(initial=0.0))
    level = np.clip((mel - top) / (60.0 / 8.686) + 1.0, 0.0, 1.0)  # natural log: 8.686 dB each
    positions = np.array([p for p, _ in _COLOURS])
    channels = [np.interp(level, positions, [c[i] for _, c in _COLOURS]) for i in range(3)]
    pixels = np.stack(channels, axis=-1)[::-1].round().astype(np.uint8)  # (M, F, 3)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    if f0 is not None and len(f0):
        draw = ImageDraw.Draw(picture)
        scale = size[0] / len(f0)
        points = [(i * scale, size[1] * (1 - min(hz, 500.0) / 500.0)) for i, hz in enumerate(f0) if hz > 0]
        for x, y in points:
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(120, 230, 255))
    return picture


def waveform_picture(waveform: np.ndarray, *, size: tuple[int, int] = (720, 90)) -> Image.Image:
    """Waveform ``(T,)`` in [−1, 1] → its envelope, one column a pixel."""
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    middle = size[1] / 2
    for x, part in enumerate(np.array_split(np.asarray(waveform, dtype=np.float32), size[0])):
        if part.size:
            draw.line(
                (x, middle - middle * float(part.max()), x, middle - middle * float(part.min())), fill=(70, 90, 160)
            )
    return picture
