"""What is computed of a row once and for all, and the shards it is kept in.

A feature has a name, a version and an extractor; :data:`TABLE` lists them. Values are kept in shards, one safetensors
file for a few hundred rows, with the ids and what they were made from in its header::

    OUT/features/<name>/<writer>-000001.safetensors      values (N, ...), or values (ΣT, ...) and offsets (N + 1,)

A value is found again by its row's id and is valid as long as path, size and modification time of its source and the
feature's version are the same. Shards are written whole or not at all; of two values for one id the newer counts.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.data.manifest import Row
from crossmodal.errors import ConfigError, DataError
from crossmodal.files import atomic_write

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from crossmodal.faces import DetectedFace

FORMAT = 1


class Media:
    """Sound and picture of one row, loaded when they are first asked for."""

    def __init__(self, row: Row) -> None:
        self.row = row

    @functools.cached_property
    def waveform(self) -> np.ndarray:
        """``(T,)`` float32 mono 16 kHz.

        Raises:
            DataError: the row has no sound.
            AudioError: it cannot be read.
        """
        if self.row.audio is None:
            raise DataError("has no sound", source=self.row.id)
        if self.row.start is not None or self.row.end is not None:
            from crossmodal.data.video import sound

            return sound(self.row.audio, self.row.start, self.row.end)
        from crossmodal import audio

        return audio.load(self.row.audio)

    @functools.cached_property
    def speech(self) -> np.ndarray:
        """``(T,)``: :attr:`waveform` without its silences.

        Raises:
            NoSpeechError: less than 0.3 s of speech (a spelled letter has that).
        """
        from crossmodal.audio import load_speech

        return load_speech(self.waveform, sample_rate=AudioConfig().sample_rate, min_seconds=0.3)

    @functools.cached_property
    def image(self) -> Image.Image:
        """RGB picture.

        Raises:
            DataError: the row has no picture.
            ImageError: it cannot be read.
        """
        if self.row.face is None:
            raise DataError("has no picture", source=self.row.id)
        from crossmodal.faces import load_image

        return load_image(self.row.face)

    @functools.cached_property
    def face(self) -> DetectedFace:
        """The largest face in the picture.

        Raises:
            NoFaceError: there is none.
        """
        from crossmodal.faces import find_face

        return find_face(self.image, source=self.row.face or "")

    def chip(self, space: str) -> np.ndarray:
        """``(S, S, 3)`` uint8: the face, aligned for a feature space."""
        from crossmodal.faces import align

        return align(self.image, self.face, space)


@dataclass(frozen=True)
class Feature:
    """One entry of :data:`TABLE`."""

    name: str
    needs: Literal["audio", "face"]
    """What a row has to have."""
    shape: str
    """Shape and type of one value, in words."""
    make: Callable[[], Callable[[Media], np.ndarray]]
    """Builds the extractor (loads its network) once a process."""
    version: int = 1
    """Raised when the values change; older ones are then computed again."""
    ragged: bool = False
    """The first axis differs from row to row."""

    def applies(self, row: Row) -> bool:
        """Whether ``row`` has what the feature needs."""
        return (row.audio if self.needs == "audio" else row.face) is not None

    def key(self, row: Row) -> str:
        """What the value depends on: source, its size and time, the seconds used, and the feature's version."""
        source = row.audio if self.needs == "audio" else row.face
        return json.dumps([source_key(source), row.start, row.end, self.version], separators=(",", ":"))


def source_key(path: Path | None) -> list[Any]:
    """Name, size in bytes and modification time in nanoseconds of a file; size −1 if it is not there.

    The name and not the whole path, so that a moved data folder is not computed again.
    """
    if path is None:
        return []
    try:
        stat = path.stat()
    except OSError:
        return [path.name, -1, 0]
    return [path.name, stat.st_size, stat.st_mtime_ns]


