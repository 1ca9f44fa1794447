"""Whom the round trips start from: the starter's held-out people, or one part of a prepared data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.data import splits
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.errors import AudioError, DataError
from crossmodal.evaluation.attributes import Probe, labels, train_probe
from crossmodal.evaluation.cycle import CycleFaces, CycleVoices
from crossmodal.evaluation.drawing import Drawing
from crossmodal.evaluation.face_cases import RATE, FaceCases, heard_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from crossmodal.evaluation.voice_faces import HeldOutVoice

PROBE_VOICES = 120
"""Voices that the gender probe is fitted on, at most."""


@dataclass
class CyclePeople:
    """Faces and voices, and the probes that read gender in either."""

    faces: CycleFaces | None
    voices: CycleVoices | None
    face_probe: Probe | None
    voice_probe: Probe | None
    notes: list[str]


def from_starter(
    drawing: Drawing,
    data: Path,
    prepared: PreparedFaces,
    held_out: Sequence[str],
    *,
    speakers: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> CyclePeople:
    """Held-out London people and held-out speakers of LibriSpeech, AN4 and ARCTIC; probes of the others.

    Args:
        drawing: the bundle.
        data: the development data.
        prepared: the London faces.
        held_out: London people that no part of the starter was trained on.
        speakers: most speakers of each corpus; 0 for all.
        progress: told what is being done.

    Raises:
        DataError: the data are not there.
    """
    from crossmodal.evaluation.face_cases import from_london
    from crossmodal.evaluation.voice_faces import held_out_voices
    from crossmodal.faces import load_image

    cases = from_london(drawing, prepared, held_out)
    names = [str(name).split("/")[1] for name in cases.people]
    photos = data / "london_faces" / "neutral_front"

    def picture(index: int) -> Image.Image:
        return load_image(photos / f"{names[index]}_03.jpg")

    faces = CycleFaces(names, labels(cases.attributes, "gender"), cases.true, picture if photos.is_dir() else None)
    progress("listening to held-out voices")
    voices = held_out_voices(data, limit=speakers)
    progress("listening to voices for the gender probe")
    waves, genders, people = known_voices(data)
    return CyclePeople(
        faces,
        cycle_voices(voices),
        train_probe(cases.known.features, labels(cases.known.attributes, "gender"), cases.known.people, "gender"),
        voice_probe(drawing.embed(waves), genders, people),
        ["faces and voices are of different people: a round trip is only compared with its own start"],
    )


def cycle_voices(voices: Sequence[HeldOutVoice]) -> CycleVoices:
    """Held-out speakers as starting points."""
    return CycleVoices(
        [v.speaker for v in voices],
        np.array(["male" if v.male else "female" for v in voices], dtype=object),
        [v.one for v in voices],
        [v.other for v in voices],
    )


def known_voices(data: Path, most: int = PROBE_VOICES) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Training speakers of LibriSpeech, women and men in turn: six seconds of each, genders and names.

    Raises:
        DataError: there are none.
    """
    from crossmodal import audio
    from crossmodal.data.speech_features import starter_rows
    from crossmodal.data.starter_split import split_of

    rows: dict[str, Row] = {}
    for row in starter_rows(data, ("librispeech",)):
        if (
            row.audio is not None
            and row.attributes.get("gender")
            and split_of(row.corpus, row.speaker, row.id) == "train"
        ):
            rows.setdefault(row.speaker, row)
    kinds = [[r for _, r in sorted(rows.items()) if r.attributes["gender"] == g] for g in ("female", "male")]
    waves, genders, names = [], [], []
    for row in [row for pair in zip(*kinds) for row in pair][:most]:
        assert row.audio is not None
        try:
            waves.append(audio.load_speech(row.audio)[: 6 * RATE])
        except AudioError:
            continue
        genders.append(row.attributes["gender"])
        names.append(row.speaker)
    if not waves:
        raise DataError("holds no training speakers of LibriSpeech", source=data)
    return waves, np.array(genders, dtype=object), np.array(names)


def voice_probe(embeddings: np.ndarray, genders: np.ndarray, people: np.ndarray) -> Probe:
    """Gender in speaker embeddings.

    Raises:
        DataError: too few people of one gender.
    """
    return train_probe(embeddings, genders, people, "gender", of="natural voices")


def from_prepared(
    drawing: Drawing,
    folder: Path,
    cases: FaceCases,
    part: str,
    *,
    progress: Callable[[str], None] = lambda line: None,
) -> CyclePeople:
    """One face and one voice of every person in the tested part; probes of the other parts' people.

    Args:
        drawing: the bundle.
        folder: the prepared data.
        cases: :func:`crossmodal.evaluation.face_cases.from_prepared` of it.
        part: of its split.
        progress: told what is being done.
    """
    first = np.unique(cases.people, return_index=True)[1]
    genders = labels([cases.attributes[i] for i in first], "gender")
    names = [str(cases.people[i]) for i in first]
    place = {str(name): k for k, name in enumerate(cases.gallery.people)}
    shown = cases.gallery.picture

    def picture(index: int) -> Image.Image:
        assert shown is not None
        return shown(place[names[index]])

    faces = CycleFaces(names, genders, cases.gallery.features[[place[n] for n in names]], picture if shown else None)
    voices = None
    if cases.voice is not None:
        voices = CycleVoices(names, genders, [cases.voice(int(i)) for i in first])
    probes: list[Probe | None] = []
    notes = []
    manifest = Manifest.read(folder / "manifest.parquet")
    rest = sorted((r for r in manifest if r.attributes.get("split") != part), key=lambda row: splits.fraction(row.id))
    for kind in ("face", "voice"):
        try:
            if kind == "face":
                known = cases.known
                probes.append(train_probe(known.features, labels(known.attributes, "gender"), known.people, "gender"))
            else:
                progress("listening to voices for the gender probe")
                rows, embeddings = heard_elsewhere(drawing, folder, rest, 2 * PROBE_VOICES)
                values, people = labels([r.attributes for r in rows], "gender"), np.array([r.identity for r in rows])
                probes.append(voice_probe(embeddings, values, people))
        except DataError as error:
            probes.append(None)
            notes.append(f"no gender read in the {kind}: {error.problem}")
    return CyclePeople(faces, voices, probes[0], probes[1], notes + cases.notes)
