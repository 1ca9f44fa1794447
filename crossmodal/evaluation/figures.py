"""One measured figure: its value, interval, number of cases, and what to hold it against. All evaluations speak in it.

Intervals are 95 % percentile bootstraps (Efron & Tibshirani 1993, ch. 13) with one number of draws everywhere. What is
drawn again is the independent unit: people where several cases belong to one person (``clusters``), cases otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 2000
LEVELS = (2.5, 97.5)

Statistic = Callable[[np.ndarray], float]
"""Cases ``(N, ...)`` → one number."""


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    low: float
    """Lower end of the 95 % bootstrap interval."""
    high: float
    n: int
    reference: float | None = None
    """Chance, or a trivial or published system's figure on the same cases."""
    reference_name: str = ""
    unit: str = ""
    chance: float | None = None
    """What guessing would give, where ``reference`` is something else."""

    def line(self) -> str:
        """For people to read."""
        text = f"{self.name:<52} {self.value:7.3f} [{self.low:6.3f}, {self.high:6.3f}]  n={self.n:<5}"
        if self.reference is not None:
            text += f" {self.reference_name} {self.reference:.3f}"
        if self.chance is not None:
            text += f", chance {self.chance:.3f}" if self.reference is not None else f" chance {self.chance:.3f}"
        return text + (f" ({self.unit})" if self.unit else "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: undefined numbers are null, the interval is ``ci95``."""
        chance = self.reference if self.chance is None and self.reference_name == "chance" else self.chance
        return {
            "name": self.name,
            "value": _plain(self.value),
            "ci95": [_plain(self.low), _plain(self.high)],
            "n": self.n,
            "chance": _plain(chance),
            "reference": _plain(self.reference),
            "reference_name": self.reference_name if self.reference is not None else "",
            "unit": self.unit,
        }


@dataclass(frozen=True)
class Curve:
    """One measured figure against a setting (clip length, noise, ...), for a plot."""

    name: str
    x_label: str
    """What was varied, with its unit."""
    x: tuple[float, ...]
    y_label: str
    """What was measured, with its unit."""
    y: tuple[float, ...]
    """As long as ``x``; NaN where nothing could be measured."""
    low: tuple[float, ...]
    """Lower ends of the 95 % bootstrap intervals."""
    high: tuple[float, ...]
    n: int
    """Cases at every point."""
    reference: float | None = None
    """Chance, or a baseline: a horizontal line."""
    reference_name: str = ""

    def line(self) -> str:
        """For people to read."""
        points = "  ".join(
            f"{x:g}: {y:.3f} [{low:.3f}, {high:.3f}]" for x, y, low, high in zip(self.x, self.y, self.low, self.high)
        )
        what = "" if self.name.endswith(self.y_label) else f"{self.y_label} "
        text = f"{self.name} ({what}by {self.x_label}), n={self.n}"
        if self.reference is not None:
            text += f", {self.reference_name or 'reference'} {self.reference:.3f}"
        return f"{text}\n    {points}"


def figure(
    name: str,
    values: Sequence[float] | np.ndarray,
    *,
    reference: float | None = None,
    reference_name: str = "mean face",
    unit: str = "",
    statistic: Statistic | None = None,
    clusters: Sequence[Any] | np.ndarray | None = None,
    chance: float | None = None,
    seed: int = 0,
) -> Figure:
    """Mean (or ``statistic``) of one value a case, with its bootstrap interval.

    Args:
        name: what was measured.
        values: ``(N, ...)``, one row a case.
        reference, reference_name, unit, chance: see :class:`Figure`.
        statistic: of the rows; the mean if ``None``.
        clusters: whose case each is, if people have several; then people are drawn, not cases.
        seed: of the draws.
    """
    data = np.asarray(values, dtype=np.float64)
    value = float(data.mean()) if statistic is None else statistic(data)
    low, high = bootstrap(data, statistic, clusters=clusters, seed=seed)
    return Figure(name, value, low, high, len(data), reference, reference_name, unit, chance)


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Statistic | None = None,
    *,
    clusters: Sequence[Any] | np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Ends of the 95 % percentile-bootstrap interval of the mean (or ``statistic``) of ``values (N, ...)``.

    ``(nan, nan)`` without cases. Draws in which the statistic is undefined (nan) do not count.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    if clusters is None:
        groups, sizes = None, np.ones(len(data))
    else:
        _, member = np.unique(np.asarray(clusters), return_inverse=True)
        order = np.argsort(member, kind="stable")
        sizes = np.bincount(member).astype(np.float64)
        groups = np.split(order, np.cumsum(sizes).astype(int)[:-1])
    if statistic is None and data.ndim == 1:  # a mean is a ratio of sums: no rows need to be gathered
        sums = data if groups is None else np.array([data[group].sum() for group in groups])
        step = max(1, 4_000_000 // len(sums))
        parts = []
        for start in range(0, draws, step):
            picks = rng.integers(len(sums), size=(min(step, draws - start), len(sums)))
            parts.append(sums[picks].sum(1) / sizes[picks].sum(1))
        drawn = np.concatenate(parts)
    else:
        measure: Statistic = statistic or (lambda rows: float(np.mean(rows)))
        count = len(data) if groups is None else len(groups)
        drawn = np.empty(draws)
        for i in range(draws):
            pick = rng.integers(count, size=count)
            drawn[i] = measure(data[pick if groups is None else np.concatenate([groups[g] for g in pick])])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.percentile(drawn, LEVELS)
    return float(low), float(high)


def table(figures: Sequence[Figure]) -> list[str]:
    """Lines for people."""
    return [f.line() for f in figures]


def as_dicts(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [f.as_dict() for f in figures]


def _plain(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
