"""Attribute probes: they learn what is there, fail where nothing is, and say how far they can be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from crossmodal.errors import DataError
from crossmodal.evaluation import attributes


def people(count: int = 40, each: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, genders and names: each person has a place of their own, women and men differ in two components."""
    rng = np.random.default_rng(seed)
    male = np.arange(count) % 2 == 1
    own = rng.standard_normal((count, 16))
    own[:, :2] += np.where(male, 3.0, -3.0)[:, None]
    features = np.repeat(own, each, 0) + 0.1 * rng.standard_normal((count * each, 16))
    genders = np.repeat(np.where(male, "male", "female"), each).astype(object)
    return features, genders, np.repeat([f"p{i}" for i in range(count)], each)


@pytest.mark.parametrize(
    ("age", "band"),
    [("17", "under 20"), ("20", "20s"), ("29.9", "20s"), ("59", "50s"), ("84", "60 and over"), ("30s", "30s"),
     ("", None), ("old", None), ("-3", None), ("nan", None)],
)  # fmt: skip
def test_age_bands(age: str, band: str | None) -> None:
    assert attributes.age_band(age) == band


def test_probe_reads_gender_of_people_it_has_not_seen() -> None:
    features, genders, names = people()
    probe = attributes.train_probe(features, genders, names, "gender")
    assert probe.classes == ("female", "male")
    assert probe.accuracy.value > 0.95
    assert probe.accuracy.n == 120
    assert probe.accuracy.reference == pytest.approx(0.5)
    others, truth, _ = people(seed=5)
    assert (probe.read(others) == truth).mean() > 0.95


def test_probe_of_noise_is_at_chance() -> None:
    """Each person's features are noise, the same in all their pictures: only people left out can show that."""
    rng = np.random.default_rng(0)
    names = np.repeat([f"p{i}" for i in range(60)], 4)
    features = np.repeat(rng.standard_normal((60, 64)), 4, axis=0)
    genders = np.repeat(np.where(rng.random(60) < 0.5, "male", "female"), 4).astype(object)
    probe = attributes.train_probe(features, genders, names, "gender")
    assert probe.accuracy.low < 0.5 < probe.accuracy.high
    assert (probe.read(features) == genders).mean() > 0.8  # what it was fitted on says nothing


def test_classes_with_few_people_are_left_out_and_named() -> None:
    features, genders, names = people(20)
    genders[:6] = "other"  # two people
    probe = attributes.train_probe(features, genders, names, "gender")
    assert probe.left_out == ("other",)
    assert probe.accuracy.n == 54
    with pytest.raises(DataError, match="a probe of ethnicity needs two classes of 5 people"):
        attributes.train_probe(features, np.full(60, "white", dtype=object), names, "ethnicity")
    features[0, 0] = np.nan
    genders[:] = people(20)[1]
    with pytest.raises(DataError, match="NaN"):
        attributes.train_probe(features, genders, names, "gender")


def test_confusion_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    classes = ("20s", "30s", "40s")
    true, read = rng.choice(classes, (2, 200))
    ours = attributes.confusion(true, read, classes)
    assert (ours == confusion_matrix(true, read, labels=list(classes))).all()
    table = attributes.confusion_table("ages:", ours, classes)
    assert f"| 20s | {100 * ours[0, 0] / ours[0].sum():.0f} %" in table


def test_agreement_stands_beside_the_majority_and_the_true_face() -> None:
    features, genders, names = people()
    probe = attributes.train_probe(features, genders, names, "gender")
    true, truth, who = people(10, seed=3)
    found, read, known = attributes.agreement(
        probe, true[::-1], truth, who, name="x", against="the labels", ceiling=true
    )
    assert found is not None
    assert found.value == pytest.approx((read == truth).mean())
    assert found.chance == pytest.approx(0.5)
    assert found.reference is not None
    assert found.reference > 0.9
    assert known.all()
    nothing, _, _ = attributes.agreement(probe, true, np.full(30, "", object), who, name="x", against="the labels")
    assert nothing is None
