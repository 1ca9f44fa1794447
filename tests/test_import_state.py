"""Foreign state dicts by maps: the packaged maps against networks laid out as published, and what does not fit."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from crossmodal import models
from crossmodal.bundle import Bundle
from crossmodal.cli.app import app
from crossmodal.config import load_yaml, save_yaml
from crossmodal.errors import BundleError, ConfigError
from crossmodal.models.foreign_weights import read_state
from crossmodal.models.state_map import MAPS, apply_map, packaged_maps, read_map


def shuffled(module: nn.Module) -> nn.Module:
    """Random weights and statistics, so that nothing is at its initial value; eval mode."""
    generator = torch.Generator().manual_seed(3)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            scale = 0.3 if value.ndim < 2 else (2 / value[0].numel()) ** 0.5
            noise = torch.randn(value.shape, generator=generator) * scale
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
    return module.eval()


def small_map(name: str, folder: Path, **config: Any) -> Path:
    """A packaged map for a network of small width."""
    content = load_yaml(MAPS / f"{name}.yaml")
    content["config"] = {**content.get("config", {}), **config}
    save_yaml(content, folder / "map.yaml")
    return folder / "map.yaml"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["models", "import", "state-dict", *map(str, arguments)])


# The published face decoder ----------------------------------------------------------------------------------------


Sizes = tuple[int, ...]


class PublishedDecoder(nn.Module):
    """Layer names and order of the published checkpoint; sizes as given."""

    def __init__(
        self, sizes: tuple[int, ...], landmark: tuple[int, ...], channels: tuple[int, ...], start: int
    ) -> None:
        super().__init__()

        def dense(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())

        self.pre_layers = nn.ModuleList(dense(a, b) for a, b in itertools.pairwise(sizes))
        points = (sizes[-1], *landmark)
        self.landmark_layers = nn.ModuleList(dense(a, b) for a, b in itertools.pairwise(points[:-1]))
        self.landmark_layers.append(nn.Sequential(nn.Linear(*points[-2:])))
        first = nn.Linear(sizes[-1], channels[0] * start**2)
        self.texture_layers = nn.ModuleList([nn.Sequential(first, nn.ReLU())])
        for index, (a, b) in enumerate(itertools.pairwise(channels)):
            up = nn.ConvTranspose2d(a, b, 5, 2, padding=2, output_padding=1)
            head = [nn.Unflatten(1, (channels[0], start, start))] if index == 0 else []
            self.texture_layers.append(nn.Sequential(*head, up, nn.ReLU()))
        self.texture_layers.append(nn.Sequential(nn.Conv2d(channels[-1], 3, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = nn.Sequential(*self.pre_layers)(x)
        return nn.Sequential(*self.landmark_layers)(hidden), nn.Sequential(*self.texture_layers)(hidden)


DECODER = {
    "input_space": "dlib-128", "hidden": [16, 12], "landmark_hidden": [9, 8, 7], "landmarks": 5, "start": 2,
    "channels": [6, 5, 4, 4, 3],
}  # fmt: skip


@pytest.fixture
def decoder(tmp_path: Path) -> tuple[PublishedDecoder, Path]:
    """The published layout with its training state around it, as its trainer saves it."""
    network = PublishedDecoder((128, 16, 12), (9, 8, 7, 10), (6, 5, 4, 4, 3), 2)
    shuffled(network)
    optimiser = torch.optim.Adam(network.parameters()).state_dict()
    loss = np.float64(0.25)  # a loss that was logged as a NumPy number
    torch.save(
        {"epoch": 3, "loss": loss, "model_state_dict": network.state_dict(), "optimizer_state_dict": optimiser},
        tmp_path / "best_face_decoder.pt",
    )
    return network, tmp_path / "best_face_decoder.pt"


def test_published_decoder(tmp_path: Path, decoder: tuple[PublishedDecoder, Path]) -> None:
    network, file = decoder
    rules = small_map("face-from-voice-decoder", tmp_path, **DECODER)
    assert run(file, "--map", rules, "-o", tmp_path / "part").exit_code == 0
    part = Bundle.open(tmp_path / "part")
    ours = part.load("face-decoder")
    feature = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    landmarks, picture = network(feature)
    decoded = ours(feature)
    torch.testing.assert_close(decoded.landmarks.flatten(1), landmarks, rtol=0, atol=1e-5)
    torch.testing.assert_close(decoded.image, picture.clamp(0, 1), rtol=0, atol=1e-5)
    assert decoded.image.shape == (3, 3, 32, 32)
    assert decoded.image.std() > 0.01
    card = part.file("README.md").read_text()
    assert "Pietkun" in card
    assert "no licence is stated" in card
    assert "best_face_decoder.pt, SHA-256" in card
    assert part.info.modules["face-decoder"].input_space == "dlib-128"


def test_published_decoder_has_the_published_sizes() -> None:
    rules = read_map("face-from-voice-decoder")
    with torch.device("meta"):
        network = PublishedDecoder((4096, 3072, 2048), (1024, 512, 256, 144), (256, 128, 64, 32, 32), 14)
        state = network.state_dict()
        ours, matches = apply_map(state, rules, "published")
    counted = [name for name in state if not name.endswith("num_batches_tracked")]
    assert {match.theirs for match in matches} >= set(counted)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in network.parameters())
    assert (ours.config.size, ours.config.landmarks) == (224, 72)  # type: ignore[union-attr]


def test_gradient_reaches_every_parameter_of_the_decoder() -> None:
    torch.manual_seed(0)
    network = models.build("face-decoder-unwarped", size="debug")
    decoded = network(torch.randn(4, 128))
    (decoded.image * torch.rand_like(decoded.image)).sum().add(decoded.landmarks.square().sum()).backward()
    assert all(p.grad is not None for p in network.parameters())
    with pytest.raises(ConfigError, match="expected features"):
        network(torch.randn(4, 64))


# The convolutional voice encoder -----------------------------------------------------------------------------------


class PublishedConv(nn.Module):
    """Blocks layer1 … layer11 on (B, 2, frequency, time), no padding."""

    CHANNELS = (2, 2, 4, 4, 4, 6, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        previous = 2
        for index, channels in enumerate(self.CHANNELS, start=1):
            parts: list[nn.Module] = [nn.Conv2d(previous, channels, 4, 2 if index > 7 else 1)]
            parts += [nn.AdaptiveAvgPool2d((None, 1))] if index == 9 else []
            parts += [nn.ReLU(), nn.BatchNorm2d(channels)]
            parts += [nn.MaxPool2d((1, 2), (1, 2))] if 3 <= index <= 6 else []
            setattr(self, f"layer{index}", nn.Sequential(*parts))
            previous = channels
        self.layer10 = nn.Sequential(nn.Flatten(), nn.Linear(previous * 57, 20), nn.ReLU())
        self.layer11 = nn.Sequential(nn.Linear(20, 128), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        for index in range(1, 12):
            x = getattr(self, f"layer{index}")(x)
        return x


def librosa_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Speech of 6 s at -23 dB, as the published preprocessing makes it."""
    import librosa

    waveform = waveform * (10 ** (-23 / 20) / np.sqrt(np.mean(waveform**2)))
    spectrum = librosa.stft(waveform, n_fft=512, hop_length=160, win_length=400, window="hann")
    angle = np.angle(spectrum)
    return np.stack([np.abs(spectrum) ** 0.3, np.sign(angle) * np.abs(angle) ** 0.3])  # (2, 257, 601)


