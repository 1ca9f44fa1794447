"""Reports: the page is whole and self-contained, JSON comes back as it went, plots put points where they belong."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.errors import CrossmodalError, DataError, OutputError
from crossmodal.evaluation import plots
from crossmodal.evaluation.figures import Curve, Figure
from crossmodal.evaluation.report import Report, describe, read_report, write_report

VOID = {"meta", "img", "br"}


class Checker(html.parser.HTMLParser):
    """Collects addresses and insists that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def report() -> Report:
    figures = [
        Figure("EER, <unseen>", 0.31, 0.28, 0.34, 1200, 0.5, "chance"),
        Figure("MCD & co", 5.2, 4.9, 5.6, 40, 8.1, "two natural speakers", "dB", chance=9.9),
        Figure("undefined", float("nan"), float("nan"), float("nan"), 0),
    ]
    curves = [
        Curve("v2f", "N", (2, 4, 10), "accuracy", (0.8, 0.6, float("nan")), (0.7, 0.5, 0.2), (0.9, 0.7, 0.4), 300, 0.5),
        Curve("f2v", "N", (2, 4, 10), "accuracy", (0.7, 0.5, 0.2), (0.6, 0.4, 0.1), (0.8, 0.6, 0.3), 300, 0.5),
    ]
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32)
    return Report(
        "Verification", figures, curves, {"a face": Image.new("RGB", (20, 10), "red")}, {"spoken": (tone, 16_000)},
        {"natural": (tone, 16_000)}, ["| a | b |\n| --- | --- |\n| 1 | 2 |", "x   1\ny   2"], ["held-out people"],
        "crossmodal evaluate verification", describe(Bundle.open()), 3,
    )  # fmt: skip


def test_page_is_whole_and_loads_nothing(report: Report, tmp_path: Path) -> None:
    text = write_report(tmp_path / "r.html", report).read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(checker.addresses) == 3
    assert all(address.startswith("data:") for address in checker.addresses)
    assert not re.search(r"(?i)https?://|<script|@import|url\(", text)
    assert "default-src 'none'" in text
    words = " ".join(checker.texts)
    for part in ("EER, <unseen>", "1,200", "chance 0.500", "two natural speakers 8.100", "seed 3", report.command,
                 "held-out people", report.bundle["sha256"], "belong to nobody"):  # fmt: skip
        assert part in words, part


def test_generated_sound_in_the_page_is_watermarked(report: Report, tmp_path: Path) -> None:
    from crossmodal import audio
    from crossmodal.provenance import WATERMARK_THRESHOLD, audio_mark

    speech = audio.load(Bundle.open().file("examples/voice.wav"))[: 3 * 16_000]
    noise = np.random.default_rng(0).normal(0, 0.05, 48_000).astype(np.float32)
    report.sounds, report.recordings = {"spoken": (speech, 16_000)}, {"natural": (noise, 16_000)}
    text = write_report(tmp_path / "r.html", report).read_text()
    heard = [
        soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
        for data in re.findall(r"data:audio/wav;base64,([^']+)", text)
    ]
    assert [len(samples) for samples, _ in heard] == [48_000, 48_000]
    assert audio_mark(*heard[0]) > WATERMARK_THRESHOLD
    assert np.allclose(heard[1][0], noise, atol=1e-4)


def test_json_comes_back_as_it_went(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(report.as_dict(), allow_nan=False))
    again = read_report(path)
    assert again.as_dict() == report.as_dict()
    assert again.lines() == report.lines()


@pytest.mark.parametrize("content", ["{", "[]", '{"figures": [{"name": "x"}]}', '{"figures": 3}'])
def test_foreign_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x\.json: is not the result of an evaluation"):
        read_report(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"y\.json: cannot be read"):
        read_report(tmp_path / "y.json")


def test_nothing_is_left_of_a_page_that_fails(report: Report, tmp_path: Path) -> None:
    report.sounds = {"broken": (np.full(1600, np.nan, dtype=np.float32), 16_000)}
    with pytest.raises(CrossmodalError):
        write_report(tmp_path / "r.html", report)
    with pytest.raises(OutputError):
        write_report(tmp_path / "missing" / "r.html", Report("x"))
    assert list(tmp_path.iterdir()) == []


def test_checksums_follow_the_networks_not_the_card(tmp_path: Path) -> None:
    from crossmodal.bundle import BundleWriter
    from crossmodal.models import build

    def made(card: str, seed: int) -> dict:
        import torch

        torch.manual_seed(seed)
        with BundleWriter(tmp_path / "b", name="b") as writer:
            writer.add("face-encoder", "face-encoder-head", build("face-encoder-head", size="debug"))
            writer.card(card)
        return describe(Bundle.open(tmp_path / "b"))

    first, same, other = made("one", 0), made("two", 0), made("one", 1)
    assert first == same
    assert first["modules"]["face-encoder"] != other["modules"]["face-encoder"]
    assert first["sha256"] != other["sha256"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 10, [0, 2, 4, 6, 8, 10]), (-3, 9, [-2.5, 0, 2.5, 5, 7.5])],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_curve_points_stand_where_they_belong() -> None:
    curve = Curve("c", "x", (0.0, 5.0, 10.0), "y", (0.0, 0.25, 1.0), (0.0, 0.2, 0.9), (0.1, 0.3, 1.0), 9)
    circles = re.findall(r"<circle cx='([\d.]+)' cy='([\d.]+)'", plots.curve_plot([curve]))
    (ax, ay), (bx, by), (cx, cy) = [(float(x), float(y)) for x, y in circles]
    assert bx - ax == pytest.approx(cx - bx, abs=0.2)
    assert ay - by == pytest.approx(0.25 * (ay - cy), abs=0.2)
    assert cy < by < ay


def test_bar_shows_interval_and_chance_in_order() -> None:
    svg = plots.interval_bar(Figure("x", 0.5, 0.25, 0.75, 9, 0.1, "chance"), width=110)
    ((start, width),) = re.findall(r"<rect x='([\d.]+)' y='6' width='([\d.]+)'", svg)
    assert (float(start), float(width)) == (pytest.approx(30), pytest.approx(50))
    assert "<line x1='15.0' x2='15.0' y1='1' y2='17' class='chance'/>" in svg
    assert plots.interval_bar(Figure("x", float("nan"), 0, 0, 0)) == ""


def test_commands_merge_saved_results(report: Report, tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    for name in ("a", "b"):
        report.title = f"Part {name}"
        (tmp_path / f"{name}.json").write_text(json.dumps(report.as_dict()))
    page = tmp_path / "all.html"
    command = ["evaluate", "report", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "-o", str(page)]
    result = CliRunner().invoke(app, [*command, "--title", "One bundle"])
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.index("One bundle") < text.index("Part a") < text.index("Part b")
    result = CliRunner().invoke(app, [*command[:2], str(tmp_path / "a.json"), "-o", str(tmp_path / "x.pdf")])
    assert result.exit_code == 1
    assert "unknown format '.pdf'" in result.output


@pytest.mark.parametrize("command", ["faces", "speech", "calibration", "vocoder", "selfcheck"])
def test_a_page_that_cannot_be_written_stops_before_the_work(command: str, tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    data = [] if command in ("vocoder", "selfcheck") else ["--data", str(tmp_path)]
    for page, problem in (("x.pdf", "unknown format '.pdf'"), ("missing/x.html", "does not exist")):
        result = CliRunner().invoke(app, ["evaluate", command, *data, "--report", str(tmp_path / page)])
        assert result.exit_code == 1
        assert problem in result.output
