"""Task ``acoustic``: phones with aligned durations + the utterance's speaker embedding → log-mel and F0."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossmodal.config import from_dict, merge, to_dict
from crossmodal.data.spoken_clips import SpokenClip, SpokenClips, frame_level, prepare
from crossmodal.errors import ConfigError, DataError
from crossmodal.losses.acoustic import (
    AcousticLossConfig,
    duration_loss,
    masked_mean,
    mel_contrast,
    mel_l1,
    pitch_loss,
    voicing_loss,
)
from crossmodal.models import build, classes
from crossmodal.models.acoustic import FRAMES_PER_SECOND, AcousticModel, frame_layout
from crossmodal.training.task import Task
from crossmodal.training.tasks.likeness import Likeness, LikenessConfig

logger = logging.getLogger(__name__)

CONTEXT = 12
"""Tokens before and after a crop that the encoder still reads."""


@dataclass
class AcousticTaskConfig:
    """The ``config`` part of an acoustic recipe."""

    data: Path | None = None
    """Data folder from which what is missing of the following is prepared first."""
    features: Path = Path("runs/starter/speech/features")
    """Folder written by :mod:`crossmodal.data.speech_features`."""
    pseudo: Path | None = None
    """Folder written by :mod:`crossmodal.data.pseudo_speakers`."""
    alignments: tuple[Path, ...] = (Path("runs/starter/speech/alignments.jsonl"),)
    """Files written by :mod:`crossmodal.data.alignment`."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"arctic": 0.3, "kathleen": 0.13, "librispeech": 0.27, "an4": 0.05, "pseudo": 0.25}
    )
    """How often each corpus is drawn; one without clips hands its share to the others."""
    epoch_clips: int = 4800
    """Crops that make one epoch."""
    crop_frames: int = 144
    """Frames of a training crop (80 frames = 1 s)."""
    validation_clips: int = 40
    max_pause: float = 0.3
    """Pauses longer than this, in seconds, count as this long when durations are learned."""
    embedding_noise: float = 0.0
    """Deviation of the noise added to the unit-length embedding, so that voices between speakers are heard too."""
    voice_gain: float = 1.6
    """How much further from the mean voice the exported model takes an embedding to be. Chosen on the starter's 17
    validation speakers: top-1 among them .41 at 1, .59 at 1.6 and at 2."""
    calibration_voices: int = 120
    """Training utterances from which the range of the melody is fitted at export."""
    kind: Literal["acoustic", "acoustic-coqui"] = "acoustic"
    """The compact model, or coqui-tts's networks behind the same interface."""
    model: dict[str, Any] = field(default_factory=dict)
    """Settings of the network that differ from its defaults."""
    loss: AcousticLossConfig = field(default_factory=AcousticLossConfig)
    likeness: LikenessConfig | None = None
    """Also judge what is said by a speaker encoder (a second phase of training)."""

    def __post_init__(self) -> None:
        if self.crop_frames < 8 or self.epoch_clips < 1:
            raise ConfigError("crop_frames must be at least 8 and epoch_clips at least 1", source="acoustic")
        if any(share < 0 for share in self.shares.values()) or not sum(self.shares.values()):
            raise ConfigError("shares must not be negative, and one must be above 0", source="acoustic")
        config_class = classes(self.kind)[1]
        from_dict(config_class, merge(to_dict(config_class()), self.model), source=f"{self.kind}.model")


