"""Changed photos: each change does what it says, and the figures say how far the drawn face strays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossmodal.data import generated_people
from crossmodal.evaluation import photo_conditions as conditions
from crossmodal.evaluation.faces import gender_probe
from crossmodal.faces import DetectedFace, find_face
from crossmodal.speech2face import Speech2Face
from tests.debug_bundle import write_debug_bundle
from tests.generated import drawn_face

POINTS = np.array([[120.0, 130.0], [200.0, 130.0], [160.0, 175.0], [128.0, 215.0], [192.0, 215.0]])
FACE = DetectedFace(np.array([90.0, 80.0, 230.0, 260.0]), 1.0, POINTS)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return drawn_face(320, seed=3)


def after(name: str, photo: Image.Image) -> Image.Image:
    return conditions.CONDITIONS[name](photo, FACE, np.random.default_rng(0))


@pytest.mark.parametrize("name", list(conditions.CONDITIONS))
def test_every_condition_changes_the_photo_and_keeps_the_face(name: str, photo: Image.Image) -> None:
    changed = after(name, photo)
    assert changed.mode == "RGB"
    assert changed.size != photo.size or not np.array_equal(np.asarray(changed), np.asarray(photo))
    assert find_face(changed).score > 0.9


def test_light_is_linear(photo: Image.Image) -> None:
    """One stop down halves linear light: mid grey 188 becomes 137 (IEC 61966-2-1)."""
    grey = Image.new("RGB", (8, 8), (188, 188, 188))
    assert np.asarray(conditions.lit(-1.0)(grey, FACE, np.random.default_rng(0)))[0, 0].tolist() == [137] * 3
    before, warmed = (np.asarray(p).astype(float).mean((0, 1)) for p in (photo, after("warm light", photo)))
    warm = warmed - before
    assert warm[0] > warm[1] > warm[2]


def test_side_light_falls_across_the_face(photo: Image.Image) -> None:
    ratio = np.asarray(after("light from the side", photo)).mean((0, 2)) / np.asarray(photo).mean((0, 2))
    assert ratio[110] > 0.9
    assert ratio[230] < 0.7


def test_turning_moves_the_middle_and_leaves_the_outside() -> None:
    ramp = np.repeat(np.linspace(0, 255, 320)[None, :, None], 3, axis=2).astype(np.uint8).repeat(4, axis=0)
    changed = conditions.turned(20)(Image.fromarray(ramp), FACE, np.random.default_rng(0))
    turned = np.asarray(changed).astype(float)[0, :, 0]
    plain = ramp[0, :, 0].astype(float)
    # A point in the middle of a cylinder of radius 100 goes to 100 sin 20° from it.
    assert turned[160 + 34] == pytest.approx(plain[160], abs=2)
    assert np.abs(turned[:55] - plain[:55]).max() <= 1
    halves = np.abs(np.diff(turned[70:250]))
    assert halves.max() > 1.3 * np.abs(np.diff(plain)).mean()


def test_glasses_lie_over_the_eyes(photo: Image.Image) -> None:
    moved = np.abs(np.asarray(after("glasses", photo)).astype(int) - np.asarray(photo)).sum(-1) > 60
    rows, columns = np.nonzero(moved)
    assert abs(rows.mean() - 133) < 10
    assert abs(columns.mean() - 160) < 10
    assert 0.005 < moved.mean() < 0.2


def test_of_a_group_the_nearest_is_drawn(photo: Image.Image) -> None:
    sheet = conditions.group(photo, [drawn_face(320, seed=1), drawn_face(320, seed=2)])
    with pytest.warns(UserWarning, match="faces found"):
        face = find_face(sheet)
    single = find_face(photo)
    assert face.points - [192, 0] == pytest.approx(single.points, abs=6)


def test_figures_of_a_bundle(tmp_path: Path) -> None:
    write_debug_bundle(tmp_path / "bundle")
    journey = Speech2Face.from_pretrained(tmp_path / "bundle", device="cpu")
    people = generated_people.people(8)
    photos: dict[str, list[Path]] = {}
    for k, name in enumerate(people.aligned.names[:2]):
        paths = [tmp_path / f"{name}-{view}.png" for view in range(2)]
        for view, path in enumerate(paths):
            drawn_face(200, seed=10 * k + view).save(path)
        photos[name] = paths
    blank = Image.new("RGB", (200, 200), (120, 130, 120))
    chosen = {"dim": conditions.CONDITIONS["dim"], "blank": lambda *_: blank, "same": lambda image, *_: image}
    figures, sheet = conditions.measure_conditions(
        journey, people, photos, gender_probe(people, range(8)), conditions=chosen
    )
    named = {f.name: f for f in figures}
    assert named["same: distance to the face from the clean photo"].value == pytest.approx(0, abs=1e-5)
    assert named["blank: face found"].value == 0
    assert "blank: distance to the face from the clean photo" not in named
    assert named["dim: face found"].value == 1
    assert named["dim: skin colour difference ΔE*ab"].n == 2
    assert named["smiling photo: distance to the face from the clean photo"].n == 2
    assert named["all conditions: gender kept"].n == 8
    assert sheet.width > 4 * 160
