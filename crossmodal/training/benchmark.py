"""Throughput of a training step: eager and compiled, fp32 and bf16, at several batch sizes.

The batch is made once and repeated, so that what is measured is the device and not the disk. Operations are counted by
torch's own counter on one step (forward and backward of every phase); a multiplication and an addition are two. The
share of the matrix rate is against the maker's figure for the chip where it is known (dense, without sparsity), else
against what one large matrix product reaches here, measured just before.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from torch.utils.data import Dataset

from crossmodal.errors import ConfigError
from crossmodal.training import schedules
from crossmodal.training.config import TrainerConfig
from crossmodal.training.core import make_fabric
from crossmodal.training.loading import mix, seed_everything, size_of, train_batches, train_stream
from crossmodal.training.recipe import Recipe
from crossmodal.training.task import Task

PEAK: dict[str, tuple[float, float]] = {
    "H200": (989.0, 494.0),
    "H100": (989.0, 494.0),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
    "A10G": (70.0, 35.0),
    "V100": (125.0, 15.7),
    "T4": (65.0, 8.1),
}
"""Chip → dense TFLOP/s of bf16 (fp16 where the chip has no bf16), and of float32 as the trainer computes it (TF32 where
there is one). From the makers' data sheets, SXM variants."""


@dataclass
class Row:
    """One line of the table."""

    batch_size: int
    precision: str
    compiled: bool
    steps_per_second: float
    samples_per_second: float
    teraflops: float
    """Per second."""
    share: float
    """Of :attr:`peak`."""
    peak: float
    """TFLOP/s."""
    peak_source: str
    memory_gib: float
    """Most memory allocated on the device; 0 on a CPU."""
    failure: str = ""
    """Why there is no figure (out of memory, no compiler)."""


def measure(
    recipe: Recipe,
    batch_sizes: Sequence[int],
    *,
    precisions: Sequence[Literal["fp32", "bf16"]] = ("fp32", "bf16"),
    compiled: Sequence[bool] = (False, True),
    seconds: float = 5.0,
) -> list[Row]:
    """Measure every combination for about ``seconds`` each, after a warm-up."""
    rows = []
    for size in batch_sizes:
        for precision in precisions:
            for flag in compiled:
                config = dataclasses.replace(
                    recipe.trainer, batch_size=size, precision=precision, compile=flag, devices=1, nodes=1
                )
                rows.append(_measure(dataclasses.replace(recipe, trainer=config), seconds))
    return rows


def _measure(recipe: Recipe, seconds: float) -> Row:
    config = recipe.trainer
    fabric = make_fabric(config)
    fabric.launch()
    cuda = fabric.device.type == "cuda"
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    peak, source = _peak(fabric, config.precision)
    row = Row(config.batch_size, config.precision, config.compile, 0, 0, 0, 0, peak, source, 0)
    try:
        step = _Step(recipe, fabric)
        operations = _count(step)
        if config.compile:
            for module in step.task.modules.values():
                module.compile()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        done, start = 0, _now(cuda)
        while done < 3 or _now(cuda) - start < seconds:
            for _ in range(max(1, done)):  # look at the clock, which waits for the device, ever more rarely
                step()
                done += 1
        rate = done / (_now(cuda) - start)
    except ConfigError:
        raise
    except Exception as error:  # a table with holes says more than none: out of memory, no compiler
        row.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        return row
    finally:
        if config.compile:
            torch._dynamo.reset()
        if cuda:
            torch.cuda.empty_cache()
    row.steps_per_second, row.samples_per_second = rate, rate * config.batch_size
    row.teraflops = operations * rate / 1e12
    row.share = row.teraflops / peak
    row.memory_gib = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return row


class _Step:
    """One optimiser step of every phase on a batch that stays the same."""

    def __init__(self, recipe: Recipe, fabric: Fabric) -> None:
        config = recipe.trainer
        self.task, self.fabric = recipe.task(), fabric
        data = self.task.dataset("train")
        stream = train_stream(self.task, data, _batches(self.task, data, config), config, (0, 0), 0, 1)
        self.batch = fabric.to_device(next(stream)[1])
        fabric.to_device(self.task.modules)
        fabric.to_device(self.task.frozen)
        self.task.frozen.requires_grad_(False).eval()
        self.task.modules.train()
        fused = fabric.device.type == "cuda" and config.precision != "fp16"
        self.optimisers = {
            phase: schedules.optimiser(
                self.task.parameters(phase), config.optimisers.get(phase, config.optimiser), fused=fused
            )
            for phase in self.task.phases
        }
        seed_everything(mix(config.seed, "benchmark"))

    def __call__(self) -> None:
        for phase, optimiser in self.optimisers.items():
            self.task.modules.zero_grad(set_to_none=True)
            with self.fabric.autocast():
                loss = self.task.loss(phase, self.batch, 0)["loss"]
            self.fabric.backward(loss)
            self.fabric.strategy.optimizer_step(optimiser)


def _batches(task: Task, data: Dataset, config: TrainerConfig) -> Any:
    """The task's own batches; where there are too few examples for one, examples are used several times."""
    try:
        return train_batches(task, data, config)
    except ConfigError:
        size = size_of(data)
        return [[i % size for i in range(config.batch_size)]]


def _count(step: Any) -> int:
    """Floating-point operations of one step."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def _peak(fabric: Fabric, precision: str) -> tuple[float, str]:
    """TFLOP/s to compare with, and where the figure is from."""
    half = precision != "fp32"
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
        for chip, (half_rate, full_rate) in PEAK.items():
            if chip in name:
                return (half_rate if half else full_rate), f"data sheet of {chip}"
    size = 8192 if fabric.device.type == "cuda" else 512
    cuda = fabric.device.type == "cuda"
    kind = torch.bfloat16 if half and cuda else torch.float32  # few CPUs have matrix units for bf16
    one = torch.randn(size, size, device=fabric.device, dtype=kind)
    one @ one
    count, start = 0, _now(cuda)
    while count < 3 or _now(cuda) - start < 0.3:
        one @ one
        count += 1
    return 2 * size**3 * count / (_now(cuda) - start) / 1e12, f"measured, {size} × {size} {str(kind)[6:]}"


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def table(recipe: Recipe, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    cuda = torch.cuda.is_available() and recipe.trainer.accelerator != "cpu"
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        f"{recipe.name} on {device}, torch {torch.__version__}",
        "",
        "| batch | precision | mode | steps/s | samples/s | TFLOP/s | share of matrix rate | memory, GiB |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        start = f"| {row.batch_size} | {row.precision} | {'compiled' if row.compiled else 'eager'} "
        if row.failure:
            lines.append(f"{start}| {row.failure} | | | | |")
            continue
        lines.append(
            f"{start}| {row.steps_per_second:.2f} | {row.samples_per_second:.1f} | {row.teraflops:.3g} | "
            f"{row.share:.1%} of {row.peak:.3g} | {row.memory_gib:.1f} |"
        )
    sources = sorted({f"{row.precision}: {row.peak:.3g} TFLOP/s ({row.peak_source})" for row in rows})
    return "\n".join([*lines, "", "Matrix rate: " + "; ".join(sources)])
