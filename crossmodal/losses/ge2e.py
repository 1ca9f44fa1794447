"""Generalised end-to-end (GE2E) losses of speaker and face encoders.

Softmax and contrast form: Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification", equations 5 to 7.
Supervised form (SGE2E), whose centroids are fixed speech centroids: Goto et al. 2020, "Face2Speech", section 3.2.
Both papers sum over utterances; here it is the mean, so that a learning rate does not depend on the batch size.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from crossmodal.errors import ConfigError, DataError

GE2EForm = Literal["softmax", "contrast"]


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums every process's gradient of this process's part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rank, ctx.size = distributed.get_rank(), len(x)
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[ctx.rank * ctx.size : (ctx.rank + 1) * ctx.size]


def gather_with_grad(x: Tensor) -> Tensor:
    """Every process's ``x`` ``(B, *)``, concatenated in the order of ranks to ``(W·B, *)``; ``x`` itself if there is
    one process only.

    A loss computed from it is the same in all W processes. Its gradient with respect to ``x`` is summed over them, and
    data-parallel training averages parameters' gradients over processes, so together they give the gradient of that
    one loss. Every process must hold the same shape.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return x
    return _Gather.apply(x)


def cosine_to_centroids(embeddings: Tensor) -> Tensor:
    """Cosine of every utterance to every speaker's centroid, its own centroid leaving the utterance out.

    Args:
        embeddings: ``(N, M, D)``: N speakers, M utterances each.

    Returns:
        ``(N, M, N)``: ``cos(e_ji, c_k)``, with ``c_j`` replaced by ``c_j^(-i)`` where k = j (equations 8 and 9).

    Raises:
        DataError: another shape, or fewer than two speakers or two utterances.
    """
    if embeddings.ndim != 3 or embeddings.shape[0] < 2 or embeddings.shape[1] < 2:
        problem = f"expected embeddings (speakers, utterances, D), at least 2 of each; got {tuple(embeddings.shape)}"
        raise DataError(problem, source="GE2E", remedy="use a sampler of N speakers × M utterances")
    utterances = embeddings.shape[1]
    total = embeddings.sum(1)  # (N, D)
    unit = F.normalize(embeddings, dim=-1)  # (N, M, D)
    others = unit @ F.normalize(total / utterances, dim=-1).T  # (N, M, N)
    left_out = F.normalize((total[:, None] - embeddings) / (utterances - 1), dim=-1)  # (N, M, D)
    own = (unit * left_out).sum(-1)  # (N, M)
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)[:, None]  # (N, 1, N)
    return torch.where(itself, own[..., None], others)


def ge2e_softmax(similarity: Tensor) -> Tensor:
    """``L(e_ji) = −S_ji,j + log Σ_k exp S_ji,k`` (equation 6), mean over ``similarity`` ``(N, M, N)``."""
    speakers, utterances, _ = similarity.shape
    labels = torch.arange(speakers, device=similarity.device).repeat_interleave(utterances)
    return F.cross_entropy(similarity.flatten(0, 1), labels)


def ge2e_contrast(similarity: Tensor) -> Tensor:
    """``L(e_ji) = 1 − σ(S_ji,j) + max_{k≠j} σ(S_ji,k)`` (equation 7), mean over ``similarity`` ``(N, M, N)``."""
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)[:, None]  # (N, 1, N)
    own = similarity.diagonal(dim1=0, dim2=2)  # (M, N)
    hardest = similarity.masked_fill(itself, float("-inf")).amax(-1)  # (N, M)
    return (1 - own.sigmoid()).mean() + hardest.sigmoid().mean()


class _ScaledCosine(nn.Module):
    """``S = w · cos + b`` with learnable w > 0 and b (equation 5)."""

    def __init__(self, weight: float, bias: float) -> None:
        super().__init__()
        if weight <= 0:
            raise ConfigError(f"weight must be positive, got {weight}", source="GE2E")
        # w = softplus(raw) stays positive without clamping, and moves as w itself would while it is well above 1
        self.raw_weight = nn.Parameter(torch.tensor(weight + math.log(-math.expm1(-weight))))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    @property
    def weight(self) -> Tensor:
        """w."""
        return F.softplus(self.raw_weight)

    def scale(self, cosine: Tensor) -> Tensor:
        """S, of the shape of ``cosine``."""
        return self.weight * cosine + self.bias


