"""What the preparers share: finding files, reading transcripts, saying what is missing."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from crossmodal.errors import DataError

AUDIO = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".raw", ".sph"})
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
VIDEO = frozenset({".mp4", ".mpg", ".mpeg", ".mkv", ".webm", ".avi", ".mov"})
GENDERS = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male"}


def files(folder: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """Files below ``folder`` (any depth) with one of ``suffixes``, hidden ones left out, sorted by path."""
    wanted = frozenset(suffixes)
    yield from sorted(p for p in folder.rglob("*") if p.suffix.lower() in wanted and not p.name.startswith("."))


def children(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files directly in ``folder`` with one of ``suffixes``, sorted; empty if there is no such folder."""
    wanted = frozenset(suffixes)
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in wanted and not p.name.startswith("."))


def folders(folder: Path) -> list[Path]:
    """Sub-folders, sorted, hidden ones left out."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def require(root: Path, looks_like: str) -> Path:
    """``root``, if it is a folder.

    Raises:
        DataError: it is not; ``looks_like`` says what should have been there.
    """
    if not root.is_dir():
        raise DataError("no such folder", source=root, remedy=f"expected {looks_like}")
    return root


def read_text(path: Path) -> str:
    """A text file of a data set, as UTF-8 (Latin-1 where it is not).

    Raises:
        DataError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", source=path) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_table(path: Path, *, delimiter: str = ",") -> list[dict[str, str]]:
    """A table with a header line; cells stripped, header in lower case with spaces and dashes turned to underscores."""
    lines = read_text(path).splitlines()
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    header = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in next(rows, [])]
    return [dict(zip(header, (cell.strip() for cell in row))) for row in rows if any(cell.strip() for cell in row)]


def known(**attributes: str | None) -> dict[str, str]:
    """Attributes without the empty ones; a gender written in any of the usual ways becomes ``female`` or ``male``."""
    found = {name: value.strip() for name, value in attributes.items() if value and value.strip()}
    if "gender" in found:
        gender = GENDERS.get(found["gender"].lower())
        found.pop("gender") if gender is None else found.update(gender=gender)
    return found