def test_published_convolutional_voice_encoder(tmp_path: Path) -> None:
    network = shuffled(PublishedConv())
    torch.save({"model_state_dict": network.state_dict()}, tmp_path / "best_model.pt")
    channels = list(PublishedConv.CHANNELS)
    rules = small_map(
        "face-from-voice-conv", tmp_path, channels=channels, hidden_size=20, output_space="vggface-unit-128"
    )
    result = run(tmp_path / "best_model.pt", "--map", rules, "-o", tmp_path / "part")
    assert result.exit_code == 0, result.output
    ours: Any = Bundle.open(tmp_path / "part").load("voice-encoder")
    waveform = np.random.default_rng(0).standard_normal(6 * 16_000).astype(np.float32) * 0.02
    waveform *= np.linspace(0, 1, len(waveform), dtype=np.float32)
    spectrogram = torch.from_numpy(librosa_spectrogram(waveform)).float()
    found = ours.features(torch.from_numpy(waveform)[None])
    assert found.shape == (1, 2, 601, 257)
    # the angle of a bin at ±π may come out on either side
    near = (found[0].transpose(1, 2) - spectrogram).abs() < 1e-3
    assert near[0].all()
    assert near[1].float().mean() > 0.999
    exact = spectrogram[None]
    torch.testing.assert_close(ours(exact.transpose(2, 3)), network(exact), rtol=1e-4, atol=1e-4)
    assert network(exact).std() > 0.01
    assert ours.after(257, pooled=False) == 57  # what the published 29184 = 512 · 57 needs


