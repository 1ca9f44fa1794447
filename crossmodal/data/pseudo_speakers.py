"""Pseudo-speakers: the same speech with F0 and formants scaled together, so that a model meets more voices than
there are.

Playing a recording at ``factor`` times its speed scales F0, formants and tempo; the speaker encoder takes the result
for
another person. Only clips of the training split are copied, so no held-out voice comes back in disguise. Command::

    python -m crossmodal.data.pseudo_speakers FEATURES OUT

reads features written by :mod:`crossmodal.data.speech_features` and writes a folder of the same kind, in which a
clip's id
ends in ``@factor``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.data.manifest import Row
from crossmodal.data.speech_features import ClipInfo, SpeechFeatures, prepare_features
from crossmodal.data.starter_split import STUDIO_VOICES, split_of

FACTORS = (0.85, 0.92, 1.09, 1.18)
MAX_SECONDS = 15.0
"""Clips are cut here, as in :mod:`crossmodal.data.alignment`."""


def factor_of(clip_id: str) -> float:
    """``librispeech/19/19-198-0000@1.09`` → 1.09; 1 for a clip that is no copy."""
    return float(clip_id.rsplit("@", 1)[1]) if "@" in clip_id else 1.0


def scale_voice(waveform: np.ndarray, factor: float) -> np.ndarray:
    """``(T,)`` → ``(T / factor,)``: F0, formants and tempo times ``factor``."""
    import soxr

    rate = AudioConfig().sample_rate
    return soxr.resample(waveform, rate * factor, rate).astype(np.float32).clip(-1.0, 1.0)


def choose(
    features: SpeechFeatures, *, per_speaker: int = 4, per_studio_voice: int = 240, per_session: int = 4
) -> Iterator[tuple[int, ClipInfo, float]]:
    """Which training clips to copy with which factor: ``per_speaker`` copies of a LibriSpeech clip with different
    factors, ``per_studio_voice`` clips of each studio voice and ``per_session`` of each AN4 speaker with one factor
    each."""
    taken: dict[str, int] = {}
    for index, clip in enumerate(features):
        if split_of(clip.corpus, clip.speaker, clip.id.split("/")[-1]) != "train":
            continue
        count = taken.get(clip.speaker, 0)
        limit = per_studio_voice if clip.speaker in STUDIO_VOICES else per_session
        if clip.corpus == "librispeech":
            first = len(taken) % len(FACTORS)
            for step in range(per_speaker):
                yield index, clip, FACTORS[(first + step * (len(FACTORS) // per_speaker)) % len(FACTORS)]
        elif count < limit:
            first = len(taken) if clip.corpus == "an4" else 0
            yield index, clip, FACTORS[(first + count) % len(FACTORS)]
        else:
            continue
        taken[clip.speaker] = count + 1


def make_pseudo_speakers(features: SpeechFeatures, folder: str | Path) -> SpeechFeatures:
    """Write scaled copies of the training clips, analysed and embedded anew, into ``folder``."""
    from crossmodal.audio import save_wav

    rate = AudioConfig().sample_rate

    def rows(scratch: Path) -> Iterator[Row]:
        for index, clip, factor in choose(features):
            path = scratch / "copy.wav"  # each is read before the next is written
            save_wav(path, scale_voice(features.waveform(index, 0, int(MAX_SECONDS * rate)), factor))
            yield Row(
                id=f"{clip.id}@{factor:.2f}",
                corpus=clip.corpus,
                speaker=f"{clip.speaker}@{factor:.2f}",
                audio=path,
                text=clip.text,
                attributes=dict(clip.attributes),
                licence=clip.licence,
            )

    with tempfile.TemporaryDirectory() as scratch:
        return prepare_features(rows(Path(scratch)), folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make pseudo-speakers from the command line."""
    parser = argparse.ArgumentParser(description="Make pseudo-speakers by scaling F0 and formants.")
    parser.add_argument("features", help="folder written by crossmodal.data.speech_features")
    parser.add_argument("out", help="folder for the copies")
    options = parser.parse_args(arguments)
    made = make_pseudo_speakers(SpeechFeatures(options.features), options.out)
    print(f"{len(made)} copies, {sum(clip.seconds for clip in made) / 3600:.2f} hours, in {options.out}")


if __name__ == "__main__":
    main()
