"""Estimate :class:`~crossmodal.models.appearance.Appearance` from aligned people and photos of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.face_model import FaceModel, regions, skin_mask
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.models.appearance import ALIKE, LUMA, AppearanceState, shrink
from crossmodal.models.face_decoder import FaceCode, FaceDecoder
from crossmodal.portrait import pupils_in, relit

SHADING = 0.05
"""Deviation of each way in which light from a side shades a face, as a share of its brightness: the studio's light
comes from the front, and says nothing of it."""
FOLDS = 10
"""Of the cross-validation over people that tells how far the feature's code is off."""


def estimate(
    decoder: FaceDecoder, model: FaceModel, prepared: PreparedFaces, people: Sequence[int], ridge: float
) -> AppearanceState:
    """All numbers of the model.

    Args:
        decoder: with its basis and hair styles; nothing else of it is read.
        model: of ``people``.
        prepared: aligned people and photos of them.
        people: indices of those that the model was made from; nobody else is looked at.
        ridge: of the regression from the feature to the code (the decoder's own).
    """
    size = prepared.photos.portraits.shape[1]
    basis = decoder.basis
    luma = torch.tensor(LUMA)
    effect = torch.einsum("c,fchw->fhw", luma, shrink(basis.face_basis[:, :3], size))
    expected = torch.einsum("c,chw->hw", luma, shrink(basis.mean_texture[:3], size))
    inside = shrink(torch.from_numpy(regions(prepared.aligned)[0])[None].float(), size)[0] > 0.9
    place = {person: n for n, person in enumerate(people)}
    rows = np.flatnonzero([person in place for person in prepared.photos.person])
    whose = np.array([place[int(person)] for person in prepared.photos.person[rows]])
    seen = _portraits(prepared, people, rows, model.mirrored[whose])  # (R, S, S), NaN where a photo ends
    left = (seen - expected - torch.einsum("rf,fhw->rhw", model.codes.face[whose], effect))[:, inside]
    left = left[left.isfinite().all(1)].double()
    mean = left.mean(0)
    _, deviation, directions = torch.linalg.svd((left - mean) / len(left) ** 0.5, full_matrices=False)
    count = max(0, decoder.config.nuisances - len(_shading(size)))
    learned = (deviation[:, None] * directions)[:count]
    rest = ((left - mean).square().mean(0) - learned.square().sum(0)).clamp_min(1e-4)
    nuisance = torch.zeros(decoder.config.nuisances, size, size)
    nuisance[: len(learned), inside] = learned.float()
    expected = expected.clone()
    expected[inside] += mean.float()
    shading = SHADING * expected * _shading(size) * inside
    nuisance[count:] = shading[: decoder.config.nuisances - count]
    precision = torch.zeros(size, size)
    precision[inside] = (1 / (ALIKE * rest)).float()
    features = prepared.photos.features[rows].astype(np.float64)
    prior = _prior(features, model.codes.face[whose].double().numpy(), whose, ridge)
    return AppearanceState(expected, effect, nuisance, precision, prior.float(), _styles(decoder, size))


def _portraits(prepared: PreparedFaces, people: Sequence[int], rows: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """Luma ``(R, S, S)`` of photos in the light in which the skin has its own colour, mirrored like the person."""
    aligned, photos = prepared.aligned, prepared.photos
    where = skin_mask(aligned)
    own = {i: np.median(aligned.textures[i][..., :3][where] / 255.0, axis=0) for i in people}
    pupils = pupils_in(aligned.frame.pupils, aligned.frame.size, photos.portraits.shape[1])
    found = []
    for row, flip in zip(rows, mirrored):
        picture = relit(photos.portraits[row], pupils, own[int(photos.person[row])], photos.skin[row])
        found.append((picture[:, ::-1] if flip else picture) @ np.array(LUMA))
    return torch.from_numpy(np.stack(found)).float()


def _shading(size: int) -> Tensor:
    """Ways in which light shades a face, each between -1 and 1 ``(5, S, S)``: from a side, from above, and bent."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    x, y = 2 * x, 2 * y  # the face is half the frame
    return torch.stack([x, y, x * y, x * x - 0.5, y * y - 0.5]).clamp(-1, 1)


def _prior(features: np.ndarray, codes: np.ndarray, whose: np.ndarray, ridge: float) -> Tensor:
    """Inverse covariance ``(F, F)`` of the error of the code that ridge regression reads in the feature of a person
    left out."""
    scale = 1 / max(float((features - features.mean(0)).std()), 1e-6)
    x = (features - features.mean(0)) * scale
    fold = np.random.default_rng(0).permutation(whose.max() + 1)[whose] % FOLDS
    errors = np.zeros_like(codes)
    for k in np.unique(fold):
        some, others = fold == k, fold != k
        known, mean = x[others], codes[others].mean(0)
        gram = known.T @ known + ridge * len(known) * np.eye(x.shape[1])
        errors[some] = codes[some] - x[some] @ np.linalg.solve(gram, known.T @ (codes[others] - mean)) - mean
    covariance = errors.T @ errors / len(errors)
    covariance = 0.7 * covariance + 0.3 * np.diag(np.diag(covariance)) + 1e-4 * np.eye(len(covariance))
    return torch.from_numpy(np.linalg.inv(covariance))


@torch.no_grad()
def _styles(decoder: FaceDecoder, size: int) -> Tensor:
    """RGBA ``(N, 4, S, S)`` of each hair style on the mean face."""
    found = []
    for hair, face in zip(decoder.style_hair, decoder.style_face):
        shape = torch.zeros(1, decoder.config.shape_components)
        head = decoder.head(FaceCode(shape, face[None], hair[None]))[0]  # (4, H, W)
        alpha = shrink(head[3:], size)
        colour = shrink(head[:3] * head[3:], size) / alpha.clamp_min(1e-3)
        found.append(torch.cat([colour, alpha]).clamp(0, 1))
    return torch.stack(found)
