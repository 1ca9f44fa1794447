"""The tasks of speaker, face and voice encoder: they learn, on generated people, and refuse what cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossmodal.config import from_dict
from crossmodal.data.generated import generate, generated_face, generated_feature, generated_voice
from crossmodal.errors import ConfigError, DataError
from crossmodal.training.task import Task
from crossmodal.training.tasks import task_class


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder, people=7, takes=2, seconds=1.2, held_out=2)
    return folder


def make(name: str, folder: Path, **values: Any) -> Task:
    torch.manual_seed(0)
    cls = task_class(name)
    return cls(from_dict(cls.Config, {"data": str(folder), **values}))


def ten(task: Task) -> dict[str, Any]:
    """Five people, two takes each."""
    dataset: Any = task.dataset("train")
    assert len(dataset) == 10
    torch.manual_seed(1)
    return task.collate([dataset[i] for i in range(10)])


def overfit(task: Task, steps: int, lr: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Plain Adam on ten samples → first and last terms."""
    batch = ten(task)
    optimiser = torch.optim.Adam(task.parameters("main"), lr=lr)
    first: dict[str, Tensor] = {}
    for step in range(steps):
        optimiser.zero_grad()
        terms = task.loss("main", batch, step)
        first = first or {k: v.detach() for k, v in terms.items()}
        terms["loss"].backward()
        optimiser.step()
    return first, {k: v.detach() for k, v in terms.items()}


SPEAKER = {"model": {"hidden_size": 24, "num_layers": 2}, "utterances": 2, "frames": 80}


@pytest.mark.parametrize("form", ["softmax", "contrast"])
def test_speaker_encoder_overfits(people: Path, form: str) -> None:
    first, last = overfit(make("speaker-encoder", people, form=form, **SPEAKER), 60, 1e-2)
    if form == "contrast":  # its sigmoids saturate: it falls far more slowly
        assert last["loss"] < 0.9 * first["loss"]
        assert last["accuracy"] > first["accuracy"]
    else:
        assert last["loss"] < 0.25 * first["loss"]
        assert last["accuracy"] == 1


@pytest.mark.parametrize("kind", ["face-encoder-head", "face-encoder-vgg19"])
def test_face_encoder_overfits(people: Path, kind: str) -> None:
    values: dict[str, Any] = {"batch_norm": True, "dropout": 0.0} if "vgg" in kind else {"dropout": 0.0}
    first, last = overfit(make("face-encoder", people, kind=kind, size="debug", model=values), 40, 3e-3)
    assert last["loss"] < 0.3 * first["loss"]
    assert last["top1"] == 1
    assert last["cosine"] > first["cosine"]


@pytest.mark.parametrize(
    ("kind", "loss", "pooling"),
    [
        ("voice-encoder-conv", "full", "average"),
        ("voice-encoder-conv", "l1", "attentive"),
        ("voice-encoder-ast", "full", "attentive"),
        ("voice-encoder-ast", "normalised-l2", "token"),
    ],
)
def test_voice_encoder_overfits(people: Path, kind: str, loss: str, pooling: str) -> None:
    model = {"pooling": pooling}
    task = make("voice-encoder", people, kind=kind, size="debug", loss=loss, seconds=1.1, model=model)
    first, last = overfit(task, 20, 1e-2)
    assert last["loss"] < 0.8 * first["loss"]
    assert last["cosine"] > first["cosine"] + 0.1


def test_validation_uses_its_own_people_and_no_noise(people: Path) -> None:
    task = make("face-encoder", people, kind="face-encoder-head", size="debug", noise=0.5)
    dataset: Any = task.dataset("validation")
    train: Any = task.dataset("train")
    assert not set(dataset.speakers) & set(train.speakers)
    task.modules.eval()
    batch = task.collate([dataset[i] for i in range(len(dataset))])
    once, again = task.validate([batch]), task.validate([batch])
    assert once == again
    assert set(once) == {"loss", "cosine", "top1"}
    assert task.centroids.of("validation").shape == (2, 256)  # type: ignore[attr-defined]


def test_speaker_batches_are_speakers_by_utterances(people: Path) -> None:
    task = make("speaker-encoder", people, **SPEAKER)
    dataset: Any = task.dataset("train")
    for batch in task.sampler(dataset, 6, seed=0) or []:
        names = [dataset.speakers[i] for i in batch]
        assert names[::2] == names[1::2]
        assert len(set(names)) == 3
    validation: Any = task.dataset("validation")
    assert next(len(batch) for batch in task.sampler(validation, 10, seed=0) or []) == 4  # two people only
    with pytest.raises(ConfigError, match="multiple of 2"):
        task.sampler(dataset, 7, seed=0)
    with pytest.raises(DataError, match="6 speakers"):
        task.sampler(dataset, 12, seed=0)


