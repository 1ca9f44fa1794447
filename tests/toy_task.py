"""Tiny tasks for the tests of the training loop: everything that could go wrong in them is switched on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from crossmodal.losses.ge2e import GE2ELoss
from crossmodal.training.task import Task


@dataclass
class ToyConfig:
    """Sizes and switches of the toy tasks."""

    examples: int = 40
    width: int = 8
    noise: float = 0.1
    """Of the examples, drawn anew each epoch."""
    dropout: float = 0.2
    norm: Literal["batch", "layer"] = "batch"
    bad_example: int = -1
    """The index of an example that holds no number."""
    scale: float = 1.0
    """Of the loss from step 5 on."""


class ToyData(Dataset):
    """Random vectors; the noise on them comes from torch, numpy and random."""

    def __init__(self, config: ToyConfig, size: int) -> None:
        self.config, self.size = config, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        y = x.sum(0, keepdim=True)
        noise = torch.randn(4) + float(np.random.standard_normal()) + random.gauss(0, 1)
        x = x + self.config.noise * noise
        if index == self.config.bad_example:
            x = x * float("nan")
        return {"id": f"example-{index}", "x": x, "y": y}


class ToyTask(Task):
    """Regression by a small network with batch norm and dropout, and noise of every kind in the loss."""

    name = "toy"
    Config = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        norm = nn.BatchNorm1d if config.norm == "batch" else nn.LayerNorm
        self.modules["net"] = nn.Sequential(
            nn.Linear(4, config.width),
            norm(config.width),
            nn.Dropout(config.dropout),
            nn.ReLU(),
            nn.Linear(config.width, 1),
        )

    def dataset(self, split: str) -> Dataset:
        return ToyData(self.config, self.config.examples if split == "train" else 12)

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        error = self.modules["net"](batch["x"]) - batch["y"]
        if self.config.dropout:
            error = error + 0.01 * (torch.randn_like(error) + random.random() + float(np.random.rand()))
        loss = error.pow(2).mean() * (self.config.scale if step >= 5 else 1.0)
        return {"loss": loss, "absolute": error.abs().mean()}


class AdversarialToyTask(ToyTask):
    """Two phases over two networks, each of which the other's loss runs through."""

    name = "toy-adversarial"
    phases: ClassVar[tuple[str, ...]] = ("discriminator", "generator")

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.modules["judge"] = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def parameters(self, phase: str) -> Iterable[nn.Parameter | dict[str, Any]]:
        if phase == "discriminator":
            return self.modules["judge"].parameters()
        return [{"params": list(self.modules["net"].parameters()), "lr": 3e-3}]

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        made, judge = self.modules["net"](batch["x"]), self.modules["judge"]
        if phase == "discriminator":
            return {"loss": (judge(batch["y"]) - 1).pow(2).mean() + judge(made.detach()).pow(2).mean()}
        return {"loss": (made - batch["y"]).pow(2).mean() + 0.1 * (judge(made) - 1).pow(2).mean()}


class _Speakers:
    """Batches of N speakers × 2 utterances; example ``i`` is of speaker ``i // 4``."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // 4 // (self.batch_size // 2)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.size // 4, generator=generator).tolist()
        count = self.batch_size // 2
        for number in range(len(self)):
            people = order[number * count : (number + 1) * count]
            yield [
                4 * person + take for person in people for take in torch.randperm(4, generator=generator)[:2].tolist()
            ]


class GE2EToyTask(ToyTask):
    """GE2E over the utterances of all processes."""

    name = "toy-ge2e"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.modules["net"] = nn.Sequential(nn.Linear(4, config.width), nn.Tanh(), nn.Linear(config.width, 6))
        self.modules["similarity"] = GE2ELoss()

    def sampler(self, dataset: Dataset, batch_size: int, seed: int) -> Iterable[list[int]]:
        return _Speakers(len(dataset), batch_size, seed)  # type: ignore[arg-type]

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        embeddings = self.modules["net"](batch["x"])  # (N·2, 6)
        return {"loss": self.modules["similarity"](embeddings.unflatten(0, (-1, 2)))}


TASKS = {cls.name: cls for cls in (ToyTask, AdversarialToyTask, GE2EToyTask)}
