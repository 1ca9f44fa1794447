"""Faces in: find the face in a picture and cut the chip that each face-feature network was trained on.

::

    image = load_image("photo.jpg")            # upright RGB
    face = find_face(image)                    # MTCNN (Zhang et al. 2016, "Joint Face Detection and Alignment")
    chip = align(image, face, "dlib-128")      # (150, 150, 3) uint8

:func:`read_face` does the three steps at once. Coordinates are pixels of the picture that was given, x to the right, y
down; "left" is the left of the picture.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from crossmodal.errors import ConfigError, InputWarning, NoFaceError
from crossmodal.images import load_image

__all__ = [
    "CHIP_SIZES",
    "DetectedFace",
    "FaceChip",
    "align",
    "align_batch",
    "detect",
    "find_face",
    "load_image",
    "quality_warnings",
    "read_face",
    "whole_image_face",
]

CHIP_SIZES = {"dlib-128": 150, "facenet-512": 160, "vggface-4096": 224}
"""Feature space → edge of its square chip in pixels."""

WORKING_SIZE = 1280
"""Longer edge, in pixels, to which a picture is reduced before detection."""
MIN_FACE = 32
"""Smallest face looked for, in pixels of the reduced picture; :data:`MIN_FACE_FALLBACK` if there is none."""
MIN_FACE_FALLBACK = 16
MIN_SCORE = 0.9
"""Detections below this probability are dropped."""
SURE_SCORE = 0.999
"""Below this probability the picture may stand on its side (upright frontal photos score higher); turns are tried."""
EXTRA_SCORE = 0.97
"""Beside a sure face, detections below this probability are dropped: they are ears and textures."""
TURNED_SIZE = 640
"""Longer edge, in pixels, of the picture when turns are tried."""

TINY_EYE_DISTANCE = 20.0
"""Pixels between the eyes below which a face is called tiny: the ``dlib-128`` feature then moves by .19 and more."""
PROFILE_ASYMMETRY = 0.35
"""Offset of the nose from the midline, in eye distances, from which a face is called a profile (frontal: below .1)."""
BLUR_SHARPNESS = 0.025
"""Laplacian variance over grey variance of the chip below which a face is called blurred (sharp photos: above .2)."""

# Where MTCNN's points (eyes, nose tip, mouth corners) lie in dlib's 150×150 chip: the mean over 90 frontal photos,
# each mapped by its eye corners and nose base onto dlib's own 5-point template with 25 % padding.
DLIB_POINTS = np.array([[46.26, 46.48], [102.35, 46.34], [74.16, 75.33], [51.98, 106.80], [96.74, 106.75]])
DLIB_WEIGHTS = np.array([1.0, 1.0, 0.5, 0.5, 0.5])  # eyes move least with expression and pose
# Where pupils lie in chips on average: the template stands for the detector's idea of an eye's place.
DLIB_PUPILS = np.array([[46.42, 45.38], [101.46, 45.38]])
_DLIB_SIZE = CHIP_SIZES["dlib-128"]

# MTCNN's points relative to its box, and the box's height over its width: means over the same photos.
_BOX_POINTS = np.array([[0.274, 0.399], [0.740, 0.399], [0.506, 0.583], [0.308, 0.760], [0.707, 0.760]])
_BOX_HEIGHT = 1.35

_FACENET_MARGIN = 14  # pixels of the 160×160 chip, both sides together: the setting of its published LFW evaluation
_VGGFACE_CONTEXT = 1.3  # box extended by 0.3 (Cao et al. 2018, "VGGFace2", section IV)


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face in a picture."""

    box: np.ndarray
    """``(4,)`` left, top, right, bottom; may reach beyond the picture."""
    score: float
    """Probability of being a face, 0–1."""
    points: np.ndarray
    """``(5, 2)`` left eye, right eye, nose tip, left and right mouth corner: x, y."""
    turns: int = 0
    """Quarter turns counter-clockwise that set the face upright."""

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.linalg.norm(self.points[1] - self.points[0]))

    @property
    def asymmetry(self) -> float:
        """Offset of the nose tip from the midline between the eyes, in eye distances; 0 for a frontal face."""
        axis = self.points[1] - self.points[0]
        offset = (self.points[2] - self.points[:2].mean(axis=0)) @ axis
        return float(abs(offset) / max(float(axis @ axis), 1e-6))


