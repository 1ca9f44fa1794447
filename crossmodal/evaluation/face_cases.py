"""What generated faces are measured on: true face features, what the faces are drawn from, and real faces beside them.

Two sources: a folder of ``crossmodal prepare`` whose rows pair a voice with a face (:func:`from_prepared`), and the
London faces, where a photo takes the voice's place (:func:`from_london`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.data import splits
from crossmodal.data.features import FeatureStore, Media
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.errors import AudioError, DataError, SpaceMismatchError
from crossmodal.evaluation.drawing import Drawing
from crossmodal.evaluation.face_retrieval import GALLERY
from crossmodal.models.spaces import space_size

if TYPE_CHECKING:
    from PIL import Image

RATE = AudioConfig().sample_rate
LONGEST = 20.0
"""Seconds of speech of a clip that are heard, at most."""
PROBE_FACES = 20_000
"""Real faces that probes and baselines are made of, at most."""
PROBE_CHIPS = 2_000
"""The same, where their features have to be computed from chips."""


@dataclass
class RealFaces:
    """Features of real faces."""

    features: np.ndarray
    """``(M, D)``"""
    people: np.ndarray
    """``(M,)``"""
    attributes: Sequence[Mapping[str, str]]
    picture: Callable[[int], Image.Image] | None = None
    """Row → its photo."""

    def __len__(self) -> int:
        return len(self.features)


@dataclass
class FaceCases:
    """``N`` cases: a true face, and what a face is drawn from."""

    space: str
    people: np.ndarray
    """``(N,)`` identities."""
    attributes: Sequence[Mapping[str, str]]
    true: np.ndarray
    """``(N, D)``"""
    inputs: dict[str, np.ndarray]
    """What the faces are drawn from, by name: features ``(N, D)``."""
    gallery: RealFaces
    """One true face of each person to be found, and of others."""
    known: RealFaces
    """Real faces of people who are not tested; may be empty."""
    identity: bool = True
    """Whether the faces are those of the voices' owners; pseudo-pairs only share attributes."""
    points: np.ndarray | None = None
    """``(N, L, 2)`` landmarks of the true faces, marked by hand; ``None``: the decoder places them."""
    embeddings: np.ndarray | None = None
    """``(N, 256)`` speaker embeddings; ``None`` where nothing was heard."""
    voice: Callable[[int], np.ndarray] | None = None
    """Case → its speech ``(T,)`` at 16 kHz, silences cut."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = self.true.shape[1]
        for name, values in {
            **self.inputs,
            "gallery": self.gallery.features,
            "real faces": self.known.features,
        }.items():
            if len(values) and values.shape[1] != size:
                problem = f"{name} has {values.shape[1]} components, the true faces have {size}: mixed feature spaces"
                raise SpaceMismatchError(problem, source=self.space, remedy="prepare the features of one space")
            if not np.isfinite(values).all():
                raise DataError(f"{name}: holds NaN or infinite numbers", source=self.space, remedy="prepare it again")


# ---------------------------------------------------------------------------------------- prepared data


def from_prepared(
    drawing: Drawing,
    folder: str | Path,
    part: str = "test",
    *,
    limit: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> FaceCases:
    """Voices and true faces of one part of a prepared data set.

    Rows with a voice and a true face are cases; a row without a face of its own takes the mean of its person's. The
    gallery holds one face of each person (5,000 at most). Probes and baselines are made of the other parts' faces.

    Args:
        drawing: the bundle.
        folder: what ``crossmodal prepare -o`` wrote.
        part: of its split.
        limit: most cases, chosen by a hash of their ids; 0 for all.
        progress: told what is being done.

    Raises:
        DataError: no such part, nobody in it has a voice and a true face, or a feature is not finite.
        LeakageError: a person is in several parts.
        SpaceMismatchError: the features are not those of the bundle's space.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder / "manifest.parquet")
    splits.check_disjoint(manifest)
    tested = splits.part(manifest, part)
    faces = _Faces(drawing, folder)
    progress("reading the true faces")
    rows = [row for row in tested if row.pairing is not None and faces.has(row)] or [r for r in tested if faces.has(r)]
    if not rows:
        raise DataError(
            f"no row of the part '{part}' has a true face",
            source=folder,
            remedy=f"prepare them: crossmodal prepare ... --features {drawing.space} (or chip-{drawing.space})",
        )
    shown = {row.identity for row in rows}
    own = {row.id for row in rows}
    heard = [row for row in tested if row.identity in shown and (row.id in own or row.pairing is None)]
    voices = _Voices(drawing, folder)
    heard = sorted((row for row in heard if voices.has(row)), key=_by_hash)
    if not heard:
        raise DataError(f"nobody in the part '{part}' has a voice and a true face", source=folder)
    heard = heard[:limit] if limit else heard
    progress(f"listening to {len(heard)} voices")
    heard, predicted, embeddings, skipped = voices.listen(heard)
    people = sorted({row.identity for row in heard}, key=splits.fraction)[:GALLERY]
    kept = [i for i, row in enumerate(heard) if row.identity in set(people)]
    heard = [heard[i] for i in kept]
    true, first = _true_faces(faces, rows, heard)
    gallery_rows = [first[name] for name in people]
    rest = sorted((r for r in manifest if r.attributes.get("split") != part and faces.has(r)), key=_by_hash)
    rest = rest[: PROBE_FACES if faces.stored is not None else PROBE_CHIPS]
    notes = [f"{skipped} voices hold too little speech and were left out"] if skipped else []
    pseudo = any(row.pairing == "pseudo" for row in heard)
    if pseudo:
        notes.append("pseudo-pairs: voice and face are of different people, so nothing is said about identity")
    if not rest:
        notes.append("no part but the tested one has faces: no attribute probes, no gender-only baseline")
    return FaceCases(
        space=drawing.space,
        people=np.array([row.identity for row in heard]),
        attributes=[row.attributes for row in heard],
        true=true,
        inputs={"the voice": predicted[kept]},
        gallery=RealFaces(
            faces.features(gallery_rows),
            np.array(people),
            [row.attributes for row in gallery_rows],
            lambda index: faces.picture(gallery_rows[index]),
        ),
        known=RealFaces(
            faces.features(rest) if rest else np.zeros((0, true.shape[1]), np.float32),
            np.array([row.identity for row in rest]),
            [row.attributes for row in rest],
        ),
        identity=not pseudo,
        embeddings=None if embeddings is None else embeddings[kept],
        voice=(lambda index: voices.speech(heard[index])) if voices.source in ("waveform", "audio") else None,
        notes=notes,
    )


