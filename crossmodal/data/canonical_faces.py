"""Photos with landmark templates → the canonical frame: matted, aligned, warped to one mean shape.

What the face decoder is built from (Cole et al. 2017, section 4: landmarks and *aligned textures*). For each photo:

1. the plain studio background is fitted by a polynomial and the head matted from it, so that no background colour is
   left in hair edges; shirt and shoulders are cut off;
2. a similarity on the inner-face landmarks brings it into the frame (:class:`Frame`);
3. points on the silhouette of head and hair join the landmarks, so that hair *shape* is shape, not a ghost in the
   texture;
4. a thin-plate spline warps it to the mean shape: an aligned RGBA texture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmodal.errors import DataError

# Indices of the 189-point Psychomorph template.
PUPILS = (0, 1)
CHIN = 129
INNER = (*range(109), *range(158, 183))
"""Eyes, brows, nose, mouth and cheeks: what alignment rests on."""
OUTLINE = tuple(range(125, 145))
"""Jaw, then hairline."""
BROWS = tuple(range(71, 87))
NECK = (145, 157)
"""Where the jaw's shadow meets the sides of the neck."""
TEMPLATE_POINTS = 189

RAYS = 27
"""Silhouette points: where rays from between the eyes leave head and hair."""
RAY_RANGE = (-32.0, 212.0)
"""First and last ray in degrees; 90 points up, negative is below the horizontal."""


@dataclass(frozen=True)
class Frame:
    """The canonical frame: square, frontal, pupils on one line."""

    size: int = 384
    """Height and width in pixels."""
    eye_distance: float = 80.0
    """Between the pupils of the mean face, in pixels."""
    eye_line: float = 172.0
    """Height of the mean pupils, in pixels from the top."""

    @property
    def centre(self) -> float:
        return (self.size - 1) / 2

    @property
    def pupils(self) -> np.ndarray:
        """``(2, 2)`` of the mean face: left and right, x and y in pixels."""
        half = self.eye_distance / 2
        return np.array([[self.centre - half, self.eye_line], [self.centre + half, self.eye_line]])


@dataclass
class AlignedFaces:
    """``N`` people in the canonical frame."""

    names: list[str]
    points: np.ndarray
    """``(N, L, 2)`` float32 pixels: template landmarks, then silhouette."""
    textures: np.ndarray
    """``(N, H, W, 4)`` uint8 RGBA in the mean shape; RGB is extended beyond the silhouette."""
    pictures: np.ndarray
    """``(N, H, W, 4)`` uint8 RGBA in the person's own shape, in the frame."""
    mean_points: np.ndarray
    """``(L, 2)`` the mean shape, symmetric."""
    mirror: np.ndarray
    """``(L,)`` index of each point's mirror image."""
    frame: Frame


