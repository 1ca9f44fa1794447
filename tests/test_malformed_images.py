"""Damaged pictures of every common format: each is refused with a typed error or still gives a picture."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossmodal import images
from crossmodal.errors import CrossmodalError
from crossmodal.faces import load_image
from tests.generated import drawn_face
from tests.malformed import mutations

PER_FORMAT = 30
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged header may claim any size below the limit, and filling that much memory takes long."""
    monkeypatch.setattr(images, "MAX_PIXELS", 2_000_000)


def encoded(name: str) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    known: dict[str, dict[str, Any]] = {
        "JPEG": {"exif": exif},
        "PNG": {"exif": exif},
        "TIFF": {"compression": "tiff_lzw"},
    }
    drawn_face(96).save(file, name, **known.get(name, {}))
    return file.getvalue()


def read(content: bytes) -> str:
    """``picture``, or the name of the typed error; any other exception goes through."""
    try:
        image = load_image(content)
    except CrossmodalError as error:
        return type(error).__name__ + (" of several lines" if "\n" in str(error) else "")
    assert image.mode == "RGB"
    assert np.asarray(image).size > 0
    return "picture"


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_pictures_end_in_a_picture_or_a_typed_error(name: str) -> None:
    outcomes = Counter(read(content) for _, content in mutations(encoded(name), seed=FORMATS.index(name), n=PER_FORMAT))
    assert outcomes.total() == PER_FORMAT
    assert set(outcomes) <= {"picture", "UnreadableImageError"}
    assert outcomes["UnreadableImageError"] > 0  # the mutations do harm


@pytest.mark.parametrize("name", FORMATS)
def test_the_whole_file_is_a_picture(name: str) -> None:
    assert read(encoded(name)) == "picture"


def test_damaged_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(drawn_face(96)).save(file)
    outcomes = Counter(read(content) for _, content in mutations(file.getvalue(), seed=9, n=20))
    assert outcomes.total() == 20
