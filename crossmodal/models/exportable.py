"""The networks in forms that ONNX can express; each computes what the original computes.

What ONNX lacks, and what stands for it here:

- complex numbers: a spectrum is its real and imaginary part side by side, ``(B, F, 2K)``;
- inverse STFT: multiplication with the windowed Fourier basis, then four shifted hops added up;
- linear solve: the thin-plate system is made positive definite and solved by conjugate gradients;
- running maximum, choice by mask: products with triangular masks, sorting with weights;
- random numbers: inputs. What branches on the text (durations) stays outside.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.config import AudioConfig
from crossmodal.models.exportable_speech import (
    Exportable,
    ExportableDecoderOfFrames,
    ExportableEncoderOfText,
    ExportableVocoder,
)
from crossmodal.models.face_decoder import FaceDecoder
from crossmodal.models.feature_head import FeatureHead
from crossmodal.models.pooling import AttentiveStatisticsPooling
from crossmodal.models.quantised import _PLANES, _TO_YCC
from crossmodal.models.thin_plate import warp, with_anchors
from crossmodal.models.voice_encoder import ASTVoiceEncoder, ConvVoiceEncoder

AUDIO = AudioConfig()


class Plain(Exportable):
    """A network that exports as it is, one tensor in and one out."""

    outputs: ClassVar[dict[str, dict[int, str]]] = {"output": {0: "batch"}}

    def __init__(self, network: nn.Module, shape: tuple[int | str, ...], name: str = "input") -> None:
        super().__init__()
        self.network, self.shape = network, shape
        dynamic = {axis + 1: "length" for axis, size in enumerate(shape) if isinstance(size, str)}
        self.inputs = {name: {0: "batch", **dynamic}}  # type: ignore[misc]

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """Uniform numbers in [0, 1)."""
        size = [length if isinstance(axis, str) else axis for axis in self.shape]
        return (torch.rand(batch, *size, generator=torch.Generator().manual_seed(seed)),)

    def forward(self, x: Tensor) -> Tensor:
        """What the network says."""
        return self.network(x)


class ExportablePooling(nn.Module):
    """Attentive statistics without the ellipses and moved axes that ONNX's exporter stumbles over."""

    def __init__(self, pool: AttentiveStatisticsPooling) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, C, T)`` or ``(B, C, T, K)`` → ``(B, C)`` or ``(B, C, K)``."""
        weights = self.pool.weights(x, mask)[:, None, :, None]  # (B, 1, T, 1)
        wide = x if x.ndim == 4 else x[..., None]  # (B, C, T, K)
        mean = (wide * weights).sum(2, keepdim=True)
        deviation = ((wide - mean).square() * weights).sum(2).clamp_min(1e-8).sqrt()  # (B, C, K)
        both = torch.cat([mean[:, :, 0], deviation], dim=1).transpose(1, 2)  # (B, K, 2C)
        pooled = self.pool.project(both).transpose(1, 2)  # (B, C, K)
        return pooled if x.ndim == 4 else pooled[..., 0]


class ExportableConv(Plain):
    """Convolutional voice encoder: any duration, without the check of its shortest."""

    network: ConvVoiceEncoder

    def __init__(self, network: ConvVoiceEncoder, shape: tuple[int | str, ...], name: str) -> None:
        super().__init__(network, shape, name)
        self.pool: nn.Module = network.pool
        if isinstance(network.pool, AttentiveStatisticsPooling):
            self.pool = ExportablePooling(network.pool)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """``(B, 2, F, 257)`` → ``(B, D)``."""
        net = self.network
        return net.head(net.normalise(F.relu(self.pool(net.convolutions(spectrogram)))).flatten(1))


class ExportableAST(Plain):
    """AST with padding that does not depend on how long the traced example was."""

    network: ASTVoiceEncoder

    def forward(self, mels: Tensor) -> Tensor:
        """``(B, F, n_mels)`` → ``(B, D)``."""
        encoder, config = self.network, self.network.config
        silence = torch.full((1, config.max_frames, config.n_mels), -config.feature_mean / (2 * config.feature_std))
        padded = torch.cat([mels, silence.expand(mels.shape[0], -1, -1)], dim=1)[:, : config.max_frames]
        output: Any = encoder.transformer(padded)
        if encoder.pool is None:
            return encoder.head(output.pooler_output)
        bands = (config.n_mels - config.patch_size) // config.stride + 1
        patches = output.last_hidden_state[:, 2:].unflatten(1, (bands, -1)).mean(1)  # (B, steps, H)
        starts = torch.arange(patches.shape[1]) * config.stride
        heard = (starts < mels.shape[1]).expand(mels.shape[0], -1)
        if isinstance(encoder.pool, AttentiveStatisticsPooling):
            return encoder.head(ExportablePooling(encoder.pool)(patches.transpose(1, 2), heard))
        weights = heard.float() / heard.float().sum(1, keepdim=True)
        return encoder.head((patches * weights[..., None]).sum(1))


class ExportableHead(Exportable):
    """Feature head: the mode, and the mixture that :meth:`FeatureHead.sample` draws from."""

    inputs: ClassVar = {"embedding": {0: "batch"}}
    outputs: ClassVar = {name: {0: "batch"} for name in ("feature", "logits", "means", "scales")}

    def __init__(self, head: FeatureHead) -> None:
        super().__init__()
        self.head = head
        self.commonest = int(head.weights.bias.argmax())

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """Unit vectors without negative components."""
        size = self.head.config.input_size
        return (F.normalize(torch.rand(batch, size, generator=torch.Generator().manual_seed(seed)), dim=-1),)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(B, E)`` → feature ``(B, D)``, logits ``(B, M)``, means and deviations ``(B, M, D)``, whitened."""
        logits, means, scales = self.head.mixture(self.head.cue(embedding))
        return self.head.colour(means[:, self.commonest]), logits, means, scales