def _by_hash(row: Row) -> float:
    return splits.fraction(row.id)


def _true_faces(faces: _Faces, rows: Sequence[Row], heard: Sequence[Row]) -> tuple[np.ndarray, dict[str, Row]]:
    """True feature of every heard row ``(N, D)``, and the first row with a face of every person."""
    needed = {row.identity for row in heard}
    by_person: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row.identity in needed), key=lambda row: row.id):
        by_person.setdefault(row.identity, []).append(row)
    used = [row for some in by_person.values() for row in some]
    values = dict(zip([row.id for row in used], faces.features(used)))
    means = {name: np.mean([values[r.id] for r in by_person[name]], axis=0) for name in needed}
    true = np.stack([values.get(row.id, means[row.identity]) for row in heard])
    return true.astype(np.float32), {name: by_person[name][0] for name in needed}


class _Faces:
    """True face features of rows: stored, or computed from stored chips or the pictures themselves."""

    def __init__(self, drawing: Drawing, folder: Path) -> None:
        self.drawing, self.folder, self.space = drawing, folder, drawing.space
        self.stored = _store(folder, self.space)
        self.chips = _store(folder, f"chip-{self.space}")
        self.shown = next((s for s in (_store(folder, n) for n in _CHIPS) if s is not None), None)
        self.cache: dict[str, np.ndarray] = {}

    def has(self, row: Row) -> bool:
        """Whether the row has a true face."""
        return any(store is not None and row.id in store for store in (self.stored, self.chips))

    def features(self, rows: Sequence[Row]) -> np.ndarray:
        """``(N, D)``.

        Raises:
            SpaceMismatchError: the stored values are not of the bundle's space. DataError: one is not finite.
        """
        missing = [row for row in rows if row.id not in self.cache]
        size = space_size(self.space)
        for row in missing:
            if self.stored is not None and row.id in self.stored:
                value = np.asarray(self.stored[row.id], dtype=np.float32)
                if value.shape != (size,):
                    problem = f"'{row.id}' has shape {value.shape}, {self.space} has ({size},): mixed feature spaces"
                    raise SpaceMismatchError(problem, source=self.stored.folder, remedy="prepare the features again")
                self.cache[row.id] = value
        left = [row for row in missing if row.id not in self.cache]
        for start in range(0, len(left), 64):
            assert self.chips is not None
            some = left[start : start + 64]
            values = self.drawing.embed_chips(np.stack([self.chips[row.id] for row in some]))
            self.cache.update(zip([row.id for row in some], values))
        for row in missing:
            if not np.isfinite(self.cache[row.id]).all():
                problem = f"the face feature of '{row.id}' holds NaN or infinite numbers"
                raise DataError(problem, source=self.folder, remedy="prepare it again")
        return np.stack([self.cache[row.id] for row in rows])

    def picture(self, row: Row) -> Image.Image:
        """The photo, or the chip that was prepared of it; grey if there is neither."""
        from PIL import Image

        if self.shown is not None and row.id in self.shown:
            return Image.fromarray(np.asarray(self.shown[row.id]))
        if row.face is not None and row.face.is_file():
            return Media(row).image
        return Image.new("RGB", (160, 160), (200, 200, 200))


