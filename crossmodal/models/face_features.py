"""Face features: what a face-recognition network sees in a face chip, in a named space.

| class | space | chip | network and weights |
| --- | --- | --- | --- |
| :class:`DlibFaceFeatures` | ``dlib-128`` | 150×150 | dlib's ResNet (King 2017), in ``face_recognition_models`` |
| :class:`FaceNetFeatures` | ``facenet-512`` | 160×160 | Inception-ResNet v1 (Schroff 2015), a file you have |
| :class:`VGGFaceFeatures` | ``vggface-4096`` | 224×224 | VGG-16 (Parkhi 2015), a file you have |

All take chips of :func:`crossmodal.faces.align` as ``(B, 3, S, S)`` RGB in [0, 1] and do their own normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.errors import BundleError, ConfigError, DependencyError
from crossmodal.models.dlib_weights import DESCRIPTOR_FILE, REINSTALL, Layer, package_file, read_layers
from crossmodal.models.foreign_weights import fit_state, read_keras_layers, read_state
from crossmodal.models.unfilled import Unfilled


class FaceFeatures(nn.Module):
    """What the three networks share: chips in, features out."""

    kind: ClassVar[str]
    space: ClassVar[str]
    """Name of the embedding space."""
    chip_size: ClassVar[int]
    """Edge of the square chip in pixels."""

    def preprocess(self, chips: np.ndarray | Tensor) -> Tensor:
        """Face chips ``(B, S, S, 3)`` or ``(S, S, 3)`` uint8 → ``(B, 3, S, S)`` in [0, 1], on the network's device.

        Raises:
            ConfigError: the chips are not uint8 RGB of the network's size.
        """
        tensor = chips if isinstance(chips, Tensor) else torch.from_numpy(np.array(chips))
        tensor = tensor[None] if tensor.ndim == 3 else tensor
        size = self.chip_size
        if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tuple(tensor.shape[1:]) != (size, size, 3):
            problem = f"expected uint8 chips (B, {size}, {size}, 3), got {tensor.dtype} {tuple(tensor.shape)}"
            raise ConfigError(
                problem, source=self.kind, remedy=f'use crossmodal.faces.align(image, face, "{self.space}")'
            )
        weight = next(self.parameters())
        return tensor.to(weight.device).permute(0, 3, 1, 2).to(weight.dtype).div(255)  # (B, 3, S, S)

    def embed(self, chips: np.ndarray | Tensor) -> Tensor:
        """Features ``(B, D)`` of uint8 chips ``(B, S, S, 3)``, without gradients."""
        with torch.no_grad():
            return self(self.preprocess(chips))


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


class DlibFaceFeatures(FaceFeatures):
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
        # Divided by NumPy: on the meta device a division by torch would import torch.compile (more than a second).
        mean = np.array(self.MEAN, np.float32) / np.float32(255)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

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
        with Unfilled():
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


@dataclass(frozen=True)
class FaceNetConfig:
    """Size of the Inception-ResNet v1; the defaults are those of facenet-pytorch's published weights."""

    blocks: tuple[int, int, int] = (5, 10, 5)
    """Residual blocks at 17×17, 8×8 and 3×3."""
    output_space: str = "facenet-512"
    """Name of the embedding space."""

    def __post_init__(self) -> None:
        if not all(1 <= n <= full for n, full in zip(self.blocks, (5, 10, 5))):
            raise ConfigError("blocks must lie between (1, 1, 1) and (5, 10, 5)", source="face-facenet")

    @classmethod
    def debug(cls) -> FaceNetConfig:
        """One block of each kind; writes vectors of the same size."""
        return cls(blocks=(1, 1, 1))


