"""Figures and their intervals: against scipy's bootstrap, a loop over people, and what JSON allows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from crossmodal.evaluation.figures import DRAWS, Curve, Figure, bootstrap, figure

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("values", [RNG.normal(2, 1, 40), RNG.random(300) ** 4, (RNG.random(60) < 0.2).astype(float)])
def test_interval_of_a_mean_is_that_of_scipy(values: np.ndarray) -> None:
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    close = 0.06 * (theirs.high - theirs.low) + np.ptp(np.unique(values)[:2]) / len(values)  # shares move in steps
    low, high = bootstrap(values)
    assert low == pytest.approx(theirs.low, abs=close)
    assert high == pytest.approx(theirs.high, abs=close)


def test_people_are_drawn_where_cases_belong_to_them() -> None:
    person = np.repeat(np.arange(12), RNG.integers(1, 9, 12))
    values = RNG.normal(size=12)[person] + 0.1 * RNG.normal(size=len(person))
    low, high = bootstrap(values, clusters=person)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        rows = np.concatenate([np.flatnonzero(person == p) for p in rng.integers(0, 12, 12)])
        draws.append(values[rows].mean())
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.08)
    alone = bootstrap(values)
    assert high - low > 1.5 * (alone[1] - alone[0])  # cases of one person are no news


def test_any_statistic_agrees_with_the_shortcut_for_means() -> None:
    values = RNG.normal(size=50)
    assert bootstrap(values) == pytest.approx(bootstrap(values, lambda rows: float(rows.mean())), abs=1e-9)
    groups = np.arange(50) // 5
    assert bootstrap(values, clusters=groups) == pytest.approx(
        bootstrap(values, lambda rows: float(rows.mean()), clusters=groups), abs=1e-9
    )


def test_nothing_measured_is_no_number() -> None:
    assert all(map(math.isnan, bootstrap([])))
    assert all(map(math.isnan, bootstrap([1.0, 2.0], lambda rows: float("nan"))))
    content = Figure("x", float("nan"), float("nan"), 1.0, 0, chance=0.5).as_dict()
    assert content["value"] is None
    assert content["ci95"] == [None, 1.0]
    json.dumps(content, allow_nan=False)


def test_chance_is_found_wherever_it_was_given() -> None:
    assert figure("x", [1.0, 0.0], reference=0.5, reference_name="chance").as_dict()["chance"] == 0.5
    line = figure("x", [1.0, 0.0], reference=0.9, reference_name="natural", chance=0.1).line()
    assert "natural 0.900, chance 0.100" in line


def test_curve_says_what_it_shows() -> None:
    curve = Curve("noise: agrees", "dB", (0.0, 10.0), "agrees", (0.5, 1.0), (0.4, 0.9), (0.6, 1.0), 7, 0.5, "chance")
    assert curve.line().splitlines()[0] == "noise: agrees (by dB), n=7, chance 0.500"
