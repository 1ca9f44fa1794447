"""What says that a sound or picture was generated: an inaudible watermark in speech, and metadata in both.

Speech carries the watermark of :mod:`crossmodal.watermark`, which survives MP3, Ogg and telephone bandwidth, and text
tags; pictures carry text chunks (PNG) or EXIF fields (JPEG, WebP). :func:`read_marks` reads either back. No tag depends
on the time or the machine: the same result gives the same tags.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crossmodal import __version__, media
from crossmodal.errors import AudioError, OutputError
from crossmodal.files import atomic_path, atomic_write

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from crossmodal.watermark import audio_mark, mark_audio

__all__ = ["Marks", "audio_mark", "mark_audio", "read_marks", "save_image", "save_speech"]

WATERMARK_THRESHOLD = 0.6
"""Confidence of :func:`audio_mark` from which a sound counts as watermarked; natural speech stays below 0.5."""
SPEECH_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
"""Suffix → libsndfile's format and subtype."""
IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix → Pillow's format."""

_SOFTWARE = f"crossmodal {__version__}"
_EXIF_DESCRIPTION, _EXIF_SOFTWARE = 0x010E, 0x0131


@dataclass(frozen=True)
class Marks:
    """What a file says about its origin."""

    kind: Literal["sound", "image"]
    metadata: dict[str, Any] = field(default_factory=dict)
    """``software``, ``description`` and the ``details`` of the saving; empty if this library did not write the file."""
    watermark: float | None = None
    """Confidence (0 to 1) that a sound is watermarked; ``None`` for images or when it was not looked for."""

    @property
    def generated(self) -> bool:
        """Whether the metadata or the watermark says that it was generated."""
        return bool(self.metadata) or (self.watermark or 0.0) >= WATERMARK_THRESHOLD


def __getattr__(name: str) -> Any:
    if name in ("audio_mark", "mark_audio"):  # torch is loaded only when speech is marked
        from crossmodal import watermark

        return getattr(watermark, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _describe(what: str, details: Mapping[str, Any] | None) -> str:
    """One line of ASCII: what it is, what made it, and the details as JSON."""
    line = f"generated {what} by {_SOFTWARE}"
    return f"{line} {json.dumps(dict(details), sort_keys=True, default=str)}" if details else line


def _parse(description: str) -> dict[str, Any]:
    """The reverse of :func:`_describe`; empty for what this library did not write."""
    start = description.find("generated ")
    line, brace, rest = description[max(start, 0) :].partition(" {")
    if start < 0 or " by crossmodal " not in line:
        return {}
    details: dict[str, Any] = {}
    if brace:
        try:
            parsed, _ = json.JSONDecoder().raw_decode("{" + rest)
            details = parsed if isinstance(parsed, dict) else {}
        except json.JSONDecodeError:
            pass  # cut by a program with a length limit: what is left still says that it was generated
    return {"software": line.partition(" by ")[2], "description": line, "details": details}


def save_speech(
    path: str | Path,
    waveform: np.ndarray | torch.Tensor,
    sample_rate: int,
    *,
    watermark: bool = True,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write generated speech, watermarked and tagged; whole or not at all.

    Args:
        path: ``.wav`` (16 bit), ``.flac``, ``.ogg`` or ``.mp3``.
        waveform: ``(T,)``; samples beyond ±1 are clipped.
        sample_rate: in Hz.
        watermark: whether to hide the watermark in it.
        details: what made it, as JSON can hold it; kept in the comment tag.

    Raises:
        WatermarkError: the watermark package is missing or broken, and ``watermark`` was not switched off.
        OutputError: unknown suffix, missing folder, or a rate that the format does not know.
        AudioError: the samples are not a finite ``(T,)``.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() not in SPEECH_FORMATS:
        raise OutputError(
            f"unknown sound format '{path.suffix}'", source=path, remedy=f"use {', '.join(SPEECH_FORMATS)}"
        )
    samples = np.asarray(waveform.detach().cpu() if hasattr(waveform, "detach") else waveform, dtype=np.float32)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise AudioError(f"expected finite samples (T,), got shape {samples.shape}", source="speech")
    if watermark:
        from crossmodal.watermark import mark_audio

        samples = mark_audio(samples, sample_rate)
    kind, subtype = SPEECH_FORMATS[path.suffix.lower()]
    content = io.BytesIO()  # libsndfile says no more than "System error" of a full disk
    try:
        with soundfile.SoundFile(content, "w", sample_rate, 1, subtype, format=kind) as file:
            file.software = _SOFTWARE
            file.comment = _describe("speech", details)
            file.write(samples.clip(-1.0, 1.0))
    except (soundfile.SoundFileError, RuntimeError) as error:
        problem = getattr(error, "error_string", error)
        raise OutputError(f"cannot be written at {sample_rate} Hz ({problem})", source=path) from error
    atomic_write(path, content.getvalue())


def save_image(path: str | Path, image: Image.Image, details: Mapping[str, Any] | None = None) -> None:
    """Write a generated picture, tagged; whole or not at all.

    Args:
        path: ``.png`` (text chunks), ``.jpg``, ``.jpeg`` or ``.webp`` (EXIF).
        image: what to write.
        details: what made it, as JSON can hold it.

    Raises:
        OutputError: unknown suffix or missing folder.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    kind = IMAGE_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"unknown picture format '{path.suffix}'", source=path, remedy=f"use {', '.join(IMAGE_FORMATS)}"
        )
    description = _describe("face", details)
    options: dict[str, Any]
    if kind == "PNG":
        text = PngInfo()
        text.add_text("Software", _SOFTWARE)
        text.add_text("Description", description)
        options = {"pnginfo": text}
    else:
        exif = Image.Exif()
        exif[_EXIF_SOFTWARE], exif[_EXIF_DESCRIPTION] = _SOFTWARE, description
        options = {"exif": exif, "quality": 95}
        image = image if image.mode == "RGB" else image.convert("RGB")
    with atomic_path(path) as temporary:
        image.save(temporary, format=kind, **options)


def read_marks(source: Any, *, watermark: bool = True) -> Marks:
    """Read what a sound or picture says about its origin; which of the two it is, its content tells.

    Args:
        source: path, ``-`` (standard input), bytes or an open binary file.
        watermark: whether to look for the watermark in a sound.

    Raises:
        AudioError: it is neither a picture nor a sound that can be read.
        WatermarkError: the watermark package is missing or broken.
    """
    file, name = media.open_source(source)
    with file:
        metadata = _image_metadata(file)
        if metadata is not None:
            return Marks("image", metadata)
        file.seek(0)
        content = io.BytesIO(file.read())
    content.name = name  # messages name it
    tags = media.read_tags(content)
    metadata = _parse(tags.get("comment", ""))
    content.seek(0)
    decoded = media.decode(content)
    if not watermark:
        return Marks("sound", metadata)
    from crossmodal.watermark import audio_mark

    return Marks("sound", metadata, audio_mark(np.nan_to_num(decoded.samples), decoded.sample_rate))


def _image_metadata(file: Any) -> dict[str, Any] | None:
    """What a picture says; ``None`` if the file is no picture."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            exif = image.getexif()
            return _parse(str(image.info.get("Description") or exif.get(_EXIF_DESCRIPTION, "")))
    except Exception:  # Pillow's plugins raise almost anything on files that are no pictures
        return None
