"""What a cosine means: against a brute-force loop."""

from __future__ import annotations

import numpy as np
import pytest

from crossmodal.errors import DataError
from crossmodal.evaluation.calibration import QUANTILES, calibrate, curves, figures, summary, table


def _people(n: int, seed: int, spread: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """``n`` people with two unit vectors each, ``spread`` apart."""
    rng = np.random.default_rng(seed)
    centres = np.abs(rng.normal(size=(n, 256)))
    two = [centres + spread * np.abs(rng.normal(size=centres.shape)) for _ in range(2)]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in two]
    return list(zip(*unit))


def test_against_loops():
    voices, faces = _people(5, 0, 0.2), _people(4, 1, 0.2)
    result = calibrate(voices, faces)
    same = [float(a @ b) for a, b in voices]
    different = [float(voices[i][0] @ voices[j][1]) for i in range(5) for j in range(5) if i != j]
    mixed = [float(f[0] @ v[0]) for f in faces for v in voices]
    assert result["voice-voice"]["same"]["mean"] == pytest.approx(np.mean(same), abs=1e-4)
    assert result["voice-voice"]["different"]["mean"] == pytest.approx(np.mean(different), abs=1e-4)
    assert result["voice-voice"]["different"]["sd"] == pytest.approx(np.std(different, ddof=1), abs=1e-4)
    assert result["voice-voice"]["different"]["n"] == 20
    assert result["face-voice"]["different"]["mean"] == pytest.approx(np.mean(mixed), abs=1e-4)
    assert result["face-voice"]["different"]["quantiles"][QUANTILES // 2] == pytest.approx(np.median(mixed), abs=1e-4)
    assert "same" not in result["face-voice"]
    assert len(table(result)) == 6


def test_figures_and_curves_tell_the_same():
    voices, faces = _people(5, 0, 0.2), _people(4, 1, 0.2)
    result, found = calibrate(voices, faces), {f.name: f for f in figures(voices, faces)}
    same, different = found["face-face, same person: cosine"], found["face-face, different people: cosine"]
    assert same.value == pytest.approx(result["face-face"]["same"]["mean"], abs=1e-4)
    assert (same.n, different.n, same.reference) == (4, 12, pytest.approx(different.value))
    assert different.low <= different.value <= different.high
    lines = {c.name: c for c in curves(voices, faces)}
    all_pairs = [float(f[0] @ v[0]) for f in faces for v in voices]
    line = lines["face-voice, different people"]
    assert line.y == pytest.approx([np.mean(np.array(all_pairs) <= x) for x in line.x])
    assert all(low <= y <= high for low, y, high in zip(line.low, line.y, line.high))


def test_one_person_is_not_enough():
    with pytest.raises(DataError, match="two of each"):
        calibrate(_people(1, 0, 0.1), _people(3, 0, 0.1))


def test_summary_of_one_value():
    assert summary(np.array([0.5]))["sd"] == 0.0
