"""Run by test_resume.py: train once undisturbed, and once more while being killed again and again.

A process of its own, so that it can fork children that have torch imported already: each child is a real process,
killed by a real SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.utils.tensorboard

from crossmodal.training.core import OptimiserConfig, ScheduleConfig, TrainerConfig, fit
from tests.toy_task import AdversarialToyTask, ToyConfig

STEPS = 120
CONFIG = TrainerConfig(
    seed=3,
    batch_size=6,
    accumulate=2,
    steps=STEPS,
    optimiser=OptimiserConfig(lr=1e-2, weight_decay=0.01),
    optimisers={"discriminator": OptimiserConfig(name="sgd", lr=1e-2, momentum=0.9)},
    schedule=ScheduleConfig(name="cosine", warmup=10),
    clip=1.0,
    ema=0.99,
    validate_every=16,
    save_every=7,
    log_every=1,
)


def run(folder: Path) -> None:
    """Train the toy to its end, or until killed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fit(AdversarialToyTask(ToyConfig()), CONFIG, folder)


def child(folder: Path) -> int:
    """Train in a new process; returns its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            sys.stderr = nowhere
            run(folder)
        code = 0
    finally:
        os._exit(code)


def lines(folder: Path) -> int:
    """Steps logged so far."""
    try:
        return (folder / "log.jsonl").read_bytes().count(b'"train"')
    except OSError:
        return 0


def main(base: Path, kills: int) -> None:
    """Print, as JSON, after how many logged steps each kill came."""
    pid = child(base / "whole")
    assert os.waitpid(pid, 0)[1] == 0
    chance = random.Random(7)
    aims = sorted(chance.sample(range(4, STEPS - 3), kills))
    killed = []
    for aim in aims:
        pid = child(base / "killed")
        while lines(base / "killed") < aim and os.waitpid(pid, os.WNOHANG)[0] == 0:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)  # anywhere inside a step, a validation or a checkpoint
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the run was over before it could be killed"
        killed.append(lines(base / "killed"))
    pid = child(base / "killed")
    assert os.waitpid(pid, 0)[1] == 0
    print(json.dumps(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
