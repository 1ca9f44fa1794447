"""Face-feature networks: against unfolded, independent and published forms; gradients, precision, damaged weights."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.errors import BundleError, ConfigError, DependencyError
from crossmodal.faces import CHIP_SIZES, align, find_face
from crossmodal.models import TABLE, build, classes
from crossmodal.models.dlib_weights import DESCRIPTOR_FILE, Layer, package_file, read_layers
from crossmodal.models.face_features import (
    DlibConfig,
    DlibFaceFeatures,
    FaceFeatures,
    FaceNetConfig,
    FaceNetFeatures,
    VGGFaceConfig,
    VGGFaceFeatures,
)
from tests.generated import drawn_face

KINDS = [kind for kind in TABLE if kind in ("face-dlib", "face-facenet", "face-vggface")]


@pytest.fixture(scope="module")
def dlib() -> DlibFaceFeatures:
    return DlibFaceFeatures.from_package()


def small(kind: str) -> FaceFeatures:
    torch.manual_seed(0)
    network = build(kind, size="debug")
    assert isinstance(network, FaceFeatures)
    return network.eval()


def chips_for(network: FaceFeatures, count: int = 2) -> np.ndarray:
    face = find_face(drawn_face(256))
    chip = align(drawn_face(256), face, network.space)
    return np.stack([np.roll(chip, 3 * k, axis=1) for k in range(count)])


# --- what all three share ---


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_spaces(kind: str) -> None:
    network = small(kind)
    features = network.embed(chips_for(network, 3))
    assert features.shape == (3, int(network.space.rpartition("-")[2]))
    assert classes(kind)[1]().output_space == network.space
    assert network.kind == kind
    assert CHIP_SIZES[network.space] == network.chip_size
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_chips_same_features_alone_and_in_a_batch(kind: str) -> None:
    network = small(kind)
    chips = chips_for(network, 3)
    together = network.embed(chips)
    assert torch.equal(together, network.embed(chips))
    assert torch.allclose(together[1], network.embed(chips[1])[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_chips_and_every_parameter_used_have_a_gradient(kind: str) -> None:
    network = small(kind)
    chips = network.preprocess(chips_for(network)).requires_grad_(True)
    network(chips).square().sum().backward()
    assert chips.grad is not None
    assert chips.grad.abs().sum() > 0
    unused = [name for name, p in network.named_parameters() if p.grad is None and not name.startswith("fc8")]
    assert unused == []


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_close(kind: str) -> None:
    network = small(kind)
    chips = network.preprocess(chips_for(network))
    with torch.no_grad():
        reference = network(chips)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = network(chips).float()
        whole = network.to(torch.bfloat16)(chips.to(torch.bfloat16)).float()
    for value in (reduced, whole):
        assert F.cosine_similarity(value, reference).min() > 0.98


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["size", "type", "channels"])
def test_chips_of_another_kind_are_refused(kind: str, wrong: str) -> None:
    network, size = small(kind), classes(kind)[0].chip_size  # type: ignore[attr-defined]
    chips = {
        "size": np.zeros((1, size + 1, size, 3), np.uint8),
        "type": np.zeros((1, size, size, 3), np.float32),
        "channels": np.zeros((1, 3, size, size), np.uint8),
    }[wrong]
    with pytest.raises(ConfigError, match="align"):
        network.preprocess(chips)


def test_compiled_network_agrees() -> None:
    network = small("face-dlib")
    chips = network.preprocess(chips_for(network))
    compiled = torch.compile(network, backend="aot_eager")
    assert torch.allclose(compiled(chips), network(chips), atol=1e-5)


# --- dlib ---


def plain_dlib(layers: list[Layer], chips: Tensor) -> Tensor:
    """dlib's network written out from its definition, with its affine layers kept apart."""
    queue = iter(layers)

    def con(x: Tensor, out: int, kernel: int, stride: int) -> Tensor:
        values = torch.from_numpy(next(queue).values.copy()).to(x)
        filters = values[:-out].view(out, x.shape[1], kernel, kernel)
        x = F.conv2d(x, filters, values[-out:], stride, kernel // 2 if stride == 1 else 0)
        scale, shift = torch.from_numpy(next(queue).values.copy()).to(x).chunk(2)
        return x * scale[:, None, None] + shift[:, None, None]

    x = (chips * 255 - torch.tensor([122.782, 117.001, 104.298]).to(chips)[:, None, None]) / 256
    x = F.max_pool2d(F.relu(con(x, 32, 7, 2)), 3, 2)
    for width, down in [
        *[(32, False)] * 3, (64, True), *[(64, False)] * 3, (128, True), *[(128, False)] * 2,
        (256, True), *[(256, False)] * 2, (256, True),
    ]:  # fmt: skip
        y = con(F.relu(con(x, width, 3, 2 if down else 1)), width, 3, 1)
        if down:
            pooled = F.avg_pool2d(x, 2)
            total = y.new_zeros(len(y), width, max(y.shape[2], pooled.shape[2]), max(y.shape[3], pooled.shape[3]))
            total[:, :, : y.shape[2], : y.shape[3]] += y
            total[:, : x.shape[1], : pooled.shape[2], : pooled.shape[3]] += pooled
            x = F.relu(total)
        else:
            x = F.relu(x + y)
    x = x.mean((2, 3)) @ torch.from_numpy(next(queue).values.copy()).to(x).view(256, 128)
    assert next(queue, None) is None
    return x


def test_folded_network_equals_the_written_out_one(dlib: DlibFaceFeatures) -> None:
    chips = dlib.preprocess(chips_for(dlib))
    layers = read_layers(package_file(DESCRIPTOR_FILE))
    assert [layer.name for layer in layers].count("con") == 29
    with torch.no_grad():
        expected = plain_dlib(layers, chips.double())
        assert (dlib(chips) - expected).abs().max() < 1e-6


def test_descriptor_of_a_colour_ramp_is_the_stored_one(dlib: DlibFaceFeatures) -> None:
    ramp = torch.arange(150) / 149
    chip = torch.stack([ramp[:, None].expand(150, 150), ramp[None].expand(150, 150), ramp[:, None] * ramp])[None]
    stored = [-0.093103, 0.115826, 0.049615, -0.068603, -0.052746, -0.059301, -0.049274, -0.048685]
    with torch.no_grad():
        descriptor = dlib(chip)[0]
    assert torch.allclose(descriptor[:8], torch.tensor(stored), atol=2e-6)
    assert abs(float(descriptor.norm()) - 1.3289) < 1e-3


def test_gradient_of_the_descriptor_by_finite_differences(dlib: DlibFaceFeatures) -> None:
    network = DlibFaceFeatures()
    network.load_state_dict(dlib.state_dict())
    network = network.double().eval()
    # noise, because equal pixels tie in the max pooling
    chips = torch.rand(1, 3, 150, 150, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    direction = torch.randn(128, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad((network(chips) * direction).sum(), chips)
    step = torch.randn(chips.shape, generator=torch.Generator().manual_seed(2)).double()
    epsilon = 1e-8
    with torch.no_grad():
        numeric = ((network(chips + epsilon * step) - network(chips - epsilon * step)) * direction).sum() / (
            2 * epsilon
        )
    assert float(numeric) == pytest.approx(float((gradient * step).sum()), rel=1e-3)


def test_debug_dlib_runs_with_few_parameters() -> None:
    assert sum(p.numel() for p in small("face-dlib").parameters()) < 10_000


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "shorter tensor", "missing"])
def test_damaged_descriptor_files_are_named(tmp_path: Path, damage: str) -> None:
    content = package_file(DESCRIPTOR_FILE).read_bytes()
    path = tmp_path / "weights.dat"
    if damage != "missing":
        path.write_bytes(
            {
                "truncated": content[:1_000_000],
                "text": b"not a network",
                "empty": b"",
                "shorter tensor": content.replace(
                    b"\x01\x05con_4\x01\x02\x02\x80\x12", b"\x01\x05con_4\x01\x02\x02\x7f\x12", 1
                ),
            }[damage]
        )
    with pytest.raises(BundleError, match=r"weights\.dat"):
        DlibFaceFeatures.from_file(path)


def test_config_out_of_range() -> None:
    with pytest.raises(ConfigError):
        DlibConfig(stages=())
    with pytest.raises(ConfigError, match="stem"):
        DlibConfig(stem_channels=8)
    with pytest.raises(ConfigError):
        FaceNetConfig(blocks=(0, 1, 1))
    with pytest.raises(ConfigError):
        VGGFaceConfig(stages=((64,), (64,)))


@pytest.mark.data
def test_same_person_is_near_and_others_are_far(dlib: DlibFaceFeatures, data_root: Path) -> None:
    from crossmodal.faces import read_face

    neutral = sorted((data_root / "london_faces" / "neutral_front").glob("*.jpg"))[:8]
    smiling = [data_root / "london_faces" / "smiling_front" / f.name.replace("_03", "_08") for f in neutral]
    first, second = (
        dlib.embed(np.stack([read_face(f, "dlib-128").chip for f in files])) for files in (neutral, smiling)
    )
    distances = torch.cdist(first, second)
    same, different = distances.diag(), distances[~torch.eye(len(distances), dtype=torch.bool)]
    assert float(same.mean()) == pytest.approx(0.22, abs=0.05)
    assert float(same.max()) < 0.6
    assert float(different.mean()) == pytest.approx(0.84, abs=0.05)
    assert float(torch.cat([first, second]).norm(dim=1).mean()) == pytest.approx(1.47, abs=0.03)


# --- FaceNet ---


def test_facenet_is_the_package_network_with_its_normalisation(tmp_path: Path) -> None:
    from facenet_pytorch import InceptionResnetV1, fixed_image_standardization

    torch.manual_seed(3)
    reference = InceptionResnetV1().eval()
    state = {**reference.state_dict(), "logits.weight": torch.zeros(5, 512), "logits.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "facenet.pt")
    save_file(reference.state_dict(), tmp_path / "facenet.safetensors")
    chips = chips_for(FaceNetFeatures(FaceNetConfig.debug()), 1)
    with torch.no_grad():
        expected = reference(fixed_image_standardization(torch.from_numpy(chips).permute(0, 3, 1, 2).float()))
    for name in ("facenet.pt", "facenet.safetensors"):
        features = FaceNetFeatures.from_file(tmp_path / name).embed(chips)
        assert torch.allclose(features, expected, atol=1e-5)
    assert features.norm(dim=1).item() == pytest.approx(1, abs=1e-5)


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    class Sneaky:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("executed",))

    torch.save({"weight": Sneaky()}, tmp_path / "sneaky.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"conv1_1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    for name in ("sneaky.pt", "text.pt", "text.safetensors", "list.pt", "other.pt", "absent.pt"):
        with pytest.raises(BundleError, match=name):
            FaceNetFeatures.from_file(tmp_path / name, FaceNetConfig.debug())


# --- VGG-Face ---


def test_vggface_has_the_published_size() -> None:
    with torch.device("meta"):
        network = VGGFaceFeatures()
    assert sum(p.numel() for p in network.parameters()) == 145_002_878  # Parkhi et al. 2015: VGG-16, 2622 identities
    assert (network.fc7.out_features, network.fc8.out_features) == (4096, 2622)


def test_vggface_equals_a_torchvision_vgg_of_the_same_weights() -> None:
    from torchvision.models.vgg import VGG, make_layers

    network = small("face-vggface")
    assert isinstance(network, VGGFaceFeatures)
    other = VGG(make_layers([4, "M", 4, "M", 8, "M", 8, "M", 8, "M"]), init_weights=False).eval()
    other.classifier = nn.Sequential(network.fc6, nn.ReLU(), network.fc7, nn.ReLU())
    convolutions = [m for m in other.features if isinstance(m, nn.Conv2d)]
    for stage, convolution in enumerate(convolutions, start=1):
        convolution.load_state_dict(getattr(network, f"conv{stage}_1").state_dict())
    chips = chips_for(network)
    pixels = torch.from_numpy(chips).permute(0, 3, 1, 2) - torch.tensor(VGGFaceFeatures.MEAN).view(1, 3, 1, 1)
    with torch.no_grad():
        features = network(network.preprocess(chips))
        assert torch.allclose(features, other(pixels.float()), atol=1e-3, rtol=1e-4)
        assert torch.equal(network.classify(features), network.fc8(features))


def write_keras(path: Path, network: VGGFaceFeatures, layout: str) -> None:
    """A weight file as deepface's (convolutions only, RGB) or keras-vggface's (dense, BGR) is laid out."""
    import h5py

    with h5py.File(path, "w") as file:
        names: list[str] = []
        for index, (name, module) in enumerate(network.named_children(), start=1):
            assert isinstance(module, nn.Conv2d | nn.Linear)
            weight = module.weight.detach()
            if isinstance(module, nn.Conv2d):
                weight = weight.flip(1) if layout == "rcmalli" and name == "conv1_1" else weight
                kernel = weight.permute(2, 3, 1, 0)
            else:
                edge = 7 if name == "fc6" else 1
                kernel = weight.view(len(weight), -1, edge, edge).permute(2, 3, 1, 0)
                kernel = kernel.flatten(0, 2) if layout == "rcmalli" else kernel
            layer = name if layout == "rcmalli" else f"conv2d_{index}"
            group = file.create_group(layer)
            stored = [f"{layer}/kernel:0", f"{layer}/bias:0"]
            group.create_dataset(stored[0], data=kernel.contiguous().numpy())
            group.create_dataset(stored[1], data=network.state_dict()[f"{name}.bias"].numpy())
            group.attrs["weight_names"] = [n.encode() for n in stored]
            names += [layer, f"pool_{index}"]
            file.create_group(f"pool_{index}").attrs["weight_names"] = []
        file.attrs["layer_names"] = [n.encode() for n in names]


@pytest.mark.parametrize("layout", ["deepface", "rcmalli"])
def test_keras_files_of_both_layouts(tmp_path: Path, layout: str) -> None:
    pytest.importorskip("h5py")
    network = small("face-vggface")
    assert isinstance(network, VGGFaceFeatures)
    write_keras(tmp_path / "vgg.h5", network, layout)
    loaded = VGGFaceFeatures.from_file(tmp_path / "vgg.h5", network.config)
    chips = chips_for(network)
    assert torch.allclose(loaded.embed(chips), network.embed(chips), atol=1e-5)
    other: Literal["rgb", "bgr"] = "rgb" if layout == "rcmalli" else "bgr"
    name = "conv1_1.weight"
    flipped = VGGFaceFeatures.from_file(tmp_path / "vgg.h5", network.config, channels=other)
    assert torch.equal(flipped.state_dict()[name], network.state_dict()[name].flip(1))
    torch.save(network.state_dict(), tmp_path / "vgg.pth")
    loaded = VGGFaceFeatures.from_file(tmp_path / "vgg.pth", network.config)
    assert torch.equal(loaded.embed(chips), network.embed(chips))


def test_keras_file_of_another_network_or_none(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    network = small("face-vggface")
    assert isinstance(network, VGGFaceFeatures)
    write_keras(tmp_path / "vgg.h5", network, "rcmalli")
    with h5py.File(tmp_path / "vgg.h5", "a") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][:10]  # without the fully connected layers
    with pytest.raises(BundleError, match="notop"):
        VGGFaceFeatures.from_file(tmp_path / "vgg.h5", network.config)
    (tmp_path / "text.h5").write_text("hello")
    for name in ("text.h5", "absent.h5"):
        with pytest.raises(BundleError, match=name):
            VGGFaceFeatures.from_file(tmp_path / name, network.config)


def test_keras_files_say_that_they_need_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_h5py(name: str, *args: object, **kwargs: object) -> object:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(DependencyError, match="pip install h5py"):
        VGGFaceFeatures.from_file(tmp_path / "vgg.h5", VGGFaceConfig.debug())
