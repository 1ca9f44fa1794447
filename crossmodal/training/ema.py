"""A running average of the weights (Polyak averaging)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """The average of ``modules``' parameters; buffers (batch-norm statistics, counters) are copied as they are.

    ``average ← decay · average + (1 − decay) · weights`` with ``decay = min(limit, (1 + step) / (10 + step))``, so that
    a short run is not an average over its random start.
    """

    def __init__(self, modules: nn.Module, limit: float) -> None:
        self._modules, self._limit = modules, limit
        self._average = {name: value.detach().clone() for name, value in modules.state_dict().items()}
        self._trained = {name for name, p in modules.named_parameters() if p.requires_grad and p.is_floating_point()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        weight = 1 - min(self._limit, (1 + step) / (10 + step))
        now = self._modules.state_dict()
        trained = [name for name in now if name in self._trained]
        torch._foreach_lerp_([self._average[n] for n in trained], [now[n] for n in trained], weight)
        self.take_buffers()

    @torch.no_grad()
    def take_buffers(self) -> None:
        """Copy what is not averaged."""
        now = self._modules.state_dict()
        for name in now.keys() - self._trained:
            self._average[name].copy_(now[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Name → average (the tensors themselves), the names being those of the modules' own ``state_dict``."""
        return self._average

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The modules hold the average inside the ``with``, and their own weights again after it."""
        own = {name: value.detach().clone() for name, value in self._modules.state_dict().items()}
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._modules.state_dict().items():
            value.copy_(tensors[name])
