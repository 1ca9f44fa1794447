"""Opponents of the vocoder in adversarial training; never part of a bundle.

- multi-period: Kong et al., "HiFi-GAN" (NeurIPS 2020), section 2.3: the waveform folded at a prime period, 2-D
  convolutions along time only;
- multi-resolution: Jang et al., "UnivNet" (Interspeech 2021), section 2.3: convolutions on STFT magnitudes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.1


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Periods, resolutions and widths (defaults: as published)."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Periods, in samples, of the multi-period discriminator."""
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    """Width of its layers; all but the last have a stride of 3."""
    resolutions: tuple[tuple[int, int, int], ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
    """(FFT size, hop, window) of each spectrogram discriminator."""
    resolution_channels: int = 32
    """Width of the spectrogram discriminators."""

    @classmethod
    def debug(cls) -> DiscriminatorConfig:
        """Runs in milliseconds."""
        return cls(periods=(2, 3), period_channels=(4, 8), resolutions=((256, 64, 256),), resolution_channels=4)


class PeriodDiscriminator(nn.Module):
    """One period: ``(B, T)`` → score ``(B, N)`` and the features of every layer."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = (1, *channels)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (1 if i == len(channels) - 1 else 3, 1), padding=(2, 0)))
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        if rest := -waveform.shape[1] % self.period:
            waveform = F.pad(waveform, (0, rest), mode="reflect")
        x = waveform.view(len(waveform), 1, -1, self.period)  # (B, 1, T / p, p)
        return _run(x, self.layers, self.score)


class ResolutionDiscriminator(nn.Module):
    """One STFT resolution: ``(B, T)`` → score ``(B, N)`` and the features of every layer."""

    window: Tensor

    def __init__(self, n_fft: int, hop: int, length: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(length), persistent=False)
        shapes = [((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(channels if i else 1, channels, kernel, stride, padding=(1, kernel[1] // 2)))
            for i, (kernel, stride) in enumerate(shapes)
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(), self.n_fft, self.hop, len(self.window), self.window, return_complex=True
            )
            power = spectrum.real.square() + spectrum.imag.square()
            x = torch.sqrt(power.clamp_min(1e-9)).transpose(1, 2)[:, None]  # (B, 1, frames, bins)
        return _run(x, self.layers, self.score)


class VocoderDiscriminator(nn.Module):
    """All periods and all resolutions together."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleList(
            [PeriodDiscriminator(period, config.period_channels) for period in config.periods]
            + [ResolutionDiscriminator(*r, config.resolution_channels) for r in config.resolutions]
        )

    def forward(self, waveform: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """``(B, T)`` → scores ``(B, N_k)`` and layer features, one entry for each sub-discriminator."""
        outputs = [part(waveform) for part in self.parts]
        return [score for score, _ in outputs], [features for _, features in outputs]


def _run(x: Tensor, layers: nn.ModuleList, score: nn.Module) -> tuple[Tensor, list[Tensor]]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), _SLOPE)
        features.append(x)
    x = score(x)
    features.append(x)
    return x.flatten(1), features