def read_template(path: str | Path) -> np.ndarray:
    """Psychomorph ``.tem`` → landmarks ``(189, 2)`` in pixels (x, y).

    Raises:
        DataError: the file is missing or is not such a template.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
        count = int(lines[0])
        points = np.array([[float(v) for v in line.split()[:2]] for line in lines[1 : count + 1]], dtype=np.float32)
    except (OSError, ValueError, IndexError) as error:
        raise DataError("cannot be read as a Psychomorph template", source=path) from error
    if points.shape != (TEMPLATE_POINTS, 2):
        raise DataError(
            f"holds {len(points)} landmarks", source=path, remedy=f"a template of {TEMPLATE_POINTS} landmarks is needed"
        )
    return points


def studio_background(image: np.ndarray, chin: float) -> np.ndarray:
    """Fit the smooth background of ``image`` ``(H, W, 3)`` in [0, 1] from what is not the person → ``(H, W, 3)``.

    Args:
        image: RGB.
        chin: row below which shoulders may reach the edges.
    """
    height, width, _ = image.shape
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = columns / width - 0.5, rows / height - 0.5
    powers = [(i, j) for i in range(5) for j in range(5 - i)]
    terms = np.stack([x**i * y**j for i, j in powers], axis=-1).reshape(height * width, -1).astype(np.float32)
    above = rows < chin
    edge = above & ((columns < 0.12 * width) | (columns > 0.88 * width) | (rows < 0.05 * height))
    use, background = edge, np.zeros_like(image)
    for _ in range(3):
        chosen = np.flatnonzero(use.ravel())[::7]
        weights, *_ = np.linalg.lstsq(terms[chosen], image.reshape(-1, 3)[chosen], rcond=None)
        background = (terms @ weights).reshape(image.shape)
        error = np.abs(image - background).max(axis=-1)
        use = ndimage.binary_erosion(above & (error < 0.04), iterations=3) | (edge & (error < 0.08))
    return background.astype(np.float32)


def matte(image: np.ndarray, background: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut head and neck out of a studio photo.

    Args:
        image: ``(H, W, 3)`` RGB in [0, 1].
        background: ``(H, W, 3)`` what would be seen without the person.
        landmarks: ``(189, 2)`` in pixels.

    Returns:
        ``(H, W, 4)``: RGB free of background and shirt, extended outwards, and alpha.
    """
    eyes = float(np.linalg.norm(landmarks[PUPILS[1]] - landmarks[PUPILS[0]]))
    chin = float(landmarks[CHIN, 1])
    centre = float(landmarks[INNER, 0].mean())
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    difference = np.abs(image - background).max(axis=-1)
    torso = rows > chin + 0.03 * eyes
    soft = ndimage.uniform_filter(image, (5, 5, 1))
    # White cloth is bright and no redder than it is blue; skin always is.
    shirt = torso & (soft.max(-1) > 0.5) & (soft[..., 0] - soft[..., 2] < 0.055)
    shirt = ndimage.binary_dilation(ndimage.binary_opening(shirt, iterations=1), iterations=3)
    # What is surely the person: inside the face, or clearly unlike the background and connected with the face.
    half = 0.5 * float(np.ptp(landmarks[list(NECK), 0])) + 0.1 * eyes  # half the width of the neck
    throat = [[centre + side * 0.7 * half, chin + 0.9 * eyes] for side in (-1, 1)]
    face = _inside(landmarks[[*INNER, *OUTLINE]], rows, columns)
    face |= _inside(np.concatenate([landmarks[list(NECK)], throat]), rows, columns) & ~shirt
    solid = (ndimage.binary_opening(difference > 0.14, iterations=1) | face) & ~shirt
    solid = ndimage.binary_propagation(face, mask=solid)
    holes, count = ndimage.label(~solid & ~shirt)
    if count:  # bright skin and glints in hair leave small holes, gaps between hair and neck large ones
        sizes = ndimage.sum_labels(np.ones_like(holes), holes, range(1, count + 1))
        solid |= np.isin(holes, 1 + np.flatnonzero(sizes < (0.22 * eyes) ** 2))
    core = ndimage.binary_erosion(solid, iterations=2)
    reach, near = ndimage.distance_transform_edt(~core, return_indices=True)
    spread = image[near[0], near[1]]  # nearest sure foreground colour
    toward = background - spread
    alpha = ((background - image) * toward).sum(-1) / np.maximum((toward * toward).sum(-1), 0.01)
    alpha = np.clip((alpha - 0.1) / 0.8, 0.0, 1.0)
    alpha[core] = 1.0
    alpha *= np.clip((0.35 * eyes - reach) / (0.15 * eyes), 0, 1)  # specks far from the head
    alpha[shirt] = 0.0
    # Below the chin only the neck stays: a column that follows its width.
    column = np.clip((half + 0.1 * np.clip(rows - chin, 0, None) - np.abs(columns - centre)) / (0.1 * eyes), 0, 1)
    alpha = np.where(torso, alpha * column, alpha)
    alpha[ndimage.binary_fill_holes(alpha > 0.5) & (rows < landmarks[PUPILS[0], 1])] = 1.0  # glints on the head
    alpha *= np.clip((rows - 1) / 8, 0, 1)  # hair that leaves the frame fades
    # Its colour: the person's own where sure, else the nearest sure one
    distance, near = ndimage.distance_transform_edt((alpha < 0.97) | shirt, return_indices=True)
    colour = image[near[0], near[1]]
    for sigma in (1.5, 4.0, 9.0):  # the farther from the person, the smoother
        blurred = ndimage.gaussian_filter(colour, (sigma, sigma, 0))
        colour = np.where((distance > sigma)[..., None], blurred, colour)
    # Where the neck is hidden by cloth, its colour goes on below it.
    hidden = ndimage.gaussian_filter((shirt & (column > 0.9)).astype(np.float32), 2.0)
    alpha = np.maximum(alpha, np.clip(2 * hidden, 0, 1) * column)
    return np.concatenate([colour, alpha[..., None]], axis=-1).astype(np.float32)