class FaceNetFeatures(FaceFeatures):
    """FaceNet (Schroff et al. 2015): Inception-ResNet v1 of facenet-pytorch, unit-length 512-d features.

    The package carries the architecture but no weights; :meth:`from_file` reads the published
    ``20180402-114759-vggface2.pt`` (or ``-casia-webface.pt``), or safetensors with the same names.
    """

    kind: ClassVar[str] = "face-facenet"
    space: ClassVar[str] = "facenet-512"
    chip_size: ClassVar[int] = 160

    def __init__(self, config: FaceNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FaceNetConfig()
        try:
            from facenet_pytorch import InceptionResnetV1
        except ImportError as error:
            remedy = "pip install facenet-pytorch==2.5.3"
            raise DependencyError("is not installed", source="facenet-pytorch", remedy=remedy) from error
        self.network = InceptionResnetV1(pretrained=None)  # never downloads
        for name, count in zip(("repeat_1", "repeat_2", "repeat_3"), config.blocks):
            setattr(self.network, name, getattr(self.network, name)[:count])

    @classmethod
    def from_file(cls, path: str | Path, config: FaceNetConfig | None = None) -> FaceNetFeatures:
        """Weights from a PyTorch state dict or safetensors file, in eval mode on the CPU.

        Raises:
            BundleError: the file is missing, damaged or holds another network.
        """
        model = cls(config)
        state = read_state(path)
        prefix = "network."
        state = {name if name.startswith(prefix) else prefix + name: value for name, value in state.items()}
        fit_state(model, state, path, ignore=("network.logits.",))  # the classifier over training identities
        return model.eval()

    def forward(self, chips: Tensor) -> Tensor:
        """Embed chips ``(B, 3, 160, 160)`` in [0, 1] → ``(B, 512)`` of unit length."""
        return self.network((chips * 255 - 127.5) / 128)


@dataclass(frozen=True)
class VGGFaceConfig:
    """Size of VGG-Face; the defaults are those of Parkhi et al. 2015 (configuration D)."""

    stages: tuple[tuple[int, ...], ...] = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
    """Channels of the 3×3 convolutions of each stage; every stage ends in 2×2 max pooling."""
    hidden_size: int = 4096
    """Units of fc6."""
    feature_size: int = 4096
    """Units of fc7, the face feature."""
    identities: int = 2622
    """Outputs of fc8; 0 leaves fc8 out, and with it the distillation term of Speech2Face."""
    pixels: Literal["centred", "unit"] = "centred"
    """What the first convolution sees: 0–255 less the mean, as published, or [0, 1], as "Face From Voice" (Pietkun
    2024) uses the same weights. The features differ, so each has a space of its own."""
    output_space: str = "vggface-4096"
    """Name of the embedding space."""

    def __post_init__(self) -> None:
        sizes = [self.hidden_size, self.feature_size, *(n for stage in self.stages for n in stage)]
        if len(self.stages) != 5 or not all(self.stages) or min(sizes) < 1 or self.identities < 0:
            raise ConfigError("needs five stages, and sizes of at least 1", source="face-vggface")
        if (self.pixels == "unit") == (self.output_space == "vggface-4096"):
            remedy = "name it vggface-unit-4096 for [0, 1], vggface-4096 otherwise"
            problem = f"pixels '{self.pixels}' do not make the space {self.output_space}"
            raise ConfigError(problem, source="face-vggface.output_space", remedy=remedy)

    @classmethod
    def debug(cls) -> VGGFaceConfig:
        """Runs in milliseconds; writes vectors of the same size."""
        return cls(stages=((4,), (4,), (8,), (8,), (8,)), hidden_size=16, identities=10)


LAYOUTS: dict[str, str] = {
    "deepface": "deepface's vgg_face_weights.h5 (convolutions only)",
    "rcmalli": "keras-vggface's rcmalli_vggface_tf_vgg16.h5 (dense fc6 to fc8)",
    "state-dict": "a PyTorch state dict (conv1_1 … fc8)",
}
"""Files that VGG-Face is read from."""


class VGGFaceFeatures(FaceFeatures):
    """VGG-Face (Parkhi et al. 2015, "Deep Face Recognition"): fc7 after its ReLU, the target of Speech2Face.

    The layers are named ``conv1_1`` … ``fc8`` as published. Weights come from a file you have (see :meth:`from_file`).
    """

    kind: ClassVar[str] = "face-vggface"
    space: ClassVar[str] = "vggface-4096"
    chip_size: ClassVar[int] = 224

    MEAN: ClassVar[tuple[float, float, float]] = (129.1863, 104.7624, 93.5940)
    """Mean red, green and blue of the training photos, 0–255."""

    mean: Tensor

    def __init__(self, config: VGGFaceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VGGFaceConfig()
        channels = 3
        for stage, widths in enumerate(config.stages, start=1):
            for index, width in enumerate(widths, start=1):
                self.add_module(f"conv{stage}_{index}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.fc6 = nn.Linear(channels * (self.chip_size // 32) ** 2, config.hidden_size)
        self.fc7 = nn.Linear(config.hidden_size, config.feature_size)
        if config.identities:
            self.fc8 = nn.Linear(config.feature_size, config.identities)
        self.register_buffer("mean", torch.tensor(self.MEAN).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        config: VGGFaceConfig | None = None,
        *,
        source: Literal["auto", "deepface", "rcmalli", "state-dict"] = "auto",
        channels: Literal["auto", "rgb", "bgr"] = "auto",
    ) -> VGGFaceFeatures:
        """Weights in eval mode on the CPU, from

        - a PyTorch state dict or safetensors file with the published layer names (``vgg_face_dag.pth``);
        - ``vgg_face_weights.h5`` of deepface (all layers are convolutions, fc6 is 7×7);
        - ``rcmalli_vggface_tf_vgg16.h5`` of keras-vggface (fc6 to fc8 are dense).

        Args:
            path: the file.
            config: sizes, if not the published ones; ``identities`` 0 drops fc8.
            source: where the file has to come from; ``auto`` tells by its layout.
            channels: colour order the file's first convolution expects; it is turned to RGB on loading. ``auto`` is
                BGR for keras-vggface's file, which was converted from Caffe, and RGB for the others.

        Raises:
            BundleError: the file is missing, damaged or holds another network.
            DependencyError: an ``.h5`` file, and h5py is not installed.
        """
        model = cls(config)
        state, layout = model._read(path)
        if source not in ("auto", layout):
            problem = f"is laid out as {LAYOUTS[layout]}, not as {LAYOUTS[source]}"
            raise BundleError(problem, source=path, remedy=f"say {layout} instead of {source}")
        bgr = layout == "rcmalli"
        if (channels == "bgr" or (channels == "auto" and bgr)) and "conv1_1.weight" in state:
            state["conv1_1.weight"] = state["conv1_1.weight"].flip(1)
        fit_state(model, state, path)
        return model.eval()

    def _read(self, path: str | Path) -> tuple[dict[str, Tensor], str]:
        """State dict from a file of any of the :data:`LAYOUTS`, and which; without fc8 if this network has none."""
        if Path(path).suffix.lower() in (".h5", ".hdf5"):
            state, dense = self._from_keras(path)
            layout = "rcmalli" if dense else "deepface"
        else:
            state, layout = read_state(path), "state-dict"
        if not self.config.identities:
            state = {name: value for name, value in state.items() if not name.startswith("fc8.")}
        return state, layout

    def _from_keras(self, path: str | Path) -> tuple[dict[str, Tensor], bool]:
        """State dict from a Keras file, layer by layer, and whether its fully connected layers are dense."""
        layers = read_keras_layers(path)
        modules = list(self.named_children())
        if len(layers) == len(modules) - 1 and self.config.identities:
            problem, remedy = "has no fc8, the layer over the identities", "import it without: --identities 0"
            raise BundleError(problem, source=path, remedy=remedy)
        if len(layers) not in (len(modules), len(modules) + (not self.config.identities)):
            problem = f"holds {len(layers)} layers with weights, VGG-Face has {len(modules)}"
            remedy = "use the file with the fully connected layers (not 'notop')"
            raise BundleError(problem, source=path, remedy=remedy)
        state, dense = {}, False
        for (name, module), (kernel, bias) in zip(modules, layers):
            if kernel.ndim == 4:  # (H, W, in, out) → (out, in, H, W)
                weight = kernel.permute(3, 2, 0, 1)
            else:
                dense = True
                if name == "fc6" and kernel.shape[0] == self.fc6.in_features:  # rows run over (H, W, C)
                    edge = self.chip_size // 32
                    kernel = kernel.view(edge, edge, -1, kernel.shape[1]).permute(2, 0, 1, 3).flatten(0, 2)
                weight = kernel.t()
            state[f"{name}.weight"] = weight.flatten(1) if isinstance(module, nn.Linear) else weight
            state[f"{name}.bias"] = bias
        return state, dense

    def forward(self, chips: Tensor) -> Tensor:
        """Chips ``(B, 3, 224, 224)`` in [0, 1] → fc7 ``(B, 4096)``, not negative."""
        x = chips if self.config.pixels == "unit" else chips * 255 - self.mean
        for stage, widths in enumerate(self.config.stages, start=1):
            for index in range(1, len(widths) + 1):
                x = F.relu(getattr(self, f"conv{stage}_{index}")(x))
            x = F.max_pool2d(x, 2)  # (B, C, 224 / 2^stage, 224 / 2^stage)
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))  # (B, 4096)

    def classify(self, features: Tensor) -> Tensor:
        """fc7 features ``(B, 4096)`` → fc8 logits over the training identities ``(B, 2622)``.

        Raises:
            ConfigError: the weights were imported without fc8.
        """
        if not self.config.identities:
            remedy = "import VGG-Face from a file with fc8"
            raise ConfigError("has no fc8 to classify identities with", source="face-vggface", remedy=remedy)
        return self.fc8(features)
