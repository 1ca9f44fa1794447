"""The spline warp, the compressed basis, the decoder, its losses, its data and its task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import nn

from crossmodal.data import generated_people
from crossmodal.data.canonical_faces import AlignedFaces, matte, mean_shape, read_template, similarity, transform
from crossmodal.data.face_model import build_model, draw_morphs, hair_styles, project, regions, skin_mask
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.errors import ConfigError, DataError
from crossmodal.losses.decoder import Describer, landmark_loss, recognition_loss, texture_loss
from crossmodal.models.face_decoder import FaceCode, FaceDecoder, FaceDecoderConfig
from crossmodal.models.face_features import DlibConfig, DlibFaceFeatures
from crossmodal.models.quantised import PackedBasis, pack_basis, rgba
from crossmodal.models.thin_plate import apply_spline, spline_coefficients, warp, with_anchors
from crossmodal.training.tasks.face_decoder import FaceDecoderTask, FaceDecoderTaskConfig

MODEL = FaceDecoderConfig(
    size=64,
    hidden=(16,),
    shape_components=6,
    face_components=8,
    hair_components=5,
    styles=4,
    conv_channels=(8, 8, 8, 8),
)


@pytest.fixture(scope="module")
def prepared() -> PreparedFaces:
    return generated_people.people(12)


@pytest.fixture
def folder(prepared: PreparedFaces, tmp_path: Path) -> Path:
    prepared.save(tmp_path / "prepared")
    return tmp_path / "prepared"


def filled(prepared: PreparedFaces, **changes: object) -> FaceDecoder:
    torch.manual_seed(0)
    config = replace(MODEL, **changes)  # type: ignore[arg-type]
    decoder = FaceDecoder(config)
    model = build_model(prepared.aligned, range(10), config)
    decoder.basis.load_state_dict(model.basis.state_dict())
    decoder.style_hair.copy_(hair_styles(model.basis, model.codes, config.styles).hair)
    return decoder.eval()


# ------------------------------------------------------------------------------------------ warp


def test_spline_is_the_thin_plate_spline_of_scipy() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.uniform(-1, 1, (15, 2)), rng.uniform(-1, 1, (15, 2))
    points = rng.uniform(-1, 1, (40, 2))
    ours = spline_coefficients(torch.tensor(source)[None], torch.tensor(target)[None], regularisation=0.0)
    moved = apply_spline(ours, torch.tensor(source)[None], torch.tensor(points)[None])[0]
    theirs = RBFInterpolator(source, target, kernel="thin_plate_spline", degree=1)(points)
    assert np.allclose(moved.numpy(), theirs, atol=1e-6)


def test_warp_keeps_the_picture_when_nothing_moves() -> None:
    picture = torch.rand(2, 3, 32, 32)
    points = torch.rand(2, 6, 2) * 31
    assert torch.allclose(warp(picture, points, points), picture, atol=1e-4)


def test_warp_moves_a_spot_with_its_point() -> None:
    size = 48
    picture = torch.zeros(1, 1, size, size)
    picture[0, 0, 20, 15] = 1.0  # row 20, column 15
    here = torch.tensor([[[15.0, 20.0], [30.0, 30.0]]])
    there = torch.tensor([[[19.0, 17.0], [30.0, 30.0]]])
    moved = warp(picture, with_anchors(here, size), with_anchors(there, size), step=2)[0, 0]
    row, column = divmod(int(moved.argmax()), size)
    assert abs(row - 17) <= 1
    assert abs(column - 19) <= 1


def test_warp_is_differentiable_in_the_points() -> None:
    ramp = torch.arange(32, dtype=torch.float64).expand(1, 1, 32, 32) / 32
    fixed = with_anchors(torch.tensor([[[10.0, 12.0], [20.0, 18.0]]], dtype=torch.float64), 32)
    points = fixed[:, :2].clone().requires_grad_()

    def total(p: torch.Tensor) -> torch.Tensor:
        return warp(ramp, fixed, with_anchors(p, 32), step=4).square().sum()

    (gradient,) = torch.autograd.grad(total(points), points)
    step = torch.zeros_like(points)
    step[0, 0, 0] = 1e-4
    with torch.no_grad():
        measured = (total(points + step) - total(points - step)) / 2e-4
    assert float(gradient[0, 0, 0]) == pytest.approx(float(measured), rel=1e-2)


# ------------------------------------------------------------------------------------------ compressed basis


def test_basis_survives_compression() -> None:
    y, x = np.mgrid[0:32, 0:32] / 32
    smooth = np.stack([np.sin(2 * x + k) * np.cos(3 * y) for k in range(5 * 4)]).reshape(5, 4, 32, 32)
    basis = torch.from_numpy(0.1 * smooth).float()
    basis[..., :6] = 0.0  # outside the support
    packed = pack_basis("b", basis)
    assert sum(t.numel() * t.element_size() for t in packed.values()) < 0.6 * basis.numel()
    reader = PackedBasis("b", dict(packed), 32, 5)
    rebuilt = rgba(*reader.planes(torch.eye(5)))
    assert float((rebuilt - basis)[..., 8:].abs().mean()) < 0.002
    assert float(rebuilt[..., :4].abs().max()) == 0.0
    code = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    combined = torch.einsum("bk,kchw->bchw", code, rebuilt)
    assert torch.allclose(rgba(*reader.planes(code)), combined, atol=1e-5)
    assert all(torch.equal(value, packed[name]) for name, value in reader.packed().items())


@pytest.mark.parametrize(("size", "components"), [(32, 4), (30, 5)])
def test_packed_basis_of_another_size_is_refused(size: int, components: int) -> None:
    packed = pack_basis("b", torch.rand(5, 4, 32, 32))
    with pytest.raises(RuntimeError, match=r"b\.y: "):
        PackedBasis("b", packed, size, components)


# ------------------------------------------------------------------------------------------ decoder


@pytest.mark.parametrize("texture", ["basis", "conv"])
def test_decoder_draws_faces(prepared: PreparedFaces, texture: str) -> None:
    decoder = filled(prepared, texture=texture)
    with torch.no_grad():
        face = decoder(torch.randn(3, 128))
    assert face.image.shape == face.texture.shape == (3, 3, 64, 64)
    assert face.landmarks.shape == (3, 216, 2)
    assert float(face.image.min()) >= 0.0
    assert float(face.image.max()) <= 1.0
    if texture == "basis":  # untrained convolutions have no silhouette yet
        corner = face.image[:, :, 0, 0]
        assert torch.allclose(corner, torch.tensor(MODEL.background).expand(3, 3), atol=0.02)


def test_decoder_refuses_other_features() -> None:
    with pytest.raises(ConfigError, match=r"\(B, 128\).*\(2, 512\).*dlib-128"):
        FaceDecoder(FaceDecoderConfig.debug())(torch.zeros(2, 512))


def test_conv_decoder_needs_a_fitting_size() -> None:
    with pytest.raises(ConfigError, match="60 is no multiple of 8"):
        replace(MODEL, texture="conv", size=60)


def test_components_saturate(prepared: PreparedFaces) -> None:
    decoder = filled(prepared)
    with torch.no_grad():
        code = decoder.code(1000 * torch.randn(4, 128))
    assert float(code.shape.abs().max()) <= 3.0001


def test_skin_follows_its_own_regression(prepared: PreparedFaces) -> None:
    decoder = filled(prepared)
    decoder.tone_of_face.copy_(torch.randn_like(decoder.tone_of_face))
    decoder.tone_weight.copy_(0.1 * torch.randn_like(decoder.tone_weight))
    feature = torch.randn(5, 128)
    tone = decoder.code(feature).face @ decoder.tone_of_face
    assert torch.allclose(tone, decoder.skin(feature) - decoder.mean_skin(), atol=1e-3)


def test_skin_can_be_given(prepared: PreparedFaces) -> None:
    decoder = filled(prepared)
    where = torch.from_numpy(skin_mask(prepared.aligned))
    decoder.tone_of_face.copy_(decoder.basis.face_basis[:, :3, where].mean(-1))
    feature = 0.1 * torch.randn(2, 128)
    usual = decoder.mean_skin()
    with torch.no_grad():
        fair, dark = (
            decoder(feature, usual.expand(2, 3) + step).texture[..., where].mean(-1) for step in (0.03, -0.03)
        )
        own = decoder(feature, decoder.skin(feature)).image
        assert torch.allclose(own, decoder(feature).image, atol=1e-5)
    assert torch.allclose(fair - dark, torch.full((2, 3), 0.06), atol=0.02)


@pytest.mark.parametrize("texture", ["basis", "conv"])
def test_export_draws_the_same_face(prepared: PreparedFaces, texture: str) -> None:
    decoder = filled(prepared, texture=texture)
    other = FaceDecoder(decoder.config).eval()
    other.load_export(decoder.export_state())
    feature = 0.2 * torch.randn(2, 128)
    with torch.no_grad():
        assert float((decoder(feature).image - other(feature).image).abs().mean()) < 0.01
    stored, again = decoder.export_state(), other.export_state()  # what was packed is written as it was read
    assert stored.keys() == again.keys()
    assert all(torch.equal(again[name], stored[name]) for name in stored)


def test_export_of_another_config_is_refused(prepared: PreparedFaces) -> None:
    state = filled(prepared).export_state()
    with pytest.raises((RuntimeError, KeyError)):
        FaceDecoder(replace(MODEL, face_components=9)).load_export(state)


# ------------------------------------------------------------------------------------------ model and morphs


def test_model_reproduces_its_people(prepared: PreparedFaces) -> None:
    model = build_model(prepared.aligned, range(10), MODEL)
    points = model.basis.points(model.codes.shape, model.codes.hair).numpy()
    upright = ~model.mirrored
    truth = prepared.aligned.points[:10][upright]
    spread = np.abs(truth - truth.mean(0)).mean()
    assert np.abs(points[upright][:, :189] - truth[:, :189]).mean() < 0.5 * spread
    texture = model.basis.texture(model.codes.face, model.codes.hair).permute(0, 2, 3, 1).numpy()
    true_texture = prepared.aligned.textures[:10] / 255
    inside = prepared.aligned.textures[0][..., 3] == 255
    spread = np.abs(true_texture - true_texture.mean(0))[:, inside].mean()
    assert np.abs(texture - true_texture)[upright][:, inside].mean() < 0.5 * spread


def test_projection_of_a_training_person_gives_the_code_back(prepared: PreparedFaces) -> None:
    model = build_model(prepared.aligned, range(10), MODEL)
    weight, _ = regions(prepared.aligned)
    keep = np.flatnonzero(~model.mirrored)
    code = project(model.basis, prepared.aligned.points[keep], prepared.aligned.textures[keep], weight)
    true = model.codes.shape[keep]
    assert float((code.shape - true).abs().mean()) < 0.2 * float(true.abs().mean())


def test_morphs_mix_people_and_repeat(prepared: PreparedFaces) -> None:
    codes = build_model(prepared.aligned, range(10), MODEL).codes
    morphs, weights = draw_morphs(codes, 50, np.random.default_rng(3))
    again, _ = draw_morphs(codes, 50, np.random.default_rng(3))
    assert np.allclose(weights.sum(1), 1, atol=1e-5)
    assert (weights > 0).sum(1).min() >= 2
    assert (weights > 0).sum(1).max() <= 4
    assert torch.equal(morphs.face, again.face)
    assert 0.4 < float(morphs.face.std() / codes.face.std()) < 1.6


def test_styles_are_shares_of_people(prepared: PreparedFaces) -> None:
    model = build_model(prepared.aligned, range(10), MODEL)
    styles = hair_styles(model.basis, model.codes, 4)
    assert styles.hair.shape == (4, MODEL.hair_components)
    assert torch.allclose(styles.members.sum(1), torch.ones(4), atol=1e-5)
    assert torch.allclose(styles.members @ model.codes.hair, styles.hair, atol=1e-4)


# ------------------------------------------------------------------------------------------ losses


def test_losses_by_hand() -> None:
    a, b = torch.zeros(2, 3, 2), torch.tensor([3.0, 4.0]).expand(2, 3, 2)
    assert float(landmark_loss(a, b, eye_distance=5.0)) == pytest.approx(1.0)
    texture = torch.zeros(1, 3, 2, 2)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    other = torch.full((1, 3, 2, 2), 7.0)
    other[..., 0, 0] = 0.5
    assert float(texture_loss(texture, other, weight)) == pytest.approx(0.5)
    assert float(recognition_loss(torch.zeros(2, 4), torch.ones(2, 4))) == pytest.approx(2.0, abs=1e-3)


def test_describer_cuts_where_the_landmarks_are() -> None:
    class Identity(nn.Module):
        def forward(self, chips: torch.Tensor) -> torch.Tensor:
            return chips

    places = torch.tensor([[40.0, 40.0], [110.0, 40.0], [75.0, 80.0], [50.0, 110.0], [100.0, 110.0]])
    describer = Describer(Identity(), torch.arange(5), places, torch.ones(5))
    picture = torch.zeros(1, 3, 200, 200)
    turn = torch.tensor([[0.8, -0.3], [0.3, 0.8]])  # chip → picture
    points = places @ turn.T + torch.tensor([60.0, 20.0])
    x, y = points[2].round().int().tolist()
    picture[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    chip = describer(picture, points[None])[0, 0]
    row, column = divmod(int(chip.argmax()), 150)
    assert abs(column - 75) <= 2
    assert abs(row - 80) <= 2


def test_recognition_gradient_reaches_the_feature(prepared: PreparedFaces) -> None:
    decoder = filled(prepared)
    network = DlibFaceFeatures(DlibConfig(stem_channels=4, stages=((4, 1), (8, 1), (8, 1))))
    describer = Describer(network, torch.arange(5), torch.from_numpy(prepared.chip_places), torch.ones(5))
    feature = (0.1 * torch.randn(2, 128)).requires_grad_()
    nn.init.normal_(decoder.linear.weight, std=0.1)
    face = decoder(feature)
    recognition_loss(describer(face.image, face.landmarks), feature.detach()).backward()
    assert feature.grad is not None
    assert float(feature.grad.abs().sum()) > 0
    assert all(p.grad is None for p in network.parameters())


# ------------------------------------------------------------------------------------------ data


def test_similarity_is_exact() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((9, 2))
    matrix = np.array([[1.2, -0.5, 3.0], [0.5, 1.2, -7.0]])
    assert np.allclose(similarity(points, transform(matrix, points)), matrix, atol=1e-9)


def test_template_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.tem").write_text("not a template")
    with pytest.raises(DataError, match=r"bad\.tem"):
        read_template(tmp_path / "bad.tem")
    (tmp_path / "few.tem").write_text("2\n1 2\n3 4\n")
    with pytest.raises(DataError, match="2 landmarks"):
        read_template(tmp_path / "few.tem")


def test_prepared_faces_come_back(prepared: PreparedFaces, folder: Path) -> None:
    again = PreparedFaces.load(folder)
    assert again.aligned.names == prepared.aligned.names
    assert np.array_equal(again.photos.features, prepared.photos.features)
    assert again.attributes == prepared.attributes
    with pytest.raises(DataError, match="nobody"):
        again.indices(["nobody"])
    with pytest.raises(DataError, match="no prepared faces"):
        PreparedFaces.load(folder / "missing")


@pytest.mark.data
def test_matte_and_alignment_of_a_real_photo(data_root: Path) -> None:
    from PIL import Image

    from crossmodal.data.canonical_faces import CHIN, PUPILS, Frame, resample, silhouette, studio_background

    root = data_root / "london_faces" / "neutral_front"
    templates = [read_template(p) for p in sorted(root.glob("*.tem"))[:12]]
    frame = Frame()
    mean, mirror = mean_shape(templates, frame)
    assert np.allclose(mean[PUPILS[1]] - mean[PUPILS[0]], [frame.eye_distance, 0], atol=0.5)
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    picture = sorted(root.glob("*.jpg"))[1]
    landmarks = read_template(picture.with_suffix(".tem"))
    image = np.asarray(Image.open(picture).convert("RGB"), dtype=np.float32) / 255
    background = studio_background(image, landmarks[CHIN, 1])
    assert np.abs(background - image)[:60, :60].mean() < 0.02
    matrix = similarity(landmarks, mean)
    both = resample(np.concatenate([image, background], axis=-1), matrix, frame.size)
    moved = transform(matrix, landmarks)
    alpha = matte(both[..., :3], both[..., 3:], moved)[..., 3]
    face = moved[list(range(100))].round().astype(int)
    assert alpha[face[:, 1], face[:, 0]].min() > 0.99  # the face is all there
    assert alpha[:40, :40].max() < 0.05  # and the wall is not
    outline = silhouette(alpha, frame)
    assert outline[:, 1].min() < moved[:, 1].min() + 25


# ------------------------------------------------------------------------------------------ task


def task_config(folder: Path, **changes: object) -> FaceDecoderTaskConfig:
    values: dict = {
        "prepared": folder,
        "held_out": ("000", "001"),
        "frame": generated_people.FRAME,
        "model": MODEL,
        "describer": DlibConfig(stem_channels=4, stages=((4, 1), (8, 1), (8, 1))),
        "morphs": 30,
        "recognition_after": 2,
        "recognition_batch": 3,
    }
    return FaceDecoderTaskConfig(**{**values, **changes})


def batch_of(task: FaceDecoderTask, size: int) -> dict:
    data = task.dataset("train")
    return task.collate([data[i] for i in range(size)])


def test_task_keeps_held_out_people_out(folder: Path, prepared: PreparedFaces) -> None:
    task = FaceDecoderTask(task_config(folder))
    held = prepared.photos.features[np.isin(prepared.photos.person, [0, 1])]
    assert len(task.photos) == 10 * 4
    distance = torch.cdist(task.photos.feature, torch.from_numpy(held))
    assert float(distance.min()) > 1e-3
    with pytest.raises(DataError, match="'999'"):
        FaceDecoderTask(task_config(folder, held_out=("999",)))


@pytest.mark.parametrize("texture", ["basis", "conv"])
def test_task_learns(folder: Path, texture: str) -> None:
    torch.manual_seed(0)
    task = FaceDecoderTask(task_config(folder, model=replace(MODEL, texture=texture), recognition_weight=0.0))
    batch = batch_of(task, 16)
    optimiser = torch.optim.Adam(task.parameters("main"), lr=3e-3)
    task.modules.train()
    losses = []
    for step in range(25):
        out = task.loss("main", batch, step)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        losses.append(float(out["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_task_renders_after_a_while_and_shows_pictures(folder: Path) -> None:
    task = FaceDecoderTask(task_config(folder))
    batch = batch_of(task, 6)
    assert "recognition" not in task.loss("main", batch, 0)
    assert torch.isfinite(task.loss("main", batch, 5)["recognition"])
    picture = task.visuals(batch)["faces"]
    assert picture.size == (6 * 64, 2 * 64)


def test_ridge_start_beats_the_mean(folder: Path) -> None:
    task = FaceDecoderTask(task_config(folder, face_ridge=0.01, shape_ridge=0.01))
    with torch.no_grad():
        code = task.decoder.eval().code(task.photos.feature)
    true = task.photos.code.shape
    assert float((code.shape - true).square().mean()) < 0.7 * float((true - true.mean(0)).square().mean())


def test_morphs_are_described_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FaceDecoderTask(task_config(folder))
    monkeypatch.setattr(FaceDecoderTask, "describe", lambda *_: pytest.fail("described again"))
    second = FaceDecoderTask(task_config(folder))
    assert torch.equal(first.morphs.feature, second.morphs.feature)


def test_frame_and_model_must_agree(folder: Path) -> None:
    with pytest.raises(ConfigError, match="384"):
        task_config(folder, model=FaceDecoderConfig())


def test_code_of_a_face_is_rendered_like_its_feature(prepared: PreparedFaces) -> None:
    decoder = filled(prepared)
    feature = torch.randn(2, 128)
    with torch.no_grad():
        code = decoder.code(feature)
        assert torch.allclose(decoder.render(FaceCode(*code)).image, decoder(feature).image, atol=1e-6)
    assert isinstance(prepared.aligned, AlignedFaces)


def test_hair_is_drawn_as_often_as_it_goes_with_the_face() -> None:
    """The first face has the likeliest style; further ones follow the probabilities; the style asked for is drawn."""
    decoder = build_debug()
    feature = torch.randn(1, 128).expand(4000, -1)
    styles = decoder.draw_styles(feature, torch.Generator().manual_seed(0))
    assert styles is not None
    wanted = decoder.style_logits(*decoder.hidden(feature[:1]))[0].softmax(-1)
    assert int(styles[0]) == int(wanted.argmax())
    found = torch.bincount(styles[1:], minlength=len(wanted)) / (len(styles) - 1)
    assert torch.allclose(found, wanted.detach(), atol=0.03)
    codes = [decoder.code(feature[:1], style=torch.tensor([k])).hair for k in range(len(wanted))]
    likeliest = decoder.code(feature[:1]).hair
    assert torch.allclose(codes[int(wanted.argmax())], likeliest, atol=0.05)
    assert all(not torch.allclose(a, b) for i, a in enumerate(codes) for b in codes[:i])


def build_debug() -> FaceDecoder:
    """Hair that differs between styles, and features that choose between them."""
    torch.manual_seed(0)
    decoder = FaceDecoder(FaceDecoderConfig.debug()).eval()
    decoder.style_hair.copy_(torch.randn_like(decoder.style_hair))
    torch.nn.init.normal_(decoder.style.weight, std=0.1)
    return decoder.requires_grad_(False)


def test_a_convolutional_texture_can_be_drawn_smaller() -> None:
    """Half the size, enlarged: the face keeps its size, the network does not."""
    config = replace(FaceDecoderConfig.debug(), texture="conv")
    full, half = FaceDecoder(config), FaceDecoder(replace(config, conv_size=32))
    assert half(torch.zeros(1, 128)).image.shape == full(torch.zeros(1, 128)).image.shape == (1, 3, 64, 64)
    assert half.conv.start * 2 == full.conv.start
    with pytest.raises(ConfigError, match="36 is no multiple of 8"):
        replace(config, conv_size=36)
