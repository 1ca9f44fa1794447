"""Face retrieval against a brute-force loop, scipy and known cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cosine

from crossmodal.errors import DataError
from crossmodal.evaluation import face_retrieval as retrieval


@pytest.fixture
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((30, 8))
    return gallery + 1.5 * rng.standard_normal(gallery.shape), gallery


@pytest.mark.parametrize("kind", retrieval.DISTANCES)
def test_recall_is_that_of_a_loop(features: tuple[np.ndarray, np.ndarray], kind: retrieval.Distance) -> None:
    query, gallery = features
    measures = {
        "cosine": lambda a, b: np.degrees(np.arccos(1 - cosine(a, b))),
        "L2": lambda a, b: float(np.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))),
        "L1": lambda a, b: float(sum(abs(x - y) for x, y in zip(a, b))),
    }
    places = []
    for i, one in enumerate(query):
        order = sorted(range(len(gallery)), key=lambda j: measures[kind](one, gallery[j]))
        places.append(order.index(i))
    people = np.array([f"p{i}" for i in range(30)])
    found = retrieval.recall(query, np.arange(30), gallery, people, name="x", kind=kind)
    assert [f.name for f in found] == [f"R@{k} of 30, x" for k in (1, 2, 5, 10, 20, 25)]
    for figure, k in zip(found, (1, 2, 5, 10, 20, 25)):
        assert figure.value == pytest.approx(np.mean([place < k for place in places]))
        assert figure.reference == pytest.approx(k / 30)
    own = retrieval.paired(query, gallery, kind)
    assert own == pytest.approx([measures[kind](a, b) for a, b in zip(query, gallery)])


def test_ties_win_nothing() -> None:
    """A gallery that is one face: whatever the order, chance and no more."""
    table = np.ones((5, 10))
    for k in (1, 3, 10):
        assert retrieval.ranked(table, np.arange(5)).recall_at_k(k) == pytest.approx(k / 10)
    # by enumeration: right one tied with two others, one candidate before them
    table = np.array([[0.1, 0.5, 0.5, 0.5, 0.9]])
    for k in range(1, 6):
        orders = [(0, *middle, 4) for middle in itertools.permutations((1, 2, 3))]
        share = np.mean([2 in order[:k] for order in orders])
        assert retrieval.ranked(table, np.array([2])).recall_at_k(k)[0] == pytest.approx(share)


def test_sf2f_galleries_are_disjoint_and_of_a_hundred() -> None:
    names = [f"p{i}" for i in range(350)]
    galleries = retrieval.sf2f_galleries(names)
    assert [len(g) for g in galleries] == [100, 100, 100]
    assert len(set().union(*galleries)) == 300
    assert galleries == retrieval.sf2f_galleries(names[::-1])
    assert galleries != retrieval.sf2f_galleries(names, seed=1)
    assert [len(g) for g in retrieval.sf2f_galleries(names[:199])] == [100]
    assert [len(g) for g in retrieval.sf2f_galleries(names[:30])] == [30]


def test_sf2f_recall_against_mean_features() -> None:
    rng = np.random.default_rng(0)
    own = rng.standard_normal((120, 16))
    true = np.repeat(own, 3, axis=0) + 0.3 * rng.standard_normal((360, 16))
    people = np.repeat([f"p{i:03d}" for i in range(120)], 3)
    query = own + 1.5 * rng.standard_normal(own.shape)
    who = np.array([f"p{i:03d}" for i in range(120)])
    found = retrieval.sf2f_recall(query, who, true, people, name="x")
    gallery = retrieval.sf2f_galleries(sorted(set(people)))[0]
    means = {name: true[people == name].mean(0) for name in gallery}
    right = []
    for name, one in zip(who, query):
        if name in means:
            order = sorted(gallery, key=lambda other: cosine(one, means[other]))
            right.append(order.index(name))
    assert found[0].name == "SF2F R@1 of 100 people, x"
    assert found[0].n == 100
    for figure, k in zip(found, retrieval.SF2F_KS):
        assert figure.value == pytest.approx(np.mean([place < k for place in right]))
    with pytest.raises(DataError, match="two people"):
        retrieval.sf2f_recall(query[:1], who[:1], true[:3], people[:3], name="x")


def test_nothing_learnt_is_within_chance() -> None:
    rng = np.random.default_rng(1)
    query, gallery = rng.standard_normal((2, 200, 16))
    people = np.array([f"p{i}" for i in range(200)])
    for figure in retrieval.recall(query, np.arange(200), gallery, people, name="x", ks=(5, 20, 50)):
        assert figure.low <= (figure.reference or 0) <= figure.high


def test_picture_shows_the_true_face_the_drawn_one_and_the_nearest() -> None:
    gallery = np.eye(6)
    asked: list[int] = []

    def picture(index: int) -> Image.Image:
        asked.append(index)
        return Image.new("RGB", (40, 50), (40 * index, 0, 0))

    query = np.array([0.2, 1.0, 0.5, 0, 0, 0])
    sheet = retrieval.top_picture(query, 2, gallery, Image.new("RGB", (40, 40)), picture, first=3)
    assert asked == [2, 1, 2, 0]  # the true face, then the nearest in order
    assert sheet.width > 5 * 180
