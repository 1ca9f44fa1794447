"""Embeddings of any system from a file, keyed by path: checked, normalised, and looked up for the clips of a list.

Files: ``.npz`` as ``crossmodal embed -o`` writes it (``paths`` ``(N,)``, ``embeddings`` ``(N, D)``, and optionally
``space``), or Parquet with the columns ``path``, ``embedding`` (a list of numbers) and optionally ``space``.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from crossmodal.data.protocols import Clip, People
from crossmodal.errors import DataError, DependencyError, SpaceMismatchError

_BLOCK = 512
_SEGMENT = re.compile(r"_(\d{7})$")


@dataclass(frozen=True)
class Embeddings:
    """Vectors by path."""

    paths: list[str]
    vectors: np.ndarray
    """``(N, D)`` float32, unit length."""
    space: str = ""
    """Name of the embedding space, empty if the file does not say."""
    _rows: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._rows.update({path: row for row, path in enumerate(self.paths)})

    def rows(self, clips: Sequence[Clip], people: People | None = None) -> np.ndarray:
        """Row of every clip ``(len(clips),)``, −1 where there is none (see :func:`spellings`)."""
        found: dict[str, int] = {}
        for clip in clips:
            if clip.path not in found:
                names = spellings(clip, people)
                found[clip.path] = next((self._rows[name] for name in names if name in self._rows), -1)
        return np.array([found[clip.path] for clip in clips], dtype=np.int64)

    def cosines(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cosines ``(N,)`` of the rows ``one`` and ``other``, in double precision.

        Rounded to nine decimals: what differs by less differs by rounding alone, and has to count as a tie.
        """
        cosine = np.empty(len(one))
        for start in range(0, len(one), _BLOCK):
            part = slice(start, start + _BLOCK)
            a, b = self.vectors[one[part]].astype(np.float64), self.vectors[other[part]].astype(np.float64)
            cosine[part] = np.einsum("nd,nd->n", a, b)
        return cosine.round(9)

    def cosine_blocks(self, queries: np.ndarray, gallery: np.ndarray) -> Iterator[np.ndarray]:
        """Cosines of ``queries`` to the whole ``gallery`` (both are rows), ``(≤ 512, len(gallery))`` at a time.

        Equal gallery vectors are multiplied once, so that they tie to the last bit.
        """
        vectors = np.ascontiguousarray(self.vectors[gallery])
        raw = vectors.view(np.dtype((np.void, vectors.dtype.itemsize * vectors.shape[1]))).ravel()
        _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
        distinct = vectors[first].T if len(first) < len(vectors) else vectors.T
        for start in range(0, len(queries), _BLOCK):
            block = self.vectors[queries[start : start + _BLOCK]] @ distinct
            yield block[:, inverse] if len(first) < len(vectors) else block


def spellings(clip: Clip, people: People | None = None) -> list[str]:
    """Paths under which a clip may be known, the list's own first.

    VoxCeleb1 was published twice: its first lists say ``A.R._Rahman/gaQq_oV_aLY_0000001.wav`` for what is now
    ``wav/id10002/gaQq_oV_aLY/00001.wav``, and frames have a crop margin above the video or not. With ``people`` (which
    turn names into ids and back) each finds the other.
    """
    names = [clip.path]
    if not (clip.person and clip.video):
        return names
    persons = [clip.person, *(people.names(clip.person) if people is not None else ())]
    for person in persons:
        if clip.is_face:
            tails = [f"{person}/1.6/{clip.video}/{clip.file}", f"{person}/{clip.video}/{clip.file}"]
            names += [f"{folder}{tail}" for tail in tails for folder in ("", "unzippedFaces/")]
        else:
            stem, suffix = PurePosixPath(clip.file).stem, PurePosixPath(clip.file).suffix
            match = _SEGMENT.search(stem)
            number = match[1] if match else stem
            if number.isdigit():
                tails = [f"{person}/{clip.video}/{int(number):05d}{suffix}"]
                tails += [f"{person}/{clip.video}_{int(number):07d}{suffix}"]
                names += [f"{folder}{tail}" for tail in tails for folder in ("", "wav/")]
    return list(dict.fromkeys(names))


def read_embeddings(files: Sequence[str | Path], root: str | Path | None = None) -> Embeddings:
    """Read one or several files of embeddings as one table.

    Args:
        files: ``.npz`` or ``.parquet``.
        root: folder that is cut from the beginning of the paths, if they have it.

    Raises:
        DataError: a file that cannot be read or lacks an entry; vectors that are no numbers, not finite, zero, or of
            different lengths; a path that occurs twice.
        SpaceMismatchError: the files are of different spaces.
    """
    parts = [_read(Path(file)) for file in files]
    sizes = {vectors.shape[1]: file for file, (_, vectors, _) in zip(files, parts)}
    spaces = {space: file for file, (_, _, space) in zip(files, parts) if space}
    for what in (spaces, sizes):
        if len(what) > 1:
            (one, first), (other, second), *_ = what.items()
            unit = "" if what is spaces else " components"
            raise SpaceMismatchError(
                f"is in '{one}', {second} in '{other}'" if not unit else f"has {one}{unit}, {second} has {other}",
                source=first,
                remedy="embed voices and faces with the same bundle",
            )
    paths = [_below(path, root) for names, _, _ in parts for path in names]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} paths have more than one embedding, first '{twice[0]}'",
            source=", ".join(map(str, files)),
            remedy="leave one for each",
        )
    return Embeddings(paths, np.concatenate([vectors for _, vectors, _ in parts]), next(iter(spaces), ""))


