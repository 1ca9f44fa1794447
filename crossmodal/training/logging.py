"""What a run says: a line of JSON and TensorBoard scalars each few steps, and a progress bar (or plain lines)."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.files import atomic_write


class Log:
    """Writes ``log.jsonl`` (losses to the last bit), TensorBoard files and the progress bar of a run.

    Only process 0 writes; on the others every method does nothing.

    Args:
        folder: the run's folder.
        name: shown before the bar.
        step: steps done before (what was logged beyond them, by a run that was killed, is removed).
        steps: steps in all, 0 if only time is limited.
        minutes: the time budget, 0 for none.
        elapsed: seconds trained before.
    """

    def __init__(
        self, folder: Path, name: str, *, step: int, steps: int, minutes: float, elapsed: float, active: bool
    ) -> None:
        self._active, self._name, self._steps, self._minutes = active, name, steps, minutes
        self._bar: Any = None
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._file = folder / "log.jsonl"
        _keep_until(self._file, step)
        self._lines = self._file.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._mark = (time.perf_counter(), step)
        if sys.stderr.isatty():
            self._bar = _bar(steps or None)
            self._task = self._bar.add_task(
                name, total=steps or minutes * 60, completed=step if steps else elapsed, note=""
            )
            self._bar.start()

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._active:
            (self._bar.console.print if self._bar else _print)(text)

    def train(self, step: int, values: Mapping[str, float], samples: int, elapsed: float) -> None:
        """Log a training step; ``samples`` is the number of examples of one step."""
        if not self._active:
            return
        now = time.perf_counter()
        rate = (step - self._mark[1]) / max(now - self._mark[0], 1e-9)
        self._mark = (now, step)
        speed = {"steps_per_second": rate, "samples_per_second": rate * samples}
        self._write(step, "train", {**values, **speed})
        left = (self._steps - step) / rate if self._steps and rate else math.inf
        if self._minutes:
            left = min(left, self._minutes * 60 - elapsed)
        text = f"loss {values['loss']:.4g}  {rate:.2f} steps/s  {rate * samples:.1f} samples/s  {_clock(left)} left"
        if self._bar:
            self._bar.update(self._task, completed=step if self._steps else elapsed, note=text)
        else:
            _print(f"{self._name}  step {step}{f'/{self._steps}' if self._steps else ''}  {text}")

    def validation(self, step: int, values: Mapping[str, float], note: str = "") -> None:
        """Log the scores of a validation."""
        if self._active:
            self._write(step, "validation", values)
            scores = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.say(f"{self._name}  step {step}  validation: {scores}{note}")

    def visuals(self, step: int, things: Mapping[str, Any]) -> None:
        """Log pictures (PIL) and sounds ``(waveform (T,), sample_rate)``."""
        if not self._active:
            return
        for name, thing in things.items():
            if isinstance(thing, tuple):
                wave = np.asarray(thing[0], dtype=np.float32).reshape(1, -1)
                self._board.add_audio(name, wave, step, sample_rate=int(thing[1]))
            else:
                self._board.add_image(name, np.asarray(thing.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Finish the bar and the files."""
        if self._active:
            if self._bar:
                self._bar.stop()
            self._lines.close()
            self._board.close()

    def _write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        self._lines.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def read_log(folder: str | Path, kind: str = "train") -> list[dict[str, Any]]:
    """The entries of a run's ``log.jsonl``: ``{"step": ..., "kind": ..., "loss": ...}``."""
    entries = []
    for line in (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the run was killed while it wrote its last line
            continue
        if entry["kind"] == kind:
            entries.append(entry)
    return entries


def _keep_until(path: Path, step: int) -> None:
    """Drop log lines beyond ``step``: the resumed run writes them again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    atomic_write(path, "".join(kept).encode())


def _bar(steps: int | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    count = [MofNCompleteColumn()] if steps else []
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        *count,
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    whole = int(max(seconds, 0))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
