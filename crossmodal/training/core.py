"""The only training loop of the library, on Lightning Fabric.

::

    from crossmodal.training.core import TrainerConfig, fit
    result = fit(task, TrainerConfig(steps=10_000, batch_size=32), Path("runs/voice-encoder"))

A run is a function of its seed: the order of the data depends on (seed, epoch), an example's crop on (seed, epoch,
index), the noise of a step (dropout, sampling) on (seed, step, process). No state of a random number generator has to
be carried over an interruption, and a run that is killed at any moment and started again gives, on a CPU, the same
losses to the bit as one that was not.

The run's folder holds ``checkpoints/`` (:mod:`crossmodal.training.checkpoints`), ``log.jsonl``, ``tensorboard/`` and,
if the loss was not a number, the ids of the batch it happened on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from crossmodal.config import to_dict
from crossmodal.errors import ConfigError, OutputError, TrainingError
from crossmodal.files import atomic_write
from crossmodal.training import parallel, schedules
from crossmodal.training.checkpoints import (
    Checkpoint,
    Store,
    check_task,
    find,
    gather,
    load_tensors,
    load_weights,
    pack_optimiser,
    unpack_optimiser,
)
from crossmodal.training.config import OptimiserConfig, ScheduleConfig, TrainerConfig
from crossmodal.training.ema import Ema
from crossmodal.training.interrupt import Interrupt
from crossmodal.training.loading import (
    Position,
    mix,
    seed_everything,
    size_of,
    train_batches,
    train_stream,
    validation_batches,
    validation_stream,
)
from crossmodal.training.logging import Log
from crossmodal.training.parallel import make_fabric
from crossmodal.training.task import Task

__all__ = ["OptimiserConfig", "Result", "ScheduleConfig", "TrainerConfig", "fit", "make_fabric"]


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    step: int
    reason: str
    """``steps``, ``minutes``, ``patience`` or ``interrupted``."""
    best_loss: float
    """Lowest validation loss; infinite if nothing was validated."""
    checkpoint: Path
    """The checkpoint whose (averaged) weights the task's modules hold now."""
    seconds: float
    """Time trained, earlier parts of an interrupted run included."""


def fit(
    task: Task, config: TrainerConfig, out_dir: str | Path, *, resume: bool = True, fabric: Fabric | None = None
) -> Result:
    """Train ``task`` until ``config`` says stop; at the end its modules hold the averaged weights, in eval mode.

    Args:
        task: what to train.
        config: how.
        out_dir: the run's folder; made if missing.
        resume: go on from the newest whole checkpoint of ``out_dir``; otherwise start anew and **remove** those there.
        fabric: an engine already launched (default: made from ``config``).

    Raises:
        ConfigError: the settings do not fit the data or the machine; nothing has been written then.
        CheckpointError: the checkpoints in ``out_dir`` are of another task or network, or all damaged.
        TrainingError: the loss became infinite, not a number, or exploded.
        OutputError: a checkpoint could not be written; the last good one is untouched.
    """
    if fabric is None:
        fabric = make_fabric(config)
        fabric.launch()
    run = _Run(task, config, Path(out_dir), resume, fabric)
    try:
        return run.train()
    finally:
        run.log.close()


