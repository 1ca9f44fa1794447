"""What is audited: the starter's held-out people, in both directions, or one part of a prepared data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.errors import AudioError
from crossmodal.evaluation.attributes import Probe, labels
from crossmodal.evaluation.audits import AuditVoices, break_down, sweeps
from crossmodal.evaluation.cycle import TEXT, embed_faces
from crossmodal.evaluation.cycle_people import known_voices, voice_probe
from crossmodal.evaluation.drawing import Drawing
from crossmodal.evaluation.face_cases import FaceCases, from_london
from crossmodal.evaluation.figures import Curve, Figure
from crossmodal.evaluation.generated_faces import CaseValues, GeneratedFaces, measure
from crossmodal.evaluation.voice_faces import HeldOutVoice, held_out_voices
from crossmodal.face2speech import Face2Speech

Say = Callable[[str], None]


@dataclass
class Audit:
    """What was found."""

    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_groups(self, cases: Sequence[CaseValues], attributes: Sequence, people: np.ndarray, about: str) -> None:
        """Break figures down by groups; ``about`` says of whom, in the notes."""
        found = break_down(cases, attributes, people)
        self.figures += found.figures
        self.tables += found.tables
        self.notes += [f"{about}: {note}" for note in found.notes]


def _silent(line: str) -> None:
    pass


def starter(
    drawing: Drawing,
    speaking: Face2Speech,
    data: Path,
    prepared: PreparedFaces,
    held_out: Sequence[str],
    *,
    speakers: int = 20,
    swept: bool = True,
    progress: Say = _silent,
) -> Audit:
    """Photo → face, face → speech and voice → face by groups, and the sweeps, on people held out of the starter.

    Args:
        drawing: voice → face of the bundle.
        speaking: face → speech of the same bundle.
        data: the development data.
        prepared: the London faces.
        held_out: London people that no part of the starter was trained on.
        speakers: most speakers of each corpus; 0 for all.
        swept: whether clip length, noise and sample rate are swept.
        progress: told what is being done.
    """
    found = Audit()
    cases = from_london(drawing, prepared, held_out)
    faces = measure(drawing, cases, pictures=0, progress=progress)
    found.add_groups(faces.cases, cases.attributes, cases.people, "photo → face")
    progress("giving voices to faces")
    waves, genders, people = known_voices(data)
    heard = voice_probe(drawing.embed(waves), genders, people)
    found.figures.append(heard.accuracy)
    found.add_groups(_spoken(drawing, speaking, cases, heard, data), cases.attributes, cases.people, "face → speech")
    progress("drawing faces for voices")
    voices = held_out_voices(data, limit=speakers)
    gender = np.array(["male" if v.male else "female" for v in voices], dtype=object)
    names = np.array([v.speaker for v in voices])
    probe = faces.probes.get("gender")
    known = [{"gender": str(g)} for g in gender]
    found.add_groups(_drawn(drawing, voices, gender, probe), known, names, "voice → face")
    if probe is not None:
        found.figures.append(probe.accuracy)
    if swept:
        whole = [np.concatenate([v.one, v.other]) for v in voices]
        curves, notes = sweeps(drawing, AuditVoices(list(names), gender, whole), probe, progress=progress)
        found.curves += curves
        found.notes += notes
    return found


def _spoken(drawing: Drawing, speaking: Face2Speech, cases: FaceCases, probe: Probe, data: Path) -> list[CaseValues]:
    """Face → speech: does the speech have the face's gender, and how near is it to the face's embedding?"""
    import torch

    from crossmodal.faces import load_image

    names = [str(name).split("/")[1] for name in cases.people]
    photos = data / "london_faces" / "neutral_front"
    wanted = embed_faces(drawing, cases.true, lambda i: load_image(photos / f"{names[i]}_03.jpg"))
    waves = [speaking.speak(TEXT, embedding=torch.tensor(row, dtype=torch.float32)).waveform for row in wanted]
    heard = drawing.embed(waves)
    gender = labels(cases.attributes, "gender")
    right = np.where(gender != "", (probe.read(heard) == gender).astype(float), np.nan)
    return [
        CaseValues("face → speech: gender heard agrees", right, True),
        CaseValues("face → speech: cosine of the face and its speech", (heard * wanted).sum(1), True),
    ]


def _drawn(
    drawing: Drawing, voices: Sequence[HeldOutVoice], gender: np.ndarray, probe: Probe | None
) -> list[CaseValues]:
    """Voice → face: does the face have the voice's gender, and is it the same for another recording?"""
    first, second = (drawing.features([getattr(v, part) for v in voices]) for part in ("one", "other"))
    found = [
        CaseValues(
            "voice → face: distance of faces, two recordings of one speaker",
            np.linalg.norm(first - second, axis=1),
            False,
        )
    ]
    if probe is not None:
        read = probe.read(drawing.draw(first, keep=()).feature)
        found.insert(
            0, CaseValues("voice → face: gender of the drawn face agrees", (read == gender).astype(float), True)
        )
    return found


def of_prepared(
    drawing: Drawing, cases: FaceCases, *, voices: int = 40, swept: bool = True, progress: Say = _silent
) -> tuple[Audit, GeneratedFaces]:
    """Figures of generated faces by groups, and the sweeps, on one part of a prepared data set.

    Args:
        drawing: the bundle.
        cases: :func:`crossmodal.evaluation.face_cases.from_prepared`.
        voices: most voices in the sweeps, one a person; 0 for all.
        swept: whether clip length, noise and sample rate are swept.
        progress: told what is being done.
    """
    found = Audit(notes=list(cases.notes))
    faces = measure(drawing, cases, pictures=0, progress=progress)
    found.add_groups(faces.cases, cases.attributes, cases.people, "voice → face")
    probe = faces.probes.get("gender")
    if probe is not None:
        found.figures.append(probe.accuracy)
    if swept and cases.voice is None:
        found.notes.append("no sweeps: they need waveforms or sound files")
    elif swept and cases.voice is not None:
        names, waves, rows = [], [], []
        for row in np.unique(cases.people, return_index=True)[1][: voices or None]:
            try:
                waves.append(cases.voice(int(row)))
            except AudioError:
                continue
            names.append(str(cases.people[row]))
            rows.append(int(row))
        gender = labels([cases.attributes[row] for row in rows], "gender")
        curves, notes = sweeps(drawing, AuditVoices(names, gender, waves), probe, progress=progress)
        found.curves += curves
        found.notes += notes
    return found, faces