@dataclass(frozen=True, eq=False)
class FaceChip:
    """A face cut out for one feature network."""

    chip: np.ndarray
    """``(S, S, 3)`` uint8 RGB."""
    face: DetectedFace
    """Where it was in the picture."""
    picture: Image.Image
    """What it was cut from, RGB and upright."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.picture.size


def _mtcnn(image: Image.Image, min_face: int) -> list[DetectedFace]:
    """Run MTCNN on a picture as it is."""
    from crossmodal.face_detector import find_faces

    found = find_faces(np.asarray(image), min_face)
    return [
        DetectedFace(box.astype(np.float64), float(score), points.astype(np.float64))
        for box, score, points in zip(found.boxes, found.scores, found.points)
        if score >= MIN_SCORE and box[2] > box[0] and box[3] > box[1]
    ]


def _moved(face: DetectedFace, scale: float, shift: float) -> DetectedFace:
    """Map coordinates by ``(x - shift) / scale``."""
    return dataclasses.replace(face, box=(face.box - shift) / scale, points=(face.points - shift) / scale)


def detect(image: Image.Image) -> list[DetectedFace]:
    """All upright faces in a picture, the largest first; an empty list if there is none.

    Large pictures are reduced to a longer edge of :data:`WORKING_SIZE`. If nothing is found, smaller faces are looked
    for, and then the picture is framed in grey, because MTCNN misses faces that fill the picture.
    """
    small, scale = _reduced(image, WORKING_SIZE)
    faces = _mtcnn(small, MIN_FACE) or _mtcnn(small, MIN_FACE_FALLBACK)
    border = 0
    if not faces:
        small, scale = _reduced(image, WORKING_SIZE // 2)
        border = max(8, max(small.size) // 4)
        framed = Image.new("RGB", (small.width + 2 * border, small.height + 2 * border), (128, 128, 128))
        framed.paste(small, (border, border))
        faces = _mtcnn(framed, max(MIN_FACE_FALLBACK, min(small.size) // 4))
    return _by_area(_moved(face, scale, border) for face in faces)


def _reduced(image: Image.Image, longer_edge: int) -> tuple[Image.Image, float]:
    """An RGB picture of at most ``longer_edge`` pixels, and its scale (≤ 1)."""
    image = image if image.mode == "RGB" else load_image(image)
    scale = min(1.0, longer_edge / max(image.size))
    if scale == 1:
        return image, 1.0
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0), scale


def _by_area(faces: Iterable[DetectedFace]) -> list[DetectedFace]:
    faces = sorted(faces, key=lambda face: face.area, reverse=True)
    sure = any(face.score >= SURE_SCORE for face in faces)
    return [face for face in faces if face.score >= EXTRA_SCORE or not sure]


def _turned_back(face: DetectedFace, turns: int, size: tuple[int, int]) -> DetectedFace:
    """Coordinates in a picture turned ``turns`` quarters counter-clockwise → coordinates in the picture as it was."""
    width, height = size
    points, box = face.points, face.box.reshape(2, 2)
    x, y = (np.concatenate([points[:, i], box[:, i]]) for i in (0, 1))
    x, y = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[turns]
    corners = np.array([x[5:].min(), y[5:].min(), x[5:].max(), y[5:].max()])
    return dataclasses.replace(face, box=corners, points=np.stack([x[:5], y[:5]], axis=1), turns=turns)


def find_face(image: Image.Image, *, index: int | None = None, source: object = "") -> DetectedFace:
    """The face to use: the largest, or number ``index`` counted from the largest, starting at 0.

    A picture without an upright face is tried lying on either side and upside down. Several faces without an
    ``index``, a turned picture, and a face that is tiny, in profile or blurred, each give an ``InputWarning``.

    Raises:
        NoFaceError: there is no face, or no face of that number.
    """
    name = str(source) or "the picture"
    faces = detect(image)
    if max((face.score for face in faces), default=0.0) < SURE_SCORE:
        faces = _find_turned(image, name) or faces
    if not faces:
        error = NoFaceError(
            f"no face found in {name} ({image.width}×{image.height})", remedy="crop closer or pass --no-detect"
        )
        error.source = str(source)
        raise error
    if index is not None and not 0 <= index < len(faces):
        last = f"0 to {len(faces) - 1}" if len(faces) > 1 else "0"
        count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        raise NoFaceError(f"no face number {index}, {count} found", source=name, remedy=f"--face-index takes {last}")
    if index is None and len(faces) > 1:
        _warn(f"{name}: {len(faces)} faces found, the largest is used; --face-index chooses another")
    face = faces[index or 0]
    for problem in quality_warnings(image, face):
        _warn(f"{name}: {problem}")
    return face


def _find_turned(image: Image.Image, name: str) -> list[DetectedFace]:
    """Faces of a picture that lies on its side or stands on its head; an empty list if it surely does not."""
    turn = {1: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_270, 2: Image.Transpose.ROTATE_180}
    small, scale = _reduced(image, TURNED_SIZE)
    best, turns, score = [], 0, SURE_SCORE
    for quarter, operation in turn.items():
        faces = _mtcnn(small.transpose(operation), MIN_FACE)
        top = max((face.score for face in faces), default=0.0)
        if top > score:
            best, turns, score = faces, quarter, top
    if best:
        stands = {1: "lies on its right side", 2: "stands on its head", 3: "lies on its left side"}[turns]
        _warn(f"{name}: the picture {stands}; it was turned upright")
    return _by_area(_moved(_turned_back(face, turns, small.size), scale, 0) for face in best)


def quality_warnings(image: Image.Image, face: DetectedFace) -> list[str]:
    """What may spoil the feature of this face: tiny, in profile, blurred. Empty for a good photo."""
    problems = []
    if face.eye_distance < TINY_EYE_DISTANCE:
        problems.append(f"the face is tiny ({face.eye_distance:.0f} pixels between the eyes): use a larger photo")
    elif _sharpness(align(image, face, "dlib-128")) < BLUR_SHARPNESS:  # an enlarged tiny face is always blurred
        problems.append("the face is blurred: use a sharper photo")
    if face.asymmetry > PROFILE_ASYMMETRY:
        problems.append("the face is seen from the side: use a frontal photo")
    return problems


def _sharpness(chip: np.ndarray) -> float:
    """Variance of the Laplacian over the variance of the grey values, in the inner part of a chip."""
    edge = len(chip) // 8
    grey = chip[edge:-edge, edge:-edge].astype(np.float64).mean(axis=2)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var() / max(float(grey.var()), 1e-6))


def _warn(message: str) -> None:
    warnings.warn(message, InputWarning, stacklevel=3)


def whole_image_face(image: Image.Image) -> DetectedFace:
    """Take the picture for a face crop with the usual context around the face (``--no-detect``)."""
    side = min(image.size) / _VGGFACE_CONTEXT  # height of the face box
    width, height = side / _BOX_HEIGHT, side
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = np.array([left, top, left + width, top + height])
    return DetectedFace(box, 1.0, box[:2] + _BOX_POINTS * [width, height])


def align(image: Image.Image, face: DetectedFace, space: str) -> np.ndarray:
    """Cut the chip that the feature network of ``space`` was trained on.

    ``dlib-128``: similarity warp of the five points onto dlib's template, 150×150. ``facenet-512``: MTCNN's box with
    a margin, 160×160, as facenet-pytorch cuts it. ``vggface-4096``: a square around the box with context, 224×224.

    Returns:
        ``(S, S, 3)`` uint8; what lies outside the picture is black (``dlib-128``) or repeats its edge.

    Raises:
        ConfigError: no aligner for that space.
    """
    image = image if image.mode == "RGB" else load_image(image)
    if space == "dlib-128":
        return _warp(image, *similarity_fit(face.points, DLIB_POINTS, DLIB_WEIGHTS), _DLIB_SIZE)
    if space == "facenet-512":
        chip = _facenet_crop(image, face.box)
    elif space == "vggface-4096":
        chip = _square_crop(image, face.box)
    else:
        known = ", ".join(CHIP_SIZES)
        raise ConfigError(f"no face alignment for the space '{space}'", remedy=f"known spaces: {known}")
    return np.ascontiguousarray(np.rot90(chip, face.turns))


def align_batch(images: Sequence[Image.Image], faces: Sequence[DetectedFace], space: str) -> np.ndarray:
    """:func:`align` for B pictures and one face each → ``(B, S, S, 3)`` uint8."""
    if len(images) != len(faces):
        raise ConfigError(f"{len(images)} pictures but {len(faces)} faces")
    size = CHIP_SIZES.get(space, 0)
    chips = [align(image, face, space) for image, face in zip(images, faces)]
    return np.stack(chips) if chips else np.zeros((0, size, size, 3), np.uint8)


def similarity_fit(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and scale ``(2, 2)`` and shift ``(2,)`` that map source points to target points, least squares.

    In complex numbers: target ≈ a · source + b, with a the weighted regression coefficient.
    """
    weights = weights / weights.sum()
    centre_source, centre_target = weights @ source, weights @ target
    s, t = (source - centre_source) @ [1, 1j], (target - centre_target) @ [1, 1j]
    spread = float(weights @ np.abs(s) ** 2)
    a = (weights * s.conj()) @ t / spread if spread > 1e-9 else 1.0 + 0.0j
    matrix = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return matrix, centre_target - matrix @ centre_source


