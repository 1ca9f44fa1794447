"""Batch samplers: N speakers × M utterances (GE2E), and batches balanced over a group such as gender.

They follow the loop's contract (``set_epoch``, ``__len__``, an iterator of index lists), depend on (seed, epoch)
alone, and split a global batch over ``world_size`` processes without any of them talking to another.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from crossmodal.data.manifest import Row
from crossmodal.errors import DataError


def group_of(row: Row, attribute: str) -> str | None:
    """The group of a row: ``gender``, ``nationality``, ``ethnicity``, ... as they are, ``age`` by decade (``30s``), or
    several joined by ``+`` (``gender+ethnicity``); ``None`` where any of them is unknown."""
    found = []
    for name in attribute.split("+"):
        value = row.attributes.get(name.strip())
        if value is None:
            return None
        if name.strip() == "age":
            try:
                value = f"{int(float(value)) // 10 * 10}s"
            except ValueError:
                return None
        found.append(value)
    return "+".join(found)


class _BatchSampler:
    """Seed, epoch, and the part of a global batch that belongs to one process."""

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} of {world_size} processes does not exist", source="sampler")
        self.seed, self.rank, self.world_size, self.epoch = seed, rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order."""
        self.epoch = epoch

    def _random(self) -> random.Random:
        return random.Random(f"{type(self).__name__}/{self.seed}/{self.epoch}")  # a string seed is hashed by SHA-512