def _tensor(array: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(array)


def _waveform() -> Callable[[Media], np.ndarray]:
    from crossmodal.audio import to_int16

    return lambda media: to_int16(media.waveform)


def _log_mel() -> Callable[[Media], np.ndarray]:
    from crossmodal.audio import log_mel

    return lambda media: log_mel(_tensor(media.waveform)).T.contiguous().numpy().astype(np.float16)


def _speaker_mel() -> Callable[[Media], np.ndarray]:
    from crossmodal.audio import speaker_mel

    return lambda media: speaker_mel(_tensor(media.waveform)).numpy().reshape(-1, AudioConfig().speaker_n_mels)


def _pitch() -> Callable[[Media], np.ndarray]:
    from crossmodal.audio import pitch

    return lambda media: pitch(media.waveform).astype(np.float32)


def _spectrogram() -> Callable[[Media], np.ndarray]:
    from crossmodal.audio import complex_spectrogram

    return lambda media: complex_spectrogram(_tensor(media.waveform)).reshape(2, -1, 257).numpy().astype(np.float16)


def _speaker_embedding() -> Callable[[Media], np.ndarray]:
    from crossmodal.models.speaker_encoder import SpeakerEncoder

    encoder = SpeakerEncoder.from_package().eval()
    return lambda media: encoder.embed(media.speech).detach().float().cpu().numpy()


def _dlib() -> Callable[[Media], np.ndarray]:
    import torch

    from crossmodal.models.face_features import DlibFaceFeatures

    network = DlibFaceFeatures.from_package().eval()

    def extract(media: Media) -> np.ndarray:
        chip = _tensor(media.chip("dlib-128").copy()).permute(2, 0, 1)[None].float() / 255.0  # (1, 3, 150, 150)
        with torch.inference_mode():
            return network(chip)[0].numpy()

    return extract


def _chip(space: str) -> Callable[[], Callable[[Media], np.ndarray]]:
    return lambda: lambda media: np.ascontiguousarray(media.chip(space))


TABLE: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature("waveform", "audio", "(T,) int16, 16 kHz", _waveform, ragged=True),
        Feature("log-mel", "audio", "(F, 100) float16, hop 12.5 ms", _log_mel, ragged=True),
        Feature("speaker-mel", "audio", "(F, 40) float32, hop 10 ms", _speaker_mel, ragged=True),
        Feature("pitch", "audio", "(F,) float32 Hz, 0 = unvoiced", _pitch, ragged=True),
        Feature("spectrogram", "audio", "(2, 598, 257) float16, Speech2Face's", _spectrogram),
        Feature("ge2e-256", "audio", "(256,) float32, speaker embedding of the speech", _speaker_embedding),
        Feature("dlib-128", "face", "(128,) float32, face feature", _dlib),
        Feature("chip-dlib-128", "face", "(150, 150, 3) uint8", _chip("dlib-128")),
        Feature("chip-facenet-512", "face", "(160, 160, 3) uint8", _chip("facenet-512")),
        Feature("chip-vggface-4096", "face", "(224, 224, 3) uint8", _chip("vggface-4096")),
    )
}


VOICES_VARIABLE = "CROSSMODAL_VOICES"
"""Environment variable with a bundle whose speaker space is a feature too; worker processes inherit it."""


def feature(name: str) -> Feature:
    """The feature called ``name``: one of :data:`TABLE`, or the speaker space of the bundle that
    ``CROSSMODAL_VOICES`` names (``yourtts-512``, say).

    Raises:
        ConfigError: there is none.
    """
    if name in TABLE:
        return TABLE[name]
    if bundle := os.environ.get(VOICES_VARIABLE):
        return _voices_of(bundle, name)
    known = "; ".join(f"{f.name} {f.shape}" for f in TABLE.values())
    remedy = f"known features: {known}; the speaker space of a bundle by --voices-of BUNDLE"
    raise ConfigError(f"no feature called '{name}'", remedy=remedy)


@functools.lru_cache
def _voices_of(source: str, name: str) -> Feature:
    """The embedding by the speaker encoder of a bundle, its own or that of its TTS.

    Raises:
        ConfigError: it writes another space.
        BundleError: no such bundle.
    """
    from crossmodal.bundle import Bundle

    bundle = Bundle.open(source)
    spaces = {role: getattr(bundle.info.modules[role], side) for role, side in _LISTENERS if role in bundle}
    role = next((role for role, space in spaces.items() if space == name), None)
    if role is None:
        has = ", ".join(spaces.values()) or "none"
        raise ConfigError(f"no feature called '{name}'", source=source, remedy=f"speaker spaces of the bundle: {has}")

    def make() -> Callable[[Media], np.ndarray]:
        encoder: Any = bundle.load(role)
        return lambda media: encoder.embed(media.speech).detach().float().cpu().numpy()

    return Feature(name, "audio", f"float32, speaker embedding by {source}", make)


