"""Kathleen (rhasspy dataset-voice-kathleen): a US woman reading the ARCTIC sentences, laid out like an ARCTIC voice.

Layout: ``wav/arctic_a0001.flac`` and ``etc/txt.done.data``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.arctic import voice_rows
from crossmodal.data.sets.layout import known, require


def rows(root: Path) -> Iterator[Row]:
    """Rows of the one voice.

    Raises:
        DataError: no folder, or a damaged transcript.
    """
    root = require(Path(root), "the folder that holds wav and etc/txt.done.data")
    # Published only as an age range (50–70), so not as `age`, which is in years.
    attributes = known(gender="f", accent="US", age_range="50-70")
    yield from voice_rows(root, "kathleen", "kathleen", attributes, "CC0-1.0")
