"""The measures of the voice evaluation, against brute force and known cases, and one run on a debug bundle."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from crossmodal.cli.app import app
from crossmodal.evaluation import speech_measures as ev
from crossmodal.evaluation.figures import Figure
from crossmodal.evaluation.report import Report
from crossmodal.evaluation.speech_texts import varied_texts


def brute_force(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> int:
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    return min(
        brute_force(reference[1:], hypothesis) + 1,
        brute_force(reference, hypothesis[1:]) + 1,
        brute_force(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0]),
    )


def test_word_errors_against_brute_force() -> None:
    for n, m in itertools.product(range(4), range(4)):
        for reference in itertools.product("ab", repeat=n):
            for hypothesis in itertools.product("abc", repeat=m):
                assert ev.word_errors(reference, hypothesis) == brute_force(reference, hypothesis)


def test_clicks_are_heard_and_tones_are_not() -> None:
    time = np.arange(16_000) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    assert ev.clicks(tone) == 0
    assert ev.clicks(0.1 * np.random.default_rng(0).standard_normal(16_000)) == 0
    broken = tone.copy() * 0.1
    broken[8_000] += 0.8
    assert ev.clicks(broken) >= 1


def test_correlation_and_slope() -> None:
    x = np.linspace(80, 260, 30)
    pairs = np.stack([x, 0.8 * x + 20], axis=1)
    assert ev.correlation(pairs) == pytest.approx(1.0)
    assert ev.slope(pairs) == pytest.approx(0.8)
    assert math.isnan(ev.correlation(np.ones((5, 2))))


def test_varied_texts_are_varied_and_repeatable() -> None:
    texts = varied_texts(200)
    assert len(texts) == 200
    assert texts == varied_texts(200)
    assert len(set(texts)) > 120
    lengths = [len(t.split()) for t in texts]
    assert min(lengths) == 1
    assert max(lengths) >= 80


def test_f0_of_a_recording_ignores_hum() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(48_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 200 * k * time) / k for k in range(1, 12)) * (time < 1.2) * 0.1
    hum = 0.003 * np.sin(2 * np.pi * 130 * time) + 1e-4 * rng.standard_normal(len(time))
    assert ev.median_f0((voice + hum).astype(np.float32)) == pytest.approx(200, rel=0.02)


def test_the_command_delivers_as_all_evaluations_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder holds figures.json and the pictures; one that cannot be is refused before anything is measured."""
    figure = Figure("word error rate", 0.25, 0.2, 0.3, 4)

    class Measured:
        failures = ("zzyzx",)

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def run(self) -> Report:
            return Report("Voices", figures=[figure], pictures={"mel": Image.new("RGB", (4, 4))})

    monkeypatch.setattr("crossmodal.evaluation.speech.SpeechEvaluation", Measured)
    monkeypatch.setattr("crossmodal.data.speech_features.SpeechFeatures.complete", True)
    (tmp_path / "index.jsonl").write_text("")
    given = ["evaluate", "speech", "--data", str(tmp_path), "--features", str(tmp_path), "--json", "--out"]
    done = CliRunner().invoke(app, [*given, str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed.pop("failures") == ["zzyzx"]
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["figures.json", "mel.png"]
    refused = CliRunner().invoke(app, [*given, str(tmp_path / "index.jsonl")])
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"error: {tmp_path / 'index.jsonl'}: is a file: name another folder\n",
    )
