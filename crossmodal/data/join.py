"""Voices of one data set, faces of another, the same people: VoxCeleb ↔ VGGFace2, VoxCeleb ↔ HQ-VoxCeleb.

People meet by a published cross-reference where there is one (VoxCeleb2's table names VGGFace2 classes, HQ-VoxCeleb's
folders may be VoxCeleb ids), else by name (:func:`crossmodal.data.names.normalise_name`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.names import normalise_name
from crossmodal.data.splits import fraction
from crossmodal.errors import DataError

_REFERENCES = ("voxceleb", "vggface2")  # attributes that name a person of another set


@dataclass
class JoinReport:
    """How a join went; kept in the joined manifest's ``metadata["join"]``."""

    matched: int = 0
    """People found on both sides."""
    by_reference: int = 0
    """Of these, by a published cross-reference."""
    by_name: int = 0
    """Of these, by name."""
    voice_only: list[str] = field(default_factory=list)
    """Voices without a face: ``corpus/speaker (name)``."""
    face_only: list[str] = field(default_factory=list)
    """Faces without a voice."""
    ambiguous: list[str] = field(default_factory=list)
    """Left out, because a name stands for several people on one side."""

    def __str__(self) -> str:
        return (
            f"{self.matched} people matched ({self.by_reference} by published reference, {self.by_name} by name), "
            f"{len(self.voice_only)} voices without a face, {len(self.face_only)} faces without a voice, "
            f"{len(self.ambiguous)} ambiguous"
        )


def join(voices: Manifest, faces: Manifest) -> Manifest:
    """The rows of the people on both sides, with one ``attributes["identity"]`` a person; rows stay what they are.

    Training that pairs any picture of a person with any utterance of theirs (SGE2E) reads it as it is; :func:`pair`
    makes rows with both.

    Raises:
        DataError: a side has no rows of its kind, or nobody was found on both.
    """
    voice_people = _people(row for row in voices if row.audio is not None)
    face_people = _people(row for row in faces if row.face is not None)
    if not voice_people or not face_people:
        missing = "voices" if not voice_people else "faces"
        raise DataError(
            f"the manifest of {missing} holds none", source="join", remedy="voices come first, faces second"
        )
    report = JoinReport()
    match: dict[str, str] = {}
    faces_used: set[str] = set()
    for keys, counter in ((_reference_keys, "by_reference"), (_name_keys, "by_name")):
        voice_index, face_index = _index(voice_people, keys), _index(face_people, keys)
        for key in sorted(voice_index.keys() & face_index.keys()):
            voice_ids = [v for v in voice_index[key] if v not in match]
            face_ids = [f for f in face_index[key] if f not in faces_used]
            if len(voice_ids) == 1 and len(face_ids) == 1:
                match[voice_ids[0]] = face_ids[0]
                faces_used.add(face_ids[0])
                setattr(report, counter, getattr(report, counter) + 1)
            elif voice_ids and face_ids:
                report.ambiguous.append(f"{key}: {', '.join(voice_ids)} and {', '.join(face_ids)}")
    report.matched = len(match)
    report.voice_only = [_label(v, row) for v, row in voice_people.items() if v not in match]
    report.face_only = [_label(f, row) for f, row in face_people.items() if f not in faces_used]
    if not match:
        raise DataError(
            f"none of {len(voice_people)} voices and {len(face_people)} faces are the same person",
            source="join",
            remedy="names are needed: vox1_meta.csv or vox2_meta.csv, and identity_meta.csv of VGGFace2",
        )
    identity = {v: _identity(voice_people[v], face_people[f]) for v, f in match.items()}
    identity |= {match[v]: name for v, name in list(identity.items())}
    rows = {
        row.id: dataclasses.replace(row, attributes={**row.attributes, "identity": identity[row.identity]})
        for manifest in (voices, faces)
        for row in manifest
        if row.identity in identity
    }
    root = voices.root if voices.root == faces.root else None
    sets = [*voices.metadata.get("sets", []), *faces.metadata.get("sets", [])]
    return Manifest(rows.values(), root=root, metadata={"sets": sets, "join": dataclasses.asdict(report)})


def pair(manifest: Manifest, *, seed: int = 0) -> Manifest:
    """One row for each utterance, with a picture of the same person, chosen by a hash of (seed, row id).

    Raises:
        DataError: nobody has both.
    """
    pictures: dict[str, list[Row]] = {}
    for row in manifest:
        if row.face is not None and row.audio is None:
            pictures.setdefault(row.identity, []).append(row)
    rows = []
    for row in manifest:
        if row.audio is None:
            continue
        if row.face is not None:
            rows.append(row)
        elif choices := pictures.get(row.identity):
            picture = choices[int(fraction(row.id, seed) * len(choices))]
            attributes = {**picture.attributes, **row.attributes, "picture": picture.id}
            licence = row.licence if row.licence == picture.licence else f"{row.licence}; picture: {picture.licence}"
            rows.append(
                dataclasses.replace(row, face=picture.face, attributes=attributes, licence=licence, pairing="paired")
            )
    if not rows:
        raise DataError("nobody has both a voice and a picture", source="pair", remedy="join the two manifests first")
    return Manifest(rows, root=manifest.root, metadata=manifest.metadata)


def _people(rows: Iterable[Row]) -> dict[str, Row]:
    """Identity → one of its rows, identities sorted."""
    people: dict[str, Row] = {}
    for row in rows:
        people.setdefault(row.identity, row)
    return dict(sorted(people.items()))


def _reference_keys(row: Row) -> list[str]:
    own = "voxceleb" if row.corpus in ("voxceleb1", "voxceleb2") else row.corpus
    given = [f"{name}:{row.attributes[name]}" for name in _REFERENCES if name in row.attributes]
    return [f"{own}:{row.speaker}", *given]


def _name_keys(row: Row) -> list[str]:
    name = normalise_name(row.attributes.get("name", ""))
    return [f"name:{name}"] if name else []


def _index(people: dict[str, Row], keys: Callable[[Row], list[str]]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for identity, row in people.items():
        for key in keys(row):
            index.setdefault(key, []).append(identity)
    return index


def _identity(voice: Row, face: Row) -> str:
    """The common name if there is one, so that later joins and splits meet it; else the voice's own identity."""
    name = normalise_name(voice.attributes.get("name") or face.attributes.get("name", ""))
    return f"name:{name}" if name else voice.identity


def _label(identity: str, row: Row) -> str:
    name = row.attributes.get("name")
    return f"{identity} ({name})" if name else identity
