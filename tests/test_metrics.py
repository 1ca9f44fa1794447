"""AUC, EER, matching, R@K and mAP: against scikit-learn, and against every order of tied scores tried out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from crossmodal.errors import DataError
from crossmodal.evaluation.metrics import PairScores, guessing, matching_credit, rank

few_scores = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({same for _, same in pairs}) == 2
)


def _ranks(scores: np.ndarray, relevant: list[list[int]], block: int = 3):
    places = [np.array(columns) for columns in relevant]
    return rank((scores[i : i + block] for i in range(0, len(scores), block)), places, scores.shape[1])


@given(few_scores)
@settings(max_examples=40, deadline=None)
def test_auc_is_that_of_scikit_learn_and_of_counting(pairs: list[tuple[int, bool]]) -> None:
    scores, same = (np.array(side) for side in zip(*pairs))
    auc, eer = PairScores(scores, same).measure()
    assert auc == pytest.approx(roc_auc_score(same, scores))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[same] for b in scores[~same]]
    assert auc == pytest.approx(np.mean(wins))
    assert 0 <= eer <= 1


@given(few_scores)
@settings(max_examples=30, deadline=None)
def test_eer_is_where_the_lines_of_the_roc_meet_the_diagonal(pairs: list[tuple[int, bool]]) -> None:
    scores, same = (np.array(side) for side in zip(*pairs))
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    # the curve laid out by its length has one crossing: found by bisection along it
    place = np.linspace(0, len(fpr) - 1, 20_001)
    x, y = np.interp(place, np.arange(len(fpr)), fpr), np.interp(place, np.arange(len(fpr)), tpr)
    assert PairScores(scores, same).measure()[1] == pytest.approx(x[np.argmin(np.abs(x + y - 1))], abs=5e-3)


def test_by_hand() -> None:
    same = np.array([True, True, False, False])
    assert PairScores([4, 3, 2, 1], same).measure() == (1.0, 0.0)
    assert PairScores([1, 2, 3, 4], same).measure() == (0.0, 1.0)
    assert PairScores([4, 2, 3, 1], same).measure() == (0.75, 0.5)
    # one false accept in four, no threshold between: half-way on the line from (0, .5) to (.5, 1)
    assert PairScores([2, 1, 1, 0], same).measure() == (0.875, 0.25)


def test_a_constant_encoder_is_exactly_chance() -> None:
    assert PairScores(np.full(7, 0.3), np.arange(7) < 3).measure() == (0.5, 0.5)
    for n in range(2, 11):
        assert (matching_credit(np.ones(5), np.ones((5, n - 1))) == 1 / n).all()
    relevant = [[0], [3], [1, 2], [0, 1, 2, 3, 4]]
    ranks, guess = _ranks(np.ones((4, 5)), relevant), guessing(np.array([1, 1, 2, 5]), 5)
    for k in range(1, 6):
        assert ranks.recall_at_k(k)[:2].tolist() == [k / 5, k / 5]
        assert np.array_equal(ranks.recall_at_k(k), guess.recall_at_k(k))
    assert np.allclose(ranks.average_precision(), guess.average_precision())


@given(few_scores, st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_weights_are_repetitions(pairs: list[tuple[int, bool]], seed: int) -> None:
    scores, same = (np.array(side) for side in zip(*pairs))
    weights = np.random.default_rng(seed).integers(0, 3, len(scores))
    all_pairs = PairScores(scores, same)
    auc, eer = all_pairs.measure(weights[all_pairs.order])
    repeated = np.repeat(np.arange(len(scores)), weights)
    if len(set(same[repeated])) < 2:
        assert np.isnan(auc)
        assert np.isnan(eer)
    else:
        assert (auc, eer) == pytest.approx(PairScores(scores[repeated], same[repeated]).measure())


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=10))
@settings(max_examples=40, deadline=None)
def test_matching_credit_is_the_mean_over_tie_breaks(rows: list[list[int]]) -> None:
    scores = np.array(rows)
    expected = []
    for row in rows:
        winners = [i for i, s in enumerate(row) if s == max(row)]
        expected.append(np.mean([w == 0 for w in winners]))
    assert matching_credit(scores[:, 0], scores[:, 1:]) == pytest.approx(expected)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_retrieval_is_the_mean_over_all_orders_of_ties(scores: list[int], data: st.DataObject) -> None:
    right = data.draw(st.lists(st.sampled_from(range(len(scores))), min_size=1, unique=True))
    recalls, precisions = [], []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            hits = np.array([i in right for i in order])
            recalls.append([hits[:k].any() for k in range(1, len(scores) + 1)])
            precisions.append(np.mean((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits]))
    ranks = _ranks(np.array([scores], dtype=float), [right])
    assert [ranks.recall_at_k(k)[0] for k in range(1, len(scores) + 1)] == pytest.approx(np.mean(recalls, axis=0))
    assert ranks.average_precision()[0] == pytest.approx(np.mean(precisions))


@pytest.mark.parametrize("most", [3, 40])  # counted, and sorted
def test_average_precision_is_that_of_scikit_learn(most: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 60))
    relevant = [sorted(rng.choice(60, rng.integers(1, most + 1), replace=False).tolist()) for _ in range(20)]
    ranks = _ranks(scores, relevant, block=7)
    for i, (row, right) in enumerate(zip(scores, relevant)):
        labels = np.isin(np.arange(60), right)
        assert ranks.average_precision()[i] == pytest.approx(average_precision_score(labels, row))
        best = np.argsort(-row)
        for k in (1, 5, 10):
            assert ranks.recall_at_k(k)[i] == np.isin(best[:k], right).any()


def test_guessing_is_what_random_scores_give() -> None:
    rng = np.random.default_rng(1)
    relevant = [[0, 1, 2]] * 4000
    ranks, guess = _ranks(rng.random((4000, 12)), relevant, block=500), guessing(np.full(4000, 3), 12)
    assert ranks.average_precision().mean() == pytest.approx(guess.average_precision()[0], abs=0.02)
    assert ranks.recall_at_k(2).mean() == pytest.approx(guess.recall_at_k(2)[0], abs=0.03)
    assert guess.recall_at_k(2)[0] == pytest.approx(1 - 9 / 12 * 8 / 11)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([], [], "no pairs"),
        ([0.1, 0.2], [True, True], "only positive"),
        ([0.1, 0.2], [False, False], "only negative"),
        ([0.1, np.nan], [True, False], "1 scores are not finite"),
        ([0.1, 0.2], [True], "do not fit"),
    ],
)
def test_what_cannot_be_measured(scores: list[float], same: list[bool], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PairScores(np.array(scores), np.array(same))
