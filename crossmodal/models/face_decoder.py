"""Face feature → canonical face: landmarks and an aligned texture, joined by a differentiable spline warp.

Cole et al., "Synthesizing Normalized Faces from Facial Identity Features" (CVPR 2017): a first fully connected layer,
then one head for landmarks and one for the texture in the mean shape, then a warp of the texture to the landmarks. The
result is a frontal, neutral, evenly lit face; here a head with neck on a flat background.

Two texture decoders: ``basis``, a linear basis of face and of hair textures, which few people suffice to train, and
``conv``, the transposed convolutions of the paper. Both write colour and alpha; what is behind the head is never part
of the texture, so there is no halo.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.errors import ConfigError
from crossmodal.models.appearance import Appearance
from crossmodal.models.quantised import PackedBasis, pack_basis, rgba
from crossmodal.models.thin_plate import warp, with_anchors
from crossmodal.portrait import pupils_in
from crossmodal.skin import mask

LOOSE = (*range(146, 157), *range(189, 193), *range(212, 216))
"""Landmarks that pull at no warp: the template's own points around head and hair, which would contradict the silhouette
of another's hair, and the silhouette's points below the ears, which would contradict the jaw."""


@dataclass(frozen=True)
class FaceDecoderConfig:
    """Size of the decoder; the defaults are the starter's."""

    input_space: str = "dlib-128"
    """Name of the feature space that is decoded."""
    input_size: int = 128
    """Components of a feature."""
    size: int = 384
    """Height and width of the face, in pixels."""
    landmarks: int = 216
    """Points of the shape: a template of 189, then the silhouette."""
    silhouette: int = 27
    """How many of the landmarks, the last ones, lie on the silhouette; they go with the hair."""
    loose: tuple[int, ...] = LOOSE
    """Landmarks that do not pull at the warp; the textures must have been aligned without them too."""
    texture: Literal["basis", "conv"] = "basis"
    """``basis``: linear; ``conv``: transposed convolutions (Cole et al.)."""
    hidden: tuple[int, ...] = (512, 512)
    """Fully connected layers beside the linear path; the first is what Speech2Face's loss compares."""
    dropout: float = 0.1
    shape_components: int = 40
    face_components: int = 64
    """Linear components of face and neck."""
    hair_components: int = 48
    """Linear components of hair, ears and silhouette."""
    styles: int = 32
    """Hair styles between which the decoder chooses."""
    style_sharpness: float = 5.0
    """How decidedly it chooses: 1 blends styles by their probability (a ghost of many), more takes the likeliest."""
    style_choice: float = 8.0
    """Factor on that when it draws instead of being trained, where no gradient needs the others."""
    conv_channels: tuple[int, ...] = (256, 192, 128, 96, 64, 48, 32)
    """``conv``: channels from the smallest map on; each further one doubles height and width."""
    conv_size: int = 0
    """``conv``: height and width of the texture it draws, enlarged to ``size`` afterwards; 0: drawn at full size."""
    background: tuple[float, float, float] = (0.925, 0.93, 0.94)
    """Colour behind the head, RGB in [0, 1]."""
    limit: float = 3.0
    """Standard deviations at which a component saturates."""
    portrait: int = 0
    """Cells on each side of a portrait whose looks can be taken over (:mod:`crossmodal.models.appearance`); 0: none."""
    nuisances: int = 16
    """Directions in which photos of one face differ, for that."""

    def __post_init__(self) -> None:
        if min(self.input_size, self.size, self.landmarks, *self.hidden, *self.conv_channels) < 1:
            raise ConfigError("sizes must be at least 1", source="face-decoder")
        if not self.hidden:
            raise ConfigError("needs a hidden layer", source="face-decoder.hidden")
        drawn, factor = self.conv_size or self.size, 2 ** (len(self.conv_channels) - 1)
        if self.texture == "conv" and drawn % factor:
            raise ConfigError(f"{drawn} is no multiple of {factor}", source="face-decoder.conv_size or size")

    @classmethod
    def debug(cls) -> FaceDecoderConfig:
        """Runs in milliseconds."""
        return cls(
            size=64,
            landmarks=20,
            silhouette=6,
            loose=(),
            hidden=(16,),
            shape_components=4,
            face_components=5,
            hair_components=3,
            styles=4,
            conv_channels=(8, 8, 8, 8),
            portrait=12,
            nuisances=3,
        )


