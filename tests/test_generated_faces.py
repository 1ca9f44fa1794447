"""Generated faces on generated people with the debug bundle: figures, leakage, and everything that is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from typer.testing import CliRunner

from crossmodal.bundle import BundleWriter
from crossmodal.data import generated_people, splits
from crossmodal.data.features import FeatureWriter, feature
from crossmodal.data.generated import generate, generated_feature
from crossmodal.data.manifest import Manifest
from crossmodal.errors import CheckpointError, DataError, LeakageError, SpaceMismatchError
from crossmodal.evaluation import face_cases, generated_faces, leakage
from crossmodal.evaluation.drawing import Drawing, Drawn
from crossmodal.evaluation.face_cases import FaceCases, RealFaces
from crossmodal.journey import Journey
from tests.debug_bundle import write_debug_bundle

PEOPLE, HELD_OUT, TAKES = 15, 4, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder, people=PEOPLE, takes=TAKES, seconds=1.4, held_out=HELD_OUT)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_debug_bundle(tmp_path_factory.mktemp("bundle") / "debug")


@pytest.fixture(scope="module")
def drawing(bundle: Path) -> Drawing:
    return Drawing(Journey.from_pretrained(bundle, device="cpu"))


@pytest.fixture(scope="module")
def cases(drawing: Drawing, data: Path) -> FaceCases:
    return face_cases.from_prepared(drawing, data, "validation")


def other(data: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(data, tmp_path / "copy"))


def test_cases_are_what_was_prepared(cases: FaceCases, drawing: Drawing) -> None:
    assert len(cases.people) == HELD_OUT * TAKES
    assert cases.identity
    assert len(cases.gallery) == HELD_OUT
    assert len(cases.known) == (PEOPLE - HELD_OUT) * TAKES
    assert not set(cases.people) & set(cases.known.people)
    for row, name in enumerate(cases.people):
        number = int(str(name).split("/")[1])
        takes = [generated_feature(number, take, "dlib-128") for take in range(TAKES)]
        assert min(np.abs(cases.true[row] - t).max() for t in takes) < 1e-6
    assert cases.voice is not None
    assert cases.embeddings is not None
    again = drawing.modes(drawing.embed([cases.voice(0)]))[0]
    assert cases.inputs["the voice"][0] == pytest.approx(again, abs=1e-4)
    assert cases.gallery.picture is not None
    assert cases.gallery.picture(0).size == (160, 160)


def test_voices_may_be_spectrograms_or_embeddings(bundle: Path, data: Path, tmp_path: Path) -> None:
    """What is predicted from prepared spectrograms or embeddings is what is predicted from the sound."""
    from crossmodal.audio import complex_spectrogram

    folder = other(data, tmp_path)
    shutil.rmtree(folder / "features" / "waveform")
    journey = Journey.from_pretrained(bundle, device="cpu")
    spectrum, drawing = Drawing(journey, "spectrogram"), Drawing(journey)
    with pytest.raises(DataError, match="nobody in the part 'validation' has a voice"):
        face_cases.from_prepared(spectrum, folder, "validation")
    heard = face_cases.from_prepared(spectrum, data, "validation")
    assert heard.voice is not None
    writer = FeatureWriter(folder / "features" / "spectrogram", feature("spectrogram"))
    manifest = splits.part(Manifest.read(folder / "manifest.parquet"), "validation")
    order = sorted(manifest, key=lambda row: splits.fraction(row.id))
    for index, row in enumerate(order):
        writer.add(row.id, "", complex_spectrogram(torch.from_numpy(heard.voice(index))).numpy().astype(np.float16))
    writer.flush()
    stored = face_cases.from_prepared(spectrum, folder, "validation")
    assert stored.voice is None
    assert stored.inputs["the voice"] == pytest.approx(heard.inputs["the voice"], abs=0.02)
    assert not any("hypotheses" in f.name for f in generated_faces.measure(spectrum, stored, pictures=0).figures)
    embedded = face_cases.from_prepared(drawing, folder, "validation")
    expected = [generated_feature(int(r.speaker), int(r.id[-1]), "ge2e-256") for r in order]
    assert embedded.embeddings == pytest.approx(np.stack(expected))


def test_every_kind_of_figure_is_there(drawing: Drawing, cases: FaceCases) -> None:
    found = generated_faces.measure(drawing, cases, pictures=2)
    names = [f.name for f in found.figures]
    for part in (
        "feature of the voice: angle to the true feature",
        "drawn from the voice, read back: L1 distance to the true feature",
        "mean face: angle to the true feature",
        "gender only: L2 distance to the true feature",
        "R@1 of 4, feature of the voice",
        "R@2 of 4, gender only",
        "SF2F R@1 of 4 people, drawn from the voice, read back",
        "probe of gender: real faces of people left out read right",
        "gender read in the face drawn from the voice agrees with the true face",
        "4 hypotheses: mean distance between two",
    ):
        assert part in names
    assert all(np.isfinite(f.value) for f in found.figures)
    assert any("craniofacial" in note for note in found.notes)  # the debug decoder's mark-up is unknown
    assert any("VGGFace score" in note for note in found.notes)
    assert len(found.pictures) == 2
    assert {len(c.values) for c in found.cases} == {len(cases.people)}


def test_distances_and_baselines_by_hand(drawing: Drawing, cases: FaceCases) -> None:
    found = {f.name: f for f in generated_faces.measure(drawing, cases, pictures=0).figures}
    predicted = cases.inputs["the voice"].astype(np.float64)
    by_hand = [np.abs(p - t).sum() for p, t in zip(predicted, cases.true)]
    assert found["feature of the voice: L1 distance to the true feature"].value == pytest.approx(np.mean(by_hand))
    people = sorted(set(cases.known.people))
    means = [np.mean(cases.known.features[cases.known.people == name], axis=0) for name in people]
    mean = np.mean(means, axis=0)
    cosines = [mean @ t / np.linalg.norm(mean) / np.linalg.norm(t) for t in cases.true]
    assert found["mean face: angle to the true feature"].value == pytest.approx(np.degrees(np.arccos(cosines)).mean())
    genders = {name: cases.known.attributes[list(cases.known.people).index(name)]["gender"] for name in people}
    own = []
    for row, truth in zip(cases.attributes, cases.true):
        same = np.mean([m for m, name in zip(means, people) if genders[name] == row["gender"]], axis=0)
        own.append(np.linalg.norm(same - truth))
    assert found["gender only: L2 distance to the true feature"].value == pytest.approx(np.mean(own))


def test_a_perfect_feature_finds_everybody_and_a_random_one_does_not() -> None:
    rng = np.random.default_rng(0)
    count = 60
    people = np.array([f"p{i}" for i in range(count)])
    true = rng.standard_normal((count, 128)).astype(np.float32)
    rows = [{"gender": ("female", "male")[i % 2]} for i in range(count)]
    faces = RealFaces(true, people, rows)

    def draw(features: np.ndarray, keep: object = None) -> Drawn:
        """Read back as it is: the decoder's own fidelity is not the subject."""
        pixels, landmarks = {i: np.zeros((8, 8, 3), np.uint8) for i in range(count)}, np.zeros((count, 20, 2))
        return Drawn(pixels, landmarks, features, np.ones(count, dtype=bool))

    ideal = SimpleNamespace(draw=draw, landmarks=lambda _: np.zeros((count, 20, 2)))
    logits = rng.standard_normal((count, 7))
    ideal.classify = lambda features: logits
    for values, perfect in ((true + 0.01, True), (rng.standard_normal(true.shape).astype(np.float32), False)):
        some = FaceCases(
            "dlib-128", people, rows, true, {"the voice": values}, faces, RealFaces(true[:0], people[:0], [])
        )
        found = {f.name: f for f in generated_faces.measure(ideal, some).figures}
        figure = found["R@5 of 60, drawn from the voice, read back"]
        assert (figure.value == 1.0) if perfect else (figure.low <= 5 / 60 <= figure.high)
        score = found["drawn from the voice: VGGFace score"]
        assert score.value == score.reference == pytest.approx(generated_faces.face_score(logits))


