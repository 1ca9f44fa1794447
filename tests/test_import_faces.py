"""Importing published face networks: files as their sources lay them out, against a second forward pass."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.cli.app import app
from crossmodal.config import load_yaml
from crossmodal.errors import BundleError, ConfigError
from crossmodal.models import face_features
from crossmodal.models.face_features import FaceNetFeatures, VGGFaceConfig, VGGFaceFeatures

h5py = pytest.importorskip("h5py")

CONVOLUTIONS = [f"conv{stage}_{i}" for stage, n in enumerate((2, 2, 3, 3, 3), start=1) for i in range(1, n + 1)]
LAST = {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}
SMALL: dict[str, Any] = {
    "stages": ((3, 3), (4, 4), (4, 4, 4), (5, 5, 5), (5, 5, 5)),
    "hidden_size": 12,
    "feature_size": 8,
    "identities": 7,
}
Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def shapes(config: VGGFaceConfig, *, dense: bool) -> dict[str, tuple[int, ...]]:
    """Kernels (height, width, in, out) or (in, out) by published layer name."""
    found: dict[str, tuple[int, ...]] = {}
    channels = 3
    for name, width in zip(CONVOLUTIONS, [n for stage in config.stages for n in stage], strict=True):
        found[name] = (3, 3, channels, width)
        channels = width
    sizes = [channels, config.hidden_size, config.feature_size, config.identities]
    for name, edge, a, b in zip(("fc6", "fc7", "fc8"), (7, 1, 1), sizes, sizes[1:], strict=False):
        found[name] = (edge * edge * a, b) if dense else (edge, edge, a, b)
    return found


def weights(config: VGGFaceConfig, *, dense: bool, seed: int = 0) -> Weights:
    """Random kernels and biases."""
    rng = np.random.default_rng(seed)
    found: Weights = {}
    for name, shape in shapes(config, dense=dense).items():
        kernel = rng.standard_normal(shape).astype(np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        found[name] = (kernel, rng.standard_normal(shape[-1]).astype(np.float32))
    return found


def write_deepface(path: Path, layers: Weights) -> None:
    """``Sequential.save_weights``: every layer a group, also those without weights; convolutions are numbered."""
    model = []
    for name in layers:
        model += ["zero_padding2d"] if name.startswith("conv") else []
        model += [f"conv2d:{name}"] + (["max_pooling2d"] if name in LAST else [])
        model += ["dropout"] if name in ("fc6", "fc7") else []
    _write(path, [*model, "flatten", "activation"], layers, numbered=True)


def write_rcmalli(path: Path, layers: Weights) -> None:
    """``Model.save_weights`` of keras-vggface: published layer names."""
    model = ["input_1"]
    for name in layers:
        model += [f"{name}:{name}"] + ([f"pool{name[4]}"] if name in LAST else [])
        model += ["flatten"] if name == "conv5_3" else []
        model += [f"{name}/{'softmax' if name == 'fc8' else 'relu'}"] if name.startswith("fc") else []
    _write(path, model, layers, numbered=False)


def _write(path: Path, model: list[str], layers: Weights, *, numbered: bool) -> None:
    names: list[str] = []
    with h5py.File(path, "w") as file:
        for entry in model:
            kind, _, layer = entry.partition(":")
            number = sum(name.startswith(kind) for name in names) + 1
            name = f"{kind}_{number}" if numbered else kind
            group, names = file.require_group(name), [*names, name]
            stored = [f"{name}/kernel:0", f"{name}/bias:0"] if layer else []
            group.attrs["weight_names"] = np.array([n.encode() for n in stored], dtype="S")
            for key, value in zip(stored, layers[layer] if layer else (), strict=True):
                group.create_dataset(key, data=value)
        file.attrs["layer_names"] = [n.encode() for n in names]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"


def keras_forward(chips: np.ndarray, layers: Weights, *, bgr: bool, unit: bool = False) -> tuple[np.ndarray, ...]:
    """fc7 and fc8 by Keras' rules: channels last, RGB or BGR, pixels less the mean (or in [0, 1])."""
    mean = np.array([129.1863, 104.7624, 93.5940])
    x = chips / 255 if unit else chips - mean
    x = x[..., ::-1] if bgr else x
    for name in CONVOLUTIONS:
        x = np.maximum(_convolve(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), *layers[name]), 0)
        if name in LAST:
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    out: list[np.ndarray] = []
    for name in ("fc6", "fc7", "fc8"):
        kernel, bias = layers[name]
        x = _convolve(x, kernel, bias) if kernel.ndim == 4 else x.reshape(len(x), -1) @ kernel + bias
        out.append(x.reshape(len(x), -1))
        x = np.maximum(x, 0)
    return np.maximum(out[1], 0), out[2]


