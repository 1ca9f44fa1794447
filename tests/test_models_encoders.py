"""Speaker, voice and face encoders: published sizes, shapes, gradients, determinism, reference implementations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossmodal import models
from crossmodal.errors import AudioError, BundleError, ConfigError, ImageError
from crossmodal.models.face_encoder import (
    HeadFaceEncoder,
    HeadFaceEncoderConfig,
    VGG19FaceEncoder,
    VGG19FaceEncoderConfig,
)
from crossmodal.models.pooling import AttentiveStatisticsPooling, AveragePooling
from crossmodal.models.spaces import space_size
from crossmodal.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig, partial_starts, raise_volume
from crossmodal.models.voice_encoder import (
    ASTVoiceEncoder,
    ASTVoiceEncoderConfig,
    ConvVoiceEncoder,
    ConvVoiceEncoderConfig,
)


def wave(seconds: float, f0: float = 120.0, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """A buzz with a moving filter and some noise: enough like speech to excite every band."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(f0 * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))) / 16_000
    tone = sum(np.sin(k * phase) / k * (1 + np.sin(2 * np.pi * (k % 5) * t / 3)) for k in range(1, 30))
    return (level * (tone / 3 + 0.1 * rng.standard_normal(len(t)))).astype(np.float32)


# kind → (overlay of the debug config, input, shape of the output)
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "speaker": ("speaker-encoder", {}, (3, 160, 40), (3, 256)),
    "conv": ("voice-encoder-conv", {}, (3, 2, 98, 257), (3, 128)),
    "conv-attentive": ("voice-encoder-conv", {"pooling": "attentive"}, (3, 2, 198, 257), (3, 128)),
    "ast": ("voice-encoder-ast", {}, (3, 98, 32), (3, 128)),
    "ast-average": ("voice-encoder-ast", {"pooling": "average"}, (3, 98, 32), (3, 128)),
    "ast-attentive": ("voice-encoder-ast", {"pooling": "attentive"}, (3, 98, 32), (3, 128)),
    "vgg19": ("face-encoder-vgg19", {}, (3, 3, 64, 64), (3, 256)),
    "vgg19-bn": ("face-encoder-vgg19", {"batch_norm": True}, (3, 3, 64, 64), (3, 256)),
    "head": ("face-encoder-head", {}, (3, 128), (3, 256)),
}
cases = pytest.mark.parametrize("case", list(CASES))


def make(case: str) -> tuple[nn.Module, Tensor, tuple[int, ...]]:
    kind, overlay, shape, output = CASES[case]
    torch.manual_seed(0)
    network = models.build(kind, overlay, size="debug")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return network, x.abs() if kind == "speaker-encoder" else x, output


# What every encoder has in common -----------------------------------------------------------------------------------


@cases
def test_shape_kind_and_speaker_space(case: str) -> None:
    network, x, shape = make(case)
    y = network(x)
    assert y.shape == shape
    assert network.kind == CASES[case][0]
    assert shape[-1] == space_size(network.config.output_space)
    if network.config.output_space == "ge2e-256":
        torch.testing.assert_close(y.norm(dim=-1), torch.ones(3))
        assert (y >= 0).all()


