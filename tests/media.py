"""Small sound and video files in any container that the FFmpeg libraries can write."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soxr

from tests.generated import sung_voice


def voice(seconds: float, sample_rate: int) -> np.ndarray:
    """:func:`tests.generated.sung_voice` at any rate."""
    return soxr.resample(sung_voice(seconds), 16_000, sample_rate)


def encode(
    samples: np.ndarray | None, sample_rate: int, container: str, codec: str, *, video: str | None = None
) -> bytes:
    """Write mono ``samples`` ``(T,)`` (``None``: no sound) and, if asked for, half a second of grey video.

    Args:
        container: FFmpeg's name of the format, for example ``mp4``.
        codec: FFmpeg's name of the sound encoder, for example ``aac``.
        video: FFmpeg's name of the video encoder.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        picture: Any = out.add_stream(video, rate=25) if video else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound: Any = None
        if samples is not None:
            sound = out.add_stream(codec, rate=sample_rate)
            sound.layout, sound.bit_rate = "mono", 12_200 if container == "amr" else 64_000
        if picture is not None:
            for i in range(12):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
                frame.pts = i
                out.mux(picture.encode(frame.reformat(format="yuv420p")))
            out.mux(picture.encode(None))
        if sound is not None and samples is not None:
            pcm = (samples[None] * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm), format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = sample_rate, 0, Fraction(1, sample_rate)
            out.mux(sound.encode(block))
            out.mux(sound.encode(None))
    return buffer.getvalue()
