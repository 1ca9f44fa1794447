"""When each phone of an utterance is spoken: forced alignment with pocketsphinx, whose wheel carries its acoustic
model.

Transcribed speech is aligned with its text; speech without a transcript is first recognised, and what the recogniser
believes it heard is aligned as if it were the text (*pseudo-labels*): wrong words still say which sounds are spoken
when,
which is what an acoustic model learns from. Command::

    python -m crossmodal.data.alignment DATA_FOLDER OUT.jsonl --sets arctic kathleen an4 librispeech

It goes on where it was interrupted. One line of the result is one :class:`Alignment`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.errors import CrossmodalError, DataError, DependencyError

logger = logging.getLogger(__name__)

FRAME_SECONDS = 0.01
"""Length of one frame of the aligner."""
RECOGNISED_SECONDS = 14.0
"""Speech without a transcript is used up to here: recognising is the slow part, and more speakers help more."""
SILENCE = "SIL"
"""Phone of pauses, breaths and other fillers."""


@dataclass(frozen=True)
class AlignedWord:
    """One word, or one pause (``word`` is then empty and its only phone ``SIL``)."""

    word: str
    phones: tuple[str, ...]
    """ARPAbet phones without stress."""
    durations: tuple[int, ...]
    """Frames of 10 ms of each phone; at least 1."""


@dataclass(frozen=True)
class Alignment:
    """Words, phones and durations of one utterance."""

    key: str
    """See :func:`crossmodal.data.starter_split.clip_key`."""
    words: tuple[AlignedWord, ...]
    source: str
    """``text`` (its transcript) or ``recogniser`` (pseudo-labels)."""
    score: float
    """Log confidence of the first pass, for finding bad alignments."""

    @property
    def frames(self) -> int:
        """Length in frames of 10 ms."""
        return sum(sum(word.durations) for word in self.words)

    @property
    def text(self) -> str:
        """The spoken words."""
        return " ".join(word.word for word in self.words if word.word)


class Aligner:
    """Forced alignment, and recognition where there is no text.

    Args:
        pronounce: word → phones, for words that the recogniser's dictionary lacks; without it they are an error.

    Raises:
        DependencyError: pocketsphinx is not installed.
    """

    def __init__(self, pronounce: Callable[[str], Sequence[str]] | None = None) -> None:
        try:
            from pocketsphinx import Decoder, get_model_path
        except ImportError as error:
            raise DependencyError(
                "is not installed", source="pocketsphinx", remedy="pip install crossmodal[eval]"
            ) from error
        wide = {"beam": 1e-80, "pbeam": 1e-80, "wbeam": 1e-60}  # reading a known text, few paths compete
        self._aligner = Decoder(samprate=16000, lm=None, silprob=0.1, loglevel="FATAL", bestpath=False, **wide)
        with open(get_model_path("en-us/cmudict-en-us.dict"), encoding="utf-8") as lines:
            self._known = {line.split(" ", 1)[0] for line in lines}
        self._decoder_class = Decoder
        self._recogniser: Any = None
        self._pronounce = pronounce

    def recognise(self, waveform: np.ndarray) -> str:
        """What pocketsphinx hears in ``waveform (T,)``: lower-case words; may be empty."""
        if self._recogniser is None:
            fast = {"maxhmmpf": 3000, "maxwpf": 10, "fwdflat": False}  # same words, half the time
            self._recogniser = self._decoder_class(samprate=16000, loglevel="FATAL", **fast)
        decoder = self._recogniser
        _run(decoder, _pcm(waveform))
        hypothesis = decoder.hyp()
        return str(hypothesis.hypstr) if hypothesis else ""

    def align(self, waveform: np.ndarray, words: Sequence[str], *, key: str = "", source: str = "text") -> Alignment:
        """Align ``words`` (lower case, as spoken) with ``waveform (T,)`` at 16 kHz.

        Raises:
            DataError: there are no words, one has no pronunciation, or they do not fit the sound.
        """
        if not words:
            raise DataError("no words to align", source=key)
        decoder, pcm = self._aligner, _pcm(waveform)
        for word in words:
            if word not in self._known:
                if self._pronounce is None:
                    raise DataError(f"no pronunciation of '{word}'", source=key)
                decoder.add_word(word, " ".join(self._pronounce(word)), True)
                self._known.add(word)
        decoder.set_align_text(" ".join(words))  # with optional pauses between words
        _run(decoder, pcm)
        if (hypothesis := decoder.hyp()) is None:
            raise DataError("the words do not fit the sound", source=key)
        decoder.set_alignment()  # second pass: the phones of the words (and pauses) found
        _run(decoder, pcm)  # never ask for hyp() after this pass: the library crashes
        aligned: list[AlignedWord] = []
        for item in decoder.get_alignment():
            phones = [(SILENCE if p.name.startswith("+") else p.name, max(1, p.duration)) for p in item]
            spoken = not item.name.startswith(("<", "[", "+"))
            if spoken:
                names, durations = zip(*phones, strict=True)
                aligned.append(AlignedWord(item.name.split("(")[0], names, durations))
            elif aligned and not aligned[-1].word:  # neighbouring pauses are one
                total = aligned[-1].durations[0] + sum(d for _, d in phones)
                aligned[-1] = AlignedWord("", (SILENCE,), (total,))
            else:
                aligned.append(AlignedWord("", (SILENCE,), (sum(d for _, d in phones),)))
        if not any(word.word for word in aligned):
            raise DataError("the words do not fit the sound", source=key)
        return Alignment(key, tuple(aligned), source, math.log(max(hypothesis.score, 1e-300)))


def cut_at_pause(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The beginning of ``waveform (T,)``, cut where it is quietest within a second of ``seconds``; short ones whole."""
    rate, window = 16_000, 800
    if len(waveform) <= (seconds + 1) * rate:
        return waveform
    start = int((seconds - 1) * rate)
    frames = waveform[start : start + 2 * rate].reshape(-1, window)
    return waveform[: start + int(np.square(frames).mean(1).argmin()) * window + window // 2]


def _pcm(waveform: np.ndarray) -> bytes:
    return (np.clip(waveform, -1.0, 32767 / 32768) * 32768.0).astype("<i2").tobytes()


def _run(decoder: Any, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def to_hops(durations: Sequence[float], frames: int, hop_seconds: float = 0.0125) -> np.ndarray:
    """Aligner durations (10 ms frames) → durations in mel frames ``(N,)`` whose sum is ``frames``.

    Boundaries are rounded, so no error accumulates; each phone keeps at least one mel frame where there are enough.
    """
    count = len(durations)
    if frames < count:
        raise DataError(f"{count} phones do not fit {frames} frames")
    edges = np.round(np.cumsum([0, *durations]) * FRAME_SECONDS / hop_seconds).astype(np.int64)
    edges[-1] = frames
    for i in range(1, count):  # at least one frame each, from the left ...
        edges[i] = max(edges[i], edges[i - 1] + 1)
    for i in range(count - 1, 0, -1):  # ... and from the right
        edges[i] = min(edges[i], edges[i + 1] - 1)
    return np.diff(edges)


def read_alignments(path: str | Path) -> dict[str, Alignment]:
    """Alignments by key; a last line cut off by an interruption is ignored."""
    found: dict[str, Alignment] = {}
    path = Path(path)
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        words = tuple(AlignedWord(w["word"], tuple(w["phones"]), tuple(w["durations"])) for w in values["words"])
        found[values["key"]] = Alignment(values["key"], words, values["source"], values["score"])
    return found


def align_clips(
    clips: Iterable[tuple[str, Path, str | None]],
    path: str | Path,
    *,
    words_of: Callable[[str], Sequence[str]],
    pronounce: Callable[[str], Sequence[str]] | None = None,
) -> tuple[int, int]:
    """Align ``(key, audio file, text or None)`` into the JSON-lines file ``path``; what is there is not done again.

    Returns:
        How many clips were aligned now, and how many failed (logged with the reason).
    """
    from crossmodal import audio

    aligner, done = Aligner(pronounce), read_alignments(path)
    aligned = failed = 0
    with open(path, "a", encoding="utf-8") as file:
        for key, source, text in clips:
            if key in done:
                continue
            try:
                waveform = audio.load(source)
                if text is None:
                    waveform = cut_at_pause(waveform, RECOGNISED_SECONDS)
                words = list(words_of(text)) if text is not None else aligner.recognise(waveform).split()
                alignment = aligner.align(waveform, words, key=key, source="text" if text is not None else "recogniser")
            except CrossmodalError as error:
                logger.warning("not aligned: %s", error)
                failed += 1
                continue
            file.write(json.dumps(asdict(alignment)) + "\n")
            file.flush()
            aligned += 1
    return aligned, failed


def main(arguments: Sequence[str] | None = None) -> None:
    """Align the starter's speech from the command line."""
    from crossmodal import text as frontend
    from crossmodal.data.speech_features import STARTER_SPEECH, starter_rows
    from crossmodal.data.starter_split import clip_key

    parser = argparse.ArgumentParser(description="Align the starter's speech with its phones.")
    parser.add_argument("data", help="folder that holds cmu_arctic, kathleen, an4 and librispeech")
    parser.add_argument("out", help="JSON-lines file for the alignments")
    parser.add_argument("--sets", nargs="+", default=list(STARTER_SPEECH), help="which sets")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    clips = (
        (clip_key(row.corpus, row.speaker, row.audio), row.audio, row.text)
        for row in starter_rows(options.data, options.sets)
        if row.audio is not None
    )
    aligned, failed = align_clips(clips, options.out, words_of=frontend.words, pronounce=frontend.phones)
    print(f"{aligned} utterances aligned, {failed} failed, in {options.out}")


if __name__ == "__main__":
    main()
