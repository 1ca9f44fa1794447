"""Face features: what a face-recognition network sees in a face chip, in a named space.

| class | space | chip | source |
| --- | --- | --- | --- |
| :class:`DlibFaceFeatures` | ``dlib-128`` | 150×150 | dlib's ResNet (King 2017), ``face_recognition_models`` |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.errors import BundleError, ConfigError
from crossmodal.models.dlib_weights import DESCRIPTOR_FILE, REINSTALL, Layer, package_file, read_layers


def chips_to_tensor(chips: np.ndarray | Tensor, size: int) -> Tensor:
    """Face chips ``(B, H, W, 3)`` or ``(H, W, 3)`` uint8 → ``(B, 3, H, W)`` float in [0, 1].

    Raises:
        ConfigError: the chips are not uint8 RGB of ``size`` × ``size``.
    """
    tensor = torch.as_tensor(chips)
    tensor = tensor[None] if tensor.ndim == 3 else tensor
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tuple(tensor.shape[1:]) != (size, size, 3):
        problem = f"expected uint8 chips (B, {size}, {size}, 3), got {tensor.dtype} {tuple(tensor.shape)}"
        raise ConfigError(problem, source="face chips", remedy="make them with crossmodal.faces.align")
    return tensor.permute(0, 3, 1, 2).float().div(255)  # (B, 3, H, W)


@dataclass(frozen=True)
class DlibConfig:
    """Size of dlib's descriptor network; the defaults are those of the published weights."""

    stem_channels: int = 32
    """Channels of the 7×7 convolution."""
    stages: tuple[tuple[int, int], ...] = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))
    """Channels and residual blocks of each stage; every stage but the first halves the picture."""
    output_size: int = 128
    """Components of the descriptor."""
    output_space: str = "dlib-128"
    """Name of the embedding space."""

    def __post_init__(self) -> None:
        if not self.stages or min(self.stem_channels, self.output_size, *(n for s in self.stages for n in s)) < 1:
            raise ConfigError("channels, blocks and output size must be at least 1", source="face-dlib")
        if self.stages[0][0] != self.stem_channels:
            raise ConfigError("the first stage must have as many channels as the stem", source="face-dlib")

    @classmethod
    def debug(cls) -> DlibConfig:
        """Runs in milliseconds; writes vectors of the same size."""
        return cls(stem_channels=4, stages=((4, 1), (8, 1), (8, 1)))


class DlibBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; the shorter of the two paths is padded with zeros (dlib's ``add_prev``)."""

    def __init__(self, channels_in: int, channels_out: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        # dlib pads a convolution only when its stride is 1
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C', H', W')``."""
        y = self.conv2(F.relu(self.conv1(x)))  # (B, C', h, w)
        if self.down:
            x = F.avg_pool2d(x, 2)  # (B, C, H//2, W//2)
            height, width = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
            channels = y.shape[1] - x.shape[1]
            x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels))
            y = F.pad(y, (0, width - y.shape[3], 0, height - y.shape[2]))
        return F.relu(x + y)


class DlibFaceFeatures(nn.Module):
    """dlib's face descriptor: a ResNet of 29 convolutions, with each affine layer folded into the one before.

    The same person's photos lie about .22 apart (Euclidean), different people's .84; the usual threshold is .6. A
    descriptor's norm is about 1.47 and carries information: it is never normalised.
    """

    kind: ClassVar[str] = "face-dlib"
    space: ClassVar[str] = "dlib-128"
    chip_size: ClassVar[int] = 150

    MEAN: ClassVar[tuple[float, float, float]] = (122.782, 117.001, 104.298)
    """Mean red, green and blue of the training photos, 0–255."""

    mean: Tensor

    def __init__(self, config: DlibConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DlibConfig()
        self.stem = nn.Conv2d(3, config.stem_channels, 7, stride=2)
        blocks, channels = [], config.stem_channels
        for stage, (width, count) in enumerate(config.stages):
            for index in range(count):
                blocks.append(DlibBlock(channels, width, down=stage > 0 and index == 0))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, config.output_size, bias=False)
        self.register_buffer("mean", torch.tensor(self.MEAN).div(255).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_package(cls) -> DlibFaceFeatures:
        """The published weights, from the ``face_recognition_models`` wheel, in eval mode on the CPU.

        Raises:
            DependencyError: the package is not installed.
            BundleError: its file is damaged.
        """
        return cls.from_file(package_file(DESCRIPTOR_FILE))

    @classmethod
    def from_file(cls, path: str | Path) -> DlibFaceFeatures:
        """The published weights from a ``dlib_face_recognition_resnet_model_v1.dat``, in eval mode on the CPU.

        Raises:
            BundleError: the file is missing, damaged or holds another network.
        """
        network = cls()
        network.load_state_dict(_folded_weights(str(path)))
        return network.eval()

    def forward(self, chips: Tensor) -> Tensor:
        """Describe face chips.

        Args:
            chips: ``(B, 3, 150, 150)`` RGB in [0, 1], aligned by ``crossmodal.faces.align(image, face, "dlib-128")``.

        Returns:
            ``(B, 128)``, not of unit length.
        """
        x = (chips - self.mean) * (255 / 256)  # dlib divides 0–255 by 256
        x = F.relu(self.stem(x))  # (B, 32, 72, 72)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 32, 35, 35)
        x = self.blocks(x).mean(dim=(2, 3))  # (B, 256)
        return self.head(x)  # (B, 128)

    def preprocess(self, chips: np.ndarray | Tensor) -> Tensor:
        """Chips ``(B, 150, 150, 3)`` uint8 → ``(B, 3, 150, 150)`` for :meth:`forward`, on the network's device."""
        return chips_to_tensor(chips, self.chip_size).to(self.head.weight)

    def embed(self, chips: np.ndarray | Tensor) -> Tensor:
        """Describe uint8 chips ``(B, 150, 150, 3)`` without gradients → ``(B, 128)``."""
        with torch.no_grad():
            return self(self.preprocess(chips))


@lru_cache(maxsize=1)
def _folded_weights(path: str) -> dict[str, Tensor]:
    """State dict of :class:`DlibFaceFeatures` from dlib's file: scale and shift of each affine folded into its conv."""
    layers = iter(read_layers(path))
    with torch.device("meta"):
        template = DlibFaceFeatures().state_dict()
    state: dict[str, Tensor] = {}

    def take(name: str, size: int) -> Tensor:
        layer = next(layers, Layer("end", np.zeros(0, np.float32)))
        if layer.name != name or layer.values.size != size:
            problem = f"expected a layer {name} of {size} values, got {layer.name} of {layer.values.size}"
            raise BundleError(problem, source=path, remedy=REINSTALL)
        return torch.from_numpy(layer.values.copy())

    for key in [key for key in template if key.endswith("bias")]:  # every convolution, in the order of the file
        weight, bias = template[key.replace("bias", "weight")], template[key]
        values = take("con", weight.numel() + bias.numel())
        scale, shift = take("affine", 2 * bias.numel()).chunk(2)
        filters, offsets = values.split([weight.numel(), bias.numel()])
        state[key.replace("bias", "weight")] = filters.view_as(weight) * scale.view(-1, 1, 1, 1)
        state[key] = offsets * scale + shift
    head = template["head.weight"]
    state["head.weight"] = take("fc", head.numel()).view(head.shape[1], head.shape[0]).t().contiguous()
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise BundleError("holds values that are not finite", source=path, remedy=REINSTALL)
    return state
