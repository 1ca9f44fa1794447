"""Task ``feature-head``: speaker embedding → distribution over face features, on pseudo-pairs.

Each example is a voice and a face whose place on the masculine–feminine scale fits it; which of the fitting faces it is
changes every time, so that all else about the face stays a distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.prepared_voices import PreparedVoices
from crossmodal.data.pseudo_pairs import FACES_BETWEEN, WIDTH, by_split, match, pair
from crossmodal.data.speech_features import SpeechFeatures
from crossmodal.errors import DataError
from crossmodal.models.feature_head import FeatureHead, FeatureHeadConfig
from crossmodal.training.task import Task


@dataclass
class FeatureHeadTaskConfig:
    """The ``config`` part of a feature head recipe."""

    speech: Path = Path("runs/starter/speech/features")
    """Folder of :mod:`crossmodal.data.speech_features`; needed until :attr:`voices` is there."""
    voices: Path = Path("runs/starter/faces/voices.npz")
    """File of :mod:`crossmodal.data.prepared_voices`, written on first use."""
    faces: Path = Path("runs/starter/faces/prepared")
    """Folder of :mod:`crossmodal.data.prepared_faces`."""
    held_out_faces: tuple[str, ...] = ()
    """People kept out (those the decoder is measured on)."""
    model: FeatureHeadConfig = field(default_factory=FeatureHeadConfig)
    faces_between: int = FACES_BETWEEN
    """Faces made by blending the features of two people of one gender, or (one in five) of both."""
    width: float = WIDTH
    """How near on the scale a face must be to fit a voice (the genders' means are 2 apart)."""
    axes: int = 40
    """Principal directions of face features that vary; the others stay at their mean."""
    cue_weight: float = 2.0
    """Of the squared error of how masculine the voice is heard, beside the likelihood per axis."""
    order_weight: float = 8.0
    """Of the squared error of the difference between two versions of a clip: a voice that is lowered is heard lowered,
    however it is heard (cross-validated over speakers)."""
    cue_ridge: float = 0.2
    """Strength of the ridge regression that hearing starts from (cross-validated over speakers)."""
    seed: int = 0


class PseudoPairs(Dataset):
    """Voices, each with a face drawn from those that fit.

    ``embedding``, ``heard`` (how masculine it is), ``feature``; and another version of the clip, ``other_embedding``
    and ``other_heard`` (itself where there is none).

    Args:
        embedding: ``(N, E)``.
        heard: ``(N,)`` on the voices' scale.
        target: ``(N,)`` the place on the faces' scale that goes with it.
        names: of the examples.
        clips: ``(N,)`` whose versions they are; an empty name has no others.
        faces: ``(M, D)`` features.
        scale: ``(M,)`` their places.
        width: how near a face must be.
    """

    def __init__(
        self,
        embedding: Tensor,
        heard: Tensor,
        target: Tensor,
        names: list[str],
        clips: np.ndarray,
        faces: Tensor,
        scale: Tensor,
        width: float,
    ) -> None:
        self.embedding, self.heard, self.target, self.names = embedding, heard, target, names
        self.versions = {clip: np.flatnonzero(clips == clip) for clip in set(clips.tolist()) if clip}
        self.clips = clips
        order = scale.argsort()
        self.faces, self.scale, self.width = faces[order], scale[order].contiguous(), width

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, index: int) -> dict[str, Any]:
        target = self.target[index].clamp(self.scale[20], self.scale[-20])
        place = target + self.width * torch.randn(())
        face = int(torch.searchsorted(self.scale, place).clamp(0, len(self.scale) - 1))
        others = self.versions.get(str(self.clips[index]), np.array([index]))
        other = int(others[int(torch.randint(len(others), ()))])
        return {
            "id": self.names[index],
            "embedding": self.embedding[index],
            "heard": self.heard[index],
            "feature": self.faces[face],
            "target": self.target[index],
            "other_embedding": self.embedding[other],
            "other_heard": self.heard[other],
        }


