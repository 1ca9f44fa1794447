"""Published face–voice evaluation lists as data: VoxCeleb1's identity split, verification pairs and matching trials.

The lists name people, videos and files; :func:`identity_sides` plugs into :func:`crossmodal.data.splits.assign_from`,
and the trials say who is who, so that a gender-only oracle can stand beside every result. Files:

- ``identity_splits.txt`` — ``A.J._Buckley 1``: 901 people to train (1), 100 to validate (2), 250 to test (4);
- ``veriflist_test_<criterion>_<set>.txt`` (Nagrani et al. 2018, "Learnable PINs") —
  ``id,voice-speaker-id,face-speaker-id,label,voice-path,face-path``;
- ``matching_{v2f,f2v}_{U,G}.csv`` — probe and candidates, separated by blanks, **the right candidate first**.

And MAV-Celeb's lists (Saeed et al. 2024, FAME challenge), one for each language: ``ysuvkz41 voices/English/00000.wav
faces/English/00000.jpg``, names and labels kept back; :func:`read_mav_celeb` adds the labels from a file of their own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossmodal.data.names import normalise_name
from crossmodal.data.sets.layout import IMAGES, read_text
from crossmodal.data.sets.voxceleb import people_table, read_people
from crossmodal.errors import DataError

SIDES = {"1": "train", "2": "validation", "4": "test"}
_MAV_CELEB_PERSON = re.compile(r"^id\d{4}$")
_SEGMENT = re.compile(r"^(?P<video>.+)_(?P<number>\d{7})$")


@dataclass(frozen=True)
class Clip:
    """A voice or a face of a list."""

    person: str
    """VoxCeleb id (``id10001``) or name (``A.J._Buckley``), as the list has it; empty where it names nobody."""
    video: str
    file: str
    path: str = field(default="", compare=False)
    """As the list has it, below the folder of the media."""
    language: str = ""

    @property
    def is_face(self) -> bool:
        """Whether it is a picture."""
        return Path(self.file).suffix.lower() in IMAGES


@dataclass(frozen=True)
class VerificationTrial:
    """Are this voice and this face one person's?"""

    voice: Clip
    face: Clip
    same: bool


@dataclass(frozen=True)
class MatchingTrial:
    """Which candidate belongs to the probe?"""

    probe: Clip
    candidates: tuple[Clip, ...]
    answer: int
    """Place of the right candidate."""


def read_clip(path: str) -> Clip:
    """``A.R._Rahman/1.6/<video>/0013500.jpg``, ``id10002/<video>/00001.wav`` or ``A.R._Rahman/<video>_0000001.wav``.

    Raises:
        DataError: another form.
    """
    parts = path.strip().split("/")
    if len(parts) == 2 and (match := _SEGMENT.match(Path(parts[1]).stem)):
        return Clip(parts[0], match["video"], parts[1], path.strip())
    if len(parts) == 3:
        return Clip(parts[0], parts[1], parts[2], path.strip())
    if len(parts) == 4:  # a crop margin stands after the name
        return Clip(parts[0], parts[2], parts[3], path.strip())
    raise DataError("is no clip of the VoxCeleb lists", source=path)


def identity_sides(path: str | Path) -> dict[str, str]:
    """``identity_splits.txt`` → normalised name → ``train``, ``validation`` or ``test``.

    Raises:
        DataError: a line of another form, or a person listed twice.
    """
    sides: dict[str, str] = {}
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or cells[1] not in SIDES:
            raise DataError(f"line {number} is not 'Name 1|2|4'", source=path)
        name = normalise_name(cells[0])
        if name in sides:
            raise DataError(f"line {number} lists {cells[0]} again", source=path)
        sides[name] = SIDES[cells[1]]
    return sides


def read_verification(path: str | Path) -> Iterator[VerificationTrial]:
    """The pairs of a verification list.

    Raises:
        DataError: a line of another form.
    """
    lines = read_text(Path(path)).splitlines()
    for number, line in enumerate(lines, 1):
        cells = line.strip().split(",")
        if cells[0] == "id" or not line.strip():
            continue
        if len(cells) != 6 or cells[3] not in ("0", "1"):
            raise DataError(f"line {number} is not id,voice,face,label,voice-path,face-path", source=path)
        same = cells[3] == "1"
        if same != (cells[1] == cells[2]):
            raise DataError(f"line {number}: the label contradicts the speakers {cells[1]} and {cells[2]}", source=path)
        yield VerificationTrial(read_clip(cells[4]), read_clip(cells[5]), same)


