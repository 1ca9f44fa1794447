"""A talking-face video in: the frame with the best face, and the sound of the same seconds.

Only a few frames are looked at (key frames where there are enough of them), the detector sees them small, and one is
kept at full size, so a six-second clip costs about as much as decoding it. Time zero is the beginning of the file, for
picture and sound alike.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.errors import DataError, NoAudioStreamError, NoFaceError, UnreadableAudioError, UnreadableImageError

if TYPE_CHECKING:
    from PIL import Image

    from crossmodal.faces import DetectedFace

SeveralFaces = Literal["largest", "skip"]
_RATE = AudioConfig().sample_rate


@dataclass(frozen=True)
class VideoOptions:
    """How a video is searched for a face."""

    candidates: int = 5
    """Frames that are looked at."""
    detect_size: int = 256
    """Longer side, in pixels, of the frames the detector sees."""
    several: SeveralFaces = "largest"
    """What to do with a frame that shows several faces: take the largest, or skip the frame."""
    other_face: float = 0.25
    """A further face counts if its area is at least this share of the largest one's."""
    minimum_score: float = 0.9
    """Detections below this probability are ignored."""
    minimum_face: int = 40
    """Height in pixels, at full size, below which a face is too small to use."""
    margin: float = 0.6
    """The kept picture reaches this share of the face's size beyond its box on every side; ``inf`` keeps the frame."""


@dataclass(frozen=True)
class BestFrame:
    """The chosen frame."""

    image: Image.Image
    """RGB, cut to the face with a margin."""
    time: float
    """Seconds from the beginning of the file."""
    quality: float
    """Score × size × sharpness × frontality, 0 to 1."""
    faces: int
    """Most faces seen in one of the frames looked at."""
    looked_at: int
    """Frames looked at."""


def best_frame(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    *,
    options: VideoOptions | None = None,
    near: tuple[float, float] | None = None,
    detect: Callable[[Image.Image], Sequence[DetectedFace]] | None = None,
) -> BestFrame:
    """Find the frame with the best face between ``start`` and ``end`` (seconds; default: the whole file).

    Args:
        path: a video.
        start, end: the clip.
        options: how to search.
        near: (x, y) as fractions of width and height: of several faces, take the one whose middle is closest, whatever
            ``options.several`` says (AVSpeech gives the speaker's place).
        detect: face detector, default :func:`crossmodal.faces.detect`.

    Raises:
        UnreadableImageError: not a video, or damaged.
        NoFaceError: no frame shows a face that can be used; says how many frames were looked at and why they failed.
    """
    options = options or VideoOptions()
    if detect is None:
        from crossmodal import faces

        detect = faces.detect
    best_found: tuple[float, Any, np.ndarray] | None = None
    most, looked_at, crowded, small = 0, 0, 0, 0
    for time, frame in _candidates(Path(path), start, end, options.candidates):
        looked_at += 1
        shrink = min(1.0, options.detect_size / max(frame.width, frame.height))
        width, height = max(1, round(frame.width * shrink)), max(1, round(frame.height * shrink))
        image = frame.reformat(width=width, height=height, format="rgb24").to_image()
        found = [face for face in detect(image) if float(face.score) >= options.minimum_score]
        if not found:
            continue
        areas = [face.area for face in found]
        largest = max(areas)
        rivals = [face for face, area in zip(found, areas) if area >= options.other_face * largest]
        most = max(most, len(rivals))
        if near is not None:
            face = min(found, key=lambda f: _distance(f, near, width, height))
        elif len(rivals) > 1 and options.several == "skip":
            crowded += 1
            continue
        else:
            face = found[areas.index(largest)]
        box = face.box
        if (box[3] - box[1]) / shrink < options.minimum_face:
            small += 1
            continue
        quality = _quality(image, face)
        if best_found is None or quality > best_found[0]:
            best_found = (quality, (time, frame), box / shrink)
    if best_found is None:
        reasons = [f"{crowded} show several faces"] * bool(crowded)
        reasons += [f"{small} only faces under {options.minimum_face} pixels"] * bool(small)
        why = ", ".join(reasons) or "none shows a face"
        raise NoFaceError(f"no usable face in {looked_at} frames ({why})", source=path)
    quality, (time, frame), box = best_found
    picture = _crop(frame.to_image(), box, options.margin)
    return BestFrame(image=picture, time=time, quality=quality, faces=most, looked_at=looked_at)


