"""Looks taken over from photos: the portrait, its light, the most likely face, the choice of hair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import faces, portrait, skin
from crossmodal.data import generated_people
from crossmodal.data.appearance import estimate
from crossmodal.data.face_model import build_model, hair_styles
from crossmodal.faces import DLIB_POINTS, DLIB_PUPILS, DetectedFace
from crossmodal.models.appearance import DEGREES, LUMA, Appearance, AppearanceState, shrink
from crossmodal.models.face_decoder import FaceDecoder, FaceDecoderConfig

PUPILS = np.array([[16.0, 21.0], [31.0, 21.0]])


def detected(scale: float = 1.0, turn: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> DetectedFace:
    """A face whose chip is the picture itself, then enlarged, turned and moved."""
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return DetectedFace(np.array([0.0, 0, 150, 150]), 1.0, scale * DLIB_POINTS @ rotation.T + shift)


def marked(face: DetectedFace, scale: float = 1.0, size: int = 400) -> Image.Image:
    """Grey, with white discs where the pupils of ``face`` are."""
    matrix = np.linalg.lstsq(np.c_[DLIB_POINTS, np.ones(5)], face.points, rcond=None)[0]
    y, x = np.mgrid[0:size, 0:size] + 0.5
    picture = np.full((size, size, 3), 90, np.uint8)
    for centre in np.c_[DLIB_PUPILS, np.ones(2)] @ matrix:
        picture[np.hypot(x - centre[0], y - centre[1]) < 5 * scale] = 255
    return Image.fromarray(picture)


@pytest.mark.parametrize(("scale", "turn", "shift"), [(1, 0, (60, 80)), (2, 0.3, (90, 20)), (0.6, -0.4, (150, 200))])
def test_pupils_lie_where_they_are_asked_for(scale: float, turn: float, shift: tuple[float, float]) -> None:
    face = detected(scale, turn, shift)
    cells = faces.portrait(marked(face, scale), face, PUPILS, 48)
    bright = cells[..., 0].astype(float) - 90
    bright[cells[..., 3] == 0] = 0
    for side, pupil in zip((slice(0, 24), slice(24, 48)), PUPILS):
        y, x = np.mgrid[0:48, 0:48][:, :, side]
        weight = bright[:, side]
        assert (weight * x).sum() / weight.sum() == pytest.approx(pupil[0], abs=0.35)
        assert (weight * y).sum() / weight.sum() == pytest.approx(pupil[1], abs=0.35)


def test_what_is_outside_the_photo_is_not_known() -> None:
    face = detected(2.0)
    cells = faces.portrait(marked(face, size=300), face, PUPILS, 48)
    known = cells[..., 3] == 255
    assert known[21, 24]
    assert not known[0].any()  # the frame reaches above the chip, and the chip is the picture
    assert not known[:, 0].any()


def test_pupils_scale_with_the_frame() -> None:
    """Pixel centres lie at half."""
    assert portrait.pupils_in(np.array([[7.5, 7.5]]), 16, 4) == pytest.approx(np.array([[1.5, 1.5]]))


def person(colour: object, beard: float = 1.0) -> np.ndarray:
    """A portrait of plain skin with a darker jaw."""
    cells = np.full((48, 48, 4), 255, np.uint8)
    cells[..., :3] = np.round(255 * np.asarray(colour))
    cells[40:, ..., :3] = np.round(beard * cells[40:, ..., :3])
    return cells


@pytest.mark.parametrize("gain", [0.4, 1.0, (1.3, 1.0, 0.7)])
def test_the_light_is_taken_away(gain: object) -> None:
    own, beard = np.array([0.7, 0.55, 0.48]), 0.5
    plain = person(own, beard)
    lit = plain.copy()
    lit[..., :3] = np.round(255 * skin.from_linear(np.clip(skin.to_linear(plain[..., :3] / 255) * gain, 0, 1)))
    measured = lit[30, 10, :3] / 255
    found = portrait.relit(lit, PUPILS, own, measured)
    assert np.abs(found - plain[..., :3] / 255).max() < 0.02


def test_a_colourless_photo_only_changes_in_brightness() -> None:
    grey = person([0.3, 0.3, 0.3])
    found = portrait.relit(grey, PUPILS, np.array([0.7, 0.55, 0.48]), None)
    assert np.ptp(found[5, 5]) < 1e-6
    wanted = skin.to_linear(np.array([0.7, 0.55, 0.48])) @ portrait.LUMINANCE
    assert skin.to_linear(found[5, 5]) @ portrait.LUMINANCE == pytest.approx(wanted, rel=1e-3)


def test_nothing_is_known_where_no_skin_is_seen() -> None:
    cells = person([0.6, 0.5, 0.4])
    cells[..., 3] = 0
    assert np.isnan(portrait.relit(cells, PUPILS, np.array([0.7, 0.55, 0.48]), None)).all()


def random_model(seed: int = 0, *, size: int = 12, components: int = 5, nuisances: int = 3) -> Appearance:
    rng = torch.Generator().manual_seed(seed)
    model = Appearance(size, components, nuisances, 2)
    root = torch.randn(components, components, generator=rng)
    inside = torch.zeros(size, size)
    inside[2:10, 3:9] = 1
    model.fill(
        AppearanceState(
            0.5 * torch.ones(size, size),
            0.05 * torch.randn(components, size, size, generator=rng) * inside,
            0.05 * torch.randn(nuisances, size, size, generator=rng) * inside,
            inside / 0.02**2,
            root @ root.T + torch.eye(components),
            torch.rand(2, 4, size, size, generator=rng),
        )
    )
    return model


def as_photo(luma: torch.Tensor) -> torch.Tensor:
    return luma[:, None].expand(-1, 3, -1, -1).clone() / sum(LUMA)


def test_it_is_the_conditional_gaussian() -> None:
    """Against the joint Gaussian of code and cells, written out: what scipy and textbooks call conditioning."""
    model = random_model()
    rng = torch.Generator().manual_seed(1)
    face = torch.randn(2, 5, generator=rng)
    luma = model.expected + torch.einsum("bf,fhw->bhw", face, model.effect)
    luma = luma + 0.002 * torch.randn(2, 12, 12, generator=rng)
    found, off = model.posterior(face, as_photo(luma))
    where = model.precision.flatten() > 0
    effect, nuisance = model.effect.flatten(1)[:, where].double(), model.nuisance.flatten(1)[:, where].double()
    prior = torch.linalg.inv(model.prior.double())
    # Residuals far below the noise: Student's t then weighs all cells alike, by (ν + 1) / ν.
    noise = 0.02**2 * DEGREES / (DEGREES + 1)
    cells = effect.T @ prior @ effect + nuisance.T @ nuisance + noise * torch.eye(int(where.sum()))
    rest = (luma - model.expected - torch.einsum("bf,fhw->bhw", face, model.effect)).flatten(1)[:, where].double()
    wanted = face.double() + rest @ torch.linalg.solve(cells, effect.T @ prior)
    assert torch.allclose(found.double() - face, wanted - face, atol=3e-3)
    assert float((wanted - face).abs().max()) > 1e-3
    left = prior - prior @ effect @ torch.linalg.solve(cells, effect.T @ prior)
    assert torch.allclose(off[0].double(), left, atol=0.03 * float(left.abs().max()))


def test_a_true_difference_is_found_and_a_smile_is_not_taken_for_one() -> None:
    model = random_model()
    true, guessed = torch.randn(1, 5, generator=torch.Generator().manual_seed(2)), torch.zeros(1, 5)
    seen = model.expected + torch.einsum("bf,fhw->bhw", true, model.effect)
    found = model(guessed, as_photo(seen))
    assert float((found - true).norm()) < 0.35 * float(true.norm())
    smiling = seen + 2 * model.nuisance[:1]
    assert float((model(guessed, as_photo(smiling)) - found).norm()) < 0.25 * float(true.norm())


def test_glasses_are_given_up() -> None:
    model = random_model()
    true, guessed = torch.randn(1, 5, generator=torch.Generator().manual_seed(3)), torch.zeros(1, 5)
    seen = model.expected + torch.einsum("bf,fhw->bhw", true, model.effect)
    covered = seen.clone()
    covered[:, 3:5, 3:9] = 0.0
    clean, hidden = model(guessed, as_photo(seen)), model(guessed, as_photo(covered))
    missing = seen.clone()
    missing[:, 3:5, 3:9] = torch.nan
    assert float((hidden - clean).norm()) < 2 * float((model(guessed, as_photo(missing)) - clean).norm()) + 0.3


def test_an_unknown_photo_changes_nothing() -> None:
    model, face = random_model(), torch.randn(2, 5)
    nothing = torch.full((2, 3, 12, 12), torch.nan)
    assert torch.equal(model(face, nothing), face)
    assert torch.equal(model.hair(nothing), torch.zeros(2, 2))


def test_the_right_hair_explains_the_photo_best() -> None:
    """Long dark hair, short dark hair, long fair hair, before two backgrounds, one of them as dark as the hair."""
    model = random_model(size=12)
    styles = torch.zeros(3, 4, 12, 12)
    for k, (colour, bottom) in enumerate((((0.15, 0.1, 0.1), 9), ((0.15, 0.1, 0.1), 4), ((0.8, 0.7, 0.5), 9))):
        styles[k, :3] = torch.tensor(colour)[:, None, None]
        styles[k, 3, 1:bottom, 1:11] = 1.0
    model = Appearance(12, 5, 3, 3)
    model.precision[4:9, 4:8] = 1.0
    model.styles.copy_(styles)
    for background in ((0.9, 0.9, 0.92), (0.4, 0.5, 0.3)):
        for k in range(3):
            photo = torch.tensor(background)[None, :, None, None].expand(1, 3, 12, 12).clone()
            photo = torch.where(styles[k, 3] > 0, styles[k, :3], photo)
            photo = (photo + 0.02 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(k))).clamp(0, 1)
            assert int(model.hair(photo).argmax()) == k


def test_shrink_is_the_mean_of_cells() -> None:
    values = torch.rand(2, 3, 8, 8)
    brute = values.reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    assert torch.allclose(shrink(values, 4), brute)


def test_estimated_looks_come_nearer_to_people_left_out() -> None:
    """On generated people: with the portrait, the texture of the face is nearer to the true one than without."""
    people = generated_people.people(24)
    known = list(range(18))
    config = FaceDecoderConfig(
        size=64, hidden=(16,), shape_components=6, face_components=8, hair_components=5, styles=4, portrait=48
    )
    decoder = FaceDecoder(config).eval()
    model = build_model(people.aligned, known, config)
    decoder.basis.load_state_dict(model.basis.state_dict())
    styles = hair_styles(model.basis, model.codes, config.styles)
    decoder.style_hair.copy_(styles.hair)
    assert decoder.appearance is not None
    state = estimate(decoder, model, people, known, 0.2)
    decoder.appearance.fill(state)
    assert all(value.isfinite().all() for value in state)
    rows = people.rows(0)[18:]
    cells = torch.from_numpy(people.photos.portraits[rows][..., :3] / 255.0).permute(0, 3, 1, 2).float()
    nothing = torch.zeros(len(rows), config.face_components)
    luma = torch.einsum("c,bchw->bhw", torch.tensor(LUMA), cells)
    inside = state.precision > 0

    def error(code: torch.Tensor) -> float:
        drawn = state.expected + torch.einsum("bf,fhw->bhw", code, state.effect)
        return float((drawn - luma)[:, inside].square().mean())

    assert error(decoder.appearance(nothing, cells)) < 0.5 * error(nothing)


def test_a_decoder_takes_looks_over_and_survives_export() -> None:
    config = FaceDecoderConfig(
        size=64, landmarks=20, silhouette=6, loose=(), hidden=(16,), shape_components=4, face_components=5,
        hair_components=3, styles=4, portrait=12, nuisances=3,
    )  # fmt: skip
    torch.manual_seed(0)
    decoder = FaceDecoder(config).eval()
    decoder.basis.face_basis.copy_(0.05 * torch.randn_like(decoder.basis.face_basis))
    assert decoder.appearance is not None
    decoder.appearance.effect.copy_(0.05 * torch.randn_like(decoder.appearance.effect))
    decoder.appearance.precision.fill_(100.0)
    feature, photo = torch.randn(2, 128), torch.rand(2, 3, 12, 12)
    plain, ours = decoder.code(feature), decoder.code(feature, None, photo)
    assert torch.equal(plain.shape, ours.shape)
    assert not torch.allclose(plain.face, ours.face, atol=1e-3)
    again = FaceDecoder(config).eval()
    again.load_export(decoder.export_state())
    assert torch.allclose(again.code(feature, None, photo).face, ours.face, atol=2e-2)