def unit_vectors(vectors: np.ndarray, paths: Sequence[str], source: object) -> np.ndarray:
    """``(N, D)`` vectors of unit length as float32, after checking them.

    Raises:
        DataError: no vectors, other than numbers, other than a table, not finite, or zero.
    """
    if vectors.dtype.kind not in "fiu":
        raise DataError(f"its embeddings are {vectors.dtype}, not numbers", source=source)
    if vectors.ndim != 2 or not vectors.size:
        shape = "×".join(map(str, vectors.shape)) or "single"
        raise DataError(f"its embeddings are {shape}, not a table of N × D", source=source)
    if len(paths) != len(vectors):
        raise DataError(f"has {len(paths)} paths for {len(vectors)} embeddings", source=source)
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), 4096):  # in blocks: no double-precision copy of the whole
        block = vectors[start : start + 4096].astype(np.float64)
        largest = np.abs(block).max(axis=1, keepdims=True)
        for bad, what in ((~np.isfinite(largest[:, 0]), "not finite"), (largest[:, 0] == 0, "zero")):
            if bad.any():
                first = start + int(bad.argmax())
                more = " at least" if start + 4096 < len(vectors) else ""
                raise DataError(
                    f"{np.count_nonzero(bad)} embeddings{more} are {what}, first that of '{paths[first]}'",
                    source=source,
                    remedy="leave such files out before embedding",
                )
        block /= largest  # squares must not overflow
        unit[start : start + 4096] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return unit


def _below(path: str, root: str | Path | None) -> str:
    path = path.removeprefix("./")
    if root is None:
        return path
    prefix = str(root).rstrip("/") + "/"
    return path.removeprefix(prefix)


def _read(file: Path) -> tuple[list[str], np.ndarray, str]:
    """Paths, unit vectors and space of one file."""
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if file.suffix.lower() not in readers:
        raise DataError(f"unknown format '{file.suffix}'", source=file, remedy="use .npz or .parquet")
    if not file.is_file():
        raise DataError("no such file", source=file, remedy="make one with: crossmodal embed FILES -o vectors.npz")
    paths, vectors, space = readers[file.suffix.lower()](file)
    return paths, unit_vectors(vectors, paths, file), space


def _read_npz(file: Path) -> tuple[list[str], np.ndarray, str]:
    remedy = "it needs 'paths' (N,) and 'embeddings' (N, D), as crossmodal embed -o writes them"
    try:
        with np.load(file, allow_pickle=False) as stored:
            if missing := {"paths", "embeddings"} - set(stored.files):
                raise DataError(f"holds no {' and no '.join(sorted(missing))}", source=file, remedy=remedy)
            paths, vectors = stored["paths"], stored["embeddings"]
            space = str(stored["space"]) if "space" in stored.files else ""
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("is no .npz of plain arrays", source=file, remedy=remedy) from error
    if paths.dtype.kind != "U" or paths.ndim != 1:
        raise DataError("its paths are not a list of texts", source=file, remedy=remedy)
    return paths.tolist(), vectors, space


def _read_parquet(file: Path) -> tuple[list[str], np.ndarray, str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError("needs pyarrow", source=file, remedy="pip install 'crossmodal[train]'") from error
    remedy = "it needs the columns 'path' and 'embedding' (a list of numbers)"
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("is not a Parquet file", source=file, remedy=remedy) from error
    if missing := {"path", "embedding"} - set(table.column_names):
        raise DataError(f"has no column {' and no '.join(sorted(missing))}", source=file, remedy=remedy)
    column = table.column("embedding").combine_chunks()
    kind = column.type
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)):
        raise DataError(f"its embeddings are {kind}, not lists of numbers", source=file, remedy=remedy)
    lengths = set(map(len, column.to_numpy(zero_copy_only=False))) if not column.null_count else {0, -1}
    values = column.flatten()
    if len(lengths) != 1 or values.null_count:
        raise DataError("its embeddings are of different lengths, or have gaps", source=file, remedy=remedy)
    paths = table.column("path").to_pylist()
    if not all(isinstance(path, str) for path in paths):
        raise DataError("its paths are not texts", source=file, remedy=remedy)
    spaces = sorted(set(table.column("space").to_pylist())) if "space" in table.column_names else [""]
    if len(spaces) > 1:
        raise SpaceMismatchError(f"mixes the spaces {' and '.join(spaces)}", source=file)
    return paths, values.to_numpy(zero_copy_only=False).reshape(len(paths), -1), spaces[0] or ""
