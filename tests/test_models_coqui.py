"""coqui-tts's networks behind the library's interfaces: HiFi-GAN and the SpeedySpeech acoustic model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossmodal import models
from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError
from crossmodal.models.hifigan import HiFiGANConfig

pytest.importorskip("TTS", reason="coqui-tts is not installed")


@pytest.fixture(scope="module")
def vocoder() -> nn.Module:
    torch.manual_seed(0)
    return models.build("vocoder-hifigan", size="debug").eval()


@pytest.fixture(scope="module")
def acoustic() -> Any:
    torch.manual_seed(0)
    return models.build("acoustic-coqui", size="debug").eval()


def training_input(frames: int = 24, tokens: int = 6) -> dict[str, Tensor]:
    """Two sentences, the second one shorter."""
    generator = torch.Generator().manual_seed(1)

    def whole(high: int) -> Tensor:
        return torch.randint(high, (2, tokens), generator=generator)

    token_mask = torch.ones(2, tokens)
    token_mask[1, 4:] = 0
    frame_mask = torch.ones(2, frames)
    frame_mask[1, 16:] = 0
    embedding = torch.nn.functional.normalize(torch.rand(2, 256, generator=generator), dim=-1)
    return {
        "phones": whole(30), "stress": whole(3), "word_final": whole(2), "marks": whole(3), "token_mask": token_mask,
        "embedding": embedding, "token": (torch.arange(frames) * tokens // frames).expand(2, -1).contiguous(),
        "position": torch.rand(2, frames, 3, generator=generator), "frame_mask": frame_mask,
        "f0": torch.full((2, frames), 150.0), "energy": torch.rand(2, tokens, generator=generator),
    }  # fmt: skip


# HiFi-GAN


def test_hifigan_shape_range_and_determinism(vocoder: nn.Module) -> None:
    mel = torch.randn(2, 100, 7, generator=torch.Generator().manual_seed(0)) - 5
    with torch.no_grad():
        waveform = vocoder(mel, torch.zeros(2, 7))
        assert waveform.shape == (2, 7 * AudioConfig().hop_length)
        assert waveform.abs().max() <= 1
        assert torch.equal(waveform, vocoder(mel))  # F0 is ignored
        torch.testing.assert_close(vocoder(mel[1:])[0], waveform[1], rtol=1e-4, atol=1e-6)


def test_hifigan_gradient_and_bf16() -> None:
    torch.manual_seed(0)
    network = models.build("vocoder-hifigan", size="debug")
    mel = torch.randn(2, 100, 5)
    (network(mel) * torch.randn(2, 1000)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(mel).float()).all()


def test_hifigan_published_size() -> None:
    """V1 with our strides, counted by hand: weight-normalised layers hold one length for each of dimension 0."""
    network = models.build("vocoder-hifigan")
    assert math.prod(network.config.upsample_factors) == 200

    def conv(inside: int, outside: int, kernel: int, lengths: int) -> int:
        return inside * outside * kernel + outside + lengths

    total = conv(100, 512, 7, 512)
    channels = 512
    for kernel in network.config.upsample_kernels:
        total += conv(channels, channels // 2, kernel, channels)  # transposed: dimension 0 are the inputs
        channels //= 2
        total += sum(6 * conv(channels, channels, k, channels) for k in (3, 7, 11))
    total += conv(channels, 1, 7, 1)
    assert sum(p.numel() for p in network.parameters()) == total


def test_hifigan_export_round_trip(vocoder: Any) -> None:
    torch.manual_seed(5)
    other: Any = models.build("vocoder-hifigan", size="debug").eval()
    mel = torch.randn(1, 100, 6)
    state = vocoder.export_state()
    assert len(state) < len(vocoder.state_dict())
    with torch.no_grad():
        assert not torch.allclose(other(mel), vocoder(mel))
        other.load_export(state)
        torch.testing.assert_close(other(mel), vocoder(mel), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        other.load_export({"conv_pre.bias": torch.zeros(3)})


@pytest.mark.parametrize(
    "values",
    [
        {"upsample_factors": (8, 8, 2, 2), "upsample_kernels": (16, 16, 4, 4)},
        {"upsample_kernels": (10, 11, 8, 4)},
        {"upsample_kernels": (11, 11, 8)},
        {"channels": 100},
        {"resblock": "2"},
        {"resblock_kernels": (3,)},
    ],
)
def test_hifigan_config_refuses(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HiFiGANConfig(**values)


# Acoustic model


def test_acoustic_training_shapes(acoustic: Any) -> None:
    with torch.no_grad():
        predicted = acoustic(**training_input())
    assert predicted.mel.shape == (2, 24, 100)
    assert predicted.log_duration.shape == predicted.energy.shape == (2, 6)
    assert predicted.log_f0.shape == predicted.voicing.shape == (2, 24)


def test_acoustic_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network: Any = models.build("acoustic-coqui", size="debug")
    predicted = network(**training_input())
    parts = (predicted.mel, predicted.log_duration, predicted.energy, predicted.log_f0, predicted.voicing)
    sum((part * torch.randn_like(part)).sum() for part in parts).backward()  # type: ignore[union-attr]
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not unreached


def test_acoustic_ignores_what_is_masked(acoustic: Any) -> None:
    batch = training_input()
    changed = {key: value.clone() for key, value in batch.items()}
    changed["phones"][1, 4:] = 0
    changed["token"][1, 16:] = 5
    with torch.no_grad():
        one, two = acoustic(**batch), acoustic(**changed)
    torch.testing.assert_close(one.log_duration[1, :4], two.log_duration[1, :4])
    torch.testing.assert_close(one.mel[1, :16], two.mel[1, :16])


def test_token_ids_are_unique(acoustic: Any) -> None:
    config = acoustic.config
    grid = torch.cartesian_prod(
        torch.arange(len(config.phones)), torch.arange(3), torch.arange(2), torch.arange(len(config.punctuation))
    )
    ids = acoustic.token_ids(*grid.T)
    assert len(ids.unique()) == len(grid) == acoustic.token.num_embeddings
    assert ids.min() == 0
    assert ids.max() == len(grid) - 1


def test_acoustic_speaks_through_the_vocoder(acoustic: Any, vocoder: nn.Module) -> None:
    from crossmodal import text

    tokens = text.encode("Good morning, my friend.")
    voice = torch.nn.functional.normalize(torch.rand(256, generator=torch.Generator().manual_seed(2)), dim=0)
    spoken = acoustic.infer(tokens, voice)
    frames = int(spoken.durations.sum())
    assert len(spoken.durations) == len(tokens)
    assert spoken.mel.shape == (100, frames)
    assert spoken.f0.shape == (frames,)
    assert torch.equal(spoken.mel, acoustic.infer(tokens, voice).mel)
    assert acoustic.infer(tokens, voice, speed=2.0).mel.shape[1] < frames
    other = torch.nn.functional.normalize(torch.rand(256, generator=torch.Generator().manual_seed(3)), dim=0)
    assert not torch.equal(spoken.mel, acoustic.infer(tokens, other).mel)
    with torch.no_grad():
        assert vocoder(spoken.mel[None], spoken.f0[None]).shape == (1, frames * 200)
    with pytest.raises(ConfigError, match="speed"):
        acoustic.infer(tokens, voice, speed=5.0)


def test_acoustic_stored_outputs(acoustic: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(0)
    network: Any = models.build("acoustic-coqui", size="debug").eval()
    with torch.no_grad():
        for name, p in sorted(network.named_parameters()):
            if name.startswith("pitch_line"):
                continue
            p.copy_(torch.randn(p.shape, generator=generator) * (1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.1))
        out = network(**training_input())
    found = [
        float(v) for v in (out.mel.std(), out.mel.mean(), out.log_duration.mean(), out.log_f0.mean(), out.voicing.sum())
    ]
    assert found == pytest.approx(STORED, rel=1e-3, abs=1e-4)


STORED = [0.119888, 0.0131447, 2.12238, 5.36679, -15.9142]


@pytest.mark.parametrize("values", [{"channels": 0}, {"input_space": "ge2e"}, {"punctuation": (",",)}, {"chanels": 4}])
def test_acoustic_config_refuses(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        models.build("acoustic-coqui", values, size="debug")
