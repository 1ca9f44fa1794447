"""Waveform, pitch and speaker embedding of many utterances in four flat files that open in milliseconds.

Training the acoustic model and the vocoder reads random crops of hours of speech; decoding and analysing each clip anew
would cost more than the step itself. :func:`prepare_features` does it once (it goes on where it was interrupted),
:class:`SpeechFeatures` maps the result into memory::

    samples.s16   int16 waveforms, one after another        pitch.f32       F0 in Hz, 0 = unvoiced, one value a hop
    index.jsonl   one line an utterance: id, corpus, ...    embeddings.f32  one 256-d speaker embedding an utterance

The log-mel is cheap and is computed from the waveform where it is needed. Command::

    python -m crossmodal.data.speech_features DATA_FOLDER OUT_FOLDER
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.data.starter_split import Split, split_of
from crossmodal.errors import CrossmodalError, DataError

if TYPE_CHECKING:
    from crossmodal.data.manifest import Row

logger = logging.getLogger(__name__)

STARTER_SPEECH = ("arctic", "kathleen", "an4", "librispeech")
"""The sets of ``crossmodal.data.sets`` whose speech trains the starter voices."""

EMBEDDING_SIZE = 256
_HOP = AudioConfig().hop_length
_SAMPLES, _PITCH, _EMBEDDINGS, _INDEX, _SKIPPED = (
    "samples.s16",
    "pitch.f32",
    "embeddings.f32",
    "index.jsonl",
    "skipped.jsonl",
)


@dataclass(frozen=True)
class ClipInfo:
    """What is known of one utterance without reading it; one line of ``index.jsonl``."""

    id: str
    corpus: str
    speaker: str
    text: str | None
    attributes: dict[str, str]
    licence: str
    start: int
    """First sample in ``samples.s16``."""
    samples: int
    """Length in samples."""
    pitch_start: int
    """First value in ``pitch.f32``."""

    @property
    def frames(self) -> int:
        """Frames of log-mel and pitch: ``samples // hop + 1``."""
        return self.samples // _HOP + 1

    @property
    def seconds(self) -> float:
        return self.samples / AudioConfig().sample_rate


class SpeechFeatures(Sequence[ClipInfo]):
    """Prepared utterances, memory-mapped read-only. ``features[i]`` is the :class:`ClipInfo` of utterance ``i``.

    Raises:
        DataError: the folder holds no prepared features, or they are damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        remedy = f"run: python -m {__spec__.name if __spec__ else __name__} DATA_FOLDER {folder}"
        if not (self.folder / _INDEX).is_file():
            raise DataError("holds no prepared speech features", source=folder, remedy=remedy)
        self._clips = _read_index(self.folder)
        self._position = {clip.id: i for i, clip in enumerate(self._clips)}
        self._samples = _map(self.folder / _SAMPLES, "<i2")
        self._pitch = _map(self.folder / _PITCH, "<f4")
        self._embeddings = _map(self.folder / _EMBEDDINGS, "<f4")
        samples, frames = _ends(self._clips)
        if len(self._samples) < samples or len(self._pitch) < frames:
            raise DataError("the feature files are shorter than their index", source=folder, remedy=remedy)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: Any) -> Any:
        return self._clips[index]

    def __iter__(self) -> Iterator[ClipInfo]:
        return iter(self._clips)

    @property
    def complete(self) -> bool:
        """Whether there are utterances, each with its embedding, which is prepared last."""
        return 0 < len(self._clips) * EMBEDDING_SIZE <= len(self._embeddings)

    def position(self, clip_id: str) -> int:
        """Index of the utterance called ``clip_id``.

        Raises:
            DataError: there is none.
        """
        if clip_id not in self._position:
            raise DataError(f"no utterance called '{clip_id}'", source=self.folder)
        return self._position[clip_id]

    def waveform(self, index: int, start: int = 0, samples: int | None = None) -> np.ndarray:
        """``(T,)`` float32 in [-1, 1]: all of it, or ``samples`` from ``start`` (cut at its end)."""
        clip = self._clips[index]
        stop = clip.samples if samples is None else min(start + samples, clip.samples)
        return self._samples[clip.start + start : clip.start + stop].astype(np.float32) / 32768.0

    def pitch(self, index: int, start: int = 0, frames: int | None = None) -> np.ndarray:
        """``(F,)`` float32 F0 in Hz, 0 where unvoiced, aligned with the log-mel's frames."""
        clip = self._clips[index]
        stop = clip.frames if frames is None else min(start + frames, clip.frames)
        return np.array(self._pitch[clip.pitch_start + start : clip.pitch_start + stop], dtype=np.float32)

    def embedding(self, index: int) -> np.ndarray:
        """``(256,)`` float32 unit-length speaker embedding (``ge2e-256``) of the whole utterance.

        Raises:
            DataError: the embeddings were not prepared up to this utterance.
        """
        values = self._embeddings[index * EMBEDDING_SIZE : (index + 1) * EMBEDDING_SIZE]
        if len(values) != EMBEDDING_SIZE:
            raise DataError(f"no embedding of '{self._clips[index].id}' yet", source=self.folder)
        return np.array(values, dtype=np.float32)