_CHIPS = ("chip-vggface-4096", "chip-facenet-512", "chip-dlib-128")


class _Voices:
    """What is heard of rows: prepared waveforms, sound files, prepared spectrograms or prepared embeddings."""

    def __init__(self, drawing: Drawing, folder: Path) -> None:
        self.drawing = drawing
        self.source = "waveform"
        self.store = _store(folder, "waveform")
        if self.store is None:
            other = "spectrogram" if drawing.route == "spectrogram" else "ge2e-256"
            self.store, self.source = _store(folder, other), other
        self.folder = folder

    def has(self, row: Row) -> bool:
        """Whether the row can be heard."""
        if self.store is None and row.audio is not None and row.audio.is_file():
            self.source = "audio"
            return True
        return self.store is not None and row.id in self.store

    def speech(self, row: Row) -> np.ndarray:
        """``(T,)`` at 16 kHz without its silences, 20 s at most.

        Raises:
            AudioError: too little speech.
        """
        from crossmodal.audio import load_speech

        if self.store is not None and self.source == "waveform":
            waveform = np.asarray(self.store[row.id], dtype=np.float32) / 32768.0
            speech = load_speech(waveform, sample_rate=RATE, min_seconds=0.3)
        else:
            speech = Media(row).speech
        return speech[: int(LONGEST * RATE)]

    def listen(self, rows: Sequence[Row]) -> tuple[list[Row], np.ndarray, np.ndarray | None, int]:
        """Rows that could be heard, their predicted face features, speaker embeddings, and how many could not.

        Raises:
            DataError: nothing could be heard.
        """
        if self.source in ("spectrogram", "ge2e-256") and self.store is not None:
            values = [np.asarray(self.store[row.id], dtype=np.float32) for row in rows]
            if self.source == "spectrogram":
                return list(rows), self.drawing.from_spectrograms(values), None, 0
            embeddings = np.stack(values)
            return list(rows), self.drawing.modes(embeddings), embeddings, 0
        kept, found, heard = [], [], []
        for start in range(0, len(rows), 16):
            some, waves = [], []
            for row in rows[start : start + 16]:
                try:
                    waves.append(self.speech(row))
                    some.append(row)
                except AudioError:
                    continue
            if not some:
                continue
            embedding = self.drawing.embed(waves) if "speaker-encoder" in self.drawing.journey.bundle else None
            kept += some
            found.append(self.drawing.features(waves, embedding))
            heard += [embedding] if embedding is not None else []
        if not kept:
            raise DataError("holds no speech in the voices to be tested", source=self.folder)
        return kept, np.concatenate(found), np.concatenate(heard) if heard else None, len(rows) - len(kept)


