"""CMU ARCTIC (Kominek & Black 2003): one speaker per folder, the same 1,132 English sentences.

Layout: ``cmu_us_<speaker>_arctic/wav/arctic_a0001.wav`` and ``etc/txt.done.data`` with lines
``( arctic_a0001 "Text." )``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, children, folders, known, read_text, require
from crossmodal.errors import DataError

LICENCE = "CMU ARCTIC, free for any use with the notice kept"
# speaker → (gender, accent), as the corpus documentation gives them
SPEAKERS = {
    "aew": ("m", "US"),
    "ahw": ("m", ""),
    "aup": ("m", "Indian"),
    "awb": ("m", "Scottish"),
    "axb": ("f", "Indian"),
    "bdl": ("m", "US"),
    "clb": ("f", "US"),
    "eey": ("f", "US"),
    "fem": ("m", ""),
    "gka": ("m", "Indian"),
    "jmk": ("m", "Canadian"),
    "ksp": ("m", "Indian"),
    "ljm": ("f", "US"),
    "lnh": ("f", "US"),
    "rms": ("m", "US"),
    "rxr": ("m", ""),
    "slp": ("f", "Indian"),
    "slt": ("f", "US"),
}
_FOLDER = re.compile(r"cmu_us_([a-z]+)_arctic", re.IGNORECASE)
_LINE = re.compile(r'^\(\s*(\S+)\s+"(.*)"\s*\)\s*$')


def festival_texts(path: Path) -> dict[str, str]:
    """``( utterance "Text." )`` lines → utterance → text.

    Raises:
        DataError: a line of another form.
    """
    texts = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.match(line.strip())
        if match is None:
            raise DataError(f'line {number} is not of the form ( name "text" )', source=path)
        texts[match[1]] = match[2].replace('\\"', '"')
    return texts


def voice_rows(folder: Path, corpus: str, speaker: str, attributes: dict[str, str], licence: str) -> Iterator[Row]:
    """Rows of one voice folder in Festival form (``wav/`` and ``etc/txt.done.data``)."""
    transcript = folder / "etc" / "txt.done.data"
    texts = festival_texts(transcript) if transcript.is_file() else {}
    for audio in children(folder / "wav", AUDIO):
        yield Row(
            id=f"{corpus}/{speaker}/{audio.stem}",
            corpus=corpus,
            speaker=speaker,
            audio=audio,
            text=texts.get(audio.stem),
            attributes=attributes,
            licence=licence,
        )


def rows(root: Path) -> Iterator[Row]:
    """Rows of every ``cmu_us_*_arctic`` folder in ``root`` (or of ``root`` itself if it is one).

    Raises:
        DataError: no folder, or a damaged transcript.
    """
    root = require(Path(root), "the folder that holds cmu_us_bdl_arctic and so on")
    voices = [root] if _FOLDER.search(root.name) and (root / "wav").is_dir() else folders(root)
    for folder in voices:
        match = _FOLDER.search(folder.name)
        if match is None:
            continue
        speaker = match[1].lower()
        gender, accent = SPEAKERS.get(speaker, ("", ""))
        yield from voice_rows(folder, "arctic", speaker, known(gender=gender, accent=accent), LICENCE)