# AST ----------------------------------------------------------------------------------------------------------------


def test_published_ast(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_mel_bins": 32, "max_length": 128}
    config = transformers.ASTConfig(num_hidden_layers=2, num_attention_heads=2, num_labels=128, **sizes)
    network = shuffled(transformers.ASTForAudioClassification(config))
    network.save_pretrained(tmp_path / "ast")
    state = load_file(tmp_path / "ast" / "model.safetensors")  # as transformers 4 named the layers
    assert "audio_spectrogram_transformer.encoder.layer.1.attention.attention.query.weight" in state
    state = {re.sub(r"^classifier\.", "classifier.0.", name): value for name, value in state.items()}
    torch.save({"model_state_dict": state}, tmp_path / "best_model.pt")
    rules = small_map(
        "face-from-voice-ast", tmp_path, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24,
        n_mels=32, max_frames=128, output_space="vggface-unit-128",
    )  # fmt: skip
    result = run(tmp_path / "best_model.pt", "--map", rules, "-o", tmp_path / "part")
    assert result.exit_code == 0, result.output
    ours: Any = Bundle.open(tmp_path / "part").load("voice-encoder")
    mels = torch.randn(2, 128, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(mels), F.relu(network(mels).logits), rtol=1e-3, atol=1e-4)
    loud = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours.features(loud), ours.features(loud * 0.1), rtol=0, atol=1e-3)  # one level
    assert ours.features(loud).shape[1] == 1024  # 10.26 s


# What does not fit --------------------------------------------------------------------------------------------------


def head_state() -> dict[str, Tensor]:
    """A debug face encoder under other names."""
    torch.manual_seed(0)
    state = models.build("face-encoder-head", size="debug").state_dict()
    return {"net." + name.replace("dense", "mlp"): value for name, value in state.items()}


RULES: dict[str, Any] = {
    "kind": "face-encoder-head",
    "config": {"hidden_sizes": [32]},
    "names": {"dense.*": "net.mlp.*", "*": "net.*"},
}


def test_a_map_of_my_own(tmp_path: Path) -> None:
    state = head_state()
    state["net.linear.weight"] = state["net.linear.weight"].t().contiguous()
    state["net.mlp.0.weight"] = state["net.mlp.0.weight"].reshape(32, 8, 16).permute(2, 0, 1).contiguous()
    rules = {**RULES, "transpose": {"linear.*": [1, 0], "dense.0.weight": [1, 2, 0]}, "ignore": ["step"]}
    rules["reshape"] = {"dense.0.weight": [32, -1]}
    save_file({**state, "step": torch.zeros(1)}, tmp_path / "w.safetensors")
    save_yaml(rules, tmp_path / "map.yaml")
    network, matches = apply_map(read_state(tmp_path / "w.safetensors"), read_map(tmp_path / "map.yaml"), "w")
    torch.manual_seed(0)
    expected = models.build("face-encoder-head", size="debug").eval()
    x = torch.randn(2, 128)
    torch.testing.assert_close(network(x), expected(x), rtol=0, atol=0)
    assert len(matches) == len(expected.state_dict())
    dry = run(tmp_path / "w.safetensors", "--map", tmp_path / "map.yaml", "--dry-run")
    assert dry.exit_code == 0
    assert "dense.0.bias (32,) ← net.mlp.0.bias" in dry.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.yaml", "w.safetensors"]