def heard_elsewhere(drawing: Drawing, folder: Path, rows: Sequence[Row], most: int) -> tuple[list[Row], np.ndarray]:
    """Speaker embeddings ``(N, 256)`` of some rows of prepared data, and the rows.

    Raises:
        DataError: none of them can be heard, or the bundle has no speaker encoder.
    """
    voices = _Voices(drawing, folder)
    some = [row for row in rows if voices.has(row)][:most]
    if not some:
        raise DataError("no other part has voices", source=folder)
    kept, _, embeddings, _ = voices.listen(some)
    if embeddings is None:
        raise DataError("no speaker embeddings: the bundle has no speaker encoder, or only spectrograms are prepared",
                        source=folder)  # fmt: skip
    return kept, embeddings


def _store(folder: Path, name: str) -> FeatureStore | None:
    place = folder / "features" / name
    return FeatureStore(place) if place.is_dir() and any(place.glob("*.safetensors")) else None


# ---------------------------------------------------------------------------------------- London faces


def from_london(drawing: Drawing, prepared: PreparedFaces, held_out: Sequence[str]) -> FaceCases:
    """Held-out people whose *photo* is drawn again: from the neutral photo itself, and from the smiling one.

    The true face is the neutral photo; the gallery is everybody's neutral photo, tested or not.

    Args:
        drawing: the bundle.
        prepared: all people, held out and not.
        held_out: people the decoder was not trained on.

    Raises:
        SpaceMismatchError: the bundle's faces are of another space than the prepared ones.
        DataError: a held-out person is not there.
    """
    if prepared.photos.features.shape[1] != space_size(drawing.space):
        size = prepared.photos.features.shape[1]
        problem = f"the prepared faces have {size} components, the bundle's faces are {drawing.space}"
        raise SpaceMismatchError(problem, source="prepared faces", remedy="use a bundle of their space")
    neutral, smiling = prepared.feature(0), prepared.feature(1)
    both = np.isfinite(neutral).all(1) & np.isfinite(smiling).all(1)
    held = [i for i in prepared.indices(held_out) if both[i]]
    shown = np.flatnonzero(np.isfinite(neutral).all(1))
    if not held:
        raise DataError("nobody who is held out has a neutral and a smiling photo", source="prepared faces")
    names = np.array([f"london/{name}" for name in prepared.aligned.names])
    photos = prepared.photos
    rest = np.flatnonzero((photos.copy == 0) & ~np.isin(photos.person, held))
    background = np.array([236, 237, 240])

    def picture(index: int) -> Image.Image:
        from PIL import Image

        rgba = prepared.aligned.pictures[shown[index]].astype(np.float32)
        alpha = rgba[..., 3:] / 255
        return Image.fromarray((rgba[..., :3] * alpha + background * (1 - alpha)).round().astype(np.uint8))

    return FaceCases(
        space=drawing.space,
        people=names[held],
        attributes=[prepared.attributes[i] for i in held],
        true=neutral[held],
        inputs={"the photo": neutral[held], "another photo": smiling[held]},
        gallery=RealFaces(neutral[shown], names[shown], [prepared.attributes[i] for i in shown], picture),
        known=RealFaces(
            photos.features[rest], names[photos.person[rest]], [prepared.attributes[i] for i in photos.person[rest]]
        ),
        points=prepared.aligned.points[held][:, :189],
        notes=["photo → face: a photo takes the voice's place, nothing is said about voices"],
    )
