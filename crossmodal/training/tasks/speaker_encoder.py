"""Task ``speaker-encoder``: GE2E over batches of N speakers × M utterances (Wan et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossmodal.audio import speaker_mel
from crossmodal.config import AudioConfig
from crossmodal.data.datasets import FeatureDataset
from crossmodal.data.samplers import SpeakerBatchSampler
from crossmodal.errors import ConfigError
from crossmodal.losses.ge2e import GE2EForm, GE2ELoss, cosine_to_centroids
from crossmodal.models.speaker_encoder import HOP, SpeakerEncoder, SpeakerEncoderConfig, raise_volume
from crossmodal.training.task import Task


@dataclass(frozen=True)
class SpeakerEncoderTaskConfig:
    """The ``config`` part of a speaker encoder recipe."""

    data: Path
    """Prepared data with the feature ``waveform``."""
    model: SpeakerEncoderConfig = field(default_factory=SpeakerEncoderConfig)
    form: GE2EForm = "softmax"
    """Form of the loss; ``softmax`` is the better one for free speech."""
    utterances: int = 4
    """M; the batch size must be a multiple, and N is their quotient."""
    frames: int = AudioConfig().speaker_partial_frames
    """Length of a training crop, in 10 ms frames."""
    balance: str = ""
    """Attribute (``gender``, ``gender+age``) over which each batch's speakers are drawn evenly; empty for none."""

    def __post_init__(self) -> None:
        if self.utterances < 2 or self.frames < 1:
            raise ConfigError("utterances must be at least 2 and frames at least 1", source="speaker-encoder")


class SpeakerEncoderTask(Task):
    """Train :class:`~crossmodal.models.speaker_encoder.SpeakerEncoder`."""

    name: ClassVar[str] = "speaker-encoder"
    Config: ClassVar[type] = SpeakerEncoderTaskConfig
    config: SpeakerEncoderTaskConfig

    def __init__(self, config: SpeakerEncoderTaskConfig) -> None:
        super().__init__(config)
        self.encoder = SpeakerEncoder(config.model)
        self.ge2e = GE2ELoss(config.form)
        self.modules.update({"speaker-encoder": self.encoder, "loss": self.ge2e})

    def dataset(self, split: str) -> Dataset:
        """Crops of exactly ``config.frames`` mel frames."""
        samples = (self.config.frames - 1) * HOP  # a centred STFT has one frame more than hops
        return FeatureDataset.open(self.config.data, ("waveform",), split, crop={"waveform": samples})

    def sampler(self, dataset: Dataset, batch_size: int, seed: int) -> Iterable[list[int]]:
        """N speakers × M utterances; in validation N may be as small as the speakers there are.

        Raises:
            ConfigError: the batch is no multiple of M. DataError: fewer speakers than N.
        """
        assert isinstance(dataset, FeatureDataset)
        if batch_size % self.config.utterances:
            problem = f"batch_size {batch_size} is not a multiple of {self.config.utterances} utterances"
            raise ConfigError(problem, source=self.name, remedy="change batch_size or config.utterances")
        speakers = batch_size // self.config.utterances
        if dataset.split == "validation":
            speakers = min(speakers, len(set(dataset.speakers)))
        groups = dataset.groups(self.config.balance) if self.config.balance else None
        return SpeakerBatchSampler(dataset.speakers, speakers, self.config.utterances, seed=seed, groups=groups)

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """GE2E of ``waveform (N·M, T)``; ``accuracy`` is the share of utterances nearest to their own centroid."""
        waveform: Tensor = batch["waveform"]
        with torch.autocast(waveform.device.type, enabled=False):
            mels = speaker_mel(raise_volume(waveform))  # (N·M, F, 40)
        embeddings = self.encoder(mels).unflatten(0, (-1, self.config.utterances))  # (N, M, D)
        loss = self.ge2e(embeddings)
        with torch.no_grad():
            if len(embeddings) < 2:  # this process's part; the loss itself spans all processes
                return {"loss": loss, "weight": self.ge2e.weight}
            nearest = cosine_to_centroids(embeddings.float()).argmax(-1)  # (N, M)
            own = torch.arange(len(embeddings), device=nearest.device)[:, None]
            return {"loss": loss, "accuracy": (nearest == own).float().mean(), "weight": self.ge2e.weight}
