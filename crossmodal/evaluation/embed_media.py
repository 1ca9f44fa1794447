"""Embed the clips of a list with a bundle, and remember what was embedded.

The memory is one ``.npz`` for each bundle, named after the checksums of the networks that embed: a list is embedded
once, an interrupted run goes on where it stopped, and lists that share clips share the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from crossmodal.data.protocols import Clip, People
from crossmodal.errors import CrossmodalError, DataError
from crossmodal.evaluation.embeddings import Embeddings, spellings, unit_vectors
from crossmodal.evaluation.report import describe
from crossmodal.files import atomic_path
from crossmodal.journey import Journey, Kind

_EMBEDDING_ROLES = ("speaker-encoder", "tts", "face-features", "face-encoder")
_SAVE_EVERY = 60.0  # seconds


def default_cache() -> Path:
    """Where embeddings are remembered: ``crossmodal/embeddings`` in the user's cache folder (``XDG_CACHE_HOME``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossmodal" / "embeddings"


def embed_media(
    journey: Journey,
    clips: Mapping[Kind, Sequence[Clip]],
    root: Path,
    *,
    people: People | None = None,
    cache: Path | None = None,
    skip: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embeddings:
    """Embeddings of voices and faces in the bundle's shared space, keyed by the list's paths.

    Args:
        journey: the bundle.
        clips: the voices and the faces.
        root: folder that the list's paths are relative to.
        people: who is who, to find files that VoxCeleb renamed (:func:`crossmodal.evaluation.embeddings.spellings`).
        cache: folder of the memory; :func:`default_cache` if ``None``.
        skip: leave out what is missing or cannot be embedded, instead of stopping.
        progress: called with how many of how many clips are done.

    Raises:
        DataError: files are missing or cannot be embedded, and ``skip`` is false; or nothing is left.
        SpaceMismatchError: the bundle embeds voices and faces in different spaces.
    """
    if not root.is_dir():
        raise DataError("no such folder", source=root, remedy="give the folder that the list's paths are relative to")
    space = journey.embedding_space  # refuses encoders that do not meet, before any work
    wanted = {(clip.path, kind): clip for kind, group in clips.items() for clip in group}
    files = {key: _file(clip, root, people) for key, clip in wanted.items()}
    missing = [path for (path, _), file in files.items() if file is None]
    if missing and not skip:
        raise DataError(
            f"{len(missing)} of the list's {len(wanted)} files are not there, first '{missing[0]}'",
            source=root,
            remedy="see which folder the list's paths begin in, or pass --skip-missing",
        )
    memory = _Memory((cache or default_cache()) / f"{_fingerprint(journey)}.npz")
    found: dict[str, np.ndarray] = {}
    failed: list[CrossmodalError] = []
    try:
        for done, ((path, kind), file) in enumerate(files.items()):
            progress(done, len(files))
            if file is None:
                continue
            try:
                found[path] = memory.get(file, kind, journey)
            except CrossmodalError as error:
                failed.append(error)
    finally:
        memory.save()
    progress(len(files), len(files))
    if failed and not skip:
        raise DataError(
            f"{len(failed)} of {len(files)} files cannot be embedded, first {failed[0]}",
            source=root,
            remedy="leave them out of the list, or pass --skip-missing",
        )
    if not found:
        raise DataError("none of the list's files could be embedded", source=root)
    paths = list(found)
    return Embeddings(paths, unit_vectors(np.stack([found[path] for path in paths]), paths, root), space)


def _file(clip: Clip, root: Path, people: People | None) -> Path | None:
    return next((file for name in spellings(clip, people) if (file := root / name).is_file()), None)


def _fingerprint(journey: Journey) -> str:
    """Of the networks that embed: the others may change without anything being embedded again."""
    checksums = describe(journey.bundle)["modules"]
    parts = [f"{role}:{checksums[role]}" for role in _EMBEDDING_ROLES if role in checksums]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


class _Memory:
    """Embeddings by file, its size and its time of change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, np.ndarray] = {}
        self.added, self.saved = 0, time.monotonic()
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as stored:
                    self.known = dict(zip(stored["files"].tolist(), stored["embeddings"]))
            except (OSError, ValueError, KeyError, EOFError):
                self.known = {}  # damaged: embed again

    def get(self, file: Path, kind: Kind, journey: Journey) -> np.ndarray:
        """The embedding ``(D,)`` of a file, computed if it is not known."""
        stat = file.stat()
        key = json.dumps([str(file.resolve()), stat.st_size, stat.st_mtime_ns, kind])
        if key not in self.known:
            self.known[key] = journey.embed(str(file), kind=kind)[1].numpy().astype(np.float32)
            self.added += 1
            if time.monotonic() - self.saved > _SAVE_EVERY:
                self.save()
        return self.known[key]

    def save(self) -> None:
        """Write what was added."""
        if self.added:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
                np.savez(file, files=np.array(list(self.known)), embeddings=np.stack(list(self.known.values())))
        self.added, self.saved = 0, time.monotonic()
