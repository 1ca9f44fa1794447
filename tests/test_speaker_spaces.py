"""Face encoders into other speaker spaces than GE2E's: their outputs, training, and the voices prepared for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossmodal.bundle import Bundle
from crossmodal.config import from_dict
from crossmodal.data.datasets import centroids
from crossmodal.data.features import VOICES_VARIABLE, Feature, FeatureStore, FeatureWriter, feature
from crossmodal.data.generated import generate
from crossmodal.data.manifest import Manifest
from crossmodal.errors import ConfigError
from crossmodal.models.face_encoder import SpeakerOutput
from crossmodal.models.spaces import space_form
from crossmodal.training.tasks.face_encoder import FaceEncoderTask, FaceEncoderTaskConfig
from tests.debug_bundle import write_debug_bundle


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated faces with voices in two more spaces: unit vectors, and free ones of very different lengths."""
    folder = tmp_path_factory.mktemp("spaces")
    manifest = generate(folder, people=7, takes=2, seconds=1.2, held_out=2)
    rng = np.random.default_rng(0)
    own = {row.identity: rng.standard_normal(80) for row in manifest}
    for space in ("yourtts-80", "xtts-80"):
        writer = FeatureWriter(
            folder / "features" / space, Feature(space, "audio", "", lambda: lambda media: np.zeros(1))
        )
        for row in manifest:
            vector = own[row.identity] + 0.1 * rng.standard_normal(80)
            scale = np.linspace(0.1, 30, 80) if space == "xtts-80" else 1 / np.linalg.norm(vector)
            writer.add(row.id, "", (vector * scale + (5 if space == "xtts-80" else 0)).astype(np.float32))
        writer.flush()
    return folder


def _task(folder: Path, space: str, **values: Any) -> FaceEncoderTask:
    torch.manual_seed(0)
    given = {"data": str(folder), "kind": "face-encoder-head", "size": "debug", "model": {"output_space": space}}
    return FaceEncoderTask(from_dict(FaceEncoderTaskConfig, {**given, **values}))


def test_forms_of_speaker_spaces() -> None:
    assert [space_form(name) for name in ("ge2e-256", "yourtts-512", "xtts-33280")] == ["positive", "unit", "free"]
    x = torch.randn(5, 8)
    positive, unit, free = (SpeakerOutput(name) for name in ("ge2e-8", "yourtts-8", "xtts-8"))
    assert positive(x).min() >= 0
    assert unit(x).min() < 0
    assert torch.allclose(unit(x).norm(dim=-1), torch.ones(5))
    assert not positive.state_dict()
    voices = torch.randn(40, 8) * torch.arange(1, 9) + 3
    free.fit(voices)
    assert torch.allclose(free(free.standardise(voices)), voices, atol=1e-4)
    assert torch.allclose(free.standardise(voices).std(0, correction=0), torch.ones(8), atol=1e-4)


def test_centroids_keep_their_length_where_it_means_something(people: Path) -> None:
    manifest, store = Manifest.read(people / "manifest.parquet"), FeatureStore(people / "features" / "xtts-80")
    names = sorted({row.identity for row in manifest})
    found = centroids(store, manifest, {name: i for i, name in enumerate(names)}, normalise=False)
    by_hand = [np.mean([store[row.id] for row in manifest if row.identity == name], axis=0) for name in names]
    np.testing.assert_allclose(found.numpy(), np.stack(by_hand), rtol=1e-5)


@pytest.mark.parametrize("space", ["yourtts-80", "xtts-80"])
def test_faces_learn_the_voices_of_another_space(people: Path, space: str) -> None:
    task = _task(people, space, pull=1.0)
    assert task.regress == (1.0 if space == "xtts-80" else 0.0)
    data: Any = task.dataset("train")
    batch = task.collate([data[i] for i in range(len(data))])
    optimiser = torch.optim.Adam(task.parameters("main"), lr=5e-3)
    first = {}
    for step in range(150):
        optimiser.zero_grad()
        terms = task.loss("main", batch, step)
        first = first or {name: float(value.detach()) for name, value in terms.items()}
        terms["loss"].backward()
        optimiser.step()
    assert float(terms["loss"].detach()) < 0.5 * first["loss"]
    assert float(terms["top1"]) == 1
    task.encoder.eval()
    with torch.no_grad():
        made = task.encoder(batch["dlib-128"])
    wanted = task.centroids.of("train")[batch["label"]]
    if space == "xtts-80":  # lengths are learnt as well: to a third of a deviation of each component
        assert ((made - wanted) / task.encoder.output.std).square().mean().sqrt() < 0.34
    else:
        assert torch.allclose(made.norm(dim=-1), torch.ones(len(made)), atol=1e-5)
        assert (made * wanted).sum(-1).mean() > 0.9


def test_voices_of_a_bundle_are_a_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossmodal.data.features import Media
    from crossmodal.data.manifest import Row
    from tests.generated import sung_voice

    with pytest.raises(ConfigError, match="--voices-of BUNDLE"):
        feature("yourtts-512")
    bundle = write_debug_bundle(tmp_path / "debug")
    monkeypatch.setenv(VOICES_VARIABLE, str(bundle))
    with pytest.raises(ConfigError, match="speaker spaces of the bundle: ge2e-256"):
        feature("yourtts-512")
    from crossmodal.data import features

    monkeypatch.delitem(features.TABLE, "ge2e-256")  # else the table's own is meant
    media = Media(Row(id="a", corpus="c", speaker="s"))
    media.__dict__["speech"] = sung_voice(2.0, 140.0, seed=0)
    value = feature("ge2e-256").make()(media)
    expected = Bundle.open(bundle).load("speaker-encoder").embed(media.speech)
    np.testing.assert_allclose(value, expected.numpy(), rtol=0, atol=1e-6)
