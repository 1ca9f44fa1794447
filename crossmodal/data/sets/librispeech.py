"""LibriSpeech (Panayotov et al. 2015), CC BY 4.0.

Layout: ``<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`` with ``<speaker>-<chapter>.trans.txt`` beside
it, and ``SPEAKERS.TXT`` (``id | sex | subset | minutes | name``) at the top. Flat splits
(``<split>/<speaker>-<chapter>-<number>.*``) are read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, files, known, read_text, require

LICENCE = "CC BY 4.0"


def speaker_table(path: Path) -> dict[str, dict[str, str]]:
    """``SPEAKERS.TXT`` → reader id → ``{"gender", "name"}``; lines that start with ``;`` are comments."""
    readers = {}
    for line in read_text(path).splitlines():
        cells = [cell.strip() for cell in line.split("|", 4)]
        if line.startswith(";") or len(cells) < 2:
            continue
        readers[cells[0]] = known(gender=cells[1], name=cells[4] if len(cells) > 4 else None)
    return readers


def _transcripts(root: Path) -> dict[str, str]:
    texts = {}
    for path in files(root, [".txt"]):
        if path.name.endswith(".trans.txt"):
            for line in read_text(path).splitlines():
                name, _, text = line.strip().partition(" ")
                if text:
                    texts[name] = text
    return texts


def rows(root: Path) -> Iterator[Row]:
    """Rows of every split below ``root`` (or of ``root`` itself if it is a split).

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the LibriSpeech folder with train-clean-100 and so on")
    tables = [
        p for p in (*files(root, [".txt"]), root.parent / "SPEAKERS.TXT") if p.name == "SPEAKERS.TXT" and p.is_file()
    ]
    readers = {reader: about for table in tables for reader, about in speaker_table(table).items()}
    texts = _transcripts(root)
    for audio in files(root, AUDIO):
        parts = audio.stem.split("-")
        if len(parts) != 3 or not all(part.isdigit() for part in parts):
            continue
        inside = audio.relative_to(root).parts
        part = inside[0] if len(inside) in (2, 4) else root.name
        yield Row(
            id=f"librispeech/{parts[0]}/{audio.stem}",
            corpus="librispeech",
            speaker=parts[0],
            audio=audio,
            text=texts.get(audio.stem),
            attributes=known(
                **readers.get(parts[0], {}), part=part, chapter=parts[1], identity=f"librispeech/{parts[0]}"
            ),
            licence=LICENCE,
        )
