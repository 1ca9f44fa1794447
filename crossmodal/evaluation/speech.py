"""How good the voices are: intelligibility, likeness to the target, pitch, faces' voices, speed, robustness.

Everything is measured on sentences and speakers that no part of the starter was trained on
(:mod:`crossmodal.data.starter_split`, :data:`crossmodal.evaluation.faces.HELD_OUT`), with n, a reference figure
and a 95 % bootstrap interval. The recogniser (pocketsphinx) has no part in training; the speaker encoder, which judges
likeness, is also what the voices are driven by: read its cosines beside those of natural speech.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crossmodal import audio
from crossmodal.config import AudioConfig
from crossmodal.data.pseudo_pairs import Axis, gender_axis
from crossmodal.data.speech_features import SpeechFeatures, side_of
from crossmodal.data.starter_split import STUDIO_VOICES
from crossmodal.errors import DataError, TextError
from crossmodal.evaluation.faces import HELD_OUT
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.speech_texts import NOT_SPEAKABLE, varied_texts
from crossmodal.text import sentences, words

if TYPE_CHECKING:
    from PIL import Image

    from crossmodal.data.alignment import Aligner
    from crossmodal.face2speech import Face2Speech

AUDIO = AudioConfig()
TEN_WORDS = "The small boat crossed the wide river before the storm."
SIXTY_WORDS = (
    "When the last guests had gone, she opened the window and listened to the rain. It fell on the roofs, on the empty "
    "street, and on the garden that nobody had looked after for years. Somewhere a dog barked twice and was quiet "
    "again. "
    "She thought of the letter in her pocket, smiled, and decided that tomorrow she would answer it at last."
)


@dataclass(frozen=True)
class SpeechOptions:
    """How much is measured."""

    sentences: int = 100
    """Held-out sentences for the recogniser, of each kind of voice."""
    unseen: int = 64
    """Held-out speakers whose voices are imitated."""
    texts: int = 200
    """Varied texts for robustness."""
    vocoder_clips: int = 60
    """Held-out clips for copy-synthesis; 0 leaves the vocoder out."""
    seed: int = 0


@dataclass
class SpeechReport:
    """What was measured."""

    figures: list[Figure] = field(default_factory=list)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """Natural above synthetic: spectrogram and F0."""
    tables: list[str] = field(default_factory=list)
    """Tables of other evaluations (the vocoder's)."""
    failures: list[str] = field(default_factory=list)
    """Texts that were not spoken as they should."""


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


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Least number of substitutions, insertions and deletions (Levenshtein distance over words)."""
    row = np.arange(len(hypothesis) + 1)
    for i, word in enumerate(reference, 1):
        previous, row = row, np.empty_like(row)
        row[0] = i
        for j, heard in enumerate(hypothesis, 1):
            row[j] = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (word != heard))
    return int(row[-1])


def clicks(waveform: np.ndarray, ratio: float = 14.0) -> int:
    """Steps in ``waveform (T,)`` that stick out ``ratio``-fold from the RMS of the slope within 20 ms around."""
    slope = np.abs(np.diff(waveform.astype(np.float64)))
    window = int(0.02 * AUDIO.sample_rate) | 1
    power = np.convolve(slope**2, np.ones(window), mode="same")
    around = np.sqrt((power - slope**2).clip(0) / (window - 1))
    return int(((slope > ratio * around + 0.01) & (slope > 0.05)).sum())


def median_f0(waveform: np.ndarray) -> float:
    """Median F0 in Hz of the loud voiced frames of ``waveform (T,)``; NaN without any.

    In quiet frames pitch detectors hear the hum of the mains.
    """
    f0 = audio.pitch(waveform)
    level = (
        audio.log_mel(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))).exp().mean(0).log().numpy()
    )
    loud = level > np.sort(level)[-max(1, len(level) // 3) :].mean() - 1.5
    voiced = f0[(f0 > 0) & loud]
    return float(np.median(voiced)) if len(voiced) else float("nan")


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
        self.encoder = journey.module("speaker-encoder")
        self.report = SpeechReport()
        groups: dict[tuple[str, str, str], list[int]] = {}
        for i, clip in enumerate(features):
            if clip.seconds > 0.6:
                groups.setdefault((side_of(clip), clip.corpus, clip.speaker), []).append(i)
        self.studio = [self._voice(k, v[:40]) for k, v in groups.items() if k[0] == "train" and k[2] in STUDIO_VOICES]
        seen = [v for k, v in groups.items() if k[0] == "train" and k[2] not in STUDIO_VOICES]
        self.seen = [self._voice(("train", "", self.features[v[0]].speaker), v) for v in seen]
        self.libri = [self._voice(k, v) for k, v in groups.items() if k[:2] == ("test", "librispeech")]
        self.unseen = [
            *self.libri,
            *(self._voice(k, v) for k, v in groups.items() if k[0] == "test" and k[1] == "an4"),
        ][: self.options.unseen]
        self.sentences = self._held_out_sentences()
        if not self.unseen or not self.sentences:
            raise DataError("holds no held-out speakers or sentences", source=features.folder)
        male = np.array([v.gender == "male" for v in self.seen])
        self.probe: Axis = gender_axis(np.stack([v.embedding for v in self.seen]), male)
        log_f0 = np.log([v.f0 for v in self.seen])
        self.f0_border = float(np.exp((np.nanmedian(log_f0[male]) + np.nanmedian(log_f0[~male])) / 2))

    def _voice(self, key: tuple[str, str, str], clips: list[int]) -> Voice:
        features = self.features
        mean = np.mean([features.embedding(i) for i in clips], axis=0)
        f0 = [median_f0(features.waveform(i, 0, 8 * AUDIO.sample_rate)) for i in clips[:4]]
        gender = features[clips[0]].attributes.get("gender", "")
        return Voice(
            key[2], gender, mean / np.linalg.norm(mean), float(np.nanmedian([0.0, *f0][len(f0) > 0 :])), tuple(clips)
        )

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

    def _add(self, name: str, values: Any, **more: Any) -> None:
        self.report.figures.append(figure(name, values, seed=self.options.seed, **more))

    def run(self) -> SpeechReport:
        """Measure everything."""
        faces = self.face_voices()
        self.say("intelligibility")
        self.intelligibility(faces)
        self.say("likeness and pitch")
        self.likeness()
        self.say("voices of faces")
        self.faces(faces)
        self.say("speed")
        self.speed()
        self.say("robustness")
        self.robustness()
        if self.options.vocoder_clips:
            self.say("vocoder")
            from crossmodal.evaluation.vocoder import evaluate_vocoder, held_out_clips, table

            clips = held_out_clips(self.features, self.options.vocoder_clips)
            self.report.tables.append(table(evaluate_vocoder(self.journey.module("vocoder"), self.features, clips)))
        return self.report

    # ------------------------------------------------------------ intelligibility

    def intelligibility(self, faces: dict[str, np.ndarray]) -> None:
        """Word error rate of pocketsphinx: natural, studio voices, unseen speakers, voices of faces; same sentences."""
        from crossmodal.data.alignment import Aligner

        recogniser = Aligner()
        chosen = self.sentences[: self.options.sentences]
        studio = {voice.name: voice for voice in self.studio}
        names, people = sorted(studio), sorted(faces)
        rows: dict[str, list[tuple[int, int]]] = {
            "natural": [],
            "studio voice": [],
            "unseen speaker": [],
            "voice from a face": [],
        }
        for n, (text, clips) in enumerate(chosen):
            name = names[n % len(names)]
            heard = {
                "natural": self.features.waveform(clips[name]),
                "studio voice": self.speak(text, studio[name].embedding),
                "unseen speaker": self.speak(text, self.unseen[n % len(self.unseen)].embedding),
            }
            if people:
                heard["voice from a face"] = self.speak(text, faces[people[n % len(people)]])
            for kind, waveform in heard.items():
                rows[kind].append(self._errors(recogniser, text, waveform))
            if n < 6:
                self._picture(f"{n}-{name}", heard["natural"], heard["studio voice"])
        rates = {kind: sum(e for e, _ in r) / max(1, sum(w for _, w in r)) for kind, r in rows.items() if r}
        for kind, r in rows.items():
            if r:
                self._add(
                    f"word error rate, {kind}", r, statistic=lambda d: float(d[:, 0].sum() / d[:, 1].sum()),
                    **({} if kind == "natural" else {"reference": rates["natural"], "reference_name": "natural"}),
                )  # fmt: skip

    @staticmethod
    def _errors(recogniser: Aligner, text: str, waveform: np.ndarray) -> tuple[int, int]:
        reference = words(text)
        padded = np.pad(waveform, 1600)
        return word_errors(reference, recogniser.recognise(padded).split()), len(reference)

    def _picture(self, name: str, natural: np.ndarray, synthetic: np.ndarray) -> None:
        from PIL import Image

        from crossmodal.pictures import spectrogram_picture

        panels = [
            spectrogram_picture(audio.log_mel(torch.from_numpy(w)).numpy(), audio.pitch(w))
            for w in (natural, synthetic)
        ]
        sheet = Image.new("RGB", (panels[0].width, panels[0].height * 2 + 6), "white")
        sheet.paste(panels[0], (0, 0))
        sheet.paste(panels[1], (0, panels[0].height + 6))
        self.report.pictures[name] = sheet

    # ------------------------------------------------------------------- likeness

    def _embed(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return self.encoder.embed_batch(list(waveforms)).float().cpu().numpy()

    def _two(self, n: int) -> str:
        """Two held-out sentences, so that an embedding has about six seconds to go by."""
        first, second = (self.sentences[(2 * n + k) % len(self.sentences)][0] for k in (0, 1))
        return f"{first} {second}"

    def likeness(self) -> None:
        """Cosine to the target, top-1 of 15, gender and F0 of imitated voices."""
        targets = np.stack([v.embedding for v in self.unseen])
        waves = [self.speak(self._two(n), v.embedding) for n, v in enumerate(self.unseen)]
        spoken = self._embed(waves)
        cosine = spoken @ targets.T
        own = np.diag(cosine)
        floor = float(cosine[~np.eye(len(cosine), dtype=bool)].mean())
        natural = self._natural_likeness()
        self.studio_likeness()
        more = {"reference": natural, "reference_name": f"floor {floor:.3f}, natural"}
        self._add("cosine to target, unseen speakers", own, **more)
        groups = [list(range(i, i + 15)) for i in range(0, len(self.unseen) - 14, 15)]
        hits = [float(cosine[i][group].argmax() == k) for group in groups for k, i in enumerate(group)]
        if hits:
            self._add("top-1 of 15 unseen speakers", hits, reference=1 / 15, reference_name="chance")
        male = np.array([v.gender == "male" for v in self.unseen])
        f0 = np.array([median_f0(w) for w in waves])
        target_f0 = np.array([v.f0 for v in self.unseen])
        chance = float(max(male.mean(), 1 - male.mean()))
        more = {"reference": chance, "reference_name": "always the commoner gender"}
        self._add("gender by probe, unseen speakers", ((self.probe.score(spoken) > 0) == male).astype(float), **more)
        self._add("gender by F0, unseen speakers", ((f0 < self.f0_border) == male).astype(float), **more)
        self._add("gender by F0, their natural speech", ((target_f0 < self.f0_border) == male).astype(float), **more)
        known = np.isfinite(f0) & (target_f0 > 0)
        pairs = np.stack([target_f0, f0], axis=1)[known]
        self._add("F0 against target, correlation", pairs, statistic=_correlation)
        self._add("F0 against target, slope", pairs, statistic=_slope, reference=1.0, reference_name="ideal")
        semitones = np.abs(12 * np.log2(pairs[:, 1] / pairs[:, 0]))
        self._add("F0 against target, error", semitones, unit="semitones")

    def studio_likeness(self) -> None:
        """Cosine of studio voices, synthetic and natural, to the mean of the voice's training clips."""
        synthetic, natural = [], []
        for k, voice in enumerate(self.studio):
            for n in range(4):
                text = self._two(4 * k + n)
                clips = [self.sentences[(2 * (4 * k + n) + j) % len(self.sentences)][1][voice.name] for j in (0, 1)]
                pair = [self.speak(text, voice.embedding), np.concatenate([self.features.waveform(c) for c in clips])]
                made, real = self._embed(pair) @ voice.embedding
                synthetic.append(made)
                natural.append(real)
        self._add(
            "cosine to target, studio voices", synthetic, reference=float(np.mean(natural)), reference_name="natural"
        )

    def _natural_likeness(self) -> float:
        """Mean cosine of the second half to the first half of an unseen speaker's natural speech."""
        found = []
        for voice in self.libri[:30]:
            wave = self.features.waveform(voice.clips[0])
            one, two = self._embed([wave[: len(wave) // 2], wave[len(wave) // 2 :]])
            found.append(float(one @ two))
        return float(np.mean(found)) if found else float("nan")

    # ---------------------------------------------------------------------- faces

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

    def faces(self, faces: dict[str, np.ndarray]) -> None:
        """Gender, sameness over two photos, spread; and Face2Speech's own comparison on pseudo-pairs."""
        if not faces:
            return
        from crossmodal.data.sets import london_faces

        root = self.data / "london_faces"
        male_of = {r.speaker: r.attributes.get("gender") == "male" for r in london_faces.rows(root)}
        people = sorted(faces)
        male = np.array([male_of[p] for p in people])
        neutral = np.stack([faces[p] for p in people])
        half = {"reference": float(max(male.mean(), 1 - male.mean())), "reference_name": "chance"}
        self._add("face to voice: gender by probe", ((self.probe.score(neutral) > 0) == male).astype(float), **half)
        waves = [self.speak(self._two(n), e) for n, e in enumerate(neutral)]
        f0 = np.array([median_f0(w) for w in waves])
        self._add("face to voice: gender by F0 of the speech", ((f0 < self.f0_border) == male).astype(float), **half)
        smiling = [root / "smiling_front" / f"{p}_08.jpg" for p in people]
        both = [(faces[p], self.journey.face_embedding(s).numpy()) for p, s in zip(people, smiling) if s.is_file()]
        between = _between(neutral)
        voices = np.stack([v.embedding for v in self.libri])
        if both:
            self._add(
                "face to voice: cosine of one person's two photos", [float(a @ b) for a, b in both],
                reference=between, reference_name="different people",
            )  # fmt: skip
        rows = [np.delete(neutral @ neutral[i], i).mean() for i in range(len(people))]
        self._add(
            "face to voice: cosine between people", rows, reference=_between(voices), reference_name="real voices"
        )  # fmt: skip
        self._published_comparison(neutral, male, waves, f0)

    def _published_comparison(
        self, neutral: np.ndarray, male: np.ndarray, waves: list[np.ndarray], f0: np.ndarray
    ) -> None:
        """Goto et al.'s measures: face-driven against speech-driven synthesis, pairs by gender and rank of the cue."""
        partner: list[Voice] = []
        for i in range(len(neutral)):
            same = [v for v in self.libri if (v.gender == "male") == male[i]]
            order = sorted(same, key=lambda v: float(self.probe.score(v.embedding[None])[0]))
            scores = self.probe.score(neutral)
            rank = float((scores[male == male[i]] < scores[i]).sum() / max(1, (male == male[i]).sum() - 1))
            partner.append(order[round(rank * (len(order) - 1))])
        driven = [self.speak(self._two(n), v.embedding) for n, v in enumerate(partner)]
        cosine = self._embed(waves) @ self._embed(driven).T
        eye = np.eye(len(cosine), dtype=bool)
        same = male[:, None] == male[None]
        self._add("Face2Speech: matched cosine", np.diag(cosine), reference=0.709, reference_name="published")
        for name, mask, published in (("same gender", same & ~eye, 0.623), ("opposite gender", ~same, 0.536)):
            rows = [cosine[i][mask[i]].mean() for i in range(len(cosine)) if mask[i].any()]
            self._add(f"Face2Speech: {name} cosine", rows, reference=published, reference_name="published")
        hits = (cosine.argmax(1) == np.arange(len(cosine))).astype(float)
        self._add("Face2Speech: R@1 of 20", hits, reference=0.55, reference_name="chance 0.050, published")
        agree = ((f0 < self.f0_border) == male).astype(float)
        self._add("Face2Speech: gender", agree, reference=0.95, reference_name="published")
        pairs = np.stack([f0, [median_f0(w) for w in driven]], axis=1)
        self._add(
            "Face2Speech: median-F0 correlation",
            pairs,
            statistic=_correlation,
            reference=0.67,
            reference_name="published",
        )

    # ------------------------------------------------------------ speed, robustness

    def speed(self) -> None:
        """Real-time factor of whole texts, models loaded."""
        voice = self.unseen[0].embedding
        self.speak(TEN_WORDS, voice)
        for name, text in (("10 words", TEN_WORDS), ("60 words", SIXTY_WORDS)):
            factors = []
            for _ in range(5):
                begin = time.perf_counter()
                wave = self.speak(text, voice)
                factors.append((time.perf_counter() - begin) / (len(wave) / AUDIO.sample_rate))
            self._add(f"real-time factor, {name}", factors, reference=0.05, reference_name="target", statistic=_median)

    def robustness(self) -> None:
        """Length a phone, clicks, and the end of the speech, on varied texts; texts that cannot be spoken must say
        so."""
        from crossmodal.text import encode

        good, click_rate = [], []
        for n, text in enumerate(varied_texts(self.options.texts, self.options.seed)):
            wave = self.speak(text, self.unseen[n % len(self.unseen)].embedding)
            phones = sum(sum(p != 0 for p in encode(s).phones) for s in sentences(text))
            seconds, found = len(wave) / AUDIO.sample_rate, clicks(wave)
            level = np.sqrt(np.convolve(wave**2, np.ones(400) / 400, mode="same"))
            last = np.flatnonzero(level > 0.05 * level.max(initial=1e-9))
            tail = seconds - (last[-1] / AUDIO.sample_rate if len(last) else 0.0)
            problems = [
                label
                for label, wrong in (
                    ("length", not 0.035 * phones <= seconds <= 0.16 * phones + 1.0),
                    ("tail", tail > 0.5),
                    ("not finite", not np.isfinite(wave).all()),
                    ("silent", float(np.abs(wave).max(initial=0.0)) < 0.05),
                )
                if wrong
            ]
            if problems:
                self.report.failures.append(f"{', '.join(problems)} ({seconds:.2f} s, {phones} phones): {text[:60]!r}")
            good.append(float(not problems))
            click_rate.append(60 * found / seconds)
        natural = [
            60 * clicks(self.features.waveform(v.clips[0])) / self.features[v.clips[0]].seconds for v in self.libri[:40]
        ]
        self._add("varied texts spoken whole, and ending when they end", good, reference=1.0, reference_name="ideal")
        self._add(
            "clicks a minute, varied texts",
            click_rate,
            reference=float(np.mean(natural)),
            reference_name="natural speech",
        )
        refused = []
        for text in NOT_SPEAKABLE:
            try:
                sentences(text)
                refused.append(0.0)
            except TextError:
                refused.append(1.0)
        self._add("texts without words refused", refused, reference=1.0, reference_name="ideal")


def _between(embeddings: np.ndarray) -> float:
    """Mean cosine of different rows of ``(N, D)``."""
    cosine = embeddings @ embeddings.T
    return float(cosine[~np.eye(len(cosine), dtype=bool)].mean())


def _correlation(pairs: np.ndarray) -> float:
    """Pearson correlation of the columns of ``(N, 2)``; NaN where one is constant."""
    if len(pairs) < 2 or np.std(pairs[:, 0]) == 0 or np.std(pairs[:, 1]) == 0:
        return float("nan")
    return float(np.corrcoef(pairs.T)[0, 1])


def _slope(pairs: np.ndarray) -> float:
    """Least-squares slope of the second column of ``(N, 2)`` over the first."""
    x, y = pairs.T
    return float(np.cov(x, y)[0, 1] / max(np.var(x, ddof=1), 1e-9))


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def table(report: SpeechReport) -> list[str]:
    """Lines for people."""
    lines = [f.line() for f in report.figures]
    lines += [f"not spoken as it should be: {failure}" for failure in report.failures]
    return lines + report.tables
