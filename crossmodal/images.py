"""Pictures in: any file a person has, a PIL image, an array or a tensor → an upright 8-bit RGB picture.

JPEG, PNG, WebP, GIF (first frame), BMP, TIFF, PPM, JPEG 2000, AVIF where Pillow has it, and HEIC with ``pillow-heif``.
Palette, grey, 1-bit, 16-bit, CMYK and transparent pictures are converted; EXIF orientation is applied; colours with an
embedded profile become sRGB. What cannot be read safely ends in an :class:`~crossmodal.errors.UnreadableImageError`.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, ImageSequence

from crossmodal.errors import DependencyError, UnreadableImageError

MAX_PIXELS = 120_000_000
"""Largest picture that is opened; a phone's 108-megapixel mode fits."""

# No EPS or PDF (they start external programs), none of the formats without a signature.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_KNOWN = "use JPEG, PNG, WebP, GIF, BMP, TIFF or HEIC"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def load_image(source: Any) -> Image.Image:
    """Read a picture.

    Args:
        source: a path, ``-`` (standard input), an open binary file, ``bytes``, a PIL image, or an array or tensor of
            shape (H, W), (H, W, 1 | 3 | 4) or channels first. uint8 is 0–255 and uint16 0–65535; floats are 0–1, or
            0–255 if any value exceeds 1.

    Returns:
        An upright RGB image that owns its pixels; transparent parts are white.

    Raises:
        UnreadableImageError: missing, empty, a folder, not a picture, truncated, damaged or too large.
        DependencyError: a HEIC photo and ``pillow-heif`` is not installed.
    """
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "")) or "image"
        return _decoded(source.copy, name)
    if isinstance(source, str | Path):
        name = "standard input" if str(source) == "-" else str(source)
        return _from_bytes(_read(source), name)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), "bytes")
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "file"))
        content = source.read()
        if not isinstance(content, bytes):
            raise UnreadableImageError("is open as text", source=name, remedy="open it with mode 'rb'")
        return _from_bytes(content, name)
    if hasattr(source, "detach"):  # a tensor, without importing torch
        source = source.detach().cpu().float().numpy() if source.is_floating_point() else source.cpu().numpy()
    return Image.fromarray(to_uint8(np.asarray(source)))


def _read(source: str | Path) -> bytes:
    if str(source) == "-":
        return sys.stdin.buffer.read()
    path = Path(source).expanduser()
    try:
        if not str(source):
            raise FileNotFoundError
        if path.is_dir():
            raise UnreadableImageError("is a folder", source=source, remedy="name one picture")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableImageError("does not exist", source=source or "''", remedy="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"cannot be read ({reason})", source=source) from error


def _from_bytes(content: bytes, name: str) -> Image.Image:
    if not content:
        raise UnreadableImageError("is empty", source=name, remedy=_KNOWN)
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        _register_heif(name)
    return _decoded(lambda: Image.open(io.BytesIO(content), formats=_available_formats()), name)


def _available_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _register_heif(name: str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise DependencyError(
            "HEIC photos need pillow-heif", source=name, remedy="pip install 'crossmodal[heic]', or save it as JPEG"
        ) from error
    register_heif_opener()


def _decoded(open_image: Any, name: str) -> Image.Image:
    """Decode, turn upright and convert; whatever a decoder raises on foreign data becomes a typed error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files; the size limit is ours
            image = open_image()
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(width * height, name)
            if width < 1 or height < 1:
                raise UnreadableImageError(f"has no pixels ({width}×{height})", source=name)
            image.load()
            return _to_rgb(_upright(_first_frame(image)), name)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(int(count.group()) if count else 0, name) from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("is not a picture that can be read", source=name, remedy=_KNOWN) from error
    except MemoryError as error:
        raise UnreadableImageError("needs more memory than there is", source=name, remedy="make it smaller") from error
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        truncated = "truncated" in reason.lower() or isinstance(error, EOFError)
        problem = f"is {'truncated' if truncated else 'damaged'} ({reason})"
        raise UnreadableImageError(problem, source=name, remedy="get the file again") from error


def _too_large(pixels: int, name: str) -> UnreadableImageError:
    problem = f"has {pixels:,} pixels, more than the {MAX_PIXELS:,} that are opened"
    return UnreadableImageError(problem, source=name, remedy="make the picture smaller")


def _first_frame(image: Image.Image) -> Image.Image:
    return next(iter(ImageSequence.Iterator(image))) if getattr(image, "n_frames", 1) > 1 else image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # damaged EXIF data says nothing about the pixels
        return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(to_uint8(np.asarray(image), source=name, stretch=True)).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if profile and image.mode in ("RGB", "CMYK"):
        image = _to_srgb(image, profile)
    # a copy drops the file, its metadata and any shared memory
    return image.convert("RGB") if image.mode != "RGB" else Image.frombytes("RGB", image.size, image.tobytes())


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert from an embedded colour profile (Display P3 of a phone, print CMYK); unusable ones are ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return converted or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def to_uint8(array: np.ndarray, *, source: str = "array", stretch: bool = False) -> np.ndarray:
    """An array of pixels → ``(H, W, 3)`` uint8 (see :func:`load_image` for what is accepted).

    Args:
        array: the pixels.
        source: what to call it in an error.
        stretch: scale values beyond the usual ranges by their maximum (32-bit scientific images) instead of refusing.

    Raises:
        UnreadableImageError: another shape or type, no pixels, too many, NaN, infinite or negative values.
    """

    def wrong(problem: str) -> UnreadableImageError:
        return UnreadableImageError(problem, source=source, remedy="give (H, W, 3) uint8, or floats from 0 to 1")

    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # channels first
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3, 4)):
        raise wrong(f"shape {array.shape} is not (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise wrong(f"has no pixels (shape {array.shape})")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large(array.shape[0] * array.shape[1], source)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = np.round(array / 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise wrong(f"values of type {array.dtype} are not pixels")
        array = _scaled(array, wrong, stretch)
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[-1] == 4:  # over white
        alpha = array[..., 3:].astype(np.float32) / 255
        array = np.round(array[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _scaled(array: np.ndarray, wrong: Any, stretch: bool) -> np.ndarray:
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise wrong("holds NaN or infinite values")
    if low < -1e-3:
        if not stretch:
            raise wrong(f"holds negative values (down to {low:g})")
        values, high = values - low, high - low
    integers = np.issubdtype(array.dtype, np.integer)
    if stretch and (high > 255 or integers):  # 16-bit data in a 32-bit image, or any larger range
        full = 65535.0 if high <= 65535 else high
    elif high <= 1 + 1e-3 and not integers:
        full = 1.0
    elif high <= 255 + 1e-3:
        full = 255.0
    else:
        raise wrong(f"holds values up to {high:g}")
    return np.clip(np.round(values * (255 / full)), 0, 255).astype(np.uint8)