def read_matching(path: str | Path, *, shuffle: int | None = 0) -> Iterator[MatchingTrial]:
    """The trials of a matching list.

    Args:
        path: ``matching_{v2f,f2v}_{U,G}.csv``.
        shuffle: seed that moves the right candidate, which always stands first in the file, to a random place, so that
            a scorer that prefers the first of two equals gains nothing; ``None``: leave it first.

    Raises:
        DataError: a line of another form.
    """
    rng = random.Random(f"matching/{shuffle}")
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) < 3:
            raise DataError(f"line {number} has no probe and two candidates", source=path)
        probe, *candidates = (read_clip(cell) for cell in cells)
        order: Sequence[int] = range(len(candidates))
        if shuffle is not None:
            order = rng.sample(order, len(candidates))
        yield MatchingTrial(probe, tuple(candidates[i] for i in order), list(order).index(0))


def read_mav_celeb(path: str | Path, labels: str | Path | None = None) -> Iterator[VerificationTrial]:
    """The pairs of a MAV-Celeb list; the language is the folder that the voice lies in.

    Args:
        path: lines of ``id voice-path face-path``, with or without a label (0 or 1) at the end; or lines of
            ``voice-path face-path`` with the people in the paths (``id0001/English/<video>/00000.wav``).
        labels: lines of ``id label``, for a list without them.

    Raises:
        DataError: a line of another form, or a pair whose label is not known.
    """
    known = {} if labels is None else _labels(Path(labels))
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        label = cells.pop() if cells[-1] in ("0", "1") else None
        key = cells.pop(0) if len(cells) == 3 else ""
        if len(cells) != 2:
            raise DataError(f"line {number} is not 'id voice-path face-path [0|1]'", source=path)
        voice, face = (_mav_celeb_clip(cell) for cell in cells)
        label = label or known.get(key)
        if label is None and not (voice.person and face.person):
            raise DataError(
                f"line {number} has no label" + (f", nor has {labels} one for '{key}'" if labels else ""),
                source=path,
                remedy="give the file of labels, lines of 'id 0|1'",
            )
        same = voice.person == face.person if label is None else label == "1"
        if voice.person and face.person and same != (voice.person == face.person):
            raise DataError(f"line {number}: the label contradicts {voice.person} and {face.person}", source=path)
        yield VerificationTrial(voice, face, same)


def _labels(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        cells = line.replace(",", " ").split()
        if not cells:
            continue
        if len(cells) != 2 or cells[1] not in ("0", "1"):
            raise DataError(f"line {number} is not 'id 0|1'", source=path)
        found[cells[0]] = cells[1]
    return found


def _mav_celeb_clip(path: str) -> Clip:
    *folders, name = path.split("/")
    place = next((i for i, folder in enumerate(folders) if _MAV_CELEB_PERSON.match(folder)), None)
    if place is None:
        return Clip("", "", name, path, folders[-1] if folders else "")
    below = [*folders[place + 1 :], "", ""]
    return Clip(folders[place], below[1], name, path, below[0])


class People:
    """Who is who in the lists, from ``vox1_meta.csv``: a person is known by id and by name.

    Args:
        source: the folder it is in; or a table of people (tabs or commas) of any name, with a column of ids and some of
            ``name``, ``gender``, ``nationality``, ``age``.

    Raises:
        DataError: no table there.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = Path(source)
        if self.source.is_file():
            self.table = read_people(self.source)
        else:
            self.table = people_table(self.source, "vox1_meta.csv")
        if not self.table:
            raise DataError("holds no vox1_meta.csv", source=source, remedy="it comes with VoxCeleb1")
        self._id_of = {normalise_name(about["name"]): person for person, about in self.table.items() if "name" in about}

    @property
    def table_name(self) -> str:
        """Of the file, for messages."""
        return self.source.name if self.source.is_file() else "vox1_meta.csv"

    def __contains__(self, person: str) -> bool:
        return person in self.table or normalise_name(person) in self._id_of

    def id_of(self, person: str) -> str:
        """VoxCeleb id of an id or a name.

        Raises:
            DataError: nobody of that name.
        """
        if person not in self:
            raise DataError(f"is not in {self.table_name}", source=person)
        return person if person in self.table else self._id_of[normalise_name(person)]

    def names(self, person: str) -> tuple[str, ...]:
        """Id and name (``A.J._Buckley``) of an id or a name; nothing if nobody is called so."""
        if person not in self:
            return ()
        found = self.id_of(person)
        name = self.table[found].get("name", "").replace(" ", "_")
        return (found, name) if name else (found,)

    def attribute(self, person: str, name: str) -> str | None:
        """``gender``, ``nationality``, ``age`` or ``name`` of an id or a name; ``None`` if the table does not say."""
        return self.table[self.id_of(person)].get(name)
