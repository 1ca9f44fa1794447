"""MTCNN: faces in a picture, by three networks of growing size that each discard most of what the one before proposed.

Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks". Weights and
arithmetic are those of ``facenet-pytorch``. This module runs the networks itself: importing the package loads
torchvision, and with it torch's compiler (seconds), and its code stumbles over candidates that lie outside the picture.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossmodal.errors import DependencyError
from crossmodal.files import package_folder

SHRINK = 0.709
"""Ratio of neighbouring sizes of the image pyramid."""
THRESHOLDS = (0.6, 0.7, 0.7)
"""Probability that a candidate must exceed in each of the three networks."""

_WINDOW, _STRIDE = 12, 2  # of the first network, in pixels
_BATCH = 512  # candidates that go through a network at once
_PACKAGE = "facenet_pytorch"
_REMEDY = "pip install --force-reinstall facenet-pytorch==2.5.3"
_Weights = dict[str, Tensor]


class Found(NamedTuple):
    """Faces, the surest first."""

    boxes: np.ndarray
    """``(N, 4)`` left, top, right, bottom in pixels; may reach beyond the picture."""
    scores: np.ndarray
    """``(N,)`` probability of being a face."""
    points: np.ndarray
    """``(N, 5, 2)`` left eye, right eye, nose tip, left and right mouth corner: x, y."""


def find_faces(picture: np.ndarray, smallest: int) -> Found:
    """All upright faces.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        smallest: edge in pixels of the smallest face to look for, 12 or more.

    Raises:
        DependencyError: the package that carries the weights is missing or damaged.
    """
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()  # (1, 3, H, W)
    with torch.inference_mode():
        boxes = _proposed(pixels, smallest)

        boxes, crops = _crops(pixels, boxes, 24)
        scores, moves, _ = _judged(_refine, "rnet", crops)
        keep = np.flatnonzero(scores > THRESHOLDS[1])
        keep = keep[suppress(boxes[keep], scores[keep], 0.7)]
        boxes = _square(_moved(boxes[keep], moves[keep]))

        boxes, crops = _crops(pixels, boxes, 48)
        scores, moves, marks = _judged(_output, "onet", crops)
        keep = np.flatnonzero(scores > THRESHOLDS[2])
        boxes, scores, moves, marks = boxes[keep], scores[keep], moves[keep], marks[keep]
        size = boxes[:, None, 2:] - boxes[:, None, :2] + 1  # (N, 1, 2)
        points = size * marks.reshape(-1, 2, 5).transpose(0, 2, 1) + boxes[:, None, :2] - 1  # (N, 5, 2)
        boxes = _moved(boxes, moves)
        keep = suppress(boxes, scores, 0.7, of_smaller=True)
    return Found(boxes[keep], scores[keep], points[keep])


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float, *, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: drop every box that overlaps a surer one too much.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        overlap: intersection over union from which a box is dropped.
        of_smaller: measure intersection over the smaller box instead, pixels counted inclusively.

    Returns:
        ``(K,)`` indices of what is kept, the surest first.
    """
    edge = np.float32(of_smaller)
    low, high = boxes[:, :2], boxes[:, 2:] + edge
    area = (high - low).prod(axis=1)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        shared = np.minimum(high[best], high[left]) - np.maximum(low[best], low[left])  # (n, 2)
        shared = shared.clip(0).prod(axis=1)
        whole = np.minimum(area[best], area[left]) if of_smaller else area[best] + area[left] - shared
        left = left[~(shared > overlap * whole)]
    return np.array(kept, dtype=int)


# ---------------------------------------------------------------------------------------------- the three networks


@functools.lru_cache(maxsize=3)
def _weights(name: str) -> _Weights:
    """State dict of one network, from the package's folder."""
    path = package_folder(_PACKAGE, remedy=_REMEDY) / "data" / f"{name}.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged zip or pickle raises almost anything
        raise DependencyError(f"cannot be read ({type(error).__name__})", source=path, remedy=_REMEDY) from error


def _conv(w: _Weights, number: int, x: Tensor) -> Tensor:
    x = F.conv2d(x, w[f"conv{number}.weight"], w[f"conv{number}.bias"])
    return F.prelu(x, w[f"prelu{number}.weight"])


def _pool(x: Tensor, size: int) -> Tensor:
    return F.max_pool2d(x, size, 2, ceil_mode=True)


def _dense(w: _Weights, number: int, x: Tensor) -> Tensor:
    """``(B, C, H, W)`` → ``(B, D)``, flattened in the order of the original Caffe networks."""
    x = F.linear(x.permute(0, 3, 2, 1).flatten(1), w[f"dense{number}.weight"], w[f"dense{number}.bias"])
    return F.prelu(x, w[f"prelu{number}.weight"])


