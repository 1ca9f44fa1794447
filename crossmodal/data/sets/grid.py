"""GRID (Cooke et al. 2006, Zenodo 3625687), CC BY 4.0: 34 people, 1,000 three-second talking-face videos each.

Layout: ``s<N>/<sentence>.mpg`` (or ``s<N>/video/**``, ``video/s<N>/**``), word times in
``alignments/s<N>/<sentence>.align``, ``s<N>/align/`` or ``align/``; sound alone, where there is no video, in
``audio_25k/s<N>/<sentence>.wav`` or ``s<N>/*.wav``. The file name codes the sentence. Videos that lie in no ``s<N>``
folder are taken as one person each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import VIDEO, files, known, read_text, require

LICENCE = "CC BY 4.0"
WOMEN = frozenset({4, 7, 11, 15, 16, 18, 20, 21, 22, 23, 24, 25, 29, 31, 33, 34})
_WORDS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    dict(zip("z123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
_SPEAKER = re.compile(r"^s(\d{1,2})$")


def sentence(code: str) -> str | None:
    """The sentence a GRID file name codes: ``bbaf2n`` → ``bin blue at f two now``; ``None`` if it codes none."""
    code = code.lower()
    if len(code) != len(_WORDS) or any(letter not in words for letter, words in zip(code, _WORDS)):
        return None
    return " ".join(words[letter] for letter, words in zip(code, _WORDS))


def word_times(path: Path) -> list[tuple[float, float, str]]:
    """An ``.align`` file as (start, end, word) in seconds; the file counts samples at 25 kHz."""
    times = []
    for line in read_text(path).splitlines():
        cells = line.split()
        if len(cells) == 3 and cells[0].isdigit() and cells[1].isdigit():
            times.append((int(cells[0]) / 25_000, int(cells[1]) / 25_000, cells[2]))
    return times


def rows(root: Path) -> Iterator[Row]:
    """Rows of every video, and of every sound without one.

    Where there is an ``.align`` file, ``attributes["align"]`` is its path below ``root`` (see :func:`word_times`).

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the GRID folder with s1, s2 and so on")

    def speaker_of(path: Path) -> str | None:
        names = [part for part in path.relative_to(root).parts[:-1] if _SPEAKER.match(part)]
        return names[-1] if names else (root.name if _SPEAKER.match(root.name) else None)

    aligned = {(speaker_of(path), path.stem): path for path in files(root, [".align"])}
    seen: set[tuple[str, str]] = set()
    media = [*files(root, VIDEO), *files(root, [".wav", ".flac"])]
    for path in media:
        text = sentence(path.stem)
        if text is None:
            continue
        folder = speaker_of(path)
        speaker = folder or path.stem
        if (speaker, path.stem) in seen:  # a second resolution of the same video, or its sound alone
            continue
        seen.add((speaker, path.stem))
        number = int(folder[1:]) if folder else None
        align = aligned.get((folder, path.stem))
        video = path.suffix.lower() in VIDEO
        yield Row(
            id=f"grid/{speaker}/{path.stem}",
            corpus="grid",
            speaker=speaker,
            audio=path,
            text=text,
            face=path if video else None,
            attributes=known(
                gender=None if number is None else ("f" if number in WOMEN else "m"),
                align=align.relative_to(root).as_posix() if align else None,
            ),
            licence=LICENCE,
            pairing="paired" if video else None,
        )