def test_decoder_layer_and_its_space_are_checked(people: Path, tmp_path: Path) -> None:
    from crossmodal.bundle import BundleWriter
    from crossmodal.errors import SpaceMismatchError
    from crossmodal.models import build

    with BundleWriter(tmp_path / "bundle", name="decoder") as writer:
        writer.add("face-decoder", "face-decoder", build("face-decoder", size="debug"), dtype="float32")
    values: dict[str, Any] = {"size": "debug", "seconds": 1.1, "decoder": str(tmp_path / "bundle")}
    task = make("voice-encoder", people, **values)
    terms = task.loss("main", ten(task), 0)
    assert terms["decoder_l1"] > 0
    decoder = task.frozen["face-decoder"]
    assert all(not key.startswith("face-decoder") for key in task.modules)
    batch = ten(task)
    predicted = task.encoder(task.encoder.features(batch["waveform"], seconds=None))  # type: ignore[attr-defined]
    scaled = [(v - decoder.feature_mean) * decoder.feature_scale for v in (predicted, batch["dlib-128"])]
    expected = (decoder.first_layer(scaled[0]) - decoder.first_layer(scaled[1])).abs().sum(1).mean()
    torch.testing.assert_close(task.loss("main", batch, 0)["decoder_l1"], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match="face_weights"):
        make("voice-encoder", people, **{**values, "model": {"output_space": "facenet-512"}})
    with pytest.raises(SpaceMismatchError, match="dlib-128"):
        make("voice-encoder", people, **{**values, "model": {"output_space": "ge2e-256"}})


def test_targets_from_chips_and_vggface(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FaceNet features are computed from the chips by the frozen network, as its own call does."""
    from crossmodal.models.face_features import FaceNetConfig, FaceNetFeatures

    torch.manual_seed(0)
    network = FaceNetFeatures(FaceNetConfig.debug()).eval()
    monkeypatch.setattr(FaceNetFeatures, "from_file", classmethod(lambda cls, path: network))
    model = {"output_space": "facenet-512"}
    task = make("voice-encoder", people, size="debug", seconds=1.1, face_weights=str(tmp_path / "x"), model=model)
    dataset: Any = task.dataset("train")
    batch = task.collate([dataset[0], dataset[1]])
    with torch.no_grad():
        expected = network(batch["chip-facenet-512"])
    torch.testing.assert_close(task.target(batch), expected)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("speaker-encoder", {"utterances": 1}, "at least 2"),
        ("speaker-encoder", {"utterence": 4}, "did you mean 'utterances'"),
        ("face-encoder", {"flip": 2.0}, "flip"),
        ("face-encoder", {"model": {"hiden_size": 3}}, "hidden_size"),
        ("voice-encoder", {"seconds": 0.5}, "shorter than"),
        ("voice-encoder", {}, "give config.face_weights"),
        ("voice-encoder", {"size": "debug", "ast_weights": "x"}, "voice-encoder-ast only"),
        ("voice-encoder", {"size": "debug", "loss": "cosine"}, "not one of"),
        (
            "voice-encoder",
            {"size": "debug", "model": {"output_space": "vggface-4096"}, "start_at_mean": True},
            "prepared",
        ),
    ],
)
def test_bad_settings(people: Path, name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, people, **values)


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        make("speaker-encoder", tmp_path, **SPEAKER).dataset("train")


def test_generated_people_are_stable_and_distinct() -> None:
    voice = generated_voice(3, 1, 0.5)
    assert voice.dtype == np.float32
    assert len(voice) == 8_000
    assert np.abs(voice).max() == pytest.approx(0.5)
    assert np.array_equal(voice, generated_voice(3, 1, 0.5))
    assert not np.array_equal(voice, generated_voice(3, 2, 0.5))
    face = generated_face(3, 1, 64)
    assert face.dtype == np.uint8
    assert face.shape == (64, 64, 3)
    assert np.array_equal(face, generated_face(3, 1, 64))
    same = np.abs(face.astype(float)[20:44, 20:44] - generated_face(3, 2, 64)[20:44, 20:44]).mean()
    other = np.mean([np.abs(face.astype(float) - generated_face(i, 1, 64))[20:44, 20:44].mean() for i in range(4, 10)])
    assert same < other
    a, b, c = (generated_feature(*who, "ge2e-256") for who in ((1, 0), (1, 1), (2, 0)))
    assert (a >= 0).all()
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    assert a @ b > a @ c + 0.2
    assert np.linalg.norm(generated_feature(1, 0, "dlib-128")) == pytest.approx(1.47, abs=1e-4)
    with pytest.raises(ConfigError, match="duration"):
        generated_voice(0, 0, 0.0)
