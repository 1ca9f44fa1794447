"""Utterances ready for the acoustic model: tokens with durations, F0, log-mel of one loudness, speaker embedding.

Joins what :mod:`crossmodal.data.speech_features`, :mod:`crossmodal.data.pseudo_speakers` and
:mod:`crossmodal.data.alignment` prepared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from crossmodal.audio import log_mel
from crossmodal.config import AudioConfig
from crossmodal.data.alignment import AlignedWord, Alignment, read_alignments, to_hops
from crossmodal.data.pseudo_speakers import factor_of
from crossmodal.data.speech_features import SpeechFeatures, side_of
from crossmodal.errors import DataError
from crossmodal.text import PHONES, PUNCTUATION, VOWELS, TokenSequence, normalise, pronounce

AUDIO = AudioConfig()
SPEECH_LEVEL = -3.0
"""Natural logarithm of the mean mel amplitude of the louder half of the frames; every clip is brought to it."""
_QUIET = -3.2
"""Frames this far from the speech level (natural logarithm) are unvoiced, for pitch detectors hear hum there, and at a
clip's ends they are pauses, whatever the aligner says."""
_IDS = {name: i for i, name in enumerate(PHONES)}


@dataclass(frozen=True)
class SpokenClip:
    """One utterance (or its aligned beginning) of F frames and N tokens."""

    id: str
    corpus: str
    voice: str
    """The speaker; a pseudo-speaker has its factor in it."""
    split: str
    pseudo: bool
    tokens: TokenSequence
    durations: np.ndarray
    """``(N,)`` frames, at least 1 each; their sum is F."""
    f0: np.ndarray
    """``(F,)`` Hz, 0 where unvoiced and in pauses."""
    embedding: np.ndarray
    """``(256,)`` of the whole utterance."""
    gender: str
    place: tuple[int, int]
    """Which feature folder, and the clip's index in it."""

    @property
    def frames(self) -> int:
        return len(self.f0)

    def energy(self, mel: np.ndarray) -> np.ndarray:
        """Mean level of each token ``(N,)`` above the speech level, from the levelled log-mel ``(F, 100)``."""
        level = (frame_level(mel) - SPEECH_LEVEL) / 2.0
        starts = np.cumsum(self.durations) - self.durations
        return np.add.reduceat(level, starts) / self.durations


def frame_level(mel: np.ndarray) -> np.ndarray:
    """Log-mel ``(F, 100)`` → log of the mean amplitude of each frame ``(F,)``."""
    return np.log(np.exp(mel.astype(np.float32)).mean(-1))


@dataclass(frozen=True)
class ClipEntry:
    """What is known of an aligned clip before its sound is read."""

    id: str
    corpus: str
    voice: str
    split: str
    pseudo: bool
    frames: int
    place: tuple[int, int]
    alignment: Alignment