def _convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Valid cross-correlation, ``(N, H, W, in)`` with ``(kh, kw, in, out)``."""
    windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))  # (N, h, w, in, kh, kw)
    return np.tensordot(windows, kernel, axes=([4, 5, 3], [0, 1, 2])) + bias


WRITE: dict[str, Callable[[Path, Weights], None]] = {"deepface": write_deepface, "rcmalli": write_rcmalli}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", *arguments])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads networks of small width; loading is as always."""
    real = VGGFaceConfig

    def config(**values: Any) -> VGGFaceConfig:
        return real(**{**SMALL, **values, "identities": min(values["identities"], 7)})

    monkeypatch.setattr(face_features, "VGGFaceConfig", config)


@pytest.mark.parametrize("source", ["deepface", "rcmalli"])
@pytest.mark.parametrize("pixels", ["centred", "unit"])
def test_keras_files_give_the_features_keras_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None, source: str, pixels: str
) -> None:
    layers = weights(VGGFaceConfig(**SMALL), dense=source == "rcmalli")
    WRITE[source](tmp_path / "w.h5", layers)
    result = run("import", "vgg-face", source, str(tmp_path / "w.h5"), "-o", str(tmp_path / "part"), "--pixels", pixels)
    assert result.exit_code == 0, result.output
    monkeypatch.undo()
    part = Bundle.open(tmp_path / "part")
    assert len(part.verify()) == 3
    network = part.load("face-features")
    assert isinstance(network, VGGFaceFeatures)
    chips = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    feature, logits = keras_forward(chips, layers, bgr=source == "rcmalli", unit=pixels == "unit")
    found = network.embed(chips)
    scale = np.abs(feature).max()
    assert scale > 0.1
    np.testing.assert_allclose(found.numpy(), feature, atol=1e-4 * scale)
    np.testing.assert_allclose(network.classify(found).detach().numpy(), logits, atol=1e-4 * np.abs(logits).max())
    space = "vggface-4096" if pixels == "centred" else "vggface-unit-4096"
    assert part.info.modules["face-features"].output_space == space
    card = part.file("README.md").read_text()
    assert "non-commercial" in card
    assert "Parkhi" in card
    assert "w.h5, SHA-256" in card
    assert "non-commercial" in part.info.licence


def test_state_dict_with_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    monkeypatch.undo()
    torch.manual_seed(0)
    original = VGGFaceFeatures(VGGFaceConfig(**SMALL))
    torch.save(original.state_dict(), tmp_path / "vgg_face_dag.pth")
    loaded = VGGFaceFeatures.from_file(tmp_path / "vgg_face_dag.pth", VGGFaceConfig(**SMALL), source="state-dict")
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in original.state_dict().items())


def test_without_the_layer_over_identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    layers = weights(VGGFaceConfig(**SMALL), dense=False)
    write_deepface(tmp_path / "whole.h5", layers)
    del layers["fc8"]
    write_deepface(tmp_path / "w.h5", layers)
    arguments = ("import", "vgg-face", "deepface", str(tmp_path / "w.h5"), "-o", str(tmp_path / "part"))
    result = run(*arguments)
    assert result.exit_code == 1
    assert "--identities 0" in result.output
    assert not (tmp_path / "part").exists()
    assert run(*arguments, "--identities", "0").exit_code == 0
    monkeypatch.undo()
    part = Bundle.open(tmp_path / "part")
    assert "without fc8" in part.file("README.md").read_text()
    network: Any = part.load("face-features")
    chips = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    with pytest.raises(ConfigError, match="no fc8"):
        network.classify(network.embed(chips))
    bare = VGGFaceConfig(**{**SMALL, "identities": 0})
    whole = VGGFaceFeatures.from_file(tmp_path / "whole.h5", bare)
    assert torch.equal(whole.embed(chips), network.embed(chips))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("source", "spoil", "message"),
    [
        ("rcmalli", lambda path, layers: write_deepface(path, layers), "say deepface instead of rcmalli"),
        ("deepface", lambda path, layers: _truncate(path), "no Keras weight file"),
        ("deepface", lambda path, layers: path.write_bytes(b""), "no Keras weight file"),
        ("deepface", lambda path, layers: path.unlink(), "does not exist"),
        (
            "rcmalli",
            lambda path, layers: write_rcmalli(path, {n: w for n, w in layers.items() if n.startswith("conv")}),
            "notop",
        ),
        (
            "deepface",
            lambda path, layers: write_deepface(path, {**layers, "conv3_2": layers["conv1_1"]}),
            "another size of 'conv3_2.bias'",
        ),
        (
            "deepface",
            lambda path, layers: write_deepface(path, {**layers, "fc8": (layers["fc8"][0][..., :5], np.zeros(5))}),
            "another size of 'fc8.bias'",
        ),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, small: None, source: str, spoil: Callable[[Path, Weights], object], message: str
) -> None:
    layers = weights(VGGFaceConfig(**SMALL), dense=False)
    path = tmp_path / "w.h5"
    write_deepface(path, layers)
    spoil(path, layers)
    result = run("import", "vgg-face", source, str(path), "-o", str(tmp_path / "part"))
    assert result.exit_code == 1
    assert message in result.output
    assert "w.h5" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("source", ["deepface", "rcmalli"])
