"""Your own data: one folder a person, ``<id>/voice/*`` and ``<id>/face/*``.

A video may lie in either: in ``voice`` for its sound, in ``face`` for its picture, in ``<id>`` itself for both. A text
beside a voice (``a.wav``, ``a.txt``) is what is said. ``people.csv`` at the top, if there is one, has ``id`` and any
of ``name``, ``gender``, ``age``, ``ethnicity``, ``nationality``, ``accent``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, IMAGES, VIDEO, children, folders, known, read_table, read_text, require


def rows(root: Path, *, licence: str = "") -> Iterator[Row]:
    """Rows of every person.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "a folder with <id>/voice and <id>/face")
    table = root / "people.csv"
    people = {row["id"]: row for row in read_table(table) if "id" in row} if table.is_file() else {}
    for folder in folders(root):
        person = folder.name
        about = known(**{k: v for k, v in people.get(person, {}).items() if k != "id"})
        for kind, suffixes in (("voice", AUDIO | VIDEO), ("face", IMAGES | VIDEO), ("", VIDEO)):
            for path in children(folder / kind, suffixes):
                transcript = path.with_suffix(".txt")
                text = read_text(transcript).strip() if kind != "face" and transcript.is_file() else ""
                yield Row(
                    id="/".join(filter(None, ("folder", person, kind, path.name))),
                    corpus="folder",
                    speaker=person,
                    audio=path if kind != "face" else None,
                    text=text or None,
                    face=path if kind != "voice" else None,
                    attributes=dict(about),
                    licence=licence,
                    pairing="paired" if kind == "" else None,
                )
