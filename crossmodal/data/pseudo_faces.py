"""A face for every voice: pseudo-pairs to train the published voice encoder on (Speech2Face without paired data).

They are the pairs of the starter's feature head (:mod:`crossmodal.data.pseudo_pairs`): the same speakers and people,
the same two scales and the same curve between them. Every clip comes in several versions: as it is, 1.5 s of it, as a
phone and a noisy room change it, and with pitch and formants moved, some of those changed once more.

Many faces fit one voice. The feature head is given another one each time and learns their distribution; a voice encoder
answers with one feature, of which any single fitting face would be noise around the mean. So the target is that mean:
the expectation of the faces that the feature head is given (:meth:`~crossmodal.data.pseudo_pairs.Pairing.expected`).

The place of a clip is measured on the clip as it was recorded, and a version that leaves the speaker alone keeps it:
noise is not to make a voice more masculine. Moving pitch and formants moves the place by what that does to its
anatomy. Command::

    python -m crossmodal.data.pseudo_faces PREPARED_FACES OUT --features SPEECH_FEATURES [--voices VOICES]

writes a folder for the task ``voice-encoder``: a manifest, and the features ``waveform`` and ``dlib-128``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.data.features import FeatureWriter, feature
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.prepared_voices import SHIFT, PreparedVoices, change_voice, prepare_voices
from crossmodal.data.pseudo_pairs import Pairing, by_split, match, pair
from crossmodal.data.speech_features import ClipInfo, SpeechFeatures
from crossmodal.data.splits import assign_parts
from crossmodal.data.starter_split import STUDIO_VOICES, speaker_split
from crossmodal.data.voice_cues import voice_cues
from crossmodal.errors import AudioError, DataError

STEADY = ("clean", "short", "phone", "noise")
"""Versions that leave the speaker alone (:data:`crossmodal.data.prepared_voices.CHANGES`)."""
MOVED = (("shifted",), ("shifted", "phone"), ("shifted",), ("shifted", "noise"))
"""What is done to copies with pitch and formants moved, in turn."""
_RATE, _HOP = 16_000, 200
_SHARD = 64_000_000


@dataclass(frozen=True)
class FacePairingOptions:
    """Which speech is used, and how it is changed."""

    clips: int = 3
    """Most clips of a speaker; ten times as many of the studio voices."""
    seconds: float = 10.0
    """Most of a clip."""
    moved: int = 8
    """Copies of each clip with pitch and formants moved."""
    level: tuple[float, float] = (0.35, 1.4)
    """Range of the factor on each version's level."""
    seed: int = 0


