"""Photos of people → face features under the little changes that real photos undergo.

Descriptors of one person's photos differ with light, compression, size and framing. The decoder is to give the same
face for all of them, so it is trained on features of photos changed in these ways.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from crossmodal.data.canonical_faces import Frame
from crossmodal.errors import NoFaceError
from crossmodal.faces import DetectedFace, align, find_face, load_image, portrait
from crossmodal.portrait import pupils_in
from crossmodal.skin import measure

PORTRAIT = 48
"""Cells on each side of the portraits that are kept: 8 pixels of the starter's frame each."""


@dataclass
class PhotoFeatures:
    """Features of photos and of changed copies of them."""

    features: np.ndarray
    """``(N, D)`` float32."""
    person: np.ndarray
    """``(N,)`` index of the person."""
    view: np.ndarray
    """``(N,)`` index of the photo among the person's; a mirrored or changed copy keeps it."""
    copy: np.ndarray
    """``(N,)`` 0 for the photo as it is, 1 for its mirror image, more for changed copies."""
    points: np.ndarray
    """``(N, 5, 2)`` eyes, nose, mouth corners that the detector found, in pixels of the unchanged photo."""
    skin: np.ndarray
    """``(N, 3)`` colour of the skin as :func:`crossmodal.skin.measure` reads it, sRGB; NaN where it cannot."""
    portraits: np.ndarray
    """``(N, S, S, 4)`` uint8 RGBA, see :func:`crossmodal.faces.portrait`; never mirrored, whatever the copy."""


def changed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A copy as another camera might have taken it: light, colour balance, size, blur, compression; same framing."""
    size = image.size
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.75, 1.2)))
    image = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0.75, 1.2)))
    image = ImageEnhance.Color(image).enhance(float(rng.uniform(0.7, 1.25)))
    balance = rng.uniform(0.93, 1.07, 3)
    image = Image.fromarray(np.clip(np.asarray(image) * balance, 0, 255).astype(np.uint8))
    smaller = float(rng.uniform(0.3, 1.0))
    image = image.resize((max(1, int(size[0] * smaller)), max(1, int(size[1] * smaller))), Image.Resampling.LANCZOS)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.0))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(40, 95)))
    return Image.open(buffer).convert("RGB").resize(size, Image.Resampling.BICUBIC)


def describe_photos(
    photos: Sequence[tuple[int, int, Path]],
    describe: Callable[[np.ndarray], np.ndarray],
    frame: Frame,
    *,
    copies: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PhotoFeatures:
    """Detect, align and describe photos, their mirror images and changed copies (``dlib-128``).

    Args:
        photos: ``(person, view, picture)`` each; one without a face is left out.
        describe: chips ``(B, 150, 150, 3)`` uint8 → features ``(B, D)``.
        frame: of the portraits.
        copies: changed copies of each photo.
        seed: of the changes.
        progress: called with (done, all).
    """
    features, person, view, number, points = [], [], [], [], []
    skins, portraits = [], []
    pupils = pupils_in(frame.pupils, frame.size, PORTRAIT)

    def seen(image: Image.Image, face: DetectedFace) -> np.ndarray:
        portraits.append(portrait(image, face, pupils, PORTRAIT))
        chip = align(image, face, "dlib-128")
        colour = measure(chip)
        skins.append(np.full(3, np.nan) if colour is None else colour)
        return chip

    for done, (who, which, path) in enumerate(photos):
        rng = np.random.default_rng([seed, who, which])
        image = load_image(path)
        try:
            face = find_face(image, source=path)
        except NoFaceError:
            continue
        plain = seen(image, face)
        chips = [plain, plain[:, ::-1]]
        portraits.append(portraits[-1])
        skins.append(skins[-1])
        for k in range(copies):
            # Another detector's slip: the points move by a few per cent of the eye distance.
            slip = rng.normal(0, 0.02 * face.eye_distance, (5, 2))
            moved = type(face)(box=face.box, score=face.score, points=face.points + slip)
            chip = seen(changed(image, rng), moved)
            chips.append(chip[:, ::-1] if k % 2 else chip)
        features.append(describe(np.ascontiguousarray(np.stack(chips))))
        for k in range(len(chips)):
            person.append(who)
            view.append(which)
            number.append(k)
            points.append(face.points)
        if progress:
            progress(done + 1, len(photos))
    return PhotoFeatures(
        np.concatenate(features).astype(np.float32),
        np.array(person),
        np.array(view),
        np.array(number),
        np.stack(points).astype(np.float32),
        np.stack(skins).astype(np.float32),
        np.stack(portraits),
    )
