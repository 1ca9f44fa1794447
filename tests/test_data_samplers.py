"""Batches for GE2E and balanced batches."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmodal.data.manifest import Row
from crossmodal.data.samplers import BalancedBatchSampler, SpeakerBatchSampler, describe_groups, group_of
from crossmodal.errors import DataError

SPEAKERS = [f"s{k % 12}" for k in range(120)] + ["rare", "rare"]


def test_n_speakers_times_m_utterances() -> None:
    sampler = SpeakerBatchSampler(SPEAKERS, 4, 3, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 122 // 12
    for batch in batches:
        names = [SPEAKERS[index] for index in batch]
        assert all(len(set(names[k : k + 3])) == 1 for k in range(0, 12, 3))  # speaker after speaker
        assert len(set(names)) == 4
        for k in range(0, 12, 3):
            if names[k] != "rare":
                assert len(set(batch[k : k + 3])) == 3
            else:
                assert set(batch[k : k + 3]) == {120, 121}


@given(st.integers(0, 3), st.integers(1, 6), st.integers(1, 5))
def test_speakers_are_drawn_equally_often(seed: int, n: int, m: int) -> None:
    sampler = SpeakerBatchSampler(SPEAKERS, n, m, seed=seed, batches=39)
    drawn = Counter(SPEAKERS[batch[k]] for batch in sampler for k in range(0, len(batch), m))
    assert sum(drawn.values()) == 39 * n
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert len(drawn) == 13


def test_every_utterance_is_heard_before_one_repeats() -> None:
    speakers = ["a"] * 6 + ["b"] * 6
    heard = [index for batch in SpeakerBatchSampler(speakers, 2, 3, batches=2) for index in batch]
    assert sorted(heard) == list(range(12))


def test_epochs_differ_and_repeat() -> None:
    sampler, again = SpeakerBatchSampler(SPEAKERS, 4, 3, seed=1), SpeakerBatchSampler(SPEAKERS, 4, 3, seed=1)
    first = list(sampler)
    assert first == list(again) == list(sampler)
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert list(sampler) == list(again) != first
    assert list(SpeakerBatchSampler(SPEAKERS, 4, 3, seed=2)) != first


def test_processes_share_the_global_batch() -> None:
    whole = list(SpeakerBatchSampler(SPEAKERS, 6, 2, seed=3))
    parts = [list(SpeakerBatchSampler(SPEAKERS, 6, 2, seed=3, rank=r, world_size=3)) for r in range(3)]
    assert [list(chain(*batches)) for batches in zip(*parts)] == whole


def test_speakers_balanced_over_groups() -> None:
    groups = [None if s == "rare" else ("f" if s in ("s0", "s1", "s2") else "m") for s in SPEAKERS]
    for batch in SpeakerBatchSampler(SPEAKERS, 4, 2, groups=groups):
        assert Counter(groups[index] for index in batch) == {"f": 4, "m": 4}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"n_speakers": 14}, "there are 13"),
        ({"n_speakers": 3, "world_size": 2}, "shared by 2 processes"),
        ({"n_speakers": 0}, "no batch"),
        ({"n_speakers": 2, "rank": 2, "world_size": 2}, "does not exist"),
        ({"n_speakers": 8, "groups": ["f" if s in ("s0", "s1") else "m" for s in SPEAKERS]}, "there are 2"),
        ({"n_speakers": 3, "groups": ["f" if s == "s0" else "m" for s in SPEAKERS]}, "shared evenly"),
    ],
)
def test_impossible_batches_are_refused(options: dict, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        SpeakerBatchSampler(SPEAKERS, n_utterances=2, **options)


def test_balanced_batches() -> None:
    groups = ["f"] * 5 + ["m"] * 40 + [None] * 10
    sampler = BalancedBatchSampler(groups, 8, seed=5)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 45 // 8
    for batch in batches:
        assert Counter(groups[index] for index in batch) == {"f": 4, "m": 4}
        assert len(set(batch)) == 8
    seen = [index for batch in batches for index in batch if groups[index] == "f"]
    assert Counter(seen) == dict.fromkeys(range(5), 4)  # 20 draws of 5: each four times
    parts = [list(BalancedBatchSampler(groups, 8, seed=5, rank=r, world_size=2)) for r in range(2)]
    assert [one + two for one, two in zip(*parts)] == batches
    with pytest.raises(DataError, match="multiple of both"):
        BalancedBatchSampler(groups, 7)
    with pytest.raises(DataError, match="1 known groups"):
        BalancedBatchSampler(["f", None], 2)


def test_groups() -> None:
    row = Row("a", "c", "1", attributes={"gender": "female", "age": "37.5", "ethnicity": "west_asian"})
    assert group_of(row, "age") == "30s"
    assert group_of(row, "gender+ethnicity") == "female+west_asian"
    assert group_of(row, "gender+nationality") is None
    assert group_of(Row("b", "c", "1", attributes={"age": "old"}), "age") is None
    assert describe_groups([row, Row("b", "c", "2")], "gender") == {"female": 1, "unknown": 1}
