"""Task ``voice-encoder``: speech → face feature by the three-term loss of Speech2Face (Oh et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from crossmodal.config import AudioConfig, from_dict, merge, to_dict
from crossmodal.data.datasets import FeatureDataset
from crossmodal.data.features import TABLE
from crossmodal.errors import BundleError, ConfigError, SpaceMismatchError
from crossmodal.losses.speech2face import FaceLoss, Layer, Speech2FaceLoss
from crossmodal.models import build, classes
from crossmodal.models.face_decoder import FaceDecoder
from crossmodal.models.face_features import FaceFeatures, FaceNetFeatures, VGGFaceFeatures
from crossmodal.models.unwarped_decoder import UnwarpedFaceDecoder
from crossmodal.models.voice_encoder import ASTVoiceEncoder, ASTVoiceEncoderConfig, ConvVoiceEncoder
from crossmodal.training.task import Task


@dataclass(frozen=True)
class VoiceEncoderTaskConfig:
    """The ``config`` part of a voice encoder recipe."""

    data: Path
    """Prepared data: ``waveform``, and the target face feature or the chips to compute it from."""
    kind: Literal["voice-encoder-conv", "voice-encoder-ast"] = "voice-encoder-conv"
    size: Literal["full", "debug"] = "full"
    model: dict[str, Any] = field(default_factory=dict)
    """What differs from that network's configuration; ``output_space`` chooses the target feature."""
    seconds: float = AudioConfig().s2f_seconds
    """Length of a training crop; shorter clips are repeated."""
    loss: FaceLoss = "full"
    """``full``, or an ablation: ``l1`` or ``normalised-l2``."""
    feature_weight: float = 0.025
    """λ₁"""
    distillation_weight: float = 200.0
    """λ₂"""
    temperature: float = 2.0
    """T of the distillation."""
    decoder: Path | None = None
    """A bundle whose face decoder's first layer the loss compares; without one it compares the features."""
    face_weights: Path | None = None
    """Weights of the face network (``vggface-4096``, ``facenet-512``), a file or what ``crossmodal models import``
    wrote: makes targets of chips, and VGG-Face's last layer is what the distillation compares. Not needed for a feature
    that was prepared (``dlib-128``)."""
    start_at_mean: bool = False
    """Start with the mean of the training features as the answer, whatever is heard, and learn what differs from it:
    spares short runs the way there. For prepared features."""
    ast_weights: str | None = None
    """A pretrained audio spectrogram transformer to start from: a folder saved by ``transformers``, a Hugging Face Hub
    id, or what ``crossmodal models import ast`` wrote. How much of it is trained: ``model.tuned_layers``."""

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise ConfigError(f"{self.seconds} s is shorter than the second it needs", source="voice-encoder.seconds")
        if self.ast_weights and self.kind != "voice-encoder-ast":
            raise ConfigError("is for voice-encoder-ast only", source="voice-encoder.ast_weights")
        space = self.network().output_space
        if self.start_at_mean and space not in TABLE:
            raise ConfigError("is for prepared features only", source="voice-encoder.start_at_mean")
        if space not in TABLE and not self.face_weights:
            remedy = "give config.face_weights, the file of that face network, or another output_space"
            raise ConfigError(f"the target {space} is not prepared but computed", source="voice-encoder", remedy=remedy)

    def network(self) -> Any:
        """The network's configuration."""
        config_class = classes(self.kind)[1]
        base = config_class.debug() if self.size == "debug" else config_class()  # type: ignore[attr-defined]
        return from_dict(config_class, merge(to_dict(base), self.model), source=f"{self.kind}.model")


def _face_network(space: str, weights: Path) -> FaceFeatures:
    """The face network of a bundle part (``crossmodal models import vgg-face``), or of a weight file.

    Raises:
        SpaceMismatchError: the part's network writes another face feature.
        ConfigError: no network that is read from a file makes ``space``.
    """
    if (weights / "bundle.yaml").is_file():
        from crossmodal.bundle import Bundle

        found: Any = Bundle.open(weights).load("face-features")
        if found.config.output_space != space:
            problem = f"its face network writes {found.config.output_space}, the voice encoder {space}"
            raise SpaceMismatchError(problem, source=weights, remedy="set config.model.output_space")
        return found
    networks: dict[str, Any] = {"vggface-4096": VGGFaceFeatures, "facenet-512": FaceNetFeatures}
    if space not in networks:
        remedy = f"face_weights makes {' or '.join(networks)}"
        raise ConfigError(f"no face network with weights makes {space}", source="voice-encoder", remedy=remedy)
    return networks[space].from_file(weights)


