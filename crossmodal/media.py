"""Decoding: any sound or video file, or its bytes, → mono samples at the file's own rate.

libsndfile (``soundfile``) reads what it knows (WAV, FLAC, Ogg, AIFF, ...), the FFmpeg libraries inside PyAV's wheels
read the rest, so no program has to be installed. Files are opened as untrusted: playlists and other formats that would
make FFmpeg open further files or addresses are refused.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from crossmodal.errors import AudioError, InputWarning, NoAudioStreamError, UnreadableAudioError

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000
"""Sample rates in Hz outside of which a header is taken for damaged."""
MAX_SECONDS = 3600.0
"""Longest sound that is read unless the caller asks for more."""

_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,iff,latm,loas,m4v,matroska,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,mpegtsraw,mpegvideo,mxf,nut,ogg,qcp,rm,rso,shn,sox,spx,swf,tak,tta,voc,w64,wav,wv"
)
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
_MAX_DAMAGED_PACKETS = 200
_REMEDY = "convert it to WAV, FLAC or MP3, or check the download"


@dataclass
class Decoded:
    """Mono samples and what became known while reading them."""

    samples: np.ndarray
    """float32 ``(T,)``, the mean of the channels; may hold NaN or values beyond ±1 if the file does."""
    sample_rate: int
    promised: float | None = None
    """Seconds that the header announces, where it does so reliably."""
    damaged: bool = False
    """Whether parts could not be decoded."""

    @property
    def seconds(self) -> float:
        """Duration of what could be read."""
        return len(self.samples) / self.sample_rate


class _UnknownFormatError(Exception):
    """This decoder does not know the file; another one may."""


class _Mono:
    """Collects blocks of samples as mono, up to a duration."""

    def __init__(self, name: str, max_seconds: float | None) -> None:
        self.name, self.max_seconds = name, max_seconds
        self.blocks: list[tuple[int, np.ndarray]] = []
        self.seconds = 0.0

    def add(self, block: np.ndarray, rate: int) -> None:
        """Append ``(n, channels)`` samples of any float or PCM type."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise UnreadableAudioError(f"implausible sample rate of {rate} Hz", source=self.name, remedy=_REMEDY)
        if not len(block):
            return
        self.blocks.append((rate, to_mono(block)))
        self.seconds += len(block) / rate
        if self.max_seconds is not None and self.seconds > self.max_seconds:
            raise AudioError(
                f"longer than {self.max_seconds:.0f} s",
                source=self.name,
                remedy="cut it, or call crossmodal.audio.load with a larger max_seconds",
            )

    def result(self) -> tuple[np.ndarray, int]:
        """All samples at the rate of the first block (streams may change their rate half-way)."""
        if not self.blocks:
            return np.zeros(0, dtype=np.float32), LOWEST_RATE
        rate = self.blocks[0][0]
        return np.concatenate([resample(samples, own, rate) for own, samples in self._runs()]), rate

    def _runs(self) -> Iterator[tuple[int, np.ndarray]]:
        first = 0
        for i in range(1, len(self.blocks) + 1):
            if i == len(self.blocks) or self.blocks[i][0] != self.blocks[first][0]:
                yield self.blocks[first][0], np.concatenate([samples for _, samples in self.blocks[first:i]])
                first = i


