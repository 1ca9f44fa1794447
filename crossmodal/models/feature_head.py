"""Speaker embedding → distribution over face features: one voice fits many faces.

A mixture density network (Bishop 1994) behind a bottleneck. From the voice comes only a *cue* of one number (or a
few): how masculine or feminine it sounds, which is what a voice and a face share beyond doubt. The cue moves the means
and the weights of a mixture over face features; everything else about a face (ethnicity, age, identity) spreads as it
does over the people the head was trained on, whoever speaks: it cannot invent what a voice does not tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossmodal.errors import ConfigError


@dataclass(frozen=True)
class FeatureHeadConfig:
    """Size of the head; the defaults are the starter's."""

    input_space: str = "ge2e-256"
    """Name of the speaker space."""
    output_space: str = "dlib-128"
    """Name of the face feature space."""
    input_size: int = 256
    output_size: int = 128
    hidden: tuple[int, ...] = (64,)
    """Layers between embedding and cue; empty for a linear cue."""
    dropout: float = 0.2
    cues: int = 1
    """Numbers that pass from the voice to the face."""
    knots: int = 24
    """Points of the curve from how masculine a voice is to how masculine a face is."""
    components: int = 16
    """Kinds of faces in the mixture."""
    temperature: float = 1.0
    """Of :meth:`FeatureHead.sample`: factor on the mixture's deviations."""
    candidates: int = 24
    """Draws among which :meth:`FeatureHead.sample` looks for a face that differs from the ones before."""
    spread: float = 0.4
    """Least distance between two faces of one sample, in feature units: the first draw as far away is taken. (The
    farthest draw would favour the rarest kinds of faces.)"""

    def __post_init__(self) -> None:
        if min(self.input_size, self.output_size, self.cues, self.components, self.candidates) < 1:
            raise ConfigError("sizes must be at least 1", source="feature-head")
        if self.knots < 2:
            raise ConfigError("needs at least 2 knots", source="feature-head")
        if self.temperature <= 0:
            raise ConfigError("temperature must be positive", source="feature-head")

    @classmethod
    def debug(cls) -> FeatureHeadConfig:
        """Runs in milliseconds."""
        return cls(hidden=(8,), components=4, candidates=6)


def mixture_log_prob(logits: Tensor, means: Tensor, scales: Tensor, values: Tensor) -> Tensor:
    """Log density ``(B,)`` of a diagonal Gaussian mixture (Bishop 1994, equation 29).

    Args:
        logits: ``(B, M)`` of the mixture weights.
        means: ``(B, M, D)``.
        scales: ``(B, M, D)`` standard deviations, positive.
        values: ``(B, D)``.
    """
    z = (values[:, None] - means) / scales  # (B, M, D)
    component = -0.5 * z.square().sum(-1) - scales.log().sum(-1) - 0.5 * values.shape[-1] * math.log(2 * math.pi)
    return torch.logsumexp(logits.log_softmax(-1) + component, dim=-1)