def sound(path: str | Path, start: float | None = None, end: float | None = None) -> np.ndarray:
    """The sound of a file, or of the seconds from ``start`` to ``end``, on the clock of the picture.

    Sound that begins after the clip is preceded by silence, so that sample ``t × 16,000`` is heard at second ``t`` of
    the clip; a clip that outlasts the sound is cut.

    Returns:
        float32 mono 16 kHz ``(T,)`` in [-1, 1].

    Raises:
        NoAudioStreamError: the container holds no sound.
        UnreadableAudioError: not a media file, damaged, or no sound in those seconds.
    """
    import av

    begin = start or 0.0
    try:
        with _opened(Path(path)) as container:
            if not container.streams.audio:
                raise NoAudioStreamError("holds no sound", source=path)
            stream = container.streams.audio[0]
            zero = _zero(container)
            if begin > 1.0:
                container.seek(int((begin + zero - 0.5) * 1_000_000), backward=True)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=_RATE)
            blocks: list[np.ndarray] = []
            first: float | None = None
            for frame in container.decode(stream):
                if first is None:
                    first = (frame.time - zero) if frame.time is not None else 0.0
                if end is not None and frame.time is not None and frame.time - zero > end:
                    break
                blocks += [block.to_ndarray().reshape(-1) for block in resampler.resample(frame)]
            blocks += [block.to_ndarray().reshape(-1) for block in resampler.resample(None)]
    except av.FFmpegError as error:
        raise UnreadableAudioError(f"cannot be decoded ({error.strerror or error})", source=path) from error
    waveform = np.concatenate(blocks).astype(np.float32) if blocks else np.zeros(0, np.float32)
    skip = round((begin - (first or 0.0)) * _RATE)
    waveform = waveform[skip:] if skip >= 0 else np.concatenate([np.zeros(-skip, np.float32), waveform])
    if end is not None:
        waveform = waveform[: round((end - begin) * _RATE)]
    if not len(waveform) or len(waveform) <= -skip:
        raise UnreadableAudioError(f"has no sound from second {begin:g} on", source=path)
    return np.clip(waveform, -1.0, 1.0)


def duration(path: str | Path) -> float:
    """Seconds from the beginning to the end of a media file, by its container.

    Raises:
        UnreadableAudioError: not a media file, or one that does not say how long it is.
    """
    import av

    try:
        with _opened(Path(path)) as container:
            if container.duration is None:
                raise UnreadableAudioError("does not say how long it is", source=path)
            return container.duration / 1_000_000
    except av.FFmpegError as error:
        raise UnreadableAudioError(f"cannot be opened ({error.strerror or error})", source=path) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import av

    if not path.is_file():
        raise DataError("no such file", source=path)
    with av.open(str(path), metadata_errors="ignore") as container:
        yield container


def _zero(container: Any) -> float:
    """The container's own beginning in seconds; MPEG streams rarely begin at zero."""
    return (container.start_time or 0) / 1_000_000


def _candidates(path: Path, start: float | None, end: float | None, count: int) -> Iterator[tuple[float, Any]]:
    """About ``count`` frames spread over the clip, with their times in seconds: key frames if there are enough of them
    (they decode alone), else frames at equal distances."""
    import av

    try:
        with _opened(path) as container:
            if not container.streams.video:
                raise UnreadableImageError("holds no picture", source=path)
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            length = container.duration / 1_000_000 if container.duration else None
            begin = start or 0.0
            stop = end if end is not None else length
            if stop is None:
                stop = begin + 10.0
            step = (stop - begin) / count
            keys = list(_frames(container, stream, begin, stop, step, keys_only=True))
            if len(keys) < count - 1:
                keys = list(_frames(container, stream, begin, stop, step, keys_only=False))
    except av.FFmpegError as error:
        raise UnreadableImageError(f"cannot be decoded ({error.strerror or error})", source=path) from error
    yield from keys


def _frames(
    container: Any, stream: Any, begin: float, stop: float, step: float, *, keys_only: bool
) -> Iterator[tuple[float, Any]]:
    """The first frame in each of the ``step``-second slots between ``begin`` and ``stop``."""
    zero = _zero(container)
    container.seek(int((begin + zero) * 1_000_000), backward=True)
    stream.codec_context.skip_frame = "NONKEY" if keys_only else "NONREF"
    slot = -1
    for frame in container.decode(stream):
        if frame.time is None:
            continue
        time = frame.time - zero
        if time >= stop - 1e-6:
            break
        place = math.floor((time - begin) / step + 1e-6)
        if time >= begin - 1e-6 and place > slot:
            slot = place
            yield time, frame


def _distance(face: DetectedFace, near: tuple[float, float], width: int, height: int) -> float:
    box = face.box
    return math.hypot((box[0] + box[2]) / 2 / width - near[0], (box[1] + box[3]) / 2 / height - near[1])


def sharpness(grey: np.ndarray) -> float:
    """Energy of the Laplacian against that of the picture itself, 0 (blurred) to 1; brightness and contrast cancel.

    Args:
        grey: ``(H, W)`` any range.
    """
    grey = np.asarray(grey, dtype=float)
    if min(grey.shape) < 3 or grey.std() < 1e-6:
        return 0.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * middle
    ratio = float(laplacian.std() / grey.std())
    return ratio / (ratio + 0.15)


def _quality(image: Image.Image, face: DetectedFace) -> float:
    box = face.box
    left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    grey = np.asarray(image.convert("L"))[top:bottom, left:right]
    size = min(1.0, (box[3] - box[1]) / (0.35 * image.height))
    frontality = max(0.0, 1.0 - 2.0 * face.asymmetry)
    return float(face.score) * math.sqrt(max(size, 0.0)) * sharpness(grey) * (0.2 + 0.8 * frontality)


def _crop(image: Image.Image, box: np.ndarray, margin: float) -> Image.Image:
    if math.isinf(margin):
        return image
    side = max(box[2] - box[0], box[3] - box[1])
    left, top = max(0, math.floor(box[0] - margin * side)), max(0, math.floor(box[1] - margin * side))
    right = min(image.width, math.ceil(box[2] + margin * side))
    bottom = min(image.height, math.ceil(box[3] + margin * side))
    return image.crop((left, top, right, bottom))