def _warp(image: Image.Image, matrix: np.ndarray, shift: np.ndarray, size: int) -> np.ndarray:
    """Picture → ``(size, size, 3)`` by ``chip = matrix @ picture + shift``, low-passed first where it shrinks."""
    inverse = np.linalg.inv(matrix)
    offset = -inverse @ shift  # picture = inverse @ chip + offset
    scale = float(np.sqrt(abs(np.linalg.det(inverse))))  # picture pixels per chip pixel
    if scale > 1:
        corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) @ inverse.T + offset
        low = np.clip(np.floor(corners.min(axis=0) - 2 * scale), 0, image.size)
        high = np.clip(np.ceil(corners.max(axis=0) + 2 * scale), 0, image.size)
        region = high - low
        if region.min() >= 1:
            target = np.maximum(np.round(region / scale), 1).astype(int)
            box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
            image = image.resize((int(target[0]), int(target[1])), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
            factor = target / region
            inverse, offset = inverse * factor[:, None], (offset - low) * factor
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    warped = image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.array(warped)


def portrait(image: Image.Image, face: DetectedFace, pupils: np.ndarray, size: int) -> np.ndarray:
    """Head and hair, upright, with the pupils where they are asked for: the photo in a face decoder's frame.

    Args:
        image: RGB picture.
        face: in it.
        pupils: ``(2, 2)`` places of the left and right pupil in the portrait, in pixels.
        size: height and width of the portrait in pixels.

    Returns:
        ``(size, size, 4)`` uint8 RGBA; alpha is 0 outside the picture, else 255.
    """
    matrix, shift = similarity_fit(face.points, DLIB_POINTS, DLIB_WEIGHTS)  # picture → chip
    # chip → portrait; a pixel's centre lies at half in a picture, at whole numbers in a frame
    turn, offset = similarity_fit(DLIB_PUPILS, pupils + 0.5, np.ones(2))
    matrix, shift = turn @ matrix, turn @ shift + offset
    colours = _warp(image, matrix, shift, size)
    places = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1) + 0.5 - shift
    x, y = np.moveaxis(places @ np.linalg.inv(matrix).T, -1, 0)
    inside = (x > 0) & (y > 0) & (x < image.width) & (y < image.height)
    return np.dstack([colours, np.where(inside, 255, 0).astype(np.uint8)])


