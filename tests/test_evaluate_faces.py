"""Figures of drawn faces: colour, correlation, rank, intervals, held-out voices, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from crossmodal.audio import load_speech
from crossmodal.data import generated_people
from crossmodal.data.pseudo_pairs import Axis
from crossmodal.errors import BundleError
from crossmodal.evaluation import face_looks, faces, voice_faces
from crossmodal.evaluation.figures import figure
from crossmodal.models.face_decoder import FaceDecoder, FaceDecoderConfig
from crossmodal.models.feature_head import FeatureHead, FeatureHeadConfig
from crossmodal.speech2face import Speech2Face
from tests.debug_bundle import write_debug_bundle
from tests.generated import sung_voice


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # reference values of the sRGB primaries under D65 (Lindbloom)
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    assert np.allclose(faces.srgb_to_lab(np.array(rgb)), lab, atol=0.05)


def test_interval_holds_the_mean_and_shrinks_with_n() -> None:
    rng = np.random.default_rng(0)
    few, many = (figure("x", rng.normal(5, 1, n)) for n in (20, 2000))
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.3 * (few.high - few.low)
    assert few.n == 20
    # the classical interval of a mean
    values = rng.normal(0, 2, 400)
    ours = figure("x", values)
    half = 1.96 * values.std() / 20
    assert ours.high - ours.value == pytest.approx(half, rel=0.15)


def test_figure_line_shows_what_it_is_compared_with() -> None:
    line = figure("gender", [1.0, 0.0], reference=0.5, reference_name="chance").line()
    assert "n=2" in line
    assert "chance 0.500" in line


def test_correlation_is_that_of_numpy() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 3, 7, 3))
    ours = faces._correlation(a, b)
    theirs = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b)]
    assert np.allclose(ours, theirs)


def test_landmark_error_ignores_place_and_size() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (2, 30, 2))
    moved = points * 1.3 + [20, -7]
    assert np.allclose(faces._landmark_error(moved, points, 50.0), 0, atol=1e-6)
    noisy = points + np.random.default_rng(1).normal(0, 1, points.shape)
    # two degrees of freedom a point, four of the similarity
    assert faces._landmark_error(noisy, points, 100.0).mean() == pytest.approx(np.sqrt(2 * (1 - 4 / 60)), rel=0.2)


def test_rank_of_truth_and_of_noise() -> None:
    rng = np.random.default_rng(0)
    points, texture = rng.uniform(0, 100, (12, 30, 2)), rng.standard_normal((12, 50, 3))
    assert (faces._rank(points, texture, points, texture, 50.0) == 0).all()
    noise = faces._rank(rng.uniform(0, 100, points.shape), rng.standard_normal(texture.shape), points, texture, 50.0)
    assert noise.mean() > 2


def test_probe_reads_gender_of_people_it_has_not_seen() -> None:
    people = generated_people.people(30)
    probe = faces.gender_probe(people, range(20))
    male = np.array([row["gender"] == "male" for row in people.attributes])
    assert ((probe.score(people.feature(0)[20:]) > 0) == male[20:]).mean() > 0.9


def test_photo_figures_of_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that has learned nothing does no better than the mean face, and says so."""
    people = generated_people.people(16)
    size = people.aligned.frame.size
    torch.manual_seed(0)
    config = replace(FaceDecoderConfig.debug(), landmarks=216, size=size)
    decoder = FaceDecoder(config).eval()
    decoder.basis.shape_mean.copy_(torch.from_numpy(people.aligned.mean_points))
    decoder.basis.mean_points.copy_(torch.from_numpy(people.aligned.mean_points))
    monkeypatch.setattr(faces, "describe_drawn", lambda images, _: images.reshape(len(images), -1)[:, :128] / 255.0)
    held = [people.aligned.names[i] for i in (1, 4, 6, 11)]
    figures, result = faces.measure_photos(decoder, people, held, lambda chips: chips)
    named = {f.name: f for f in figures}
    assert all(np.isfinite(f.value) for f in figures)
    error = named["neutral: landmark RMS error"]
    assert error.value == pytest.approx(error.reference, rel=1e-3)
    assert error.n == 4
    assert result.images.shape == (4, size, size, 3)


