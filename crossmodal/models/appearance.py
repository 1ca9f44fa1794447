"""What a photo shows of a face that its face feature hardly holds: beard, brows, folds, hair.

A linear-Gaussian model, in closed form. The code of a face's texture has a Gaussian prior around what the decoder reads
in the feature; the relit photo (:func:`crossmodal.portrait.relit`) is, cell by cell, what the code would look like,
plus *nuisances* (another shape, a smile, light from a side: directions with a known spread) and noise. The most
likely code is a small linear system. Cells that no face explains, such as glasses or a hand, are given up (iteratively
reweighted least squares, Student's t). Hair is not changed but chosen: each of the decoder's styles says where it would
be seen, in what colour.

All numbers are estimated from the people whom the decoder is made from: :mod:`crossmodal.data.appearance`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
ROUNDS = 6
"""Of reweighting."""
DEGREES = 4.0
"""Of freedom of Student's t: how soon a cell is given up."""
ALIKE = 5.0
"""Factor on the variance of a cell's noise as evidence: what is left in one cell is left in its neighbours too. Whether
a cell is given up is judged by itself."""
COLOUR_SPREAD = 0.12
"""Deviation of a colour of hair from its style's, sRGB."""
TRUST = 0.05
"""Of a cell of hair as evidence: neighbours say the same, and a style is never quite the person's. Chosen on training
people left out of a smaller decoder."""


class AppearanceState(NamedTuple):
    """What the model consists of; ``S`` cells a side, ``F`` components, ``K`` nuisances, ``N`` styles."""

    expected: Tensor
    """``(S, S)`` luma of the mean face."""
    effect: Tensor
    """``(F, S, S)`` what one standard deviation of each component adds to it."""
    nuisance: Tensor
    """``(K, S, S)`` what one standard deviation of each nuisance adds."""
    precision: Tensor
    """``(S, S)`` inverse variance of the noise, times 1 / :data:`ALIKE`; 0 where no face is."""
    prior: Tensor
    """``(F, F)`` inverse covariance of the code around what the feature gives."""
    styles: Tensor
    """``(N, 4, S, S)`` RGBA of each hair style at the mean shape."""


class Appearance(nn.Module):
    """Face code, and choice of hair, given a relit portrait.

    Args:
        size: cells on each side of the portrait.
        components: of the face's texture.
        nuisances: directions in which photos of one face differ.
        styles: of hair.
    """

    expected: Tensor
    effect: Tensor
    nuisance: Tensor
    precision: Tensor
    prior: Tensor
    styles: Tensor

    def __init__(self, size: int, components: int, nuisances: int, styles: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("expected", torch.zeros(size, size))
        self.register_buffer("effect", torch.zeros(components, size, size))
        self.register_buffer("nuisance", torch.zeros(nuisances, size, size))
        self.register_buffer("precision", torch.zeros(size, size))
        self.register_buffer("prior", torch.eye(components))
        self.register_buffer("styles", torch.zeros(styles, 4, size, size))

    def fill(self, state: AppearanceState) -> None:
        """Set what was estimated.

        Raises:
            RuntimeError: shapes differ.
        """
        self.load_state_dict(state._asdict())

    def forward(self, face: Tensor, portrait: Tensor) -> Tensor:
        """The most likely face code given the photo.

        Args:
            face: ``(B, F)`` code that the feature gives.
            portrait: ``(B, 3, S, S)`` relit portrait, sRGB in [0, 1]; NaN where nothing is known.

        Returns:
            ``(B, F)``; ``face`` itself where nothing is known at all.
        """
        return self.posterior(face, portrait)[0]

    def posterior(self, face: Tensor, portrait: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and how far it may be off: mean ``(B, F)`` and covariance ``(B, F, F)``."""
        luma = torch.einsum("c,bchw->bhw", portrait.new_tensor(LUMA), portrait)
        known = luma.isfinite()
        precision = torch.where(known, self.precision, self.precision.new_zeros(()))  # (B, S, S)
        look = torch.cat([self.effect, self.nuisance]).flatten(1).double()  # (F + K, P)
        drawn = self.expected + torch.einsum("bf,fhw->bhw", face, self.effect)
        rest = torch.where(known, luma - drawn, luma.new_zeros(())).flatten(1).double()  # (B, P)
        count = len(self.effect)
        prior = torch.eye(len(look), dtype=look.dtype, device=look.device)
        prior[:count, :count] = self.prior.double()
        trust = precision.flatten(1).double()
        state = rest.new_zeros(len(rest), len(look))
        system = prior.expand(len(rest), -1, -1)
        for _ in range(ROUNDS):
            left = (rest - state @ look).square() * trust * ALIKE
            weight = trust * (DEGREES + 1) / (DEGREES + left)
            system = torch.einsum("ip,bp,jp->bij", look, weight, look) + prior
            state = torch.linalg.solve(system, ((weight * rest) @ look.T)[..., None])[..., 0]
        covariance = torch.linalg.inv(system)[:, :count, :count]
        return face + state[:, :count].to(face), covariance.to(face)

    def hair(self, portrait: Tensor) -> Tensor:
        """How well each hair style explains what surrounds the face.

        Where a style has hair, its colour is expected; elsewhere the colours that the photo has where no style has any.

        Args:
            portrait: ``(B, 3, S, S)`` relit portrait; NaN where nothing is known.

        Returns:
            ``(B, N)`` log-likelihoods but for a constant, weighed by :data:`TRUST`.
        """
        known = portrait.isfinite().all(1)  # (B, S, S)
        colour = torch.where(known[:, None], portrait, portrait.new_zeros(()))
        alpha, own = self.styles[:, 3], self.styles[:, :3]  # (N, S, S), (N, 3, S, S)
        outside = self.precision <= 0
        behind = (alpha.amax(0) < 0.05) & outside
        head = (alpha.amax(0) >= 0.05) & outside
        away = (colour[:, None] - own).square().sum(2)  # (B, N, S, S)
        fits = torch.exp(-0.5 * away / COLOUR_SPREAD**2)
        elsewhere = self._background(colour, known & behind)
        mixed = alpha * fits + (1 - alpha) * elsewhere[:, None]
        evidence = torch.log(mixed.clamp_min(1e-3)) * (known & head)[:, None]
        return TRUST * evidence.sum((2, 3))

    @staticmethod
    def _background(colour: Tensor, where: Tensor) -> Tensor:
        """Density of each cell's colour among the cells ``where`` ``(B, S, S)``, 1 at a colour they all have.

        A kernel estimate from cells spread evenly; .05 where no background is seen: hardly anything is told then.
        """
        found = []
        for picture, mask in zip(colour, where):
            cells = picture[:, mask].T  # (M, 3)
            if len(cells) < 8:
                found.append(picture.new_full(picture.shape[1:], 0.05))
                continue
            cells = cells[:: max(1, len(cells) // 64)]
            away = torch.cdist(picture.flatten(1).T, cells).square()
            density = torch.exp(-0.5 * away / COLOUR_SPREAD**2).mean(1).view(picture.shape[1:])
            found.append(density.clamp_min(0.05))
        return torch.stack(found)


def shrink(texture: Tensor, size: int) -> Tensor:
    """Textures ``(..., C, H, W)`` → their means over the cells of a portrait ``(..., C, size, size)``."""
    flat = texture.reshape(-1, *texture.shape[-3:])
    return F.adaptive_avg_pool2d(flat, size).reshape(*texture.shape[:-2], size, size)
