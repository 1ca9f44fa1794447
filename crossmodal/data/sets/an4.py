"""AN4, the CMU census data: spelled words and digits of 84 people, close-talking microphone.

Layout: ``wav/an4_clstk/<speaker>/<utterance>-<speaker>-b.{sph,raw,wav,...}`` (and ``an4test_clstk``), transcripts in
``etc/an4_{train,test}.transcription`` as ``<s> YES </s> (an251-fash-b)``. Speaker ids start with ``f`` or ``m``; a
second session of the same person has a 2 after the id (``mdcs``, ``mdcs2``), so both share ``attributes["identity"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, children, files, known, read_text, require

LICENCE = "AN4 (CMU), free for any use"
_LINE = re.compile(r"^(.*)\(([^()\s]+)\)\s*$")


def rows(root: Path) -> Iterator[Row]:
    """Rows of both parts, as far as they are there; ``attributes["part"]`` says which.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the folder that holds wav and etc of an4")
    texts: dict[str, str] = {}
    for transcript in children(root / "etc", [".transcription"]):
        for line in read_text(transcript).splitlines():
            if match := _LINE.match(line.strip()):
                texts[match[2]] = re.sub(r"</?s>", "", match[1]).strip()
    for folder_name, part in (("an4_clstk", "train"), ("an4test_clstk", "test")):
        folder = root / "wav" / folder_name
        if not folder.is_dir():
            continue
        for audio in files(folder, AUDIO):
            speaker = audio.parent.name
            yield Row(
                id=f"an4/{speaker}/{audio.stem}",
                corpus="an4",
                speaker=speaker,
                audio=audio,
                text=texts.get(audio.stem),
                attributes=known(gender=speaker[:1], part=part, identity=f"an4/{speaker.rstrip('2')}"),
                licence=LICENCE,
            )
