"""Does a drawn face show what the photo shows: beard, brows, folds, hair? Against the person's own picture.

Recognition has no part in any of it. Each figure stands beside the same one for the face that the feature alone gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crossmodal.data.canonical_faces import CHIN, AlignedFaces
from crossmodal.data.face_model import regions
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.models.appearance import LUMA
from crossmodal.models.face_decoder import FaceDecoderConfig
from crossmodal.skin import PLACES, places_mask

Places = tuple[tuple[float, float, float], ...]

CHEEKS: Places = PLACES[:2]
"""What everything is darker or lighter than."""
LOOKS: dict[str, Places] = {
    "beard": ((-0.17, 0.88, 0.07), (0.17, 0.88, 0.07), (-0.12, 1.42, 0.09), (0.12, 1.42, 0.09), (-0.5, 1.2, 0.1),
              (0.5, 1.2, 0.1)),
    "brows": ((-0.5, -0.3, 0.08), (0.5, -0.3, 0.08)),
    "folds beside the nose": ((-0.38, 0.85, 0.05), (0.38, 0.85, 0.05)),
    "shade below the eyes": ((-0.5, 0.22, 0.06), (0.5, 0.22, 0.06)),
}  # fmt: skip
"""Where each lies in the mean shape: right and down from between the pupils, and radius, in eye distances."""
BACKGROUND = np.array(FaceDecoderConfig.background)


class Drawn(NamedTuple):
    """Drawn faces of ``N`` people."""

    texture: np.ndarray
    """``(N, H, W, 3)`` in the mean shape, sRGB in [0, 1]."""
    images: np.ndarray
    """``(N, H, W, 3)`` uint8."""


def darkness(texture: np.ndarray, places: Places, pupils: np.ndarray) -> np.ndarray:
    """How much darker than the cheeks textures ``(N, H, W, 3)`` are at ``places``: difference of luma ``(N,)``.

    Each place counts by its median, all places the same.
    """
    luma = texture @ np.array(LUMA)
    cheeks = np.median(luma[:, places_mask(CHEEKS, pupils, luma.shape[1])], axis=1)
    there = [np.median(luma[:, places_mask((place,), pupils, luma.shape[1])], axis=1) for place in places]
    return cheeks - np.mean(there, axis=0)


def look_figures(label: str, ours: Drawn, plain: Drawn, aligned: AlignedFaces, people: Sequence[int]) -> list[Figure]:
    """Correlation over people of each of :data:`LOOKS`, drawn and true, and the difference of the hair.

    Args:
        label: what the figures' names begin with.
        ours: faces drawn from photos.
        plain: the same from the feature alone.
        aligned: the truth.
        people: indices of those who were drawn.
    """
    pupils = aligned.mean_points[:2].astype(np.float64)
    truth = aligned.textures[list(people)][..., :3].astype(np.float32) / 255

    def correlation(rows: np.ndarray) -> float:
        return float(np.corrcoef(rows.T)[0, 1]) if np.ptp(rows, axis=0).min() > 0 else 0.0

    figures = []
    for name, places in LOOKS.items():
        wanted = darkness(truth, places, pupils)
        drawn, alone = (np.stack([darkness(d.texture, places, pupils), wanted], axis=1) for d in (ours, plain))
        figures.append(
            figure(
                f"{label}: {name}, r with the true face", drawn, statistic=correlation,
                reference=correlation(alone), reference_name="feature alone",
            )
        )  # fmt: skip
    apart, alone_apart = (hair_difference(d.images, aligned, people) for d in (ours, plain))
    figures.append(
        figure(
            f"{label}: hair, mean difference of colour", apart,
            reference=float(alone_apart.mean()), reference_name="feature alone",
        )
    )  # fmt: skip
    return figures


def hair_difference(images: np.ndarray, aligned: AlignedFaces, people: Sequence[int]) -> np.ndarray:
    """Mean absolute difference of sRGB, in [0, 1], from the person's picture outside the face and above the chin
    ``(N,)``; both before the same background, so a wrong outline counts as well as a wrong colour.

    Args:
        images: ``(N, H, W, 3)`` uint8 drawn faces.
        aligned: the truth.
        people: whose.
    """
    pictures = aligned.pictures[list(people)].astype(np.float32) / 255
    alpha = pictures[..., 3:]
    true = pictures[..., :3] * alpha + BACKGROUND * (1 - alpha)
    around = regions(aligned)[0] < 0.1
    around &= np.arange(len(around))[:, None] < aligned.mean_points[CHIN, 1]
    return np.abs(images / 255.0 - true)[:, around].mean((1, 2))
