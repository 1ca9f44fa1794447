"""A voice for every face: pseudo-pairs from which the starter's face encoder learns (Face2Speech without paired data).

What a face says of a voice is gender, and where within it the person stands on the masculine–feminine cue
(:mod:`crossmodal.data.pseudo_pairs`). That is one number, and would give all men of the same rank one voice. So that
different people get different voices, a few further directions in which faces differ are tied to directions in which
voices
differ, **by a fixed random rotation**: they mean nothing, and say nothing about whom a voice belongs to.

Faces are those of the training people, and mixtures of two of the same gender; voices those of training speakers and
pseudo-speakers. Each face gets the voice nearest to it in (cue, random directions), no voice twice. Command::

    python -m crossmodal.data.pseudo_voices PREPARED_FACES OUT --features FEATURES [--pseudo PSEUDO]

writes a folder for the task ``face-encoder``: a manifest, and the features ``dlib-128`` and ``ge2e-256``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from crossmodal.data.features import FeatureWriter, feature
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.pseudo_pairs import gender_axis
from crossmodal.data.speech_features import SpeechFeatures, side_of
from crossmodal.data.splits import assign_parts
from crossmodal.data.starter_split import STUDIO_VOICES
from crossmodal.errors import DataError


@dataclass(frozen=True)
class PairingOptions:
    """How faces and voices are paired."""

    mixtures: int = 260
    """Mixtures of two training people, besides the people themselves."""
    directions: int = 6
    """Random directions besides the cue."""
    cue_weight: float = 2.0
    """Weight of the cue against each of them."""
    photos: int = 12
    """Photos (with mirrored and jittered copies) kept of each identity."""
    validation: float = 0.12
    """Share of the training people whose pairs choose the checkpoint."""
    seed: int = 0


def quantiles(values: np.ndarray) -> np.ndarray:
    """Ranks of ``(N,)`` as standard normal quantiles."""
    from scipy.stats import norm

    return norm.ppf((np.argsort(np.argsort(values)) + 0.5) / len(values))


def between_directions(values: np.ndarray, person: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``(D, count)``: the directions that tell identities apart best, given how one identity varies, in random
    rotation.

    Args:
        values: ``(N, D)``, identity means not removed.
        person: ``(N,)`` identity of each row.
    """
    labels = np.unique(person)
    means = np.stack([values[person == p].mean(0) for p in labels])
    residual = values - means[np.searchsorted(labels, person)]
    within = residual.T @ residual / len(values)
    within += 0.1 * np.trace(within) / len(within) * np.eye(len(within)) + 1e-9 * np.eye(len(within))
    lower = np.linalg.cholesky(np.linalg.inv(within))  # whitens what varies within a person
    _, _, axes = np.linalg.svd((means - means.mean(0)) @ lower, full_matrices=False)
    keep = min(count, len(axes))
    rotation, _ = np.linalg.qr(rng.standard_normal((keep, keep)))
    return lower @ axes[:keep].T @ rotation


def pair(
    faces: np.ndarray, face_person: np.ndarray, face_male: np.ndarray,
    voices: np.ndarray, voice_speaker: np.ndarray, voice_male: np.ndarray, options: PairingOptions,
) -> dict[int, int]:  # fmt: skip
    """Identity of a face → identity of a voice.

    Args:
        faces: ``(N, D)`` features of all photos; face_person: ``(N,)`` identity; face_male: ``(P,)`` by identity.
        voices: ``(M, 256)`` embeddings; voice_speaker: ``(M,)`` identity; voice_male: ``(S,)`` by identity.
    """
    rng = np.random.default_rng(options.seed)
    face_axis = gender_axis(faces, face_male[face_person])
    voice_axis = gender_axis(voices, voice_male[voice_speaker])
    pairs: dict[int, int] = {}
    for male in (False, True):
        people, speakers = np.flatnonzero(face_male == male), np.flatnonzero(voice_male == male)
        sides = []
        for values, owner, ids, axis in (
            (faces, face_person, people, face_axis),
            (voices, voice_speaker, speakers, voice_axis),
        ):
            rows = np.isin(owner, ids)
            means = np.stack([values[owner == i].mean(0) for i in ids])
            repeated = np.bincount(owner[rows]).max() > 1
            free = between_directions(
                values[rows] if repeated else means,
                owner[rows] if repeated else np.arange(len(ids)),
                options.directions,
                rng,
            )
            columns = [options.cue_weight * quantiles(axis.score(means))]
            columns += [quantiles(c) for c in (means @ free).T]
            sides.append(np.stack(columns, axis=1))
        distance = np.square(sides[0][:, None] - sides[1][None]).sum(-1)  # (P, S)
        if len(people) > len(speakers):
            raise DataError(
                f"{len(people)} faces but only {len(speakers)} voices of one gender", remedy="mix fewer faces"
            )
        for row, column in zip(*linear_sum_assignment(distance), strict=True):
            pairs[int(people[row])] = int(speakers[column])
    return pairs


