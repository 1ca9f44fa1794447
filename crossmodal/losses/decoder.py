"""Losses of the face decoder (Cole et al. 2017, section 3.4): landmarks, aligned texture, and recognition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CORNERS = (0, 1, 55, 87, 93)
"""Landmarks of the 189-point template that stand for the detector's five points: pupils, base of the nose, corners of
the mouth."""
PLACES = ((46.42, 45.38), (101.46, 45.38), (74.11, 84.66), (52.14, 106.33), (96.04, 105.90))
"""Where they lie, on average, in the 150×150 chips that the detector's points cut from photos."""
WEIGHTS = (1.0, 1.0, 0.5, 0.5, 0.5)
"""Of each point in the similarity fit: eyes move least with expression and pose."""


def landmark_loss(predicted: Tensor, true: Tensor, eye_distance: float) -> Tensor:
    """Mean squared distance of landmarks ``(B, L, 2)`` in units of the eye distance, a scalar."""
    return ((predicted - true) / eye_distance).square().sum(-1).mean()


def texture_loss(predicted: Tensor, true: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference of aligned textures ``(B, C, H, W)``, a scalar.

    Args:
        predicted: decoded texture.
        true: target.
        weight: ``(H, W)`` or broadcastable; what lies behind the head counts for nothing.
    """
    difference = (predicted - true).abs()
    if weight is None:
        return difference.mean()
    weight = weight.expand_as(difference)
    return (difference * weight).sum() / weight.sum().clamp_min(1e-6)


class Describer(nn.Module):
    """Rendered face → face feature, differentiable: cuts the recognition network's chip where the landmarks say.

    Args:
        network: face-feature network (``dlib-128``), frozen.
        corners: indices of five landmarks (eyes, nose, mouth corners).
        places: ``(5, 2)`` where they lie in the network's chip on real photos.
        weights: ``(5,)`` of each point in the similarity fit.
        chip: size of the chip in pixels.
    """

    places: Tensor
    weights: Tensor

    def __init__(self, network: nn.Module, corners: Tensor, places: Tensor, weights: Tensor, chip: int = 150) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.chip = chip
        self.corners = [int(i) for i in corners]
        self.register_buffer("places", places.float(), persistent=False)
        self.register_buffer("weights", (weights / weights.sum()).float(), persistent=False)

    def chips(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """``(B, 3, H, W)`` and ``(B, L, 2)`` → ``(B, 3, chip, chip)`` in [0, 1]."""
        source = landmarks[:, self.corners]  # (B, 5, 2)
        mean_s = (self.weights[:, None] * source).sum(1)
        mean_t = (self.weights[:, None] * self.places).sum(0)
        s, t = source - mean_s[:, None], self.places - mean_t
        w = self.weights[None, :, None]
        norm = (w * s.square()).sum((1, 2))
        a = (w * s * t).sum((1, 2)) / norm
        b = (w[..., 0] * (s[..., 0] * t[:, 1] - s[..., 1] * t[:, 0])).sum(1) / norm
        # chip = scale-rotation (a, -b; b, a) of the picture; sampled through its inverse
        d = a * a + b * b
        inverse = torch.stack([torch.stack([a, b], -1), torch.stack([-b, a], -1)], dim=1) / d[:, None, None]
        step = torch.arange(self.chip, device=image.device, dtype=image.dtype)
        grid = torch.stack(torch.meshgrid(step, step, indexing="xy"), dim=-1).reshape(-1, 2)  # (P, 2) as (x, y)
        where = (grid - mean_t) @ inverse.mT + mean_s[:, None]  # (B, P, 2) pixels of the picture
        height, width = image.shape[-2:]
        shrink = float(d.detach().mean().sqrt())
        if shrink < 0.95:  # low-pass before sampling, as the photo path does
            size = (round(height * shrink), round(width * shrink))
            image = F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)
        scale = image.new_tensor([width, height])
        where = ((where + 0.5) / scale * 2 - 1).view(-1, self.chip, self.chip, 2)
        return F.grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1] and ``(B, L, 2)`` → features ``(B, D)``."""
        return self.network(self.chips(image, landmarks))


def recognition_loss(rendered: Tensor, wanted: Tensor) -> Tensor:
    """Mean Euclidean distance of the rendered face's feature to the input feature, both ``(B, D)``; a scalar."""
    return (rendered - wanted).square().sum(-1).add(1e-8).sqrt().mean()
