"""The colour of the skin in a photo, and what it would be in even white light.

A face feature hardly holds the colour of the skin: it was trained to recognise people whatever the light. The photo
shows it, but in its own light. :func:`likely` weighs the two: skin and light multiply, so in the logarithm of linear
RGB the measured colour is the skin's plus the light's, and both have a known spread. A colour that the feature leaves
possible is taken as it is; one that would be strange for this face is put down to the light.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLACES = ((-0.55, 0.62, 0.2), (0.55, 0.62, 0.2), (0.0, -0.62, 0.18))
"""Cheeks and lower forehead: right and down from between the pupils, and radius, in distances between the eyes. Skin in
everyone, without beard; a fringe may cover the last."""
WIDTH = 12.0
"""Pixels that differ from the others' median by more than this in L*, or in a*b*, are hair, frames or shine."""
LEAST_CHROMA = 4.0
"""C*ab below which a picture is black and white: the palest and the darkest skin have 8 and more."""

# Error of the colour that the starter's decoder reads in a feature, as a covariance of the logarithm of linear RGB:
# ten-fold cross-validation over the 70 people it was trained on, the two of them left out who were furthest off.
FEATURE_ERROR = np.array([[0.034, 0.040, 0.044], [0.040, 0.052, 0.058], [0.044, 0.058, 0.069]])
PHOTO_ERROR = 0.03
"""Deviation of the measurement itself."""
LIGHTS = ((0.5, 0.08, 0.03), (0.5, 0.5, 0.2))
"""How photos are lit: probability, deviation of the exposure (natural logarithm; .69 is one stop), and of the tint from
blue to red. A studio, and everywhere else. Chosen on the 70 training people under simulated light."""


def to_linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB → linear RGB, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def from_linear(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB → sRGB, both in [0, 1]."""
    return np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.maximum(rgb, 0) ** (1 / 2.4) - 0.055)


def srgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] ``(..., 3)`` → CIE L*a*b* under D65 ``(..., 3)`` (CIE 15:2004)."""
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_linear(rgb) @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def mask(eyes: np.ndarray, size: int) -> np.ndarray:
    """Where the skin of an upright face is, by :data:`PLACES`.

    Args:
        eyes: ``(2, 2)`` left and right pupil, x and y in pixels.
        size: height and width of the picture.

    Returns:
        ``(size, size)`` bool.
    """
    return places_mask(PLACES, eyes, size)


def places_mask(places: Sequence[tuple[float, float, float]], eyes: np.ndarray, size: int) -> np.ndarray:
    """Discs on an upright face ``(size, size)`` bool.

    Args:
        places: right and down from between the pupils, and radius, in distances between the eyes.
        eyes: ``(2, 2)`` left and right pupil, x and y in pixels.
        size: height and width of the picture.
    """
    (x, y), distance = eyes.mean(axis=0), float(np.linalg.norm(eyes[1] - eyes[0]))
    rows, columns = np.mgrid[0:size, 0:size]
    found = np.zeros(rows.shape, dtype=bool)
    for right, down, radius in places:
        found |= (columns - x - right * distance) ** 2 + (rows - y - down * distance) ** 2 < (radius * distance) ** 2
    return found


def measure(chip: np.ndarray) -> np.ndarray | None:
    """Colour of the skin in a ``dlib-128`` chip ``(150, 150, 3)`` uint8: sRGB in [0, 1] ``(3,)``.

    The median of what agrees: fringes, beards, frames and shine are left out. ``None`` for a picture without colours.
    """
    from crossmodal.faces import DLIB_POINTS

    pixels = chip[mask(DLIB_POINTS[:2], len(chip))] / 255.0  # (P, 3)
    lab = srgb_to_lab(pixels)
    keep = np.ones(len(lab), dtype=bool)
    for _ in range(4):
        middle = np.median(lab[keep], axis=0)
        away = np.abs(lab - middle)
        near = (away[:, 0] < WIDTH) & (np.hypot(away[:, 1], away[:, 2]) < WIDTH)
        if not near.any():  # two halves of different colour: none is the skin rather than the other
            break
        keep = near
    colour = np.median(pixels[keep], axis=0)
    return colour if np.hypot(*srgb_to_lab(colour)[1:]) >= LEAST_CHROMA else None


def likely(expected: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Colour of the skin in even white light.

    Args:
        expected: ``(..., 3)`` sRGB in [0, 1] that the face feature suggests.
        measured: ``(..., 3)`` sRGB in [0, 1] in the photo, see :func:`measure`.

    Returns:
        ``(..., 3)`` sRGB: the mean of skin given the measurement, under a Gaussian around ``expected`` and a mixture of
        Gaussian lights (:data:`LIGHTS`).
    """
    prior = np.log(to_linear(np.clip(expected, 0.02, 0.98)))
    away = np.log(to_linear(np.clip(measured, 0.02, 0.995))) - prior  # (..., 3)
    evidence, moves = [], []
    for probability, exposure, tint in LIGHTS:
        light = exposure**2 * np.ones((3, 3))
        for axis, deviation in (((1.0, 0.0, -1.0), tint), ((-0.5, 1.0, -0.5), 0.4 * tint)):
            light = light + deviation**2 * np.outer(axis, axis)
        total = FEATURE_ERROR + light + PHOTO_ERROR**2 * np.eye(3)
        inverse = np.linalg.inv(total)
        distance = np.einsum("...i,ij,...j->...", away, inverse, away)
        evidence.append(np.log(probability) - 0.5 * distance - 0.5 * np.linalg.slogdet(total)[1])
        moves.append(away @ (FEATURE_ERROR @ inverse).T)
    share = np.exp(np.array(evidence) - np.max(evidence, axis=0))  # (lights, ...)
    share /= share.sum(axis=0)
    return from_linear(np.exp(prior + (share[..., None] * np.array(moves)).sum(axis=0)))