@cases
def test_gradient_reaches_every_parameter(case: str) -> None:
    network, x, shape = make(case)
    network(x).mul(torch.randn(shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    # a softmax over attention scores ignores a constant that is added to all of them: keys have a bias without effect
    unreached = {
        name
        for name, p in network.named_parameters()
        if not name.endswith("k_proj.bias") and (p.grad is None or not p.grad.abs().sum() > 0)
    }
    assert not unreached


@cases
def test_eval_is_deterministic_and_examples_are_independent(case: str) -> None:
    network, x, _ = make(case)
    network.eval()
    with torch.no_grad():
        y = network(x)
        assert torch.equal(y, network(x))
        torch.testing.assert_close(network(x[1:2])[0], y[1], rtol=1e-4, atol=1e-5)


@cases
def test_same_seed_same_weights(case: str) -> None:
    one, two = make(case)[0].state_dict(), make(case)[0].state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@cases
def test_bf16_autocast(case: str) -> None:
    network, x, _ = make(case)
    network.eval()
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x).float()
    assert torch.isfinite(rough).all()
    assert torch.nn.functional.cosine_similarity(rough, exact).min() > 0.98


@cases
def test_compiler_traces_it(case: str) -> None:
    network, x, _ = make(case)
    network.eval()
    with torch.no_grad():
        compiled = torch.compile(network, backend="aot_eager")
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiles() -> None:
    network, x, shape = make("head")
    network.eval()
    compiled = torch.compile(network)
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
    compiled(x).mul(torch.randn(shape)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# Sum of the first eight numbers, squared length, largest number and slope of one output of the debug networks.
STORED: dict[str, tuple[float, ...]] = {
    "speaker": (0.202617, 1, 0.302589, -0.278846),
    "conv": (0.203237, 1.87156, 0.301266, 0.980433),
    "conv-attentive": (0.199182, 1.85221, 0.300894, 0.986264),
    "ast": (-0.0981672, 3.39947, 0.442806, -1.54066),
    "ast-average": (-0.110543, 2.45404, 0.332092, -1.04636),
    "ast-attentive": (-0.0928118, 3.30756, 0.43749, -0.23728),
    "vgg19": (0.101557, 1, 0.204284, -0.117118),
    "vgg19-bn": (0.239006, 1, 0.219399, -0.265499),
    "head": (0.01376, 1, 0.289037, 0.124228),
}


@cases
def test_stored_outputs(case: str) -> None:
    network, _, _ = make(case)
    network.eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in sorted(network.named_parameters()):  # whatever initialisation a library prefers
            scale = 1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (1 if name.endswith("norm.weight") else 0))
        y = network(make(case)[1])[0]
    found = [
        y[:8].sum().item(),
        y.square().sum().item(),
        y.amax().item(),
        (y * torch.linspace(-1, 1, len(y))).sum().item(),
    ]
    assert found == pytest.approx(STORED[case], rel=1e-3, abs=1e-5)


# Speaker encoder ----------------------------------------------------------------------------------------------------


def test_speaker_encoder_agrees_with_resemblyzer() -> None:
    resemblyzer = pytest.importorskip("resemblyzer")
    from resemblyzer.audio import normalize_volume

    reference = resemblyzer.VoiceEncoder("cpu", verbose=False)
    waves = [
        wave(0.5),
        wave(1.6),
        wave(25_601 / 16_000),
        wave(2.0, 210.0, 0.5),
        wave(3.3, 90.0, 1e-4),
        wave(7.123, 180.0),
    ]
    ours = SpeakerEncoder.from_package().embed_batch(waves)
    for samples, embedding in zip(waves, ours, strict=True):
        expected = reference.embed_utterance(normalize_volume(samples, -30, increase_only=True))
        torch.testing.assert_close(embedding, torch.from_numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.data
def test_speaker_encoder_agrees_with_resemblyzer_on_speech(data_root: Path) -> None:
    resemblyzer = pytest.importorskip("resemblyzer")
    from crossmodal.audio import load

    reference, ours = resemblyzer.VoiceEncoder("cpu", verbose=False), SpeakerEncoder.from_package()
    files = [
        sorted((data_root / "cmu_arctic" / f"cmu_us_{v}_arctic" / "wav").iterdir())[i]
        for v, i in (("bdl", 3), ("slt", 7))
    ]
    for path in files:
        samples = load(path)
        torch.testing.assert_close(
            ours.embed(samples), torch.from_numpy(reference.embed_utterance(samples)), rtol=0, atol=1e-5
        )


def test_embedding_a_batch_equals_one_by_one() -> None:
    encoder = SpeakerEncoder.from_package()
    waves = [wave(0.7), torch.from_numpy(wave(2.9, 200)), wave(1.7, 150)]
    together = encoder.embed_batch(waves, max_partials=2)
    assert together.shape == (3, 256)
    torch.testing.assert_close(together, torch.stack([encoder.embed(w) for w in waves]), rtol=0, atol=1e-6)
    assert encoder.embed_batch([]).shape == (0, 256)
    assert not together.requires_grad


def test_partials_cover_the_utterance() -> None:
    config = SpeakerEncoderConfig()
    assert partial_starts(100, config) == [0]
    for samples in range(1_000, 120_000, 997):
        starts = partial_starts(samples, config)
        assert starts[0] == 0
        assert set(np.diff(starts)) <= {77}
        assert (starts[-1] + 160) * 160 >= samples - 0.75 * 160 * 160


def test_volume_is_only_raised() -> None:
    quiet, loud = torch.from_numpy(wave(1.0, level=1e-3)), torch.from_numpy(wave(1.0, level=0.5))
    assert 20 * math.log10(raise_volume(quiet).square().mean().sqrt()) == pytest.approx(-30, abs=1e-3)
    assert torch.equal(raise_volume(loud), loud)
    assert torch.equal(raise_volume(torch.zeros(5)), torch.zeros(5))
    encoder = SpeakerEncoder.from_package()
    torch.testing.assert_close(encoder.embed(quiet), encoder.embed(quiet * 0.1), rtol=0, atol=1e-4)


def test_silence_gives_a_finite_embedding() -> None:
    assert torch.isfinite(SpeakerEncoder.from_package().embed(np.zeros(16_000, np.float32))).all()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0), "shape"),
        (np.zeros((2, 100)), "mix to mono"),
        (np.full(9_000, np.nan), "NaN"),
        (np.float32(1), "shape"),
    ],
)
def test_speaker_encoder_refuses(samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        SpeakerEncoder(SpeakerEncoderConfig.debug()).embed_batch([wave(0.5), samples])


def test_speaker_encoder_sizes() -> None:
    def count(config: SpeakerEncoderConfig) -> int:
        h, per_layer = config.hidden_size, 0
        for layer in range(3):
            per_layer += 4 * h * ((40 if layer == 0 else h) + h) + 2 * 4 * h  # four gates, two bias vectors
        return per_layer + h * 256 + 256

    for config in (SpeakerEncoderConfig(), SpeakerEncoderConfig.face2speech()):
        assert sum(p.numel() for p in SpeakerEncoder(config).parameters()) == count(config)
    assert SpeakerEncoderConfig.face2speech().hidden_size == 768
    with pytest.raises(ConfigError, match="partials_per_second"):
        SpeakerEncoderConfig(partials_per_second=0.5)
    with pytest.raises(ConfigError, match="hidden_size"):
        SpeakerEncoderConfig(hidden_size=0)


# Convolutional voice encoder ----------------------------------------------------------------------------------------


def test_conv_voice_encoder_is_the_published_table() -> None:
    with torch.device("meta"):
        encoder = ConvVoiceEncoder()
    convs = [m for m in encoder.convolutions if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 64, 128, 128, 128, 256, 512, 512, 512]
    assert [c.stride for c in convs] == [(1, 1)] * 7 + [(2, 2)] * 2
    assert {c.kernel_size for c in convs} == {(4, 4)}
    order = "".join(
        {nn.Conv2d: "c", nn.MaxPool2d: "p", nn.ReLU: "", nn.BatchNorm2d: ""}[type(m)] for m in encoder.convolutions
    )
    assert order == "cccpcpcpcpccc"
    assert {m.kernel_size for m in encoder.convolutions if isinstance(m, nn.MaxPool2d)} == {(2, 1)}
    # By hand: 16 weights a pair of channels; frequency 257 → seven times −1 → 250 → 125 → 62; two dense layers.
    pairs = 2 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 128 + 128 * 256 + 256 * 512 + 512 * 512 + 512 * 512
    channels = 64 + 64 + 128 + 128 + 128 + 256 + 512 + 512 + 512
    expected = 16 * pairs + channels + 2 * channels + (512 * 62 * 4096 + 4096) + (4096 * 4096 + 4096)
    assert sum(p.numel() for p in encoder.parameters()) == expected == 158_548_736
    assert encoder(torch.empty(2, 2, 598, 257, device="meta")).shape == (2, 4096)


@pytest.mark.parametrize("pooling", ["average", "attentive"])
def test_conv_voice_encoder_takes_any_duration_from_one_second(pooling: Any) -> None:
    import dataclasses

    encoder = ConvVoiceEncoder(dataclasses.replace(ConvVoiceEncoderConfig.debug(), pooling=pooling)).eval()
    for seconds in (1.0, 1.01, 2.5, 6.0, 11.3):
        spectrogram = encoder.features(torch.from_numpy(wave(seconds))[None], seconds=None)
        with torch.no_grad():
            assert encoder(spectrogram).shape == (1, 128)
    with pytest.raises(AudioError, match="one second"):
        encoder(torch.zeros(1, 2, 90, 257))


def test_conv_voice_encoder_features_are_six_seconds() -> None:
    short = torch.from_numpy(wave(2.0))[None]
    encoder = ConvVoiceEncoder(ConvVoiceEncoderConfig.debug())
    assert encoder.features(short).shape == (1, 2, 598, 257)
    torch.testing.assert_close(encoder.features(short), encoder.features(short.repeat(1, 3)))


def test_conv_voice_encoder_pools_time_only() -> None:
    """Moving the input along time hardly changes the output, moving it along frequency does."""
    torch.manual_seed(0)
    encoder = ConvVoiceEncoder(ConvVoiceEncoderConfig.debug())
    assert encoder.after(257, pooled=False) == 62  # no pool touches frequency: only strides and edges
    assert encoder.after(598, pooled=True) == 8
    x = torch.zeros(1, 2, 598, 257)
    x[:, :, 200:360, 60:90] = torch.randn(1, 2, 160, 30)
    encoder(torch.cat([x, torch.randn_like(x)]))  # gives batch norm statistics
    encoder.eval()
    with torch.no_grad():
        base, later, higher = encoder(x), encoder(x.roll(64, 2)), encoder(x.roll(64, 3))
    assert (base - later).norm() < 0.2 * (base - higher).norm()


@pytest.mark.parametrize(
    "overlay", [{"channels": (1, 2)}, {"output_space": "dlib"}, {"pooling": "max"}, {"chanels": 3}]
)
def test_conv_config_refuses(overlay: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        models.build("voice-encoder-conv", overlay, size="debug")


# Transformer voice encoder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1.0, 3.337])
def test_ast_features_agree_with_its_extractor(seconds: float) -> None:
    transformers = pytest.importorskip("transformers")
    samples = wave(seconds)
    expected = transformers.ASTFeatureExtractor(max_length=512)(samples, sampling_rate=16_000, return_tensors="pt")
    config = ASTVoiceEncoderConfig(hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8, max_frames=512)
    encoder = ASTVoiceEncoder(config).eval()
    ours = encoder.features(torch.from_numpy(samples)[None], seconds=None)  # (1, F, 128)
    theirs = expected["input_values"]
    torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], rtol=0, atol=1e-5)
    with torch.no_grad():  # forward pads as the extractor does
        torch.testing.assert_close(encoder(ours), encoder(theirs), rtol=0, atol=1e-5)
    assert encoder.features(torch.from_numpy(samples)[None]).shape == (1, 598, 128)


