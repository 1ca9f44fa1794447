"""Metrics of face–voice association on plain scores: ROC, AUC, EER, matching credit, R@K and mAP.

A higher score means more alike. **Ties share the credit everywhere**: each metric is its mean over all orders of equal
scores, so an encoder that gives everything the same vector scores exactly what guessing does, whatever stands first in
a list. Weights count how often a case was drawn, which makes a bootstrap one cumulative sum instead of a sort a draw.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crossmodal.errors import DataError

_FEW = 16


class PairScores:
    """Scored pairs, sorted once: AUC and EER of them all, or of any number of weighted draws.

    Args:
        scores: ``(N,)``, finite.
        same: ``(N,)`` booleans, true where the two belong together.

    Raises:
        DataError: no pairs, only pairs of one kind, or scores that are not finite.
    """

    def __init__(self, scores: np.ndarray, same: np.ndarray) -> None:
        scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
        if scores.ndim != 1 or scores.shape != same.shape:
            raise DataError(f"{scores.shape} scores and {same.shape} labels do not fit", source="pairs")
        if not len(scores) or same.all() or not same.any():
            kinds = "no pairs" if not len(scores) else f"only {'positive' if same.any() else 'negative'} pairs"
            raise DataError(
                f"{kinds}: AUC and EER compare pairs of one person with pairs of different people", source="pairs"
            )
        if not np.isfinite(scores).all():
            raise DataError(f"{np.count_nonzero(~np.isfinite(scores))} scores are not finite", source="pairs")
        order = np.argsort(-scores, kind="stable")
        self.order = order
        """Indices of the pairs, highest score first."""
        self._same = same[order].astype(np.float64)
        ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last pair of every distinct score
        self._ends = None if len(ends) == len(order) else ends

    def roc(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """False- and true-positive rate ``(L + 1,)`` at every distinct score, strictest threshold first, from 0 to 1.

        Args:
            weights: how often each pair counts, ``(N,)``, **in the order of** ``self.order``; once if ``None``.

        Returns:
            two arrays; NaN if the weights leave pairs of one kind only.
        """
        right, wrong, _ = self._counts(weights)
        if not (right[-1] and wrong[-1]):
            return np.full(len(right) + 1, np.nan), np.full(len(right) + 1, np.nan)
        return np.append(0.0, wrong / wrong[-1]), np.append(0.0, right / right[-1])

    def measure(self, weights: np.ndarray | None = None) -> tuple[float, float]:
        """AUC and EER, each 0 to 1, or both NaN (weights: see :meth:`roc`). Chance is 0.5 for both.

        The **AUC** is how often a pair of one person scores above one of different people, ties half (Mann & Whitney
        1947; Hanley & McNeil 1982).

        The **EER** is the error rate where as many pairs are wrongly accepted as are wrongly rejected. The ROC is read
        as the straight lines between its points (a threshold chosen at random between two neighbours) and cut with
        ``fpr = 1 − tpr``: no jump when the list is short or the scores are few.
        """
        right, wrong, step = self._counts(weights)
        positives, negatives = float(right[-1]), float(wrong[-1])
        if not (positives and negatives):
            return float("nan"), float("nan")
        # sums of products, not dot products: those start threads that cost more than they save
        tied = 0.0 if self._ends is None else float((step * np.diff(right, prepend=0.0)).sum()) / 2
        area = float((step * right).sum()) - tied

        def gap(place: int) -> float:
            return float(wrong[place]) / negatives + float(right[place]) / positives - 1.0

        place = bisect.bisect_left(range(len(right) - 1), 0.0, key=gap)
        before = (float(wrong[place - 1]) / negatives, gap(place - 1)) if place else (0.0, -1.0)
        after = (float(wrong[place]) / negatives, gap(place))
        eer = before[0] - before[1] / (after[1] - before[1]) * (after[0] - before[0])
        return area / (positives * negatives), eer

    def _counts(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positive and negative pairs ``(L,)`` up to every distinct score, and the negative ones at it."""
        every = np.ones_like(self._same) if weights is None else np.asarray(weights, dtype=np.float64)
        positive = every * self._same
        negative = every - positive
        right, wrong = np.cumsum(positive), np.cumsum(negative)
        if self._ends is None:
            return right, wrong, negative
        wrong = wrong[self._ends]
        return right[self._ends], wrong, np.diff(wrong, prepend=0.0)


