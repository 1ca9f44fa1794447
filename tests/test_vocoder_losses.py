"""The vocoder's losses against loops in numpy, librosa and scipy."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from crossmodal.losses.vocoder import (
    MultiResolutionSTFTLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    mel_loss,
)
from crossmodal.models.discriminators import DiscriminatorConfig, VocoderDiscriminator


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches of noise bursts, ``(2, 4000)``."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(2, 4000, generator=generator) * 0.1
    return a, a + 0.05 * torch.randn(2, 4000, generator=generator)


def test_multi_resolution_stft_loss_is_the_formula(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    resolutions = ((256, 64, 200), (512, 100, 400))
    convergence, distance = MultiResolutionSTFTLoss(resolutions)(*pair)
    expected = np.zeros(2)
    for n_fft, hop, length in resolutions:
        squared_error = squared_target = log_error = count = 0.0
        for estimate, target in zip(pair[0].numpy(), pair[1].numpy(), strict=True):
            a, b = (
                np.abs(librosa.stft(x, n_fft=n_fft, hop_length=hop, win_length=length, pad_mode="reflect"))
                for x in (estimate, target)
            )
            a, b = np.maximum(a, 10**-3.5), np.maximum(b, 10**-3.5)
            squared_error += ((b - a) ** 2).sum()
            squared_target += (b**2).sum()
            log_error += np.abs(np.log(a) - np.log(b)).sum()
            count += a.size
        expected += [np.sqrt(squared_error) / np.sqrt(squared_target), log_error / count]
    np.testing.assert_allclose([convergence, distance], expected / 2, rtol=1e-4)


def test_stft_loss_is_zero_for_equal_waveforms_and_finite_for_silence(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = MultiResolutionSTFTLoss()
    assert sum(loss(pair[0], pair[0])) == 0.0
    silence = torch.zeros(1, 4000, requires_grad=True)
    convergence, distance = loss(silence, pair[0][:1])
    (convergence + distance).backward()
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()


def test_mel_loss_is_the_mean_distance_of_librosa_mels(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logs = [
        np.log(
            np.maximum(
                librosa.feature.melspectrogram(
                    y=x.numpy(), sr=16000, n_fft=1024, hop_length=200, win_length=800, n_mels=100, power=1.0,
                    pad_mode="reflect",
                ),
                1e-5,
            )
        )
        for x in pair
    ]  # fmt: skip
    assert float(mel_loss(*pair)) == pytest.approx(np.abs(logs[0] - logs[1]).mean(), rel=1e-3)


def test_adversarial_losses_are_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    real = [torch.randn(2, n, generator=generator) for n in (3, 7)]
    fake = [torch.randn(2, n, generator=generator) for n in (3, 7)]
    d = sum(((r.numpy() - 1) ** 2).mean() + (f.numpy() ** 2).mean() for r, f in zip(real, fake, strict=True))
    g = sum(((f.numpy() - 1) ** 2).mean() for f in fake)
    assert float(discriminator_loss(real, fake)) == pytest.approx(d, rel=1e-5)
    assert float(generator_loss(fake)) == pytest.approx(g, rel=1e-5)


def test_feature_matching_sums_the_mean_distance_of_every_layer() -> None:
    generator = torch.Generator().manual_seed(1)
    real = [[torch.randn(2, 3, n, generator=generator, requires_grad=True) for n in (4, 2)] for _ in range(2)]
    fake = [[torch.randn(2, 3, n, generator=generator, requires_grad=True) for n in (4, 2)] for _ in range(2)]
    loss = feature_matching_loss(real, fake)
    expected = 0.0
    for k in range(2):
        for i in range(2):
            expected += np.abs(real[k][i].detach().numpy() - fake[k][i].detach().numpy()).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(layer.grad is None for part in real for layer in part)
    assert all(layer.grad is not None for part in fake for layer in part)


def test_period_discriminator_never_mixes_phases_of_its_period() -> None:
    """Layer features of phase ``k`` depend only on the samples ``k, k + p, k + 2p, …``."""
    torch.manual_seed(0)
    config = DiscriminatorConfig.debug()
    part = VocoderDiscriminator(config).parts[1]  # period 3
    wave = torch.randn(1, 300)
    changed = wave.clone()
    changed[0, 1::3] += 1.0
    before, after = part(wave)[1][0], part(changed)[1][0]  # (1, C, N, 3)
    torch.testing.assert_close(before[..., [0, 2]], after[..., [0, 2]])
    assert not torch.allclose(before[..., 1], after[..., 1])


def test_discriminators_have_the_published_parts_and_learn() -> None:
    full = VocoderDiscriminator(DiscriminatorConfig())
    assert len(full.parts) == 8
    torch.manual_seed(0)
    small = VocoderDiscriminator(DiscriminatorConfig.debug())
    optimiser = torch.optim.Adam(small.parameters(), 3e-3)
    time = torch.arange(2000) / 16000
    real = torch.sin(2 * torch.pi * 220 * time).expand(4, -1)
    fake = torch.randn(4, 2000) * 0.7
    losses = []
    for _ in range(40):
        loss = discriminator_loss(small(real)[0], small(fake)[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]
