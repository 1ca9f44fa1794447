"""Task ``face-decoder``: face feature → landmarks and texture (Cole et al. 2017), on morphs of a few dozen people.

Examples are features of real photos (also changed and mirrored copies) and of rendered morphs, each with the code of
the face it shows. Losses: landmarks, aligned texture, hair style, and the recognition feature of the rendered face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from crossmodal.data.appearance import estimate
from crossmodal.data.canonical_faces import Frame
from crossmodal.data.face_model import FaceModel, build_model, draw_morphs, hair_styles, skin_mask
from crossmodal.data.prepared_faces import PreparedFaces, load_or_prepare
from crossmodal.errors import ConfigError, DataError
from crossmodal.losses.decoder import CORNERS, Describer, landmark_loss, recognition_loss, texture_loss
from crossmodal.models.face_decoder import FaceCode, FaceDecoder, FaceDecoderConfig
from crossmodal.models.face_features import DlibConfig, DlibFaceFeatures
from crossmodal.training.task import Task

SHRINK = 4
"""The texture loss of the linear basis is taken at a quarter of the size: it is linear, so little is lost."""


@dataclass
class FaceDecoderTaskConfig:
    """The ``config`` part of a face decoder recipe."""

    data: Path | None = None
    """Data folder with ``london_faces``; needed until :attr:`prepared` is there."""
    prepared: Path = Path("runs/starter/faces/prepared")
    """Folder of :mod:`crossmodal.data.prepared_faces`, written on first use."""
    held_out: tuple[str, ...] = ()
    """People kept out of everything: basis, morphs and training."""
    frame: Frame = field(default_factory=Frame)
    model: FaceDecoderConfig = field(default_factory=FaceDecoderConfig)
    describer: DlibConfig | None = None
    """``null``: the published recognition weights. A size: random weights, for tests of the machinery only."""
    morphs: int = 2000
    """Rendered and described once, in the folder :attr:`prepared`."""
    photo_share: float = 0.6
    """Share of training examples that are features of photos; the rest are morphs."""
    blend: float = 0.5
    """Share of photo examples that are blended with another person's."""
    noise: float = 0.01
    """Standard deviation of noise on each component of a feature: .11 over 128 of them, as a photo's changes make."""
    shape_ridge: float = 0.5
    """Strength, per example, of the ridge regression that the shape starts from (cross-validated over people)."""
    face_ridge: float = 0.2
    """The same for the face's texture."""
    tone_ridge: float = 0.3
    """The same for the colour of the skin (cross-validated: ΔE 5.7 on people left out)."""
    tone_gain: float = 1.1
    """Factor on the predicted deviation from the mean colour: regression alone darkens the fairest."""
    novel: float = 0.5
    """Share of the rendered faces whose feature is a person's plus the difference of two others: nobody's."""
    style_width: float = 0.45
    """Feature distance, in standard deviations, within which faces share a hair style at first."""
    landmark_weight: float = 40.0
    texture_weight: float = 10.0
    tone_weight: float = 20.0
    """Of the texture blurred to 1/32: skin and hair colour."""
    code_weight: float = 0.02
    """Of the components themselves, which would otherwise count by their visibility alone."""
    style_weight: float = 0.1
    recognition_weight: float = 2.0
    recognition_after: int = 300
    """Steps before faces are rendered and recognised, which costs most of the time."""
    recognition_batch: int = 8
    """Faces of each batch that are rendered."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model.size != self.frame.size:
            raise ConfigError(
                f"the model draws {self.model.size} pixels, the frame has {self.frame.size}", source="face-decoder"
            )
        if not 0 <= self.photo_share <= 1 or not 0 <= self.blend <= 1:
            raise ConfigError("photo_share and blend are shares, from 0 to 1", source="face-decoder")


@dataclass
class Examples:
    """Features and the codes of the faces they show."""

    feature: Tensor
    """``(N, D)``"""
    code: FaceCode
    style: Tensor
    """``(N, A)`` share of each hair style."""

    def __len__(self) -> int:
        return len(self.feature)


class CodedFaces(Dataset):
    """Examples drawn at random: a photo (perhaps blended with another) or a morph."""

    def __init__(self, photos: Examples, morphs: Examples, config: FaceDecoderTaskConfig, *, fixed: bool) -> None:
        self.photos, self.morphs, self.config, self.fixed = photos, morphs, config, fixed

    def __len__(self) -> int:
        return len(self.morphs) if self.fixed else len(self.photos) + len(self.morphs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.fixed:
            return self._example(self.morphs, index, f"morph/{index}")
        share, blend = torch.rand(2).tolist()
        if share >= self.config.photo_share:
            row = int(torch.randint(len(self.morphs), ()))
            example = self._example(self.morphs, row, f"morph/{row}")
        else:
            row = int(torch.randint(len(self.photos), ()))
            example = self._example(self.photos, row, f"photo/{row}")
            if blend < self.config.blend:
                other = self._example(self.photos, int(torch.randint(len(self.photos), ())), "")
                t = float(torch.rand(())) * 0.5
                example = {k: v if k == "id" else (1 - t) * v + t * other[k] for k, v in example.items()}
        example["feature"] = example["feature"] + self.config.noise * torch.randn_like(example["feature"])
        return example

    @staticmethod
    def _example(examples: Examples, row: int, name: str) -> dict[str, Any]:
        code = examples.code
        return {
            "id": name,
            "feature": examples.feature[row],
            "shape": code.shape[row],
            "face": code.face[row],
            "hair": code.hair[row],
            "style": examples.style[row],
        }


class FaceDecoderTask(Task):
    """Train :class:`~crossmodal.models.face_decoder.FaceDecoder`."""

    name: ClassVar[str] = "face-decoder"
    Config: ClassVar[type] = FaceDecoderTaskConfig

    def __init__(self, config: FaceDecoderTaskConfig) -> None:
        super().__init__(config)
        self.prepared = load_or_prepare(config.prepared, config.data, config.frame)
        held = set(self.prepared.indices(config.held_out))
        self.people = [i for i in range(len(self.prepared.aligned.names)) if i not in held]
        if len(self.people) < 3:
            raise DataError("fewer than three people to train on", source=config.prepared)
        model = build_model(self.prepared.aligned, self.people, config.model)
        self.decoder = FaceDecoder(config.model)
        self.decoder.basis.load_state_dict(model.basis.state_dict())
        self.modules["face-decoder"] = self.decoder
        network = DlibFaceFeatures.from_package() if config.describer is None else DlibFaceFeatures(config.describer)
        self.describer = Describer(
            network,
            torch.tensor([min(c, config.model.landmarks - 1) for c in CORNERS]),
            torch.from_numpy(self.prepared.chip_places),
            torch.from_numpy(self.prepared.chip_weights),
        )
        self.frozen["describer"] = self.describer
        styles = hair_styles(model.basis, model.codes, config.model.styles, config.seed)
        self.decoder.style_hair.copy_(styles.hair)
        self.decoder.style_face.copy_(styles.face)
        self.decoder.follow.copy_(styles.follow)
        # Whose hair it is: each person's share in a style, as a distribution over styles.
        one_hot = styles.members.T / styles.members.T.sum(1, keepdim=True).clamp_min(1e-6)  # (N, styles)
        self.photos = self._photos(self.prepared, model, one_hot)
        self.morphs, self.checks = self._morphs(model, one_hot)
        self._start()
        if self.decoder.appearance is not None:
            cells = self.prepared.photos.portraits.shape[1]
            if cells != config.model.portrait:
                problem = f"the model reads portraits of {config.model.portrait} cells, the prepared ones have {cells}"
                raise ConfigError(problem, source="face-decoder.portrait", remedy=f"use {cells}, or 0 for none")
            state = estimate(self.decoder, model, self.prepared, self.people, config.face_ridge)
            self.decoder.appearance.fill(state)
        with torch.no_grad():
            small = F.avg_pool2d(self.decoder.basis.face_basis, SHRINK)
        self.small_basis = small.flatten(1)  # (F, 4 h w)
        self.small_size = config.model.size // SHRINK

    def _photos(self, prepared: PreparedFaces, model: FaceModel, styles: Tensor) -> Examples:
        """Every photo of the training people with the code of the person."""
        place = np.full(len(prepared.aligned.names), -1)
        place[self.people] = np.arange(len(self.people))
        rows = np.flatnonzero(place[prepared.photos.person] >= 0)
        who = torch.from_numpy(place[prepared.photos.person[rows]])
        code = FaceCode(*(values[who] for values in model.codes))
        return Examples(torch.from_numpy(prepared.photos.features[rows]), code, styles[who])

    def _morphs(self, model: FaceModel, styles: Tensor) -> tuple[Examples, Examples]:
        """Morphs with the features of their renderings, made once; a tenth is for validation."""
        config = self.config
        codes, weights = draw_morphs(model.codes, config.morphs, np.random.default_rng(config.seed))
        file = config.prepared / f"morphs-{config.morphs}-{config.seed}.pt"
        stored = torch.load(file, weights_only=True) if file.is_file() else {}
        if "face" not in stored or not torch.equal(stored["face"], codes.face):
            feature = self.describe(codes)
            stored = {"feature": feature, "face": codes.face}
            from crossmodal.files import atomic_path

            with atomic_path(file) as path:
                torch.save(stored, path)
        style = torch.from_numpy(weights) @ styles
        cut = max(1, config.morphs // 10)
        parts = [
            Examples(stored["feature"][s], FaceCode(*(c[s] for c in codes)), style[s])
            for s in (slice(cut, None), slice(0, cut))
        ]
        return parts[0], parts[1]

    @torch.no_grad()
    def describe(self, codes: FaceCode, batch: int = 16) -> Tensor:
        """Render codes ``(N, ...)`` and describe the pictures ``(N, D)``."""
        found = []
        for start in range(0, len(codes.shape), batch):
            decoded = self.decoder.render(FaceCode(*(c[start : start + batch] for c in codes)))
            found.append(self.describer(decoded.image, decoded.landmarks))
        return torch.cat(found)

    @torch.no_grad()
    def _start(self) -> None:
        """Start from closed forms, so that training only has to bend them: ridge regression for shape and face, and
        the nearest style by feature distance for hair."""
        decoder, config = self.decoder, self.config
        feature = torch.cat([self.photos.feature, self.morphs.feature])
        decoder.feature_mean.copy_(feature.mean(0))
        decoder.feature_scale.copy_(1 / (feature - decoder.feature_mean).std().clamp_min(1e-6))
        x = ((feature - decoder.feature_mean) * decoder.feature_scale).double()
        gram, eye = x.T @ x, torch.eye(x.shape[1], dtype=torch.float64)
        row = 0
        for part, ridge in (("shape", config.shape_ridge), ("face", config.face_ridge)):
            target = torch.cat([getattr(self.photos.code, part), getattr(self.morphs.code, part)]).double()
            mean = target.mean(0)
            weight = torch.linalg.solve(gram + ridge * len(x) * eye, x.T @ (target - mean))
            decoder.linear.weight[row : row + weight.shape[1]] = weight.T.float()
            decoder.linear.bias[row : row + weight.shape[1]] = mean.float()
            row += weight.shape[1]
        self._start_tone(decoder, x)
        photos = (self.photos.feature - decoder.feature_mean) * decoder.feature_scale
        shares = self.photos.style / self.photos.style.sum(0).clamp_min(1e-6)
        centres = shares.T @ photos  # (styles, D)
        width = config.style_width**2 * x.shape[1]
        decoder.style.weight.copy_(2 * centres / width)
        decoder.style.bias.copy_(-centres.square().sum(1) / width)

    @torch.no_grad()
    def _start_tone(self, decoder: FaceDecoder, x: Tensor) -> None:
        """Regression of the cheeks' colour, which the components alone would drag towards the mean."""
        mask = torch.from_numpy(skin_mask(self.prepared.aligned))
        decoder.tone_of_face.copy_(decoder.basis.face_basis[:, :3, mask].mean(-1))
        of_photos, of_morphs = (e.code.face @ decoder.tone_of_face for e in (self.photos, self.morphs))
        target = torch.cat([of_photos, of_morphs]).double()
        mean = target.mean(0)
        gram = x.T @ x + self.config.tone_ridge * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(gram, x.T @ (target - mean))
        decoder.tone_weight.copy_(self.config.tone_gain * weight)
        decoder.tone_bias.copy_(mean)

    def dataset(self, split: str) -> Dataset:
        """Photos and morphs to train on; morphs to validate on."""
        examples = self.checks if split == "validation" else self.morphs
        return CodedFaces(self.photos, examples, self.config, fixed=split == "validation")

    def loss(self, phase: str, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """See the module's docstring."""
        config, decoder = self.config, self.decoder
        feature = batch["feature"]
        wanted = FaceCode(batch["shape"], batch["face"], batch["hair"])
        x, h = decoder.hidden(feature)
        code = decoder._code(x, h)
        # The silhouette is the hair's: it is compared with the true hair on both sides.
        landmarks = decoder.basis.points(code.shape, wanted.hair)
        true_landmarks = decoder.basis.points(wanted.shape, wanted.hair)
        parts = {"landmarks": landmark_loss(landmarks, true_landmarks, config.frame.eye_distance)}
        if config.model.texture == "conv":
            texture = decoder.conv_texture(x, h)
            difference = texture - decoder.basis.texture(wanted.face, wanted.hair)
        else:
            self.small_basis = self.small_basis.to(feature)
            difference = ((code.face - wanted.face) @ self.small_basis).view(-1, 4, self.small_size, self.small_size)
        parts["texture"] = texture_loss(difference, torch.zeros_like(difference))
        tone = F.avg_pool2d(difference, difference.shape[-1] // max(1, config.model.size // 32))
        parts["tone"] = texture_loss(tone, torch.zeros_like(tone))
        parts["code"] = torch.stack([(a - b).square().mean() for a, b in zip(code[:2], wanted[:2])]).sum()
        parts["style"] = -(batch["style"] * decoder.style_logits(x, h).log_softmax(-1)).sum(-1).mean()
        weights = {
            "landmarks": config.landmark_weight,
            "texture": config.texture_weight,
            "tone": config.tone_weight,
            "code": config.code_weight,
            "style": config.style_weight,
        }
        total = sum((weights[name] * value for name, value in parts.items()), feature.new_zeros(()))
        if step >= config.recognition_after and config.recognition_weight > 0:
            seen = self._with_novel(feature)
            decoded = decoder(seen)
            parts["recognition"] = recognition_loss(self.describer(decoded.image, decoded.landmarks), seen)
            total = total + config.recognition_weight * parts["recognition"]
        return {"loss": total, **parts}

    def _with_novel(self, feature: Tensor) -> Tensor:
        """The features ``(R, D)`` to render: some of the batch, some of nobody."""
        count = min(self.config.recognition_batch, len(feature))
        seen = feature[:count]
        novel = round(count * self.config.novel)
        if novel and len(feature) >= 3:
            one, other = (torch.randperm(len(feature))[:novel] for _ in range(2))
            seen = torch.cat([seen[novel:], seen[:novel] + 0.55 * (feature[one] - feature[other])])
        return seen

    def visuals(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Target and decoded face of the first examples, one above the other."""
        from PIL import Image

        with torch.no_grad():
            wanted = FaceCode(*(batch[key][:6] for key in ("shape", "face", "hair")))
            rows = [self.decoder.render(wanted).image, self.decoder(batch["feature"][:6]).image]
        grid = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)  # (3, 2 H, 6 W)
        return {"faces": Image.fromarray((grid.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))}