def _validation(people: int, options: PairingOptions) -> set[int]:
    """Which of the people choose the checkpoint; mixtures are made of the others."""
    order = np.random.default_rng(options.seed + 1).permutation(people)
    return set(order[: max(2, round(options.validation * people))].tolist())


def _mix(
    by_view: dict[int, list[np.ndarray]], male: np.ndarray, options: PairingOptions
) -> tuple[list[list[np.ndarray]], list[bool]]:
    """Photos of each training person, then of mixtures of two of them; gender of each."""
    rng = np.random.default_rng(options.seed)
    validation = _validation(len(by_view), options)
    identities = [by_view[i][: options.photos] for i in sorted(by_view)]
    genders = [bool(male[i]) for i in range(len(identities))]
    for n in range(options.mixtures):
        same = [k for k in range(len(by_view)) if genders[k] == bool(n % 2) and k not in validation]
        a, b = rng.choice(same, 2, replace=False)
        share = rng.uniform(0.3, 0.7)
        count = min(len(identities[a]), len(identities[b]))
        mixed = [share * identities[a][k] + (1 - share) * identities[b][k] for k in range(count)]
        # Averaging shrinks what is special about a face; move the mixture out again to where faces lie.
        centre = np.mean([f for k in same for f in identities[k]], axis=0)
        stretch = 1.0 / np.sqrt(share**2 + (1 - share) ** 2)
        identities.append([centre + (f - centre) * stretch for f in mixed])
        genders.append(bool(n % 2))
    return identities, genders


def prepare_pseudo_voices(
    prepared: PreparedFaces,
    held_out: Sequence[str],
    features: Sequence[SpeechFeatures],
    folder: str | Path,
    options: PairingOptions | None = None,
) -> Manifest:
    """Write manifest and features of the pseudo-pairs into ``folder``; nobody in ``held_out`` is used."""
    options = options or PairingOptions()
    folder = Path(folder)
    names = prepared.aligned.names
    people = [i for i, name in enumerate(names) if name not in set(held_out)]
    photos = prepared.photos
    order = np.lexsort((photos.view, photos.copy))  # both views before the next copy
    by_view = {
        n: [photos.features[k] for k in order if photos.person[k] == i and np.isfinite(photos.features[k]).all()]
        for n, i in enumerate(people)
    }
    male = np.array([prepared.attributes[i].get("gender") == "male" for i in people])
    identities, genders = _mix(by_view, male, options)
    faces = np.concatenate([np.stack(f) for f in identities])
    face_person = np.repeat(np.arange(len(identities)), [len(f) for f in identities])
    speakers: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for k, folder_features in enumerate(features):
        for i, clip in enumerate(folder_features):
            known = clip.attributes.get("gender") in ("male", "female")
            if side_of(clip) == "train" and known and clip.seconds > 1.0:
                if clip.speaker.split("@")[0] in STUDIO_VOICES and "@" in clip.speaker and i % 8:
                    continue  # a few clips of each are enough
                speakers.setdefault((clip.corpus, clip.speaker), []).append((k, i))
    keys = _clear(speakers, features)
    voices = [np.stack([features[k].embedding(i) for k, i in speakers[key][:40]]) for key in keys]
    voice_speaker = np.repeat(np.arange(len(keys)), [len(v) for v in voices])
    voice_male = np.array([features[k][i].attributes["gender"] == "male" for key in keys for k, i in speakers[key][:1]])
    pairs = pair(faces, face_person, np.array(genders), np.concatenate(voices), voice_speaker, voice_male, options)
    return _write(folder, identities, genders, [names[i] for i in people], voices, keys, pairs, options)