class _Run:
    """The state of one run."""

    def __init__(self, task: Task, config: TrainerConfig, out: Path, resume: bool, fabric: Fabric) -> None:
        self.task, self.config, self.out, self.fabric = task, config, out, fabric
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.store = Store(out / "checkpoints", config.keep)
        self.step, self.position, self.before = 0, (0, 0), 0.0
        self.best, self.stale = math.inf, 0
        self.usual = dict.fromkeys(task.phases, 0.0)
        self.started = time.perf_counter()

        # All that can be wrong is found before anything is written.
        unknown = set(config.optimisers) - set(task.phases)
        if unknown:
            raise ConfigError(
                f"optimisers names the unknown phase '{min(unknown)}'",
                source="trainer",
                remedy=f"the phases of {task.name} are {', '.join(task.phases)}",
            )
        if self.config.batch_size % self.world:
            raise ConfigError(f"batch_size {config.batch_size} is not a multiple of {self.world} processes")
        checkpoint = self.store.latest() if resume else None
        if checkpoint:
            check_task(checkpoint, task.name)
        self.data = task.dataset("train")
        self.order = train_batches(task, self.data, config)
        self.held_out = task.dataset("validation") if config.validate_every else None
        self.held_out_keys = (
            validation_batches(task, self.held_out, config, self.rank, self.world) if self.held_out is not None else []
        )

        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        fabric.to_device(task.modules)
        fabric.to_device(task.frozen)
        task.frozen.requires_grad_(False).eval()
        if config.start_from and not checkpoint:
            start = find(config.start_from)
            check_task(start, task.name)
            load_weights(task.modules, start)
        parallel.same_start(task.modules)
        if config.strategy == "fsdp" and self.world > 1:
            parallel.shard(task.modules, fabric.device.type)
        fused = fabric.device.type == "cuda" and config.precision != "fp16"
        self.optimisers = {
            phase: schedules.optimiser(
                task.parameters(phase), config.optimisers.get(phase, config.optimiser), fused=fused
            )
            for phase in task.phases
        }
        self.ema: Ema | None = None
        if checkpoint:
            self._restore(checkpoint)
        elif not resume and self.rank == 0:
            self.store.clear()
            (out / "log.jsonl").unlink(missing_ok=True)
        self.ema = self.ema or (Ema(task.modules, config.ema) if config.ema else None)
        if config.compile:
            for module in task.modules.values():
                module.compile()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot be made ({error.strerror})", source=out) from error
        self.log = Log(
            out,
            task.name,
            step=self.step,
            steps=config.steps,
            minutes=config.minutes,
            elapsed=self.before,
            active=self.rank == 0,
        )
        self.log.say(self._plan())
        if checkpoint:
            self.log.say(f"{task.name}  going on from step {self.step} ({checkpoint.folder})")

    def _plan(self) -> str:
        """What is going to be trained, on what, with what."""
        task, config = self.task, self.config
        count = sum(p.numel() for p in task.modules.parameters())
        held_out = f"{size_of(self.held_out)} held out" if self.held_out is not None else "none held out"
        limits = [f"{config.steps} steps"] * bool(config.steps) + [f"{config.minutes:g} minutes"] * bool(config.minutes)
        return (
            f"{task.name}  {count / 1e6:.3g} M parameters ({', '.join(task.modules)}); {size_of(self.data)} training "
            f"examples, {held_out}; {' or '.join(limits)} of {config.batch_size} × {config.accumulate}; {self.world} × "
            f"{self.fabric.device.type}, {config.precision}{', compiled' if config.compile else ''}"
        )

    @property
    def elapsed(self) -> float:
        """Seconds trained."""
        return self.before + time.perf_counter() - self.started

    def train(self) -> Result:
        config = self.config
        saved = self.step
        stream = train_stream(self.task, self.data, self.order, config, self.position, self.rank, self.world)
        with Interrupt() as interrupt:
            reason = self._reason_to_stop(interrupt.raised)
            while not reason:
                values = self._train_step(stream)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    self.log.train(self.step, values, config.batch_size * config.accumulate, self.elapsed)
                reason = self._reason_to_stop(interrupt.raised)
                due = config.validate_every and (
                    self.step % config.validate_every == 0 or (reason and reason != "interrupted")
                )
                improved = bool(due and self.held_out_keys) and self._validate()
                if config.patience and self.stale >= config.patience:
                    reason = reason or "patience"
                if improved or reason or (config.save_every and self.step % config.save_every == 0):
                    self._save(improved)
                    saved = self.step
        if saved != self.step or not self.store.steps():  # nothing was left to do, or nothing was ever saved
            self._save(False)
        self.fabric.barrier()
        checkpoint = find(self.out, config.final)
        load_weights(self.task.modules, checkpoint)
        self.task.modules.eval()
        return Result(self.step, reason, self.best, checkpoint.folder, self.elapsed)

    def _train_step(self, stream: Iterator[tuple[Position, Any]]) -> dict[str, float]:
        """One optimiser step of every phase; returns what is logged."""
        task, config = self.task, self.config
        taken = [next(stream) for _ in range(config.accumulate)]
        batches = [self.fabric.to_device(batch) for _, batch in taken]
        task.modules.train()
        seed_everything(mix(config.seed, "step", self.step, self.rank))
        scale = schedules.factor(config.schedule, self.step, self._progress())
        schedules.set_rates(self.optimisers.values(), scale)
        values: dict[str, float] = {}
        for phase, optimiser in self.optimisers.items():
            parts = self._backward(phase, batches)
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            parallel.average_gradients(parameters)
            norm = self.fabric.strategy.clip_gradients_norm(
                task.modules, optimiser, config.clip or math.inf, error_if_nonfinite=False
            )
            mark = f"{phase}/" if len(task.phases) > 1 else ""
            values.update({mark + name: value for name, value in parts.items()})
            values[f"{mark}gradient_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
            self._check(phase, parts["loss"], values[f"{mark}gradient_norm"], batches)
            self.fabric.strategy.optimizer_step(optimiser)
            self.usual[phase] += (abs(parts["loss"]) - self.usual[phase]) / min(self.step + 1, 100)
        if len(task.phases) > 1:
            values["loss"] = values[f"{task.phases[-1]}/loss"]
        self.step += 1
        self.position = taken[-1][0]
        if self.ema:
            self.ema.update(self.step)
        return {**values, "learning_rate_factor": scale}

    def _backward(self, phase: str, batches: list[Any]) -> dict[str, float]:
        """Gradients of the mean loss over ``batches``; returns the means of everything to log, over all processes."""
        self.task.modules.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for batch in batches:
            with self.fabric.autocast():
                parts = self.task.loss(phase, batch, self.step)
            self.fabric.backward(parts["loss"] / len(batches))
            for name, value in parts.items():
                value = torch.as_tensor(value, device=self.fabric.device).detach().float() / len(batches)
                total[name] = total[name] + value if name in total else value
        # one transfer for all values
        means = parallel.average_(torch.stack([total[name].reshape(()) for name in total]))
        return dict(zip(total, means.tolist(), strict=True))

    def _check(self, phase: str, loss: float, norm: float, batches: list[Any]) -> None:
        """Stop a run whose loss or gradient is no number any more, or whose loss explodes."""
        if not math.isfinite(loss):
            problem = f"the loss of phase '{phase}' is {loss}"
        elif abs(loss) > self.config.explode * max(1.0, self.usual[phase]) and self.step > 0:
            problem = f"the loss of phase '{phase}' exploded to {loss:.4g} (usual: {self.usual[phase]:.4g})"
        elif not math.isfinite(norm) and self.config.precision != "fp16":  # fp16 skips such steps by itself
            problem = f"the gradient of phase '{phase}' is {norm}"
        else:
            return
        path = self.out / f"bad-batch-{self.step:08d}{f'-process{self.rank}' if self.world > 1 else ''}.json"
        ids = [[str(i) for i in batch.get("id", [])] if isinstance(batch, Mapping) else [] for batch in batches]
        content = {"task": self.task.name, "step": self.step, "problem": problem, "loss": str(loss), "ids": ids}
        atomic_write(path, json.dumps(content, indent=1).encode())
        raise TrainingError(
            f"{problem} at step {self.step}",
            source=self.task.name,
            remedy=f"the ids of the batch are in {path}; look at them, lower the learning rate or clip",
        )

    def _progress(self) -> float:
        if self.config.steps:
            return self.step / self.config.steps
        return self.elapsed / (60 * self.config.minutes)

    def _reason_to_stop(self, interrupted: Callable[[], bool]) -> str:
        """Why to stop now, or ``""``; process 0 decides for all, because clocks differ."""
        if self.config.steps and self.step >= self.config.steps:
            return "steps"
        code = 2.0 if interrupted() else float(bool(self.config.minutes) and self.elapsed >= 60 * self.config.minutes)
        if parallel.active():
            code = float(self.fabric.broadcast(code))
        return {0.0: "", 1.0: "minutes", 2.0: "interrupted"}[code]

    def _validate(self) -> bool:
        """Score the averaged weights on the held-out data; returns whether they are the best so far."""
        task = self.task
        self._average_buffers()
        task.modules.eval()
        seed_everything(mix(self.config.seed, "validation"))
        assert self.held_out is not None
        with torch.no_grad(), self.ema.swapped_in() if self.ema else nullcontext(), self.fabric.autocast():
            stream = validation_stream(task, self.held_out, self.held_out_keys, self.config)
            scores = {k: float(v) for k, v in task.validate(self.fabric.to_device(b) for b in stream).items()}
            if self.world > 1:
                means = parallel.average_(torch.tensor(list(scores.values()), device=self.fabric.device))
                scores = dict(zip(scores, means.tolist(), strict=True))
            first = next(validation_stream(task, self.held_out, self.held_out_keys[:1], self.config))
            self.log.visuals(self.step, task.visuals(self.fabric.to_device(first)))
        loss = scores.get("loss", math.nan)
        improved = loss < self.best
        self.stale = 0 if improved else self.stale + 1
        self.best = loss if improved else self.best
        self.log.validation(self.step, scores, "  (best)" if improved else "")
        return improved

    def _average_buffers(self) -> None:
        if parallel.active():
            parallel.average_buffers(self.task.modules)
            if self.ema:
                self.ema.take_buffers()

    def _save(self, improved: bool) -> None:
        """Write a checkpoint; every process has to call this, process 0 writes."""
        self._average_buffers()
        tensors = {"modules": gather(self.task.modules.state_dict())}
        if self.ema:
            tensors["ema"] = gather(self.ema.state_dict())
        groups = {}
        for phase, optimiser in self.optimisers.items():
            tensors[f"optimiser-{phase}"], groups[phase] = pack_optimiser(optimiser)
        state = {
            "task": self.task.name,
            "position": self.position,
            "elapsed": self.elapsed,
            "best": self.best if math.isfinite(self.best) else None,
            "stale": self.stale,
            "usual_loss": self.usual,
            "optimisers": groups,
            "scaler": self.fabric.strategy.precision.state_dict(),
            "trainer": to_dict(self.config),
            "config": to_dict(self.task.config),
            "protocol": getattr(self.data, "protocol", dict)(),  # whom it was trained on: see crossmodal.data.splits
        }
        if self.rank == 0:
            self.store.save(self.step, tensors, state)
            if improved:
                self.store.mark_best(self.step, self.best)
        self.fabric.barrier()

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take up a run where the checkpoint left it."""
        state = checkpoint.state
        load_weights(self.task.modules, checkpoint, average=False)
        if self.config.ema and checkpoint.has_average:
            self.ema = Ema(self.task.modules, self.config.ema)
            load_tensors(self.ema.state_dict(), checkpoint, "ema")
        for phase, optimiser in self.optimisers.items():
            unpack_optimiser(
                optimiser,
                checkpoint.tensors(f"optimiser-{phase}"),
                state["optimisers"][phase],
                source=checkpoint.folder,
            )
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.step, self.position, self.before = (
            checkpoint.step,
            (state["position"][0], state["position"][1]),
            state["elapsed"],
        )
        self.best = math.inf if state["best"] is None else state["best"]
        self.stale = state["stale"]
        self.usual.update(state.get("usual_loss", {}))