def prepare_features(
    rows: Iterable[Row],
    folder: str | Path,
    *,
    embed: bool = True,
    batch_size: int = 16,
    progress: Callable[[int, str], None] | None = None,
) -> SpeechFeatures:
    """Analyse ``rows`` (those with audio) into ``folder``; rows already there are not done again.

    An unreadable or silent file is logged in ``skipped.jsonl`` with its reason and left out.

    Args:
        rows: manifest rows; ids must be unique. ``start`` and ``end`` (seconds) cut the file.
        folder: made if it does not exist.
        embed: also compute the speaker embeddings (a second pass, ten times slower than the first).
        batch_size: utterances embedded together.
        progress: called with (utterances done, what is being done).
    """
    rows = iter(rows)
    first = next(rows, None)  # a wrong data folder shows before anything is made
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clips = _read_index(folder) if (folder / _INDEX).is_file() else []
    done = {clip.id for clip in clips} | _skipped_ids(folder)
    seen: set[str] = set()
    samples_end, frames_end = _ends(clips)
    _truncate(folder / _SAMPLES, samples_end * 2)  # an interrupted run may have written more than its index says
    _truncate(folder / _PITCH, frames_end * 4)
    with (
        open(folder / _SAMPLES, "ab") as samples_file,
        open(folder / _PITCH, "ab") as pitch_file,
        open(folder / _INDEX, "a", encoding="utf-8") as index_file,
        open(folder / _SKIPPED, "a", encoding="utf-8") as skipped_file,
    ):
        for row in chain(() if first is None else (first,), rows):
            if row.audio is None:
                continue
            if row.id in seen:
                raise DataError(f"two utterances are called '{row.id}'", source=folder)
            seen.add(row.id)
            if row.id in done:
                continue
            try:
                waveform, pitch = _analyse(row)
            except CrossmodalError as error:
                skipped_file.write(json.dumps({"id": row.id, "reason": str(error)}) + "\n")
                logger.warning("skipped %s", error)
                continue
            clip = ClipInfo(
                id=row.id,
                corpus=row.corpus,
                speaker=row.speaker,
                text=row.text,
                attributes=dict(row.attributes),
                licence=row.licence,
                start=samples_end,
                samples=len(waveform),
                pitch_start=frames_end,
            )
            samples_file.write(waveform.tobytes())
            pitch_file.write(pitch.tobytes())
            samples_file.flush()
            pitch_file.flush()
            index_file.write(json.dumps(dataclasses.asdict(clip), ensure_ascii=False) + "\n")
            index_file.flush()
            clips.append(clip)
            samples_end, frames_end = samples_end + clip.samples, frames_end + clip.frames
            if progress:
                progress(len(clips), "waveform and pitch")
    if embed:
        _embed(folder, len(clips), batch_size, progress)
    return SpeechFeatures(folder)


def starter_rows(data: str | Path, sets: Sequence[str] = STARTER_SPEECH) -> Iterator[Row]:
    """Manifest rows of the openly licensed speech under ``data`` that trains the starter voices."""
    import importlib

    folders = {"arctic": "cmu_arctic"}
    for name in sets:
        module = importlib.import_module(f"crossmodal.data.sets.{name}")
        yield from module.rows(Path(data) / folders.get(name, name))


