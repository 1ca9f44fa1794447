"""Checkpoints: folders of safetensors and one JSON file, written whole or not at all, and read without pickle.

::

    checkpoints/
      step-00002000/
        modules.safetensors            the weights
        ema.safetensors                their running average (where there is one)
        optimiser-<phase>.safetensors  moments of each parameter
        state.json                     everything else: task, step, data position, elapsed time, best score, settings,
                                       and size and SHA-256 of the files above
      best.json                        which of them is the best so far

A checkpoint is written to a hidden folder, flushed to the disk, and renamed when complete; only then are older ones
removed. Whatever happens on the way (disk full, SIGKILL, power cut), the last complete one stays.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossmodal.errors import CheckpointError, OutputError
from crossmodal.files import atomic_write, sha256

FORMAT = 1


@dataclass
class Checkpoint:
    """What a checkpoint folder holds, read and checked."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.state["step"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``<name>.safetensors`` (on the CPU)."""
        return load_file(self.folder / f"{name}.safetensors")

    @property
    def has_average(self) -> bool:
        """Whether a running average of the weights was kept."""
        return "ema.safetensors" in self.state["files"]


class Store:
    """The checkpoints of one run.

    Args:
        folder: the run's ``checkpoints`` folder; made at the first :meth:`save`.
        keep: how many of the newest to keep (the best one is always kept).
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
        """Write ``<name>.safetensors`` for every entry of ``tensors`` and ``state.json``; returns the folder.

        Raises:
            OutputError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        final = self._path(step)
        scratch = self.folder / f".writing-{step:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            files = {}
            for name, content in tensors.items():
                path = scratch / f"{name}.safetensors"
                save_file({key: _plain(value) for key, value in content.items()}, path)
                _flush(path)
                files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            everything = {"format": FORMAT, "step": step, **state, "files": files}
            (scratch / "state.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
            _flush(scratch / "state.json")
            _flush(scratch)
            if final.exists():  # the same step once more, after a damaged checkpoint was passed over
                shutil.rmtree(final)
            os.rename(scratch, final)
            _flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            kept = self.steps()
            raise OutputError(
                f"the checkpoint of step {step} cannot be written ({getattr(error, 'strerror', None) or error})",
                source=self.folder,
                remedy=f"make room and start again: the run goes on from step {kept[-1] if kept else 0}",
            ) from error
        self._prune()
        return final

    def mark_best(self, step: int, loss: float) -> None:
        """Note that the checkpoint of ``step`` is the best one so far."""
        atomic_write(self.folder / "best.json", json.dumps({"step": step, "loss": loss}).encode())
        self._prune()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(int(p.name[5:]) for p in self.folder.glob("step-*") if p.name[5:].isdigit())

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; a damaged one is passed over with a warning.

        Raises:
            CheckpointError: there are checkpoints, but none is whole.
        """
        problem: CheckpointError | None = None
        for step in reversed(self.steps()):
            try:
                found = read(self._path(step))
            except CheckpointError as error:
                problem = problem or error
                continue
            if problem:
                warnings.warn(f"{problem}; going on from step {step}", stacklevel=2)
            return found
        if problem:
            raise problem
        return None

    def best(self) -> Checkpoint | None:
        """The checkpoint with the lowest validation loss, if one was validated and is whole."""
        try:
            return read(self._path(json.loads((self.folder / "best.json").read_bytes())["step"]))
        except FileNotFoundError:
            return None
        except (CheckpointError, ValueError, KeyError) as error:
            warnings.warn(f"the best checkpoint cannot be used ({error}); using the newest", stacklevel=2)
            return None

    def clear(self) -> None:
        """Remove every checkpoint of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _prune(self) -> None:
        try:
            best = json.loads((self.folder / "best.json").read_bytes())["step"]
        except (OSError, ValueError, KeyError):
            best = None
        for step in self.steps()[: -self.keep]:
            if step != best:
                shutil.rmtree(self._path(step), ignore_errors=True)
        for leftover in self.folder.glob(".writing-*"):  # of a run that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)


def read(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder and check the size and SHA-256 of every file.

    Raises:
        CheckpointError: a file is missing or not what was written, or the format is unknown.
    """
    folder = Path(folder)
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = dict(state["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("is damaged: state.json cannot be read", source=folder) from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"has the unknown format {state.get('format')!r}", source=folder)
    for name, entry in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise CheckpointError(f"is damaged: {name} is not what was written", source=folder)
    return Checkpoint(folder, state)


def find(folder: str | Path, which: str = "best") -> Checkpoint:
    """A run's ``best`` (else newest) or ``last`` checkpoint; ``folder`` may also be one checkpoint itself.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    folder = Path(folder)
    if (folder / "state.json").is_file():
        return read(folder)
    store = Store(folder / "checkpoints")
    found = (store.best() if which == "best" else None) or store.latest()
    if found is None:
        raise CheckpointError("holds no checkpoint", source=folder, remedy="give a run folder or a checkpoint folder")
    return found


def check_task(checkpoint: Checkpoint, name: str) -> None:
    """Refuse a checkpoint of another task.

    Raises:
        CheckpointError: the checkpoint was written while training something else.
    """
    if checkpoint.state["task"] != name:
        raise CheckpointError(
            f"is a checkpoint of the task '{checkpoint.state['task']}', not of '{name}'",
            source=checkpoint.folder,
            remedy="give another --out, or --no-resume to start anew",
        )


def load_weights(modules: nn.Module, checkpoint: Checkpoint, *, average: bool = True) -> None:
    """Put the checkpoint's weights (their running average where there is one) into ``modules``.

    Raises:
        CheckpointError: names or shapes differ.
    """
    load_tensors(modules.state_dict(), checkpoint, "ema" if average and checkpoint.has_average else "modules")


@torch.no_grad()
def load_tensors(own: Mapping[str, Tensor], checkpoint: Checkpoint, name: str) -> None:
    """Copy the tensors of ``<name>.safetensors`` into ``own``, every name and shape the same.

    Raises:
        CheckpointError: names or shapes differ.
    """
    tensors = checkpoint.tensors(name)
    differing = sorted(own.keys() ^ tensors.keys()) or sorted(k for k in own if own[k].shape != tensors[k].shape)
    if differing:
        raise CheckpointError(
            f"does not fit the networks of this recipe ({differing[0]} differs, {len(differing)} in all)",
            source=checkpoint.folder,
            remedy="use the config it was trained with, another --out, or --no-resume to start anew",
        )
    for key, value in own.items():
        assign(value, tensors[key])


def assign(target: Tensor, value: Tensor) -> None:
    """Copy ``value`` into ``target``, which may be sharded over processes."""
    if (mesh := getattr(target, "device_mesh", None)) is not None:
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), mesh, target.placements)  # type: ignore[attr-defined]
    target.copy_(value)


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole copies on the CPU of tensors that may be sharded over processes (every process has to call this)."""
    whole = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in tensors.items()}
    return {key: value.detach().cpu() for key, value in whole.items()}


def pack_optimiser(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's moments as ``"<parameter>.<name>"`` tensors, and its groups as JSON can hold them."""
    content = optimiser.state_dict()
    tensors = {
        f"{number}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, state in content["state"].items()
        for name, value in state.items()
    }
    return gather(tensors), content["param_groups"]


def unpack_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]], *, source: object
) -> None:
    """The reverse of :func:`pack_optimiser`; learning rates and other settings stay those of ``optimiser``.

    Raises:
        CheckpointError: the optimiser was over other parameters.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if [len(g["params"]) for g in groups] != [len(g["params"]) for g in optimiser.param_groups]:
        raise CheckpointError("its optimiser was over other parameters", source=source)
    optimiser.state.clear()
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        if name == "step" or value.shape != parameter.shape:
            # Adam counts steps on the CPU unless it is fused
            on_device = any(g.get("fused") or g.get("capturable") for g in optimiser.param_groups)
            optimiser.state[parameter][name] = value.to(parameter.device) if on_device else value
            continue
        target = torch.empty_like(parameter, requires_grad=False)
        with torch.no_grad():
            assign(target, value)
        optimiser.state[parameter][name] = target


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
