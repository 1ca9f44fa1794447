"""The order of the data and the random numbers of every example: functions of the seed and the position alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from crossmodal.errors import ConfigError, CrossmodalError
from crossmodal.training.config import TrainerConfig
from crossmodal.training.task import Task

Position = tuple[int, int]
"""(epoch, batches of it already used)."""


def mix(*parts: object) -> int:
    """A 63-bit seed from anything printable, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed ``torch`` (every device), ``numpy`` and ``random``."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class _Seeded(Dataset):
    """Examples made with random numbers that depend on (seed, epoch, index) only; keys carry the position along."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[int, int, Any]:
        epoch, number, index = key
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            seed = mix(self.seed, epoch, index)
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            return epoch, number, self.dataset[index]
        except CrossmodalError as error:  # one line in the loop, rather than the worker's traceback
            return epoch, number, error
        finally:  # examples made in the loop's own process must not disturb the loop's random numbers
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])


class _Shuffle:
    """The seeded shuffle of tasks without a sampler of their own; a short last batch is left out."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(mix(self.seed, "order", self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]


class _Stream(Sampler):
    """Batches of keys without end, from ``position`` on; this process's share of each."""

    def __init__(self, batches: Any, position: Position, rank: int, world: int) -> None:
        self.batches, self.position, self.rank, self.world = batches, position, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch, skip = self.position
        while True:
            if hasattr(self.batches, "set_epoch"):
                self.batches.set_epoch(epoch)
            number = -1
            for number, batch in enumerate(self.batches):
                if number >= skip:
                    yield [(epoch, number, index) for index in share(batch, self.rank, self.world)]
            if number < 0:
                raise ConfigError("the sampler gives no batch", source="task", remedy="lower batch_size or add data")
            epoch, skip = epoch + 1, 0


def share(batch: list[int], rank: int, world: int) -> list[int]:
    """The ``rank``-th of ``world`` equal, contiguous parts (speakers × utterances stay together)."""
    if len(batch) % world:
        raise ConfigError(
            f"a batch of {len(batch)} cannot be shared equally by {world} processes",
            source="trainer",
            remedy=f"make batch_size a multiple of {world}",
        )
    part = len(batch) // world
    return batch[rank * part : (rank + 1) * part]


class _Collate:
    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, examples: list[tuple[int, int, Any]]) -> tuple[Position, Any]:
        epoch, number, _ = examples[0]
        for *_, example in examples:
            if isinstance(example, CrossmodalError):
                return (epoch, number + 1), example
        return (epoch, number + 1), self.task.collate([example for *_, example in examples])


def size_of(dataset: Dataset) -> int:
    """Number of examples."""
    return len(dataset)  # type: ignore[arg-type]


def train_batches(task: Task, dataset: Dataset, config: TrainerConfig) -> Iterable[list[int]]:
    """The batch sampler of training.

    Raises:
        ConfigError: there are fewer examples than one batch holds.
    """
    if size_of(dataset) < config.batch_size:
        raise ConfigError(
            f"batch_size {config.batch_size} is larger than the {size_of(dataset)} training examples",
            source=task.name,
            remedy="lower batch_size or add data",
        )
    order = task.sampler(dataset, config.batch_size, config.seed)
    return _Shuffle(size_of(dataset), config.batch_size, config.seed) if order is None else order


def train_stream(
    task: Task, dataset: Dataset, batches: Any, config: TrainerConfig, position: Position, rank: int, world: int
) -> Iterator[tuple[Position, Any]]:
    """Batches without end from ``position`` on, each with the position after it."""
    loader = DataLoader(
        _Seeded(dataset, config.seed),
        batch_sampler=_Stream(batches, position, rank, world),
        collate_fn=_Collate(task),
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
        # the loader draws a seed from torch's generator when it starts; ours must not notice
        generator=torch.Generator().manual_seed(0),
    )
    return _unwrapped(loader)


def validation_batches(
    task: Task, dataset: Dataset, config: TrainerConfig, rank: int, world: int
) -> list[list[tuple[int, int, int]]]:
    """The keys of the validation batches: the task's sampler at epoch 0, else in order (with several processes, a
    last batch that cannot be shared equally loses its remainder).

    Raises:
        ConfigError: there is not one batch.
    """
    size = config.validation_batch_size or config.batch_size
    order = task.sampler(dataset, size, config.seed)
    if order is None:
        order = [list(range(i, min(i + size, size_of(dataset)))) for i in range(0, size_of(dataset), size)]
    elif hasattr(order, "set_epoch"):
        order.set_epoch(0)
    keys = []
    for number, batch in enumerate(order):
        if config.validation_batches and number >= config.validation_batches:
            break
        part = share(batch[: len(batch) // world * world], rank, world)
        if part:
            keys.append([(0, number, index) for index in part])
    if not keys:
        raise ConfigError(
            f"{size_of(dataset)} held-out examples do not fill one validation batch of {size}",
            source=task.name,
            remedy="lower validation_batch_size, hold out more, or set validate_every to 0",
        )
    return keys


def validation_stream(task: Task, dataset: Dataset, keys: list[Any], config: TrainerConfig) -> Iterator[Any]:
    """The validation batches, the same ones each time."""
    loader = DataLoader(
        _Seeded(dataset, mix(config.seed, "validation")),
        batch_sampler=keys,
        collate_fn=_Collate(task),
        num_workers=min(config.workers, 2),
        generator=torch.Generator().manual_seed(0),
    )
    for _, batch in _unwrapped(loader):
        yield batch


def _unwrapped(loader: DataLoader) -> Iterator[tuple[Position, Any]]:
    for position, batch in loader:
        if isinstance(batch, CrossmodalError):
            raise batch
        yield position, batch