class ExportableDecoder(Exportable):
    """Face decoder: its texture basis stays packed, its splines are solved by conjugate gradients."""

    inputs: ClassVar = {"feature": {0: "batch"}, "skin": {0: "batch"}}
    outputs: ClassVar = {"image": {0: "batch"}, "landmarks": {0: "batch"}}
    nearby: Tensor
    tone_step: Tensor
    textures: Tensor
    to_rgb: Tensor
    mean_skin: Tensor

    def __init__(self, decoder: FaceDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        gram = decoder.tone_of_face.T @ decoder.tone_of_face + 1e-6 * torch.eye(3)
        self.register_buffer("tone_step", torch.linalg.solve(gram, decoder.tone_of_face.T))  # (3, F)
        basis = decoder.basis
        self.bases: list[Any] = [basis.packed_face, basis.packed_hair]
        self.register_buffer("mean_skin", decoder.mean_skin())
        self.register_buffer("to_rgb", torch.linalg.inv(_TO_YCC))
        self.register_buffer("nearby", self._inverse_at_mean_shape())
        if any(part is None for part in self.bases):
            self.register_buffer("textures", torch.cat([basis.face_basis, basis.hair_basis]).flatten(1))
            return
        for number, part in enumerate(self.bases):
            for plane in _PLANES:
                where = part.get_buffer(f"{plane}_where")
                side = decoder.config.size if plane == "y" else decoder.config.size // 2
                place = torch.full((side * side,), len(where))  # the last: a zero
                place[where] = torch.arange(len(where))
                self.register_buffer(f"{plane}_place_{number}", place)

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """Features around the mean; every second face with a skin colour."""
        mean, scale, generator = self.decoder.feature_mean, self.decoder.feature_scale, torch.Generator()
        noise = torch.randn(batch, len(mean), generator=generator.manual_seed(seed))
        skin = 0.3 + 0.5 * torch.rand(batch, 3, generator=generator)
        skin[seed % 2 :: 2] = -1.0
        return mean + 0.5 * noise / scale, skin

    def forward(self, feature: Tensor, skin: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, D)``, and colours of the skin ``(B, 3)`` in [0, 1], negative for what the feature suggests → image
        ``(B, 3, H, W)`` in [0, 1], landmarks ``(B, L, 2)``."""
        net, config = self.decoder, self.decoder.config
        x, h = net.hidden(feature)
        shape, face = (net.linear(x) + net.bend(h)).split([config.shape_components, config.face_components], dim=-1)
        shape, face = net._limit(shape), net._limit(face)
        wanted = torch.where(skin < 0, net._tone(x), skin - self.mean_skin)  # (B, 3)
        face = face + (wanted - face @ net.tone_of_face) @ self.tone_step
        decided = config.style_sharpness * config.style_choice
        hair = net.hair((net.style_logits(x, h) * decided).softmax(-1), face)
        landmarks = net.basis.points(shape, hair)
        texture = self._texture(face, hair) if config.texture == "basis" else net.conv_texture(x, h)
        return self._compose(texture, landmarks), landmarks

    def _inverse_at_mean_shape(self) -> Tensor:
        """A⁻¹ ``(N, N)`` of the spline that leads to the mean shape."""
        net, size = self.decoder, self.decoder.config.size
        met: list[Tensor] = []

        def remember(system: Tensor, right: Tensor) -> Tensor:
            met.append(torch.linalg.inv(positive_part(system.double())[0]))
            return right

        fixed, placed = net.basis.mean_points[net.controls], net.basis.shape_mean[net.controls]
        warp(torch.zeros(1, 1, size, size), with_anchors(fixed[None], size), with_anchors(placed[None], size),
             solve=remember)  # fmt: skip
        return met[0]

    def _solve(self, system: Tensor, right: Tensor) -> Tensor:
        return solve_spline(system, right, self.nearby)

    def _texture(self, face: Tensor, hair: Tensor) -> Tensor:
        mean: Tensor = self.decoder.basis.mean_texture
        if any(part is None for part in self.bases):
            moved = (torch.cat([face, hair], dim=-1) @ self.textures).view(-1, *mean.shape)
        else:
            moved = self._unpacked(face, hair)
        alpha = mean[3:] + moved[:, 3:]
        return torch.cat([mean[:3] + moved[:, :3] / alpha.clamp(0.35, 1), alpha], dim=1)

    def _unpacked(self, *codes: Tensor) -> Tensor:
        """Codes → RGBA ``(B, 4, H, W)``, as :meth:`PackedBasis.planes` and :func:`crossmodal.models.quantised.rgba`."""
        size, planes = self.decoder.config.size, []
        for plane in _PLANES:
            side = size if plane == "y" else size // 2
            total = torch.zeros(1)
            for number, (part, code) in enumerate(zip(self.bases, codes)):
                values, scale = part.get_buffer(f"{plane}_values"), part.get_buffer(f"{plane}_scale")
                combined = F.pad((code * scale) @ values.float(), (0, 1))  # (B, P + 1)
                total = total + combined[:, self.get_buffer(f"{plane}_place_{number}")]
            planes.append(total.view(-1, 1, side, side))
        half = F.interpolate(torch.cat(planes[1:], dim=1), (size, size), mode="bilinear", align_corners=False)
        ycc = torch.cat([planes[0], half[:, :2]], dim=1)
        return torch.cat([torch.einsum("ij,kjhw->kihw", self.to_rgb, ycc), half[:, 2:]], dim=1)

    def _compose(self, texture: Tensor, landmarks: Tensor) -> Tensor:
        net, size = self.decoder, self.decoder.config.size
        rgba = torch.cat([texture[:, :3], net.firm(texture[:, 3:]) * net.basis.vignette], dim=1)
        fixed, placed = net.basis.mean_points[net.controls], landmarks[:, net.controls]
        # In double precision: large weights of opposite signs cancel, and onnxruntime adds them in another order.
        fixed, placed = with_anchors(fixed[None].double(), size), with_anchors(placed.double(), size)
        moved = warp(rgba, fixed, placed, solve=self._solve)
        alpha = moved[:, 3:].clamp(0, 1)
        behind = torch.tensor(net.config.background).view(1, 3, 1, 1)
        return moved[:, :3].clamp(0, 1) * alpha + behind * (1 - alpha)


def positive_part(system: Tensor) -> Tensor:
    """``A = K + ρ P Pᵀ`` ``(B, N, N)`` of the thin-plate system ``[[K, P], [Pᵀ, 0]]``: positive definite, since the
    kernel ``r² log r`` is so on what is orthogonal to P (Wahba 1990, section 2.4)."""
    count = system.shape[1] - 3
    p = system[:, :count, count:]  # (B, N, 3)
    return system[:, :count, :count] + 8.0 * p @ p.transpose(1, 2)


def solve_spline(system: Tensor, right: Tensor, nearby: Tensor, steps: int = 48) -> Tensor:
    """Solve the thin-plate system ``(B, N + 3, N + 3)`` for ``right`` ``(B, N + 3, 2)`` by products only.

    With A of :func:`positive_part` in place of K the solution is the same, for w is orthogonal to P:
    ``a = (Pᵀ A⁻¹ P)⁻¹ Pᵀ A⁻¹ t``, ``w = A⁻¹ (t − P a)``. A⁻¹ is applied by conjugate gradients (Hestenes and Stiefel
    1952), preconditioned with ``nearby`` ``(N, N)``, the inverse of a similar A.
    Faces twice as spread as the export's examples come to 1e-5 in 40 steps, to 6e-3 in 24.
    """
    count = system.shape[1] - 3
    dtype, system, right = system.dtype, system.double(), right.double()
    a, p, t = positive_part(system), system[:, :count, count:], right[:, :count]
    wanted = torch.cat([t, p], dim=2)  # (B, N, 5)
    x = nearby @ wanted
    rest = wanted - a @ x
    z = nearby @ rest
    direction, size = z, (rest * z).sum(1, keepdim=True)  # (B, 1, 5)
    for _ in range(steps):  # 1e-30: onnxruntime takes much smaller numbers for 0 when it optimises
        moved = a @ direction
        step = size / ((direction * moved).sum(1, keepdim=True) + 1e-30)
        x, rest = x + step * direction, rest - step * moved
        z = nearby @ rest
        before, size = size, (rest * z).sum(1, keepdim=True)
        direction = z + size / (before + 1e-30) * direction
    for_t, for_p = x[..., :2], x[..., 2:]
    affine = _inverse_3(p.transpose(1, 2) @ for_p) @ (p.transpose(1, 2) @ for_t)  # (B, 3, 2)
    return torch.cat([for_t - for_p @ affine, affine], dim=1).to(dtype)


def _inverse_3(a: Tensor) -> Tensor:
    """Inverse of ``(B, 3, 3)`` by cofactors."""
    rows = [torch.linalg.cross(a[:, (i + 1) % 3], a[:, (i + 2) % 3], dim=-1) for i in range(3)]
    cofactors = torch.stack(rows, dim=1)
    determinant = (a[:, 0] * cofactors[:, 0]).sum(-1)[:, None, None]
    return cofactors.transpose(1, 2) / determinant


def exportable(role: str, network: nn.Module) -> dict[str, Exportable]:
    """The graphs of one network of a bundle, by file name; empty for what has no form in ONNX (coqui's TTS)."""
    config: Any = getattr(network, "config", None)
    kind = getattr(network, "kind", "")
    if kind == "voice-encoder-ast":
        return {role: ExportableAST(network, ("frames", config.n_mels), "mels")}
    from crossmodal.models.acoustic import AcousticModel
    from crossmodal.models.spaces import space_size
    from crossmodal.models.vocoder import HarmonicVocoder

    if isinstance(network, ConvVoiceEncoder):
        return {role: ExportableConv(network, (2, "frames", AUDIO.s2f_n_fft // 2 + 1), "spectrogram")}
    if isinstance(network, FeatureHead):
        return {role: ExportableHead(network)}
    if isinstance(network, FaceDecoder):
        return {role: ExportableDecoder(network)}
    if isinstance(network, AcousticModel):
        return {f"{role}-text": ExportableEncoderOfText(network), f"{role}-frames": ExportableDecoderOfFrames(network)}
    if isinstance(network, HarmonicVocoder):
        return {role: ExportableVocoder(network)}
    shapes: dict[str, tuple[tuple[int | str, ...], str]] = {}
    if kind == "speaker-encoder":
        shapes[kind] = (("frames", config.n_mels), "mels")
    elif kind == "face-encoder-vgg19":
        shapes[kind] = ((3, config.image_size, config.image_size), "chips")
    elif kind == "face-encoder-head":
        shapes[kind] = ((space_size(config.input_space),), "feature")
    elif kind == "vocoder-hifigan":
        shapes[kind] = ((AUDIO.n_mels, "frames"), "mel")
    elif role == "face-features":
        size = int(getattr(network, "chip_size"))  # noqa: B009 (mypy)
        shapes[kind] = ((3, size, size), "chips")
    return {role: Plain(network, *shapes[kind])} if kind in shapes else {}
