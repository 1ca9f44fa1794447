"""The marks of generated speech and pictures: written, read back, lasting, and absent from what was not generated."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from typer.testing import CliRunner

from crossmodal import provenance, watermark
from crossmodal.errors import AudioError, OutputError, UnreadableAudioError, WatermarkError
from tests.generated import sung_voice
from tests.media import encode, voice

RATE = 16_000
DETAILS = {"bundle": "starter 1.0", "seed": 3, "text": 'Grüße {"an"} "alle"\n你好'}


def _snr(clean: np.ndarray, marked: np.ndarray) -> float:
    return float(10 * np.log10(np.square(clean).sum() / np.square(marked - clean).sum()))


def _through(samples: np.ndarray, rate: int, kind: str, subtype: str) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


# ------------------------------------------------------------------------------------------------- watermark


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
def test_the_mark_is_found_quiet_and_keeps_the_level(seconds: float, rate: int) -> None:
    clean = voice(seconds, rate)
    marked = watermark.mark_audio(clean, rate)
    assert marked.dtype == np.float32
    assert marked.shape == clean.shape
    assert np.square(marked).mean() == pytest.approx(np.square(clean).mean(), rel=0.02)
    assert _snr(clean, marked) > 8
    assert watermark.audio_mark(marked, rate) > 0.9
    assert watermark.audio_mark(clean, rate) < 0.5


def test_the_mark_survives_what_files_go_through() -> None:
    marked = watermark.mark_audio(sung_voice(3.0), RATE)
    noise = np.random.default_rng(0).standard_normal(len(marked)).astype(np.float32) * 1e-3
    for name, worn in {
        "16 bit": _through(marked, RATE, "WAV", "PCM_16"),
        "MP3": _through(marked, RATE, "MP3", "MPEG_LAYER_III"),
        "Ogg Vorbis": _through(marked, RATE, "OGG", "VORBIS"),
        "quieter": marked * 0.2,
        "cut": marked[12_345:],
        "noise": marked + noise,
        "tensor": torch.from_numpy(marked),
    }.items():
        assert watermark.audio_mark(worn, RATE) > provenance.WATERMARK_THRESHOLD, name
    telephone = provenance.media.resample(marked, RATE, 8000)
    assert watermark.audio_mark(telephone, 8000) > provenance.WATERMARK_THRESHOLD


def test_marks_are_those_of_the_package(capfd: pytest.CaptureFixture[str]) -> None:
    perth = pytest.importorskip("perth")
    if perth.PerthImplicitWatermarker is None:
        pytest.skip("the package's own class does not import here")
    clean = sung_voice(2.0)
    capfd.readouterr()
    ours = watermark._marked(clean, RATE, 1.0)
    assert capfd.readouterr() == ("", "")
    reference = perth.PerthImplicitWatermarker()
    with torch.inference_mode():
        theirs = reference.apply_watermark(clean, RATE)
        for sound in (ours, theirs[: len(clean)], clean):
            expected = reference.get_watermark(sound, RATE, round=False).item()
            assert watermark.audio_mark(sound, RATE) == pytest.approx(expected, abs=0.05)
    level = np.sqrt(np.square(theirs).mean() / np.square(ours).mean())
    assert _snr(theirs, ours * level) > _snr(clean, ours) + 3  # nearer to the package's result than to the clean sound


def test_silence_clicks_and_loud_sound() -> None:
    assert not watermark.mark_audio(np.zeros(RATE), RATE).any()
    assert watermark.audio_mark(np.zeros(RATE), RATE) == 0.0
    for samples in (1, 10, 600, 1100):
        marked = watermark.mark_audio(sung_voice(2.0)[-samples:], RATE)
        assert marked.shape == (samples,)
        assert np.isfinite(marked).all()
        assert 0.0 <= watermark.audio_mark(marked, RATE) <= 1.0
    loud = watermark.mark_audio(2.0 * sung_voice(1.0), RATE)
    assert np.abs(loud).max() <= 1.0
    for bad in (np.zeros((2, 9)), np.zeros(0), np.array([np.nan, 0.0])):
        with pytest.raises(WatermarkError, match="waveform"):
            watermark.mark_audio(bad, RATE)


def test_long_sound_is_marked_piece_by_piece() -> None:
    clean = np.tile(sung_voice(5.0), 10)
    marked = watermark.mark_audio(clean, RATE)
    assert watermark.audio_mark(marked[-6 * RATE :], RATE) > 0.9
    half = np.concatenate([clean[: 25 * RATE], marked[25 * RATE :]])
    assert watermark.audio_mark(half, RATE) > 0.9


def test_a_missing_or_broken_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    wave = sung_voice(0.5)
    folder = tmp_path / "perth_net" / "pretrained" / "implicit"
    folder.mkdir(parents=True)
    out = tmp_path / "speech.wav"
    try:
        for spec, spoil, problem in (
            (None, lambda: None, "not installed"),
            (Spec, lambda: None, "missing"),
            (Spec, lambda: (folder / "perth_net_1.pth.tar").write_bytes(b"PK\x03\x04 nothing"), "cannot be used"),
            (Spec, lambda: torch.save({"model": {}}, folder / "perth_net_2.pth.tar"), "cannot be used"),
        ):
            spoil()
            watermark.load_network.cache_clear()
            monkeypatch.setattr(importlib.util, "find_spec", lambda _, spec=spec: spec)
            with pytest.raises(WatermarkError, match=problem) as caught:
                provenance.save_speech(out, wave, RATE)
            assert "watermark=False" in str(caught.value)
            assert not out.exists()
        provenance.save_speech(out, wave, RATE, watermark=False)
        assert provenance.read_marks(out, watermark=False).generated
        assert [p.name for p in tmp_path.glob("*.wav")] == ["speech.wav"]
    finally:
        watermark.load_network.cache_clear()


# -------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("suffix", sorted(provenance.SPEECH_FORMATS))
def test_speech_is_marked_twice_and_read_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"speech{suffix.upper()}"
    wave = sung_voice(3.0)
    provenance.save_speech(path, wave, RATE, details=DETAILS)
    marks = provenance.read_marks(path)
    assert marks.kind == "sound"
    assert marks.generated
    assert marks.watermark is not None
    assert marks.watermark > provenance.WATERMARK_THRESHOLD
    assert marks.metadata["details"] == DETAILS
    assert marks.metadata["description"].startswith("generated speech by crossmodal ")
    assert provenance.read_marks(path.read_bytes()).metadata == marks.metadata
    info = soundfile.info(path)
    assert info.samplerate == RATE
    assert info.frames / RATE == pytest.approx(3.0, abs=0.2)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_either_mark_is_enough(tmp_path: Path) -> None:
    wave = sung_voice(3.0)
    tags_only, mark_only, neither = (tmp_path / f"{name}.wav" for name in ("tags", "mark", "neither"))
    provenance.save_speech(tags_only, wave, RATE, watermark=False)
    soundfile.write(mark_only, watermark.mark_audio(wave, RATE), RATE)
    soundfile.write(neither, wave, RATE)
    assert provenance.read_marks(tags_only).generated
    assert provenance.read_marks(mark_only).generated
    assert provenance.read_marks(mark_only).metadata == {}
    assert not provenance.read_marks(neither).generated
    assert not provenance.read_marks(mark_only, watermark=False).generated
    film = encode(watermark.mark_audio(wave, RATE), RATE, "mp4", "aac", video="mpeg4")
    assert provenance.read_marks(film).generated


def test_the_same_result_gives_the_same_file(tmp_path: Path) -> None:
    for suffix in (".wav", ".flac"):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        for path in (first, second):
            provenance.save_speech(path, sung_voice(0.6), RATE, details=DETAILS)
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", sorted(provenance.IMAGE_FORMATS))
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pictures_say_what_made_them(suffix: str, mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / f"face{suffix}"
    provenance.save_image(path, Image.fromarray(pixels).convert(mode), DETAILS)
    marks = provenance.read_marks(path)
    assert marks.kind == "image"
    assert marks.generated
    assert marks.watermark is None
    assert marks.metadata["details"] == DETAILS
    with Image.open(path) as image:
        assert image.size == (30, 40)
        if suffix == ".png" and mode == "RGB":
            np.testing.assert_array_equal(np.asarray(image), pixels)
    Image.fromarray(pixels).save(path)
    assert not provenance.read_marks(path).generated


def test_foreign_and_cut_comments() -> None:
    parse = provenance._parse
    assert parse("") == {}
    assert parse("generated by a machine") == {}
    assert parse("crossmodal is a nice word") == {}
    whole = provenance._describe("speech", DETAILS)
    assert parse(whole)["details"] == DETAILS
    assert parse(whole[:-5])["details"] == {}
    assert parse(whole[:-5])["description"].startswith("generated speech by crossmodal")


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    wave, picture = sung_voice(0.5), Image.new("RGB", (9, 9))
    with pytest.raises(OutputError, match=r"\.wav"):
        provenance.save_speech(tmp_path / "a.txt", wave, RATE)
    with pytest.raises(OutputError, match=r"\.png"):
        provenance.save_image(tmp_path / "a.bmp", picture)
    with pytest.raises(OutputError, match="nowhere"):
        provenance.save_speech(tmp_path / "nowhere" / "a.wav", wave, RATE, watermark=False)
    with pytest.raises(OutputError, match="12345 Hz"):
        provenance.save_speech(tmp_path / "a.mp3", wave, 12_345, watermark=False)
    with pytest.raises(AudioError, match="speech"):
        provenance.save_speech(tmp_path / "a.wav", np.array([np.nan]), RATE)
    (tmp_path / "text.txt").write_text("no sound, no picture")
    with pytest.raises(UnreadableAudioError, match="is a text"):
        provenance.read_marks(tmp_path / "text.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]


def test_importing_and_saving_pictures_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from PIL import Image; from crossmodal.provenance import save_image; "
        f"save_image({str(tmp_path / 'a.png')!r}, Image.new('RGB', (8, 8))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------------------- command


def test_detect_command(tmp_path: Path) -> None:
    import json

    import typer

    from crossmodal.cli.detect import register

    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)  # one command alone would lose its name
    speech, picture, natural = tmp_path / "speech.wav", tmp_path / "face.png", tmp_path / "natural.wav"
    provenance.save_speech(speech, sung_voice(1.0), RATE, details={"seed": 3})
    provenance.save_image(picture, Image.new("RGB", (9, 9)), {"seed": 3})
    soundfile.write(natural, sung_voice(1.0), RATE)
    run = CliRunner().invoke

    found = run(app, ["detect", str(speech), str(picture)])
    assert found.exit_code == 0, found.output
    assert "generated by crossmodal (sound)" in found.output
    assert "generated by crossmodal (image)" in found.output
    assert "seed: 3" in found.output
    none = run(app, ["detect", str(speech), str(natural)])
    assert none.exit_code == 1
    assert "no mark found (sound)" in none.output
    assert run(app, ["detect", "--quiet", str(natural)]).output == ""

    (tmp_path / "text.txt").write_text("a text")
    mixed = run(app, ["detect", "--json", str(speech), str(tmp_path / "text.txt"), str(tmp_path / "gone.wav")])
    assert mixed.exit_code == 1
    files = json.loads(mixed.stdout)["files"]
    assert [file["generated"] for file in files] == [True, None, None]
    assert files[0]["watermark"] > 0.9
    assert files[0]["metadata"]["details"] == {"seed": 3}
    assert "does not exist" in files[2]["error"]


# ------------------------------------------------------------------------------------------ the development data


@pytest.mark.data
def test_natural_recordings_carry_no_mark(data_root: Path) -> None:
    from crossmodal import audio

    patterns = ("cmu_arctic/*/wav/*_a0001.flac", "kathleen/wav/*_a0002.flac", "grid_clips/bb*.mpg")
    files = [file for pattern in patterns for file in sorted(data_root.glob(pattern))]
    assert len(files) == 4
    for file in files:
        natural = audio.load(file)
        assert watermark.audio_mark(natural, RATE) < 0.5
        assert watermark.audio_mark(watermark.mark_audio(natural, RATE), RATE) > 0.9