def test_published_sizes(source: str) -> None:
    kernels = shapes(VGGFaceConfig(), dense=source == "rcmalli")
    assert kernels["conv5_3"] == (3, 3, 512, 512)
    assert kernels["fc6"] == ((25_088, 4096) if source == "rcmalli" else (7, 7, 512, 4096))
    assert kernels["fc8"] == ((4096, 2622) if source == "rcmalli" else (1, 1, 4096, 2622))
    with torch.device("meta"):
        ours = VGGFaceFeatures().state_dict()
    assert list(kernels) == [name.removesuffix(".bias") for name in ours if name.endswith(".bias")]
    for name, shape in kernels.items():
        assert ours[f"{name}.weight"].numel() == np.prod(shape)
        assert ours[f"{name}.bias"].shape == shape[-1:]


# FaceNet ------------------------------------------------------------------------------------------------------------


def _facenet_file(path: Path, classes: int) -> Any:
    """As facenet-pytorch's release holds it: the network with its classifier."""
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    network = InceptionResnetV1(classify=True, num_classes=classes).eval()
    torch.save(network.state_dict(), path)
    network.classify = False
    return network


@pytest.fixture(scope="module")
def facenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("facenet") / "20180408-102900-casia-webface.pt"
    return path, _facenet_file(path, 10)


def test_facenet_from_a_file(tmp_path: Path, facenet: tuple[Path, Any]) -> None:
    path, network = facenet
    file, out = str(path), str(tmp_path / "part")
    assert run("import", "facenet", "casia-webface", file, "-o", out).exit_code == 0
    part = Bundle.open(out)
    assert part.info.modules["face-features"].output_space == "facenet-casia-512"
    loaded: Any = part.load("face-features")
    chips = np.random.default_rng(1).integers(0, 256, (1, 160, 160, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network((torch.from_numpy(chips).permute(0, 3, 1, 2).float() - 127.5) / 128)
    torch.testing.assert_close(loaded.embed(chips), expected, rtol=0, atol=1e-5)


class _Answer(io.BytesIO):
    def __init__(self, content: bytes, length: int) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(length)}


def test_facenet_downloads_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facenet: tuple[Path, Any]
) -> None:
    content, asked = facenet[0].read_bytes(), []

    def answer(url: str, timeout: float) -> _Answer:
        asked.append(url)
        return _Answer(content, len(content))

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    assert run("import", "facenet", "vggface2", "-o", str(tmp_path / "part")).exit_code == 0
    assert asked[0].endswith("/20180402-114759-vggface2.pt")
    assert isinstance(Bundle.open(tmp_path / "part").load("face-features"), FaceNetFeatures)

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: _Answer(content[:100], len(content)))
    result = run("import", "facenet", "vggface2", "-o", str(tmp_path / "broken"))
    assert result.exit_code == 1
    assert "100 of" in result.output

    def offline(url: str, timeout: float) -> _Answer:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    result = run("import", "facenet", "vggface2", "-o", str(tmp_path / "broken"))
    assert result.exit_code == 1
    assert "cannot be downloaded (Name or service not known)" in result.output
    assert "import facenet vggface2 FILE" in result.output
    assert not (tmp_path / "broken").exists()


# A part as the teacher of a training run ---------------------------------------------------------------------------


def test_training_takes_a_part_as_face_weights(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossmodal.errors import SpaceMismatchError
    from crossmodal.training.tasks.voice_encoder import _face_network

    write_deepface(tmp_path / "w.h5", weights(VGGFaceConfig(**SMALL), dense=False))
    part = tmp_path / "part"
    assert run("import", "vgg-face", "deepface", str(tmp_path / "w.h5"), "-o", str(part)).exit_code == 0
    monkeypatch.undo()
    assert isinstance(_face_network("vggface-4096", part), VGGFaceFeatures)
    with pytest.raises(SpaceMismatchError, match="facenet-512"):
        _face_network("facenet-512", part)
    assert load_yaml(part / "face-features.yaml")["pixels"] == "centred"
    with pytest.raises(BundleError):
        _face_network("vggface-4096", tmp_path / "w.txt")