def to_mono(block: np.ndarray) -> np.ndarray:
    """``(n, channels)`` of float, 8-, 16- or 32-bit PCM → float32 ``(n,)``: scaled to ±1, channels averaged."""
    if block.dtype.kind == "f":
        wide = block if block.dtype == np.float64 else block.astype(np.float32, copy=False)
        scale = 1.0
    else:
        bits = 8 * block.dtype.itemsize
        scale = float(2 ** (bits - 1))
        wide = block.astype(np.float64) - (scale if block.dtype.kind == "u" else 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are reported by the caller
        mean = wide[:, 0] if wide.shape[1] == 1 else wide.mean(axis=1, dtype=np.float64)
        return (mean / scale).astype(np.float32)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 ``(T,)`` from ``rate`` to ``target`` Hz → ``(round(T · target / rate),)``, by soxr in high quality."""
    if rate == target or not len(samples):
        return samples
    import soxr

    length = max(1, round(len(samples) * target / rate))
    out = soxr.resample(samples, rate, target, quality="HQ")
    return np.pad(out[:length], (0, max(0, length - len(out)))).astype(np.float32, copy=False)


def decode(source: Any, *, max_seconds: float | None = MAX_SECONDS) -> Decoded:
    """Read a file (path), ``-`` (standard input), bytes, or an open binary file.

    A file that ends early or is damaged in places gives what can be read, with an :class:`InputWarning`; one that
    gives nothing is an error.

    Args:
        source: what to read.
        max_seconds: longest sound to accept; ``None`` for no limit.

    Raises:
        UnreadableAudioError: no such file, a folder, empty, not audio, or nothing of it can be decoded.
        NoAudioStreamError: a video without sound.
        AudioError: longer than ``max_seconds``.
    """
    file, name = open_source(source)
    with file:
        head = file.read(1 << 16)
        size = file.seek(0, io.SEEK_END)
        if not size:
            raise UnreadableAudioError("is empty", source=name, remedy="check the recording or download")
        readers = [_read_ffmpeg]
        if not head.startswith((b"ID3", b"\xff")):  # libsndfile prints on damaged MP3
            readers.insert(0 if _sndfile_knows(head) else 1, _read_sndfile)
        decoded: Decoded | None = None
        for reader in readers:
            file.seek(0)
            try:
                decoded = reader(file, name, max_seconds)
            except _UnknownFormatError:
                continue
            if len(decoded.samples):
                break
    if decoded is None:
        raise UnreadableAudioError(_what_it_is(head), source=name, remedy=_REMEDY)
    if not len(decoded.samples):
        raise UnreadableAudioError("is cut short or damaged: no sound can be decoded", source=name, remedy=_REMEDY)
    promised = _promised_by_wav(head, size, decoded) or decoded.promised
    if promised is not None and promised - decoded.seconds > max(0.1, 0.02 * promised):
        warnings.warn(
            f"{name}: is cut short: {decoded.seconds:.2f} s of the {promised:.2f} s that its header announces",
            InputWarning,
            stacklevel=3,
        )
    elif decoded.damaged:
        warnings.warn(
            f"{name}: is damaged in places: {decoded.seconds:.2f} s could be read", InputWarning, stacklevel=3
        )
    return decoded


def open_source(source: Any) -> tuple[BinaryIO, str]:
    """A path, ``-``, bytes or an open file → a seekable binary file, and the name that messages use.

    Raises:
        UnreadableAudioError: no such file, a folder, not permitted, or none of these.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source), "sound"
    if isinstance(source, str) and source == "-":
        return io.BytesIO(sys.stdin.buffer.read()), "standard input"
    if hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            raise UnreadableAudioError("is open as text", source=_name_of(source), remedy="open it in binary mode")
        return io.BytesIO(content), _name_of(source)
    if not isinstance(source, str | Path):
        raise UnreadableAudioError(
            f"cannot load a {type(source).__name__}", source="sound", remedy="give a path, bytes, array or tensor"
        )
    try:
        return open(source, "rb"), str(source)
    except FileNotFoundError as error:
        raise UnreadableAudioError("does not exist", source=source or "''", remedy="check the path") from error
    except IsADirectoryError as error:
        raise UnreadableAudioError("is a folder", source=source, remedy="give one file") from error
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UnreadableAudioError(f"cannot be opened ({problem})", source=source, remedy="check the path") from error


def _name_of(file: Any) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "sound"