_LISTENERS = (("speaker-encoder", "output_space"), ("tts", "input_space"))


class FeatureWriter:
    """Collects values of one feature and writes them in shards.

    Args:
        folder: ``OUT/features/<name>``; made if it does not exist.
        feature: what is written.
        writer: the name of this process in the file names, so that several machines can share the folder.
    """

    def __init__(self, folder: str | Path, feature: Feature, writer: str = "0of1") -> None:
        self.folder, self.feature, self.writer = Path(folder), feature, writer
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{writer}-*.safetensors")]
        self.number = max(numbers, default=0)
        self.pending: dict[str, tuple[str, np.ndarray]] = {}
        self.bytes = 0

    def add(self, row_id: str, key: str, value: np.ndarray) -> None:
        """Keep one value until the next :meth:`flush`."""
        self.pending[row_id] = (key, value)
        self.bytes += value.nbytes

    def flush(self) -> None:
        """Write what is pending as one shard.

        Raises:
            OutputError: it cannot be written; nothing is lost and nothing half written.
        """
        if not self.pending:
            return
        from safetensors.numpy import save

        values = [value for _, value in self.pending.values()]
        if self.feature.ragged:
            offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int64)
            tensors = {"values": np.concatenate(values), "offsets": offsets}
        else:
            tensors = {"values": np.stack(values)}
        header = {
            "format": str(FORMAT),
            "feature": self.feature.name,
            "written": str(time.time_ns()),
            "ids": json.dumps(list(self.pending)),
            "keys": json.dumps([key for key, _ in self.pending.values()]),
        }
        self.number += 1
        content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, header)
        atomic_write(self.folder / f"{self.writer}-{self.number:06d}.safetensors", content)
        self.pending, self.bytes = {}, 0


class FeatureStore(Mapping[str, np.ndarray]):
    """All values of one feature: ``store[id]`` reads one from disk. Picklable, so data-loader workers can have it.

    Raises:
        DataError: the folder holds no shards, or one of them is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not any(self.folder.glob("*.safetensors")):
            raise DataError(
                "holds no features",
                source=folder,
                remedy=f"make them with: crossmodal prepare SET ROOT -o OUT --features {self.folder.name}",
            )
        self._places: dict[str, tuple[Path, int]] = {}
        self.keys_of: dict[str, str] = {}
        for path, header in shards(self.folder):
            for position, (row_id, key) in enumerate(zip(json.loads(header["ids"]), json.loads(header["keys"]))):
                self._places[row_id] = (path, position)
                self.keys_of[row_id] = key
        self._open: dict[Path, Any] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._places

    def __getitem__(self, row_id: str) -> np.ndarray:
        if row_id not in self._places:
            raise DataError(f"has no value for '{row_id}'", source=self.folder, remedy="prepare the data again")
        path, position = self._places[row_id]
        file = self._file(path)
        if "offsets" in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
            offsets = file.get_slice("offsets")[position : position + 2]
            return file.get_slice("values")[int(offsets[0]) : int(offsets[1])]
        return file.get_slice("values")[position : position + 1][0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            from safetensors import safe_open

            if len(self._open) >= 256:
                self._open.pop(next(iter(self._open)))
            self._open[path] = safe_open(path, framework="numpy")
        return self._open[path]


def shards(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Shards of a folder with their headers, oldest first.

    Raises:
        DataError: a file that is no shard.
    """
    paths = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    headers = [(path, _header(path)) for path in paths]
    yield from sorted(headers, key=lambda pair: int(pair[1].get("written", 0)))


def _header(path: Path) -> dict[str, str]:
    """The text part of a safetensors header, without reading the values."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("truncated")
            header = json.loads(file.read(length)).get("__metadata__", {})
    except (OSError, ValueError) as error:
        raise DataError("is no shard of features", source=path, remedy="delete it and prepare again") from error
    if header.get("format") != str(FORMAT) or "ids" not in header:
        raise DataError("is no shard of features", source=path, remedy="delete it and prepare again")
    return header