def prepare_pseudo_faces(
    prepared: PreparedFaces,
    held_out: Sequence[str],
    voices: PreparedVoices,
    features: SpeechFeatures,
    folder: str | Path,
    options: FacePairingOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write manifest and features of the pseudo-pairs into ``folder``.

    Args:
        prepared: everybody's faces.
        held_out: names of the people whose faces are not used.
        voices: of all speakers; those that train fit the scales.
        features: the speech; test speakers are not used.
        folder: made if it does not exist.
        options: which speech, and how it is changed.
        progress: told of speakers done, and of how many.

    Raises:
        DataError: there is no speech of training speakers.
    """
    options = options or FacePairingOptions()
    folder = Path(folder)
    pairing = pair(by_split(voices)["train"], prepared, held_out)
    sounds = FeatureWriter(folder / "features" / "waveform", feature("waveform"))
    faces = FeatureWriter(folder / "features" / "dlib-128", feature("dlib-128"))
    by_speaker: dict[tuple[str, str], list[int]] = {}
    for index, clip in enumerate(features):
        side = speaker_split(clip.corpus, clip.speaker, clip.id)
        if side != "test" and clip.attributes.get("gender") in ("female", "male") and clip.seconds > 1.6:
            by_speaker.setdefault((clip.corpus, clip.speaker), []).append(index)
    rows: list[Row] = []
    for done, (speaker, indices) in enumerate(sorted(by_speaker.items())):
        rng = np.random.default_rng([options.seed, done])
        count = options.clips * (10 if speaker[1] in STUDIO_VOICES else 1)
        for index in rng.permutation(indices)[:count]:
            for row, waveform, face in _pairs_of(features, int(index), pairing, options, rng):
                rows.append(row)
                sounds.add(row.id, row.id, waveform)
                faces.add(row.id, row.id, face)
        if sounds.bytes > _SHARD:
            sounds.flush()
        if progress:
            progress(done + 1, len(by_speaker))
    if not rows:
        raise DataError("no speech of training speakers of known gender", source=features.folder)
    sounds.flush()
    faces.flush()
    manifest = assign_parts(Manifest(rows), {"train": "train", "validation": "validation"}, name="pseudo-faces")
    manifest.write(folder / "manifest.parquet")
    return manifest


def _pairs_of(
    features: SpeechFeatures, index: int, pairing: Pairing, options: FacePairingOptions, rng: np.random.Generator
) -> Iterator[tuple[Row, np.ndarray, np.ndarray]]:
    """Row, waveform ``(T,)`` int16 and face feature ``(D,)`` of every version of one clip; none of a silent one."""
    from crossmodal import audio

    clip: ClipInfo = features[index]
    samples = int(options.seconds * _RATE)
    room = max(0, clip.samples - samples)
    start = int(rng.integers(0, room + 1)) // _HOP * _HOP
    whole = features.waveform(index, start, samples)
    cues = voice_cues(whole, features.pitch(index, start // _HOP, len(whole) // _HOP + 1))
    try:
        speech = audio.load_speech(whole, sample_rate=_RATE, min_seconds=1.0)  # as the journeys hear it
    except AudioError:
        return
    changes: list[tuple[tuple[str, ...], float]] = [((change,), 1.0) for change in STEADY]
    if np.isfinite([cues.pitch, cues.spacing]).all():  # else nothing says how far a moved voice goes
        factors = np.exp(rng.uniform(np.log(SHIFT[0]), np.log(SHIFT[1]), options.moved))
        changes += [(MOVED[k % len(MOVED)], round(100 * f) / 100) for k, f in enumerate(factors.tolist())]
    factor = np.array([by for _, by in changes])
    ones = np.ones_like(factor)

    def score(change: str, factor: np.ndarray) -> np.ndarray:
        count = len(factor)
        one = {"speaker": clip.speaker, "gender": clip.attributes["gender"], "clip": clip.id, "change": change}
        return pairing.voice_scale.score(
            PreparedVoices(
                **{name: np.full(count, value) for name, value in one.items()},
                factor=factor,
                pitch=cues.pitch * factor,
                spacing=cues.spacing * factor,
                embedding=np.repeat(features.embedding(index)[None], count, 0),
            )
        )

    # A moved copy differs from the clip by what moving does, not by how its scale weighs the views of the voice.
    heard = score("clean", ones) + score("shifted", factor) - score("shifted", ones)
    place = match(pairing.knots, heard)
    expected = pairing.expected(place)
    side = speaker_split(clip.corpus, clip.speaker, clip.id)
    for k, (change, by) in enumerate(changes):
        waveform = speech
        for step in change:
            waveform = change_voice(waveform, step, by, rng)
        attributes = {
            **clip.attributes,
            "part": side,
            "change": "+".join(change),
            "factor": f"{by:.2f}",
            "heard": f"{heard[k]:.4f}",
            "place": f"{place[k]:.4f}",
        }
        name = f"pseudo/{clip.id}/{k:02d}"
        row = Row(name, clip.corpus, clip.speaker, attributes=attributes, licence=clip.licence, pairing="pseudo")
        yield row, audio.to_int16(waveform * rng.uniform(*options.level)), expected[k]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line."""
    from crossmodal.evaluation.faces import HELD_OUT

    parser = argparse.ArgumentParser(description="Pair training voices with the faces that fit them.")
    parser.add_argument("faces", type=Path, help="folder of crossmodal.data.prepared_faces")
    parser.add_argument("out", type=Path, help="folder for manifest and features")
    parser.add_argument("--features", type=Path, required=True, help="folder of crossmodal.data.speech_features")
    parser.add_argument("--voices", type=Path, help="file of crossmodal.data.prepared_voices; made anew without it")
    options = parser.parse_args(arguments)

    def show(done: int, of: int) -> None:
        if done % 20 == 0 or done == of:
            print(f"{done}/{of} speakers", flush=True)

    speech = SpeechFeatures(options.features)
    voices = PreparedVoices.load(options.voices) if options.voices else prepare_voices(speech, progress=show)
    faces = PreparedFaces.load(options.faces)
    made = prepare_pseudo_faces(faces, HELD_OUT, voices, speech, options.out, progress=show)
    print(f"{len(made.identities())} speakers, {len(made)} rows, in {options.out}")


if __name__ == "__main__":
    main()