class SpeakerBatchSampler(_BatchSampler):
    """N speakers × M utterances of each, the batch of GE2E (Wan et al. 2018, section 2.1): speaker after speaker.

    Speakers come from a reshuffled stream, so that all are drawn equally often; a speaker's utterances differ as long
    as there are enough, else they repeat.

    Args:
        speakers: the speaker of every example of the dataset.
        n_speakers: N, speakers in the global batch.
        n_utterances: M, utterances of each.
        seed: with the epoch, decides everything.
        rank, world_size: process ``rank`` gets N / world_size of the speakers.
        batches: of an epoch; default: as many as it takes to see as many utterances as there are.
        groups: the group of every example (see :func:`group_of`); the N speakers are then drawn evenly over the groups,
            and examples of no known group (``None``) are left out.

    Raises:
        DataError: fewer speakers than N, N not divisible by the processes or groups, or fewer than two utterances.
    """

    def __init__(
        self,
        speakers: Sequence[str],
        n_speakers: int,
        n_utterances: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches: int | None = None,
        groups: Sequence[str | None] | None = None,
    ) -> None:
        super().__init__(seed, rank, world_size)
        if n_speakers < 1 or n_utterances < 1:
            raise DataError(f"{n_speakers} speakers × {n_utterances} utterances is no batch", source="sampler")
        if n_speakers % world_size:
            raise DataError(
                f"{n_speakers} speakers cannot be shared by {world_size} processes",
                source="sampler",
                remedy=f"use a multiple of {world_size}",
            )
        if groups is not None and len(groups) != len(speakers):
            raise DataError(f"{len(groups)} groups for {len(speakers)} examples", source="sampler")
        self.n_speakers, self.n_utterances = n_speakers, n_utterances
        self.utterances: dict[str, list[int]] = {}
        group_of_speaker: dict[str, str] = {}
        for index, speaker in enumerate(speakers):
            group = "" if groups is None else groups[index]
            if group is not None:
                self.utterances.setdefault(speaker, []).append(index)
                group_of_speaker.setdefault(speaker, group)
        self.pools: dict[str, list[str]] = {}
        for speaker in sorted(self.utterances):
            self.pools.setdefault(group_of_speaker[speaker], []).append(speaker)
        if len(self.utterances) < n_speakers:
            raise DataError(
                f"a batch of {n_speakers} speakers was asked for, there are {len(self.utterances)}",
                source="sampler",
                remedy=f"use at most {len(self.utterances)} speakers a batch",
            )
        self.shares = _even_shares(n_speakers, self.pools)
        examples = sum(len(indices) for indices in self.utterances.values())
        self.batches = batches if batches is not None else max(1, examples // (n_speakers * n_utterances))

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = self._random()
        streams = {group: _Stream(pool, rng) for group, pool in sorted(self.pools.items())}
        unseen: dict[str, list[int]] = {}
        local = self.n_speakers // self.world_size
        for _ in range(self.batches):
            batch: list[list[int]] = []
            for group, stream in streams.items():
                for speaker in stream.draw(self.shares[group]):
                    batch.append(self._draw_utterances(speaker, unseen, rng))
            rng.shuffle(batch)  # every process draws the whole batch, so that all agree, and keeps its part
            mine = batch[self.rank * local : (self.rank + 1) * local]
            yield [index for utterances in mine for index in utterances]

    def _draw_utterances(self, speaker: str, unseen: dict[str, list[int]], rng: random.Random) -> list[int]:
        """M utterances: first those not heard in this epoch, never twice the same while there are M different ones."""
        everything = self.utterances[speaker]
        chosen: list[int] = []
        while len(chosen) < self.n_utterances:
            queue = unseen.get(speaker)
            if not queue:
                queue = unseen[speaker] = rng.sample(everything, len(everything))
                if len(everything) >= self.n_utterances:
                    queue.sort(key=lambda index: index in chosen, reverse=True)  # popped from the end: new ones first
            chosen.append(queue.pop())
        return chosen


class BalancedBatchSampler(_BatchSampler):
    """Batches with the same number of examples of every group; small groups are repeated, in a new order each time.

    Args:
        groups: the group of every example (see :func:`group_of`); examples of no known group (``None``) are left out.
        batch_size: of the global batch; a multiple of the number of groups and of ``world_size``.
        seed, rank, world_size, batches: as in :class:`SpeakerBatchSampler`.

    Raises:
        DataError: fewer than two groups, or a batch size that cannot be shared evenly.
    """

    def __init__(
        self,
        groups: Sequence[str | None],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches: int | None = None,
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.pools: dict[str, list[int]] = {}
        for index, group in enumerate(groups):
            if group is not None:
                self.pools.setdefault(group, []).append(index)
        if len(self.pools) < 2:
            raise DataError(f"{len(self.pools)} known groups cannot be balanced", source="sampler")
        if batch_size % len(self.pools) or batch_size % world_size or batch_size < 1:
            raise DataError(
                f"a batch of {batch_size} cannot be shared by {len(self.pools)} groups and {world_size} processes",
                source="sampler",
                remedy="use a multiple of both",
            )
        self.batch_size = batch_size
        examples = sum(len(pool) for pool in self.pools.values())
        self.batches = batches if batches is not None else max(1, examples // batch_size)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = self._random()
        streams = [_Stream(pool, rng) for _, pool in sorted(self.pools.items())]
        share, local = self.batch_size // len(streams), self.batch_size // self.world_size
        for _ in range(self.batches):
            batch = [index for stream in streams for index in stream.draw(share)]
            rng.shuffle(batch)
            yield batch[self.rank * local : (self.rank + 1) * local]


class _Stream:
    """Items in random order, again and again; items of one draw differ as long as there are enough."""

    def __init__(self, items: Sequence, rng: random.Random) -> None:
        self.items, self.rng, self.queue = list(items), rng, []  # type: ignore[var-annotated]

    def draw(self, count: int) -> list:
        drawn: list = []
        while len(drawn) < count:
            if not self.queue:
                self.queue = self.rng.sample(self.items, len(self.items))
                if count <= len(self.items):  # what was just drawn goes to the end of the new round
                    recent = set(drawn)
                    self.queue.sort(key=lambda item: item in recent, reverse=True)
            drawn.append(self.queue.pop())
        return drawn


def _even_shares(total: int, pools: dict[str, list[str]]) -> dict[str, int]:
    """``total`` over the groups, as even as it can be made."""
    if total % len(pools):
        raise DataError(
            f"{total} speakers cannot be shared evenly by {len(pools)} groups ({', '.join(sorted(pools))})",
            source="sampler",
            remedy=f"use a multiple of {len(pools)}",
        )
    share = total // len(pools)
    small = {group: len(pool) for group, pool in pools.items() if len(pool) < share}
    if small:
        group, count = sorted(small.items())[0]
        raise DataError(f"a batch needs {share} speakers of group '{group}', there are {count}", source="sampler")
    return dict.fromkeys(pools, share)


def describe_groups(rows: Sequence[Row], attribute: str) -> dict[str, int]:
    """How many rows each group has, ``unknown`` included; largest first."""
    counts = Counter(group_of(row, attribute) or "unknown" for row in rows)
    return dict(counts.most_common())
