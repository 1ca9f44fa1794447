"""LibriTTS (Zen et al. 2019) and LibriTTS-R, CC BY 4.0: LibriSpeech's books at 24 kHz, cut at sentences, punctuated.

Layout: ``<split>/<speaker>/<chapter>/<speaker>_<chapter>_<paragraph>_<sentence>.wav`` with ``*.normalized.txt`` and
``*.original.txt`` beside each, ``speakers.tsv`` (``READER GENDER SUBSET NAME``) or ``SPEAKERS.txt`` at the top.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, files, known, read_text, require
from crossmodal.data.sets.librispeech import speaker_table

LICENCE = "CC BY 4.0"
_NAME = re.compile(r"^(\d+)_(\d+)_\d+_\d+$")


def _readers(root: Path) -> dict[str, dict[str, str]]:
    readers: dict[str, dict[str, str]] = {}
    for place in (root, root.parent):
        for name in ("SPEAKERS.txt", "SPEAKERS.TXT"):
            if (place / name).is_file():
                readers.update(speaker_table(place / name))
        if (place / "speakers.tsv").is_file():
            for line in read_text(place / "speakers.tsv").splitlines():
                cells = [cell.strip() for cell in line.split("\t")]
                if len(cells) >= 3 and cells[0].isdigit():
                    readers[cells[0]] = known(gender=cells[1], name=cells[3] if len(cells) > 3 else None)
    return readers


def rows(root: Path) -> Iterator[Row]:
    """Rows of every split below ``root`` (or of ``root`` itself if it is a split), with the normalised text.

    A reader is the same person as LibriSpeech's of that number, so both share ``attributes["identity"]``.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the LibriTTS folder with train-clean-100 and so on")
    readers = _readers(root)
    for audio in files(root, AUDIO):
        match = _NAME.match(audio.stem)
        if match is None:
            continue
        texts = (audio.with_name(f"{audio.stem}.{kind}.txt") for kind in ("normalized", "original"))
        text = next((read_text(path).strip() for path in texts if path.is_file()), None)
        inside = audio.relative_to(root).parts
        yield Row(
            id=f"libritts/{match[1]}/{audio.stem}",
            corpus="libritts",
            speaker=match[1],
            audio=audio,
            text=text or None,
            attributes=known(
                **readers.get(match[1], {}),
                part=inside[0] if len(inside) == 4 else root.name,
                chapter=match[2],
                identity=f"librispeech/{match[1]}",
            ),
            licence=LICENCE,
        )
