"""Analysis by synthesis: change a decoded face a little until recognition sees in it what it saw in the photo.

The decoder's map is a regression from a few dozen people: it draws everybody too near to the mean. A few gradient steps
on the components of the face's texture, held near the regression by a prior, make the drawn face's own feature come
nearer to the photo's. Shape, hair and the colour of the skin stay. On people left out of a decoder's training this also
brings the texture nearer to theirs, in which recognition has no part; changes of shape did not help, and are not made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossmodal.losses.decoder import CORNERS, PLACES, WEIGHTS, Describer
from crossmodal.models.face_decoder import DecodedFace, FaceCode, FaceDecoder

RATE = 0.1
"""Of Adam, in standard deviations of the components: no component moves by more than this in a step."""
BETAS = (0.9, 0.99)
"""Adam's averages of gradient and squared gradient."""
PRIOR = 0.02
"""Weight of the squared change beside the feature distance."""


def describer_of(decoder: FaceDecoder, network: nn.Module) -> Describer:
    """What the recognition network ``network`` (``dlib-128``) sees in faces that ``decoder`` draws."""
    last = decoder.config.landmarks - 1
    corners = torch.tensor(CORNERS).clamp(max=last)
    describer = Describer(network, corners, torch.tensor(PLACES), torch.tensor(WEIGHTS))
    return describer.to(decoder.feature_mean.device)


def refine(
    decoder: FaceDecoder,
    describer: Describer,
    feature: Tensor,
    skin: Tensor | None = None,
    portrait: Tensor | None = None,
    *,
    steps: int,
    rate: float = RATE,
    prior: float = PRIOR,
) -> DecodedFace:
    """Decode features and refine the faces.

    Args:
        decoder: with a linear texture basis; a ``conv`` decoder has no components to change and is only decoded.
        describer: see :func:`describer_of`.
        feature: ``(B, D)`` of the photos.
        skin, portrait: as in :meth:`~crossmodal.models.face_decoder.FaceDecoder.forward`.
        steps: of gradient descent, about .1 s each on one core; 0 decodes only.
        rate: of each step.
        prior: weight of the squared change.
    """
    with torch.no_grad():
        if steps < 1 or decoder.config.texture != "basis":
            return decoder(feature, skin, portrait)
        start = decoder.code(feature, skin, portrait)
        tone = decoder.tone_of_face  # (F, 3): the directions in which the skin's colour changes
        gram = tone.T @ tone + 1e-6 * torch.eye(3, device=tone.device)
        toneless = torch.eye(len(tone), device=tone.device) - tone @ torch.linalg.solve(gram, tone.T)  # (F, F)
        ways = toneless.expand(len(feature), -1, -1)  # (B, F, F)
        if portrait is not None and decoder.appearance is not None:
            ways = _open(decoder.appearance.posterior(start.face, portrait)[1]) @ ways

    def face(change: Tensor) -> DecodedFace:
        moved = torch.einsum("bf,bfg->bg", change, ways)
        return decoder.render(FaceCode(start.shape, start.face + moved, start.hair))

    with torch.enable_grad():
        change = torch.zeros_like(start.face, requires_grad=True)
        mean, square = torch.zeros_like(change), torch.zeros_like(change)
        for step in range(1, steps + 1):
            drawn = face(change)
            distance = (describer(drawn.image, drawn.landmarks) - feature).square().sum(-1).add(1e-8).sqrt()
            loss = distance.sum() + prior * change.square().sum()
            (gradient,) = torch.autograd.grad(loss, change)
            with torch.no_grad():
                change -= rate * _adam(mean, square, gradient, step)
    with torch.no_grad():
        return face(change)


def _adam(mean: Tensor, square: Tensor, gradient: Tensor, step: int) -> Tensor:
    """Direction of Adam's step number ``step`` (Kingma & Ba 2015, algorithm 1); ``mean`` and ``square`` are updated.

    Written out because ``torch.optim`` loads torch's compiler, longer than the whole refinement takes.
    """
    first, second = BETAS
    mean.lerp_(gradient, 1 - first)
    square.lerp_(gradient.square(), 1 - second)
    return mean / (1 - first**step) / ((square / (1 - second**step)).sqrt() + 1e-8)


def _open(covariance: Tensor) -> Tensor:
    """Root ``(B, F, F)`` of a covariance, scaled to unit variance on average: what the photo itself has settled moves
    less than what it leaves open."""
    share = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-9)
    values, vectors = torch.linalg.eigh(covariance / share)
    return vectors @ torch.diag_embed(values.clamp_min(0).sqrt()) @ vectors.mT
