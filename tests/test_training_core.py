"""The training loop: order, settings, checkpoints, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crossmodal.errors import CheckpointError, ConfigError, DataError, OutputError, TrainingError
from crossmodal.training import checkpoints, schedules
from crossmodal.training.checkpoints import Store, find
from crossmodal.training.config import OptimiserConfig, ScheduleConfig, TrainerConfig
from crossmodal.training.core import fit
from crossmodal.training.ema import Ema
from crossmodal.training.loading import train_batches, train_stream
from crossmodal.training.logging import read_log
from tests.toy_task import AdversarialToyTask, ToyConfig, ToyData, ToyTask

CONFIG = TrainerConfig(
    batch_size=8, steps=12, optimiser=OptimiserConfig(lr=0.01), validate_every=6, save_every=4, log_every=1
)


@pytest.fixture(autouse=True)
def _fixed_start() -> None:
    torch.manual_seed(0)


def losses(folder: Path) -> list[float]:
    """The logged training losses."""
    return [entry["loss"] for entry in read_log(folder)]


# ---------------------------------------------------------------------------------------------------------- arithmetic


def test_the_loop_does_what_plain_torch_does(tmp_path: Path) -> None:
    """Against the same steps written out: AdamW, accumulation, clipping, warm-up, average of the weights."""
    settings = ToyConfig(dropout=0.0, norm="layer")
    config = replace(CONFIG, steps=6, accumulate=2, clip=0.5, ema=0.9, schedule=ScheduleConfig(warmup=3))
    task, twin = ToyTask(settings), ToyTask(settings)
    twin.modules.load_state_dict(task.modules.state_dict())

    net = twin.modules
    adam = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.0)
    average = {k: v.clone() for k, v in net.state_dict().items()}
    data = twin.dataset("train")
    stream = train_stream(twin, data, train_batches(twin, data, config), config, (0, 0), 0, 1)
    expected = []
    for step in range(6):
        adam.zero_grad()
        both = [next(stream)[1] for _ in range(2)]
        mean = sum(twin.loss("main", batch, step)["loss"] for batch in both) / 2
        mean.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        adam.param_groups[0]["lr"] = 0.01 * min(1, (step + 1) / 3)
        adam.step()
        expected.append(float(mean.detach()))
        decay = min(0.9, (2 + step) / (11 + step))
        average = {k: decay * average[k] + (1 - decay) * v for k, v in net.state_dict().items()}

    fit(task, replace(config, validate_every=0), tmp_path)
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-6)
    for name, value in task.modules.state_dict().items():
        torch.testing.assert_close(value, average[name])
    assert not task.modules.training


def test_schedules_follow_their_formulas() -> None:
    step = ScheduleConfig(name="step")
    assert [schedules.factor(step, s, 0) for s in (0, 9_999, 10_000, 25_000)] == [1, 1, 0.95, 0.95**2]
    cosine = ScheduleConfig(name="cosine", warmup=10, floor=0.1)
    assert schedules.factor(cosine, 4, 0.0) == pytest.approx(0.5)
    assert schedules.factor(cosine, 50, 0.5) == pytest.approx(0.1 + 0.9 / 2)
    assert schedules.factor(cosine, 100, 1.0) == pytest.approx(0.1)
    assert schedules.factor(ScheduleConfig(), 10**6, 1.0) == 1


def test_groups_keep_their_own_rates() -> None:
    one, other, frozen = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    frozen.requires_grad_(False)
    adam = schedules.optimiser([one, {"params": [other], "lr": 0.1}, frozen], OptimiserConfig(lr=0.01))
    schedules.set_rates([adam], 0.5)
    assert [g["lr"] for g in adam.param_groups] == [0.005, 0.05]
    assert sum(len(g["params"]) for g in adam.param_groups) == 2
    with pytest.raises(ConfigError, match="no parameter"):
        schedules.optimiser([frozen], OptimiserConfig())


def test_a_phase_moves_only_its_own_parameters(tmp_path: Path) -> None:
    task = AdversarialToyTask(ToyConfig())
    before = {k: v.clone() for k, v in task.modules.state_dict().items()}
    still = {"discriminator": OptimiserConfig(name="sgd", lr=0.0)}
    fit(task, replace(CONFIG, optimisers=still, validate_every=0), tmp_path)
    moved = {k for k, v in task.modules.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("net") for k in moved)
    assert not any(k.startswith("judge") for k in moved)
    assert {"discriminator/loss", "generator/loss", "generator/gradient_norm"} <= read_log(tmp_path)[0].keys()


def test_average_is_swapped_in_and_out() -> None:
    modules = nn.ModuleDict({"net": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))})
    ema = Ema(modules, 0.5)
    start = {k: v.clone() for k, v in modules.state_dict().items()}
    with torch.no_grad():
        for p in modules.parameters():
            p += 1
    ema.update(1000)
    own = {k: v.clone() for k, v in modules.state_dict().items()}
    with ema.swapped_in():
        torch.testing.assert_close(modules["net"][0].weight, start["net.0.weight"] + 0.5)
    assert all(torch.equal(v, own[k]) for k, v in modules.state_dict().items())


# ---------------------------------------------------------------------------------------------------- order of the data


def test_workers_change_nothing(tmp_path: Path) -> None:
    for workers in (0, 2):
        torch.manual_seed(0)
        fit(ToyTask(ToyConfig()), replace(CONFIG, workers=workers), tmp_path / str(workers))
    assert losses(tmp_path / "0") == losses(tmp_path / "2")


def test_stream_goes_on_anywhere_and_uses_each_example_once_an_epoch() -> None:
    task = ToyTask(ToyConfig())
    data = task.dataset("train")
    config = replace(CONFIG, seed=5)

    def take(position: tuple[int, int], count: int) -> list[Any]:
        stream = train_stream(task, data, train_batches(task, data, config), config, position, 0, 1)
        return [next(stream) for _ in range(count)]

    whole = take((0, 0), 12)  # 5 batches an epoch
    assert [position for position, _ in whole][3:7] == [(0, 4), (0, 5), (1, 1), (1, 2)]
    for start in (1, 4, 5, 8):
        for (at, batch), (expected_at, expected) in zip(take(whole[start - 1][0], 3), whole[start : start + 3]):
            assert at == expected_at
            assert batch["id"] == expected["id"]
            assert torch.equal(batch["x"], expected["x"])
    epochs = [[i for _, batch in whole[e : e + 5] for i in batch["id"]] for e in (0, 5)]
    assert len(set(epochs[0])) == 40
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    first, again = ({i: x for _, b in whole[e : e + 5] for i, x in zip(b["id"], b["x"])}["example-0"] for e in (0, 5))
    assert not torch.equal(first, again)  # a new crop each epoch


# -------------------------------------------------------------------------------------------------------- how runs end


def test_stops_by_the_clock_and_says_so(tmp_path: Path) -> None:
    result = fit(ToyTask(ToyConfig()), replace(CONFIG, steps=0, minutes=0.01), tmp_path)
    assert result.reason == "minutes"
    assert result.step > 0
    assert result.seconds >= 0.6
    again = fit(ToyTask(ToyConfig()), replace(CONFIG, steps=0, minutes=0.01), tmp_path)
    assert again.step == result.step  # the budget was used up before


def test_patience(tmp_path: Path) -> None:
    still = OptimiserConfig(name="sgd", lr=0.0)
    settings = replace(CONFIG, optimiser=still, steps=100, validate_every=2, patience=3)
    result = fit(ToyTask(ToyConfig(norm="layer")), settings, tmp_path)
    assert (result.reason, result.step) == ("patience", 8)  # best at 2, then three validations without improvement
    assert result.checkpoint.name == "step-00000002"


def test_sigterm_saves_and_goes_on_later(tmp_path: Path) -> None:
    class Stopped(ToyTask):
        def loss(self, phase: str, batch: Any, step: int) -> Any:
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(phase, batch, step)

    torch.manual_seed(0)
    result = fit(Stopped(ToyConfig()), CONFIG, tmp_path / "stopped")
    assert (result.reason, result.step) == ("interrupted", 6)
    torch.manual_seed(1)
    assert fit(ToyTask(ToyConfig()), CONFIG, tmp_path / "stopped").step == 12
    torch.manual_seed(0)
    fit(ToyTask(ToyConfig()), CONFIG, tmp_path / "whole")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_no_resume_starts_anew(tmp_path: Path) -> None:
    fit(ToyTask(ToyConfig()), CONFIG, tmp_path)
    first = losses(tmp_path)
    torch.manual_seed(0)
    fit(ToyTask(ToyConfig()), replace(CONFIG, steps=3), tmp_path, resume=False)
    assert losses(tmp_path) == first[:3]
    assert Store(tmp_path / "checkpoints").steps() == [3]


def test_start_from_takes_the_weights_alone(tmp_path: Path) -> None:
    first = ToyTask(ToyConfig())
    fit(first, replace(CONFIG, ema=0.5), tmp_path / "first")
    second = ToyTask(ToyConfig())
    still = OptimiserConfig(name="sgd", lr=0.0)
    config = replace(CONFIG, optimiser=still, steps=1, validate_every=0, start_from=tmp_path / "first")
    assert fit(second, config, tmp_path / "second").step == 1
    for name, value in second.modules.named_parameters():
        assert torch.equal(value, first.modules.get_parameter(name))


@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_nearly_the_same(precision: Any, tmp_path: Path) -> None:
    fit(ToyTask(ToyConfig()), replace(CONFIG, precision=precision, accelerator="cpu"), tmp_path / "half")
    torch.manual_seed(0)
    fit(ToyTask(ToyConfig()), CONFIG, tmp_path / "full")
    half, full = losses(tmp_path / "half"), losses(tmp_path / "full")
    assert half != full
    assert half == pytest.approx(full, rel=0.1)


# ------------------------------------------------------------------------------------------------- what stops a run


@pytest.mark.parametrize(
    ("settings", "steps", "message"),
    [
        (ToyConfig(bad_example=7), 12, "the loss of phase 'main' is nan"),
        (ToyConfig(scale=1e9), 12, "exploded"),
        (ToyConfig(scale=float("inf")), 12, "is inf"),
    ],
)
def test_a_bad_loss_stops_the_run_and_names_the_batch(
    settings: ToyConfig, steps: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        fit(ToyTask(settings), replace(CONFIG, steps=steps, save_every=1), tmp_path)
    (record,) = tmp_path.glob("bad-batch-*.json")
    assert str(record) in str(caught.value)
    assert "\n" not in str(caught.value)
    content = json.loads(record.read_text())
    assert len(content["ids"][0]) == 8
    if settings.bad_example >= 0:
        assert "example-7" in content["ids"][0]
    last = find(tmp_path, "last")  # of before the bad step
    assert last.step == content["step"]
    assert all(torch.isfinite(v).all() for v in last.tensors("modules").values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 41}, "batch_size 41 is larger than the 40 training examples"),
        ({"optimisers": {"generater": OptimiserConfig()}}, "unknown phase 'generater'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(ToyTask(ToyConfig()), replace(CONFIG, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "values", [{}, {"steps": 5, "batch_size": 0}, {"steps": -1}, {"steps": 5, "ema": 1.0}, {"steps": 5, "clip": -1.0}]
)
def test_impossible_settings(values: Any) -> None:
    with pytest.raises(ConfigError, match="trainer"):
        TrainerConfig(**values)


def test_checkpoint_of_another_task_or_network_is_refused(tmp_path: Path) -> None:
    fit(ToyTask(ToyConfig()), CONFIG, tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="'toy', not of 'toy-adversarial'"):
        fit(AdversarialToyTask(ToyConfig()), CONFIG, tmp_path)
    with pytest.raises(CheckpointError, match="does not fit"):
        fit(ToyTask(ToyConfig(width=16)), CONFIG, tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


# ----------------------------------------------------------------------------------------------------- checkpoints


def state(task: str = "toy") -> dict[str, Any]:
    """As little as a checkpoint needs."""
    return {"task": task}


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=2)
    for step in range(1, 7):
        store.save(step, {"modules": {"w": torch.full((3,), float(step))}}, state())
        if step == 2:
            store.mark_best(2, 0.5)
    assert store.steps() == [2, 5, 6]
    best, latest = store.best(), store.latest()
    assert best is not None
    assert latest is not None
    assert best.tensors("modules")["w"].tolist() == [2, 2, 2]
    assert latest.step == 6


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "state"])
def test_a_damaged_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fit(ToyTask(ToyConfig()), CONFIG, tmp_path)
    expected = losses(tmp_path)
    folder = tmp_path / "checkpoints" / "step-00000012"
    weights = folder / "modules.safetensors"
    content = weights.read_bytes()
    if damage == "truncate":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "remove":
        weights.unlink()
    else:
        (folder / "state.json").write_text('{"format": 1, "st')
    with pytest.warns(UserWarning, match="is damaged.*going on from step"):
        result = fit(ToyTask(ToyConfig()), CONFIG, tmp_path)
    assert result.step == 12
    assert losses(tmp_path) == expected
    assert find(tmp_path, "last").step == 12


def test_nothing_but_damaged_checkpoints_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    fit(ToyTask(ToyConfig()), replace(CONFIG, keep=1, steps=4, validate_every=0), tmp_path)
    (tmp_path / "checkpoints" / "step-00000004" / "state.json").write_text("")
    with pytest.raises(CheckpointError, match="state.json cannot be read"):
        fit(ToyTask(ToyConfig()), CONFIG, tmp_path)


def test_a_full_disk_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.save(1, {"modules": {"w": torch.ones(3)}}, state())

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OutputError, match="No space left on device.*goes on from step 1"):
        store.save(2, {"modules": {"w": torch.zeros(3)}}, state())
    latest = store.latest()
    assert latest is not None
    assert latest.tensors("modules")["w"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("moment", ["first file", "state.json", "rename"])
def test_a_kill_in_mid_write_costs_nothing(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process, killed inside ``save``."""
    store = Store(tmp_path)
    store.save(1, {"modules": {"w": torch.ones(3)}}, state())

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        if moment == "first file":
            monkeypatch.setattr(checkpoints, "sha256", die)
        elif moment == "state.json":
            monkeypatch.setattr(checkpoints.json, "dumps", die)
        else:
            monkeypatch.setattr(checkpoints.os, "rename", die)
        store.save(2, {"modules": {"w": torch.zeros(3)}}, state())
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert len(list(tmp_path.iterdir())) == 2  # the good one, and what the kill left behind
    latest = store.latest()
    assert latest is not None
    assert latest.step == 1
    store.save(2, {"modules": {"w": torch.zeros(3)}}, state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    fit(AdversarialToyTask(ToyConfig()), replace(CONFIG, ema=0.9), tmp_path)
    files = {p.name for p in (tmp_path / "checkpoints" / "step-00000012").iterdir()}
    assert files == {
        "modules.safetensors",
        "ema.safetensors",
        "optimiser-discriminator.safetensors",
        "optimiser-generator.safetensors",
        "state.json",
    }


# --------------------------------------------------------------------------------------------------- smaller promises


class _Broken(ToyTask):
    """One example's file has gone."""

    def dataset(self, split: str) -> Any:
        class Data(ToyData):
            def __getitem__(self, index: int) -> dict[str, Any]:
                if index == 11:
                    raise DataError("the file is missing", source="clip-11.wav")
                return super().__getitem__(index)

        return Data(self.config, 40 if split == "train" else 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_that_fails_is_one_line(workers: int, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fit(_Broken(ToyConfig()), replace(CONFIG, workers=workers), tmp_path)
    assert str(caught.value) == "clip-11.wav: the file is missing"


def test_no_validation_batch_is_an_error(tmp_path: Path) -> None:
    class Empty(ToyTask):
        def sampler(self, dataset: Any, batch_size: int, seed: int) -> Any:
            return [] if len(dataset) == 12 else None

    with pytest.raises(ConfigError, match="12 held-out examples do not fill one validation batch"):
        fit(Empty(ToyConfig()), CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_visuals_go_to_tensorboard(tmp_path: Path) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Seen(ToyTask):
        def visuals(self, batch: Any) -> dict[str, Any]:
            assert not self.modules.training
            return {"face": Image.new("RGB", (8, 8), (255, 0, 0)), "voice": (torch.zeros(800), 16_000)}

    fit(Seen(ToyConfig()), CONFIG, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert tags["images"] == ["face"]
    assert tags["audio"] == ["voice"]
    assert {"train/loss", "validation/loss", "train/steps_per_second"} <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 13))
