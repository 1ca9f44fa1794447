"""Loading, voice activity and front-ends, against librosa, SciPy, Resemblyzer and the properties they must have."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal import audio, media
from crossmodal.errors import (
    AudioError,
    InputWarning,
    NoAudioStreamError,
    NoSpeechError,
    OutputError,
    UnreadableAudioError,
)
from tests.generated import sung_voice
from tests.media import encode, voice

RATE = 16_000
FrontEnd = Callable[[torch.Tensor], torch.Tensor]


def _wav(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------ front-ends


@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
@pytest.mark.parametrize("samples", [1, 2, 300, 512, 513, 16_000, 33_333])
def test_log_mel_is_librosas(samples: int) -> None:
    import librosa

    wave = np.random.default_rng(samples).standard_normal(samples) * 0.1
    expected = librosa.feature.melspectrogram(
        y=wave, sr=RATE, n_fft=1024, win_length=800, hop_length=200, n_mels=100, power=1.0, pad_mode="reflect"
    )
    expected = np.log(np.maximum(expected, 1e-5))
    exact = audio.log_mel(torch.from_numpy(wave)).numpy()
    assert exact.shape == (100, samples // 200 + 1)
    np.testing.assert_allclose(exact, expected, atol=1e-4)
    single = audio.log_mel(torch.from_numpy(wave).float()).numpy()
    np.testing.assert_allclose(np.exp(single), np.exp(expected), atol=1e-4)


def test_speaker_mel_is_resemblyzers() -> None:
    resemblyzer = pytest.importorskip("resemblyzer.audio")
    wave = sung_voice(2.0)
    expected = resemblyzer.wav_to_mel_spectrogram(wave)
    np.testing.assert_allclose(audio.speaker_mel(torch.from_numpy(wave)).numpy(), expected, atol=1e-5, rtol=1e-4)


def test_complex_spectrogram_is_scipys() -> None:
    wave = sung_voice(6.0).astype(np.float64)
    spectrogram = audio.complex_spectrogram(torch.from_numpy(wave)).numpy()
    assert spectrogram.shape == (2, 598, 257)
    _, _, spectrum = scipy.signal.spectrogram(
        wave,
        RATE,
        scipy.signal.get_window("hann", 400),
        400,
        240,
        512,
        detrend=False,
        scaling="spectrum",
        mode="complex",
    )
    spectrum = spectrum.T * scipy.signal.get_window("hann", 400).sum()  # undo SciPy's scaling
    for part, expected in zip(spectrogram, (spectrum.real, spectrum.imag)):
        # Compression is steep at 0, so compare before it.
        np.testing.assert_allclose(np.sign(part) * np.abs(part) ** (1 / 0.3), expected, atol=1e-9)


def test_complex_spectrogram_repeats_cuts_or_keeps() -> None:
    wave = torch.from_numpy(np.stack([sung_voice(2.0, seed=s) for s in (1, 2)]))
    whole = audio.complex_spectrogram(wave)
    assert whole.shape == (2, 2, 598, 257)
    torch.testing.assert_close(whole, audio.complex_spectrogram(wave.repeat(1, 3)))
    torch.testing.assert_close(whole, audio.complex_spectrogram(wave.repeat(1, 4)))
    assert audio.complex_spectrogram(wave, seconds=None).shape == (2, 2, (32_000 - 400) // 160 + 1, 257)
    assert audio.complex_spectrogram(wave[:, :10], seconds=None).shape == (2, 2, 1, 257)


@pytest.mark.parametrize("front_end", [audio.log_mel, audio.speaker_mel, audio.complex_spectrogram])
def test_front_ends_batch_and_differentiate(front_end: FrontEnd) -> None:
    wave = torch.from_numpy(np.stack([sung_voice(1.0, seed=s) for s in range(3)]))
    with torch.inference_mode():
        batch = front_end(wave)
        for one, together in zip(wave, batch):
            torch.testing.assert_close(front_end(one), together, rtol=1e-4, atol=1e-5)
    wave.requires_grad_()  # after inference mode: what it cached must serve training too
    front_end(wave).sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()
    silent = torch.zeros(1, 4000, requires_grad=True)
    front_end(silent).sum().backward()
    assert silent.grad is not None
    assert torch.isfinite(silent.grad).all()


def test_front_ends_ignore_autocast() -> None:
    wave = torch.from_numpy(sung_voice(1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = audio.log_mel(wave)
    torch.testing.assert_close(mixed, audio.log_mel(wave))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("front_end", [audio.log_mel, audio.speaker_mel, audio.complex_spectrogram])
def test_front_ends_agree_on_the_gpu(front_end: FrontEnd) -> None:
    wave = torch.from_numpy(sung_voice(2.0))
    torch.testing.assert_close(front_end(wave.cuda()).cpu(), front_end(wave), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bad", [torch.zeros(2, 2, 9), torch.zeros(0), torch.zeros(9, dtype=torch.int16)])
def test_front_ends_refuse_what_is_no_waveform(bad: torch.Tensor) -> None:
    for front_end in (audio.log_mel, audio.speaker_mel, audio.complex_spectrogram):
        with pytest.raises(AudioError, match="waveform"):
            front_end(bad)


@pytest.mark.parametrize("f0", [90.0, 140.0, 220.0, 320.0])
def test_pitch_follows_a_known_contour(f0: float) -> None:
    time = np.arange(2 * RATE) / RATE
    contour = f0 * (1 + 0.2 * np.sin(2 * np.pi * time))
    phase = 2 * np.pi * np.cumsum(contour) / RATE
    wave = np.sum([0.2 * np.sin(k * phase) / k for k in range(1, 12)], axis=0)
    found = audio.pitch(wave.astype(np.float32))
    assert found.shape == (len(wave) // 200 + 1,)
    assert found.shape[0] == audio.log_mel(torch.tensor(wave)).shape[-1]
    truth = contour[np.minimum(np.arange(len(found)) * 200, len(wave) - 1)]
    voiced = found > 0
    assert voiced[4:-4].mean() > 0.95
    assert np.median(np.abs(12 * np.log2(found[voiced] / truth[voiced]))) < 0.05  # semitones


@pytest.mark.parametrize("samples", [1, 7, 199, 200, 4000])
def test_pitch_of_silence_noise_and_little(samples: int) -> None:
    for wave in (np.zeros(samples), np.random.default_rng(0).standard_normal(samples) * 1e-3, np.full(samples, 0.5)):
        found = audio.pitch(wave.astype(np.float32))
        assert found.shape == (samples // 200 + 1,)
        assert ((found == 0) | ((found >= audio.PITCH_FLOOR) & (found <= audio.PITCH_CEILING))).all()
    assert not audio.pitch(np.zeros(samples)).any()
    with pytest.raises(AudioError):
        audio.pitch(np.full(samples, np.nan))


# --------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")]
    + [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
    + [("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16")],
)
def test_loads_what_libsndfile_writes(kind: str, subtype: str) -> None:
    wave = sung_voice(1.5)
    loaded = audio.load(_wav(wave, kind=kind, subtype=subtype))
    _assert_alike(loaded, wave)


@pytest.mark.parametrize(
    ("container", "codec", "rate", "video"),
    [
        ("mp3", "libmp3lame", 44_100, None),
        ("adts", "aac", 22_050, None),
        ("ipod", "aac", 44_100, None),
        ("mp4", "aac", 48_000, "mpeg4"),
        ("mov", "pcm_s16le", 44_100, "mpeg4"),
        ("matroska", "flac", 48_000, "mpeg4"),
        ("webm", "libopus", 48_000, "libvpx"),
        ("mpeg", "mp2", 44_100, "mpeg1video"),
        ("mpegts", "mp2", 48_000, "mpeg2video"),
        ("avi", "pcm_s16le", 16_000, "mpeg4"),
        ("asf", "wmav2", 44_100, None),
        ("ogg", "libopus", 48_000, None),
        ("amr", "libopencore_amrnb", 8_000, None),
        ("wav", "adpcm_ms", 16_000, None),
    ],
)
def test_loads_what_ffmpeg_writes(container: str, codec: str, rate: int, video: str | None) -> None:
    content = encode(voice(1.5, rate), rate, container, codec, video=video)
    _assert_alike(audio.load(content), sung_voice(1.5), lowest=0.8 if container == "amr" else 0.95)


def _assert_alike(loaded: np.ndarray, wave: np.ndarray, lowest: float = 0.95) -> None:
    """Same duration up to a codec's padding, same sound up to its delay and loss."""
    assert loaded.dtype == np.float32
    assert loaded.ndim == 1
    assert abs(len(loaded) - len(wave)) < 0.15 * RATE
    correlation = scipy.signal.correlate(loaded, wave, mode="full", method="fft")
    assert correlation.max() / (np.linalg.norm(loaded) * np.linalg.norm(wave)) > lowest


