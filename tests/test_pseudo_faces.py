"""Pseudo-pairs for the voice encoder: who is used, which face fits, how versions of a clip differ, the task on them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.audio import save_wav
from crossmodal.data import generated_people
from crossmodal.data.datasets import FeatureDataset
from crossmodal.data.features import FeatureStore
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.prepared_voices import PreparedVoices
from crossmodal.data.pseudo_faces import FacePairingOptions, main, prepare_pseudo_faces
from crossmodal.data.pseudo_pairs import by_split, pair
from crossmodal.data.speech_features import SpeechFeatures, prepare_features
from crossmodal.data.starter_split import speaker_split, split_of
from crossmodal.errors import DataError
from crossmodal.training.tasks.feature_head import PseudoPairs
from crossmodal.training.tasks.voice_encoder import VoiceEncoderTask, VoiceEncoderTaskConfig
from tests.generated import sung_voice

HELD_OUT = ("000", "001")
SPEAKERS = {  # librispeech reader → gender, F0
    "1": ("female", 210.0),  # validation
    "2": ("male", 115.0),
    "3": ("female", 205.0),
    "7": ("male", 120.0),  # test
    "4": ("male", 125.0),
}
OPTIONS = FacePairingOptions(moved=4)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> SpeechFeatures:
    """Sung voices of readers on every side of the split, and of the studio voices; embeddings hold their gender."""
    folder = tmp_path_factory.mktemp("speech")
    rows = []
    for number, (speaker, (gender, f0)) in enumerate(SPEAKERS.items()):
        save_wav(folder / f"{speaker}.wav", sung_voice(3.0, f0, seed=number))
        name = f"librispeech/{speaker}/{speaker}-1"
        rows.append(Row(name, "librispeech", speaker, folder / f"{speaker}.wav", attributes={"gender": gender}))
    for speaker in ("slt", "kathleen"):
        save_wav(folder / f"{speaker}.wav", sung_voice(3.0, 200.0, seed=9))
        corpus = "arctic" if speaker == "slt" else speaker
        row = Row(f"{corpus}/{speaker}/arctic_a0001", corpus, speaker, folder / f"{speaker}.wav")
        rows.append(replace(row, attributes={"gender": "female"}))
    prepare_features(rows, folder / "features", embed=False)
    rng = np.random.default_rng(0)
    male = np.array([row.attributes["gender"] == "male" for row in rows])
    embeddings = rng.standard_normal((len(rows), 256)) / 16
    embeddings[:, 0] = np.where(male, 1.0, -1.0)
    (folder / "features" / "embeddings.f32").write_bytes(embeddings.astype("<f4").tobytes())
    return SpeechFeatures(folder / "features")


@pytest.fixture(scope="module")
def voices() -> PreparedVoices:
    return generated_people.voices(60)


@pytest.fixture(scope="module")
def people() -> PreparedFaces:
    return generated_people.people(24)


@pytest.fixture(scope="module")
def folder(
    speech: SpeechFeatures, voices: PreparedVoices, people: PreparedFaces, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    made = tmp_path_factory.mktemp("pairs")
    prepare_pseudo_faces(people, HELD_OUT, voices, speech, made, OPTIONS)
    return made


def faces_of(folder: Path) -> dict[str, np.ndarray]:
    store = FeatureStore(folder / "features" / "dlib-128")
    return {row.id: store[row.id] for row in Manifest.read(folder / "manifest.parquet")}


def test_the_studio_voices_are_split_by_person() -> None:
    assert speaker_split("arctic", "slt", "arctic_a0001") == "test"
    assert {speaker_split("arctic", "bdl", f"arctic_a{i:04d}") for i in range(200)} == {"train"}
    assert {split_of("arctic", "bdl", f"arctic_a{i:04d}") for i in range(200)} == {"train", "validation", "test"}
    assert all(speaker_split("librispeech", str(i), "x") == split_of("librispeech", str(i), "x") for i in range(50))


def test_held_out_speakers_are_not_used(folder: Path) -> None:
    manifest = Manifest.read(folder / "manifest.parquet")
    sides: dict[str, set[str]] = {}
    for row in manifest:
        sides.setdefault(row.speaker, set()).add(row.attributes["split"])
    assert sides == {"1": {"validation"}, "2": {"train"}, "3": {"train"}, "4": {"train"}, "kathleen": {"train"}}
    assert {row.pairing for row in manifest} == {"pseudo"}


def test_held_out_faces_are_not_used(
    folder: Path, speech: SpeechFeatures, voices: PreparedVoices, people: PreparedFaces, tmp_path: Path
) -> None:
    """What they look like changes no target; what a training person looks like changes all."""

    def targets(person: int, name: str) -> dict[str, np.ndarray]:
        photos = people.photos
        moved = np.where((photos.person == person)[:, None], photos.features + 5, photos.features)
        other = replace(people, photos=replace(photos, features=moved.astype(np.float32)))
        prepare_pseudo_faces(other, HELD_OUT, voices, speech, tmp_path / name, OPTIONS)
        return faces_of(tmp_path / name)

    ours = faces_of(folder)
    assert all(np.array_equal(face, ours[name]) for name, face in targets(1, "held-out").items())
    assert not any(np.array_equal(face, ours[name]) for name, face in targets(2, "training").items())


def test_the_same_twice(
    folder: Path, speech: SpeechFeatures, voices: PreparedVoices, people: PreparedFaces, tmp_path: Path
) -> None:
    prepare_pseudo_faces(people, HELD_OUT, voices, speech, tmp_path / "again", OPTIONS)
    other = replace(OPTIONS, seed=1)
    prepare_pseudo_faces(people, HELD_OUT, voices, speech, tmp_path / "other", other)
    for feature in ("dlib-128", "waveform"):
        stores = [FeatureStore(f / "features" / feature) for f in (folder, tmp_path / "again", tmp_path / "other")]
        first, again, seeded = stores
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not all(np.array_equal(first[name], seeded[name]) for name in first)


def test_versions_of_a_clip(folder: Path, voices: PreparedVoices, people: PreparedFaces) -> None:
    """A phone or a noisy room leaves the face alone; the deeper the voice, the further the face is moved."""
    manifest, faces = Manifest.read(folder / "manifest.parquet"), faces_of(folder)
    sounds = FeatureStore(folder / "features" / "waveform")
    axis = pair(by_split(voices)["train"], people, HELD_OUT).face_axis
    for speaker in ("2", "3"):
        rows = [row for row in manifest if row.speaker == speaker]
        steady = [row for row in rows if not row.attributes["change"].startswith("shifted")]
        assert [row.attributes["change"] for row in steady] == ["clean", "short", "phone", "noise"]
        assert len({faces[row.id].tobytes() for row in steady}) == 1
        assert len(sounds[steady[1].id]) == 24_000
        moved = sorted(rows[4:], key=lambda row: float(row.attributes["factor"]))
        assert [row.attributes["change"] for row in rows[4:]] == [
            "shifted",
            "shifted+phone",
            "shifted",
            "shifted+noise",
        ]
        deeper = [(float(row.attributes["factor"]), float(row.attributes["heard"])) for row in moved]
        assert all(a[0] == b[0] or a[1] > b[1] for a, b in itertools.pairwise(deeper))
        for row in moved:
            seconds = len(sounds[row.id]) / len(sounds[steady[0].id])
            assert seconds == pytest.approx(1 / float(row.attributes["factor"]), rel=0.02)
    score = axis.score(np.stack([faces[row.id] for row in manifest]).astype(np.float64))
    places = np.array([float(row.attributes["place"]) for row in manifest])
    assert np.corrcoef(score, places)[0, 1] > 0.97


def test_the_expected_face_is_the_mean_of_those_the_feature_head_is_given(
    voices: PreparedVoices, people: PreparedFaces
) -> None:
    pairing = pair(by_split(voices)["train"], people, HELD_OUT, between=300)
    wanted = np.array([-1.2, 0.1, 0.9, 7.0])  # the last: beyond every face
    count = len(wanted)
    drawn = PseudoPairs(
        torch.zeros(count, 1), torch.zeros(count), torch.from_numpy(wanted).float(), ["x"] * count,
        np.array([""] * count), torch.from_numpy(pairing.faces), torch.from_numpy(pairing.places), 0.12,
    )  # fmt: skip
    torch.manual_seed(0)
    draws = np.stack([np.stack([drawn[i]["feature"].numpy() for _ in range(3000)]) for i in range(count)])
    error = draws.std(1) / np.sqrt(draws.shape[1])
    difference = np.abs(draws.mean(1) - pairing.expected(wanted, 0.12))
    assert (difference / np.maximum(error, 1e-6)).max() < 5
    assert not np.allclose(pairing.expected(wanted, 0.12), pairing.expected(wanted, 1.0), atol=1e-3)


@pytest.mark.parametrize("start_at_mean", [False, True])
def test_the_task_trains_on_the_folder(folder: Path, start_at_mean: bool) -> None:
    model = {"output_space": "dlib-128"}
    config = VoiceEncoderTaskConfig(folder, size="debug", model=model, seconds=1.1, start_at_mean=start_at_mean)
    task = VoiceEncoderTask(config)
    data = task.dataset("train")
    assert isinstance(data, FeatureDataset)
    assert {row.speaker for row in data.manifest} == {"2", "3", "4", "kathleen"}
    assert {row.speaker for row in task.dataset("validation").manifest} == {"1"}  # type: ignore[attr-defined]
    torch.manual_seed(0)
    batch = task.collate([data[i] for i in range(0, len(data), 6)])
    mean = torch.stack([data[i]["dlib-128"] for i in range(len(data))]).mean(0)
    answer = task.encoder(task.encoder.features(batch["waveform"], seconds=None))
    assert torch.allclose(answer, mean.expand_as(answer), atol=1e-6) == start_at_mean
    optimiser = torch.optim.Adam(task.parameters("main"), lr=3e-3)
    losses = []
    for step in range(15):
        loss = task.loss("main", batch, step)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_command(speech: SpeechFeatures, voices: PreparedVoices, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With the people that the recipes name as held out."""
    from crossmodal.evaluation.faces import HELD_OUT as NAMED

    people = generated_people.people(len(NAMED) + 20)
    names = [*NAMED, *(f"x{i:02d}" for i in range(20))]
    replace(people, aligned=replace(people.aligned, names=names)).save(tmp_path / "faces")
    voices.save(tmp_path / "voices.npz")
    main([str(tmp_path / "faces"), str(tmp_path / "out"), "--features", str(speech.folder),
          "--voices", str(tmp_path / "voices.npz")])  # fmt: skip
    assert "5 speakers, 60 rows" in capsys.readouterr().out
    assert len(Manifest.read(tmp_path / "out" / "manifest.parquet")) == 60


def test_no_speech_of_training_speakers(voices: PreparedVoices, people: PreparedFaces, tmp_path: Path) -> None:
    save_wav(tmp_path / "7.wav", sung_voice(3.0))
    row = Row("librispeech/7/7-1", "librispeech", "7", tmp_path / "7.wav", attributes={"gender": "male"})
    only_test = prepare_features([row], tmp_path / "features", embed=False)
    with pytest.raises(DataError, match="no speech of training speakers"):
        prepare_pseudo_faces(people, HELD_OUT, voices, only_test, tmp_path / "out")