class FeatureHead(nn.Module):
    """Speaker embedding → mixture of Gaussians over face features, in a whitened feature space.

    ``feature = mean + (z · axes) `` with ``z`` of unit deviation along each axis over the training faces.
    """

    kind: ClassVar[str] = "feature-head"

    feature_mean: Tensor
    axes: Tensor
    cue_range: Tensor
    knots: Tensor

    def __init__(self, config: FeatureHeadConfig) -> None:
        super().__init__()
        self.config = config
        size, cues, kinds = config.output_size, config.cues, config.components
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("axes", torch.eye(size))  # rows: principal axes times deviations
        self.register_buffer("cue_range", torch.tensor([[-3.0], [3.0]]).repeat(1, cues))
        self.register_buffer("knots", torch.linspace(-3, 3, config.knots)[:, None].repeat(1, 2))
        self.linear = nn.Linear(config.input_size, cues)
        layers: list[nn.Module] = []
        width = config.input_size
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.dropout)]
            width = hidden
        self.bend = nn.Sequential(*layers, nn.Linear(width, cues, bias=False)) if config.hidden else None
        if self.bend is not None:
            nn.init.zeros_(self.bend[-1].weight)  # type: ignore[arg-type]
        # The face along the cue: z = line(cue, cue²) + the kind's offset
        self.line = nn.Linear(2 * cues, size)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)
        self.offsets = nn.Parameter(0.5 * torch.randn(kinds, size))
        self.log_scales = nn.Parameter(torch.zeros(kinds, size))
        self.weights = nn.Linear(2 * cues, kinds)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def heard(self, embedding: Tensor) -> Tensor:
        """Speaker embeddings ``(B, E)`` → how masculine each voice sounds ``(B, cues)``: −1 like women's voices on
        average, +1 like men's in the starter.

        Raises:
            ConfigError: the embeddings have another size.
        """
        if embedding.ndim != 2 or embedding.shape[1] != self.config.input_size:
            problem = f"expected embeddings (B, {self.config.input_size}), got {tuple(embedding.shape)}"
            raise ConfigError(problem, source="feature-head", remedy=f"use embeddings of {self.config.input_space}")
        heard = self.linear(embedding)
        if self.bend is not None:
            heard = heard + self.bend(embedding)
        low, high = self.cue_range
        half = (high - low) / 2
        # Voices beyond all that was heard in training get the face at the end of the range.
        return low + half * (1 + torch.tanh((heard - low - half) / half))

    def cue(self, embedding: Tensor) -> Tensor:
        """Speaker embeddings ``(B, E)`` → place of the face ``(B, cues)`` on the same scale among faces: :meth:`heard`,
        through a rising curve (:attr:`knots`), so that no step of a voice is lost where few faces lie.

        Raises:
            ConfigError: the embeddings have another size.
        """
        heard, (x, y) = self.heard(embedding), self.knots.T
        right = (heard[..., None] > x).sum(-1).clamp(1, len(x) - 1)
        share = (heard - x[right - 1]) / (x[right] - x[right - 1])
        return y[right - 1] + share * (y[right] - y[right - 1])

    def mixture(self, cue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cue ``(B, cues)`` → logits ``(B, M)``, means ``(B, M, D)`` and deviations ``(B, M, D)`` in whitened space."""
        powers = torch.cat([cue, cue.square()], dim=-1)  # (B, 2 cues)
        means = self.line(powers)[:, None] + self.offsets  # (B, M, D)
        scales = self.log_scales.clamp(-4, 1).exp().expand_as(means)
        return self.weights(powers), means, scales

    def whiten(self, feature: Tensor) -> Tensor:
        """Face features ``(..., D)`` → whitened ``z`` of the same shape."""
        return (feature - self.feature_mean) @ torch.linalg.inv(self.axes)

    def colour(self, z: Tensor) -> Tensor:
        """The reverse of :meth:`whiten`."""
        return self.feature_mean + z @ self.axes

    def log_prob(self, embedding: Tensor, feature: Tensor) -> Tensor:
        """Log density of face features ``(B, D)`` for voices ``(B, E)`` → ``(B,)``."""
        return self.log_prob_at(self.cue(embedding), feature)

    def log_prob_at(self, cue: Tensor, feature: Tensor) -> Tensor:
        """Log density of face features ``(B, D)`` at cues ``(B, cues)`` → ``(B,)``."""
        volume = torch.linalg.slogdet(self.axes)[1]
        return mixture_log_prob(*self.mixture(cue), self.whiten(feature)) - volume

    def mode(self, embedding: Tensor) -> Tensor:
        """The most typical face feature for each voice: ``(B, E)`` → ``(B, D)``.

        The centre of the commonest kind of face, the same kind for every voice, so that it moves smoothly with the
        voice instead of jumping from person to person.
        """
        _, means, _ = self.mixture(self.cue(embedding))
        return self.colour(means[:, self.weights.bias.argmax()])

    def sample(self, embedding: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` plausible, different faces for each voice: ``(B, E)`` → ``(B, n, D)``; the first is the mode.

        Each further one is the first draw from the mixture that lies ``config.spread`` from all before it, so that
        kinds of faces come about as often as among people; of ``config.candidates`` draws the farthest if none does.

        Raises:
            ConfigError: ``n`` is less than 1.
        """
        if n < 1:
            raise ConfigError(f"{n} faces asked for", source="n", remedy="ask for one or more")
        logits, means, scales = self.mixture(self.cue(embedding))
        chosen = [self.mode(embedding)]
        batch, size = means.shape[0], means.shape[-1]
        kind_weights = logits.softmax(-1).cpu()
        for _ in range(n - 1):
            count = self.config.candidates
            kinds = torch.multinomial(kind_weights, count, replacement=True, generator=generator).to(means.device)
            noise = torch.randn(batch, count, size, generator=generator).to(means)
            index = kinds[..., None].expand(-1, -1, size)
            z = means.gather(1, index) + self.config.temperature * scales.gather(1, index) * noise
            candidates = self.colour(z)  # (B, C, D)
            distance = torch.cdist(candidates, torch.stack(chosen, dim=1)).amin(-1)  # (B, C)
            enough = (distance >= self.config.spread).to(distance)
            first = torch.where(enough.any(-1), enough.argmax(-1), distance.argmax(-1))  # argmax: the first of equals
            best = first[:, None, None].expand(-1, 1, size)
            chosen.append(candidates.gather(1, best)[:, 0])
        return torch.stack(chosen, dim=1)

    def forward(self, embedding: Tensor) -> Tensor:
        """The same as :meth:`mode`."""
        return self.mode(embedding)
