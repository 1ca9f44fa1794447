"""What one process of ``crossmodal prepare`` does with one row; nothing here knows of the others."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.data.features import Media, feature, source_key
from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import VIDEO
from crossmodal.data.video import VideoOptions, best_frame, sound
from crossmodal.errors import CrossmodalError, InputWarning
from crossmodal.files import atomic_path

MEDIA_VERSION = 1
"""Raised when frames or sound cut from videos change; older ones are then cut again."""
MEDIA_STAGE = "media"


@dataclass(frozen=True)
class Job:
    """One row and what is still to be done for it."""

    row: Row
    media: bool
    """Cut frame and sound out of a video first."""
    features: tuple[str, ...]
    out: Path
    video: VideoOptions


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    row: Row
    """As it goes into the manifest: with the frame and the sound that were cut."""
    values: dict[str, np.ndarray] = field(default_factory=dict)
    """Feature → value."""
    stage: str = ""
    """Where it failed: ``media`` or a feature; empty if it did not."""
    reason: str = ""
    """Why."""


def is_video(path: Path | None) -> bool:
    """Whether a file is a video, by its suffix."""
    return path is not None and path.suffix.lower() in VIDEO


def needs_media(row: Row) -> bool:
    """Whether something has to be cut out of a video, or a clip out of a longer recording."""
    cut = row.start is not None or row.end is not None
    return is_video(row.face) or is_video(row.audio) or (cut and row.audio is not None)


def row_key(row: Row, video: VideoOptions) -> list[object]:
    """What the outcome of a row depends on, features apart."""
    files: list[object] = [source_key(row.audio), source_key(row.face), row.start, row.end]
    return [*files, MEDIA_VERSION, str(video)] if needs_media(row) else files


def start_process() -> None:
    """One thread each: there are as many processes as cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", InputWarning)


def run(job: Job) -> Outcome:
    """Cut and compute what ``job`` asks for; a failure that the data are to blame for is part of the outcome."""
    stage, row = MEDIA_STAGE, job.row
    values: dict[str, np.ndarray] = {}
    try:
        if job.media:
            row = cut(row, job.out, job.video)
        media = Media(row)
        for stage in job.features:
            value = _extractor(stage)(media)
            if not np.isfinite(value).all():
                return Outcome(job.row, stage=stage, reason="the value is not finite")
            values[stage] = value
    except CrossmodalError as error:
        return Outcome(job.row, stage=stage, reason=str(error))
    except (OSError, ValueError, RuntimeError, EOFError, MemoryError) as error:
        # what decoders raise on files that are damaged in a way nobody thought of
        return Outcome(job.row, stage=stage, reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Outcome(row, values)


def cut(row: Row, out: Path, video: VideoOptions) -> Row:
    """Write ``out/media/<id>.jpg`` (the best frame) and ``<id>.flac`` (the sound) and let the row point to them."""
    place = out / "media" / safe_path(row.id)
    place.parent.mkdir(parents=True, exist_ok=True)
    changes: dict[str, object] = {}
    attributes = dict(row.attributes)
    if is_video(row.face) and row.face is not None:
        near = None
        if "face_x" in attributes and "face_y" in attributes:
            near = (float(attributes["face_x"]), float(attributes["face_y"]))
        frame = best_frame(row.face, row.start, row.end, options=video, near=near)
        changes["face"] = place.with_name(place.name + ".jpg")
        with atomic_path(place.with_name(place.name + ".jpg")) as temporary:
            frame.image.save(temporary, quality=95)
        attributes |= {"frame_time": f"{frame.time:.3f}", "frame_quality": f"{frame.quality:.3f}"}
        attributes["faces_seen"] = str(frame.faces)
    if row.audio is not None and (is_video(row.audio) or row.start is not None or row.end is not None):
        import soundfile

        waveform = sound(row.audio, row.start, row.end)
        with atomic_path(place.with_name(place.name + ".flac")) as temporary:
            soundfile.write(temporary, waveform, AudioConfig().sample_rate, subtype="PCM_16", format="FLAC")
        changes |= {"audio": place.with_name(place.name + ".flac"), "start": None, "end": None}
        attributes["source"] = row.audio.name
    return dataclasses.replace(row, **changes, attributes=attributes)  # type: ignore[arg-type]


def safe_path(row_id: str) -> Path:
    """A relative path for ``row_id`` that every file system takes; different ids never share one."""
    parts = [re.sub(r"[^\w.-]", "_", part, flags=re.ASCII).strip(".") or "_" for part in row_id.split("/")]
    path = "/".join(parts)
    if path != row_id or path != path.lower():  # file systems that ignore case would mix two YouTube ids up
        path += "-" + hashlib.sha256(row_id.encode()).hexdigest()[:8]
    return Path(path)


@functools.cache
def _extractor(name: str) -> Callable[[Media], np.ndarray]:
    return feature(name).make()
