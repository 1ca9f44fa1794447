"""From a data set to a manifest and its features, over all cores, to be stopped and started again at will.

::

    OUT/manifest.parquet                 the rows that can be used, split by identity
    OUT/features/<name>/*.safetensors    one value a row (see crossmodal.data.features)
    OUT/media/...                        frame and sound cut out of each video
    OUT/failures.csv                     every row that cannot be used, the stage it failed at and why
    OUT/journal-*.jsonl                  what is done, one line a row
    OUT/summary.yaml                     counts, clips a minute, the split's fingerprint

Values are written before the journal says so, so that a killed run loses at most its last minute. With ``shard`` i of
n, several machines share the work; the one that finishes last writes the whole manifest.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmodal.config import save_yaml
from crossmodal.data import splits, worker
from crossmodal.data.features import FeatureWriter, feature, shards
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.video import VideoOptions
from crossmodal.errors import ConfigError, DataError, LeakageError, OutputError
from crossmodal.files import atomic_write

FLUSH_ROWS, FLUSH_BYTES, FLUSH_SECONDS = 512, 64 << 20, 60.0


@dataclass(frozen=True)
class PrepareOptions:
    """What ``crossmodal prepare`` can be told."""

    features: tuple[str, ...] = ()
    """Names of :data:`crossmodal.data.features.TABLE`."""
    workers: int = 0
    """Processes; 0: one a core, 1: none but this one."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): this machine's part, i from 0."""
    limit: int | None = None
    """At most so many rows."""
    per_person: int | None = None
    """At most so many rows of a person, chosen by a hash of their ids."""
    ratios: Mapping[str, float] | None = field(default_factory=lambda: dict(splits.RATIOS))
    """Shares of the split by identity; ``None``: leave it unsplit."""
    seed: int = 0
    """Of the split."""
    parts: Mapping[str, str] | None = None
    """Use the set's own parts instead: ``{"dev": "train", "test": "test"}``."""
    held_out: tuple[Path, ...] = ()
    """Manifests whose people must not appear in this one."""
    retry: bool = False
    """Try again what failed before."""
    video: VideoOptions = field(default_factory=VideoOptions)


@dataclass
class Summary:
    """How a run went; ``str`` is what the command prints."""

    rows: int = 0
    usable: int = 0
    processed: int = 0
    """Rows this run worked on."""
    reused: int = 0
    """Rows that were done before."""
    failed: int = 0
    several_faces: int = 0
    """Usable rows whose video shows more than one face."""
    seconds: float = 0.0
    clips_per_minute: float = 0.0
    cpu_seconds: float = 0.0
    """Computing time of all processes, their start included: what a busy machine does not blur."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Stage → failures."""
    split: dict[str, Any] = field(default_factory=dict)
    """Protocol, fingerprint, identities and rows of each part."""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.usable} of {self.rows} rows usable, {self.failed} failed"]
        if self.failed:
            stages = ", ".join(f"{stage} {count}" for stage, count in sorted(self.reasons.items()))
            lines[0] += f" ({stages}; see failures.csv)"
        lines.append(
            f"{self.processed} processed in {self.seconds:.1f} s = {self.clips_per_minute:.0f} clips a minute "
            f"({self.cpu_seconds / max(self.processed, 1):.2f} s of one core each), {self.reused} were done before"
        )
        if self.several_faces:
            lines.append(f"{self.several_faces} videos show several faces")
        if self.split:
            counts = self.split.get("counts", {})
            parts = ", ".join(f"{k} {v['rows']} rows of {v['identities']} people" for k, v in counts.items())
            lines.append(f"split {self.split['name']} ({self.split['fingerprint']}): {parts}")
        return "\n".join([*lines, *self.notes])


