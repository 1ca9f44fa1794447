"""Attribute probes: gender, age band and ethnicity as read in a face feature (or gender in a speaker embedding).

A probe is a linear discriminant with shrunken covariance (Ledoit & Wolf 2004) fitted on features of *real* faces of
people who are not tested. How far it can be trusted is measured first: its accuracy on real faces of people left out of
the fit, with n and chance. What it says of a drawn face is worth no more than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmodal.errors import DataError, DependencyError
from crossmodal.evaluation.figures import Figure, figure

AGE_BANDS = ((0, "under 20"), (20, "20s"), (30, "30s"), (40, "40s"), (50, "50s"), (60, "60 and over"))
"""Youngest age of each band, and its name."""
ATTRIBUTES = ("gender", "age", "ethnicity")
"""What a face is asked for; ``age`` by band."""
GROUPS = ("gender", "age", "ethnicity", "nationality", "language")
"""What figures are broken down by."""
FEWEST_PEOPLE = 5
"""A class or a group with fewer people is not measured."""
FOLDS = 5


def age_band(age: str) -> str | None:
    """``"34"`` → ``"30s"``; a band's own name stays; ``None`` if it is neither."""
    if age in (name for _, name in AGE_BANDS):
        return age
    try:
        years = float(age)
    except ValueError:
        return None
    if not 0 <= years < 130:
        return None
    return [name for youngest, name in AGE_BANDS if years >= youngest][-1]


def attribute(row: Mapping[str, str], name: str) -> str | None:
    """An attribute of a manifest row, age by band; ``None`` where it is not known."""
    value = row.get(name, "").strip()
    return age_band(value) if name == "age" and value else value or None


def labels(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """``(N,)`` of strings; empty where the attribute is not known."""
    return np.array([attribute(row, name) or "" for row in rows], dtype=object)


@dataclass
class Probe:
    """Reads one attribute in features."""

    name: str
    classes: tuple[str, ...]
    """Sorted; age bands from young to old."""
    accuracy: Figure
    """On people left out of the fit."""
    model: Any
    left_out: tuple[str, ...] = ()
    """Classes with too few people."""

    def read(self, features: np.ndarray) -> np.ndarray:
        """``(N, D)`` → ``(N,)`` names of classes."""
        return np.asarray(self.model.predict(np.asarray(features, dtype=np.float64)), dtype=object)


def train_probe(
    features: np.ndarray,
    values: Sequence[str] | np.ndarray,
    people: Sequence[str] | np.ndarray,
    name: str,
    of: str = "real faces",
) -> Probe:
    """Fit a probe, and cross-validate it over people.

    Args:
        features: ``(N, D)`` of real faces (or voices).
        values: ``(N,)`` the attribute; empty where unknown.
        people: ``(N,)`` whose they are; no person is in two folds.
        name: of the attribute.
        of: what the features are of.

    Raises:
        DataError: fewer than two classes with :data:`FEWEST_PEOPLE` people each, or features that are not finite.
        DependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise DependencyError("needs scikit-learn", source="probe", remedy="pip install 'crossmodal[eval]'") from error
    features, people = np.asarray(features, dtype=np.float64), np.asarray(people)
    values = np.asarray(values, dtype=object)
    counted = Counter(value for _, value in {(p, v) for p, v in zip(people, values) if v})
    classes = _ordered([v for v, count in counted.items() if count >= FEWEST_PEOPLE])
    left_out = tuple(_ordered([v for v, count in counted.items() if count < FEWEST_PEOPLE]))
    if len(classes) < 2:
        found = ", ".join(f"{v} {n}" for v, n in sorted(counted.items())) or "none is known"
        problem = f"a probe of {name} needs two classes of {FEWEST_PEOPLE} people ({found})"
        raise DataError(problem, source=of, remedy="give more labelled people in the other parts")
    use = np.array([v in classes for v in values])
    x, y, who = features[use], values[use].astype(str), people[use]
    if not np.isfinite(x).all():
        raise DataError("hold NaN or infinite numbers", source="features for the probe", remedy="prepare them again")
    read = np.empty(len(y), dtype=object)
    folds = GroupKFold(min(FOLDS, len(np.unique(who))))
    for train, test in folds.split(x, y, who):
        read[test] = _fit(x[train], y[train]).predict(x[test])
    accuracy = figure(
        f"probe of {name}: {of} of people left out read right", read == y,
        reference=majority(y, who), reference_name="chance", clusters=who, unit=f"{len(np.unique(who))} people",
    )  # fmt: skip
    return Probe(name, tuple(classes), accuracy, _fit(x, y), left_out)


def _fit(x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)


def majority(values: np.ndarray, people: np.ndarray | None = None) -> float:
    """Share of the commonest value: what always saying it would get. People count once each if they are given."""
    if people is not None:
        _, first = np.unique(np.asarray(people), return_index=True)
        values = np.asarray(values)[first]
    counts = Counter(values.tolist())
    return max(counts.values()) / max(1, sum(counts.values()))


def _ordered(values: Sequence[str]) -> list[str]:
    bands = [name for _, name in AGE_BANDS]
    return sorted(values, key=lambda v: (bands.index(v) if v in bands else -1, v))


def confusion(true: Sequence[str] | np.ndarray, read: Sequence[str] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """``(C, C)`` counts: rows are the truth, columns what was read. Values outside ``classes`` are left out."""
    place = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for t, r in zip(true, read):
        if t in place and r in place:
            counts[place[t], place[r]] += 1
    return counts


def confusion_table(title: str, counts: np.ndarray, classes: Sequence[str]) -> str:
    """A Markdown table of a confusion matrix: per cent of each row, with the row's n."""
    lines = [title, "", f"| true \\ read | {' | '.join(classes)} | n |", "| --- " * (len(classes) + 2) + "|"]
    for name, row in zip(classes, counts):
        shares = [f"{100 * c / row.sum():.0f} %" if row.sum() else "–" for c in row]
        lines.append(f"| {name} | {' | '.join(shares)} | {row.sum()} |")
    return "\n".join(lines)


def agreement(
    probe: Probe,
    drawn: np.ndarray,
    truth: np.ndarray,
    people: np.ndarray,
    *,
    name: str,
    against: str,
    ceiling: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Figure | None, np.ndarray, np.ndarray]:
    """How often the probe reads in a drawn face what is true.

    Args:
        probe: fitted on other people.
        drawn: ``(N, D)`` features of drawn faces.
        truth: ``(N,)`` the attribute, empty where unknown; classes that the probe does not know are left out.
        people: ``(N,)`` whose they are.
        name: of what the faces were drawn from.
        against: what the truth is: ``labels`` or ``the true face``.
        ceiling: ``(N, D)`` features of the true faces, for reference.
        seed: of the bootstrap.

    Returns:
        the figure (``None`` if there is nothing to compare), what was read ``(N,)``, and which cases count ``(N,)``.
    """
    read = probe.read(drawn)
    known = np.array([value in probe.classes for value in truth])
    if not known.any():
        return None, read, known
    reference: dict[str, Any] = {"reference": majority(truth[known], people[known]), "reference_name": "chance"}
    if ceiling is not None:
        own = float((probe.read(ceiling)[known] == truth[known]).mean())
        reference = {"reference": own, "reference_name": "true face", "chance": reference["reference"]}
    right = (read[known] == truth[known]).astype(float)
    title = f"{probe.name} read in the face drawn from {name} agrees with {against}"
    return figure(title, right, clusters=people[known], seed=seed, **reference), read, known
