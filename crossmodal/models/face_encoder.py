"""Face encoders: face → speaker embedding, for Face2Speech (Goto et al. 2020).

:class:`VGG19FaceEncoder` is the published one, pixels → VGG19 → 256 numbers, trained from scratch.
:class:`HeadFaceEncoder` is a light head on a face feature of some recognition network, for when there are few faces.
Both write a speaker space, by default GE2E's (unit length, no component negative); ``config.output_space`` names
another, such as YourTTS's (``yourtts-512``) or XTTS's (``xtts-33280``), which the TTS of the bundle then has to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.errors import ConfigError, ImageError
from crossmodal.models.spaces import space_form, space_size


def to_speaker_space(x: Tensor) -> Tensor:
    """ReLU, then unit length: how the speaker encoder ends, so that faces and voices share one space."""
    return F.normalize(F.relu(x), dim=-1)


class SpeakerOutput(nn.Module):
    """The end of a face encoder, in the form of its speaker space (:func:`crossmodal.models.spaces.space_form`).

    Nothing to learn; a ``free`` space has the mean and deviation of its voices, set by :meth:`fit`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: str) -> None:
        super().__init__()
        self.form = space_form(space)
        if self.form == "free":
            self.register_buffer("mean", torch.zeros(space_size(space)))
            self.register_buffer("std", torch.ones(space_size(space)))

    @torch.no_grad()
    def fit(self, voices: Tensor) -> None:
        """Take mean and deviation of the speakers' embeddings ``(K, D)``; other forms than ``free`` need none."""
        if self.form == "free":
            self.mean.copy_(voices.mean(0))
            self.std.copy_(voices.std(0, correction=0).clamp_min(1e-4))

    def standardise(self, embeddings: Tensor) -> Tensor:
        """``(..., D)`` as losses compare it: components of a ``free`` space in deviations, others as they are."""
        return (embeddings - self.mean) / self.std if self.form == "free" else embeddings

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D)`` → embeddings ``(B, D)`` of the space."""
        if self.form == "free":
            return x * self.std + self.mean
        return to_speaker_space(x) if self.form == "positive" else F.normalize(x, dim=-1)


@dataclass(frozen=True)
class VGG19FaceEncoderConfig:
    """Size of the VGG19 face encoder; the defaults are VGG19 (configuration E of Simonyan and Zisserman 2015)."""

    channels: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
    """Output channels of the 3×3 convolutions of each block; each block ends in a 2×2 max pool."""
    hidden_size: int = 4096
    """Units of the two fully connected layers before the last."""
    dropout: float = 0.5
    """Dropout after each of them."""
    batch_norm: bool = False
    """Batch normalisation after each convolution: not in the published network, but it trains faster."""
    image_size: int = 160
    """Side of the square input, in pixels."""
    chip: str = "facenet-512"
    """Feature space whose alignment (``faces.align``) makes the input: 160 × 160 around the MTCNN box."""
    output_space: str = "ge2e-256"
    """The embedding space written."""

    def __post_init__(self) -> None:
        if not self.channels or any(not block for block in self.channels):
            raise ConfigError("every block of channels needs at least one number", source="face-encoder-vgg19")
        if self.image_size >> len(self.channels) < 1:
            problem = f"image_size {self.image_size} is too small for {len(self.channels)} poolings"
            raise ConfigError(problem, source="face-encoder-vgg19")
        space_size(self.output_space)

    @classmethod
    def debug(cls) -> VGG19FaceEncoderConfig:
        """Runs in milliseconds."""
        return cls(channels=((4,), (8,), (8,), (8,), (8,)), hidden_size=32, image_size=64)


class VGG19FaceEncoder(nn.Module):
    """Face chip → speaker embedding through VGG19 (Goto et al. 2020, section 3.2)."""

    kind: ClassVar[str] = "face-encoder-vgg19"

    def __init__(self, config: VGG19FaceEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VGG19FaceEncoderConfig()
        layers: list[nn.Module] = []
        previous = 3
        for block in config.channels:
            for channels in block:
                layers.append(nn.Conv2d(previous, channels, 3, padding=1))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU())
                previous = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        side = config.image_size >> len(config.channels)
        self.classifier = nn.Sequential(
            nn.Linear(previous * side * side, config.hidden_size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, space_size(config.output_space)),
        )
        self.output = SpeakerOutput(config.output_space)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # He et al. 2015: nineteen layers do not start to learn from the default initialisation
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def preprocess(self, chips: np.ndarray | Tensor) -> Tensor:
        """Chips ``(B, H, W, 3)`` uint8 → input ``(B, 3, image_size, image_size)`` in [-1, 1]."""
        pixels = torch.as_tensor(chips)
        if pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise ImageError(f"expected chips (B, H, W, 3), got {tuple(pixels.shape)}", source="face-encoder-vgg19")
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)
        size = self.config.image_size
        if x.shape[-2:] == (size, size):
            return x
        return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)

    def forward(self, chips: Tensor) -> Tensor:
        """Chips ``(B, 3, S, S)`` in [-1, 1] → speaker embeddings ``(B, E)`` in ``config.output_space``."""
        return self.output(self.classifier(self.features(chips).flatten(1)))


@dataclass(frozen=True)
class HeadFaceEncoderConfig:
    """Size of the light face encoder."""

    input_space: str = "dlib-128"
    """The face-feature space read."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of the hidden layers."""
    dropout: float = 0.2
    """Dropout after each hidden layer."""
    output_space: str = "ge2e-256"
    """The embedding space written."""

    def __post_init__(self) -> None:
        space_size(self.input_space)
        space_size(self.output_space)

    @classmethod
    def debug(cls) -> HeadFaceEncoderConfig:
        """Runs in milliseconds."""
        return cls(hidden_sizes=(32,))


class HeadFaceEncoder(nn.Module):
    """Face feature → speaker embedding: standardise, a few dense layers with a linear path beside them, ReLU, L2."""

    kind: ClassVar[str] = "face-encoder-head"
    mean: Tensor
    std: Tensor

    def __init__(self, config: HeadFaceEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HeadFaceEncoderConfig()
        size, out = space_size(config.input_space), space_size(config.output_space)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        layers: list[nn.Module] = []
        previous = size
        for units in config.hidden_sizes:
            layers += [nn.Linear(previous, units), nn.GELU(), nn.Dropout(config.dropout)]
            previous = units
        self.dense = nn.Sequential(*layers, nn.Linear(previous, out))
        self.linear = nn.Linear(size, out, bias=False)
        self.output = SpeakerOutput(config.output_space)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Set mean and deviation from training features ``(N, D)``.

        Raises:
            ConfigError: fewer than two features, or of another size.
        """
        if features.ndim != 2 or features.shape[1] != self.mean.numel() or len(features) < 2:
            problem = f"cannot standardise by features {tuple(features.shape)}"
            raise ConfigError(
                problem, source="face-encoder-head", remedy=f"give (N, {self.mean.numel()}), N at least 2"
            )
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp_min(1e-6))

    def start_at(self, embeddings: Tensor | Sequence[Tensor]) -> None:
        """Start the output at the mean of speaker embeddings ``(N, E)``, so that no component begins dead."""
        target = torch.as_tensor(embeddings) if isinstance(embeddings, Tensor) else torch.stack(list(embeddings))
        last = self.dense[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(self.output.standardise(target).mean(0))

    def forward(self, features: Tensor) -> Tensor:
        """Face features ``(B, D)`` in ``config.input_space`` → speaker embeddings ``(B, E)`` in
        ``config.output_space``."""
        x = (features - self.mean) / self.std  # (B, D)
        return self.output(self.dense(x) + self.linear(x))
