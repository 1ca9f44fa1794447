"""The judge of voices without a neural network: it tells vowels apart that differ in formants, and not noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from crossmodal.errors import DataError
from crossmodal.evaluation.cepstral_judge import CEPSTRA, CepstralJudge, cepstral_statistics, pieces

pytest.importorskip("sklearn")
RATE = 16_000


def voice(formants: tuple[float, ...], f0: float, seed: int, seconds: float = 2.0) -> np.ndarray:
    """A pulse train through resonances at ``formants`` Hz, in bursts, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.diff(np.floor(time * f0), prepend=0.0) + 0.01 * rng.normal(size=len(time))
    for centre in formants:
        radius = np.exp(-np.pi * 90 / RATE)
        wave = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * centre / RATE), radius**2], wave)
    return wave * (0.2 + np.abs(np.sin(2 * np.pi * 2 * time)))


SPEAKERS = {f"s{i}": (450.0 + 40 * i, 1300.0 + 110 * i, 2500.0 + 90 * i) for i in range(6)}


def test_knows_new_speakers_by_their_formants_at_another_pitch() -> None:
    train = {name: formants for name, formants in SPEAKERS.items() if name not in ("s1", "s4")}
    clips = [(name, voice(f, 100 + 10 * k, k)) for name, f in train.items() for k in range(4)]
    judge = CepstralJudge([wave for _, wave in clips], [name for name, _ in clips])
    new = [SPEAKERS["s1"], SPEAKERS["s4"]]
    one = judge.embed([voice(f, 120, 11) for f in new])
    other = judge.embed([voice(f, 150, 12) for f in new])
    cosine = one @ other.T
    assert np.allclose(np.linalg.norm(one, axis=1), 1)
    assert cosine.argmax(1).tolist() == [0, 1]
    assert np.diag(cosine).min() > cosine[0, 1] + 0.5


def test_statistics_are_blind_to_loudness() -> None:
    wave = voice(SPEAKERS["s0"], 110, 0)
    found = cepstral_statistics(wave)
    assert found.shape == (2 * (CEPSTRA - 1),)
    np.testing.assert_allclose(cepstral_statistics(0.1 * wave), found, atol=1e-3)


def test_pieces() -> None:
    assert [len(p) for p in pieces(np.zeros(7 * RATE))] == [3 * RATE, 3 * RATE]
    assert [len(p) for p in pieces(np.zeros(RATE))] == [RATE]


def test_needs_speakers_to_learn_from() -> None:
    with pytest.raises(DataError):
        CepstralJudge([voice(SPEAKERS["s0"], 100, k) for k in range(3)], ["a", "a", "a"])