@pytest.mark.parametrize(
    ("change", "rules", "message"),
    [
        (
            lambda s: s.update({"net.deviation": s.pop("net.std")}),
            {},
            r"has no 'net.std'.*for 'std' \(128,\).*near: 'net.deviation' \(128,\)",
        ),
        (lambda s: s.update({"net.std": torch.zeros(128, 1)}), {}, r"'net.std' \(128, 1\).*add a transpose or reshape"),
        (lambda s: s.update({"net.std": torch.zeros(9)}), {}, r"'net.std' \(9,\) does not fit 'std' \(128,\)"),
        (lambda s: s.update(extra=torch.zeros(3)), {}, r"holds 'extra' \(3,\), which the map does not use"),
        (lambda s: None, {"names": {"dense.*": "net.mlp.*"}}, r"names nothing for 'mean' \(128,\).*near: 'net.mean'"),
        (lambda s: None, {"transpose": {"linear.*": [0, 1, 2]}}, "cannot be rearranged for 'linear.weight'"),
    ],
)
def test_the_first_layer_that_does_not_fit(change: Any, rules: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = head_state()
    change(state)
    save_yaml({**RULES, **rules}, tmp_path / "map.yaml")
    with pytest.raises(BundleError, match=message):
        apply_map(state, read_map(tmp_path / "map.yaml"), "w.pt")


def test_kept_tensors_need_no_name(tmp_path: Path) -> None:
    state = head_state()
    del state["net.std"]
    save_yaml({**RULES, "keep": ["std"]}, tmp_path / "map.yaml")
    network, _ = apply_map(state, read_map(tmp_path / "map.yaml"), "w.pt")
    assert torch.equal(network.std, torch.ones(128))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "face-encoder-head", "names": {}, "nmaes": {}}, "unknown key 'nmaes'"),
        ({"kind": "face-encoder-head", "names": {"a": "b.*"}}, "more \\* on the right"),
        ({"kind": "nose", "names": {"*": "*"}}, "no network called 'nose'"),
        ({**RULES, "config": {"hiden": 3}}, "unknown key 'hiden'"),
    ],
)
def test_maps_that_say_nonsense(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_yaml(content, tmp_path / "map.yaml")
    with pytest.raises(ConfigError, match=message):
        apply_map(head_state(), read_map(tmp_path / "map.yaml"), "w.pt")


def test_commands_that_cannot_be(tmp_path: Path) -> None:
    class Sneaky:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("executed",))

    torch.save({"w": Sneaky()}, tmp_path / "sneaky.pt")
    result = run(tmp_path / "sneaky.pt", "--list")
    assert result.exit_code == 1
    assert "sneaky.pt" in result.output
    assert "executed" not in result.output
    torch.save(head_state(), tmp_path / "w.pt")
    listed = run(tmp_path / "w.pt", "--list")
    assert listed.exit_code == 0
    assert "net.mean  (128,)  float32" in listed.output
    assert run(tmp_path / "w.pt").exit_code == 2
    missing = run(tmp_path / "w.pt", "--map", "nose", "-o", tmp_path / "part")
    assert missing.exit_code == 1
    assert "face-from-voice-conv" in missing.output
    save_yaml({**RULES, "credit": "nobody"}, tmp_path / "map.yaml")
    assert "unknown credit" in run(tmp_path / "w.pt", "--map", tmp_path / "map.yaml", "-o", tmp_path / "part").output
    assert not (tmp_path / "part").exists()
    assert packaged_maps() == ["face-from-voice-ast", "face-from-voice-conv", "face-from-voice-decoder"]
