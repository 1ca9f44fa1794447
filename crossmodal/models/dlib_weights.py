"""Reads dlib's serialised files (``.dat``): the face descriptor network and the 5-point landmark predictor.

dlib writes an integer as one control byte (low nibble: number of bytes, top bit: sign) and its little-endian bytes, a
float as two such integers (mantissa, exponent), a string as its length and its bytes, and a tensor as version 2, four
dimensions and float32 data. Data blocks are read with ``numpy.frombuffer``; nothing is executed or unpickled.

Layout and formats: Davis E. King, "Dlib-ml: A Machine Learning Toolkit", JMLR 10, 2009, and dlib's documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.errors import BundleError
from crossmodal.files import package_folder

PACKAGE = "face_recognition_models"
REINSTALL = f"pip install --force-reinstall {PACKAGE}==0.3.0"
DESCRIPTOR_FILE = "dlib_face_recognition_resnet_model_v1.dat"

# A layer with parameters starts with its name, as a string: length 5 "con_4", 7 "affine_", 4 "fc_2".
_LAYER = re.compile(rb"\x01\x05con_[0-9]|\x01\x07affine_|\x01\x04fc_[0-9]")
_TENSOR_VERSION = 2


@dataclass(frozen=True)
class Layer:
    """One layer with parameters, in the order data flows through the network."""

    name: str
    """``con``, ``affine`` or ``fc``."""
    values: np.ndarray
    """``(n,)`` float32: a convolution's filters then biases, an affine's scales then shifts, a matrix by rows."""


def package_file(name: str) -> Path:
    """The path of a model file of the ``face_recognition_models`` wheel, found without importing the package.

    Raises:
        DependencyError: the package is not installed.
        BundleError: it does not hold the file.
    """
    path = package_folder(PACKAGE, remedy=f"pip install {PACKAGE}==0.3.0") / "models" / name
    if not path.is_file():
        raise BundleError("is missing", source=path, remedy=REINSTALL)
    return path


class Reader:
    """A cursor over dlib-serialised bytes."""

    def __init__(self, content: bytes, source: object = "") -> None:
        self.content, self.source, self.position = content, source, 0

    def damaged(self, problem: str) -> BundleError:
        return BundleError(f"{problem} at byte {self.position}", source=self.source, remedy=REINSTALL)

    def integer(self) -> int:
        """One integer of any width."""
        if self.position >= len(self.content):
            raise self.damaged("the file ends early")
        control = self.content[self.position]
        size = control & 0x0F
        end = self.position + 1 + size
        if not 1 <= size <= 8 or end > len(self.content):
            raise self.damaged("no dlib integer")
        value = int.from_bytes(self.content[self.position + 1 : end], "little")
        self.position = end
        return -value if control & 0x80 else value

    def floats(self, count: int) -> np.ndarray:
        """``(count,)`` raw float32 values."""
        if count < 0 or self.position + 4 * count > len(self.content):
            raise self.damaged("the file ends early")
        values = np.frombuffer(self.content, "<f4", count, self.position)
        self.position += 4 * count
        return values

    def tensor(self) -> np.ndarray:
        """A tensor's values, flat."""
        if self.integer() != _TENSOR_VERSION:
            raise self.damaged("no dlib tensor of version 2")
        shape = [self.integer() for _ in range(4)]
        if min(shape) < 0:
            raise self.damaged("a tensor with a negative dimension")
        return self.floats(int(np.prod(shape, dtype=object)))


def read_layers(path: str | Path) -> list[Layer]:
    """The layers with parameters of a dlib network file, input first.

    Raises:
        BundleError: the file is missing or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BundleError("cannot be read", source=path, remedy=REINSTALL) from error
    reader, layers = Reader(content, path), []
    while match := _LAYER.search(content, reader.position):  # the search resumes behind each tensor's data
        reader.position = match.end()
        name = match.group()[2:].decode().split("_")[0]
        if name == "fc":  # number of outputs and inputs come first
            reader.integer(), reader.integer()
        layers.append(Layer(name, reader.tensor()))
    if not layers:
        raise reader.damaged("no network layers")
    return layers