class DecodedFace(NamedTuple):
    """A batch of faces."""

    image: Tensor
    """``(B, 3, H, W)`` RGB in [0, 1]."""
    landmarks: Tensor
    """``(B, L, 2)`` pixels (x, y)."""
    texture: Tensor
    """``(B, 3, H, W)`` the texture in the mean shape, before the warp."""


class FaceCode(NamedTuple):
    """What a face is made of, in standard deviations."""

    shape: Tensor
    """``(B, S)``"""
    face: Tensor
    """``(B, F)``"""
    hair: Tensor
    """``(B, H)``"""


class FaceBasis(nn.Module):
    """Linear shape and texture: ``mean + basis · code``. Filled by :meth:`fill`; empty (grey, no shape) before.

    Read from a bundle, the texture's basis stays packed (:meth:`pack`): a fifth of the memory, and quicker.
    """

    mean_points: Tensor
    shape_mean: Tensor
    shape_basis: Tensor
    mean_texture: Tensor
    face_basis: Tensor
    hair_basis: Tensor
    outline_basis: Tensor
    vignette: Tensor

    def __init__(self, config: FaceDecoderConfig) -> None:
        super().__init__()
        size = config.size
        ring = torch.linspace(0, 2 * torch.pi, config.landmarks + 1)[:-1]
        circle = torch.stack([ring.cos(), ring.sin()], dim=-1) * size / 4 + size / 2
        self.register_buffer("mean_points", circle)  # where the texture's landmarks lie
        self.register_buffer("shape_mean", circle.clone())
        self.register_buffer("shape_basis", torch.zeros(config.shape_components, config.landmarks, 2))
        self.register_buffer("outline_basis", torch.zeros(config.hair_components, config.silhouette, 2))
        self.register_buffer("mean_texture", torch.full((4, size, size), 0.5))
        self.register_buffer("face_basis", _untouched_zeros(config.face_components, 4, size, size))
        self.register_buffer("hair_basis", _untouched_zeros(config.hair_components, 4, size, size))
        self.register_buffer("vignette", torch.ones(1, size, size))
        self.packed_face: PackedBasis | None = None
        self.packed_hair: PackedBasis | None = None

    def fill(self, **tensors: Tensor) -> None:
        """Set buffers by name; shapes must agree.

        Raises:
            ConfigError: a tensor has another shape.
        """
        for name, value in tensors.items():
            buffer = self.get_buffer(name)
            if buffer.shape != value.shape:
                raise ConfigError(f"expected {tuple(buffer.shape)}, got {tuple(value.shape)}", source=name)
            buffer.copy_(value)

    def pack(self, face: PackedBasis, hair: PackedBasis) -> None:
        """Draw from packed bases from now on; ``face_basis`` and ``hair_basis`` are gone."""
        self.packed_face, self.packed_hair = face, hair
        for name in ("face_basis", "hair_basis"):
            if hasattr(self, name):
                delattr(self, name)

    def points(self, shape: Tensor, hair: Tensor) -> Tensor:
        """``(B, S)``, ``(B, H)`` → landmarks ``(B, L, 2)``: the hair moves the silhouette."""
        points = self.shape_mean + torch.einsum("bs,slc->blc", shape, self.shape_basis)  # (B, L, 2)
        outline = torch.einsum("bh,hlc->blc", hair, self.outline_basis)
        return points + F.pad(outline, (0, 0, points.shape[1] - outline.shape[1], 0))

    def texture(self, face: Tensor, hair: Tensor) -> Tensor:
        """``(B, F)``, ``(B, H)`` → RGBA ``(B, 4, H, W)``, not clamped, colour not multiplied by alpha."""
        if self.packed_face is not None and self.packed_hair is not None:
            moved = rgba(*(a + b for a, b in zip(self.packed_face.planes(face), self.packed_hair.planes(hair))))
        else:
            moved = face @ self.face_basis.flatten(1) + hair @ self.hair_basis.flatten(1)
            moved = moved.view(-1, *self.mean_texture.shape)
        alpha = self.mean_texture[3:] + moved[:, 3:]
        # The basis holds colour times alpha: half of dark hair blended with none is dark, not grey.
        return torch.cat([self.mean_texture[:3] + moved[:, :3] / alpha.clamp(0.35, 1), alpha], dim=1)


SLOPE = 0.2
"""Of the convolutions' leaky ReLU below zero."""