def test_face_score_is_one_for_one_face_and_the_number_of_kinds_for_sure_ones() -> None:
    assert generated_faces.face_score(np.zeros((7, 5))) == pytest.approx(1.0)
    assert generated_faces.face_score(1000.0 * np.eye(5)) == pytest.approx(5.0)
    logits = np.random.default_rng(0).standard_normal((9, 4))
    p = torch.softmax(torch.from_numpy(logits), -1)
    kl = [torch.nn.functional.kl_div(p.mean(0).log(), row, reduction="sum") for row in p]
    assert generated_faces.face_score(logits) == pytest.approx(float(torch.stack(kl).mean().exp()))


def test_diversity_against_scipy(drawing: Drawing) -> None:
    embeddings = drawing.embed([np.random.default_rng(i).normal(0, 0.1, 16_000).astype(np.float32) for i in range(3)])
    real = np.random.default_rng(0).standard_normal((6, 128))
    found = generated_faces.diversity(drawing, embeddings, real)
    samples = drawing.samples(embeddings, 4)
    assert (samples == drawing.samples(embeddings, 4)).all()
    faces = drawing.draw(samples.reshape(12, -1)).feature.reshape(3, 4, -1)
    assert found[0].value == pytest.approx(np.mean([pdist(voice).mean() for voice in faces]), rel=1e-5)
    assert found[0].reference == pytest.approx(pdist(real).mean())


def test_pseudo_pairs_are_never_reported_as_identity(drawing: Drawing, data: Path, tmp_path: Path) -> None:
    folder = other(data, tmp_path)
    manifest = Manifest.read(folder / "manifest.parquet")
    rows = [dataclasses.replace(row, pairing="pseudo") for row in manifest]
    Manifest(rows, metadata=manifest.metadata).write(folder / "manifest.parquet")
    cases = face_cases.from_prepared(drawing, folder, "validation")
    found = generated_faces.measure(drawing, cases)
    assert not any(
        word in f.name for f in found.figures for word in ("R@", "true feature", "true face", "craniofacial")
    )
    assert any("pseudo-pairs" in note for note in found.notes)
    assert any("agrees with the labels" in f.name for f in found.figures)