def test_ast_has_the_published_size() -> None:
    with torch.device("meta"):
        encoder = ASTVoiceEncoder()
    # 12 layers of 768, 16×16 patches every 10 of 1024 × 128, two tokens: by hand
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    patches = ((1024 - 16) // 10 + 1) * ((128 - 16) // 10 + 1)
    backbone = 12 * layer + (16 * 16 * 768 + 768) + (patches + 2) * 768 + 2 * 768 + 2 * 768
    head = 2 * 768 + 768 * 4096 + 4096
    assert sum(p.numel() for p in encoder.parameters()) == backbone + head
    assert encoder(torch.empty(2, 598, 128, device="meta")).shape == (2, 4096)


def test_ast_starts_from_a_local_folder(tmp_path: Path) -> None:
    import dataclasses

    config = ASTVoiceEncoderConfig.debug()
    torch.manual_seed(3)
    saved = ASTVoiceEncoder(config).transformer
    saved.save_pretrained(tmp_path / "ast")
    (tmp_path / "ast" / "preprocessor_config.json").write_text(json.dumps({"mean": -1.5, "std": 2.5}))
    wanted = ASTVoiceEncoderConfig(pooling="average", output_space="facenet-512")
    encoder = ASTVoiceEncoder.from_transformer(tmp_path / "ast", wanted)
    assert encoder.config == dataclasses.replace(
        config, pooling="average", output_space="facenet-512", feature_mean=-1.5, feature_std=2.5
    )
    loaded = encoder.transformer.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in saved.state_dict().items())
    with pytest.raises(BundleError, match="not a folder"):
        ASTVoiceEncoder.from_transformer(tmp_path / "missing")
    (tmp_path / "ast" / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(BundleError, match="no usable transformer"):
        ASTVoiceEncoder.from_transformer(tmp_path / "ast")
    with pytest.raises(ConfigError, match="num_heads"):
        ASTVoiceEncoderConfig(num_heads=5)


def test_ast_pooling_ignores_padding_but_hears_time() -> None:
    import dataclasses

    torch.manual_seed(0)
    encoder = ASTVoiceEncoder(dataclasses.replace(ASTVoiceEncoderConfig.debug(), pooling="average")).eval()
    seen = []
    encoder.pool.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    encoder(torch.randn(2, 64, 32))
    encoder(torch.randn(2, 999, 32))
    assert seen[0].sum(1).tolist() == [4, 4]  # 64 of 128 frames, steps of 16
    assert seen[1].all()


# Pooling ------------------------------------------------------------------------------------------------------------


def test_attentive_statistics_by_hand() -> None:
    pool = AttentiveStatisticsPooling(3, 4)
    x = torch.randn(2, 3, 5, 2)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    weights = pool.weights(x, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert (weights[0, 3:] == 0).all()
    mean, deviation = pool.statistics(x, weights)
    for b in range(2):
        for c in range(3):
            for f in range(2):
                values = x[b, c, :, f].tolist()
                m = sum(w * v for w, v in zip(weights[b].tolist(), values))
                s = math.sqrt(sum(w * (v - m) ** 2 for w, v in zip(weights[b].tolist(), values)))
                assert mean[b, c, f].item() == pytest.approx(m, abs=1e-5)
                assert deviation[b, c, f].item() == pytest.approx(s, abs=1e-4)
    assert pool(x, mask).shape == (2, 3, 2)


def test_masked_frames_do_not_count() -> None:
    x = torch.randn(2, 3, 6)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    for pool in (AveragePooling(), AttentiveStatisticsPooling(3, 4)):
        torch.testing.assert_close(pool(x, mask), pool(x[:, :, :4]), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(pool(x, mask), pool(x))


def test_attention_sees_what_the_mean_does_not() -> None:
    """Two sequences with the same mean and another spread: average pooling cannot tell them apart."""
    calm, lively = torch.zeros(1, 2, 4), torch.tensor([[[1.0, -1, 1, -1], [2, 2, -2, -2]]])
    assert torch.equal(AveragePooling()(calm), AveragePooling()(lively))
    assert not torch.allclose(AttentiveStatisticsPooling(2)(calm), AttentiveStatisticsPooling(2)(lively), atol=1e-2)


# Face encoders ------------------------------------------------------------------------------------------------------


def test_vgg19_agrees_with_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.vgg19(weights=None).features.eval()
    with torch.device("meta"):
        published = VGG19FaceEncoder()
    ours = published.features.to_empty(device="cpu").eval()
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x))
    dense = 512 * 5 * 5 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 256 + 256  # 160 pixels → 5 × 5
    expected = sum(p.numel() for p in reference.parameters()) + dense
    assert sum(p.numel() for p in published.parameters()) == expected


def test_vgg19_preprocess() -> None:
    encoder = VGG19FaceEncoder(VGG19FaceEncoderConfig.debug())
    chips = np.zeros((2, 64, 64, 3), np.uint8)
    chips[1], chips[0, 5, 7, 2] = 255, 51
    x = encoder.preprocess(chips)
    assert x.shape == (2, 3, 64, 64)
    assert x[1].unique().tolist() == [1]
    assert x[0, 2, 5, 7].item() == pytest.approx(51 / 127.5 - 1)
    assert encoder.preprocess(np.zeros((1, 160, 160, 3), np.uint8)).shape == (1, 3, 64, 64)
    with pytest.raises(ImageError, match="chips"):
        encoder.preprocess(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("overlay", [{"image_size": 16}, {"channels": ()}, {"output_space": "256"}])
def test_vgg19_config_refuses(overlay: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        VGG19FaceEncoderConfig(**overlay)


def test_head_standardises_and_starts_at_the_mean_voice() -> None:
    head = HeadFaceEncoder(HeadFaceEncoderConfig(input_space="facenet-512", hidden_sizes=(16,), dropout=0.0)).eval()
    features = 3 + 7 * torch.randn(200, 512)
    head.standardise(features)
    torch.testing.assert_close(((features - head.mean) / head.std).std(0), torch.ones(512))
    assert {"mean", "std"} <= set(head.state_dict())
    voices = torch.nn.functional.normalize(torch.rand(50, 256), dim=-1)
    head.start_at(voices)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.dense[-1].weight.zero_()
        torch.testing.assert_close(
            head(features), torch.nn.functional.normalize(voices.mean(0), dim=-1).expand(200, -1)
        )
    with pytest.raises(ConfigError, match="cannot standardise"):
        head.standardise(features[:, :5])
    constant = torch.ones(4, 512)
    head.standardise(constant)
    assert torch.isfinite(head(constant)).all()


def test_space_size() -> None:
    assert space_size("vggface-4096") == 4096
    for name in ("", "dlib", "dlib-", "dlib-0", "128", "dlib-x"):
        with pytest.raises(ConfigError, match="embedding space"):
            space_size(name)
