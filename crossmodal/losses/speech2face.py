"""Losses of the Speech2Face voice encoder (Oh et al. 2019, section 3 and supplementary material).

Every term is computed per example and then averaged over the batch, so the balance between the terms does not depend
on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.errors import ConfigError

FaceLoss = Literal["full", "l1", "normalised-l2"]
Layer = Callable[[Tensor], Tensor]


def l1(predicted: Tensor, target: Tensor) -> Tensor:
    """``‖v_f − v_s‖₁`` per example: ``(B, D)``, ``(B, D)`` → ``(B,)``."""
    return (target.float() - predicted.float()).abs().sum(-1)


def normalised_l2(predicted: Tensor, target: Tensor) -> Tensor:
    """``‖v_f/‖v_f‖ − v_s/‖v_s‖‖₂²`` per example: ``(B, D)``, ``(B, D)`` → ``(B,)`` in [0, 4]."""
    return (F.normalize(target.float(), dim=-1) - F.normalize(predicted.float(), dim=-1)).square().sum(-1)


def distillation(predicted: Tensor, target: Tensor, temperature: float = 2.0) -> Tensor:
    """``−Σ_i p_i(a) log p_i(b)``, ``p(a) = softmax(a / T)``, of logits (Hinton et al. 2015), per example.

    Args:
        predicted: b, logits ``(B, C)`` of the voice's feature.
        target: a, logits ``(B, C)`` of the face's feature.
        temperature: T.

    Returns:
        ``(B,)``.
    """
    teacher = (target.float() / temperature).softmax(-1)
    return -(teacher * (predicted.float() / temperature).log_softmax(-1)).sum(-1)


class Speech2FaceLoss(torch.nn.Module):
    """``L = ‖f_dec(v_f) − f_dec(v_s)‖₁ + λ₁ ‖v_f/‖v_f‖ − v_s/‖v_s‖‖₂² + λ₂ L_distill(f_VGG(v_f), f_VGG(v_s))``.

    Args:
        decoder_layer: f_dec, the first layer of the face decoder ``(B, D) → (B, H)``. Without one the first term
            compares the features themselves.
        face_layer: f_VGG, the last layer of the face-recognition network ``(B, D) → (B, C)``. Without one (some
            networks have no classifier) there is no distillation term.
        kind: ``full``, or an ablation: ``l1`` of the features, or their ``normalised-l2``.
        feature_weight: λ₁.
        distillation_weight: λ₂.
        temperature: T of the distillation.

    The two layers are used as they are: keep them frozen and on the device of the features. Modules among them are not
    registered, so they are neither trained nor saved with the loss.
    """

    def __init__(
        self,
        decoder_layer: Layer | None = None,
        face_layer: Layer | None = None,
        *,
        kind: FaceLoss = "full",
        feature_weight: float = 0.025,
        distillation_weight: float = 200.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        if kind not in ("full", "l1", "normalised-l2"):
            raise ConfigError(f"unknown loss '{kind}'", source="speech2face", remedy="use full, l1 or normalised-l2")
        if temperature <= 0 or feature_weight < 0 or distillation_weight < 0:
            raise ConfigError("temperature must be positive and weights not negative", source="speech2face")
        self.kind = kind
        self.feature_weight, self.distillation_weight, self.temperature = (
            feature_weight,
            distillation_weight,
            temperature,
        )
        self._layers = (decoder_layer, face_layer)  # a tuple: nn.Module registers no modules inside it

    def forward(self, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compare the voice's features with the face's.

        Args:
            predicted: v_s ``(B, D)``.
            target: v_f ``(B, D)``.

        Returns:
            ``loss`` and its unweighted terms: scalars, means over the batch.
        """
        if self.kind != "full":
            loss = l1(predicted, target) if self.kind == "l1" else normalised_l2(predicted, target)
            return {"loss": loss.mean()}
        decoder_layer, face_layer = self._layers
        first = l1(decoder_layer(predicted), decoder_layer(target)) if decoder_layer else l1(predicted, target)
        terms = {"decoder_l1": first.mean(), "feature_l2": normalised_l2(predicted, target).mean()}
        loss = terms["decoder_l1"] + self.feature_weight * terms["feature_l2"]
        if face_layer:
            terms["distillation"] = distillation(face_layer(predicted), face_layer(target), self.temperature).mean()
            loss = loss + self.distillation_weight * terms["distillation"]
        return {"loss": loss, **terms}