def _untouched_zeros(*shape: int) -> Tensor:
    """Zeros whose memory the system only provides once they are written: a packed basis never does."""
    return torch.from_numpy(np.zeros(shape, dtype=np.float32))


class ConvTexture(nn.Module):
    """Fully connected layer, then transposed convolutions to an RGBA texture (Cole et al., section 3.2).

    Without normalisation: it takes away each face's own brightness and tone, and learns three times as slowly.
    """

    def __init__(self, input_size: int, config: FaceDecoderConfig) -> None:
        super().__init__()
        channels = config.conv_channels
        self.size = config.size
        self.start = (config.conv_size or config.size) // 2 ** (len(channels) - 1)
        self.dense = nn.Linear(input_size, channels[0] * self.start**2)
        steps = [nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1) for a, b in itertools.pairwise(channels)]
        for up in steps:
            nn.init.kaiming_normal_(up.weight, a=SLOPE)
        self.up = nn.ModuleList(steps)
        self.colour = nn.Conv2d(channels[-1], 4, kernel_size=3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(B, D)`` → difference from the mean texture, RGBA ``(B, 4, H, W)``, not clamped."""
        x = F.leaky_relu(self.dense(hidden), SLOPE).view(hidden.shape[0], -1, self.start, self.start)
        for up in self.up:
            x = F.leaky_relu(up(x), SLOPE)  # (B, C, 2h, 2w)
        return F.interpolate(self.colour(x), size=(self.size, self.size), mode="bilinear", align_corners=False)


class FaceDecoder(nn.Module):
    """Face feature → canonical face."""

    kind: ClassVar[str] = "face-decoder"

    feature_mean: Tensor
    feature_scale: Tensor
    style_hair: Tensor
    style_face: Tensor
    follow: Tensor
    tone_weight: Tensor
    tone_bias: Tensor
    tone_of_face: Tensor

    def __init__(self, config: FaceDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.controls = [i for i in range(config.landmarks) if i not in config.loose]
        self.register_buffer("feature_mean", torch.zeros(config.input_size))
        self.register_buffer("feature_scale", torch.ones(()))
        self.first_layer = nn.Linear(config.input_size, config.hidden[0])
        """What Speech2Face's loss compares as ``f_dec``."""
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(config.hidden):
            layers += [nn.Dropout(config.dropout), nn.Linear(a, b), nn.GELU()]
        self.trunk = nn.Sequential(*layers, nn.Dropout(config.dropout))
        outputs = config.shape_components + config.face_components
        self.linear = nn.Linear(config.input_size, outputs)
        self.bend = nn.Linear(config.hidden[-1], outputs)
        nn.init.zeros_(self.bend.weight)
        nn.init.zeros_(self.bend.bias)
        self.style = nn.Linear(config.input_size, config.styles)
        self.style_bend = nn.Linear(config.hidden[-1], config.styles, bias=False)
        nn.init.zeros_(self.style_bend.weight)
        # Hair, and face, of each style; and how hair (with the ears' and temples' skin) goes with the face.
        self.register_buffer("style_hair", torch.zeros(config.styles, config.hair_components))
        self.register_buffer("style_face", torch.zeros(config.styles, config.face_components))
        self.register_buffer("follow", torch.zeros(config.face_components, config.hair_components))
        # Skin tone has a regression of its own: the colour of the cheeks (RGB), and what colour a face code has.
        self.register_buffer("tone_weight", torch.zeros(config.input_size, 3))
        self.register_buffer("tone_bias", torch.zeros(3))
        self.register_buffer("tone_of_face", torch.zeros(config.face_components, 3))
        self.basis = FaceBasis(config)
        self.appearance: Appearance | None = None
        if config.portrait:
            self.appearance = Appearance(config.portrait, config.face_components, config.nuisances, config.styles)
        if config.texture == "conv":
            self.conv = ConvTexture(config.hidden[-1] + config.input_size, config)

    def hidden(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, D)`` → standardised feature ``(B, D)`` and hidden state ``(B, hidden[-1])``."""
        x = (feature - self.feature_mean) * self.feature_scale
        return x, self.trunk(F.gelu(self.first_layer(x)))

    def code(
        self,
        feature: Tensor,
        skin: Tensor | None = None,
        portrait: Tensor | None = None,
        style: Tensor | None = None,
    ) -> FaceCode:
        """``(B, D)`` → components, each within ± ``config.limit``; the rest as in :meth:`forward`."""
        return self._code(*self.hidden(feature), skin, portrait, style)

    def _code(
        self,
        x: Tensor,
        h: Tensor,
        skin: Tensor | None = None,
        portrait: Tensor | None = None,
        style: Tensor | None = None,
    ) -> FaceCode:
        values = self.linear(x) + self.bend(h)  # (B, S + F)
        shape, face = values.split([self.config.shape_components, self.config.face_components], dim=-1)
        tone = self._tone(x) if skin is None else skin - self.mean_skin()
        shape, face = self._limit(shape), self._toned(tone, self._limit(face))
        chosen = self.style_logits(x, h) * self.config.style_sharpness  # (B, styles)
        if portrait is not None and self.appearance is not None:
            face = self._toned(tone, self._limit(self.appearance(face, portrait)))
            chosen = chosen + self.appearance.hair(portrait)
        if not self.training:
            chosen = chosen * self.config.style_choice
        if style is not None:
            chosen = torch.full_like(chosen, -torch.inf).scatter(1, style[:, None], 0.0)
        return FaceCode(shape, face, self.hair(chosen.softmax(-1), face))

    def draw_styles(self, feature: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
        """Hair for several faces ``(B, D)`` → a style each ``(B,)``: the first face has the likeliest, every further
        one any, as often as people with such features have it. ``None`` for a ``conv`` texture, which has no styles."""
        if self.config.texture != "basis":
            return None
        logits = self.style_logits(*self.hidden(feature)).cpu()
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        drawn[0] = logits[0].argmax()
        return drawn.to(feature.device)

    def conv_texture(self, x: Tensor, h: Tensor) -> Tensor:
        """``conv``: what :meth:`hidden` returns → RGBA texture ``(B, 4, H, W)``, a difference from the mean."""
        return self.basis.mean_texture + self.conv(torch.cat([x, h], dim=-1))

    def skin(self, feature: Tensor) -> Tensor:
        """Colour of the skin that a feature suggests: ``(B, D)`` → sRGB ``(B, 3)``."""
        return self._tone((feature - self.feature_mean) * self.feature_scale) + self.mean_skin()

    def portrait_pupils(self) -> np.ndarray:
        """Where pupils lie in a portrait of ``config.portrait`` cells: ``(2, 2)``, x and y."""
        return pupils_in(self.basis.mean_points[:2].cpu().numpy(), self.config.size, self.config.portrait)

    def mean_skin(self) -> Tensor:
        """Colour of the mean face's skin: sRGB ``(3,)``."""
        pupils = self.basis.mean_points[:2].cpu().numpy().astype(np.float64)
        where = torch.from_numpy(mask(pupils, self.config.size)).to(self.basis.mean_texture.device)
        return self.basis.mean_texture[:3, where].mean(-1)

    def _tone(self, x: Tensor) -> Tensor:
        """The skin's predicted difference from the mean face's: ``(B, D)`` → ``(B, 3)``."""
        return x @ self.tone_weight + self.tone_bias

    def _toned(self, tone: Tensor, face: Tensor) -> Tensor:
        """The face code nearest to ``face`` ``(B, F)`` whose skin differs by ``tone`` ``(B, 3)`` from the mean."""
        gram = self.tone_of_face.T @ self.tone_of_face + 1e-6 * torch.eye(3, device=face.device)
        return face + (tone - face @ self.tone_of_face) @ torch.linalg.solve(gram, self.tone_of_face.T)

    def hair(self, chosen: Tensor, face: Tensor) -> Tensor:
        """Hair of a weighted choice of styles ``(B, styles)``, its skin toned to the face ``(B, F)`` → ``(B, H)``."""
        return self._limit(chosen @ self.style_hair + (face - chosen @ self.style_face) @ self.follow)

    def style_logits(self, x: Tensor, h: Tensor) -> Tensor:
        """``(B, styles)``: which hair the feature suggests."""
        return self.style(x) + self.style_bend(h)

    def _limit(self, values: Tensor) -> Tensor:
        """Identity for small values, saturating at ± limit."""
        return values / (1 + (values / self.config.limit).square().square()).pow(0.25)

    def render(self, code: FaceCode) -> DecodedFace:
        """Components → face, by the linear texture basis."""
        return self.compose(self.basis.texture(code.face, code.hair), self.basis.points(code.shape, code.hair))

    def compose(self, texture: Tensor, landmarks: Tensor) -> DecodedFace:
        """Warp a texture to landmarks and put it before the background.

        Args:
            texture: RGBA ``(B, 4, H, W)`` in the mean shape.
            landmarks: ``(B, L, 2)`` pixels.
        """
        head = self._warped(texture, landmarks)
        alpha = head[:, 3:]  # (B, 1, H, W)
        behind = head.new_tensor(self.config.background).view(1, 3, 1, 1)
        return DecodedFace(head[:, :3] * alpha + behind * (1 - alpha), landmarks, texture[:, :3].clamp(0, 1))

    def head(self, code: FaceCode) -> Tensor:
        """Components → RGBA ``(B, 4, H, W)`` in [0, 1]: the face before no background."""
        return self._warped(self.basis.texture(code.face, code.hair), self.basis.points(code.shape, code.hair))

    def _warped(self, texture: Tensor, landmarks: Tensor) -> Tensor:
        size = self.config.size
        rgba = torch.cat([texture[:, :3], self.firm(texture[:, 3:]) * self.basis.vignette], dim=1)
        fixed, placed = self.basis.mean_points[self.controls], landmarks[:, self.controls]
        return warp(rgba, with_anchors(fixed[None], size), with_anchors(placed, size)).clamp(0, 1)

    @staticmethod
    def firm(alpha: Tensor) -> Tensor:
        """Make the soft edge that an average of many silhouettes has as firm as one silhouette's: 0.25–0.75 → 0–1."""
        t = ((alpha - 0.25) * 2).clamp(0, 1)
        return t * t * (3 - 2 * t)

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
            skin: ``(B, 3)`` colour of the skin, sRGB in [0, 1]; ``None``: what the feature suggests, see :meth:`skin`.
                A ``conv`` texture has the feature's own.
            portrait: ``(B, 3, S, S)`` relit photo (:func:`crossmodal.portrait.relit`) whose looks are taken over where
                ``config.portrait`` allows it, NaN where nothing is known; ``None``: what the feature suggests.
            style: ``(B,)`` number of the hair style; ``None``: the likeliest. See :meth:`draw_styles`.

        Returns:
            The faces, ``config.size`` square.

        Raises:
            ConfigError: the features have another size.
        """
        if feature.ndim != 2 or feature.shape[1] != self.config.input_size:
            problem = f"expected features (B, {self.config.input_size}), got {tuple(feature.shape)}"
            raise ConfigError(problem, source="face-decoder", remedy=f"use features of {self.config.input_space}")
        x, h = self.hidden(feature)
        code = self._code(x, h, skin, portrait, style)
        if self.config.texture == "basis":
            return self.render(code)
        return self.compose(self.conv_texture(x, h), self.basis.points(code.shape, code.hair))

    def export_state(self) -> dict[str, Tensor]:
        """Compressed weights: the texture basis as 8-bit integers, what lies outside its support left out."""
        stored = self.state_dict()
        state = {k: v for k, v in stored.items() if not k.startswith(_BASES)}
        state = {k: v.half() if v.numel() > 1024 else v.clone() for k, v in state.items()}
        state["basis.mean_texture"] = (self.basis.mean_texture.clamp(0, 1) * 255).round().to(torch.uint8)
        state["basis.vignette"] = (self.basis.vignette.clamp(0, 1) * 255).round().to(torch.uint8)
        for name, packed in (("face", self.basis.packed_face), ("hair", self.basis.packed_hair)):
            name = f"basis.{name}_basis"
            state.update(packed.packed() if packed is not None else pack_basis(name, stored[name]))
        return state

    def load_export(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of :meth:`export_state`; the basis stays packed.

        Raises:
            KeyError, RuntimeError: the tensors do not fit the config.
        """
        rest, config = dict(tensors), self.config
        self.basis.pack(
            PackedBasis("basis.face_basis", rest, config.size, config.face_components),
            PackedBasis("basis.hair_basis", rest, config.size, config.hair_components),
        )
        state = {k: v.float() if v.dtype == torch.float16 else v for k, v in rest.items()}
        for name in ("basis.mean_texture", "basis.vignette"):
            state[name] = state[name].float() / 255
        state.update({k: v for k, v in self.state_dict().items() if k.startswith(_BASES)})
        self.load_state_dict(state)


_BASES = ("basis.face_basis", "basis.hair_basis", "basis.packed_")