NUMBERS = {
    "float32": 1.0,
    "float64": 1.0,
    "float16": 1.0,
    "int8": 2.0**7,
    "int16": 2.0**15,
    "int32": 2.0**31,
    "uint8": 2.0**7,
    "uint16": 2.0**15,
}


@settings(max_examples=80, deadline=None)
@given(
    samples=st.integers(40, 4000),
    channels=st.integers(0, 8),
    rate=st.integers(media.LOWEST_RATE, 96_000),
    kind=st.sampled_from(sorted(NUMBERS)),
    peak=st.floats(0.01, 0.98),
    channels_first=st.booleans(),
    as_tensor=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_array_becomes_a_waveform(
    samples: int, channels: int, rate: int, kind: str, peak: float, channels_first: bool, as_tensor: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    signal = rng.uniform(-peak, peak, (samples, max(channels, 1)))
    scale, dtype = NUMBERS[kind], np.dtype(kind)
    offset = scale if dtype.kind == "u" else 0.0
    array = signal if dtype.kind == "f" else (signal * scale + offset).round()
    array = array.astype(dtype)
    stored = array if channels else array[:, 0]
    if channels and channels_first:
        stored = stored.T
    tensor = as_tensor and dtype != np.uint16
    loaded = audio.load(torch.from_numpy(stored.copy()) if tensor else stored, sample_rate=rate)
    assert loaded.dtype == np.float32
    assert loaded.ndim == 1
    assert abs(len(loaded) - samples * RATE / rate) <= 1
    assert np.isfinite(loaded).all()
    assert np.abs(loaded).max() <= 1.0
    permuted = array[:, rng.permutation(array.shape[1])]
    np.testing.assert_allclose(audio.load(permuted, sample_rate=rate), loaded, atol=1e-5)
    mono = (array.astype(np.float64) - offset).mean(axis=1) / scale
    np.testing.assert_allclose(audio.load(mono, sample_rate=rate), loaded, atol=1e-5)
    half, quarter = (audio.load(mono / k, sample_rate=rate) for k in (2, 4))
    np.testing.assert_allclose(quarter, half / 2, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_the_speech_band_and_rejects_aliases(rate: int) -> None:
    time = np.arange(2 * rate) / rate
    kept = audio.load(0.5 * np.sin(2 * np.pi * 1000 * time), sample_rate=rate)[RATE // 2 : -RATE // 2]
    truth = 0.5 * np.sin(2 * np.pi * 1000 * (np.arange(len(kept)) + RATE // 2) / RATE)
    np.testing.assert_allclose(kept, truth, atol=2e-3)
    if rate > 2 * 9000:
        gone = audio.load(0.5 * np.sin(2 * np.pi * 9000 * time), sample_rate=rate)[RATE // 2 : -RATE // 2]
        assert np.abs(gone).max() < 1e-3


def test_sources_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = _wav(sung_voice(1.0), subtype="PCM_16")
    path = tmp_path / "voice.raw"  # a name that libsndfile would take for headerless samples
    path.write_bytes(content)
    expected = audio.load(path)
    sources = [str(path), content, bytearray(content), io.BytesIO(content)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    for source in [*sources, "-"]:
        np.testing.assert_array_equal(audio.load(source), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(audio.load(file), expected)
    np.testing.assert_allclose(audio.load(list(map(float, expected)), sample_rate=RATE), expected, atol=1e-6)


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello, this is a text\n" * 9)
    (tmp_path / "no-samples.wav").write_bytes(_wav(np.zeros(0)))
    silent_film = encode(None, 0, "mp4", "", video="mpeg4")
    (tmp_path / "film.mp4").write_bytes(silent_film)
    expected: dict[str, tuple[type[AudioError], str]] = {
        "missing.wav": (UnreadableAudioError, "does not exist"),
        ".": (UnreadableAudioError, "is a folder"),
        "empty.wav": (UnreadableAudioError, "is empty"),
        "text.wav": (UnreadableAudioError, "is a text"),
        "no-samples.wav": (UnreadableAudioError, "no sound can be decoded"),
        "film.mp4": (NoAudioStreamError, "without sound"),
    }
    for name, (kind, problem) in expected.items():
        path = tmp_path / name
        with pytest.raises(kind, match=problem) as caught:
            audio.load(path)
        assert str(path) in str(caught.value)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "rate"),
    [
        (np.zeros(100), None),
        (np.zeros(100), 0),
        (np.zeros(100), 10**7),
        (np.zeros((3, 4, 5)), RATE),
        (np.zeros((500, 600)), RATE),
        (np.zeros(0), RATE),
        (np.zeros(100, dtype=np.int64), RATE),
        (np.zeros(100, dtype=complex), RATE),
        (np.array([0.0, np.nan, 0.1]), RATE),
        (np.array([0.0, np.inf, 0.1]), RATE),
    ],
)
def test_arrays_that_cannot_be_sound(array: np.ndarray, rate: int | None) -> None:
    with pytest.raises(AudioError):
        audio.load(array, sample_rate=rate)


def test_nan_in_a_file_and_samples_beyond_one() -> None:
    wave = sung_voice(1.0)
    wave[100] = np.nan
    with pytest.raises(AudioError, match="NaN"):
        audio.load(_wav(wave))
    loud = audio.load(_wav(sung_voice(1.0) * 5))
    assert np.abs(loud).max() == pytest.approx(1.0)
    np.testing.assert_allclose(loud, sung_voice(1.0) * 2, atol=1e-4)  # scaled, not clipped


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16")])
def test_a_truncated_file_gives_what_it_holds_with_a_warning(kind: str, subtype: str) -> None:
    whole = _wav(sung_voice(2.0), kind=kind, subtype=subtype)
    with pytest.warns(InputWarning, match="cut short|damaged"):
        half = audio.load(whole[: len(whole) // 2])
    assert 0.3 * RATE < len(half) < 1.7 * RATE
    with pytest.raises(UnreadableAudioError):
        audio.load(whole[:44])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio.load(whole)


def test_a_wav_written_into_a_pipe_is_whole() -> None:
    content = bytearray(_wav(sung_voice(1.0), subtype="PCM_16"))
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(audio.load(bytes(content))) == RATE


def test_a_square_wave_is_warned_about() -> None:
    wave = sung_voice(1.0)
    for clipped in (np.sign(wave) * 0.9, (20 * wave).clip(-1, 1), np.repeat(np.sign(wave), 3)):
        with pytest.warns(InputWarning, match="clipped"):
            audio.load(clipped, sample_rate=RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio.load(wave, sample_rate=RATE)
        for frequency in (100, 1000, 2000):
            audio.load(np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE), sample_rate=RATE)


def test_too_long_is_refused_before_it_fills_the_memory() -> None:
    wave = np.zeros(4 * RATE)
    for source in (wave, _wav(wave, kind="FLAC", subtype="PCM_16"), encode(wave, RATE, "mp3", "libmp3lame")):
        rate = RATE if isinstance(source, np.ndarray) else None
        with pytest.raises(AudioError, match="longer than 3 s"):
            audio.load(source, max_seconds=3.0, sample_rate=rate)
        assert len(audio.load(source, max_seconds=None, sample_rate=rate)) >= 4 * RATE


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(_wav(sung_voice(1.0), subtype="PCM_16"))
    for name, text in {
        "list.wav": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "list.mp3": f"ffconcat version 1.0\nfile {secret}\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UnreadableAudioError, match="is a text"):
            audio.load(tmp_path / name)


# -------------------------------------------------------------------------------------------- voice activity


def test_voice_activity_is_resemblyzers() -> None:
    resemblyzer = pytest.importorskip("resemblyzer.audio")
    pause = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 1e-4
    wave = np.concatenate([pause, sung_voice(1.5), pause, pause, sung_voice(1.0, 220.0), pause])
    expected = resemblyzer.trim_long_silences(wave)
    speech = wave[audio.voice_activity(wave)]
    np.testing.assert_array_equal(speech, expected)
    assert 2.0 * RATE < len(speech) < 4.0 * RATE
    np.testing.assert_array_equal(audio.load_speech(wave, sample_rate=RATE), speech)


def test_quiet_speech_is_heard() -> None:
    loud, quiet = sung_voice(2.0), sung_voice(2.0) * 0.004
    assert len(audio.load_speech(quiet, sample_rate=RATE)) == pytest.approx(
        len(audio.load_speech(loud, sample_rate=RATE)), rel=0.2
    )


@pytest.mark.parametrize("name", ["silence", "constant", "tone", "chord", "short", "click", "hiss", "hum", "fan"])
def test_what_is_no_speech(name: str) -> None:
    time, noise = np.arange(3 * RATE) / RATE, np.random.default_rng(0).normal(0, 0.1, 3 * RATE)
    wave = {
        "hiss": noise,
        "hum": sum(np.sin(2 * np.pi * 150 * k * time) / (10 * k) for k in range(1, 9)) + 0.1 * noise,
        "fan": np.convolve(noise, np.hanning(9), mode="same"),
        "silence": np.zeros(3 * RATE),
        "constant": np.full(3 * RATE, 0.3),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * time),
        "chord": 0.2 * (np.sin(2 * np.pi * 150 * time) + np.sin(2 * np.pi * 1000 * time)),
        "short": sung_voice(0.3),
        "click": np.eye(1, 3 * RATE, RATE)[0],
    }[name]
    with pytest.raises(NoSpeechError, match="array"):
        audio.load_speech(wave, sample_rate=RATE)


def test_speech_in_noise_as_loud_as_itself_is_speech() -> None:
    voice = sung_voice(3.0)
    noise = np.random.default_rng(0).normal(0, float(np.sqrt(np.mean(voice**2))), len(voice))
    assert len(audio.load_speech(voice + noise, sample_rate=RATE)) > RATE


# ---------------------------------------------------------------------------------------------------- saving


def test_save_wav_is_atomic_and_exact(tmp_path: Path) -> None:
    wave = sung_voice(0.5)
    audio.save_wav(tmp_path / "a.wav", torch.from_numpy(wave), RATE)
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav"), wave, atol=1 / 65536 + 1e-7)
    with pytest.raises(AudioError):
        audio.save_wav(tmp_path / "b.wav", np.array([np.nan]), RATE)
    with pytest.raises(OutputError):
        audio.save_wav(tmp_path / "nowhere" / "b.wav", wave, RATE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_importing_is_light() -> None:
    heavy = "librosa, TTS, transformers, torchaudio, soundfile, av, webrtcvad, pyworld, soxr"
    code = f"import sys, crossmodal.audio; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    code = "import sys, crossmodal; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------ the development data


@pytest.mark.data
@pytest.mark.parametrize(
    "pattern",
    [
        "grid_clips/*.mpg",
        "cmu_arctic/*/wav/*_a0001.flac",
        "kathleen/wav/*_a0001.flac",
        "an4/wav/*/*/an25[12]*.opus",
        "librispeech/train-clean-100/1*.opus",
    ],
)
def test_real_recordings(data_root: Path, pattern: str) -> None:
    files = sorted(data_root.glob(pattern), key=lambda file: file.stat().st_size)[-4:]
    assert files
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wave, speech = audio.load(file), audio.load_speech(file)
        assert wave.dtype == np.float32
        assert np.isfinite(wave).all()
        assert 0.01 < np.abs(wave).max() <= 1.0
        assert 0.5 * RATE <= len(speech) <= len(wave)
        if file.suffix == ".mpg":
            assert len(wave) / RATE == pytest.approx(2.978, abs=0.01)
        else:
            info = soundfile.info(file)
            assert len(wave) / RATE == pytest.approx(info.frames / info.samplerate, abs=0.001)
        voiced = audio.pitch(wave)
        assert 60 < np.median(voiced[voiced > 0]) < 400
