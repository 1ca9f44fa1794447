"""Skin colour: the conversions, where it is measured, and how it is told from the light."""

from __future__ import annotations

import numpy as np
import pytest

from crossmodal import skin
from crossmodal.faces import DLIB_POINTS, align, find_face
from tests.generated import drawn_face

FACE = np.array([0.78, 0.60, 0.52])
"""A usual colour of skin, sRGB."""


def chip_of(colour: np.ndarray, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (255 * np.clip(colour + noise * rng.standard_normal((150, 150, 3)), 0, 1)).round().astype(np.uint8)


def lit(colour: np.ndarray, gain: object) -> np.ndarray:
    """A colour in another light: a factor on each channel of linear RGB."""
    return skin.from_linear(np.clip(skin.to_linear(np.asarray(colour)) * np.asarray(gain), 0, 1))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(skin.srgb_to_lab(np.asarray(a)) - skin.srgb_to_lab(np.asarray(b))))


def test_linear_light_and_back() -> None:
    assert skin.to_linear(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 0.21404, 1], abs=1e-5)
    rgb = np.random.default_rng(0).uniform(0, 1, (5, 3))
    assert np.allclose(skin.from_linear(skin.to_linear(rgb)), rgb)


def test_mask_lies_on_cheeks_and_forehead() -> None:
    found = skin.mask(DLIB_POINTS[:2], 150)
    (left, right, nose), eye_line = DLIB_POINTS[:3], DLIB_POINTS[0, 1]
    rows, columns = np.nonzero(found)
    assert not found[round(nose[1]), round(nose[0])]
    assert not any(found[round(y), round(x)] for x, y in (left, right))
    assert (rows < eye_line).any()
    assert ((rows > eye_line) & (columns < left[0])).any()
    assert ((rows > eye_line) & (columns > right[0])).any()


def test_measures_a_plain_colour() -> None:
    measured = skin.measure(chip_of(FACE))
    assert measured is not None
    assert difference(measured, FACE) < 1


@pytest.mark.parametrize("hidden", ["fringe", "beard", "shine"])
def test_what_is_not_skin_is_left_out(hidden: str) -> None:
    chip = chip_of(FACE)
    if hidden == "fringe":
        chip[:25] = (40, 30, 25)
    elif hidden == "beard":
        chip[85:] = (60, 48, 40)
    else:
        chip[70:80] = (250, 245, 240)
    measured = skin.measure(chip)
    assert measured is not None
    assert difference(measured, FACE) < 2


def test_black_and_white_tells_no_colour() -> None:
    grey = np.repeat(chip_of(FACE).mean(-1, keepdims=True).round().astype(np.uint8), 3, axis=-1)
    assert skin.measure(grey) is None


def test_measures_the_face_of_a_picture() -> None:
    """Two drawn faces of different skin: their order is kept, wherever the detector puts its points."""
    found = []
    for seed in (0, 5):
        picture = drawn_face(320, seed=seed)
        colour = skin.measure(align(picture, find_face(picture), "dlib-128"))
        assert colour is not None
        rng = np.random.default_rng(seed)
        tone = rng.uniform(0, 1)
        true = (np.array([228, 186, 160]) * (1 - tone) + np.array([120, 78, 56]) * tone) / 255
        found.append((skin.srgb_to_lab(true)[0], skin.srgb_to_lab(colour)[0]))
    (true, ours), (true_other, other) = found
    assert np.sign(true - true_other) == np.sign(ours - other)
    assert abs(true - ours) < 10


def test_in_good_light_the_photo_decides() -> None:
    expected = lit(FACE, 0.8)  # what a feature may well get wrong
    assert difference(skin.likely(expected, FACE), FACE) < 0.3 * difference(expected, FACE)


@pytest.mark.parametrize("gain", [(1.5, 1.0, 0.45), (0.7, 1.0, 1.5), (0.2, 0.2, 0.2), (2.6, 2.6, 2.6)])
def test_in_strange_light_the_face_decides(gain: tuple[float, ...]) -> None:
    measured = lit(FACE, gain)
    assert difference(skin.likely(FACE, measured), FACE) < 0.5 * difference(measured, FACE)


def test_many_at_once_and_none_is_out_of_range() -> None:
    rng = np.random.default_rng(0)
    expected, measured = rng.uniform(0, 1, (2, 50, 3))
    both = skin.likely(expected, measured)
    assert np.allclose(both[7], skin.likely(expected[7], measured[7]))
    assert np.isfinite(both).all()
    assert both.min() >= 0


def test_likely_is_the_mean_that_sampling_finds() -> None:
    """Skin and light drawn from what they are said to be; the draws that give the measured colour, averaged."""
    rng = np.random.default_rng(0)
    prior, measured = np.log(skin.to_linear(FACE)), lit(FACE, (1.25, 1.1, 0.95))
    count = 400_000
    surface = rng.multivariate_normal(prior, skin.FEATURE_ERROR, count)
    kind = rng.random(count) < skin.LIGHTS[0][0]
    exposure, tint = (np.where(kind, skin.LIGHTS[0][i], skin.LIGHTS[1][i]) for i in (1, 2))
    z = rng.standard_normal((3, count, 1))
    light = exposure[:, None] * z[0] + tint[:, None] * (z[1] * [1, 0, -1] + 0.4 * z[2] * [-0.5, 1, -0.5])
    away = np.log(skin.to_linear(measured)) - surface - light
    weight = np.exp(-0.5 * (away**2).sum(1) / skin.PHOTO_ERROR**2)
    mean = (weight[:, None] * surface).sum(0) / weight.sum()
    assert np.allclose(np.log(skin.to_linear(skin.likely(FACE, measured))), mean, atol=0.01)
