"""Losses of the vocoder: spectral ones that need no opponent, and the adversarial ones with feature matching.

- multi-resolution STFT loss: Yamamoto et al., "Parallel WaveGAN" (ICASSP 2020), eq. 4–6;
- mel loss: Kong et al., "HiFi-GAN" (NeurIPS 2020), eq. 4, on the library's own log-mel;
- least-squares adversarial losses: Mao et al. (ICCV 2017), as in HiFi-GAN eq. 1–2;
- feature matching: HiFi-GAN eq. 5 (Larsen et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.audio import log_mel

RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
"""(FFT size, hop, window) of Parallel WaveGAN."""


def magnitude(waveform: Tensor, n_fft: int, hop: int, window: Tensor, floor: float = 1e-7) -> Tensor:
    """``(B, T)`` → ``(B, n_fft // 2 + 1, frames)`` STFT magnitude; at least ``sqrt(floor)``, so that its logarithm and
    gradient exist everywhere."""
    spectrum = torch.stft(waveform, n_fft, hop, len(window), window, return_complex=True)
    return torch.sqrt((spectrum.real.square() + spectrum.imag.square()).clamp_min(floor))


def spectral_convergence(estimate: Tensor, target: Tensor) -> Tensor:
    """``‖ |S| − |Ŝ| ‖_F / ‖ |S| ‖_F`` over the batch (Parallel WaveGAN eq. 4); magnitudes of equal shape."""
    return torch.linalg.vector_norm(target - estimate) / torch.linalg.vector_norm(target).clamp_min(1e-7)


def log_magnitude_distance(estimate: Tensor, target: Tensor) -> Tensor:
    """``mean | log |S| − log |Ŝ| |`` (Parallel WaveGAN eq. 5); positive magnitudes of equal shape."""
    return F.l1_loss(torch.log(estimate), torch.log(target))


class MultiResolutionSTFTLoss(nn.Module):
    """Spectral convergence + log magnitude distance, averaged over STFT resolutions (Parallel WaveGAN eq. 6)."""

    def __init__(self, resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = [(n_fft, hop) for n_fft, hop, _ in resolutions]
        for i, (_, _, length) in enumerate(resolutions):
            self.register_buffer(f"window_{i}", torch.hann_window(length), persistent=False)

    def forward(self, estimate: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T)`` twice → (mean spectral convergence, mean log magnitude distance)."""
        with torch.autocast(estimate.device.type, enabled=False):
            convergence = distance = estimate.new_zeros((), dtype=torch.float32)
            for i, (n_fft, hop) in enumerate(self.resolutions):
                window = self.get_buffer(f"window_{i}")
                a = magnitude(estimate.float(), n_fft, hop, window)
                b = magnitude(target.float(), n_fft, hop, window)
                convergence = convergence + spectral_convergence(a, b)
                distance = distance + log_magnitude_distance(a, b)
        return convergence / len(self.resolutions), distance / len(self.resolutions)


def mel_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """``mean | mel(x) − mel(x̂) |`` on the library's log-mel (HiFi-GAN eq. 4); waveforms ``(B, T)``."""
    with torch.autocast(estimate.device.type, enabled=False):
        return F.l1_loss(log_mel(estimate.float()), log_mel(target.float()))


def discriminator_loss(real: Sequence[Tensor], generated: Sequence[Tensor]) -> Tensor:
    """``Σ_k E[(D_k(x) − 1)²] + E[D_k(x̂)²]`` over the sub-discriminators (HiFi-GAN eq. 1)."""
    losses = [
        (r.float() - 1.0).square().mean() + g.float().square().mean() for r, g in zip(real, generated, strict=True)
    ]
    return torch.stack(losses).sum()


def generator_loss(generated: Sequence[Tensor]) -> Tensor:
    """``Σ_k E[(D_k(x̂) − 1)²]`` (HiFi-GAN eq. 2)."""
    return torch.stack([(g.float() - 1.0).square().mean() for g in generated]).sum()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], generated: Sequence[Sequence[Tensor]]) -> Tensor:
    """``Σ_k Σ_i mean | D_k^i(x) − D_k^i(x̂) |`` over sub-discriminators ``k`` and their layers ``i`` (HiFi-GAN eq. 5).

    The features of the real waveform carry no gradient.
    """
    losses = [
        F.l1_loss(b.float(), a.detach().float())
        for layers_a, layers_b in zip(real, generated, strict=True)
        for a, b in zip(layers_a, layers_b, strict=True)
    ]
    return torch.stack(losses).sum()