def test_looks_and_hair_against_the_persons_own() -> None:
    """A face that is the person's own picture shows all that it shows; another's does not."""
    people = generated_people.people(8)
    aligned, who = people.aligned, [0, 2, 3, 5]
    alpha = aligned.pictures[who][..., 3:] / 255.0
    pictures = aligned.pictures[who][..., :3] * alpha + 255 * face_looks.BACKGROUND * (1 - alpha)
    own = face_looks.Drawn(aligned.textures[who][..., :3] / 255.0, pictures.round().astype(np.uint8))
    other = face_looks.Drawn(own.texture[[1, 2, 3, 0]], own.images[[1, 2, 3, 0]])
    named = {f.name: f for f in face_looks.look_figures("x", own, other, aligned, who)}
    assert named["x: beard, r with the true face"].value == pytest.approx(1.0)
    assert named["x: beard, r with the true face"].reference < 0.9
    hair = named["x: hair, mean difference of colour"]
    assert hair.value == pytest.approx(0, abs=0.003)
    assert hair.reference > 0.01


def test_darkness_is_told_from_the_cheeks() -> None:
    pupils = np.array([[30.0, 40.0], [60.0, 40.0]])
    texture = np.full((2, 96, 96, 3), 0.6)
    texture[1, 66:, 25:65] = 0.3
    texture *= np.array([1.0, 0.8])[:, None, None, None]  # darker skin is no beard
    clean, bearded = face_looks.darkness(texture, face_looks.LOOKS["beard"], pupils)
    assert clean == pytest.approx(0)
    assert bearded > 0.1


def test_photo_figures_with_what_the_photo_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    people = generated_people.people(16)
    torch.manual_seed(0)
    config = replace(FaceDecoderConfig.debug(), landmarks=216, size=people.aligned.frame.size, portrait=48)
    decoder = FaceDecoder(config).eval()
    decoder.basis.shape_mean.copy_(torch.from_numpy(people.aligned.mean_points))
    decoder.basis.mean_points.copy_(torch.from_numpy(people.aligned.mean_points))
    monkeypatch.setattr(faces, "describe_drawn", lambda images, _: images.reshape(len(images), -1)[:, :128] / 255.0)
    held = [people.aligned.names[i] for i in (1, 4, 6, 11)]
    told = []
    monkeypatch.setattr(decoder, "_code", _listening(decoder._code, told))
    figures, _ = faces.measure_photos(decoder, people, held, lambda chips: chips, shown=True)
    assert "neutral: beard, r with the true face" in {f.name for f in figures}
    assert any(p is not None and p.shape == (4, 3, 48, 48) and p.isfinite().all() for p in told)
    assert any(p is None for p in told)  # the feature alone, beside it


def _listening(code: object, told: list) -> object:
    def listen(x, h, skin=None, portrait=None, *rest):
        told.append(portrait)
        return code(x, h, skin, portrait, *rest)

    return listen


def test_voice_order_and_steadiness() -> None:
    """A head that reads one direction orders shifted voices by it; the figures say so."""
    rng = np.random.default_rng(0)

    def modes(waveforms: list[np.ndarray]) -> np.ndarray:
        return np.array([[len(w) / 1000.0, 0.0] for w in waveforms])  # slower, so longer: more "masculine"

    voices = [
        voice_faces.HeldOutVoice(f"x/{i}", i % 2 == 0, rng.standard_normal(16_000).astype(np.float32), np.zeros(1))
        for i in range(4)
    ]
    steps, ranks = voice_faces._order(modes, voices, Axis(np.array([1.0, 0.0]), 0.0))
    assert steps.value == 1.0
    assert ranks.value == pytest.approx(1.0)


