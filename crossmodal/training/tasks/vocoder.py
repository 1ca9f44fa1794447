"""Task ``vocoder``: log-mel + F0 → waveform, by spectral losses alone or with an adversarial fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from crossmodal.audio import log_mel
from crossmodal.config import AudioConfig
from crossmodal.data.speech_features import SpeechFeatures, prepare_features, side_of, starter_rows
from crossmodal.errors import ConfigError, DataError
from crossmodal.losses.vocoder import (
    MultiResolutionSTFTLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    mel_loss,
)
from crossmodal.models.discriminators import DiscriminatorConfig, VocoderDiscriminator
from crossmodal.models.vocoder import HarmonicVocoder, VocoderConfig
from crossmodal.training.task import Task

MARGIN = 3
"""Extra hops on both sides of a crop: the STFT window of its first and last frame must see what is really there."""
_AUDIO = AudioConfig()


@dataclass
class VocoderTaskConfig:
    """The ``config`` part of a vocoder recipe."""

    features: Path = Path("runs/starter/speech/features")
    """Folder written by :mod:`crossmodal.data.speech_features`."""
    data: Path | None = None
    """The starter's data folder, from which missing ``features`` are prepared."""
    predicted: Path | None = None
    """Folder of predicted mels to fine-tune on, ``<id>.npy`` ``(100, F)``, aligned to the recording."""
    predicted_share: float = 0.5
    """Share of training crops that take the predicted mel where there is one."""
    crop_frames: int = 64
    """Frames of a training crop (80 frames = 1 s)."""
    validation_clips: int = 24
    """Validation clips, spread over the validation speakers."""
    model: VocoderConfig = field(default_factory=VocoderConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    training_projections: int = 3
    """Projections a training step goes through; validation and use take ``model.projections``."""
    adversarial: bool = False
    """Train against the discriminators as well."""
    corpus_share: dict[str, float] = field(default_factory=dict)
    """How often each corpus is drawn, e.g. ``{librispeech: 0.5}``; corpora left out share the rest by hours."""
    smoothing: float = 0.3
    """Share of training crops whose mel is blurred, as predicted mels are."""
    gain_db: float = 6.0
    """Loudness of training crops varies by as much, up and down."""
    stft_weight: float = 1.0
    mel_weight: float = 1.0
    magnitude_weight: float = 2.0
    """L1 between predicted and true magnitude (logarithm and square root), before the projections."""
    adversarial_weight: float = 0.1
    feature_weight: float = 0.2

    def __post_init__(self) -> None:
        if self.crop_frames < 12:
            raise ConfigError(f"crop_frames must be at least 12, not {self.crop_frames}", source="vocoder")
        if not 0.0 <= self.smoothing <= 1.0 or not 0.0 <= self.predicted_share <= 1.0:
            raise ConfigError("smoothing and predicted_share are shares, from 0 to 1", source="vocoder")


class CropDataset(Dataset):
    """Crops: ``waveform`` ``((frames + 2 MARGIN) * hop,)``, ``f0`` ``(frames,)`` and ``mel`` (zeros if not predicted).

    A clip of ``s`` seconds is listed about ``s`` times an epoch, so that every second is drawn equally often.
    """

    def __init__(
        self,
        features: SpeechFeatures,
        indices: list[int],
        frames: int,
        *,
        shares: Mapping[str, float] | None = None,
        predicted: Path | None = None,
        fixed: bool = False,
    ) -> None:
        self.features, self.frames, self.predicted, self.fixed = features, frames, predicted, fixed
        weights = _corpus_weights(features, indices, shares or {})
        self.entries = (
            list(indices)
            if fixed
            else [i for i in indices for _ in range(max(1, round(features[i].seconds * weights[features[i].corpus])))]
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip_index = self.entries[index]
        clip = self.features[clip_index]
        room = max(1, clip.frames - self.frames)
        start = room // 2 if self.fixed else int(torch.randint(room, ()))
        hop = _AUDIO.hop_length
        first, length = (start - MARGIN) * hop, (self.frames + 2 * MARGIN) * hop
        wave = self.features.waveform(clip_index, max(0, first), length + min(0, first))
        f0 = self.features.pitch(clip_index, start, self.frames)
        wave = np.pad(wave, (max(0, -first), 0))
        wave, f0 = np.pad(wave, (0, length - len(wave))), np.pad(f0, (0, self.frames - len(f0)))
        mel, known = np.zeros((_AUDIO.n_mels, self.frames), dtype=np.float32), False
        path = self.predicted / f"{clip.id}.npy" if self.predicted else None
        if path is not None and path.is_file():
            stored = np.load(path, mmap_mode="r", allow_pickle=False)[:, start : start + self.frames]
            if known := stored.shape[1] == self.frames:
                mel = np.array(stored, dtype=np.float32)
        return {
            "id": f"{clip.id}+{start}",
            "waveform": torch.from_numpy(wave),
            "f0": torch.from_numpy(f0),
            "mel": torch.from_numpy(mel),
            "has_mel": torch.tensor(known),
        }


def _corpus_weights(features: SpeechFeatures, indices: list[int], shares: Mapping[str, float]) -> dict[str, float]:
    """Factor per corpus that gives it its share of the seconds drawn."""
    hours: dict[str, float] = {}
    for i in indices:
        hours[features[i].corpus] = hours.get(features[i].corpus, 0.0) + features[i].seconds
    if unknown := sorted(set(shares) - set(hours)):
        raise ConfigError(f"corpus_share names {', '.join(unknown)}, which has no training clips", source="vocoder")
    total = sum(hours.values())
    rest = sum(h for corpus, h in hours.items() if corpus not in shares)
    left = 1.0 - sum(shares.values())
    if left < 0 or (rest and left == 0):
        raise ConfigError("corpus_share leaves nothing for the other corpora", source="vocoder")
    return {c: shares[c] * total / h if c in shares else left * total / rest for c, h in hours.items()}


class VocoderTask(Task):
    """Generator: multi-resolution STFT + mel + magnitude losses, and adversarial + feature matching if asked for."""

    name: ClassVar[str] = "vocoder"
    Config: ClassVar[type] = VocoderTaskConfig

    def __init__(self, config: VocoderTaskConfig) -> None:
        super().__init__(config)
        self.phases = ("discriminator", "generator") if config.adversarial else ("generator",)  # type: ignore[misc]
        self.modules["vocoder"] = HarmonicVocoder(config.model)
        if config.adversarial:
            self.modules["discriminator"] = VocoderDiscriminator(config.discriminator)
        self.frozen["stft"] = MultiResolutionSTFTLoss()
        self._features: SpeechFeatures | None = None

    @property
    def vocoder(self) -> HarmonicVocoder:
        module = self.modules["vocoder"]
        assert isinstance(module, HarmonicVocoder)
        return module

    def dataset(self, split: str) -> Dataset:
        """Random crops of the training clips, or the fixed middle of ``validation_clips`` validation clips.

        Raises:
            DataError: no features, or no clip of that split.
        """
        if self._features is None:
            if self.config.data and not (self.config.features / "index.jsonl").exists():
                prepare_features(starter_rows(self.config.data), self.config.features, embed=False)
            self._features = SpeechFeatures(self.config.features)
        features = self._features
        chosen = [i for i, clip in enumerate(features) if side_of(clip) == split]
        if not chosen:
            raise DataError(f"no clip of the {split} split", source=self.config.features)
        frames = self.config.crop_frames
        if split != "train":
            many = [i for i in chosen if features[i].corpus in ("an4", "librispeech")] or chosen
            step = max(1, len(many) // max(1, self.config.validation_clips))
            return CropDataset(features, many[::step][: self.config.validation_clips], max(frames, 160), fixed=True)
        return CropDataset(features, chosen, frames, shares=self.config.corpus_share, predicted=self.config.predicted)

    def parameters(self, phase: str) -> Iterable[nn.Parameter | dict[str, Any]]:
        return self.modules["discriminator" if phase == "discriminator" else "vocoder"].parameters()

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        training = self.vocoder.training
        mel, target = self.prepare(batch, augment=training)
        if phase == "discriminator":
            with torch.no_grad():
                first = self.vocoder.initial_spectrum(mel, batch["f0"])
                generated = self.vocoder.project(*first, self.config.training_projections)
            real, _ = self.modules["discriminator"](target)
            fake, _ = self.modules["discriminator"](generated)
            value = discriminator_loss(real, fake)
            return {"loss": value, "discriminator": value.detach()}
        spectrum, predicted = self.vocoder.initial_spectrum(mel, batch["f0"])
        estimate = self.vocoder.project(spectrum, predicted, self.config.training_projections if training else None)
        convergence, distance = self.frozen["stft"](estimate, target)
        mel_distance = mel_loss(estimate, target)
        magnitude_distance = self._magnitude_distance(predicted, batch, target)
        total = (
            self.config.stft_weight * (convergence + distance)
            + self.config.mel_weight * mel_distance
            + self.config.magnitude_weight * magnitude_distance
        )
        logs = {
            "convergence": convergence.detach(),
            "log_magnitude": distance.detach(),
            "mel": mel_distance.detach(),
            "magnitude": magnitude_distance.detach(),
        }
        if self.config.adversarial and training:
            scores, features = self.modules["discriminator"](estimate)
            with torch.no_grad():
                _, real_features = self.modules["discriminator"](target)
            adversarial = generator_loss(scores)
            matching = feature_matching_loss(real_features, features)
            total = total + self.config.adversarial_weight * adversarial + self.config.feature_weight * matching
            logs |= {"adversarial": adversarial.detach(), "matching": matching.detach()}
        return {"loss": total, **logs}

    def prepare(self, batch: Mapping[str, Any], *, augment: bool) -> tuple[Tensor, Tensor]:
        """Mel ``(B, 100, F)`` and target waveform ``(B, F * 200)`` of a batch, augmented or not."""
        wave = batch["waveform"]
        size = len(wave)
        if augment:
            decibel = (torch.rand(size, 1, device=wave.device) * 2.0 - 1.0) * self.config.gain_db
            room = 0.99 / wave.abs().amax(1, keepdim=True).clamp_min(1e-4)
            gain = torch.minimum(10.0 ** (decibel / 20.0), room)
        else:
            gain = torch.ones(size, 1, device=wave.device)
        hop = _AUDIO.hop_length
        target = (wave * gain)[:, MARGIN * hop : -MARGIN * hop]
        with torch.no_grad():
            frames = batch["f0"].shape[1]
            mel = log_mel(wave * gain)[..., MARGIN : MARGIN + frames]
            if augment:
                if self.config.predicted is not None:
                    use = batch["has_mel"] & (torch.rand(size, device=wave.device) < self.config.predicted_share)
                    floor = float(np.log(_AUDIO.mel_floor))
                    shifted = (batch["mel"] + torch.log(gain)[:, :, None]).clamp_min(floor)
                    mel = torch.where(use[:, None, None], shifted, mel)
                if self.config.smoothing:
                    chosen = torch.rand(size, device=wave.device) < self.config.smoothing
                    mel = torch.where(chosen[:, None, None], blur(mel), mel)
        return mel, target

    def _magnitude_distance(self, predicted: Tensor, batch: Mapping[str, Any], target: Tensor) -> Tensor:
        """Weighted mean L1 between log magnitudes (floored, or silence would dominate), plus that between square roots,
        relative to their mean, which minds the loud bins. Bins weigh as much as the ear gives them: the derivative of
        the mel scale ``log(1 + f / 700 Hz)``."""
        vocoder = self.vocoder
        hop = _AUDIO.hop_length
        frames = predicted.shape[1]
        with torch.no_grad():
            true = vocoder.analyse(F.pad(target, (2 * hop, hop)).view(len(target), frames + 3, hop)).abs()
            bins = torch.linspace(0.0, _AUDIO.sample_rate / 2, true.shape[-1], device=true.device)
            weight = 1.0 / (1.0 + bins / 700.0)
            weight = weight / weight.mean()
        predicted, true = predicted[:, 2:-2], true[:, 2:-2]  # the crop cuts the windows of the outer frames
        logarithmic = (weight * (torch.log(predicted + 1e-3) - torch.log(true + 1e-3)).abs()).mean()
        root = (weight * (torch.sqrt(predicted + 1e-5) - torch.sqrt(true)).abs()).mean()
        return logarithmic + root / (weight * torch.sqrt(true)).mean().clamp_min(1e-3)

    def visuals(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        mel, target = self.prepare(batch, augment=False)
        estimate = self.vocoder(mel[:1], batch["f0"][:1])[0]
        rate = _AUDIO.sample_rate
        return {"synthesised": (estimate.cpu(), rate), "natural": (target[0].cpu(), rate)}


def blur(mel: Tensor) -> Tensor:
    """Each mel of ``(B, M, F)`` smoothed along frequency (σ up to 3 bands) and time (σ up to 1 frame), at random."""
    size = len(mel)
    bands = torch.rand(size, device=mel.device) * 2.7 + 0.3
    frames = torch.rand(size, device=mel.device) * 0.9 + 0.1
    mel = _smooth(mel.transpose(1, 2), bands).transpose(1, 2)
    return _smooth(mel, frames)


def _smooth(x: Tensor, sigma: Tensor, radius: int = 6) -> Tensor:
    """Gaussian smoothing of ``(B, R, N)`` along the last axis with one ``sigma`` ``(B,)`` each."""
    offset = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)  # (B, 2 R + 1)
    windows = F.pad(x, (radius, radius), mode="replicate").unfold(2, 2 * radius + 1, 1)  # (B, R, N, 2 R + 1)
    return torch.einsum("brnk,bk->brn", windows, kernel)