def _clear(
    speakers: dict[tuple[str, str], list[tuple[int, int]]], features: Sequence[SpeechFeatures]
) -> list[tuple[str, str]]:
    """The real speakers, and the pseudo-speakers that still sound like their gender (judged by the real ones)."""
    keys = sorted(speakers)
    means = np.stack([np.mean([features[k].embedding(i) for k, i in speakers[key][:40]], axis=0) for key in keys])
    male = np.array([features[k][i].attributes["gender"] == "male" for key in keys for k, i in speakers[key][:1]])
    real = np.array(["@" not in speaker for _, speaker in keys])
    score = gender_axis(means[real], male[real]).score(means) * np.where(male, 1.0, -1.0)
    return [key for key, is_real, s in zip(keys, real, score, strict=True) if is_real or s > 0.4]


def _write(
    folder: Path, identities: list[list[np.ndarray]], genders: list[bool], names: list[str],
    voices: list[np.ndarray], keys: list[tuple[str, str]], pairs: dict[int, int], options: PairingOptions,
) -> Manifest:  # fmt: skip
    validation = _validation(len(names), options)
    face_writer = FeatureWriter(folder / "features" / "dlib-128", feature("dlib-128"))
    voice_writer = FeatureWriter(folder / "features" / "ge2e-256", feature("ge2e-256"))
    rows: list[Row] = []
    for i, photos in enumerate(identities):
        who = names[i] if i < len(names) else f"mixture-{i:04d}"
        side = "validation" if i in validation else "train"
        speaker = "/".join(keys[pairs[i]])
        attributes = {"gender": "male" if genders[i] else "female", "voice": speaker, "part": side}
        for k, value in enumerate(photos):
            name = f"pseudo/{who}/face-{k:02d}"
            rows.append(Row(name, "pseudo", who, attributes=attributes, licence="CC BY 4.0", pairing="pseudo"))
            face_writer.add(name, name, value.astype(np.float32))
        for k, value in enumerate(voices[pairs[i]]):
            name = f"pseudo/{who}/voice-{k:02d}"
            rows.append(Row(name, "pseudo", who, attributes=attributes, licence="as its corpus", pairing="pseudo"))
            voice_writer.add(name, name, value.astype(np.float32))
    face_writer.flush()
    voice_writer.flush()
    manifest = assign_parts(Manifest(rows), {"train": "train", "validation": "validation"}, name="pseudo-voices")
    manifest.write(folder / "manifest.parquet")
    return manifest


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line."""
    from crossmodal.evaluation.faces import HELD_OUT

    parser = argparse.ArgumentParser(description="Pair training faces with training voices.")
    parser.add_argument("faces", type=Path, help="folder of crossmodal.data.prepared_faces")
    parser.add_argument("out", type=Path, help="folder for manifest and features")
    parser.add_argument("--features", type=Path, required=True, help="folder of crossmodal.data.speech_features")
    parser.add_argument("--pseudo", type=Path, help="folder of crossmodal.data.pseudo_speakers")
    options = parser.parse_args(arguments)
    speech = [SpeechFeatures(f) for f in (options.features, options.pseudo) if f]
    made = prepare_pseudo_voices(PreparedFaces.load(options.faces), HELD_OUT, speech, options.out)
    print(f"{len(made.identities())} identities, {len(made)} rows, in {options.out}")


if __name__ == "__main__":
    main()
