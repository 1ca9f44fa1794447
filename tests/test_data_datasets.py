"""Prepared data as examples."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from crossmodal.cli.app import app
from crossmodal.data import sets, splits
from crossmodal.data.datasets import FeatureDataset, random_crop, ready
from crossmodal.data.manifest import Manifest
from crossmodal.data.prepare import PrepareOptions, prepare
from crossmodal.data.samplers import SpeakerBatchSampler
from crossmodal.errors import CheckpointError, DataError
from tests.test_data_prepare import voices


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    manifest = sets.manifest("folder", voices(root / "data", people=6))
    options = PrepareOptions(features=("waveform", "speaker-mel"), workers=1, ratios={"train": 0.6, "test": 0.4})
    prepare(manifest, root / "out", options)
    return root / "out"


def test_examples(prepared: Path) -> None:
    train = FeatureDataset.open(prepared, ("waveform", "speaker-mel"), "train")
    test = FeatureDataset.open(prepared, ("waveform",), "test")
    assert len(train) + len(test) == 12
    assert not set(train.speakers) & set(test.speakers)
    example = train[0]
    assert example["waveform"].dtype == torch.float32
    assert 0.25 < float(example["waveform"].abs().max()) < 0.4
    assert example["speaker-mel"].shape[1] == 40
    assert train.speakers[0] == example["speaker"]
    labels = {train[k]["speaker"]: train[k]["label"] for k in range(len(train))}
    assert sorted(labels.values()) == list(range(len(labels)))
    splits.require_protocol(train.protocol(), test.manifest)


def test_batches_of_speakers(prepared: Path) -> None:
    data = FeatureDataset.open(prepared, ("speaker-mel",), "train", crop={"speaker-mel": 20})
    sampler = SpeakerBatchSampler(data.speakers, 2, 2, batches=3)
    batches = list(DataLoader(data, batch_sampler=sampler))
    assert len(batches) == 3
    assert all(batch["speaker-mel"].shape == (4, 20, 40) for batch in batches)
    assert all(batch["label"][0] == batch["label"][1] != batch["label"][2] for batch in batches)


def test_crops_follow_torch(prepared: Path) -> None:
    data = FeatureDataset.open(prepared, ("waveform",), crop={"waveform": 1000})
    crops = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        crops.append(data[0]["waveform"])
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])
    np.testing.assert_array_equal(random_crop(np.arange(3), 8), [0, 1, 2, 0, 1, 2, 0, 1])


def test_stored_values_become_what_networks_take() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[1, 2, 0] = 255
    assert ready(picture).shape == (3, 4, 4)
    assert ready(picture)[0, 1, 2] == 1.0
    assert ready(np.array([-32768, 16384], np.int16)).tolist() == [-1.0, 0.5]
    assert ready(np.ones(3, np.float16)).dtype == torch.float32


def test_centroids_are_over_all_rows(prepared: Path) -> None:
    data = FeatureDataset.open(prepared, ("waveform",), crop={"waveform": 10})
    # fixed-size stand-in: the mean of two vectors per person, unit length
    store = {row.id: np.array([k, 1.0, len(row.id)]) for k, row in enumerate(data.manifest)}
    data.stores["vector"] = store  # type: ignore[assignment]
    found = data.centroids("vector")
    for speaker in set(data.speakers):
        mean = np.mean([store[row.id] for row in data.manifest if row.identity == speaker], axis=0)
        expected = mean / np.linalg.norm(mean)
        label = next(data[k]["label"] for k in range(len(data)) if data.speakers[k] == speaker)
        np.testing.assert_allclose(found[label].numpy(), expected, rtol=1e-5)
    with pytest.raises(DataError, match="no feature 'x'"):
        data.centroids("x")


def test_goes_to_worker_processes(prepared: Path) -> None:
    data = FeatureDataset.open(prepared, ("waveform",))
    before = data[1]["waveform"]  # opens a file, which must not travel
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied[1]["waveform"], before)


def test_what_is_missing_is_said(prepared: Path) -> None:
    with pytest.raises(DataError, match="holds no features"):
        FeatureDataset.open(prepared, ("dlib-128",))
    with pytest.raises(DataError, match="no split 'validation'"):
        FeatureDataset.open(prepared, ("waveform",), "validation")


def test_a_checkpoint_says_whom_it_was_trained_on(prepared: Path, tmp_path: Path) -> None:
    from crossmodal.training.checkpoints import read
    from crossmodal.training.core import TrainerConfig, fit
    from crossmodal.training.task import Task

    class Loudness(Task):
        """Learns one number from sound."""

        name = "loudness"
        Config = PrepareOptions

        def __init__(self) -> None:
            super().__init__(PrepareOptions())
            self.modules["line"] = torch.nn.Linear(1, 1)

        def dataset(self, split: str) -> FeatureDataset:
            return FeatureDataset.open(prepared, ("waveform",), split, crop={"waveform": 100})

        def loss(self, phase: str, batch: Any, step: int) -> dict[str, torch.Tensor]:
            loudness = batch["waveform"].abs().mean(dim=1, keepdim=True)
            return {"loss": (self.modules["line"](loudness) - 1.0).square().mean()}

    config = TrainerConfig(steps=1, batch_size=2, validate_every=0, accelerator="cpu")
    checkpoint = read(fit(Loudness(), config, tmp_path / "run").checkpoint)
    test = FeatureDataset.open(prepared, ("waveform",), "test").manifest
    splits.require_protocol(checkpoint.state["protocol"], test, source=checkpoint.folder)
    asked = CliRunner().invoke(app, ["evaluate", "leakage", str(tmp_path / "run"), str(prepared)])
    assert asked.exit_code == 0, asked.output
    assert "may be tested on" in asked.output
    refused = CliRunner().invoke(app, ["evaluate", "leakage", str(tmp_path / "run"), str(prepared), "--part", "train"])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    other = splits.assign(Manifest(test.rows), ratios={"train": 0.5, "test": 0.5}, seed=5)
    with pytest.raises(CheckpointError, match="was trained under protocol"):
        splits.require_protocol(checkpoint.state["protocol"], splits.part(other, "test"))
