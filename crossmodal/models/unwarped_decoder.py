"""Face feature → landmarks and face image by two heads without a warp, as "Face From Voice" (Pietkun 2024) has it.

Cole et al. 2017 warp an aligned texture to the landmarks. Pietkun's decoder, whose weights are published, predicts the
picture of HQ-VoxCeleb's normalised face itself, and the landmarks beside it. It exists here to read those weights.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossmodal.errors import ConfigError
from crossmodal.models.face_decoder import DecodedFace
from crossmodal.models.spaces import space_size


@dataclass(frozen=True)
class UnwarpedFaceDecoderConfig:
    """Size of the decoder; the defaults are the published ones."""

    input_space: str = "vggface-unit-4096"
    """Name of the feature space that is decoded."""
    hidden: tuple[int, ...] = (3072, 2048)
    """Fully connected layers that both heads share."""
    landmark_hidden: tuple[int, ...] = (1024, 512, 256)
    """Fully connected layers of the landmark head."""
    landmarks: int = 72
    """Points: chin 17, eyebrows 5 + 5, nose bridge 4, nose tip 5, eyes 6 + 6, upper lip 12, lower lip 12."""
    start: int = 14
    """Height and width of the smallest map."""
    channels: tuple[int, ...] = (256, 128, 64, 32, 32)
    """Channels of the maps; each further one doubles height and width."""

    def __post_init__(self) -> None:
        sizes = (self.landmarks, self.start, *self.hidden, *self.landmark_hidden, *self.channels)
        if min(sizes) < 1 or not self.hidden or not self.channels:
            raise ConfigError("sizes must be at least 1, and there has to be a layer", source="face-decoder-unwarped")
        space_size(self.input_space)

    @property
    def size(self) -> int:
        """Height and width of the face, in pixels."""
        return self.start * 2 ** (len(self.channels) - 1)

    @property
    def input_size(self) -> int:
        """Components of a feature."""
        return space_size(self.input_space)

    @classmethod
    def debug(cls) -> UnwarpedFaceDecoderConfig:
        """Runs in milliseconds."""
        return cls(
            input_space="dlib-128", hidden=(16, 12), landmark_hidden=(8,), landmarks=5, start=4, channels=(6, 4, 4)
        )


class UnwarpedFaceDecoder(nn.Module):
    """Face feature → face, after Cole et al. (2017) and Pietkun (2024)."""

    kind: ClassVar[str] = "face-decoder-unwarped"
    appearance: ClassVar[None] = None
    """It takes over no looks from a photo."""

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: UnwarpedFaceDecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UnwarpedFaceDecoderConfig()
        last, first = config.hidden[-1], config.channels[0]
        # features are decoded as they are; FaceDecoder standardises them by buffers of these names
        self.register_buffer("feature_mean", torch.zeros(config.input_size), persistent=False)
        self.register_buffer("feature_scale", torch.ones(()), persistent=False)
        self.trunk = _dense(config.input_size, *config.hidden)
        """What Speech2Face's loss compares as ``f_dec``."""
        self.shape = _dense(last, *config.landmark_hidden)
        self.shape.append(nn.Linear((last, *config.landmark_hidden)[-1], 2 * config.landmarks))
        layers: list[nn.Module] = [nn.Linear(last, first * config.start**2), nn.ReLU()]
        layers.append(nn.Unflatten(1, (first, config.start, config.start)))
        for a, b in itertools.pairwise(config.channels):
            layers += [nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1), nn.ReLU()]
        self.picture = nn.Sequential(*layers, nn.Conv2d(config.channels[-1], 3, kernel_size=1))

    def draw_styles(self, feature: Tensor, generator: torch.Generator | None = None) -> None:
        """There are no hair styles to draw from."""

    def forward(
        self,
        feature: Tensor,
        skin: Tensor | None = None,
        portrait: Tensor | None = None,
        style: Tensor | None = None,
    ) -> DecodedFace:
        """Decode features.

        Args:
            feature: ``(B, D)`` in ``config.input_space``.
            skin, portrait, style: not used; this decoder draws what the feature says alone.

        Returns:
            The faces, ``config.size`` square; the texture is the face itself.

        Raises:
            ConfigError: the features have another size.
        """
        if feature.ndim != 2 or feature.shape[1] != self.config.input_size:
            problem = f"expected features (B, {self.config.input_size}), got {tuple(feature.shape)}"
            raise ConfigError(problem, source=self.kind, remedy=f"use features of {self.config.input_space}")
        hidden = self.trunk(feature)
        image = self.picture(hidden).clamp(0, 1)  # (B, 3, S, S)
        return DecodedFace(image, self.shape(hidden).unflatten(1, (-1, 2)), image)


def _dense(size: int, *units: int) -> nn.Sequential:
    """Linear, batch normalisation and ReLU for each number of units."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise((size, *units)):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers)