def _pretrained(source: str, config: ASTVoiceEncoderConfig) -> ASTVoiceEncoder:
    """A transformer with a new head, or a voice encoder out of a bundle with the head it has.

    Raises:
        SpaceMismatchError: the bundle's encoder writes another face feature.
        BundleError: nothing there that can be used.
    """
    if not (Path(source) / "bundle.yaml").is_file():
        return ASTVoiceEncoder.from_transformer(source, config)
    from crossmodal.bundle import Bundle

    found: Any = Bundle.open(source).load("voice-encoder")
    if not isinstance(found, ASTVoiceEncoder):
        raise BundleError(f"its voice encoder is a {found.kind}", source=source, remedy="give one of AST's kind")
    if (found.config.output_space, found.config.pooling) != (config.output_space, config.pooling):
        problem = f"its head is {found.config.pooling} → {found.config.output_space}"
        remedy = f"it has to be {config.pooling} → {config.output_space}: set config.model, or import it again"
        raise SpaceMismatchError(problem, source=source, remedy=remedy)
    encoder = ASTVoiceEncoder(replace(found.config, tuned_layers=config.tuned_layers))
    encoder.load_state_dict(found.state_dict())
    return encoder


class VoiceEncoderTask(Task):
    """Train :class:`~crossmodal.models.voice_encoder.ConvVoiceEncoder` or ``ASTVoiceEncoder``."""

    name: ClassVar[str] = "voice-encoder"
    Config: ClassVar[type] = VoiceEncoderTaskConfig
    config: VoiceEncoderTaskConfig

    def __init__(self, config: VoiceEncoderTaskConfig) -> None:
        super().__init__(config)
        if config.ast_weights:
            start = config.network()
            assert isinstance(start, ASTVoiceEncoderConfig)
            network: Any = _pretrained(config.ast_weights, start)
        else:
            network = build(config.kind, config.model, size=config.size)
        assert isinstance(network, ConvVoiceEncoder | ASTVoiceEncoder)
        self.encoder = network
        self.modules["voice-encoder"] = network
        self.space = network.config.output_space
        self.input = self.space if self.space in TABLE else f"chip-{self.space}"
        face_layer: Layer | None = None
        if self.input != self.space and config.face_weights:
            faces = _face_network(self.space, config.face_weights)
            self.input = f"chip-{faces.space}"
            self.frozen["face-features"] = faces
            classifies = isinstance(faces, VGGFaceFeatures) and faces.config.identities
            face_layer = faces.classify if classifies else None  # type: ignore[assignment]
        self.criterion = Speech2FaceLoss(
            self._decoder_layer(),
            face_layer,
            kind=config.loss,
            feature_weight=config.feature_weight,
            distillation_weight=config.distillation_weight,
            temperature=config.temperature,
        )
        if config.start_at_mean:
            self._start_at_mean()

    @torch.no_grad()
    def _start_at_mean(self) -> None:
        """Last layer: weights 0, bias the mean of the training features."""
        data = FeatureDataset.open(self.config.data, (self.space,), "train")
        last = [layer for layer in self.encoder.head if isinstance(layer, nn.Linear)][-1]
        last.weight.zero_()
        last.bias.copy_(torch.stack([data[i][self.space] for i in range(len(data))]).mean(0))

    def _decoder_layer(self) -> Layer | None:
        """f_dec: the first layer of the decoder in ``config.decoder``.

        Raises:
            SpaceMismatchError: that decoder reads another face feature.
        """
        if self.config.decoder is None:
            return None
        from crossmodal.bundle import Bundle

        decoder: Any = Bundle.open(self.config.decoder).load("face-decoder")
        assert isinstance(decoder, FaceDecoder | UnwarpedFaceDecoder)
        if decoder.config.input_space != self.space:
            problem = f"its face decoder reads {decoder.config.input_space}, the voice encoder writes {self.space}"
            raise SpaceMismatchError(problem, source=self.config.decoder, remedy="set config.model.output_space")
        self.frozen["face-decoder"] = decoder
        if isinstance(decoder, UnwarpedFaceDecoder):
            return decoder.trunk
        return lambda feature: decoder.first_layer((feature - decoder.feature_mean) * decoder.feature_scale)

    def dataset(self, split: str) -> Dataset:
        """Crops of ``config.seconds`` with the face (or its feature) of the same clip."""
        crop = {"waveform": round(self.config.seconds * AudioConfig().sample_rate)}
        return FeatureDataset.open(self.config.data, ("waveform", self.input), split, crop=crop)

    def target(self, batch: Mapping[str, Any]) -> Tensor:
        """The face features ``(B, D)`` of a batch."""
        if self.input == self.space:
            return batch[self.space]
        with torch.no_grad():
            return self.frozen["face-features"](batch[self.input])

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """The loss and its terms; ``cosine`` of predicted and true feature."""
        waveform: Tensor = batch["waveform"]
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            features = self.encoder.features(waveform, seconds=None)
            if features.ndim == 4:  # convolutions take half the time on a CPU
                features = features.contiguous(memory_format=torch.channels_last)
        predicted, target = self.encoder(features), self.target(batch)
        terms = self.criterion(predicted, target)
        cosine = F.cosine_similarity(predicted.detach().float(), target.float()).mean()
        return {**terms, "cosine": cosine}
