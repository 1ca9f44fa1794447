"""The twelve craniofacial measures against values worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from crossmodal.errors import DataError
from crossmodal.evaluation import craniofacial

# A face on squared paper, y down: eyes 4 wide with 4 between, so the middles of the eyes are 8 apart.
PLACES = {
    "ex_l": (0, 0), "en_l": (4, 0), "en_r": (8, 0), "ex_r": (12, 0),
    "n": (6, 0), "al_l": (3, 7), "al_r": (9, 7), "sn": (6, 8), "sbal_l": (4, 8), "sbal_r": (8, 8),
    "ls": (6, 10), "lsp_l": (4, 11), "lsp_r": (8, 11), "sto": (6, 11), "li": (6, 13), "ch_l": (2, 11), "ch_r": (10, 11),
    "go_l": (-2, 12), "go_r": (14, 12), "gn": (6, 19), "zy_l": (-4, 4), "zy_r": (16, 4),
}  # fmt: skip
BY_HAND = {
    "upper lip height": 3 / 8,
    "lateral upper lip heights": 3 / 8,
    "jaw width": 16 / 8,
    "nose height": 8 / 8,
    "nose width": 6 / 8,
    "labio-oral region": 8 / 8,
    "mandibular index": 8 / 16,
    "intercanthal index": 4 / 12,
    "nasal index": 6 / 8,
    "vermilion height index": 1 / 2,
    "mouth–face width index": 8 / 20,
    "nose area": (6 * 8 / 2) / 64,  # a kite: half the product of its diagonals
}


def face(count: int, scale: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """``(1, count, 2)`` with the points of that mark-up where :data:`PLACES` says, the others anywhere."""
    points = np.random.default_rng(0).uniform(-50, 50, (count, 2))
    for name, indices in craniofacial.scheme(count).items():
        points[list(indices)] = PLACES[name]
    if count == 68:  # one point of this mark-up is both wing and base of the nose
        points[[31, 35]] = [PLACES["al_l"], PLACES["al_r"]]
        points[[32, 34]] = 2 * np.array([PLACES["sbal_l"], PLACES["sbal_r"]]) - points[[31, 35]]
    cos, sin = np.cos(turn), np.sin(turn)
    return (scale * points @ np.array([[cos, -sin], [sin, cos]]) + [30, 70])[None]


@pytest.mark.parametrize("count", [68, 189, 216])
@pytest.mark.parametrize(("scale", "turn"), [(1.0, 0.0), (17.0, 0.3)])
def test_measures_are_those_worked_out_by_hand(count: int, scale: float, turn: float) -> None:
    found = dict(zip(craniofacial.MEASURES, craniofacial.measure(face(count, scale, turn))[0]))
    assert found == pytest.approx(BY_HAND)


def test_points_are_counted_once_but_for_the_nose() -> None:
    for points in (craniofacial.PSYCHOMORPH, craniofacial.IBUG):
        used = [i for name, indices in points.items() if not name.startswith("sbal") for i in indices]
        assert len(used) == len(set(used))


def test_agreement_is_scipys_pearson_over_people() -> None:
    rng = np.random.default_rng(1)
    people = np.repeat([f"p{i}" for i in range(12)], 3)
    shapes = face(189) + np.repeat(rng.normal(0, 1.0, (12, 1, 2)) * rng.normal(0, 1.0, (1, 189, 2)), 3, axis=0)
    drawn = shapes + rng.normal(0, 0.2, shapes.shape)
    found = craniofacial.agreement(shapes, drawn, people, label="x: ")
    a, b = (craniofacial.measure(p).reshape(12, 3, 12).mean(1) for p in (shapes, drawn))
    for k, figure in enumerate(found):
        theirs = pearsonr(a[:, k], b[:, k])
        assert figure.value == pytest.approx(theirs.statistic)
        assert figure.n == 12
        assert f"p = {theirs.pvalue:.2g}" in figure.unit
        assert figure.low <= figure.value <= figure.high
        assert abs(figure.chance or 0.0) < 0.15  # shuffled pairs
    assert [f.name for f in found] == [f"x: {m}" for m in craniofacial.MEASURES]


def test_unrelated_faces_do_not_agree() -> None:
    rng = np.random.default_rng(2)
    true, drawn = (face(68) + rng.normal(0, 0.5, (60, 68, 2)) for _ in range(2))
    found = craniofacial.agreement(true, drawn, [f"p{i}" for i in range(60)])
    assert sum(f.low <= 0 <= f.high for f in found) >= 9  # 95 % intervals of twelve measures
    constant = craniofacial.agreement(true, np.repeat(face(68), 60, axis=0), [f"p{i}" for i in range(60)])
    assert all(np.isnan(f.value) for f in constant)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(DataError, match="20 landmarks are no known mark-up"):
        craniofacial.measure(np.zeros((1, 20, 2)))
    broken = face(68)
    broken[0, 3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        craniofacial.measure(broken)
    with pytest.raises(DataError, match="2 people are too few"):
        craniofacial.agreement(np.repeat(face(68), 2, 0), np.repeat(face(68), 2, 0), ["a", "b"])


@pytest.mark.data
def test_points_lie_where_they_are_named(data_root: Path) -> None:
    """On a real template: left of right, top to bottom, mouth narrower than jaw narrower than cheeks."""
    from crossmodal.data.canonical_faces import read_template

    templates = sorted((data_root / "london_faces" / "neutral_front").glob("*.tem"))[:30]
    shapes = np.stack([read_template(path) for path in templates])
    p = {name: shapes[:, list(i)].mean(1) for name, i in craniofacial.PSYCHOMORPH.items()}
    down = ["n", "sn", "ls", "sto", "li", "gn"]
    assert all((p[a][:, 1] < p[b][:, 1]).all() for a, b in pairwise(down))
    for name in ("ex", "en", "al", "sbal", "lsp", "ch", "go", "zy"):
        assert (p[f"{name}_l"][:, 0] < p[f"{name}_r"][:, 0]).all()
    width = {n: p[f"{n}_r"][:, 0] - p[f"{n}_l"][:, 0] for n in ("en", "al", "ch", "ex", "go", "zy")}
    assert (width["ch"] < width["go"]).all()
    assert (width["go"] < width["zy"]).mean() > 0.9
    assert (width["en"] < width["ex"]).all()
