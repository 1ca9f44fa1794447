"""How good the voices are: intelligibility, distance to recordings, likeness, faces' voices, speed, robustness.

Everything is measured on sentences and speakers that no part of the starter was trained on
(:mod:`crossmodal.data.starter_split`, :data:`crossmodal.evaluation.faces.HELD_OUT`), with n, a reference figure
and a 95 % bootstrap interval. The recogniser has no part in training; the speaker encoder, which judges likeness, is
also what the voices are driven by: read its cosines beside those of natural speech.

The measures themselves are in the modules ``speech_…`` beside this one; here is what they measure on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crossmodal.data.pseudo_pairs import Axis, gender_axis
from crossmodal.data.speech_features import SpeechFeatures, side_of
from crossmodal.data.starter_split import STUDIO_VOICES
from crossmodal.errors import DataError
from crossmodal.evaluation import (
    speech_distance,
    speech_intelligibility,
    speech_likeness,
    speech_listeners,
    speech_robustness,
)
from crossmodal.evaluation.faces import HELD_OUT
from crossmodal.evaluation.report import Report, describe
from crossmodal.evaluation.speech_measures import AUDIO, median_f0

if TYPE_CHECKING:
    from crossmodal.face2speech import Face2Speech

NOTES = (
    "The speaker encoder judges likeness and also drives the voices: read its cosines beside those of natural speech.",
    "Mel-cepstral distortion depends on envelope, order and alignment: compare it with the natural figures here, not "
    "with other papers'.",
)


@dataclass(frozen=True)
class SpeechOptions:
    """How much is measured."""

    sentences: int = 100
    """Held-out sentences for the listeners, of each kind of voice."""
    unseen: int = 64
    """Held-out speakers whose voices are imitated."""
    texts: int = 200
    """Varied texts for robustness."""
    whisper: Path | None = None
    """Folder of a Whisper model, to listen too."""
    utmos: Path | None = None
    """ONNX file of UTMOS, to judge naturalness."""
    seed: int = 0


@dataclass(frozen=True)
class Voice:
    """A voice to imitate."""

    name: str
    gender: str
    embedding: np.ndarray
    """``(256,)``"""
    f0: float
    """Median F0 of the natural speech in Hz."""
    clips: tuple[int, ...]
    """Its clips in the features."""


class SpeechEvaluation:
    """Measures a bundle's voices against held-out recordings.

    Args:
        journey: the bundle to measure.
        features: prepared recordings, training and test speakers (:mod:`crossmodal.data.speech_features`).
        data: the data folder, for the held-out faces' photos.
        options: how much.
        say: called with a line whenever a part begins.

    Raises:
        DataError: the features hold no held-out clips.
        ConfigError, DependencyError: a listener cannot be used.
    """

    def __init__(
        self,
        journey: Face2Speech,
        features: SpeechFeatures,
        data: Path,
        options: SpeechOptions | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.journey, self.features, self.data = journey, features, data
        self.options, self.say = options or SpeechOptions(), say
        self.recognisers = {"pocketsphinx": speech_listeners.pocketsphinx()}
        if self.options.whisper is not None:
            self.recognisers["Whisper"] = speech_listeners.whisper(self.options.whisper)
        self.listeners = {"UTMOS": speech_listeners.utmos(self.options.utmos)} if self.options.utmos else {}
        self.encoder = journey.module("speaker-encoder")
        self.report = Report("Voices", bundle=describe(journey.bundle), seed=self.options.seed, notes=list(NOTES))
        self.failures: list[str] = []
        """Texts that were not spoken as they should."""
        groups: dict[tuple[str, str, str], list[int]] = {}
        for i, clip in enumerate(features):
            if clip.seconds > 0.6:
                groups.setdefault((side_of(clip), clip.corpus, clip.speaker), []).append(i)
        self.studio = [self._voice(v[:40]) for k, v in groups.items() if k[0] == "train" and k[2] in STUDIO_VOICES]
        self.seen = [self._voice(v) for k, v in groups.items() if k[0] == "train" and k[2] not in STUDIO_VOICES]
        self.libri = [self._voice(v) for k, v in groups.items() if k[:2] == ("test", "librispeech")]
        an4 = [self._voice(v) for k, v in groups.items() if k[:2] == ("test", "an4")]
        self.unseen = [*self.libri, *an4][: self.options.unseen]
        self.sentences = self._held_out_sentences()
        if not self.unseen or not self.sentences:
            raise DataError("holds no held-out speakers or sentences", source=features.folder)
        male = np.array([v.gender == "male" for v in self.seen])
        self.probe: Axis = gender_axis(np.stack([v.embedding for v in self.seen]), male)
        log_f0 = np.log([v.f0 for v in self.seen])
        self.f0_border = float(np.exp((np.nanmedian(log_f0[male]) + np.nanmedian(log_f0[~male])) / 2))

    def _voice(self, clips: list[int]) -> Voice:
        features = self.features
        mean = np.mean([features.embedding(i) for i in clips], axis=0)
        f0 = [median_f0(features.waveform(i, 0, 8 * AUDIO.sample_rate)) for i in clips[:4]]
        first = features[clips[0]]
        gender = first.attributes.get("gender", "")
        return Voice(first.speaker, gender, mean / np.linalg.norm(mean), float(np.nanmedian(f0)), tuple(clips))

    def _held_out_sentences(self) -> list[tuple[str, dict[str, int]]]:
        """Text and the clip of each studio voice that reads it, where all of them do."""
        found: dict[str, dict[str, int]] = {}
        for i, clip in enumerate(self.features):
            if clip.speaker in STUDIO_VOICES and side_of(clip) == "test":
                found.setdefault(clip.id.split("/")[-1], {})[clip.speaker] = i
        whole = [clips for _, clips in sorted(found.items()) if len(clips) == len(self.studio)]
        return [(str(self.features[next(iter(c.values()))].text), c) for c in whole]

    def speak(self, text: str, embedding: np.ndarray) -> np.ndarray:
        """``(T,)`` speech of ``text`` with the voice of ``embedding (256,)``."""
        return self.journey.speak(text, embedding=torch.tensor(embedding, dtype=torch.float32)).waveform

    def two(self, n: int) -> str:
        """Two held-out sentences, so that an embedding has about six seconds to go by."""
        first, second = (self.sentences[(2 * n + k) % len(self.sentences)][0] for k in (0, 1))
        return f"{first} {second}"

    def face_voices(self) -> dict[str, np.ndarray]:
        """Held-out people → embedding of the neutral photo; empty without photos or face encoder."""
        folder = self.data / "london_faces" / "neutral_front"
        if "face-encoder" not in self.journey.bundle.info.modules or not folder.is_dir():
            return {}
        return {
            person: self.journey.face_embedding(folder / f"{person}_03.jpg").numpy()
            for person in HELD_OUT
            if (folder / f"{person}_03.jpg").is_file()
        }

    def run(self) -> Report:
        """Measure everything."""
        faces = self.face_voices()
        parts = {
            "intelligibility": lambda: speech_intelligibility.measure(self, faces, self.recognisers, self.listeners),
            "distance to recordings": lambda: speech_distance.measure(self),
            "likeness and pitch": lambda: speech_likeness.measure(self),
            "voices of faces": lambda: speech_likeness.measure_faces(self, faces),
            "speed": lambda: speech_robustness.measure_speed(self),
            "robustness": lambda: speech_robustness.measure(self),
        }
        for name, measure in parts.items():
            self.say(name)
            self.report.figures += measure()
        self.report.notes += [f"not spoken as it should be: {failure}" for failure in self.failures]
        return self.report