class SpokenClips(Sequence[SpokenClip]):
    """All aligned clips; ``clips[i]`` is analysed at first use and kept, its log-mel as float16.

    Raises:
        DataError: no clip is both prepared and aligned.
    """

    def __init__(self, features: str | Path, pseudo: str | Path | None, alignments: Sequence[str | Path]) -> None:
        self.folders = [SpeechFeatures(features)] + ([SpeechFeatures(pseudo)] if pseudo else [])
        known: dict[str, Alignment] = {}
        for path in alignments:
            known.update(read_alignments(path))
        self.entries: list[ClipEntry] = []
        """One entry a clip, in the order of the indices."""
        self._clips: dict[int, SpokenClip] = {}
        self._gain: dict[str, float] = {}
        self._mels: dict[str, np.ndarray] = {}
        for folder, prepared in enumerate(self.folders):
            for index, info in enumerate(prepared):
                alignment = known.get(info.id.split("@")[0])
                if alignment is None:
                    continue
                factor = factor_of(info.id)
                frames = min(info.samples // AUDIO.hop_length, int(alignment.frames * 0.8 / factor))
                tokens = sum(len(word.phones) for word in alignment.words) + 2
                if frames < 2 * tokens:  # nobody speaks so fast: the alignment is wrong
                    continue
                split = side_of(info)
                self.entries.append(
                    ClipEntry(
                        info.id, info.corpus, info.speaker, split, factor != 1.0, frames, (folder, index), alignment
                    )
                )
        if not self.entries:
            raise DataError("no clip is aligned", source=features, remedy="run: python -m crossmodal.data.alignment")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index not in self._clips:
            self._clips[index] = self._clip(self.entries[index])
        return self._clips[index]

    def of_split(self, split: str) -> list[int]:
        """Indices of the clips of a split."""
        return [i for i, entry in enumerate(self.entries) if entry.split == split]

    def mel(self, clip: SpokenClip) -> np.ndarray:
        """``(F, 100)`` float16 log-mel, its speech brought to one level."""
        return self._mels[clip.id]

    def gain(self, clip: SpokenClip) -> float:
        """What was added to the clip's log-mel to bring it to that level."""
        return self._gain[clip.id]

    def mel_statistics(self, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each band ``(100,)`` over ``count`` training clips."""
        chosen = self.of_split("train") or list(range(len(self)))
        frames = np.concatenate([self.mel(self[i]).astype(np.float32) for i in chosen[:: max(1, len(chosen) // count)]])
        return frames.mean(0), frames.std(0).clip(0.1)

    def _raw_mel(self, place: tuple[int, int], frames: int) -> np.ndarray:
        wave = self.folders[place[0]].waveform(place[1], 0, frames * AUDIO.hop_length)
        return log_mel(torch.from_numpy(wave)).numpy().T[:frames]  # (F, 100)

    def _clip(self, entry: ClipEntry) -> SpokenClip:
        folder, index = entry.place
        prepared, frames = self.folders[folder], entry.frames
        info, factor = prepared[index], factor_of(entry.id)
        rows, durations = _tokens(entry.alignment, info.text)
        f0 = prepared.pitch(index, 0, frames)
        raw = self._raw_mel((folder, index), frames)
        level = frame_level(raw)
        hops = to_hops([d / factor for d in durations], frames)
        hops = _edges(hops, level)
        silent = np.repeat(np.array([row[0] for row in rows]) == 0, hops)
        spoken = np.sort(np.exp(level[~silent]))[::-1]
        gain = SPEECH_LEVEL - float(np.log(spoken[: max(1, len(spoken) // 2)].mean()))
        self._gain[info.id] = gain
        self._mels[info.id] = (raw + gain).astype(np.float16)
        columns = list(zip(*rows, strict=True))
        return SpokenClip(
            id=info.id,
            corpus=info.corpus,
            voice=info.speaker,
            split=entry.split,
            pseudo=entry.pseudo,
            tokens=TokenSequence(columns[0], columns[1], columns[2], columns[3]),
            durations=hops,
            f0=np.where(silent | (level + gain < SPEECH_LEVEL + _QUIET), 0.0, f0).astype(np.float32),
            embedding=prepared.embedding(index),
            gender=info.attributes.get("gender", ""),
            place=(folder, index),
        )


def prepare(data: Path, features: Path, pseudo: Path | None, alignments: Sequence[Path]) -> None:
    """Prepare what does not exist yet: features, alignments (all into the first file), pseudo-speakers."""
    from crossmodal.data import alignment, pseudo_speakers, speech_features

    if not (features / "index.jsonl").is_file():
        speech_features.main([str(data), str(features)])
    if not any(path.is_file() for path in alignments):
        alignments[0].parent.mkdir(parents=True, exist_ok=True)
        alignment.main([str(data), str(alignments[0])])
    if pseudo is not None and not (pseudo / "index.jsonl").is_file():
        pseudo_speakers.main([str(features), str(pseudo)])


def generate(folder: str | Path, seed: int = 0) -> None:
    """``features`` and ``alignments.jsonl`` of generated voices, for debug recipes; two speakers are held out.

    The alignments cut each utterance evenly into a pause and the phones of three words.
    """
    import json

    from crossmodal.data import speech_features

    folder = Path(folder)
    speech_features.generate(folder / "features", seed)
    features = speech_features.prepare_features([], folder / "features")  # adds the speaker embeddings
    spoken = (("", ("SIL",)), ("see", ("S", "IY")), ("no", ("N", "OW")), ("one", ("W", "AH", "N")))
    with open(folder / "alignments.jsonl", "w", encoding="utf-8") as file:
        for clip in features:
            each = int(clip.seconds * 100) // 8
            words = [{"word": w, "phones": p, "durations": [each] * len(p)} for w, p in spoken]
            file.write(json.dumps({"key": clip.id, "words": words, "source": "text", "score": -1.0}) + "\n")


_Row = tuple[int, int, bool, int]


def _tokens(alignment: Alignment, text: str | None) -> tuple[list[_Row], list[float]]:
    """Token rows (phone, stress, word-final, mark) and durations in aligner frames; a pause at both ends."""
    marks = _marks(alignment, text)
    rows: list[_Row] = []
    durations: list[float] = []
    clause = 0
    clauses: list[int] = []
    for mark in reversed(marks):
        clause = mark or clause
        clauses.append(clause)
    clauses.reverse()
    spoken = -1
    for word in alignment.words:
        if not word.word:
            before = marks[spoken] if spoken >= 0 else 0
            rows.append((0, 0, True, before))
            durations.append(float(word.durations[0]))
            continue
        spoken += 1
        stress = _stress(word)
        for place, (phone, duration) in enumerate(zip(word.phones, word.durations, strict=True)):
            rows.append((_IDS[phone], stress[place], place == len(word.phones) - 1, clauses[spoken]))
            durations.append(float(duration))
    if rows[0][0] != 0:
        rows.insert(0, (0, 0, True, 0))
        durations.insert(0, 0.0)
    if rows[-1][0] != 0:
        rows.append((0, 0, True, marks[-1]))
        durations.append(0.0)
    return rows, durations


def _marks(alignment: Alignment, text: str | None) -> list[int]:
    """The punctuation after each spoken word; none where there is no text, or it does not match the words."""
    words = [word.word for word in alignment.words if word.word]
    none = [0] * len(words)
    if text is None or alignment.source != "text":
        return none
    marks: list[int] = []
    for item in re.findall(r"[a-z']+|[.,?!]", normalise(text)):
        if item in PUNCTUATION:
            if marks:
                marks[-1] = PUNCTUATION.index(item)
        else:
            marks.append(0)
    return marks if len(marks) == len(words) else none


def _stress(word: AlignedWord) -> list[int]:
    """Stress of each aligned phone, taken from the lexicon's vowels in order; the first vowel if they do not match."""
    vowels = [i for i, phone in enumerate(word.phones) if phone in VOWELS]
    levels = [int(name[-1]) for name in pronounce(word.word).split() if name[-1].isdigit()]
    if len(levels) != len(vowels):
        levels = [1 if i == 0 else 0 for i in range(len(vowels))]
    stress = [0] * len(word.phones)
    for i, level in zip(vowels, levels, strict=True):
        stress[i] = level
    return stress


def _edges(hops: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Give the pauses at both ends the quiet frames that the aligner counted to the first and last phone."""
    hops = hops.copy()
    loud = np.sort(level)[::-1][: max(1, len(level) // 2)].mean()
    quiet = level < loud + _QUIET
    for edge, beside, flags in ((0, 1, quiet), (-1, -2, quiet[::-1])):
        run = int(np.argmin(flags)) if not flags.all() else 0  # quiet frames at this end
        extra = min(run - int(hops[edge]), int(hops[beside]) - 2)
        if extra > 0:
            hops[edge] += extra
            hops[beside] -= extra
    return hops