def _inside(points: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which pixels lie in the convex hull of ``points`` ``(N, 2)``."""
    from scipy.spatial import ConvexHull

    planes = ConvexHull(points).equations  # (F, 3), a x + b y + c <= 0 inside
    return np.all([a * columns + b * rows + c <= 0 for a, b, c in planes], axis=0)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity ``(2, 3)`` taking points ``source`` to ``target``, both ``(N, 2)`` (Umeyama 1991)."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    a, b = source - mean_s, target - mean_t
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / (a * a).sum()
    linear = scale * rotation
    return np.concatenate([linear, (mean_t - linear @ mean_s)[:, None]], axis=1)


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply ``(2, 3)`` to points ``(..., 2)``."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def resample(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """``image`` ``(H, W, C)`` through ``matrix`` (image → frame) into a ``size × size`` frame, anti-aliased."""
    linear = np.linalg.inv(matrix[:, :2])
    offset = -linear @ matrix[:, 2]
    shrink = float(np.sqrt(abs(np.linalg.det(linear))))
    if shrink > 1.2:
        image = ndimage.gaussian_filter(image, (0.35 * shrink, 0.35 * shrink, 0))
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    sx = linear[0, 0] * x + linear[0, 1] * y + offset[0]
    sy = linear[1, 0] * x + linear[1, 1] * y + offset[1]
    planes = [ndimage.map_coordinates(image[..., c], [sy, sx], order=1, mode="nearest") for c in range(image.shape[-1])]
    return np.clip(np.stack(planes, axis=-1), 0, 1).astype(np.float32)


def mean_shape(shapes: Sequence[np.ndarray], frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Generalised Procrustes mean of templates → symmetric mean ``(L, 2)`` in the frame, mirror indices ``(L,)``."""
    from scipy.optimize import linear_sum_assignment

    inner = list(INNER)

    def into_frame(points: np.ndarray) -> np.ndarray:
        left, right = points[PUPILS[0]], points[PUPILS[1]]
        wanted = np.array([[-0.5, 0.0], [0.5, 0.0]]) * frame.eye_distance + [frame.centre, frame.eye_line]
        return transform(similarity(np.stack([left, right]), wanted), points)

    mean = into_frame(np.mean([into_frame(s) for s in shapes], axis=0))
    for _ in range(4):
        mean = into_frame(np.mean([transform(similarity(s[inner], mean[inner]), s) for s in shapes], axis=0))
    flipped = mean * [-1, 1] + [2 * frame.centre, 0]
    cost = np.linalg.norm(flipped[:, None] - mean[None], axis=-1)
    mirror = linear_sum_assignment(cost)[1]
    return ((mean + flipped[mirror]) / 2).astype(np.float32), mirror


def silhouette(alpha: np.ndarray, frame: Frame) -> np.ndarray:
    """Where rays from between the eyes last leave the matte ``(H, W)`` → ``(RAYS, 2)``, left to right over the top."""
    smooth = ndimage.gaussian_filter(alpha, 0.05 * frame.eye_distance)
    angles = np.deg2rad(np.linspace(RAY_RANGE[1], RAY_RANGE[0], RAYS))
    radii = np.arange(0.9 * frame.eye_distance, 2.05 * frame.eye_distance, 0.5)
    x = frame.centre + radii[None] * np.cos(angles)[:, None]
    y = frame.eye_line - radii[None] * np.sin(angles)[:, None]
    inside = ndimage.map_coordinates(smooth, [y, x], order=1, mode="nearest") > 0.5  # (RAYS, R)
    # Beside and below the ears only the near hair is shape; longer hair stays in the texture.
    bound = frame.eye_distance * (1.32 + 0.73 * np.clip(np.sin(angles), 0, 1) ** 2)  # (RAYS,)
    inside &= radii[None] <= bound[:, None]
    last = np.where(inside.any(1), inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1), 0)
    radius = radii[last]
    radius = ndimage.gaussian_filter1d(ndimage.median_filter(radius, 5, mode="nearest"), 1.6, mode="nearest")
    points = np.stack([frame.centre + radius * np.cos(angles), frame.eye_line - radius * np.sin(angles)], axis=-1)
    return np.clip(points, 1, frame.size - 2).astype(np.float32)


