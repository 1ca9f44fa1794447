"""Distance of speech to recordings: against loops, closed forms and known signals; listeners against tiny models."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.errors import ConfigError, NoSpeechError
from crossmodal.evaluation import speech_distance as sd
from crossmodal.evaluation import speech_listeners

RATE = 16_000


def vowel(f0: np.ndarray | float, seconds: float = 1.0, formant: float = 700.0) -> np.ndarray:
    """Harmonics of ``f0`` through one formant, in a little noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    course = np.broadcast_to(f0, time.shape)
    phase = 2 * np.pi * np.cumsum(course) / RATE
    weight = [1 / (1 + ((k * np.mean(course) - formant) / 400) ** 2) for k in range(1, 30)]
    harmonics = 0.05 * sum(w * np.sin(k * phase) for k, w in enumerate(weight, 1))
    return (harmonics + 1e-3 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def test_distortion_of_the_same_is_nothing_and_of_a_scaled_cepstrum_known() -> None:
    cepstrum = np.random.default_rng(0).normal(size=(40, 25))
    path = np.stack([np.arange(40)] * 2, axis=1)
    assert sd.cepstral_distortion(cepstrum, cepstrum, path) == 0.0
    scaled = sd.cepstral_distortion(1.1 * cepstrum, cepstrum, path)
    by_hand = 0.0
    for frame in cepstrum:  # Kubichek 1993: 10 / ln 10 · sqrt(2 Σ (c - c')²), level left out
        by_hand += 10 / np.log(10) * np.sqrt(2 * sum((0.1 * c) ** 2 for c in frame[1:])) / 40
    assert scaled == pytest.approx(by_hand)
    louder = cepstrum + np.eye(25)[0]
    assert sd.cepstral_distortion(louder, cepstrum, path) == 0.0


def test_distortion_is_the_rms_difference_of_the_spectra_in_decibels() -> None:
    """Parseval: with every coefficient, MCD is the RMS distance of two smooth spectra on the warped axis."""
    angle = np.linspace(0, np.pi, 513)
    one, other = (np.log(1.2 + np.cos(angle + shift))[None] for shift in (0.0, 0.3))
    ours = [sd.warped_cepstrum(spectrum, order=511, warp=0.0) for spectrum in (one, other)]
    decibels = 10 / np.log(10) * (one - other)[0]
    decibels = np.concatenate([decibels, decibels[-2:0:-1]])  # the whole circle
    level = np.mean(decibels)
    found = sd.cepstral_distortion(*ours, np.zeros((1, 2), dtype=int))
    assert found == pytest.approx(np.sqrt(np.mean((decibels - level) ** 2)), rel=1e-4)


def test_warping_puts_a_frequency_where_the_all_pass_does() -> None:
    bins, warp = 4097, 0.42
    place = 1200  # of 4096: a narrow bump
    spectrum = np.exp(-0.5 * ((np.arange(bins) - place) / 8) ** 2)[None]
    cepstrum = sd.warped_cepstrum(spectrum, order=bins - 2, warp=warp)
    back = np.fft.rfft(np.concatenate([cepstrum[0], [0], cepstrum[0][:0:-1]])).real
    omega = np.pi * place / (bins - 1)
    expected = omega + 2 * np.arctan(warp * np.sin(omega) / (1 - warp * np.cos(omega)))  # Tokuda et al. 1994
    assert np.argmax(back) / len(back) * np.pi == pytest.approx(expected, abs=0.01)


def test_alignment_is_the_cheapest_of_all() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(6, 3)), rng.normal(size=(7, 3))
    cost = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in other] for a in one])

    @functools.cache
    def cheapest(i: int, j: int) -> float:
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        known = [cheapest(a, b) for a, b in before if a >= 0 and b >= 0]
        return float(cost[i, j]) + (min(known) if known else 0.0)

    path = sd.align(one, other)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [5, 6]
    assert (np.diff(path, axis=0).max(1) == 1).all()
    assert cost[path[:, 0], path[:, 1]].sum() == pytest.approx(cheapest(5, 6))


def test_a_recording_is_nought_from_itself() -> None:
    glide = vowel(np.linspace(110, 150, RATE))
    found = sd.compare(sd.analyse(glide), sd.analyse(glide))
    assert (found.mcd, found.f0_error, found.melody_error) == (0, 0, 0)
    assert (found.f0_deviation, found.f0_range, found.length) == (1, 1, 1)


def test_register_course_and_length_are_told_apart() -> None:
    course = 120 * 2 ** (0.1 * np.sin(2 * np.pi * 2 * np.arange(RATE) / RATE))
    low = sd.analyse(vowel(course))
    high = sd.analyse(vowel(course * 2 ** (300 / 1200)))
    found = sd.compare(high, low)
    assert found.f0_error == pytest.approx(300, abs=35)
    assert found.melody_error < 60
    assert found.f0_deviation == pytest.approx(1, abs=0.1)
    wide = sd.analyse(vowel(120 * (course / 120) ** 2))
    assert sd.compare(wide, low).f0_deviation == pytest.approx(2, rel=0.1)
    assert sd.compare(wide, low).f0_range == pytest.approx(2, rel=0.1)
    silence = np.zeros(RATE // 2, dtype=np.float32)
    padded = np.concatenate([silence, vowel(120.0, 2.0), silence])
    assert sd.compare(sd.analyse(padded), sd.analyse(vowel(120.0, 1.0))).length == pytest.approx(2, rel=0.05)


def test_another_vowel_is_further_than_the_same_at_another_pitch() -> None:
    one, same, other = (sd.analyse(vowel(f0, formant=f)) for f0, f in ((120.0, 700), (130.0, 700), (120.0, 2200)))
    assert sd.compare(same, one).mcd < 0.5 * sd.compare(other, one).mcd


def test_silence_is_refused() -> None:
    with pytest.raises(NoSpeechError):
        sd.analyse(np.zeros(RATE, dtype=np.float32))


def test_naturalness_comes_from_the_graph(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["score"], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("x", kind, [1, "T"])],
        [helper.make_tensor_value_info("score", kind, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "mean.onnx")
    listen = speech_listeners.utmos(tmp_path / "mean.onnx")
    assert listen(np.full(1000, 3.25, dtype=np.float32)) == pytest.approx(3.25)


def test_what_could_run_code_or_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), tmp_path / "utmos.pt")
    with pytest.raises(ConfigError, match=r"utmos\.pt: is no ONNX graph"):
        speech_listeners.utmos(tmp_path / "utmos.pt")
    with pytest.raises(ConfigError, match=r"missing\.onnx: is no ONNX graph"):
        speech_listeners.utmos(tmp_path / "missing.onnx")
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        speech_listeners.whisper(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no Whisper model"):
        speech_listeners.whisper(tmp_path)


def test_whisper_is_read_from_a_folder(tmp_path: Path) -> None:
    """A tiny untrained one: what it hears is nonsense, but words, and the same each time."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

    letters = sorted(ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocabulary = {token: i for i, token in enumerate([*letters, *special])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    WhisperTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(tmp_path)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    torch.manual_seed(0)
    end = vocabulary["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=80, max_target_positions=32,
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=end + 1,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 20
    model.save_pretrained(tmp_path, safe_serialization=True)
    recognise = speech_listeners.whisper(tmp_path)
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    heard = recognise(noise)
    assert isinstance(heard, str)
    assert heard == recognise(noise)
    assert heard == heard.lower()
