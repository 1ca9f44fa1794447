"""Run by test_ddp.py: train the toy tasks on two real processes that talk by gloo."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.fabric import Fabric

from crossmodal.training.core import OptimiserConfig, TrainerConfig, fit
from crossmodal.training.loading import seed_everything
from tests.toy_task import TASKS, ToyConfig

CASES = {
    "plain": {"task": "toy", "accumulate": 2, "clip": 0.5},
    "adversarial": {"task": "toy-adversarial", "accumulate": 2},
    "ge2e": {"task": "toy-ge2e"},
    "sharded": {"task": "toy-adversarial", "strategy": "fsdp", "accumulate": 2, "clip": 0.5},
}
"""Name → the task and the settings that differ."""


def train(case: str, folder: Path, fabric: Fabric | None = None) -> None:
    """Train one of the cases; on one process where no ``fabric`` is given."""
    settings = dict(CASES[case])
    task = TASKS[str(settings.pop("task"))]
    if fabric is None:
        settings.pop("strategy", None)
    config = TrainerConfig(
        batch_size=8,
        steps=12,
        # the bias of the GE2E softmax has no effect, hence a gradient of rounding errors, which Adam would blow up
        optimiser=OptimiserConfig(name="sgd", lr=0.05, momentum=0.9) if case == "ge2e" else OptimiserConfig(lr=0.02),
        ema=0.9,
        validate_every=5,
        validation_batch_size=4 if case == "ge2e" else 6,
        save_every=4,
        log_every=1,
        accelerator="cpu",
        **settings,  # type: ignore[arg-type]
    )
    # other weights in every process: the loop has to make them the same
    seed_everything(fabric.global_rank if fabric else 0)
    fit(task(ToyConfig(dropout=0.0, norm="layer")), config, folder, fabric=fabric)
    if case == "sharded":  # go on from a checkpoint whose pieces have to be handed out again
        longer = TrainerConfig(**{**vars(config), "steps": 16})
        fit(task(ToyConfig(dropout=0.0, norm="layer")), longer, folder, fabric=fabric)


def main(folder: Path) -> None:
    """Train all cases on two processes."""
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    assert fabric.world_size == 2
    for case in CASES:
        train(case, folder / case, fabric)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