def matching_credit(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Credit ``(N,)`` of trials in which one of several candidates belongs to the probe: 1 if it scores highest.

    Args:
        right: ``(N,)`` scores of the right candidates.
        wrong: ``(N, C − 1)`` scores of the others.

    If ``t`` others score as high as the right one and none higher, the credit is 1 / (t + 1): equal scores for all
    earn exactly 1 / C, which is chance.
    """
    right, wrong = np.asarray(right)[:, None], np.asarray(wrong)
    return np.where((wrong > right).any(1), 0.0, 1.0 / (1 + (wrong == right).sum(1)))


def mean_credit(values: np.ndarray) -> float:
    """Mean of ``(N,)`` values, summed by distinct value: that of equal values is that value, to the last bit."""
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct @ (counts / len(values)))


@dataclass(frozen=True)
class Ranks:
    """Where the right items of each query stand in its ranking: one row for each score that a right item has.

    Rows of a query are together, best first.
    """

    query: np.ndarray
    """``(L,)`` number of the query, 0 to ``queries − 1``."""
    above: np.ndarray
    """``(L,)`` how many gallery items score higher."""
    tied: np.ndarray
    """``(L,)`` how many score just as high, the right ones among them."""
    right: np.ndarray
    """``(L,)`` how many of those are right."""
    queries: int
    gallery: int

    def recall_at_k(self, k: int) -> np.ndarray:
        """``(queries,)``: chance that one right item at least is among the first ``k``; 0 or 1 without ties."""
        first = np.r_[True, np.diff(self.query) > 0]
        above, tied, right = self.above[first], self.tied[first], self.right[first]
        picks = np.clip(k - above, 0, tied)
        return _some_found(tied, right, picks)

    def average_precision(self) -> np.ndarray:
        """``(queries,)`` average precision: mean precision at the places of the right items (Manning, Raghavan &
        Schütze 2008, sec. 8.4), in the mean over the orders of ties (McSherry & Najork 2008, "Computing information
        retrieval performance measures efficiently in the presence of tied scores")."""
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, self.gallery + 1))])
        found = np.cumsum(self.right) - self.right
        starts = np.flatnonzero(np.r_[True, np.diff(self.query) > 0])
        lengths = np.diff(np.r_[starts, len(self.query)])
        found = found - np.repeat(found[starts], lengths)  # right items above, of the same query
        span = harmonic[self.above + self.tied] - harmonic[self.above]
        density = (self.right - 1) / np.maximum(self.tied - 1, 1)
        within = self.tied - (self.above + 1) * span  # sum of (j − 1) / (above + j)
        precision = self.right / self.tied * ((found + 1) * span + density * within)
        totals = np.bincount(self.query, weights=precision, minlength=self.queries)
        return totals / np.bincount(self.query, weights=self.right, minlength=self.queries)


def guessing(relevant: np.ndarray, gallery: int) -> Ranks:
    """The ranks of an encoder that tells nothing apart, to read chance from.

    Args:
        relevant: ``(Q,)`` right items of each query.
        gallery: items to choose from.
    """
    relevant = np.asarray(relevant)
    none = np.zeros(len(relevant), dtype=int)
    return Ranks(np.arange(len(relevant)), none, none + gallery, relevant, len(relevant), gallery)


def rank(blocks: Iterable[np.ndarray], relevant: Sequence[np.ndarray], gallery: int) -> Ranks:
    """Ranks of the right items, from scores that come block by block.

    Args:
        blocks: ``(B, gallery)`` each, the scores of the next ``B`` queries; only one is held at a time.
        relevant: for each query the places of its right items in the gallery, at least one.
        gallery: items to choose from.
    """
    rows: list[np.ndarray] = []
    query = 0
    for block in blocks:
        for scores in block:
            levels, right = np.unique(scores[relevant[query]], return_counts=True)
            if len(levels) > _FEW:
                line = np.sort(scores)
                above = gallery - np.searchsorted(line, levels, side="right")
                tied = gallery - above - np.searchsorted(line, levels, side="left")
            else:  # counting is faster than sorting
                above = np.array([np.count_nonzero(scores > level) for level in levels])
                tied = np.array([np.count_nonzero(scores == level) for level in levels])
            rows.append(np.stack([np.full(len(levels), query), above, tied, right], axis=1)[::-1])
            query += 1
    number, above, tied, right = np.concatenate(rows).T
    return Ranks(number, above, tied, right, query, gallery)


def _some_found(items: np.ndarray, right: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """Chance that ``picks`` of ``items``, drawn without putting back, hold one of the ``right`` ones at least."""
    from scipy.special import gammaln

    wrong = items - right
    possible = wrong >= picks
    rest = np.where(possible, wrong - picks, 0)
    missed = np.exp(gammaln(wrong + 1) - gammaln(rest + 1) - gammaln(items + 1) + gammaln(items - picks + 1))
    found = np.where(possible & (picks > 0), 1.0 - missed, picks > 0)
    return np.where(right == 1, picks / items, found)  # exact where it can be