def _facenet_crop(image: Image.Image, box: np.ndarray) -> np.ndarray:
    size = CHIP_SIZES["facenet-512"]
    margin = _FACENET_MARGIN / (size - _FACENET_MARGIN) * (box[2:] - box[:2]) / 2
    low = np.clip(box[:2] - margin, 0, None).astype(int)
    high = np.minimum(box[2:] + margin, image.size).astype(int)
    low = np.minimum(low, np.array(image.size) - 1)
    high = np.maximum(high, low + 1)
    crop = image.crop((int(low[0]), int(low[1]), int(high[0]), int(high[1])))
    return np.array(crop.resize((size, size), Image.Resampling.BILINEAR))


def _square_crop(image: Image.Image, box: np.ndarray) -> np.ndarray:
    size = CHIP_SIZES["vggface-4096"]
    half = float((box[2:] - box[:2]).max()) * _VGGFACE_CONTEXT / 2
    centre = (box[:2] + box[2:]) / 2
    low, high = np.floor(centre - half).astype(int), np.ceil(centre + half).astype(int)
    inside_low = np.clip(low, 0, np.array(image.size) - 1)
    inside_high = np.maximum(np.minimum(high, image.size), inside_low + 1)
    crop = np.asarray(image.crop((*inside_low.tolist(), *inside_high.tolist())))
    before, after = np.maximum(inside_low - low, 0), np.maximum(high - inside_high, 0)
    crop = np.pad(crop, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    return np.array(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))


def read_face(source: Any, space: str, *, index: int | None = None, no_detect: bool = False) -> FaceChip:
    """Picture (anything :func:`load_image` reads) → the chip for the feature network of ``space``.

    Args:
        source: the picture.
        space: ``dlib-128``, ``facenet-512`` or ``vggface-4096``.
        index: which face, counted from the largest, starting at 0; the largest if not given.
        no_detect: the picture is a face crop already.

    Raises:
        ImageError: the picture cannot be read. NoFaceError: it shows no face, or none of that number.
    """
    if space not in CHIP_SIZES:
        known = ", ".join(CHIP_SIZES)
        raise ConfigError(f"no face alignment for the space '{space}'", remedy=f"known spaces: {known}")
    image = load_image(source)
    name = source if isinstance(source, str) or hasattr(source, "__fspath__") else getattr(source, "name", "")
    face = whole_image_face(image) if no_detect else find_face(image, index=index, source=name)
    return FaceChip(align(image, face, space), face, image)
