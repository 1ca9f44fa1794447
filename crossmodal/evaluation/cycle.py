"""Both directions at once: face → speech → face, and speech → face → speech. What comes back of what went in?

A face is given a voice, and a face is drawn for that voice; a voice is given a face, and that face a voice. What a
round trip keeps is compared with what it keeps of *other* people (chance), with chance in finding the right one of N,
and with the gender-only oracle that finds somebody of the right gender. Where both ends are known to be one person's
(two recordings), their cosine is the ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.errors import DataError, NoFaceError
from crossmodal.evaluation.attributes import Probe, majority
from crossmodal.evaluation.craniofacial import pearson
from crossmodal.evaluation.drawing import Drawing, Drawn
from crossmodal.evaluation.face_retrieval import distances, paired, ranked
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.report import Sound

if TYPE_CHECKING:
    from PIL import Image

    from crossmodal.face2speech import Face2Speech

TEXT = (
    "The small boat crossed the wide river before the storm. A dog barked twice behind the garden wall, "
    "and then the whole street was quiet again."
)
"""What every face says: about seven seconds."""
SHOWN = 6


@dataclass
class CycleFaces:
    """People whose face starts a round trip."""

    people: Sequence[str]
    gender: np.ndarray
    """``(N,)``; empty where unknown."""
    features: np.ndarray
    """``(N, D)`` face features of the photos."""
    picture: Callable[[int], Image.Image] | None = None
    """Their photos; needed by face encoders that read pixels."""


@dataclass
class CycleVoices:
    """People whose voice starts a round trip."""

    people: Sequence[str]
    gender: np.ndarray
    """``(N,)``; empty where unknown."""
    waveforms: Sequence[np.ndarray]
    """Speech ``(T_i,)`` at 16 kHz."""
    others: Sequence[np.ndarray] | None = None
    """Other speech of the same people: what natural speech keeps."""


@dataclass
class CycleResult:
    """What was measured."""

    figures: list[Figure] = field(default_factory=list)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    recordings: dict[str, Sound] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def embed_faces(
    drawing: Drawing, features: np.ndarray, picture: Callable[[int], Image.Image] | None = None
) -> np.ndarray:
    """Faces → ``(N, 256)`` in the shared space, from their features, or from pictures if the encoder reads pixels.

    Raises:
        DataError: the encoder reads pixels and there are no pictures.
    """
    import torch

    journey = drawing.journey
    encoder = journey.module("face-encoder")
    if not getattr(encoder.config, "chip", ""):
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(journey.device)
            return encoder(inputs).float().cpu().numpy()
    if picture is None:
        raise DataError("the face encoder reads pictures and there are none", source="faces")
    found = []
    for index in range(len(features)):
        image = picture(index)
        try:
            found.append(journey.face_embedding(image, index=0).numpy())
        except NoFaceError:
            found.append(journey.face_embedding(image, no_detect=True).numpy())
    return np.stack(found)


def measure(
    drawing: Drawing,
    speaking: Face2Speech,
    faces: CycleFaces | None,
    voices: CycleVoices | None,
    *,
    face_probe: Probe | None = None,
    voice_probe: Probe | None = None,
    text: str = TEXT,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> CycleResult:
    """Both round trips.

    Args:
        drawing: voice → face of the bundle.
        speaking: face → speech of the same bundle.
        faces: where face → speech → face starts; ``None`` leaves it out.
        voices: where speech → face → speech starts; ``None`` leaves it out.
        face_probe: gender in face features, fitted on real faces of others.
        voice_probe: gender in speaker embeddings, fitted on natural voices of others.
        text: what is spoken.
        seed: of the bootstraps.
        progress: told what is being done.

    Raises:
        DataError: neither faces nor voices, or fewer than two people.
    """
    if faces is None and voices is None:
        raise DataError("neither faces nor voices to start from", source="cycle")
    result = CycleResult()
    trip = _Trip(drawing, speaking, face_probe, voice_probe, text, seed, result)
    if faces is not None:
        _enough(faces.people, "faces")
        progress(f"face → speech → face, {len(faces.people)} people")
        trip.from_faces(faces)
    if voices is not None:
        _enough(voices.people, "voices")
        progress(f"speech → face → speech, {len(voices.people)} people")
        trip.from_voices(voices)
    return result


def _enough(people: Sequence[str], what: str) -> None:
    if len(people) < 2:
        raise DataError(f"{len(people)} people are too few: a round trip is compared with other people's", source=what)


class _Trip:
    """The two round trips with one bundle."""

    def __init__(
        self,
        drawing: Drawing,
        speaking: Face2Speech,
        face_probe: Probe | None,
        voice_probe: Probe | None,
        text: str,
        seed: int,
        result: CycleResult,
    ) -> None:
        self.drawing, self.speaking, self.text, self.seed, self.result = drawing, speaking, text, seed, result
        self.probes = {"face": face_probe, "voice": voice_probe}

    # ------------------------------------------------------------------ face → speech → face

    def from_faces(self, faces: CycleFaces) -> None:
        name = "face → speech → face"
        before = embed_faces(self.drawing, faces.features, faces.picture)
        waves = self._speak(before)
        heard = self.drawing.embed(waves)
        drawn = self.drawing.draw(self.drawing.features(waves, heard))
        after = embed_faces(self.drawing, drawn.feature, drawn.picture)
        self._compare(f"{name}: cosine of the face and its speech", before, heard, faces.gender)
        self._compare(f"{name}: cosine of the face before and after", before, after, faces.gender)
        table = distances(drawn.feature, faces.features)
        self._angle(f"{name}: angle of the face features before and after", faces.features, drawn.feature)
        self._found(f"{name}: the face before and after, by face feature", table, faces.gender)
        self._gender(name, "face", faces.gender, faces.features, drawn.feature, "before", "after")
        self._gender(name, "voice", faces.gender, None, heard, "", "on the way")
        self._detected(name, drawn)
        self._show_faces(faces, drawn, waves)

    # ------------------------------------------------------------------ speech → face → speech

    def from_voices(self, voices: CycleVoices) -> None:
        from crossmodal.evaluation.speech_measures import median_f0

        name = "speech → face → speech"
        before = self.drawing.embed(voices.waveforms)
        drawn = self.drawing.draw(self.drawing.features(voices.waveforms, before))
        seen = embed_faces(self.drawing, drawn.feature, drawn.picture)
        waves = self._speak(seen)
        after = self.drawing.embed(waves)
        natural: dict[str, Any] = {}
        if voices.others is not None:
            own = (before * self.drawing.embed(voices.others)).sum(1)
            natural = {"ceiling": float(own.mean()), "ceiling_name": "natural, same person"}
        self._compare(f"{name}: cosine of the speech and its face", before, seen, voices.gender)
        self._compare(f"{name}: cosine of the speech before and after", before, after, voices.gender, **natural)
        self._gender(name, "voice", voices.gender, before, after, "before", "after")
        self._gender(name, "face", voices.gender, None, drawn.feature, "", "on the way")
        f0 = np.array([[median_f0(a), median_f0(b)] for a, b in zip(voices.waveforms, waves)])
        self._pitch(name, f0, voices.gender)
        self._detected(name, drawn)
        for index in range(min(2, len(waves))):
            self.result.recordings[f"{voices.people[index]}, before"] = (voices.waveforms[index], 16_000)
            self.result.sounds[f"{voices.people[index]}, after {name}"] = (waves[index], 16_000)

    # ------------------------------------------------------------------ figures

    def _add(self, name: str, values: Any, **more: Any) -> None:
        self.result.figures.append(figure(name, values, seed=self.seed, **more))

    def _speak(self, embeddings: np.ndarray) -> list[np.ndarray]:
        import torch

        found = []
        for row in embeddings:
            found.append(self.speaking.speak(self.text, embedding=torch.tensor(row, dtype=torch.float32)).waveform)
        return found

    def _compare(
        self,
        name: str,
        before: np.ndarray,
        after: np.ndarray,
        gender: np.ndarray,
        ceiling: float | None = None,
        ceiling_name: str = "",
    ) -> None:
        """Cosine of each one's own ends beside that to other people's, and top-1 of all."""
        cosine = after @ before.T
        others = cosine[~np.eye(len(cosine), dtype=bool)]
        floor = float(others.mean())
        more: dict[str, Any] = {"reference": floor, "reference_name": "other people"}
        if ceiling is not None:
            more = {"reference": ceiling, "reference_name": ceiling_name, "chance": floor}
        self._add(name, np.diag(cosine), **more)
        short = name.replace("cosine of ", "")
        same = (gender[:, None] == gender[None]) & (gender != "")[:, None] & ~np.eye(len(cosine), dtype=bool)
        rows = same.any(1)
        if rows.any():
            alike = np.array([cosine[i][same[i]].mean() for i in np.flatnonzero(rows)])
            own = np.diag(cosine)[rows] - alike
            self._add(f"{short}, cosine above others of the same gender", own, chance=0.0)
        self._found(short, -cosine, gender)

    def _found(self, name: str, table: np.ndarray, gender: np.ndarray) -> None:
        """Top-1 over ``(N, N)`` distances, beside chance and the oracle that knows the gender alone."""
        count = len(table)
        oracle = {}
        if (gender != "").all():
            shares = [1 / np.count_nonzero(gender == g) for g in gender]
            oracle = {"reference": float(np.mean(shares)), "reference_name": "gender only"}
        own = ranked(table, np.arange(count)).recall_at_k(1)
        self._add(f"{name}, top-1 of {count}", own, chance=1 / count, **oracle)

    def _angle(self, name: str, before: np.ndarray, after: np.ndarray) -> None:
        table = distances(after, before)
        other = float(table[~np.eye(len(table), dtype=bool)].mean())
        own = paired(after, before)
        self._add(name, own, reference=other, reference_name="other people", unit="degrees")

    def _gender(
        self,
        name: str,
        kind: str,
        gender: np.ndarray,
        before: np.ndarray | None,
        after: np.ndarray,
        first: str,
        last: str,
    ) -> None:
        """What the probe reads at each end, against the known gender and against itself."""
        probe = self.probes[kind]
        if probe is None:
            return
        read = probe.read(after)
        known = np.array([g in probe.classes for g in gender])
        if known.any():
            about = {"reference": majority(gender[known]), "reference_name": "chance"}
            if before is not None:
                at_start = (probe.read(before)[known] == gender[known]).astype(float)
                self._add(f"{name}: gender read in the {kind} {first}", at_start, **about)
            self._add(
                f"{name}: gender read in the {kind} {last}", (read[known] == gender[known]).astype(float), **about
            )
        if before is not None:
            start = probe.read(before)
            kept = (read == start).astype(float)
            self._add(f"{name}: gender read stays the same", kept, reference=majority(start), reference_name="chance")

    def _pitch(self, name: str, f0: np.ndarray, gender: np.ndarray) -> None:
        """Median F0 of the speech after against before, over people; and within the genders."""
        good = np.isfinite(f0).all(1) & (f0 > 0).all(1)
        if good.sum() < 3:
            self.result.notes.append(f"{name}: too little voiced speech to compare F0")
            return
        pairs, known = np.log2(f0[good]), gender[good]
        means = {g: pairs[known == g, 0].mean() for g in set(known)}
        by_gender = pearson(np.stack([pairs[:, 0], [means[g] for g in known]], axis=1))
        more: dict[str, Any] = {"chance": 0.0}
        if len(means) > 1 and "" not in means:
            more |= {"reference": by_gender, "reference_name": "gender only"}
        self._add(f"{name}: median F0 before and after, r of log F0", pairs, statistic=pearson, **more)
        if len(means) > 1 and "" not in means:
            centred = pairs - np.stack([pairs[known == g].mean(0) for g in known])
            self._add(f"{name}: the same within the genders", centred, statistic=pearson, chance=0.0)
        error = 12 * np.abs(pairs[:, 1] - pairs[:, 0])
        shuffled = 12 * np.abs(pairs[:, None, 1] - pairs[None, :, 0])[~np.eye(len(pairs), dtype=bool)]
        self._add(
            f"{name}: median F0, error", error,
            reference=float(shuffled.mean()), reference_name="other people", unit="semitones",
        )  # fmt: skip

    def _detected(self, name: str, drawn: Drawn) -> None:
        self._add(f"{name}: the detector sees a face in the drawn one", drawn.found.astype(float))

    def _show_faces(self, faces: CycleFaces, drawn: Drawn, waves: Sequence[np.ndarray]) -> None:
        """Photos above, what came back below; and the first two voices in between."""
        from crossmodal.pictures import contact_sheet

        count = min(SHOWN, len(faces.people))
        if faces.picture is not None:
            images = [faces.picture(i) for i in range(count)] + [drawn.picture(i) for i in range(count)]
            captions = [str(p) for p in faces.people[:count]] + ["generated"] * count
            self.result.pictures["face-speech-face"] = contact_sheet(images, captions, columns=count, tile=180)
        for index in range(min(2, len(waves))):
            self.result.sounds[f"voice of the face {faces.people[index]}"] = (waves[index], 16_000)