def align_faces(
    photos: Sequence[tuple[str, Path, Path]],
    frame: Frame,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> AlignedFaces:
    """Bring photos into the canonical frame and to the mean shape.

    Args:
        photos: ``(name, picture, template)`` each.
        frame: the canonical frame.
        progress: called with (done, all).

    Raises:
        DataError: a template cannot be read.
    """
    import torch
    from PIL import Image

    from crossmodal.models.face_decoder import LOOSE
    from crossmodal.models.thin_plate import warp, with_anchors

    templates = [read_template(template) for _, _, template in photos]
    mean, mirror = mean_shape(templates, frame)
    inner = list(INNER)
    pictures, shapes = [], []
    for done, ((_, picture, _), template) in enumerate(zip(photos, templates)):
        with Image.open(picture) as opened:
            image = np.asarray(opened.convert("RGB"), dtype=np.float32) / 255
        background = studio_background(image, template[CHIN, 1])
        matrix = similarity(template[inner], mean[inner])
        both = resample(np.concatenate([image, background], axis=-1), matrix, frame.size)
        framed = matte(both[..., :3], both[..., 3:], transform(matrix, template))
        pictures.append(framed)
        outline = silhouette(framed[..., 3], frame)
        shapes.append(np.concatenate([transform(matrix, template).astype(np.float32), outline]))
        if progress:
            progress(done + 1, len(photos))
    points = np.stack(shapes)
    mirror = np.concatenate([mirror, len(mirror) + np.arange(RAYS)[::-1]])
    outline = points[:, TEMPLATE_POINTS:].mean(0)
    flipped = (outline * [-1, 1] + [2 * frame.centre, 0])[::-1]
    mean = np.concatenate([mean, (outline + flipped) / 2]).astype(np.float32)
    # The same points as in the decoder's warp, which has to undo this one.
    controls = [i for i in range(len(mean)) if i not in LOOSE]
    goal = with_anchors(torch.from_numpy(mean[controls])[None], frame.size)
    textures = []
    for framed, shape in zip(pictures, points):
        texture = torch.from_numpy(framed).permute(2, 0, 1)[None]
        anchored = with_anchors(torch.from_numpy(shape[controls])[None], frame.size)
        aligned = warp(texture, anchored, goal, step=4)[0].permute(1, 2, 0).clamp(0, 1).numpy()
        textures.append((aligned * 255).round().astype(np.uint8))
    return AlignedFaces(
        names=[name for name, _, _ in photos],
        points=points,
        textures=np.stack(textures),
        pictures=np.stack([(p * 255).round().astype(np.uint8) for p in pictures]),
        mean_points=mean,
        mirror=mirror,
        frame=frame,
    )
