"""What VoxCeleb1 and VoxCeleb2 share: folders, tables of people, and how sound, video and frames of one clip meet.

Every file lies in ``.../<person>/<video>/<clip>``: ``id10001/1zcIwhmdeo4/00001.wav``. Any folders may lie above, and
the name of one of them says whether the clip is of ``dev`` (also ``train``) or ``test``. Frames of VoxCeleb1 lie in
``<Name>/1.6/<video>/0000375.jpg`` (``unzippedFaces``; ``1.6`` is the margin and may be missing), named after the
person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.names import normalise_name
from crossmodal.data.sets.layout import IMAGES, VIDEO, files, known, read_table, read_text, require
from crossmodal.errors import DataError

LICENCE = "VoxCeleb: metadata CC BY 4.0, media for research under the terms of their owners"
SOUND = frozenset({".wav", ".flac", ".m4a", ".aac", ".opus", ".ogg"})
_IDS = ("voxceleb1_id", "voxceleb2_id", "voxceleb_id", "id", "ids", "person")
_PERSON = re.compile(r"^id\d{5}$")
_PARTS = {"dev": "dev", "train": "dev", "test": "test"}


@dataclass(frozen=True)
class Clip:
    """Where a file stands in the VoxCeleb layout."""

    person: str
    video: str
    clip: str


def clip_of(path: Path) -> Clip | None:
    """Person, video and clip of ``.../id10001/<video>/00001.wav``; ``None`` for a file that is not laid out so."""
    if len(path.parts) < 3 or not _PERSON.match(path.parts[-3]):
        return None
    return Clip(path.parts[-3], path.parts[-2], path.stem)


def people_table(root: Path, file_name: str) -> dict[str, dict[str, str]]:
    """The table of people (``vox1_meta.csv``, ``vox2_meta.csv``; tabs or commas) in ``root``, its parent or below:
    VoxCeleb id → ``name``, ``gender``, ``nationality``, ``vggface2``, ``set`` as far as the table has them."""
    places = [root / file_name, root.parent / file_name, *sorted(root.glob(f"*/{file_name}"))]
    table = next((place for place in places if place.is_file()), None)
    return {} if table is None else read_people(table)


def read_people(table: Path) -> dict[str, dict[str, str]]:
    """A table of people (tabs or commas, ids in a column named as in VoxCeleb or MAV-Celeb, or ``id``) → id →
    ``name``, ``gender``, ``nationality``, ``age``, ``vggface2``, ``set`` as far as the table has them.

    Raises:
        DataError: it cannot be read, has no column of ids, or lists somebody twice.
    """
    delimiter = "\t" if "\t" in read_text(table).partition("\n")[0] else ","
    people: dict[str, dict[str, str]] = {}
    for row in read_table(table, delimiter=delimiter):
        person = next((row[name] for name in _IDS if row.get(name)), "")
        if not person:
            raise DataError(
                "has a person without an id", source=table, remedy=f"name the column one of {', '.join(_IDS)}"
            )
        if person in people:
            raise DataError(f"lists {person} twice", source=table)
        people[person] = known(
            name=(row.get("name") or row.get("vggface1_id", "")).replace("_", " "),
            gender=row.get("gender"),
            nationality=row.get("nationality"),
            age=row.get("age"),
            vggface2=row.get("vggface2_id"),
            set=row.get("set"),
        )
    return people


def rows(root: Path, corpus: str, table: str) -> Iterator[Row]:
    """One row a clip with sound (its video as the face where there is one), then one row a frame.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), f"the {corpus} folder, with {table} in it")
    people = people_table(root, table)
    by_name = {normalise_name(about["name"]): person for person, about in people.items() if "name" in about}
    videos = {clip: path for path in files(root, VIDEO) if (clip := clip_of(path))}

    def attributes(person: str, path: Path, video: str) -> dict[str, str]:
        about = dict(people.get(person, {}))
        listed = about.pop("set", None)
        folder = next((_PARTS[p] for p in path.relative_to(root).parts if p in _PARTS), listed)
        return known(**about, part=folder, video=video)

    seen: set[Clip] = set()
    for path in [*files(root, SOUND), *videos.values()]:
        clip = clip_of(path)
        if clip is None or clip in seen:
            continue
        seen.add(clip)
        face = videos.get(clip)
        yield Row(
            id=f"{corpus}/{clip.person}/{clip.video}/{clip.clip}",
            corpus=corpus,
            speaker=clip.person,
            audio=path,
            face=face,
            attributes=attributes(clip.person, path, clip.video),
            licence=LICENCE,
            pairing="paired" if face else None,
        )
    for path in files(root, IMAGES):
        folders = path.relative_to(root).parts[:-1]
        named = [f for f in folders if _PERSON.match(f) or normalise_name(f) in by_name]
        if not named:
            continue
        person = named[0] if _PERSON.match(named[0]) else by_name[normalise_name(named[0])]
        yield Row(
            id=f"{corpus}/{person}/{folders[-1]}/frame-{path.stem}",
            corpus=corpus,
            speaker=person,
            face=path,
            attributes=attributes(person, path, folders[-1]),
            licence=LICENCE,
        )
