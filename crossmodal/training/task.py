"""What a thing to be trained has to say; :mod:`crossmodal.training.core` does everything else."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Task(abc.ABC):
    """Modules, losses, optimisers and data of one thing to be trained, and what one step is.

    The loop (:func:`crossmodal.training.core.fit`) owns devices, precision, accumulation, clipping, EMA, schedules,
    logging, validation, checkpoints and resume; a task never moves a tensor to a device, never calls ``backward`` and
    never writes a checkpoint.

    Subclasses set :attr:`name` and :attr:`Config` (a dataclass: the ``task`` part of a recipe) and are listed in
    :data:`crossmodal.training.tasks.TABLE`.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    phases: ClassVar[tuple[str, ...]] = ("main",)
    """One optimiser and one backward pass a step for each phase, in this order; an adversarial task has
    ``("discriminator", "generator")``."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.modules: nn.ModuleDict = nn.ModuleDict()
        """What is trained, saved and averaged. Frozen helpers (a face-feature network inside a loss) live outside it,
        in :attr:`frozen`, and are moved to the device but not saved."""
        self.frozen: nn.ModuleDict = nn.ModuleDict()

    @abc.abstractmethod
    def dataset(self, split: str) -> Dataset:
        """The ``train`` or ``validation`` examples: a map-style dataset; each example is a dict with an ``id`` string.

        An example may depend only on its index and on the global random numbers of ``torch``, ``numpy`` and ``random``,
        which the loop seeds from (seed, epoch, index), so that a resumed run sees the same crops.
        """

    def sampler(self, dataset: Dataset, batch_size: int, seed: int) -> Iterable[list[int]] | None:
        """A batch sampler with ``set_epoch(epoch)``; ``None`` for the loop's seeded shuffle (in order for validation).

        ``batch_size`` is that of all processes together; the loop gives each an equal, contiguous part of every batch.
        """
        return None

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Examples → batch (default: torch's)."""
        from torch.utils.data import default_collate

        return default_collate(examples)

    def parameters(self, phase: str) -> Iterable[nn.Parameter | dict[str, Any]]:
        """The parameters (or parameter groups) that ``phase`` updates (default: all of :attr:`modules`)."""
        return self.modules.parameters()

    @abc.abstractmethod
    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """One forward pass. ``"loss"`` is what is minimised; every other entry is a scalar to log.

        Runs under the loop's autocast. ``step`` counts optimiser steps from 0. Random numbers may come from ``torch``,
        ``numpy`` and ``random``; the loop seeds them from (seed, step, process). With several processes ``batch`` is
        this process's equal, contiguous part of the global batch, and the loop averages the gradients.
        """

    @torch.no_grad()
    def validate(self, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Scalars on the validation batches; ``"loss"`` (default: the mean of :meth:`loss` over batches of the last
        phase) chooses the best checkpoint, lower is better. Runs with the averaged (EMA) weights, in eval mode."""
        total: dict[str, float] = {}
        count = 0
        for batch in batches:
            count += 1
            for key, value in self.loss(self.phases[-1], batch, step=-1).items():
                total[key] = total.get(key, 0.0) + float(value)
        return {key: value / max(count, 1) for key, value in total.items()}

    def visuals(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Things to look at, logged to TensorBoard: ``name → PIL image`` or ``name → (waveform (T,), sample_rate)``.

        Runs after each validation, as it does, on the first validation batch.
        """
        return {}

    def export(self, folder: Path, add: Callable[..., None]) -> None:
        """Hand over the trained networks for a bundle: one ``add(name, kind, module, **card)`` each (default: every
        entry of :attr:`modules` that names its kind in ``module.kind``)."""
        for name, module in self.modules.items():
            if kind := getattr(module, "kind", None):
                add(name, kind, module)