def side_of(clip: ClipInfo) -> Split:
    """``train``, ``validation`` or ``test``: what the clip's attribute ``side`` says, else the rule of the starter's
    speech (:mod:`crossmodal.data.starter_split`), else, for other corpora, a hash of the speaker (3 % and 3 %)."""
    if (side := clip.attributes.get("side")) in ("train", "validation", "test"):
        return side  # type: ignore[return-value]
    if clip.corpus in ("arctic", "kathleen", "an4", "librispeech"):
        return split_of(clip.corpus, clip.speaker, clip.id.split("/")[-1])
    digest = hashlib.sha256(f"{clip.corpus}/{clip.speaker}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if place < 0.03 else "validation" if place < 0.06 else "train"


def generate(folder: str | Path, seed: int = 0, *, people: int = 6, takes: int = 3, seconds: float = 1.7) -> None:
    """Prepared features of generated voices (:mod:`crossmodal.data.generated`), for debug recipes: two are held out."""
    from crossmodal.audio import save_wav
    from crossmodal.data.generated import generated_voice
    from crossmodal.data.manifest import Row

    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for person in range(people):
            side = ("test", "validation")[person] if person < 2 else "train"
            for take in range(takes):
                path = Path(temporary) / f"{person}-{take}.wav"
                save_wav(path, generated_voice(seed * 10_000 + person, take, seconds))
                name = f"generated/{person}/{take}"
                rows.append(Row(name, "generated", str(person), path, attributes={"side": side}))
        prepare_features(rows, folder, embed=False)


def _analyse(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """int16 waveform ``(T,)`` and float32 pitch ``(T // hop + 1,)`` of one row."""
    from crossmodal import audio

    rate = AudioConfig().sample_rate
    waveform = audio.load(row.audio)
    if row.start is not None or row.end is not None:
        waveform = waveform[int((row.start or 0.0) * rate) : int(row.end * rate) if row.end is not None else None]
    if len(waveform) < rate // 4:
        raise DataError(f"only {len(waveform) / rate:.2f} s of sound", source=row.audio)
    pitch = audio.pitch(waveform).astype("<f4")
    frames = len(waveform) // _HOP + 1
    pitch = np.pad(pitch[:frames], (0, max(0, frames - len(pitch))))
    return (waveform.clip(-1.0, 32767 / 32768) * 32768.0).round().astype("<i2"), pitch


def _embed(folder: Path, count: int, batch_size: int, progress: Callable[[int, str], None] | None) -> None:
    """Append the embeddings that are missing, ``batch_size`` utterances at a time."""
    path = folder / _EMBEDDINGS
    size = EMBEDDING_SIZE * 4
    done = path.stat().st_size // size if path.exists() else 0
    if done >= count:
        return
    import torch

    from crossmodal.models.speaker_encoder import SpeakerEncoder

    _truncate(path, done * size)
    features = SpeechFeatures(folder)
    encoder = SpeakerEncoder.from_package().eval()
    with open(path, "ab") as file, torch.inference_mode():
        for first in range(done, count, batch_size):
            waves = [features.waveform(i) for i in range(first, min(first + batch_size, count))]
            file.write(encoder.embed_batch(waves).float().cpu().numpy().astype("<f4").tobytes())
            file.flush()
            if progress:
                progress(first + len(waves), "speaker embedding")


def _read_index(folder: Path) -> list[ClipInfo]:
    """The index; a last line cut off by an interruption is removed from the file."""
    path = folder / _INDEX
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        _truncate(path, len(whole))
    try:
        return [ClipInfo(**json.loads(line)) for line in whole.decode("utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"is damaged ({error})", source=path, remedy="delete the folder and prepare it again"
        ) from error


def _skipped_ids(folder: Path) -> set[str]:
    path = folder / _SKIPPED
    return (
        {json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()} if path.exists() else set()
    )


def _ends(clips: Sequence[ClipInfo]) -> tuple[int, int]:
    """Samples and pitch values used so far."""
    return (clips[-1].start + clips[-1].samples, clips[-1].pitch_start + clips[-1].frames) if clips else (0, 0)


def _truncate(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def _map(path: Path, dtype: str) -> np.ndarray:
    if not path.exists() or path.stat().st_size < np.dtype(dtype).itemsize:
        return np.zeros(0, dtype=dtype)
    usable = path.stat().st_size // np.dtype(dtype).itemsize
    return np.memmap(path, dtype=dtype, mode="r", shape=(usable,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the starter's speech from the command line."""
    parser = argparse.ArgumentParser(
        description="Prepare waveform, pitch and speaker embeddings of the starter's speech."
    )
    parser.add_argument("data", help="folder that holds cmu_arctic, kathleen, an4 and librispeech")
    parser.add_argument("out", help="folder for the features")
    parser.add_argument("--sets", nargs="+", default=list(STARTER_SPEECH), help="which sets")
    parser.add_argument("--no-embed", action="store_true", help="skip the speaker embeddings")
    options = parser.parse_args(arguments)

    def progress(count: int, stage: str) -> None:
        if count % 200 < 16:
            print(f"\r{stage}: {count} utterances", end="", flush=True)

    features = prepare_features(
        starter_rows(options.data, options.sets), options.out, embed=not options.no_embed, progress=progress
    )
    hours = sum(clip.seconds for clip in features) / 3600
    print(f"\n{len(features)} utterances, {hours:.2f} hours, in {options.out}")


if __name__ == "__main__":
    main()
