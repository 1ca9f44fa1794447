"""Task ``face-encoder``: face → speaker embedding by SGE2E with fixed speech centroids (Goto et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from crossmodal.config import from_dict, merge, to_dict
from crossmodal.data.datasets import FeatureDataset, centroids
from crossmodal.data.features import FeatureStore
from crossmodal.data.manifest import Manifest
from crossmodal.errors import ConfigError
from crossmodal.losses.ge2e import SupervisedGE2ELoss
from crossmodal.models import build, classes
from crossmodal.models.face_encoder import HeadFaceEncoder, VGG19FaceEncoder
from crossmodal.training.task import Task


@dataclass(frozen=True)
class FaceEncoderTaskConfig:
    """The ``config`` part of a face encoder recipe."""

    data: Path
    """Prepared data: a chip or face feature of the faces, and of the voices the speaker space that is written
    (``ge2e-256``, or ``model.output_space``), joined by identity."""
    kind: Literal["face-encoder-vgg19", "face-encoder-head"] = "face-encoder-vgg19"
    """The published network on pixels, or the light head on a face feature."""
    size: Literal["full", "debug"] = "full"
    model: dict[str, Any] = field(default_factory=dict)
    """What differs from that network's configuration."""
    among: Literal["batch", "all"] = "batch"
    """Speakers each face is told from: those in the batch, as published, or all of the split."""
    flip: float = 0.5
    """Share of training faces mirrored (pixels only)."""
    noise: float = 0.0
    """Noise on training features, in standard deviations of each component (face features only)."""
    pull: float = 0.0
    """Weight of 1 − cosine to the own centroid, beside SGE2E: with few faces, SGE2E alone drives embeddings apart to
    where no voice is."""
    regress: float | None = None
    """Weight of the mean squared distance to the own centroid, in deviations of each component. ``None``: 1 for a
    speaker space whose lengths carry information (XTTS's latents), which the cosines of SGE2E cannot see, else 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1 or min(self.noise, self.pull, self.regress or 0) < 0:
            problem = "flip is a share from 0 to 1, noise, pull and regress are not negative"
            raise ConfigError(problem, source="face-encoder")
        config_class = classes(self.kind)[1]
        base = config_class.debug() if self.size == "debug" else config_class()  # type: ignore[attr-defined]
        from_dict(config_class, merge(to_dict(base), self.model), source=f"{self.kind}.model")


class _Centroids(nn.Module):
    """Fixed speech centroids ``(K, D)`` of each split, in the order of the dataset's labels."""

    def __init__(self, **splits: Tensor) -> None:
        super().__init__()
        for split, values in splits.items():
            self.register_buffer(f"of_{split}", values)

    def of(self, split: str) -> Tensor:
        return self.get_buffer(f"of_{split}")


class FaceEncoderTask(Task):
    """Train :class:`~crossmodal.models.face_encoder.VGG19FaceEncoder` or ``HeadFaceEncoder``."""

    name: ClassVar[str] = "face-encoder"
    Config: ClassVar[type] = FaceEncoderTaskConfig
    config: FaceEncoderTaskConfig

    def __init__(self, config: FaceEncoderTaskConfig) -> None:
        super().__init__(config)
        network = build(config.kind, config.model, size=config.size)
        assert isinstance(network, VGG19FaceEncoder | HeadFaceEncoder)
        self.encoder = network
        self.sge2e = SupervisedGE2ELoss(among=config.among)
        self.modules.update({"face-encoder": network, "loss": self.sge2e})
        self.input = network.config.input_space if isinstance(network, HeadFaceEncoder) else "chip-facenet-512"
        manifest = Manifest.read(config.data / "manifest.parquet")
        voices = FeatureStore(config.data / "features" / network.config.output_space)
        self._data = {split: self._faces(manifest, split) for split in ("train", "validation")}
        free = network.output.form == "free"
        targets = {
            split: centroids(
                voices,
                manifest,
                {name: i for i, name in enumerate(sorted(set(data.speakers)))},
                normalise=not free,
            )
            for split, data in self._data.items()
        }
        network.output.fit(targets["train"])
        self.regress = float(free) if config.regress is None else config.regress
        self.frozen["centroids"] = self.centroids = _Centroids(**targets)
        if isinstance(network, HeadFaceEncoder):
            data = self._data["train"]
            step = max(1, len(data) // 4096)  # enough for a mean and a deviation
            network.standardise(torch.stack([data[i][self.input] for i in range(0, len(data), step)]))
            network.start_at(targets["train"])

    def _faces(self, manifest: Manifest, split: str) -> FeatureDataset:
        return FeatureDataset(manifest, {self.input: self.config.data / "features" / self.input}, split)

    def dataset(self, split: str) -> Dataset:
        """Faces of one split."""
        return self._data[split]

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """SGE2E; ``cosine`` to the own centroid, and ``top1`` among all speakers of the split (chance 1 / K)."""
        training, x = step >= 0, batch[self.input]
        if isinstance(self.encoder, VGG19FaceEncoder):
            x = self._resize(x) * 2 - 1  # (B, 3, S, S) in [-1, 1]
            if training:
                mirrored = torch.rand(len(x), device=x.device) < self.config.flip
                x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        elif training and self.config.noise:
            x = x + self.config.noise * self.encoder.std * torch.randn_like(x)
        standardise = self.encoder.output.standardise
        embeddings = standardise(self.encoder(x))  # (B, D)
        targets = standardise(self.centroids.of("train" if training else "validation"))  # (K, D)
        loss = self.sge2e(embeddings, batch["label"], targets)
        if self.regress:
            loss = loss + self.regress * F.mse_loss(embeddings.float(), targets[batch["label"]])
        embeddings, unit = F.normalize(embeddings.float(), dim=-1), F.normalize(targets, dim=-1)
        if self.config.pull:
            loss = loss + self.config.pull * (1 - (embeddings * unit[batch["label"]]).sum(-1)).mean()
        with torch.no_grad():
            cosine = embeddings @ unit.T  # (B, K)
            own = cosine.gather(1, batch["label"][:, None])
            top1 = (cosine.argmax(1) == batch["label"]).float().mean()
        return {"loss": loss, "cosine": own.mean(), "top1": top1}

    def _resize(self, chips: Tensor) -> Tensor:
        size = self.encoder.config.image_size  # type: ignore[union-attr]
        if chips.shape[-1] == size:
            return chips
        return F.interpolate(chips, (size, size), mode="bilinear", antialias=True, align_corners=False)
