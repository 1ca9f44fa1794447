"""What the feature head's training reads of voices: embeddings and cues of many speakers, also as a phone, a noisy room
or a shorter or longer vocal tract would change them.

::

    python -m crossmodal.data.prepared_voices SPEECH_FEATURES OUT_FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from crossmodal.data.speech_features import SpeechFeatures
from crossmodal.data.starter_split import STUDIO_VOICES
from crossmodal.data.voice_cues import voice_cues
from crossmodal.errors import DataError
from crossmodal.files import atomic_path

CHANGES = ("clean", "short", "phone", "noise", "shifted", "shifted")
"""Versions of each clip: as it is, 1.5 s of it, 8 kHz, 10 dB of noise, and two with pitch and formants moved."""
SHIFT = (0.8, 1.25)
"""Range of the factor on pitch and formants."""


@dataclass
class PreparedVoices:
    """Embeddings of versions of clips of many speakers."""

    speaker: np.ndarray
    """``(N,)`` ``corpus/speaker``."""
    gender: np.ndarray
    """``(N,)`` ``female`` or ``male``, as the corpus says, of the unchanged voice."""
    clip: np.ndarray
    """``(N,)`` the clip's id."""
    change: np.ndarray
    """``(N,)`` one of :data:`CHANGES`."""
    factor: np.ndarray
    """``(N,)`` on pitch and formants, 1 if unchanged."""
    pitch: np.ndarray
    """``(N,)`` median F0 in Hz of this version."""
    spacing: np.ndarray
    """``(N,)`` formant spacing in Hz of this version."""
    embedding: np.ndarray
    """``(N, 256)`` ``ge2e-256``."""

    def __len__(self) -> int:
        return len(self.speaker)

    def pick(self, rows: np.ndarray) -> PreparedVoices:
        """The given rows."""
        return PreparedVoices(*(getattr(self, f.name)[rows] for f in fields(self)))

    def save(self, file: Path) -> None:
        """Write as ``.npz``."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as path, open(path, "wb") as handle:
            np.savez(handle, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, file: Path) -> PreparedVoices:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: missing or of another form.
        """
        try:
            with np.load(file, allow_pickle=False) as stored:
                return cls(*(stored[f.name] for f in fields(cls)))
        except (OSError, KeyError, ValueError) as error:
            remedy = f"run: python -m crossmodal.data.prepared_voices SPEECH_FEATURES {file}"
            raise DataError("holds no prepared voices", source=file, remedy=remedy) from error


def change_voice(waveform: np.ndarray, change: str, factor: float, rng: np.random.Generator) -> np.ndarray:
    """One of :data:`CHANGES` applied to ``(T,)`` at 16 kHz; ``shifted`` resamples, so the tempo changes as well."""
    from scipy.signal import resample_poly

    if change == "short":
        start = int(rng.integers(0, max(1, len(waveform) - 24_000)))
        return waveform[start : start + 24_000]
    if change == "phone":
        narrow = resample_poly(resample_poly(waveform, 1, 2), 2, 1)[: len(waveform)]
        return narrow.astype(np.float32)
    if change == "noise":
        noise = rng.standard_normal(len(waveform)).astype(np.float32)
        noise *= np.sqrt(np.mean(waveform**2) / max(float(np.mean(noise**2)), 1e-12) / 10)
        return np.clip(waveform + noise, -1, 1)
    if change == "shifted":
        return np.clip(resample_poly(waveform, 100, round(100 * factor)), -1, 1).astype(np.float32)
    return waveform


def prepare_voices(
    features: SpeechFeatures,
    *,
    seconds: float = 5.0,
    clips: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedVoices:
    """Embed and measure versions of up to ``clips`` clips of every speaker whose gender is known.

    The studio voices have many sentences; of them ten times as many clips are taken.
    """
    from crossmodal.models.speaker_encoder import SpeakerEncoder

    encoder = SpeakerEncoder.from_package()
    by_speaker: dict[str, list[int]] = {}
    for index, clip in enumerate(features):
        if clip.attributes.get("gender") in ("female", "male") and clip.seconds > 1.6:
            by_speaker.setdefault(f"{clip.corpus}/{clip.speaker}", []).append(index)
    found: dict[str, list] = {f.name: [] for f in fields(PreparedVoices)}
    for done, (speaker, indices) in enumerate(sorted(by_speaker.items())):
        rng = np.random.default_rng([seed, done])
        count = clips * (10 if speaker.split("/")[1] in STUDIO_VOICES else 1)
        chosen = rng.permutation(indices)[:count]
        for index in chosen:
            clip = features[int(index)]
            room = clip.samples - int(seconds * 16_000)
            start = int(rng.integers(0, room)) // 200 * 200 if room > 0 else 0
            waveform = features.waveform(int(index), start, int(seconds * 16_000))
            f0 = features.pitch(int(index), start // 200, len(waveform) // 200 + 1)
            cues = voice_cues(waveform, f0)
            versions, factors = [], []
            for change in CHANGES:
                factor = float(np.exp(rng.uniform(*np.log(SHIFT)))) if change == "shifted" else 1.0
                versions.append(change_voice(waveform, change, factor, rng))
                factors.append(round(100 * factor) / 100)
            embeddings = encoder.embed_batch(versions)
            for change, factor, embedding in zip(CHANGES, factors, embeddings):
                found["speaker"].append(speaker)
                found["gender"].append(clip.attributes["gender"])
                found["clip"].append(clip.id)
                found["change"].append(change)
                found["factor"].append(factor)
                # A resampled voice has its cues multiplied: exactly so, which a measurement would only blur.
                found["pitch"].append(cues.pitch * factor)
                found["spacing"].append(cues.spacing * factor)
                found["embedding"].append(embedding.numpy())
        if progress:
            progress(done + 1, len(by_speaker))
    if not found["speaker"]:
        raise DataError("no speaker of known gender", source=features.folder)
    arrays = {name: np.array(values) for name, values in found.items()}
    for name in ("factor", "pitch", "spacing", "embedding"):
        arrays[name] = arrays[name].astype(np.float32)
    return PreparedVoices(**arrays)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("features", type=Path, help="folder of crossmodal.data.speech_features")
    parser.add_argument("out", type=Path, help="file to write (.npz)")
    arguments = parser.parse_args()

    def show(done: int, of: int) -> None:
        if done % 20 == 0 or done == of:
            print(f"{done}/{of} speakers", flush=True)

    prepare_voices(SpeechFeatures(arguments.features), progress=show).save(arguments.out)


if __name__ == "__main__":
    main()