def read_tags(source: Any) -> dict[str, str]:
    """The text tags of a sound or video file, keys in lower case (``comment``, ``encoder``, ``title``, ...).

    Raises:
        UnreadableAudioError: the file cannot be opened. A file of unknown format simply has no tags.
    """
    import av

    file, _ = open_source(source)
    with file:
        try:
            with av.open(file, mode="r", options=_OPTIONS, metadata_errors="replace") as container:
                tags = dict(container.metadata)
                for stream in container.streams.audio:
                    tags.update(stream.metadata)  # Ogg keeps them in the stream
        except (av.FFmpegError, OSError, ValueError):
            return {}
    return {key.lower(): value for key, value in tags.items()}


def _sndfile_knows(head: bytes) -> bool:
    """Whether libsndfile is the reader to try first."""
    return head[:4] in (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"caff")


def _read_sndfile(file: BinaryIO, name: str, max_seconds: float | None) -> Decoded:
    import soundfile

    mono = _Mono(name, max_seconds)
    damaged = False
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise _UnknownFormatError from error
    with sound:
        rate, announced = sound.samplerate, sound.frames
        block = max(1, (1 << 20) // max(sound.channels, 1))
        try:
            while len(samples := sound.read(block, dtype="float32", always_2d=True)):
                mono.add(samples, rate)
        except (soundfile.SoundFileError, RuntimeError):
            damaged = True
    samples, rate = mono.result()
    known = 0 < announced < 1 << 40
    return Decoded(samples, rate, announced / rate if known and len(samples) else None, damaged)


def _read_ffmpeg(file: BinaryIO, name: str, max_seconds: float | None) -> Decoded:
    import av

    mono = _Mono(name, max_seconds)
    failures = 0
    promised: float | None = None
    try:
        container = av.open(file, mode="r", options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _UnknownFormatError from error
    with container:
        if not container.streams.audio:
            if not container.streams.video:
                raise _UnknownFormatError
            raise NoAudioStreamError("is a video without sound", source=name, remedy="use a recording with a voice")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise UnreadableAudioError("its sound is in an unknown codec", source=name, remedy=_REMEDY)
        if stream.duration and stream.time_base and "mov" in container.format.name:
            promised = float(stream.duration * stream.time_base)
        packets = container.demux(stream)
        while failures < _MAX_DAMAGED_PACKETS:
            try:
                packet = next(packets)
                for frame in packet.decode():
                    _add_frame(mono, frame)  # type: ignore[arg-type]
            except StopIteration:
                break
            except av.EOFError:
                break
            except (av.FFmpegError, OSError, ValueError):
                failures += 1
    samples, rate = mono.result()
    return Decoded(samples, rate, promised, damaged=failures > 0)


def _add_frame(mono: _Mono, frame: Any) -> None:
    block = frame.to_ndarray()  # planar: (channels, n); packed: (1, n · channels)
    channels = max(len(frame.layout.channels), 1)
    mono.add(block.T if frame.format.is_planar else block.reshape(-1, channels), frame.sample_rate)


def _promised_by_wav(head: bytes, size: int, decoded: Decoded) -> float | None:
    """Seconds that a WAV header announces when the file is shorter; ``None`` for other or whole files.

    libsndfile silently corrects the length. A length of 0 or near 4 GiB is what programs write into a pipe.
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position = 12
    while position + 8 <= len(head):
        kind, length = head[position : position + 4], struct.unpack_from("<I", head, position + 4)[0]
        position += 8
        if kind == b"data":
            present = size - position
            if length <= present or present <= 0 or length >= 0xFFFFFF00 or length == 0x7FFFFFFF:
                return None
            return decoded.seconds * length / present
        position += length + length % 2
    return None


def _what_it_is(head: bytes) -> str:
    """Say what a file that no decoder knows seems to be."""
    pictures = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
    if head.startswith(pictures) or head[8:12] == b"WEBP":
        return "is a picture, not a sound"
    if not head.strip(b"\0"):
        return "holds nothing but zeros"
    try:
        text = head[:4096].decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        return "is not a sound or video that can be read, or is damaged"
    printable = sum(c.isprintable() or c.isspace() for c in text)
    if printable > 0.95 * len(text):
        return "is a text, not a sound"
    return "is not a sound or video that can be read, or is damaged"
