"""CSTR VCTK (Yamagishi et al.), CC BY 4.0: 110 speakers of English with various accents, about 400 sentences each.

Layout of 0.92: ``wav48_silence_trimmed/p225/p225_001_mic1.flac`` (and ``_mic2``), ``txt/p225/p225_001.txt``,
``speaker-info.txt``. Layout of 0.80: ``wav48/p225/p225_001.wav``. Speaker p315 has no texts, s5 no accent region.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, files, known, read_text, require

LICENCE = "CC BY 4.0"
_NAME = re.compile(r"^([ps]\d+)_(\d+)(?:_(mic\d))?$")


def speaker_table(path: Path) -> dict[str, dict[str, str]]:
    """``speaker-info.txt`` (``ID AGE GENDER ACCENTS REGION``, columns by blanks; 0.80 leaves out the ``p``)."""
    speakers = {}
    for line in read_text(path).splitlines()[1:]:
        cells = line.partition("(")[0].split()  # a remark in brackets may follow
        if len(cells) >= 3:
            name = cells[0] if cells[0][0].isalpha() else f"p{cells[0]}"
            accent = cells[3] if len(cells) > 3 else None
            speakers[name] = known(age=cells[1], gender=cells[2], accent=accent, region=" ".join(cells[4:]))
    return speakers


def rows(root: Path, *, microphone: str = "mic1") -> Iterator[Row]:
    """One row an utterance; ``attributes`` has ``age``, ``gender``, ``accent`` and ``region``.

    Args:
        root: the VCTK folder.
        microphone: which of the two of 0.92, ``mic1`` or ``mic2``.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the VCTK folder with wav48_silence_trimmed, txt and speaker-info.txt")
    table = root / "speaker-info.txt"
    speakers = speaker_table(table) if table.is_file() else {}
    for audio in files(root, AUDIO):
        match = _NAME.match(audio.stem)
        if match is None or match[3] not in (None, microphone):
            continue
        speaker, number = match[1], match[2]
        transcript = root / "txt" / speaker / f"{speaker}_{number}.txt"
        yield Row(
            id=f"vctk/{speaker}/{audio.stem}",
            corpus="vctk",
            speaker=speaker,
            audio=audio,
            text=(read_text(transcript).strip() or None) if transcript.is_file() else None,
            attributes=dict(speakers.get(speaker, {})),
            licence=LICENCE,
        )
