"""The manifest: one row per clip or picture, the same for every data set, kept as Parquet.

A row says where sound and face are, who it is, what is said and under which licence. Paths below the data folder are
stored relative to it, and those below the manifest's own folder relative to that, so that both can move:
``Manifest.read(path, root="/new/place")``.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossmodal.errors import DataError, DependencyError
from crossmodal.files import atomic_path

VERSION = 1
_BESIDE = "@/"  # begins the path of a file that lies below the manifest's own folder
Pairing = Literal["paired", "pseudo"]


@dataclass(frozen=True)
class Row:
    """One clip, one picture, or both together.

    Raises:
        DataError: an empty id, corpus or speaker, an ``end`` not after ``start``, or an unknown ``pairing``.
    """

    id: str
    """Unique in a manifest; by convention ``corpus/speaker/file``."""
    corpus: str
    """The data set it comes from."""
    speaker: str
    """The identity, unique within the corpus; splits and samplers go by ``identity``."""
    audio: Path | None = None
    """A file with sound, in any container; ``None`` where there is only a face."""
    text: str | None = None
    """What is said, as published."""
    face: Path | None = None
    """A picture, or a video in which the face is seen; ``None`` where there is only a voice."""
    start: float | None = None
    """Where the clip begins in ``audio`` (and in ``face`` if a video), in seconds; ``None``: at the beginning."""
    end: float | None = None
    """Where it ends, in seconds; ``None``: at the end."""
    attributes: dict[str, str] = field(default_factory=dict)
    """What is known of the person or take: ``name``, ``gender`` (``female``, ``male``), ``age`` in years,
    ``ethnicity``, ``nationality``, ``accent``, ..."""
    licence: str = ""
    """Under which terms the data set is published."""
    pairing: Pairing | None = None
    """``paired``: face and voice are of one person; ``pseudo``: they only share attributes and must never be reported
    as identity matching; ``None``: only one of the two is there."""

    def __post_init__(self) -> None:
        for name in ("id", "corpus", "speaker"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise DataError(f"a row needs a {name}", source=self.id or self.audio or self.face or "manifest")
        if self.pairing not in (None, "paired", "pseudo"):
            raise DataError(f"pairing {self.pairing!r} is unknown", source=self.id, remedy="use 'paired' or 'pseudo'")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise DataError(f"ends at {self.end} s, before it starts at {self.start} s", source=self.id)

    @property
    def identity(self) -> str:
        """Who it is, over data sets: the joined identity if one was given, else ``corpus/speaker``."""
        return self.attributes.get("identity") or f"{self.corpus}/{self.speaker}"


_COLUMNS = tuple(f.name for f in dataclasses.fields(Row))


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError("needs pyarrow", source="manifest", remedy="pip install 'crossmodal[train]'") from error
    return pyarrow


class Manifest:
    """Rows in a fixed order, with what is known about all of them in ``metadata`` (strings, numbers, lists, dicts).

    Args:
        rows: the rows; ids must be unique.
        root: the data folder; paths below it are stored relative to it.
        metadata: kept in the file; ``split`` fingerprints and join counts live here.

    Raises:
        DataError: two rows share an id.
    """

    def __init__(
        self, rows: Iterable[Row], *, root: str | Path | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.rows = list(rows)
        self.root = Path(root) if root is not None else None
        self.metadata: dict[str, Any] = dict(metadata or {})
        repeated = [name for name, count in Counter(row.id for row in self.rows).items() if count > 1]
        if repeated:
            raise DataError(
                f"{len(repeated)} ids appear more than once, first '{repeated[0]}'",
                source="manifest",
                remedy="make ids unique",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def select(self, keep: Callable[[Row], bool], **metadata: Any) -> Manifest:
        """The rows for which ``keep`` is true, in the same order; ``metadata`` is added to what there is."""
        return Manifest((r for r in self.rows if keep(r)), root=self.root, metadata={**self.metadata, **metadata})

    def identities(self) -> list[str]:
        """Sorted identities."""
        return sorted({row.identity for row in self.rows})

    def by_identity(self) -> dict[str, list[int]]:
        """Identity → indices of its rows, identities sorted."""
        groups: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault(row.identity, []).append(index)
        return dict(sorted(groups.items()))

    def check_files(self) -> None:
        """See that every file is there.

        Raises:
            DataError: the first missing file, and how many there are.
        """
        paths = dict.fromkeys(path for row in self.rows for path in (row.audio, row.face) if path is not None)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} files of the manifest are missing",
                source=missing[0],
                remedy="prepare the data again, or read the manifest with the folder the data is in now",
            )

    def write(self, path: str | Path) -> None:
        """Write as Parquet, whole or not at all.

        Raises:
            DependencyError: pyarrow is not installed.
            OutputError: the file cannot be written.
        """
        pyarrow = _pyarrow()
        beside = Path(path).absolute().parent

        def stored(value: Path | None) -> str | None:
            if value is None:
                return None
            if value.absolute().is_relative_to(beside):
                return _BESIDE + value.absolute().relative_to(beside).as_posix()
            if self.root is not None and value.is_relative_to(self.root):
                return value.relative_to(self.root).as_posix()
            return str(value.absolute())

        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in self.rows] for name in _COLUMNS}
        columns["audio"] = [stored(value) for value in columns["audio"]]
        columns["face"] = [stored(value) for value in columns["face"]]
        columns["attributes"] = [sorted(value.items()) for value in columns["attributes"]]
        root = str(self.root.absolute()) if self.root is not None else None
        header = json.dumps({"version": VERSION, "root": root, "metadata": self.metadata}, sort_keys=True)
        table = pyarrow.table(columns, schema=_schema(pyarrow)).replace_schema_metadata({"crossmodal": header})
        with atomic_path(path) as temporary:
            pyarrow.parquet.write_table(table, temporary, compression="zstd")

    @classmethod
    def read(cls, path: str | Path, *, root: str | Path | None = None) -> Manifest:
        """Read what :meth:`write` wrote.

        Args:
            path: the Parquet file.
            root: the data folder, if it has moved; default: where it was when the manifest was written.

        Raises:
            DataError: not a manifest, or one of another version.
        """
        pyarrow = _pyarrow()
        if not Path(path).is_file():
            raise DataError("no such manifest", source=path, remedy="make one with: crossmodal prepare SET ROOT -o OUT")
        try:
            table = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            first_line = str(error).splitlines()[0] if str(error) else "unreadable"
            raise DataError(f"is not a Parquet file ({first_line})", source=path) from error
        header = (table.schema.metadata or {}).get(b"crossmodal")
        if header is None:
            raise DataError("is Parquet, but not a manifest of crossmodal", source=path)
        about = json.loads(header)
        if about.get("version") != VERSION:
            raise DataError(
                f"is a manifest of version {about.get('version')}, not {VERSION}", source=path, remedy="prepare again"
            )
        if not table.schema.remove_metadata().equals(_schema(pyarrow)):
            raise DataError("has other columns than a manifest", source=path, remedy=f"expected: {', '.join(_COLUMNS)}")
        stored_root = root if root is not None else about.get("root")
        base = Path(stored_root) if stored_root is not None else None

        def loaded(value: str | None) -> Path | None:
            if value is None:
                return None
            if value.startswith(_BESIDE):
                return Path(path).parent / value[len(_BESIDE) :]
            return Path(value) if base is None else base / value  # an absolute value wins over the base

        rows = (
            Row(
                **{
                    **r,
                    "audio": loaded(r["audio"]),
                    "face": loaded(r["face"]),
                    "attributes": dict(r["attributes"] or []),
                }
            )
            for r in table.to_pylist()
        )
        return cls(rows, root=base, metadata=about.get("metadata"))


def _schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {"start": number, "end": number, "attributes": pyarrow.map_(text, text)}
    return pyarrow.schema([(name, kinds.get(name, text)) for name in _COLUMNS])
