"""The corpus probe finds what is there, and nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossmodal.data.features import FeatureWriter, feature
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.probe import corpus_probe, probe_prepared
from crossmodal.errors import DataError


def embeddings(leak: float, seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Speakers with a direction each; ``leak`` shifts a corpus along one axis."""
    rng = np.random.default_rng(seed)
    values, corpora, speakers = [], [], []
    for corpus, people, shift in (("a", 20, 0.0), ("b", 30, leak)):
        for person in range(people):
            centre = rng.normal(size=16)
            centre[3] += shift
            for _ in range(5):
                values.append(centre + 0.2 * rng.normal(size=16))
                corpora.append(corpus)
                speakers.append(f"{corpus}{person}")
    return np.array(values), corpora, speakers


def test_a_leak_is_found() -> None:
    result = corpus_probe(*embeddings(leak=6.0), bootstrap=200)
    assert result.balanced > 0.95
    assert result.balanced_interval[0] > 0.9
    assert result.chance == pytest.approx(0.6)
    assert (result.n, result.speakers, result.balanced_chance) == (250, 50, 0.5)


def test_no_leak_is_near_chance_although_speakers_are_separable() -> None:
    # a probe that had speakers on both sides would recognise them and score near 1
    scores = [corpus_probe(*embeddings(leak=0.0, seed=s), bootstrap=200).balanced for s in range(4)]
    assert 0.3 < np.mean(scores) < 0.65
    result = corpus_probe(*embeddings(leak=0.0), bootstrap=200)
    assert result.balanced_interval[0] < 0.55


def test_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    from crossmodal.data.probe import _fit_predict

    values, corpora, _ = embeddings(leak=1.0)
    labels = np.array([corpus == "b" for corpus in corpora]).astype(int)
    train, test = values[::2], values[1::2]
    ours = _fit_predict(train, labels[::2], test, 2)
    mean, spread = train.mean(0), train.std(0)
    theirs = sklearn.LogisticRegression(class_weight="balanced", C=1.0).fit((train - mean) / spread, labels[::2])
    assert (ours == theirs.predict((test - mean) / spread)).mean() > 0.95


def test_corpora_of_one_speaker_are_left_out() -> None:
    values, corpora, speakers = embeddings(leak=3.0)
    result = corpus_probe(
        np.vstack([values, values[:2]]), [*corpora, "solo", "solo"], [*speakers, "x", "x"], bootstrap=50
    )
    assert result.left_out == ["solo"]
    assert "left out (one speaker): solo" in str(result)
    with pytest.raises(DataError, match="1 corpora"):
        corpus_probe(values[:100], corpora[:100], speakers[:100])
    with pytest.raises(DataError, match="embeddings"):
        corpus_probe(values, corpora[:-1], speakers)


def test_prepared_folders(tmp_path: Path) -> None:
    values, corpora, speakers = embeddings(leak=6.0)
    for corpus in ("a", "b"):
        writer = FeatureWriter(tmp_path / corpus / "features/ge2e-256", feature("ge2e-256"))
        rows = [Row(f"{s}/{k}", c, s) for k, (c, s) in enumerate(zip(corpora, speakers)) if c == corpus]
        for row in rows:
            writer.add(row.id, "", np.resize(values[int(row.id.split("/")[1])], 256).astype(np.float32))
        writer.flush()
        Manifest(rows).write(tmp_path / corpus / "manifest.parquet")
    result = probe_prepared(tmp_path, per_speaker=2)
    assert result.n == 100
    assert result.balanced > 0.9
    with pytest.raises(DataError, match="holds no prepared data"):
        probe_prepared(tmp_path / "a/features")
