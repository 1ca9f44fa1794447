"""Pooling over time: from any number of frames to one vector.

``average`` is what Speech2Face publishes. ``attentive`` is attentive statistics pooling (Okabe, Koshinaka and Shinoda
2018, "Attentive Statistics Pooling for Deep Speaker Embedding"): it learns which frames matter and keeps their spread,
so that the temporal dynamics of a voice are not averaged away.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["average", "attentive"]


class AveragePooling(nn.Module):
    """Mean over time."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool.

        Args:
            x: ``(B, C, T, *)``.
            mask: ``(B, T)``, true where a frame counts; at least one a row. ``None``: all count.

        Returns:
            ``(B, C, *)``.
        """
        if mask is None:
            return x.mean(2)
        weight = (mask / mask.sum(1, keepdim=True)).to(x.dtype)  # (B, T)
        return torch.einsum("bct...,bt->bc...", x, weight)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation over time, projected back to C channels.

    One weight a frame: ``α = softmax_t(vᵀ tanh(W h_t + b))`` (equations 1 and 2), where ``h_t`` is the frame averaged
    over whatever dimensions follow time (frequency, say); mean and deviation as equations 5 and 6.

    Args:
        channels: C.
        bottleneck: units of the attention's hidden layer.
    """

    def __init__(self, channels: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(channels, bottleneck), nn.Tanh(), nn.Linear(bottleneck, 1, bias=False)
        )  # the scalar bias of the paper cancels in the softmax
        self.project = nn.Linear(2 * channels, channels)

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each frame counts.

        Args:
            x: ``(B, C, T, *)``.
            mask: ``(B, T)``, true where a frame counts.

        Returns:
            ``(B, T)``, rows sum to 1.
        """
        frames = x.flatten(3).mean(3) if x.ndim > 3 else x  # (B, C, T)
        score = self.attention(frames.transpose(1, 2)).squeeze(-1).float()  # (B, T)
        if mask is not None:
            score = score.masked_fill(~mask, float("-inf"))
        return score.softmax(1)

    def statistics(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation over time, ``(B, C, *)`` each."""
        x, weights = x.float(), weights.float()  # a variance needs more than bf16's 8 bits
        mean = torch.einsum("bct...,bt->bc...", x, weights)
        centred = (x - mean.unsqueeze(2)).square()
        return mean, torch.einsum("bct...,bt->bc...", centred, weights).clamp_min(1e-8).sqrt()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool ``(B, C, T, *)`` (frames where ``mask`` ``(B, T)`` is false do not count) to ``(B, C, *)``."""
        mean, deviation = self.statistics(x, self.weights(x, mask))
        both = torch.cat([mean, deviation], dim=1).movedim(1, -1)  # (B, *, 2C)
        return self.project(both.to(self.project.weight.dtype)).movedim(-1, 1)  # (B, C, *)


def make_pooling(kind: Pooling, channels: int, bottleneck: int = 128) -> AveragePooling | AttentiveStatisticsPooling:
    """The pooling called ``kind`` for ``channels`` channels."""
    return AveragePooling() if kind == "average" else AttentiveStatisticsPooling(channels, bottleneck)