def test_what_cannot_be_measured_is_refused(drawing: Drawing, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'test'"):
        face_cases.from_prepared(drawing, data, "test")
    folder = other(data, tmp_path)
    name = Manifest.read(folder / "manifest.parquet")
    held = [row for row in name if row.attributes["split"] == "validation"]
    writer = FeatureWriter(folder / "features" / "dlib-128", feature("dlib-128"), "nan")
    writer.add(held[0].id, "", np.full(128, np.nan, np.float32))
    writer.flush()
    with pytest.raises(DataError, match="NaN"):
        face_cases.from_prepared(drawing, folder, "validation")
    shutil.rmtree(folder / "features" / "dlib-128")
    with pytest.raises(DataError, match="no row of the part 'validation' has a true face"):
        face_cases.from_prepared(drawing, folder, "validation")
    writer = FeatureWriter(folder / "features" / "dlib-128", feature("dlib-128"))
    for row in name:
        writer.add(row.id, "", np.zeros(512, np.float32))
    writer.flush()
    with pytest.raises(SpaceMismatchError, match="mixed feature spaces"):
        face_cases.from_prepared(drawing, folder, "validation")
    shutil.rmtree(folder / "features")
    shutil.copytree(data / "features" / "dlib-128", folder / "features" / "dlib-128")
    with pytest.raises(DataError, match="nobody in the part 'validation' has a voice"):
        face_cases.from_prepared(drawing, folder, "validation")


def test_silent_voices_are_left_out_and_counted(drawing: Drawing, data: Path, tmp_path: Path) -> None:
    folder = other(data, tmp_path)
    held = [r for r in Manifest.read(folder / "manifest.parquet") if r.attributes["split"] == "validation"]
    writer = FeatureWriter(folder / "features" / "waveform", feature("waveform"), "silent")
    for row in held[:3]:
        writer.add(row.id, "", np.zeros(16_000, np.int16))
    writer.flush()
    cases = face_cases.from_prepared(drawing, folder, "validation")
    assert len(cases.people) == HELD_OUT * TAKES - 3
    assert "3 voices hold too little speech and were left out" in cases.notes


def test_leakage_is_checked_where_a_record_is_kept(bundle: Path, data: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(data / "manifest.parquet")
    trained, tested = (splits.part(manifest, name) for name in ("train", "validation"))
    journey = Journey.from_pretrained(bundle, device="cpu")
    assert "leakage was not checked" in leakage.require(journey.bundle, tested)
    with BundleWriter(tmp_path / "b", name="trained") as writer:
        writer.copy_module(journey.bundle, "feature-head")
        writer.protocol(splits.protocol_record(trained))
    own = Journey.from_pretrained(tmp_path / "b", device="cpu").bundle
    assert "leakage checked" in leakage.require(own, tested)
    with pytest.raises(LeakageError, match="was trained on 11 of the people"):
        leakage.require(own, trained)
    # a network taken over brings its record with it; one of another protocol leaves nothing that may be tested on
    for number, (fingerprint, allowed) in enumerate([(own.protocol()["fingerprint"], True), ("other", False)]):
        with BundleWriter(tmp_path / f"c{number}", name="both") as writer:
            writer.protocol({"protocol": "x", "fingerprint": fingerprint, "trained_on": ["somebody"]})
            writer.copy_module(own, "feature-head")
        both = Journey.from_pretrained(tmp_path / f"c{number}", device="cpu").bundle
        assert set(both.protocol()["trained_on"]) > set(own.protocol()["trained_on"])
        if allowed:
            assert "leakage checked" in leakage.require(both, tested)
        else:
            with pytest.raises(CheckpointError, match="was trained under protocol"):
                leakage.require(both, tested)


def test_london_cases_hold_photos_of_others_apart(drawing: Drawing) -> None:
    people = generated_people.people(24)
    held = [people.aligned.names[i] for i in (1, 4, 6, 11)]
    cases = face_cases.from_london(drawing, people, held)
    assert [f"london/{name}" for name in held] == list(cases.people)
    assert len(cases.gallery) == 24
    assert len(cases.known) == 2 * 20
    assert not set(cases.known.people) & set(cases.people)
    assert cases.points is not None
    assert cases.points.shape == (4, 189, 2)
    assert (cases.inputs["the photo"] == cases.true).all()
    with pytest.raises(SpaceMismatchError, match="64 components"):
        face_cases.from_london(drawing, generated_people.people(8, feature_size=64), held[:1])


def test_command(bundle: Path, data: Path, tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    out = tmp_path / "out"
    base = ["evaluate", "generated-faces", str(data), "--bundle", str(bundle)]
    result = CliRunner().invoke(app, [*base, "--part", "validation", "--limit", "3", "--json", "-o", str(out)])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "figures.json").read_text())
    assert any("leakage was not checked" in note for note in printed["notes"])
    assert len(list(out.glob("*.png"))) >= 1
    for arguments, word in ((base, "no split 'test'"), ([*base, "--route", "ears"], "ears")):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, word in result.output) == (1, True)
        assert result.output.count("\n") == 1
