"""``crossmodal prepare``: shards, resume after a kill, failures, several processes and machines."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossmodal.audio import log_mel, save_wav
from crossmodal.data import prepare as prepare_module
from crossmodal.data import sets, splits, worker
from crossmodal.data.features import TABLE, Feature, FeatureStore, FeatureWriter, feature
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.prepare import PrepareOptions, prepare
from crossmodal.data.video import VideoOptions
from crossmodal.errors import ConfigError, DataError, LeakageError
from tests.test_data_video import clicks, frames, write_video

AUDIO_ONLY = PrepareOptions(features=("waveform", "log-mel"), workers=1, ratios=None)


def voices(root: Path, people: int = 3, each: int = 2, seconds: float = 0.3) -> Path:
    """``folder`` data: tones, another pitch for every clip."""
    rng = np.random.default_rng(0)
    for person in range(people):
        folder = root / f"p{person}" / "voice"
        folder.mkdir(parents=True)
        for clip in range(each):
            pitch = 100 + 40 * person + 7 * clip
            t = np.arange(round(seconds * (1 + clip) * 16_000)) / 16_000
            save_wav(folder / f"{clip}.wav", (0.3 * np.sin(2 * np.pi * pitch * t) + 0.01 * rng.normal(size=len(t))))
    return root


def test_values_are_what_the_front_ends_give(tmp_path: Path) -> None:
    import torch

    manifest = sets.manifest("folder", voices(tmp_path / "data"))
    summary = prepare(manifest, tmp_path / "out", AUDIO_ONLY)
    assert (summary.usable, summary.processed, summary.failed) == (6, 6, 0)
    mels = FeatureStore(tmp_path / "out/features/log-mel")
    waves = FeatureStore(tmp_path / "out/features/waveform")
    assert set(mels) == set(waves) == {row.id for row in manifest}
    for row_id in mels:
        waveform = torch.from_numpy(waves[row_id].astype(np.float32) / 32768)
        np.testing.assert_allclose(mels[row_id], log_mel(waveform).T.numpy(), atol=0.02)
    with pytest.raises(DataError, match="has no value for 'x'"):
        mels["x"]
    assert Manifest.read(tmp_path / "out/manifest.parquet").rows == manifest.rows


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    data = voices(tmp_path / "data")
    out = tmp_path / "out"
    prepare(sets.manifest("folder", data), out, AUDIO_ONLY)
    again = prepare(sets.manifest("folder", data), out, AUDIO_ONLY)
    assert (again.processed, again.reused) == (0, 6)
    # one file changes, one is new, one feature is new
    save_wav(data / "p0/voice/0.wav", np.full(4000, 0.1, np.float32))
    save_wav(data / "p0/voice/9.wav", np.full(4000, 0.2, np.float32))
    changed = prepare(sets.manifest("folder", data), out, AUDIO_ONLY)
    assert (changed.processed, changed.reused, changed.usable) == (2, 5, 7)
    assert len(FeatureStore(out / "features/waveform")["folder/p0/voice/0.wav"]) == 4000
    more = PrepareOptions(features=("waveform", "log-mel", "pitch"), workers=1, ratios=None)
    assert prepare(sets.manifest("folder", data), out, more).processed == 7
    assert prepare(sets.manifest("folder", data), out, more).processed == 0


def test_a_new_version_of_a_feature_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = sets.manifest("folder", voices(tmp_path / "data", people=1))
    prepare(manifest, tmp_path / "out", AUDIO_ONLY)
    old = TABLE["pitch"]
    monkeypatch.setitem(TABLE, "log-mel", Feature("log-mel", "audio", "", old.make, version=99, ragged=True))
    worker._extractor.cache_clear()
    assert prepare(manifest, tmp_path / "out", AUDIO_ONLY).processed == 2
    worker._extractor.cache_clear()
    assert FeatureStore(tmp_path / "out/features/log-mel")[manifest[0].id].ndim == 1  # the newer value counts


def test_a_bad_file_is_recorded_and_skipped(tmp_path: Path) -> None:
    data = voices(tmp_path / "data")
    (data / "p1/voice/bad.wav").write_text("not a sound")
    (data / "p1/voice/empty.wav").touch()
    summary = prepare(sets.manifest("folder", data), tmp_path / "out", AUDIO_ONLY)
    assert (summary.rows, summary.usable, summary.failed) == (8, 6, 2)
    assert "2 failed (waveform 2; see failures.csv)" in str(summary)
    with open(tmp_path / "out/failures.csv", newline="") as file:
        failures = {row["id"]: row for row in csv.DictReader(file)}
    assert set(failures) == {"folder/p1/voice/bad.wav", "folder/p1/voice/empty.wav"}
    assert all("voice" in row["reason"] for row in failures.values())
    assert "folder/p1/voice/bad.wav" not in {row.id for row in Manifest.read(tmp_path / "out/manifest.parquet")}
    # known to be bad: not tried again, unless asked or repaired
    assert prepare(sets.manifest("folder", data), tmp_path / "out", AUDIO_ONLY).processed == 0
    save_wav(data / "p1/voice/bad.wav", np.zeros(4000, np.float32))
    repaired = prepare(sets.manifest("folder", data), tmp_path / "out", AUDIO_ONLY)
    assert (repaired.processed, repaired.failed, repaired.usable) == (1, 1, 7)


def test_videos_become_a_picture_and_a_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_data_video import detect

    monkeypatch.setattr("crossmodal.faces.detect", detect)
    for person, boxes in (("one", [(60, 40, 110)]), ("two", [(10, 40, 70), (150, 40, 90)]), ("none", [])):
        folder = tmp_path / "data" / person
        folder.mkdir(parents=True)
        write_video(folder / "talk.mkv", frames([boxes] * 30), waveform=clicks(3.0))
    out = tmp_path / "out"
    options = PrepareOptions(features=("waveform",), workers=1, ratios=None)
    summary = prepare(sets.manifest("folder", tmp_path / "data"), out, options)
    assert (summary.usable, summary.failed, summary.several_faces) == (2, 1, 1)
    assert "1 videos show several faces" in str(summary)
    row = next(row for row in Manifest.read(out / "manifest.parquet") if row.speaker == "one")
    assert row.audio is not None
    assert row.face is not None
    assert (row.audio.suffix, row.face.suffix, row.pairing) == (".flac", ".jpg", "paired")
    assert row.attributes["faces_seen"] == "1"
    assert row.audio.is_relative_to(out)
    stored = FeatureStore(out / "features/waveform")[row.id]
    assert np.flatnonzero(np.abs(stored) > 8000)[0] / 16_000 == pytest.approx(0.4, abs=0.005)
    assert prepare(sets.manifest("folder", tmp_path / "data"), out, options).processed == 0
    row.face.unlink()  # what was cut is made again if it is gone
    assert prepare(sets.manifest("folder", tmp_path / "data"), out, options).processed == 1
    skipping = PrepareOptions(workers=1, ratios=None, video=VideoOptions(several="skip"))
    assert prepare(sets.manifest("folder", tmp_path / "data"), out, skipping).failed == 2


def test_clips_of_one_recording_are_cut(tmp_path: Path) -> None:
    save_wav(tmp_path / "long.wav", np.concatenate([np.zeros(16_000), np.full(16_000, 0.5)]).astype(np.float32))
    rows = [Row(f"c/{k}", "c", "p", audio=tmp_path / "long.wav", start=float(k), end=k + 1.0) for k in range(2)]
    prepare(Manifest(rows, root=tmp_path), tmp_path / "out", AUDIO_ONLY)
    waves = FeatureStore(tmp_path / "out/features/waveform")
    assert [len(waves[f"c/{k}"]) for k in range(2)] == [16_000, 16_000]
    assert np.abs(waves["c/0"]).max() < 100
    assert abs(int(np.median(waves["c/1"])) - 16_384) < 50


def test_split_and_refusal_of_overlap(tmp_path: Path) -> None:
    data = voices(tmp_path / "data", people=8, each=1)
    manifest = sets.manifest("folder", data)
    options = PrepareOptions(workers=1, ratios={"train": 0.6, "test": 0.4})
    summary = prepare(manifest, tmp_path / "out", options)
    written = Manifest.read(tmp_path / "out/manifest.parquet")
    splits.check_disjoint(written)
    assert summary.split["fingerprint"] == splits.protocol_fingerprint(written)
    assert summary.split["fingerprint"] in (tmp_path / "out/summary.yaml").read_text()
    held_out = PrepareOptions(workers=1, held_out=(tmp_path / "out/manifest.parquet",))
    with pytest.raises(LeakageError, match="shares people"):
        prepare(manifest, tmp_path / "other", held_out)
    assert not (tmp_path / "other").exists()  # refused before anything is written
    one = prepare(
        sets.manifest("folder", voices(tmp_path / "one", people=1)), tmp_path / "o1", PrepareOptions(workers=1)
    )
    assert "not split: split: 1 identities leave" in str(one)


def test_machines_share_the_work(tmp_path: Path) -> None:
    manifest = sets.manifest("folder", voices(tmp_path / "data", people=5))
    for index in (1, 0, 2):
        options = PrepareOptions(features=("pitch",), workers=1, shard=(index, 3), ratios={"train": 0.5, "test": 0.5})
        summary = prepare(manifest, tmp_path / "out", options)
        assert (tmp_path / "out/manifest.parquet").exists() == (index == 2)
        assert summary.processed in (3, 4)
    alone = prepare(manifest, tmp_path / "alone", PrepareOptions(workers=1, ratios={"train": 0.5, "test": 0.5}))
    together = Manifest.read(tmp_path / "out/manifest.parquet")
    assert [row.id for row in together] == [row.id for row in manifest]
    assert splits.protocol_fingerprint(together) == alone.split["fingerprint"]
    assert set(FeatureStore(tmp_path / "out/features/pitch")) == {row.id for row in manifest}


def test_per_person_and_limit(tmp_path: Path) -> None:
    manifest = sets.manifest("folder", voices(tmp_path / "data", people=3, each=4, seconds=0.05))
    summary = prepare(manifest, tmp_path / "out", PrepareOptions(workers=1, per_person=2, limit=5, ratios=None))
    assert summary.rows == 5
    kept = Manifest.read(tmp_path / "out/manifest.parquet")
    assert [len(rows) for rows in kept.by_identity().values()] == [2, 2, 1]


def test_impossible_requests(tmp_path: Path) -> None:
    manifest = sets.manifest("folder", voices(tmp_path / "data", people=1))
    with pytest.raises(ConfigError, match="no feature called 'mel'"):
        prepare(manifest, tmp_path / "out", PrepareOptions(features=("mel",)))
    with pytest.raises(ConfigError, match="shard 4 of 3"):
        prepare(manifest, tmp_path / "out", PrepareOptions(shard=(3, 3)))
    assert not (tmp_path / "out").exists()


def crashing_run(job: worker.Job) -> worker.Outcome:
    """Brings its process down for one row, as a broken native library would."""
    if job.row.id.endswith("1.wav") and job.row.speaker == "p1":
        os._exit(139)
    return worker.Outcome(job.row)


@pytest.mark.slow
def test_a_crashing_process_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run", crashing_run)
    manifest = sets.manifest("folder", voices(tmp_path / "data"))
    jobs = [worker.Job(row, False, ("pitch",), tmp_path, VideoOptions()) for row in manifest]
    outcomes = {o.row.id: o for o in prepare_module._outcomes(jobs, workers=2)}
    assert len(outcomes) == 6
    assert [o.row.id for o in outcomes.values() if o.stage] == ["folder/p1/voice/1.wav"]
    assert outcomes["folder/p1/voice/1.wav"].reason == "the process that read it crashed"


@pytest.mark.slow
def test_several_processes_give_the_same_values(tmp_path: Path) -> None:
    manifest = sets.manifest("folder", voices(tmp_path / "data"))
    steps: list[tuple[int, int]] = []
    prepare(manifest, tmp_path / "one", AUDIO_ONLY)
    two = PrepareOptions(features=AUDIO_ONLY.features, workers=2, ratios=None)
    prepare(manifest, tmp_path / "two", two, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(k, 6) for k in range(1, 7)]
    for name in AUDIO_ONLY.features:
        one, other = (FeatureStore(tmp_path / f"{folder}/features/{name}") for folder in ("one", "two"))
        for row in manifest:
            np.testing.assert_array_equal(one[row.id], other[row.id])


@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path) -> None:
    data = voices(tmp_path / "data", people=6, each=10, seconds=0.05)
    code = (
        "import sys, time; from crossmodal.data import prepare as p, sets, worker\n"
        "p.FLUSH_ROWS = 4\n"
        "run = worker.run\n"
        "worker.run = lambda job: (time.sleep(0.03), run(job))[1]\n"  # slow enough to be caught in the act
        "options = p.PrepareOptions(features=('waveform', 'pitch'), workers=1, ratios=None)\n"
        "print(p.prepare(sets.manifest('folder', sys.argv[1]), sys.argv[2], options).processed)\n"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "out")]
    done_before = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while process.poll() is None and _journal_lines(tmp_path / "out") < done_before + 8:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done_before = _journal_lines(tmp_path / "out")
        assert 8 <= done_before < 60
    left = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < left <= 60 - done_before + 4  # what was flushed is not done again
    manifest = sets.manifest("folder", data)
    prepare(manifest, tmp_path / "whole", PrepareOptions(features=("waveform", "pitch"), workers=1, ratios=None))
    for name in ("waveform", "pitch"):
        resumed, whole = (FeatureStore(tmp_path / f"{folder}/features/{name}") for folder in ("out", "whole"))
        assert set(resumed) == set(whole)
        for row_id in whole:
            np.testing.assert_array_equal(resumed[row_id], whole[row_id])
    assert not [p for p in (tmp_path / "out").rglob(".*") if p.is_file() and p.suffix == ".parquet"]


def _journal_lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("journal-*.jsonl"))


def test_a_torn_journal_line_and_a_damaged_shard(tmp_path: Path) -> None:
    manifest = sets.manifest("folder", voices(tmp_path / "data", people=1))
    out = tmp_path / "out"
    prepare(manifest, out, AUDIO_ONLY)
    with open(out / "journal-1of1.jsonl", "a") as file:
        file.write('{"id": "folder/p0/voice/0.wav", "ke')
    assert prepare(manifest, out, AUDIO_ONLY).processed == 0
    shard = next((out / "features/waveform").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(DataError, match="delete it and prepare again"):
        prepare(manifest, out, AUDIO_ONLY)


def test_shards_of_fixed_and_changing_length(tmp_path: Path) -> None:
    for name, values in (
        ("pitch", [np.arange(3, dtype=np.float32), np.arange(0, dtype=np.float32), np.arange(5, dtype=np.float32)]),
        ("ge2e-256", [np.full(256, k, np.float32) for k in range(3)]),
    ):
        writer = FeatureWriter(tmp_path / name, feature(name))
        for k, value in enumerate(values):
            writer.add(str(k), "key", value)
        writer.flush()
        writer.add("1", "newer", values[0])
        writer.flush()
        store = FeatureStore(tmp_path / name)
        assert len(store) == 3
        assert store.keys_of["1"] == "newer"
        np.testing.assert_array_equal(store["1"], values[0])
        np.testing.assert_array_equal(store["2"], values[2])
    with pytest.raises(DataError, match="holds no features"):
        FeatureStore(tmp_path / "absent")


def test_paths_of_ids_never_collide() -> None:
    ids = ["a/b", "A/b", "a/B", "a/../b", "a/b c", "a/b_c", "a/é", "a/è", "../a", "a//b", "a/b."]
    paths = [worker.safe_path(row_id) for row_id in ids]
    assert len({str(path).lower() for path in paths}) == len(ids)
    assert not any(part in ("..", "") for path in paths for part in path.parts)


@pytest.mark.data
def test_real_features_of_real_videos(data_root: Path, tmp_path: Path) -> None:
    from crossmodal.models.speaker_encoder import SpeakerEncoder

    manifest = sets.manifest("grid", data_root / "grid_clips")
    names = ("spectrogram", "ge2e-256", "dlib-128", "chip-facenet-512")
    summary = prepare(manifest, tmp_path, PrepareOptions(features=names, workers=1, limit=2, ratios=None))
    assert (summary.usable, summary.failed) == (2, 0)
    stores = {name: FeatureStore(tmp_path / "features" / name) for name in names}
    for row in Manifest.read(tmp_path / "manifest.parquet"):
        assert stores["spectrogram"][row.id].shape == (2, 598, 257)
        assert stores["chip-facenet-512"][row.id].shape == (160, 160, 3)
        assert 1.0 < np.linalg.norm(stores["dlib-128"][row.id]) < 2.0
        from crossmodal.audio import load_speech

        embedding = SpeakerEncoder.from_package().eval().embed(load_speech(row.audio, min_seconds=0.3)).numpy()
        np.testing.assert_allclose(stores["ge2e-256"][row.id], embedding, atol=1e-4)
