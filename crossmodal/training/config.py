"""The settings of a training run: the ``trainer`` part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crossmodal.errors import ConfigError


@dataclass(frozen=True)
class OptimiserConfig:
    """One optimiser. A task's parameter groups may override ``lr`` and ``weight_decay`` of their own."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's averages of gradient and squared gradient."""
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    """Of ``sgd`` only."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The factor on every learning rate, a function of the step alone."""

    name: Literal["constant", "cosine", "step"] = "constant"
    warmup: int = 0
    """Steps of a linear rise from zero."""
    factor: float = 0.95
    """``step``: multiply by this ..."""
    every: int = 10_000
    """... each so many steps (Speech2Face: × 0.95 each 10,000)."""
    floor: float = 0.0
    """``cosine``: the factor at the end. It falls over ``steps``, or over ``minutes`` where no ``steps`` are given
    (then the rates depend on the clock, and a resumed run is no longer the same to the bit)."""


@dataclass(frozen=True)
class TrainerConfig:
    """How :func:`crossmodal.training.core.fit` trains a task."""

    seed: int = 0
    """Of the order of the data, the examples' crops and the noise of every step."""
    batch_size: int = 8
    """Examples of one forward pass over **all** processes together: a recipe means the same on one GPU and on forty."""
    validation_batch_size: int = 0
    """The same in validation; 0 for ``batch_size``."""
    accumulate: int = 1
    """Forward passes whose gradients are averaged before one optimiser step."""
    steps: int = 0
    """Optimiser steps in all; 0 for no limit. One of ``steps`` and ``minutes`` must be given."""
    minutes: float = 0.0
    """Wall-clock budget, interruptions not counted; 0 for no limit."""

    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    optimisers: dict[str, OptimiserConfig] = field(default_factory=dict)
    """Phases that want another optimiser than ``optimiser``."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clip: float = 0.0
    """Largest norm of a phase's gradient; 0 for no clipping."""
    ema: float = 0.0
    """Decay of the running average of the weights, reached gradually as (1 + step) / (10 + step); 0 for none. The
    average is what is validated and exported."""
    start_from: Path | None = None
    """A checkpoint folder, or a run folder, whose averaged weights the run begins with (fine-tuning)."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of the matrix products; the weights stay float32. CPUs do fp16 as bf16."""
    tf32: bool = True
    """Let float32 products use TensorFloat-32 where the GPU has it."""
    compile: bool = False
    """Compile every trained module by ``torch.compile``."""
    workers: int = 0
    """Processes that prepare examples, for each training process; 0 prepares them in the loop itself."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    """Processes (GPUs) on each machine."""
    nodes: int = 1
    """Machines; start the same command on each, with MASTER_ADDR and NODE_RANK set, or by Slurm or torchrun."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """``ddp``: each process holds the whole model. ``fsdp``: parameters and optimiser are sharded over processes."""

    validate_every: int = 500
    """Steps between validations; 0 for never."""
    validation_batches: int = 0
    """Most batches of one validation; 0 for all."""
    patience: int = 0
    """Validations without improvement before the run stops; 0 for never."""
    save_every: int = 500
    """Steps between checkpoints; 0 for only the best and the last."""
    keep: int = 2
    """Newest checkpoints to keep, beside the best one."""
    final: Literal["best", "last"] = "best"
    """Which weights the run ends with and exports (the last ones where nothing was validated)."""
    log_every: int = 10
    explode: float = 1e3
    """Stop when the loss exceeds this many times the larger of 1 and its running average."""

    def __post_init__(self) -> None:
        if not (self.steps or self.minutes):
            raise ConfigError("neither steps nor minutes are limited", source="trainer", remedy="set steps or minutes")
        for name in ("batch_size", "accumulate", "devices", "nodes", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}", source="trainer")
        for name in ("steps", "minutes", "clip", "workers", "validate_every", "validation_batches", "patience",
                     "save_every", "validation_batch_size"):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}", source="trainer")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be at least 0 and below 1, got {self.ema}", source="trainer")