def prepare(
    manifest: Manifest,
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Prepare ``manifest`` into the folder ``out``; see the head of this module.

    Args:
        manifest: what a preparer of :mod:`crossmodal.data.sets` found, or a joined manifest.
        out: made if it does not exist; work found in it is used again.
        options: what to compute, and how.
        progress: called with (rows done, rows to do).

    Raises:
        ConfigError: an unknown feature, or shard i of n that does not exist.
        LeakageError: a person is on two sides of the split, or in a held-out manifest; nothing is written then.
        OutputError: ``out`` cannot be written.
    """
    options = options or PrepareOptions()
    index, count = options.shard
    if not 0 <= index < count:
        raise ConfigError(f"shard {index + 1} of {count} does not exist", source="prepare", remedy="use 1/n to n/n")
    for name in options.features:
        feature(name)
    _refuse_overlap(manifest, options)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", source=out) from error

    chosen = _thinned(manifest, options.per_person)[: options.limit][index::count]
    run = _Run(out, options, f"{index + 1}of{count}")
    jobs, finished = run.plan(chosen)
    began, began_cpu = time.monotonic(), sum(os.times()[:4])
    try:
        for done, outcome in enumerate(_outcomes(jobs, options.workers), 1):
            run.record(outcome)
            if progress:
                progress(done, len(jobs))
    finally:
        run.flush()  # also when interrupted
    seconds = time.monotonic() - began

    usable = [run.rows[row.id] for row in chosen if row.id in run.rows]
    failures = {row.id: run.failures[row.id] for row in chosen if row.id in run.failures}
    _write_failures(out, f"{index + 1}of{count}", failures)
    summary = Summary(
        rows=len(chosen),
        usable=len(usable),
        processed=len(jobs),
        reused=finished,
        failed=len(failures),
        several_faces=sum(int(row.attributes.get("faces_seen", "0")) > 1 for row in usable),
        seconds=round(seconds, 3),
        cpu_seconds=round(sum(os.times()[:4]) - began_cpu, 3),
        clips_per_minute=round(len(jobs) / seconds * 60.0, 1) if jobs and seconds > 0 else 0.0,
    )
    for stage, _ in failures.values():
        summary.reasons[stage] = summary.reasons.get(stage, 0) + 1
    _write_manifest(out, Manifest(usable, root=manifest.root, metadata=manifest.metadata), options, summary)
    save_yaml(
        dataclasses.asdict(summary), out / ("summary.yaml" if count == 1 else f"summary-{index + 1}of{count}.yaml")
    )
    return summary


def _thinned(manifest: Manifest, per_person: int | None) -> list[Row]:
    """At most ``per_person`` rows of a person, in their order; which ones does not depend on the order."""
    if per_person is None:
        return manifest.rows
    kept: set[str] = set()
    for indices in manifest.by_identity().values():
        ids = sorted((manifest[i].id for i in indices), key=splits.fraction)
        kept.update(ids[:per_person])
    return [row for row in manifest if row.id in kept]


class _Run:
    """What is done already, and where the rest is written."""

    def __init__(self, out: Path, options: PrepareOptions, writer: str) -> None:
        self.out, self.options = out, options
        self.rows: dict[str, Row] = {}
        self.failures: dict[str, tuple[str, str]] = {}
        self.writers = {
            name: FeatureWriter(out / "features" / name, feature(name), writer) for name in options.features
        }
        self.have = {name: _keys(out / "features" / name) for name in options.features}
        self.journal_path = out / f"journal-{writer}.jsonl"
        self.lines: list[str] = []
        self.keys: dict[str, list[Any]] = {}
        self.flushed = time.monotonic()

    def plan(self, rows: Iterable[Row]) -> tuple[list[worker.Job], int]:
        """What is to be done for each row, and how many rows are finished."""
        journal = _read_journals(self.out)
        jobs: list[worker.Job] = []
        finished = 0
        for row in rows:
            key = json.loads(json.dumps(worker.row_key(row, self.options.video)))
            self.keys[row.id] = key
            entry = journal.get(row.id)
            known = entry is not None and entry["key"] == key
            again = (worker.MEDIA_STAGE, *self.options.features)  # stages this run would come to
            if known and entry and entry["stage"] in again and not self.options.retry:
                self.failures[row.id] = (entry["stage"], entry["reason"])
                finished += 1
                continue
            ready = row
            media = worker.needs_media(row)
            if media and known and entry and entry["row"]:
                ready = _restore(row, entry["row"], self.out)
                media = not all(path.is_file() for path in (ready.audio, ready.face) if path is not None)
                ready = row if media else ready
            wanted = [name for name in self.options.features if feature(name).applies(row)]
            if not media:
                wanted = [name for name in wanted if self.have[name].get(row.id) != feature(name).key(ready)]
            if media or wanted:
                jobs.append(worker.Job(ready, media, tuple(wanted), self.out, self.options.video))
            else:
                self.rows[row.id] = ready
                finished += 1
        return jobs, finished

    def record(self, outcome: worker.Outcome) -> None:
        """Keep an outcome until the next flush."""
        row = outcome.row
        if outcome.stage:
            self.failures[row.id] = (outcome.stage, outcome.reason)
        else:
            self.rows[row.id] = row
            for name, value in outcome.values.items():
                self.writers[name].add(row.id, feature(name).key(row), value)
        entry = {
            "id": row.id,
            "key": self.keys[row.id],
            "stage": outcome.stage,
            "reason": outcome.reason,
            "row": None if outcome.stage else _changed(row, self.out),
        }
        self.lines.append(json.dumps(entry, ensure_ascii=False))
        size = sum(writer.bytes for writer in self.writers.values())
        if len(self.lines) >= FLUSH_ROWS or size >= FLUSH_BYTES or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Values first, then the journal that says they are there."""
        for writer in self.writers.values():
            writer.flush()
        if self.lines:
            try:
                torn = self.journal_path.is_file() and not self.journal_path.read_bytes().endswith(b"\n")
                with open(self.journal_path, "a", encoding="utf-8") as file:
                    file.write("\n" * torn + "\n".join(self.lines) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise OutputError(f"cannot be written ({error.strerror})", source=self.journal_path) from error
        self.lines, self.flushed = [], time.monotonic()


def _outcomes(jobs: list[worker.Job], workers: int) -> Iterator[worker.Outcome]:
    """Outcomes as they come. A job that brings its process down is tried once more alone, then recorded as failed."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        yield from map(worker.run, jobs)
        return
    waiting = iter(jobs)
    suspects: list[worker.Job] = []
    while True:
        broken = False
        with contextlib.ExitStack() as stack:
            pool = _pool(workers)
            stack.callback(pool.shutdown, cancel_futures=True)
            running: dict[Future[worker.Outcome], worker.Job] = {}
            while True:
                while not broken and len(running) < 3 * workers and (job := next(waiting, None)) is not None:
                    try:
                        running[pool.submit(worker.run, job)] = job
                    except BrokenProcessPool:
                        broken = True
                        suspects.append(job)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        broken = True
                        suspects.append(job)
        if not broken:
            break
    yield from _one_by_one(suspects)


def _one_by_one(jobs: list[worker.Job]) -> Iterator[worker.Outcome]:
    """Each job alone in a process, so that the one that brings it down is known."""
    while jobs:
        with _pool(1) as pool:
            while jobs:
                job = jobs.pop(0)
                try:
                    yield pool.submit(worker.run, job).result()
                except BrokenProcessPool:
                    stage = worker.MEDIA_STAGE if job.media or not job.features else job.features[0]
                    yield worker.Outcome(job.row, stage=stage, reason="the process that read it crashed")
                    break


def _pool(workers: int) -> ProcessPoolExecutor:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a process starts
    context = multiprocessing.get_context("spawn")  # a forked process could inherit locks of torch's threads
    return ProcessPoolExecutor(workers, mp_context=context, initializer=worker.start_process)


def _keys(folder: Path) -> dict[str, str]:
    """Row id → key, of every value in the shards of one feature."""
    keys: dict[str, str] = {}
    if folder.is_dir():
        for _, header in shards(folder):
            keys.update(zip(json.loads(header["ids"]), json.loads(header["keys"])))
    return keys


def _read_journals(out: Path) -> dict[str, dict[str, Any]]:
    """Row id → its last entry in any journal of the folder; a torn line is as if it had not been written."""
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob("journal-*.jsonl"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                entries[entry["id"]] = entry
            except (ValueError, KeyError, TypeError):
                continue
    return entries


def _changed(row: Row, out: Path) -> dict[str, Any]:
    """What cutting changed in a row, with paths relative to the output folder."""

    def stored(path: Path | None) -> str | None:
        return path.relative_to(out).as_posix() if path is not None and path.is_relative_to(out) else None

    return {"audio": stored(row.audio), "face": stored(row.face), "attributes": row.attributes}


def _restore(row: Row, changed: Mapping[str, Any], out: Path) -> Row:
    """The reverse of :func:`_changed`."""
    changes: dict[str, Any] = {"attributes": dict(changed["attributes"])}
    if changed["face"]:
        changes["face"] = out / changed["face"]
    if changed["audio"]:
        changes |= {"audio": out / changed["audio"], "start": None, "end": None}
    return dataclasses.replace(row, **changes)


def _split(manifest: Manifest, options: PrepareOptions) -> Manifest:
    if options.parts is not None:
        name = "parts-" + "-".join(f"{part}-{side}" for part, side in sorted(options.parts.items()))
        return splits.assign_parts(manifest, options.parts, name=name)
    if options.ratios is None:
        return manifest
    return splits.assign(manifest, ratios=options.ratios, seed=options.seed)


def _refuse_overlap(manifest: Manifest, options: PrepareOptions) -> None:
    """Before anything is written: no person on two sides, none in a held-out manifest.

    Raises:
        LeakageError: there is one.
    """
    if options.parts is not None:
        manifest = _split(manifest, options)
    for path in options.held_out:
        try:
            splits.check_disjoint(manifest, Manifest.read(path))
        except LeakageError as error:
            raise LeakageError(f"shares people with the data: {error}", source=path) from error


def _write_manifest(out: Path, manifest: Manifest, options: PrepareOptions, summary: Summary) -> None:
    """This machine's part, and the whole if all parts are there."""
    index, count = options.shard
    if count > 1:
        manifest.write(out / f"manifest-{index + 1}of{count}.parquet")
        paths = [out / f"manifest-{i + 1}of{count}.parquet" for i in range(count)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            summary.notes.append(f"manifest.parquet will be written when {', '.join(missing)} are there")
            return
        parts = [Manifest.read(path) for path in paths]
        rows = [row for place in range(max(map(len, parts))) for p in parts for row in p.rows[place : place + 1]]
        manifest = Manifest(rows, root=manifest.root, metadata=manifest.metadata)
    if not len(manifest):
        summary.notes.append("no row can be used: no manifest was written")
        return
    try:
        manifest = _split(manifest, options)
    except LeakageError:
        raise
    except DataError as error:
        summary.notes.append(f"not split: {error}")
    summary.split = dict(manifest.metadata.get("protocol", {}))
    manifest.write(out / "manifest.parquet")


def _write_failures(out: Path, writer: str, failures: Mapping[str, tuple[str, str]]) -> None:
    """``id,stage,reason`` of every row that cannot be used; no file if there is none."""
    path = out / ("failures.csv" if writer == "1of1" else f"failures-{writer}.csv")
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["id", "stage", "reason"])
    table.writerows([row_id, stage, reason] for row_id, (stage, reason) in sorted(failures.items()))
    atomic_write(path, text.getvalue().encode())
