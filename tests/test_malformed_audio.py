"""Damaged sound files either load or raise a typed error: no other exception, no hang, no crash."""

from __future__ import annotations

import io
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crossmodal import audio
from crossmodal.errors import AudioError, InputWarning, UnreadableAudioError
from tests.malformed import mutations, not_media
from tests.media import encode, voice

PER_FORMAT = 24
SLOWEST = 5.0


def _libsndfile(kind: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, voice(1.2, 16_000), 16_000, format=kind, subtype=subtype)
    return buffer.getvalue()


def _whole(kind: str) -> bytes:
    libsndfile = {
        "wav": ("WAV", "PCM_16"),
        "wav-float": ("WAV", "FLOAT"),
        "wav-adpcm": ("WAV", "IMA_ADPCM"),
        "flac": ("FLAC", "PCM_16"),
        "ogg": ("OGG", "VORBIS"),
        "aiff": ("AIFF", "PCM_24"),
    }
    if kind in libsndfile:
        return _libsndfile(*libsndfile[kind])
    container, codec, rate = {
        "mp3": ("mp3", "libmp3lame", 16_000),
        "mp4": ("mp4", "aac", 16_000),
        "mkv": ("matroska", "libopus", 48_000),
        "mpeg": ("mpeg", "mp2", 44_100),
    }[kind]
    return encode(voice(1.2, rate), rate, container, codec)


@pytest.mark.parametrize("kind", ["wav", "wav-float", "wav-adpcm", "flac", "ogg", "aiff", "mp3", "mp4", "mkv", "mpeg"])
def test_damaged_files_load_or_raise_a_typed_error(kind: str) -> None:
    whole = _whole(kind)
    assert len(audio.load(whole)) == pytest.approx(1.2 * 16_000, abs=2500)
    outcomes: Counter[str] = Counter()
    messages: list[AudioError] = []
    for name, content in mutations(whole, seed=sum(kind.encode()), n=PER_FORMAT):
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                waveform = audio.load(content)
            except AudioError as error:
                outcomes["refused"] += 1
                messages.append(error)
            else:
                outcomes["loaded"] += 1
                assert waveform.dtype == np.float32, name
                assert waveform.ndim == 1, name
                assert len(waveform), name
                assert np.isfinite(waveform).all(), name
                assert np.abs(waveform).max() <= 1.0, name
        assert all(issubclass(w.category, InputWarning) for w in caught), (name, [str(w.message) for w in caught])
        assert time.perf_counter() - started < SLOWEST, name
    assert all(error.remedy and "\n" not in str(error) for error in messages)
    assert outcomes["loaded"], outcomes
    assert outcomes["refused"] or kind == "mpeg", outcomes  # readers of MPEG streams find the next frame in anything


@pytest.mark.parametrize("name", sorted(not_media()))
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".mp4", ".raw"])
def test_what_is_no_sound_is_refused_whatever_its_name(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(not_media()[name])
    with pytest.raises(UnreadableAudioError, match=path.name):
        audio.load(path)