class GE2ELoss(_ScaledCosine):
    """GE2E over the embeddings of all processes (Wan et al. 2018).

    Args:
        form: ``softmax`` (equation 6; best for text-independent speech) or ``contrast`` (equation 7).
        weight: w at the start, positive.
        bias: b at the start.
    """

    def __init__(self, form: GE2EForm = "softmax", *, weight: float = 10.0, bias: float = -5.0) -> None:
        super().__init__(weight, bias)
        if form not in ("softmax", "contrast"):
            raise ConfigError(f"unknown form '{form}'", source="GE2E", remedy="use softmax or contrast")
        self.form = form

    def forward(self, embeddings: Tensor) -> Tensor:
        """Loss of this process's embeddings ``(N, M, D)`` together with every other process's: a scalar.

        Raises:
            DataError: fewer than two speakers (over all processes) or utterances.
        """
        similarity = self.scale(cosine_to_centroids(gather_with_grad(embeddings.float())))
        return ge2e_softmax(similarity) if self.form == "softmax" else ge2e_contrast(similarity)


def speaker_centroids(embeddings: Tensor, speakers: Tensor, count: int | None = None) -> Tensor:
    """Mean of *all* utterances of each speaker: the fixed centroids of SGE2E.

    Args:
        embeddings: ``(U, D)`` of the frozen speech encoder.
        speakers: ``(U,)`` integers from 0.
        count: number of speakers K (default: the largest in ``speakers`` plus one).

    Returns:
        ``(K, D)``.

    Raises:
        DataError: a speaker has no utterance.
    """
    count = int(speakers.max()) + 1 if count is None else count
    number = torch.bincount(speakers, minlength=count)  # (K,)
    if len(number) != count or bool((number == 0).any()):
        missing = int((number == 0).nonzero()[0, 0]) if len(number) == count else count
        raise DataError(f"speaker {missing} of {count} has no utterance or does not exist", source="SGE2E centroids")
    total = embeddings.new_zeros(count, embeddings.shape[1]).index_add_(0, speakers, embeddings)
    return total / number[:, None]


class SupervisedGE2ELoss(_ScaledCosine):
    """SGE2E: pulls a face's embedding to the fixed speech centroid of its person (Goto et al. 2020).

    Args:
        among: the speakers in the sum over k: those of the ``batch`` (of all processes), as published, or ``all``.
        weight: w at the start, positive.
        bias: b at the start.
    """

    def __init__(self, *, among: Literal["batch", "all"] = "batch", weight: float = 10.0, bias: float = -5.0) -> None:
        super().__init__(weight, bias)
        if among not in ("batch", "all"):
            raise ConfigError(f"unknown choice of speakers '{among}'", source="SGE2E", remedy="use batch or all")
        self.among = among

    def forward(self, embeddings: Tensor, speakers: Tensor, centroids: Tensor) -> Tensor:
        """Compare faces with fixed centroids.

        Args:
            embeddings: ``(B, D)`` of faces.
            speakers: ``(B,)`` whose faces they are: rows of ``centroids``.
            centroids: ``(K, D)``, see :func:`speaker_centroids`; they get no gradient.

        Returns:
            The loss, a scalar. With one speaker in the whole batch there is nothing to tell apart, and it is 0.
        """
        candidates, labels = centroids.detach(), speakers
        if self.among == "batch":
            present = gather_with_grad(speakers).unique()  # sorted
            candidates, labels = candidates[present], torch.searchsorted(present, speakers)
        unit, targets = F.normalize(embeddings.float(), dim=-1), F.normalize(candidates.float(), dim=-1)
        return F.cross_entropy(self.scale(unit @ targets.T), labels)
