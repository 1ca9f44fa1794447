"""Optimisers and learning-rate schedules; a rate is a function of the step, so there is no state to save."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from crossmodal.errors import ConfigError
from crossmodal.training.config import OptimiserConfig, ScheduleConfig


def optimiser(
    parameters: Iterable[nn.Parameter | dict[str, Any]], config: OptimiserConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimiser over the trainable ones of ``parameters`` (parameters, or groups with their own ``lr``)."""
    groups: list[dict[str, Any]] = []
    loose: list[nn.Parameter] = []
    for item in parameters:
        if isinstance(item, dict):
            chosen = [p for p in item["params"] if p.requires_grad]
            groups += [{**item, "params": chosen}] if chosen else []
        elif item.requires_grad:
            loose.append(item)
    if loose:
        groups.insert(0, {"params": loose})
    if not groups:
        raise ConfigError("a phase has no parameter to train", source="task")
    for group in groups:
        group.setdefault("lr", config.lr)
        group["base_lr"] = group["lr"]
    decay = config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=decay, fused=fused or None)


def factor(config: ScheduleConfig, step: int, progress: float) -> float:
    """The factor on the learning rates at ``step`` (from 0); ``progress`` in [0, 1] is the share of the run done."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.name == "cosine":
        return warm * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
    if config.name == "step":
        return warm * config.factor ** (step // config.every)
    return warm


def set_rates(optimisers: Iterable[torch.optim.Optimizer], scale: float) -> None:
    """Set every group's learning rate to ``scale`` times its own base rate."""
    for one in optimisers:
        for group in one.param_groups:
            group["lr"] = group["base_lr"] * scale
