"""Aligned faces → linear shape and texture model, codes of the people it was made from, and morphs of them.

Cole et al. (2017, section 4.2) multiply few people by morphing: interpolating landmarks and textures of similar people.
Here a morph is a point in the code space of :class:`~crossmodal.models.face_decoder.FaceBasis`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from crossmodal.data.canonical_faces import BROWS, CHIN, INNER, NECK, OUTLINE, PUPILS, AlignedFaces
from crossmodal.models.face_decoder import FaceBasis, FaceCode, FaceDecoder, FaceDecoderConfig
from crossmodal.skin import mask

TONES = 8
"""The first components of a face's texture: tone and light, hardly the person."""


@dataclass
class FaceModel:
    """A filled basis and the codes of the people it was made from."""

    basis: FaceBasis
    codes: FaceCode
    """``(N, ...)`` of the training people."""
    mirrored: np.ndarray
    """``(N,)`` bool: who was mirrored so that all partings are on one side."""


def same_side(aligned: AlignedFaces, chosen: Sequence[int]) -> np.ndarray:
    """Who of ``chosen`` to mirror so that asymmetric hair agrees ``(N,)`` bool: averages then stay sharp."""
    luma = aligned.textures[chosen][..., :3].mean(-1) * (aligned.textures[chosen][..., 3] / 255.0)
    luma = luma[:, : aligned.frame.size // 2, :]  # partings are above the middle
    small = np.stack([ndimage.zoom(plane, 0.125, order=1) for plane in luma])
    odd = (small - small[:, :, ::-1]).reshape(len(small), -1)
    sign = np.where(odd @ odd[np.argmax((odd**2).sum(1))] >= 0, 1.0, -1.0)
    for _ in range(20):
        sign = np.where(odd @ (sign @ odd) >= 0, 1.0, -1.0)
    return sign < 0


def mirror_faces(aligned: AlignedFaces, who: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(N, L, 2)`` and textures ``(N, H, W, 4)`` with the people of ``who`` ``(N,)`` mirrored."""
    points, textures = aligned.points.copy(), aligned.textures.copy()
    flipped = points * [-1, 1] + [2 * aligned.frame.centre, 0]
    points[who] = flipped[who][:, aligned.mirror]
    textures[who] = textures[who][:, :, ::-1]
    return points, textures


def regions(aligned: AlignedFaces) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the face block ``(H, W)`` (face and neck, feathered; the rest is hair) and the vignette ``(H, W)``."""
    from crossmodal.data.canonical_faces import _inside

    frame, mean = aligned.frame, aligned.mean_points
    rows, columns = np.mgrid[0 : frame.size, 0 : frame.size]
    eyes, chin = frame.eye_distance, float(mean[CHIN, 1])
    face = _inside(mean[[*INNER, *OUTLINE]], rows, columns)
    neck = mean[list(NECK)]
    throat = np.stack([neck[:, 0], np.full(2, frame.size + 5.0)], axis=-1)
    face |= _inside(np.concatenate([neck, throat]), rows, columns)
    weight = ndimage.gaussian_filter(face.astype(np.float32), 0.07 * eyes)
    # The neck ends in a soft bow instead of a cut.
    bow = rows + 0.16 * ((columns - frame.centre) / eyes) ** 2 * eyes
    fade = np.clip((chin + 0.8 * eyes - bow) / (0.42 * eyes), 0, 1)
    side = np.clip((2.3 * eyes - np.abs(columns - frame.centre)) / (0.25 * eyes), 0, 1)
    return weight, (fade * fade * (3 - 2 * fade)) * side


def skin_mask(aligned: AlignedFaces) -> np.ndarray:
    """Cheeks and lower forehead in the mean shape ``(H, W)`` bool: skin in everyone, without beard or hair."""
    return mask(aligned.mean_points[list(PUPILS)].astype(np.float64), aligned.frame.size)


def _principal(data: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Components of centred ``data`` ``(N, D)`` times their deviation ``(K, D)``; unit-variance codes ``(N, K)``."""
    values, vectors = np.linalg.eigh(data @ data.T)
    order = np.argsort(values)[::-1][: min(count, len(data) - 1)]
    deviation = np.sqrt(np.maximum(values[order], 1e-12) / len(data))
    codes = vectors[:, order] * np.sqrt(len(data))  # (N, K)
    components = (codes.T @ data) / len(data)  # (K, D); norm = deviation
    keep = deviation > 1e-6 * deviation[0]
    full_components = np.zeros((count, data.shape[1]), dtype=np.float32)
    full_codes = np.zeros((len(data), count), dtype=np.float32)
    full_components[: len(order)][keep] = components[keep]
    full_codes[:, : len(order)][:, keep] = codes[:, keep]
    return full_components, full_codes


def build_model(aligned: AlignedFaces, chosen: Sequence[int], config: FaceDecoderConfig) -> FaceModel:
    """Principal components of shape, face texture and hair texture of the people ``chosen``."""
    flip = np.zeros(len(aligned.names), dtype=bool)
    flip[list(chosen)] = same_side(aligned, chosen)
    points, textures = mirror_faces(aligned, flip)
    points, rgba = points[list(chosen)], textures[list(chosen)].astype(np.float32) / 255
    weight, vignette = regions(aligned)
    # The mean stays the frame's mean shape, to which the textures were warped; its codes need not be centred.
    shape_mean = points.mean(0)
    inner = config.landmarks - config.silhouette
    centred = points - shape_mean
    template, shape_codes = _principal(centred[:, :inner].reshape(len(points), -1), config.shape_components)
    # The silhouette goes with the head's shape as far as it can be told from it; the rest is hair.
    outline = centred[:, inner:].reshape(len(points), -1)
    head = shape_codes[:, :10]
    follows = np.linalg.solve(head.T @ head + 0.3 * len(points) * np.eye(head.shape[1]), head.T @ outline)
    outline = (outline - head @ follows).astype(np.float32)
    shape = np.zeros((config.shape_components, config.landmarks, 2), dtype=np.float32)
    shape[:, :inner] = template.reshape(-1, inner, 2)
    shape[: len(follows), inner:] = follows.reshape(-1, config.silhouette, 2)
    alpha = rgba[..., 3:]
    mean_alpha = alpha.mean(0)
    colour = (rgba[..., :3] * alpha).sum(0) / np.maximum(alpha.sum(0), 0.5)
    outside = (alpha.sum(0) < 0.5)[..., 0]
    colour[outside] = rgba[..., :3].mean(0)[outside]
    mean = np.concatenate([colour, mean_alpha], axis=-1)  # (H, W, 4)
    difference = rgba - mean
    difference[..., :3] *= alpha  # colour where there is nothing means nothing
    skin = _skin_only(difference, rgba, aligned) * weight[..., None]
    skin_mean = skin.mean(0)
    block = np.moveaxis(skin - skin_mean, -1, 1).reshape(len(rgba), -1)
    face, face_codes = _principal(block, config.face_components)
    # A fringe over the forehead is hair: it stays in the rest.
    rest = np.moveaxis(difference - (skin - skin_mean), -1, 1)
    rest = (rest - rest.mean(0)).reshape(len(rgba), -1)
    # Texture and silhouette of the hair together, both with an equal share of the variance.
    balance = float(np.sqrt((rest**2).sum() / max(float((outline**2).sum()), 1e-6)))
    hair, hair_codes = _principal(np.concatenate([rest, balance * outline], axis=1), config.hair_components)
    hair, moved = hair[:, : rest.shape[1]], hair[:, rest.shape[1] :] / balance
    basis = FaceBasis(config)
    size = config.size
    basis.fill(
        mean_points=torch.from_numpy(aligned.mean_points),
        shape_mean=torch.from_numpy(shape_mean.astype(np.float32)),
        shape_basis=torch.from_numpy(shape),
        outline_basis=torch.from_numpy(moved.reshape(-1, config.silhouette, 2)),
        mean_texture=torch.from_numpy(np.moveaxis(mean, -1, 0).astype(np.float32)),
        face_basis=torch.from_numpy(face.reshape(-1, 4, size, size)),
        hair_basis=torch.from_numpy(hair.reshape(-1, 4, size, size)),
        vignette=torch.from_numpy(vignette[None].astype(np.float32)),
    )
    codes = FaceCode(*(torch.from_numpy(c) for c in (shape_codes, face_codes, hair_codes)))
    return FaceModel(basis, codes, flip[list(chosen)])


def _skin_only(difference: np.ndarray, rgba: np.ndarray, aligned: AlignedFaces) -> np.ndarray:
    """``difference`` ``(N, H, W, 4)`` from the mean with hair on the forehead replaced by skin as elsewhere."""
    mean, eyes = aligned.mean_points, aligned.frame.eye_distance
    rows, columns = np.mgrid[0 : aligned.frame.size, 0 : aligned.frame.size]
    brow = float(mean[list(BROWS), 1].min())
    top = rows < brow - 0.02 * eyes
    usual = np.median(rgba[..., :3], axis=0)  # (H, W, 3) the forehead without a fringe: most people have none
    cheeks = np.zeros(top.shape, dtype=bool)
    for side in PUPILS:
        cheeks |= (columns - mean[side, 0]) ** 2 + (rows - mean[side, 1] - 0.6 * eyes) ** 2 < (0.2 * eyes) ** 2
    result = difference.copy()
    for one, picture in zip(result, rgba):
        tone = np.median(picture[..., :3][cheeks] / usual[cheeks], axis=0)
        expected = np.clip(usual * tone, 0, 1)
        hair = top & (picture[..., :3].mean(-1) < 0.82 * expected.mean(-1))
        cover = ndimage.gaussian_filter(ndimage.binary_dilation(hair, iterations=3).astype(np.float32), 3.0)
        cover = np.where(top, np.clip(1.5 * cover, 0, 1), 0)[..., None]
        one[..., :3] += cover * (expected - picture[..., :3])
        one[..., 3:] *= 1 - cover
    return result


def project(basis: FaceBasis, points: np.ndarray, textures: np.ndarray, weight: np.ndarray) -> FaceCode:
    """Codes of faces that the basis was not made from: the best that the decoder could do for them.

    Args:
        basis: a filled basis.
        points: ``(N, L, 2)`` landmarks.
        textures: ``(N, H, W, 4)`` uint8 aligned textures.
        weight: of the face block, see :func:`regions`.
    """

    def code(data: Tensor, components: Tensor) -> Tensor:
        return data @ components.T / components.square().sum(1).clamp_min(1e-12)

    rgba = torch.from_numpy(textures.astype(np.float32) / 255).permute(0, 3, 1, 2)
    difference = rgba - basis.mean_texture
    difference[:, :3] *= rgba[:, 3:]
    mask = torch.from_numpy(weight.astype(np.float32))
    inner = basis.mean_points.shape[0] - basis.outline_basis.shape[1]
    centred = torch.from_numpy(points.astype(np.float32)) - basis.shape_mean
    shape = code(centred[:, :inner].flatten(1), basis.shape_basis[:, :inner].flatten(1))
    follows = torch.einsum("bs,slc->blc", shape, basis.shape_basis[:, inner:])
    outline = (centred[:, inner:] - follows).flatten(1)
    rest = (difference * (1 - mask)).flatten(1)
    hair, moved = basis.hair_basis.flatten(1), basis.outline_basis.flatten(1)
    balance = (hair.square().sum() / moved.square().sum().clamp_min(1e-12)).sqrt()
    return FaceCode(
        shape,
        code((difference * mask).flatten(1), basis.face_basis.flatten(1)),
        code(torch.cat([rest, balance * outline], 1), torch.cat([hair, balance * moved], 1)),
    )


@dataclass
class HairStyles:
    """Hair styles, each of a few people, and how hair goes with the face."""

    hair: Tensor
    """``(K, H)`` code of each style."""
    face: Tensor
    """``(K, F)`` tone of the people it comes from: the first :data:`TONES` components of their face, zeros beyond, so
    that nobody's face can be drawn from a style."""
    members: Tensor
    """``(K, N)`` share of each person in the style; rows sum to 1."""
    follow: Tensor
    """``(F, H)`` linear map from a change of face code to the change of hair code that goes with it (skin tone)."""


def hair_styles(basis: FaceBasis, codes: FaceCode, count: int, seed: int = 0) -> HairStyles:
    """Cluster the hair of ``N`` people into ``count`` styles: each a blend of its most typical member and its mean.

    A few more clusters are made and those with the most ragged edges left out: they do not survive another head.
    """
    from scipy.cluster.vq import kmeans2

    wanted, count = count, count + count // 4
    hair, face = codes.hair.double().numpy(), codes.face.double().numpy()
    people = len(hair)
    # The first components carry what the eye sees as style; the later ones are strands.
    scaled = hair / np.sqrt(1.0 + np.arange(hair.shape[1]) / 3)
    centres, labels = kmeans2(scaled, min(count, people), minit="++", seed=seed, iter=50)
    members = np.zeros((count, people))
    for k in range(count):
        inside = np.flatnonzero(labels == k)
        if not len(inside):
            members[k, k % people] = 1.0
            continue
        # The others' alpha together stays below what FaceDecoder.firm takes for hair: the outline is the typical one's.
        members[k, inside] = 0.25 / len(inside)
        typical = inside[np.argmin(((scaled[inside] - centres[k]) ** 2).sum(1))]
        members[k, typical] += 0.75
    tone = face[:, :TONES]
    face = np.where(np.arange(face.shape[1]) < TONES, face, 0.0)
    follow = np.zeros((face.shape[1], hair.shape[1]))
    follow[: tone.shape[1]] = np.linalg.solve(tone.T @ tone + 0.3 * people * np.eye(tone.shape[1]), tone.T @ hair)
    alpha = basis.mean_texture[3] + torch.einsum(
        "kh,hyx->kyx", torch.from_numpy(members @ hair).float(), basis.hair_basis[:, 3]
    )
    alpha = FaceDecoder.firm(alpha)[:, : alpha.shape[-1] * 2 // 3]
    ragged = alpha.diff(dim=1).abs().sum((1, 2)) + alpha.diff(dim=2).abs().sum((1, 2))
    members = members[np.sort(np.argsort(ragged.numpy())[:wanted])]
    tensors = (members @ hair, members @ face, members, follow)
    return HairStyles(*(torch.from_numpy(t).float() for t in tensors))


def draw_morphs(codes: FaceCode, count: int, rng: np.random.Generator) -> tuple[FaceCode, np.ndarray]:
    """Random mixtures of two to four people, shape and texture partly decoupled, some exaggerated.

    Args:
        codes: of ``N`` people.
        count: how many morphs.
        rng: source of randomness.

    Returns:
        Codes of ``count`` morphs, and the weight of each person in their texture ``(count, N)``.
    """
    people = codes.shape.shape[0]
    texture_weights = np.zeros((count, people), dtype=np.float32)
    shape_weights = np.zeros((count, people), dtype=np.float32)
    for row in range(count):
        who = rng.choice(people, size=rng.integers(2, 5), replace=False)
        texture_weights[row, who] = rng.dirichlet(np.full(len(who), 0.7))
        shape_weights[row, who] = 0.6 * texture_weights[row, who] + 0.4 * rng.dirichlet(np.full(len(who), 0.7))
    gain = rng.uniform(0.9, 1.5, (count, 1)).astype(np.float32)

    def mix(weights: np.ndarray, values: Tensor, noise: float, exaggerate: bool) -> Tensor:
        mixed = weights @ values.numpy()
        if exaggerate:
            mixed = mixed * gain
        scale = values.std(0).numpy()
        return torch.from_numpy(mixed + (noise * rng.standard_normal(mixed.shape) * scale).astype(np.float32))

    morphs = FaceCode(
        mix(shape_weights, codes.shape, 0.3, True),
        mix(texture_weights, codes.face, 0.3, True),
        mix(texture_weights, codes.hair, 0.1, False),
    )
    return morphs, texture_weights