class CropDataset(Dataset):
    """Random crops (training) or whole clips (validation) as tensors; see :meth:`example`."""

    def __init__(self, clips: SpokenClips, chosen: list[int], config: AcousticTaskConfig, *, train: bool) -> None:
        self.clips, self.chosen, self.config, self.train = clips, chosen, config, train
        groups: dict[str, list[int]] = {}
        for i in chosen:
            entry = clips.entries[i]
            groups.setdefault("pseudo" if entry.pseudo else entry.corpus, []).append(i)
        self.groups = [(config.shares.get(name, 0.0), members) for name, members in sorted(groups.items())]
        self.shares = torch.tensor([share for share, _ in self.groups])
        if train and not float(self.shares.sum()):
            raise DataError(f"no training clip of {', '.join(config.shares)}", source=config.features)

    def __len__(self) -> int:
        return self.config.epoch_clips if self.train else len(self.chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.train:
            clip = self.clips[self.chosen[index]]
            return example(clip, self.clips.mel(clip), self.config, 0, clip.frames)
        group = self.groups[int(torch.multinomial(self.shares, 1))][1]
        clip = self.clips[group[int(torch.randint(len(group), ()))]]
        room = max(1, clip.frames - self.config.crop_frames + 1)
        start = int(torch.randint(room, ()))
        return example(clip, self.clips.mel(clip), self.config, start, self.config.crop_frames)


def example(clip: SpokenClip, mel: np.ndarray, config: AcousticTaskConfig, start: int, frames: int) -> dict[str, Any]:
    """Frames ``start`` to ``start + frames`` of a clip, and the tokens around them.

    Args:
        clip: tokens, durations, F0 and embedding.
        mel: ``(F, 100)`` log-mel of the whole clip, brought to one loudness.
    """
    token, position = frame_layout(clip.durations)
    stop = min(start + frames, clip.frames)
    first = max(0, int(token[start]) - CONTEXT)
    last = min(len(clip.durations), int(token[stop - 1]) + 1 + CONTEXT)
    tokens = clip.tokens
    silent = np.asarray(tokens.phones) == 0
    durations = np.where(silent, np.minimum(clip.durations, config.max_pause * FRAMES_PER_SECOND), clip.durations)
    energy = clip.energy(mel)
    return {
        "id": f"{clip.id}+{start}",
        "phones": torch.tensor(tokens.phones[first:last]),
        "stress": torch.tensor(tokens.stress[first:last]),
        "word_final": torch.tensor([int(x) for x in tokens.word_final[first:last]]),
        "marks": torch.tensor(tokens.punctuation[first:last]),
        "durations": torch.tensor(durations[first:last], dtype=torch.float32),
        "energy": torch.tensor(energy[first:last], dtype=torch.float32),
        "embedding": torch.tensor(clip.embedding),
        "token": torch.tensor(token[start:stop] - first),
        "position": torch.tensor(position[start:stop]),
        "f0": torch.tensor(clip.f0[start:stop]),
        "mel": torch.tensor(mel[start:stop].astype(np.float32)),
    }


class AcousticTask(Task):
    """Mel, contrast, duration, pitch, voicing and energy losses on teacher-forced crops."""

    name: ClassVar[str] = "acoustic"
    Config: ClassVar[type] = AcousticTaskConfig

    def __init__(self, config: AcousticTaskConfig) -> None:
        super().__init__(config)
        self.modules["acoustic"] = build(config.kind, config.model)
        self._clips: SpokenClips | None = None
        if config.likeness is not None:
            self.frozen["likeness"] = Likeness.load(config.likeness)

    @property
    def model(self) -> AcousticModel:
        module = self.modules["acoustic"]
        assert isinstance(module, AcousticModel)
        return module

    @property
    def clips(self) -> SpokenClips:
        """The aligned clips, read at first use; reading them sets the model's mel statistics."""
        if self._clips is None:
            if self.config.data is not None:
                prepare(self.config.data, self.config.features, self.config.pseudo, self.config.alignments)
            self._clips = SpokenClips(self.config.features, self.config.pseudo, self.config.alignments)
            mean, std = self._clips.mel_statistics()
            self.model.mel_mean.copy_(torch.tensor(mean))
            self.model.mel_std.copy_(torch.tensor(std))
        return self._clips

    def dataset(self, split: str) -> Dataset:
        """Random crops of the training clips, or whole validation clips.

        Raises:
            DataError: nothing was prepared, or no aligned clip belongs to the split.
        """
        chosen = self.clips.of_split(split)
        if not chosen:
            raise DataError(f"no aligned clip of the {split} split", source=self.config.features)
        if split != "train":
            step = max(1, len(chosen) // self.config.validation_clips)
            chosen = [i for i in chosen if self.clips.entries[i].frames < 800][::step][: self.config.validation_clips]
        return CropDataset(self.clips, chosen, self.config, train=split == "train")

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad tokens and frames to the longest; add ``token_mask`` and ``frame_mask``."""
        batch: dict[str, Any] = {"id": [e["id"] for e in examples]}
        for key in examples[0]:
            if key == "id":
                continue
            values = [e[key] for e in examples]
            batch[key] = torch.stack(values) if key == "embedding" else torch.nn.utils.rnn.pad_sequence(values, True)
        batch["token_mask"] = _mask([len(e["phones"]) for e in examples])
        batch["frame_mask"] = _mask([len(e["f0"]) for e in examples])
        return batch

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """The weighted sum and its terms."""
        model, weight = self.model, self.config.loss
        embedding = batch["embedding"]
        if model.training and self.config.embedding_noise:
            noise = torch.randn_like(embedding) * self.config.embedding_noise / embedding.shape[-1] ** 0.5
            embedding = torch.nn.functional.normalize((embedding + noise).clamp_min(0.0), dim=-1)
        frames, tokens = batch["frame_mask"], batch["token_mask"]
        predicted = model(
            batch["phones"], batch["stress"], batch["word_final"], batch["marks"], tokens, embedding, batch["token"],
            batch["position"], frames, batch["f0"], batch["energy"],
        )  # fmt: skip
        target = model.normalise_mel(batch["mel"])
        terms = {
            "mel": mel_l1(predicted.mel, target, frames),
            "contrast": mel_contrast(predicted.mel, target, frames),
            "duration": duration_loss(predicted.log_duration, batch["durations"], tokens),
            "pitch": pitch_loss(predicted.log_f0, batch["f0"], frames),
            "voicing": voicing_loss(predicted.voicing, batch["f0"], frames),
            "energy": masked_mean((predicted.energy - batch["energy"]).abs(), tokens),
        }
        total = torch.stack([getattr(weight, name) * value for name, value in terms.items()]).sum()
        if self.config.likeness is not None and model.training:
            judged = self.frozen["likeness"](model, predicted.mel, batch)
            total, terms = total + judged["likeness"], {**terms, **judged}
        return {"loss": total, **terms}

    @torch.no_grad()
    def calibrate(self) -> dict[str, float]:
        """Fit a voice's level of F0 to its embedding, and the range of its melody, on training voices.

        The network learns the level of few voices by heart; a ridge regression over all training voices and
        pseudo-voices
        predicts that of new ones better. Its predictions are spread so that voices left out of the fit have the
        range of
        F0 they really have.

        Returns:
            ``spread`` (factor on the regression), ``range`` (factor on the melody), ``voices`` (how many).
        """
        model = self.model.eval()
        model.f0_level.zero_()
        model.voice_gain.fill_(1.0)
        rng = np.random.default_rng(0)
        by_voice: dict[str, list[int]] = {}
        for i in rng.permutation(self.clips.of_split("train")):
            by_voice.setdefault(self.clips.entries[i].voice, []).append(int(i))
        picked = [(voice, i) for voice, clips in sorted(by_voice.items()) for i in clips[:12]]
        picked = [(voice, i) for voice, i in picked if (self.clips[i].f0 > 0).sum() > 40]
        if len({voice for voice, _ in picked}) < 10:
            return {"spread": 1.0, "range": 1.0, "voices": float(len(by_voice))}
        voices = np.array([voice for voice, _ in picked])
        embeddings = np.stack([self.clips[i].embedding for _, i in picked]).astype(np.float64)
        level = np.array([self._voice_level(self.clips[i]) for _, i in picked])
        people = np.char.partition(voices, "@")[:, 0]  # a pseudo-copy must not help to predict its original
        folds = rng.permutation(len(np.unique(people)))[np.unique(people, return_inverse=True)[1]] % 5
        guess = np.empty_like(level)
        for fold in range(5):
            weight, offset = ridge(embeddings[folds != fold], level[folds != fold], voices[folds != fold])
            guess[folds == fold] = embeddings[folds == fold] @ weight + offset
        real = [np.flatnonzero(voices == voice) for voice in np.unique(voices) if "@" not in str(voice)]
        wide_levels = _spread(np.array([level[rows].mean() for rows in real]))
        spread = float(
            np.clip(wide_levels / max(_spread(np.array([guess[rows].mean() for rows in real])), 1e-6), 1.0, 1.25)
        )
        _, first = np.unique(voices, return_index=True)
        model.voice_mean.copy_(torch.tensor(embeddings[first].mean(0)))
        model.voice_gain.fill_(self.config.voice_gain)
        weight, offset = ridge(embeddings, level, voices)
        centre = float(np.mean(embeddings @ weight + offset))
        model.f0_weight.copy_(torch.tensor(weight * spread))
        narrow, wide = [], []
        for _, i in picked[:: max(1, len(picked) // self.config.calibration_voices)]:
            clip = self.clips[i]
            f0 = model.infer(clip.tokens, torch.tensor(clip.embedding, device=model.mel_mean.device)).f0.cpu().numpy()
            if (f0 > 0).sum() > 40 and not clip.pseudo:
                narrow.append(_spread(np.log(f0[f0 > 0])))
                wide.append(_spread(np.log(clip.f0[clip.f0 > 0])))
        melody = float(np.clip(np.median(wide) / max(np.median(narrow), 1e-6), 1.0, 1.5)) if narrow else 1.0
        model.f0_range.fill_(melody)
        model.f0_level.fill_(centre * (1.0 - spread) + offset * spread)
        return {"spread": spread, "range": melody, "voices": float(len(np.unique(voices)))}

    def _voice_level(self, clip: SpokenClip) -> float:
        """Median log F0 of the loud voiced frames: in quiet ones pitch detectors hear the hum of the mains."""
        level = frame_level(self.clips.mel(clip))
        loud = level > np.sort(level)[-max(1, len(level) // 3) :].mean() - 1.5
        chosen = clip.f0[loud & (clip.f0 > 0)]
        return float(np.log(np.median(chosen if len(chosen) > 10 else clip.f0[clip.f0 > 0])))

    def visuals(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """True above predicted log-mel of the first example."""
        from PIL import Image

        with torch.no_grad():
            predicted = self.model(
                *(batch[k][:1] for k in ("phones", "stress", "word_final", "marks", "token_mask", "embedding", "token",
                                         "position", "frame_mask", "f0", "energy"))
            ).mel[0]  # fmt: skip
        target = self.model.normalise_mel(batch["mel"][0])
        both = torch.cat([target.T.flip(0), predicted.T.flip(0)])  # (200, F)
        grey = ((both + 2.5) / 5.0).clamp(0, 1).mul(255).byte().cpu().numpy()
        return {"mel": Image.fromarray(grey)}

    def export(self, folder: Path, add: Callable[..., None]) -> None:
        """Calibrate F0, then hand over the model."""
        logger.info("F0 calibrated: %s", self.calibrate())
        add("acoustic", self.config.kind, self.model)


def ridge(
    embeddings: np.ndarray, values: np.ndarray, voices: np.ndarray, strength: float = 4e-4
) -> tuple[np.ndarray, float]:
    """Ridge regression of ``values (N,)`` on ``embeddings (N, D)``, a voice of many clips counting little more than
    one of
    few → weight ``(D,)`` and offset."""
    _, inverse, counts = np.unique(voices, return_inverse=True, return_counts=True)
    share = counts[inverse] ** -0.7
    share = share / share.sum()
    mean, centre = share @ embeddings, float(share @ values)
    x = embeddings - mean
    weight = np.linalg.solve(
        (x * share[:, None]).T @ x + strength * np.eye(x.shape[1]), (x * share[:, None]).T @ (values - centre)
    )
    return weight, centre - float(mean @ weight)


def _spread(values: np.ndarray) -> float:
    """Half the distance of the 10 % and 90 % quantiles (robust against octave errors and hum)."""
    low, high = np.quantile(values, [0.1, 0.9])
    return float(high - low) / 2


def _mask(lengths: Iterable[int]) -> Tensor:
    lengths = list(lengths)
    return (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).float()