@pytest.mark.data
@pytest.mark.slow
def test_held_out_voices_and_their_figures(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossmodal.models.speaker_encoder import SpeakerEncoder

    voices = voice_faces.held_out_voices(data_root, limit=2)
    assert {v.speaker.split("/")[0] for v in voices} == {"librispeech", "an4", "arctic"}
    assert all(len(v.one) > 8_000 for v in voices)
    people = generated_people.people(16)
    torch.manual_seed(0)
    decoder = FaceDecoder(FaceDecoderConfig.debug()).eval()
    monkeypatch.setattr(voice_faces, "describe_drawn", lambda images, _: np.zeros((len(images), 128)))
    head, encoder = FeatureHead(FeatureHeadConfig.debug()).eval(), SpeakerEncoder.from_package()
    probe = faces.gender_probe(people, range(16))
    face_of = voice_faces.by_embedding(head, encoder)
    figures = voice_faces.measure_voices(face_of, decoder, voices, probe, lambda chips: chips)
    figures += voice_faces.measure_hypotheses(head, decoder, encoder, voices, people, probe, lambda chips: chips)
    named = {f.name: f for f in figures}
    assert named["four hypotheses: gender agrees"].n == len(voices)
    assert named["voice: gender of the drawn face agrees"].n == len(voices)
    assert 0 <= named["voice lowered: steps to a more masculine face"].value <= 1


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_debug_bundle(tmp_path / "bundle")


def listening(folder: Path) -> Speech2Face:
    """A journey whose feature head gives different voices different faces, as an untrained one does not."""
    journey = Speech2Face.from_pretrained(folder, device="cpu")
    if "feature-head" in journey.bundle:
        torch.manual_seed(0)
        torch.nn.init.normal_(journey.module("feature-head").line.weight)
    return journey


def test_a_route_is_measured_as_the_journey_takes_it(bundle: Path) -> None:
    """What the figures are made of is what ``crossmodal face --route`` draws from."""
    journey = listening(bundle)
    head, encoder = journey.module("feature-head"), journey.module("speaker-encoder")
    routes = {
        "embedding": voice_faces.by_embedding(head, encoder),
        "spectrogram": voice_faces.by_spectrogram(journey.module("voice-encoder")),
    }
    waveforms = [sung_voice(2.0, 120.0), sung_voice(1.5, 210.0, seed=1), sung_voice(7.0, 160.0, seed=2)]
    speech = [load_speech(waveform, sample_rate=16_000) for waveform in waveforms]
    for route, face_of in routes.items():
        ours = face_of(speech)
        theirs = [journey(waveform, sample_rate=16_000, route=route).feature.numpy() for waveform in waveforms]
        assert np.allclose(ours, theirs, atol=1e-4), route
        assert len(np.unique(ours.round(4), axis=0)) == 3
    assert not np.allclose(routes["embedding"](speech), routes["spectrogram"](speech), atol=1e-2)


def test_routes_differ_in_what_they_can_show(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = generated_people.people(16)
    probe = faces.gender_probe(people, range(16))
    sung = [sung_voice(2.0, f0, seed=i) for i, f0 in enumerate((210.0, 120.0, 200.0, 110.0))]
    voices = [voice_faces.HeldOutVoice(f"x/{i}", i % 2 == 1, voice, voice) for i, voice in enumerate(sung)]
    monkeypatch.setattr(voice_faces, "held_out_voices", lambda data, limit: voices)
    monkeypatch.setattr(voice_faces, "describe_drawn", lambda images, _: np.zeros((len(images), 128)))
    monkeypatch.setattr(voice_faces, "SHIFTS", (1.1, 1.0, 0.9))

    def measured(folder: Path, route: Literal["auto", "embedding", "spectrogram"]) -> tuple[dict[str, float], int]:
        journey = listening(folder)
        figures, sheet = voice_faces.evaluate_voices(journey, tmp_path, people, probe, lambda c: c, route=route)
        return {f.name: f.value for f in figures}, sheet.width

    both = {route: measured(bundle, route) for route in ("embedding", "spectrogram")}
    (embedding, wide), (spectrogram, narrow) = both["embedding"], both["spectrogram"]
    assert set(embedding) - set(spectrogram) == {name for name in embedding if "hypotheses" in name}
    assert set(spectrogram) < set(embedding)
    same = "voice: distance of faces, one speaker, two recordings"
    assert embedding[same] == spectrogram[same] == 0.0
    noise = "voice: distance to the face from clean speech, 10 dB noise"
    assert embedding[noise] != spectrogram[noise]
    assert wide > 3 * narrow
    assert measured(bundle, "auto") == both["embedding"]
    alone = write_debug_bundle(tmp_path / "alone", without=("feature-head",))
    assert set(measured(alone, "auto")[0]) == set(spectrogram)
    with pytest.raises(BundleError, match="feature-head"):
        measured(alone, "embedding")


def test_command_refuses_an_unknown_route(tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    result = CliRunner().invoke(app, ["evaluate", "faces", "--data", str(tmp_path), "--route", "telepathy"])
    assert result.exit_code == 2
    assert "telepathy" in result.output


def test_command_refuses_an_unknown_part(tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    result = CliRunner().invoke(app, ["evaluate", "faces", "--data", str(tmp_path), "--only", "ears"])
    assert result.exit_code == 1
    assert "ears" in result.output