def _head(w: _Weights, name: str, x: Tensor) -> Tensor:
    layer = F.conv2d if name.startswith("conv") else F.linear
    return layer(x, w[f"{name}.weight"], w[f"{name}.bias"])  # type: ignore[operator]


def _propose(w: _Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """P-Net: ``(1, 3, H, W)`` → probabilities ``(h, w)`` and offsets ``(4, h, w)`` of windows of 12 pixels."""
    x = _conv(w, 3, _conv(w, 2, _pool(_conv(w, 1, x), 2)))
    return _head(w, "conv4_1", x).softmax(dim=1)[0, 1], _head(w, "conv4_2", x)[0]


def _refine(w: _Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R-Net: ``(B, 3, 24, 24)`` → probabilities ``(B,)``, offsets ``(B, 4)``, no points ``(B, 0)``."""
    x = _conv(w, 3, _pool(_conv(w, 2, _pool(_conv(w, 1, x), 3)), 3))
    x = _dense(w, 4, x)
    return _head(w, "dense5_1", x).softmax(dim=1)[:, 1], _head(w, "dense5_2", x), x[:, :0]


def _output(w: _Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """O-Net: ``(B, 3, 48, 48)`` → probabilities ``(B,)``, offsets ``(B, 4)``, points ``(B, 10)``: five x, five y."""
    x = _pool(_conv(w, 2, _pool(_conv(w, 1, x), 3)), 3)
    x = _dense(w, 5, _conv(w, 4, _pool(_conv(w, 3, x), 2)))
    return _head(w, "dense6_1", x).softmax(dim=1)[:, 1], _head(w, "dense6_2", x), _head(w, "dense6_3", x)


# -------------------------------------------------------------------------------------------------- the cascade


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Averaged over areas and scaled to about ±1."""
    return (F.interpolate(pixels, size=(height, width), mode="area") - 127.5) * 0.0078125


def _proposed(pixels: Tensor, smallest: int) -> np.ndarray:
    """``(1, 3, H, W)`` → square candidates ``(N, 4)`` of every size from ``smallest`` up."""
    height, width = pixels.shape[2:]
    scale = _WINDOW / smallest
    edge = min(height, width) * scale
    boxes, scores, moves = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [np.zeros((0, 4), np.float32)]
    while edge >= _WINDOW:
        probabilities, offsets = _propose(
            _weights("pnet"), _resized(pixels, int(height * scale + 1), int(width * scale + 1))
        )
        probable = probabilities.numpy()
        rows, columns = np.nonzero(probable >= THRESHOLDS[0])
        corner = _STRIDE * np.stack([columns, rows], axis=1).astype(np.float32)  # (n, 2)
        windows = np.floor(np.concatenate([corner + 1, corner + _WINDOW], axis=1) / np.float32(scale))
        keep = suppress(windows, probable[rows, columns], 0.5)
        boxes.append(windows[keep])
        scores.append(probable[rows, columns][keep])
        moves.append(offsets.numpy()[:, rows, columns].T[keep])
        scale *= SHRINK
        edge *= SHRINK
    every = np.concatenate(boxes)
    keep = suppress(every, np.concatenate(scores), 0.7)
    every = every[keep]
    size = np.tile(every[:, 2:] - every[:, :2], 2)
    return _square(every + np.concatenate(moves)[keep] * size)


def _crops(pixels: Tensor, boxes: np.ndarray, size: int) -> tuple[np.ndarray, Tensor]:
    """The boxes that touch the picture ``(N, 4)``, and what they show ``(N, 3, size, size)``."""
    height, width = pixels.shape[2:]
    corners = boxes.astype(np.int32)  # counted from 1, both ends inclusive
    low = np.maximum(corners[:, :2], 1) - 1
    high = np.minimum(corners[:, 2:], (width, height))
    inside = np.flatnonzero((high > low).all(axis=1))
    shown = [
        _resized(pixels[:, :, top:bottom, left:right], size, size)
        for (left, top), (right, bottom) in zip(low[inside].tolist(), high[inside].tolist())
    ]
    return boxes[inside], torch.cat(shown) if shown else pixels.new_zeros(0, 3, size, size)


def _judged(network: object, name: str, crops: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities ``(N,)``, offsets ``(N, 4)`` and points of all crops, some at a time."""
    outputs = [network(_weights(name), batch) for batch in crops.split(_BATCH)]  # type: ignore[operator]
    scores, moves, marks = (torch.cat(part).numpy() for part in zip(*outputs))
    return scores, moves, marks


def _moved(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Boxes shifted by offsets ``(N, 4)`` in units of their own size."""
    return boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _square(boxes: np.ndarray) -> np.ndarray:
    """The longer edge on both sides, around the same centre."""
    size = boxes[:, 2:] - boxes[:, :2]
    edge = size.max(axis=1, keepdims=True)
    low = boxes[:, :2] + size * np.float32(0.5) - edge * np.float32(0.5)
    return np.concatenate([low, low + edge], axis=1)
