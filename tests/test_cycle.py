"""Round trips with the debug bundle, and with ideal ends of which the outcome is known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from crossmodal.data.generated import generate, generated_face, generated_feature, generated_voice
from crossmodal.errors import DataError
from crossmodal.evaluation import cycle, cycle_people, face_cases
from crossmodal.evaluation.attributes import train_probe
from crossmodal.evaluation.cycle import CycleFaces, CycleVoices
from crossmodal.evaluation.drawing import Drawing, Drawn
from crossmodal.face2speech import Face2Speech
from tests.debug_bundle import write_debug_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_debug_bundle(tmp_path_factory.mktemp("bundle") / "debug")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder, people=14, takes=1, seconds=1.4, held_out=3)
    return folder


@pytest.fixture(scope="module")
def speaking(bundle: Path) -> Face2Speech:
    return Face2Speech.from_pretrained(bundle, device="cpu")


def named(result: cycle.CycleResult) -> dict[str, Any]:
    return {f.name: f for f in result.figures}


class Ideal:
    """Ends that keep everything: a voice carries its embedding in its samples, a face its feature in its pixels."""

    def __init__(self, keep: bool) -> None:
        self.keep, self.random = keep, np.random.default_rng(0)

    def embed(self, waveforms: list[np.ndarray]) -> np.ndarray:
        values = np.stack([w[:256] for w in waveforms])
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    def features(self, waveforms: list[np.ndarray], embeddings: np.ndarray) -> np.ndarray:
        return embeddings if self.keep else np.abs(self.random.standard_normal(embeddings.shape))

    def draw(self, features: np.ndarray) -> Drawn:
        count = len(features)
        return Drawn({}, np.zeros((count, 20, 2)), features, np.ones(count, dtype=bool))


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_kept_is_found_and_what_is_not_is_at_chance(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    people = unit(np.abs(rng.standard_normal((40, 256))))
    gender = np.array(["female", "male"] * 20, dtype=object)
    monkeypatch.setattr(cycle, "embed_faces", lambda drawing, features, picture=None: unit(features))
    speaking: Any = SimpleNamespace(
        speak=lambda text, embedding: SimpleNamespace(waveform=np.pad(embedding.numpy(), (0, 8000)))
    )
    faces = CycleFaces([f"p{i}" for i in range(40)], gender, people)
    ideal: Any = Ideal(keep)
    found = named(cycle.measure(ideal, speaking, faces, None))
    own = found["face → speech → face: cosine of the face before and after"]
    first = found["face → speech → face: the face before and after, top-1 of 40"]
    above = found["face → speech → face: the face before and after, cosine above others of the same gender"]
    assert first.chance == pytest.approx(1 / 40)
    assert first.reference == pytest.approx(1 / 20)
    assert own.n == 40
    assert found["face → speech → face: cosine of the face and its speech"].value == pytest.approx(1.0)
    if keep:
        assert own.value == pytest.approx(1.0)
        assert first.value == 1.0
        assert above.low > 0
    else:
        assert own.value == pytest.approx(own.reference, abs=0.03)
        assert first.value <= 0.1
        assert above.low < 0 < above.high


def test_both_trips_with_a_bundle(speaking: Face2Speech) -> None:
    numbers = [1, 2, 3]
    features = np.stack([generated_feature(n, 0, "dlib-128") for n in numbers])
    gender = np.array(["female", "male", "female"], dtype=object)
    voices = [generated_voice(n, 0, 1.5) for n in numbers]
    others = [generated_voice(n, 1, 1.5) for n in numbers]
    rng = np.random.default_rng(0)
    known, names = rng.standard_normal((40, 128)), [f"q{i}" for i in range(40)]
    probe = train_probe(known, np.array(["female", "male"] * 20, dtype=object), names, "gender")
    from PIL import Image

    faces = CycleFaces(
        [f"p{n}" for n in numbers], gender, features, lambda i: Image.fromarray(generated_face(numbers[i]))
    )
    heard = CycleVoices([f"p{n}" for n in numbers], gender, voices, others)
    drawing = Drawing(speaking)
    result = cycle.measure(drawing, speaking, faces, heard, face_probe=probe, text="Hello there.")
    found = named(result)
    before = drawing.embed(voices)
    natural = found["speech → face → speech: cosine of the speech before and after"]
    assert natural.reference == pytest.approx((before * drawing.embed(others)).sum(1).mean(), abs=1e-5)
    assert natural.chance is not None
    assert found["face → speech → face: gender read in the face before"].n == 3
    assert "speech → face → speech: gender read in the face on the way" in found
    assert not any("gender read in the voice" in name for name in found)  # no probe, nothing read
    assert set(result.pictures) == {"face-speech-face"}
    assert len(result.sounds) == 4
    seen = cycle.embed_faces(drawing, features)
    waves = [speaking.speak("Hello there.", embedding=_tensor(row)).waveform for row in seen]
    cosine = (seen * drawing.embed(waves)).sum(1)
    assert found["face → speech → face: cosine of the face and its speech"].value == pytest.approx(
        cosine.mean(), abs=1e-4
    )


def _tensor(row: np.ndarray) -> Any:
    import torch

    return torch.tensor(row, dtype=torch.float32)


def test_pitch_is_compared_within_the_genders_too() -> None:
    """Pitch that follows the gender alone: correlated over all, not within the genders."""
    rng = np.random.default_rng(0)
    gender = np.array(["female", "male"] * 30, dtype=object)
    base = np.where(gender == "female", 200.0, 110.0)
    f0 = np.stack([base * np.exp(0.1 * rng.standard_normal(60)) for _ in range(2)], axis=1)
    result = cycle.CycleResult()
    trip = cycle._Trip(None, None, None, None, "", 0, result)  # type: ignore[arg-type]
    trip._pitch("x", f0, gender)
    found = named(result)
    whole, within = found["x: median F0 before and after, r of log F0"], found["x: the same within the genders"]
    assert whole.value > 0.8
    assert whole.reference > 0.8
    assert within.low < 0 < within.high


def test_people_of_prepared_data(speaking: Face2Speech, data: Path) -> None:
    drawing = Drawing(speaking)
    cases = face_cases.from_prepared(drawing, data, "validation")
    people = cycle_people.from_prepared(drawing, data, cases, "validation")
    assert people.faces is not None
    assert people.voices is not None
    assert len(people.faces.people) == len(people.voices.people) == 3
    assert people.face_probe is not None
    assert people.voice_probe is not None
    assert people.voice_probe.accuracy.n == 11  # one voice each of those who are not tested


def test_too_few_people_are_refused(speaking: Face2Speech) -> None:
    one = CycleVoices(["p"], np.array(["male"], dtype=object), [generated_voice(1)])
    with pytest.raises(DataError, match="1 people are too few"):
        cycle.measure(Drawing(speaking), speaking, None, one)
    with pytest.raises(DataError, match="neither faces nor voices"):
        cycle.measure(Drawing(speaking), speaking, None, None)


def test_command(bundle: Path, data: Path, tmp_path: Path) -> None:
    from crossmodal.cli.app import app

    base = ["evaluate", "cycle", str(data), "--bundle", str(bundle)]
    result = CliRunner().invoke(app, [*base, "--part", "validation", "--json", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert any("top-1 of 3" in f["name"] for f in json.loads(result.stdout)["figures"])
    assert (tmp_path / "out" / "face-speech-face.png").is_file()
    result = CliRunner().invoke(app, base)
    assert result.exit_code == 1
    assert "no split 'test'" in result.output
