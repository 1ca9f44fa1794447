"""Refinement: nearer to the photo's feature; shape, hair and the skin's colour stay."""

from __future__ import annotations

import pytest
import torch

from crossmodal.data import generated_people
from crossmodal.data.face_model import build_model, hair_styles, skin_mask
from crossmodal.losses.decoder import Describer
from crossmodal.models.face_decoder import FaceDecoder, FaceDecoderConfig
from crossmodal.models.face_features import DlibConfig, DlibFaceFeatures
from crossmodal.refinement import BETAS, RATE, _adam, describer_of, refine

PEOPLE = generated_people.people(12)
SKIN = torch.from_numpy(skin_mask(PEOPLE.aligned))


def decoder(texture: str = "basis", portrait: int = 0) -> FaceDecoder:
    torch.manual_seed(0)
    config = FaceDecoderConfig(
        size=64, hidden=(16,), shape_components=6, face_components=8, hair_components=5, styles=4,
        conv_channels=(8, 8, 8, 8), texture=texture, portrait=portrait,  # type: ignore[arg-type]
    )  # fmt: skip
    network = FaceDecoder(config)
    model = build_model(PEOPLE.aligned, range(10), config)
    network.basis.load_state_dict(model.basis.state_dict())
    network.style_hair.copy_(hair_styles(model.basis, model.codes, config.styles).hair)
    network.tone_of_face.copy_(network.basis.face_basis[:, :3, SKIN].mean(-1))
    return network.eval()


def describer(network: FaceDecoder) -> Describer:
    torch.manual_seed(1)
    return describer_of(network, DlibFaceFeatures(DlibConfig(stem_channels=4, stages=((4, 1), (8, 1), (8, 1)))))


def test_the_drawn_face_comes_nearer_and_the_rest_stays() -> None:
    network = decoder()
    seen = describer(network)
    feature = 0.2 * torch.randn(3, 128)
    plain, refined = (refine(network, seen, feature, steps=steps) for steps in (0, 8))

    def distance(face) -> torch.Tensor:
        return (seen(face.image, face.landmarks) - feature).norm(dim=1)

    assert (distance(refined) < distance(plain)).all()
    assert torch.equal(refined.landmarks, plain.landmarks)
    assert not refined.image.requires_grad
    assert float((refined.texture - plain.texture).abs().max()) > 1e-3
    tone = (refined.texture - plain.texture)[..., SKIN].mean(-1)
    assert float(tone.abs().max()) < 0.2 * float((refined.texture - plain.texture).abs().max())


def test_its_steps_are_adams() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.zeros(3, 5), torch.zeros(3, 5, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=RATE, betas=BETAS)
    mean, square = torch.zeros(3, 5), torch.zeros(3, 5)
    for step in range(1, 7):
        theirs.grad = torch.randn(3, 5) * 10.0 ** torch.arange(-3, 2)
        ours -= RATE * _adam(mean, square, theirs.grad, step)
        optimiser.step()
        assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_a_prior_holds_it() -> None:
    network = decoder()
    seen, feature = describer(network), 0.2 * torch.randn(1, 128)
    plain = network(feature).image
    free, held = (refine(network, seen, feature, steps=5, prior=prior).image for prior in (0.0, 1e4))
    assert float((held - plain).abs().mean()) < float((free - plain).abs().mean())


def test_what_the_photo_settled_moves_less() -> None:
    """A component that the portrait shows precisely stays; one that it leaves open moves."""
    network = decoder(portrait=48)
    appearance = network.appearance
    assert appearance is not None
    network.tone_of_face.zero_()  # all ways are open but for what the photo says
    appearance.effect[0] = 0.2  # seen in every cell
    appearance.precision.fill_(100.0)
    seen, feature = describer(network), 0.2 * torch.randn(1, 128)
    photo = torch.full((1, 3, 48, 48), 0.4)
    codes = []
    render = network.render
    network.render = lambda code: codes.append(code.face) or render(code)  # type: ignore[method-assign]
    refine(network, seen, feature, None, photo, steps=4)
    moved = (codes[-1] - codes[0])[0].abs()
    codes.clear()
    refine(network, seen, feature, steps=4)
    freely = (codes[-1] - codes[0])[0].abs()
    assert float(moved[0] / moved[1:].mean()) < 0.3 * float(freely[0] / freely[1:].mean())


def test_no_steps_or_no_components_only_decode() -> None:
    feature, skin = 0.2 * torch.randn(2, 128), torch.full((2, 3), 0.6)
    network = decoder()
    assert torch.equal(refine(network, describer(network), feature, skin, steps=0).image, network(feature, skin).image)
    conv = decoder("conv")
    assert torch.equal(refine(conv, describer(conv), feature, steps=3).image, conv(feature).image)


def test_it_works_inside_inference() -> None:
    network = decoder()
    with torch.no_grad():
        face = refine(network, describer(network), 0.2 * torch.randn(1, 128), steps=2)
    assert torch.isfinite(face.image).all()


@pytest.mark.parametrize("landmarks", [20, 216])
def test_corners_exist_in_small_decoders(landmarks: int) -> None:
    network = FaceDecoder(FaceDecoderConfig(size=64, landmarks=landmarks, silhouette=6, loose=(), hidden=(8,)))
    assert max(describer(network).corners) < landmarks
