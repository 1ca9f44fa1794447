"""Audits: groups against hand-made cases, sweeps that do what they say, and both with the debug bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from crossmodal.data.generated import generate, generated_voice
from crossmodal.errors import DataError
from crossmodal.evaluation import audits
from crossmodal.evaluation.attributes import train_probe
from crossmodal.evaluation.audits import AuditVoices
from crossmodal.evaluation.drawing import Drawing
from crossmodal.evaluation.figures import Curve, figure
from crossmodal.evaluation.generated_faces import CaseValues
from crossmodal.journey import Journey
from tests.debug_bundle import write_debug_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_debug_bundle(tmp_path_factory.mktemp("bundle") / "debug")


def test_worst_group_is_named_and_few_people_never_are() -> None:
    rows = [{"ethnicity": e, "age": a, "gender": "female"} for e, a in
            [("a", "25")] * 12 + [("b", "34")] * 10 + [("c", "34")] * 4]  # fmt: skip
    values = np.array([1.0] * 12 + [1, 1, 1, 0, 0, 0, 0, 0, 0, 0] + [0.0] * 4)
    people = np.array([f"p{i}" for i in range(26)])
    found = audits.break_down([CaseValues("gender agrees", values, True)], rows, people)
    worst = {f.name: f for f in found.figures}
    b = worst["worst ethnicity: b (gender agrees)"]  # c is worse, but four people say nothing
    by_hand = figure("", values[12:22], clusters=people[12:22])
    assert (b.value, b.low, b.high, b.n) == (0.3, by_hand.low, by_hand.high, 10)
    assert b.reference == pytest.approx(values.mean())
    assert worst["worst age: 30s (gender agrees)"].n == 14
    assert any("| c | – | – | 4 | too few |" in table for table in found.tables)
    assert len(found.tables) == 2  # one for each attribute
    assert "not broken down by gender: it is the same for all" in found.notes
    assert "not broken down by language: it is not known" in found.notes
    lower = audits.break_down([CaseValues("distance", values, False)], rows, people, groups=("ethnicity",))
    assert lower.figures[0].name == "worst ethnicity: a (distance)"


def test_small_groups_are_measured_together_and_equal_ones_are_not_ranked() -> None:
    language = ["x"] * 8 + ["y"] * 4 + ["z"] * 3
    rows, people = [{"language": n} for n in language], np.array([f"p{i}" for i in range(15)])
    values = np.r_[np.ones(8), np.zeros(7)]
    found = audits.break_down([CaseValues("v", values, True)], rows, people)
    assert [(f.name, f.n, f.value) for f in found.figures] == [("worst language: y, z together (v)", 7, 0.0)]
    assert not audits.break_down([CaseValues("v", np.ones(15), True)], rows, people).figures


def test_groups_count_people_and_not_clips() -> None:
    """Forty clips of four people are too few."""
    people = np.repeat([f"p{i}" for i in range(14)], 10)
    language = np.repeat(["x"] * 10 + ["y"] * 4, 10)
    found = audits.break_down(
        [CaseValues("v", np.random.default_rng(0).random(140), True)], [{"language": n} for n in language], people
    )
    assert not found.figures  # one group is left: there is nothing to compare
    assert "| y | – | – | 4 | too few |" in found.tables[0]
    with pytest.raises(DataError, match="do not fit"):
        audits.break_down([CaseValues("v", np.zeros(3), True)], [{}], people[:1])


def test_spoiling_does_what_it_says() -> None:
    rng = np.random.default_rng(0)
    voice = generated_voice(3, seconds=4.0)
    assert len(audits.shorten(voice, 1.5, rng)) == 24_000
    assert (audits.shorten(voice, 9.0, rng) == voice).all()
    for snr in (0.0, 20.0):
        quiet = 0.1 * voice
        noise = audits.add_noise(quiet, snr, np.random.default_rng(1)) - quiet
        assert 10 * np.log10(np.mean(quiet**2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.01)
    hertz = np.fft.rfftfreq(len(voice), 1 / 16_000)
    noisy = (voice + 0.05 * rng.standard_normal(len(voice))).astype(np.float32)
    before = np.abs(np.fft.rfft(noisy)) ** 2
    for rate in (4_000, 8_000, 11_025):
        after = np.abs(np.fft.rfft(audits.lower_rate(noisy, rate))) ** 2
        assert after[hertz > 0.53 * rate].sum() < 0.01 * before[hertz > 0.53 * rate].sum()
        low = hertz < 0.4 * rate
        assert after[low].sum() == pytest.approx(before[low].sum(), rel=0.02)
    assert audits.lower_rate(noisy, 16_000) is noisy


def test_sweeps_with_a_bundle(bundle: Path) -> None:
    drawing = Drawing(Journey.from_pretrained(bundle, device="cpu"))
    voices = [generated_voice(n, 0, 2.5 + 0.5 * (n > 1)) for n in range(4)]
    gender = np.array(["female", "male", "female", "male"], dtype=object)
    rng = np.random.default_rng(0)
    names = [f"q{i}" for i in range(20)]
    probe = train_probe(
        rng.standard_normal((20, 128)), np.array(["female", "male"] * 10, dtype=object), names, "gender"
    )
    people = AuditVoices([f"p{n}" for n in range(4)], gender, voices)
    curves, notes = audits.sweeps(
        drawing, people, probe, lengths=(1.0, 3.0, 8.0), snrs=(0.0, 30.0), rates=(4000, 16_000)
    )
    assert len(curves) == 9
    found = {c.name: c for c in curves}
    assert all(isinstance(c, Curve) and len(c.x) == len(c.y) == len(c.low) == len(c.high) for c in curves)
    length = found["clip length: cosine of the speaker embedding to that of clean speech"]
    assert length.x == (1.0, 3.0)
    assert length.n == 2  # who has three seconds
    assert any("8 s of speech" in note for note in notes)
    assert length.y[1] == pytest.approx(1.0, abs=1e-5)  # the whole clip
    assert length.y[0] < 0.9999
    rate = found["sample rate: distance of the face feature to that of clean speech"]
    assert rate.x == (4.0, 16.0)
    assert rate.y[1] == pytest.approx(0.0, abs=1e-5)
    noise = found["noise: cosine of the speaker embedding to that of clean speech"]
    assert noise.y[0] < noise.y[1] < 1
    assert all(low <= y <= high for c in curves for low, y, high in zip(c.low, c.y, c.high))
    clean = drawing.embed(voices)
    assert noise.reference == pytest.approx(
        np.mean([a @ b for i, a in enumerate(clean) for b in np.delete(clean, i, 0)])
    )
    assert found["noise: gender of the drawn face agrees"].reference == 0.5
    with pytest.raises(DataError, match="1 voices are too few"):
        audits.sweeps(drawing, AuditVoices(["p"], gender[:1], voices[:1]), probe)


def test_command(bundle: Path, tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    generate(tmp_path / "data", people=22, takes=1, seconds=1.2, held_out=10)
    base = ["evaluate", "audit", str(tmp_path / "data"), "--bundle", str(bundle)]
    page = tmp_path / "audit.html"
    result = CliRunner().invoke(
        app, [*base, "--part", "validation", "--speakers", "2", "--json", "--report", str(page)]
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert any(f["name"].startswith("worst gender") for f in printed["figures"])
    assert {c["x_label"] for c in printed["curves"]} >= {"signal-to-noise ratio (dB)", "sample rate (kHz)"}
    assert "signal-to-noise" in page.read_text()
    result = CliRunner().invoke(app, [*base, "--part", "test"])
    assert result.exit_code == 1
    assert "no split 'test'" in result.output