class FeatureHeadTask(Task):
    """Train :class:`~crossmodal.models.feature_head.FeatureHead`."""

    name: ClassVar[str] = "feature-head"
    Config: ClassVar[type] = FeatureHeadTaskConfig

    def __init__(self, config: FeatureHeadTaskConfig) -> None:
        super().__init__(config)
        self.head = FeatureHead(config.model)
        self.modules["feature-head"] = self.head
        voices = self._voices()
        self.voices = by_split(voices)
        if not len(self.voices["train"]):
            raise DataError("no training speakers", source=config.voices)
        prepared = PreparedFaces.load(config.faces)
        pairing = pair(self.voices["train"], prepared, config.held_out_faces, config.faces_between, config.seed)
        self.voice_scale, self.face_axis, self.knots = pairing.voice_scale, pairing.face_axis, pairing.knots
        self.faces, self.face_scale = torch.from_numpy(pairing.faces), torch.from_numpy(pairing.places)
        self._start()

    def _voices(self) -> PreparedVoices:
        from crossmodal.data.prepared_voices import prepare_voices

        if self.config.voices.is_file():
            return PreparedVoices.load(self.config.voices)
        voices = prepare_voices(SpeechFeatures(self.config.speech))
        voices.save(self.config.voices)
        return voices

    @torch.no_grad()
    def _start(self) -> None:
        """Closed forms: whitening, hearing by ridge regression, the face along the scale, kinds by k-means."""
        from scipy.cluster.vq import kmeans2

        head, config = self.head, self.config
        values = self.faces.double().numpy()
        mean = values.mean(0)
        variances, vectors = np.linalg.eigh(np.cov((values - mean).T))
        order = np.argsort(variances)[::-1]
        deviation = np.sqrt(np.maximum(variances[order], 1e-8))
        head.feature_mean.copy_(torch.from_numpy(mean))
        head.axes.copy_(torch.from_numpy(vectors[:, order].T * deviation[:, None]))
        embedding, heard, _ = self._targets("train")
        centre, spread = float(heard.mean()), float(heard.std())
        x = embedding.double()
        x_mean = x.mean(0)
        gram = (x - x_mean).T @ (x - x_mean) + config.cue_ridge * len(x) / x.shape[1] * torch.eye(
            x.shape[1], dtype=torch.float64
        )
        weight = torch.linalg.solve(gram, (x - x_mean).T @ (heard.double() - centre))
        head.linear.weight.zero_()
        head.linear.bias.zero_()
        head.linear.weight[0] = weight.float()
        head.linear.bias[0] = centre - float(weight @ x_mean)
        low, high = centre - 2.6 * spread, centre + 2.6 * spread
        head.cue_range.copy_(torch.tensor([[low], [high]]).expand_as(head.cue_range))
        places = np.linspace(low, high, config.model.knots)
        head.knots.copy_(torch.from_numpy(np.stack([places, match(self.knots, places)], axis=1)))
        z = head.whiten(self.faces).numpy()
        scale = self.face_scale.numpy()
        design = np.stack([np.ones_like(scale), scale, scale**2], axis=1)
        line = np.linalg.lstsq(design, z, rcond=None)[0]  # (3, D)
        rest = z - design @ line
        head.line.weight.zero_()
        cues = config.model.cues
        head.line.bias.copy_(torch.from_numpy(line[0]))
        head.line.weight[:, 0] = torch.from_numpy(line[1])
        head.line.weight[:, cues] = torch.from_numpy(line[2])
        near = rest[:, : min(12, rest.shape[1])] * deviation[: min(12, rest.shape[1])]
        _, labels = kmeans2(near, config.model.components, minit="++", seed=config.seed, iter=40)
        for kind in range(config.model.components):
            inside = rest[labels == kind] if (labels == kind).sum() > 2 else rest
            head.offsets[kind] = torch.from_numpy(inside.mean(0))
            head.log_scales[kind] = torch.from_numpy(np.log(np.maximum(inside.std(0), 0.05)))
            head.weights.bias[kind] = float(np.log(max((labels == kind).mean(), 1e-3)))
        head.offsets[:, config.axes :] = 0.0
        head.log_scales[:, config.axes :] = -1.5

    def _targets(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``(N, E)`` of a split, how masculine they sound ``(N,)``, and the place among faces ``(N,)``."""
        voices = self.voices[split]
        heard = self.voice_scale.score(voices)
        place = match(self.knots, heard)
        heard_tensor, place_tensor = (torch.from_numpy(values.astype(np.float32)) for values in (heard, place))
        return torch.from_numpy(voices.embedding).float(), heard_tensor, place_tensor

    def dataset(self, split: str) -> Dataset:
        """Voices of the training or validation speakers, each with a fitting face."""
        voices = self.voices[split]
        names = [f"{clip}/{change}" for clip, change in zip(voices.clip, voices.change)]
        clips = np.where(np.isin(voices.change, ("clean", "shifted")), voices.clip, "")
        return PseudoPairs(*self._targets(split), names, clips, self.faces, self.face_scale, self.config.width)

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """Negative log-likelihood of the face where the voice puts it, and squared errors of hearing."""
        config, head = self.config, self.head
        heard, other = (head.heard(batch[key])[:, 0] for key in ("embedding", "other_embedding"))
        low, high = head.cue_range[0, 0], head.cue_range[1, 0]
        true, true_other = (batch[key].clamp(low, high) for key in ("heard", "other_heard"))
        cue = (heard - true).square().mean()
        order = ((other - heard) - (true_other - true)).square().mean()
        # What is heard comes from voices alone: the faces have no say in it.
        place = head.cue(batch["embedding"]).detach()
        per_axis = -head.log_prob_at(place, batch["feature"]).mean() / config.model.output_size
        total = per_axis + config.cue_weight * cue + config.order_weight * order
        return {"loss": total, "nll": per_axis, "cue": cue, "order": order}
