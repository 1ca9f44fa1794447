"""A run that is killed and started again is the same, to the bit, as one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossmodal.training.checkpoints import find
from crossmodal.training.logging import read_log

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(600)
def test_ten_kills_change_no_bit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.resume_driver", str(tmp_path), "10"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert len(kills) == 10
    assert len(set(kills)) == 10

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    clock = {"steps_per_second", "samples_per_second"}
    for kind, count in (("train", 120), ("validation", 8)):
        expected = [{k: v for k, v in e.items() if k not in clock} for e in read_log(whole, kind)]
        actual = [{k: v for k, v in e.items() if k not in clock} for e in read_log(killed, kind)]
        assert len(expected) == count
        assert actual == expected
    assert len({e["generator/loss"] for e in read_log(whole)}) == 120

    one, other = find(whole, "last"), find(killed, "last")
    assert one.step == other.step == 120
    for name in ("modules", "ema", "optimiser-discriminator", "optimiser-generator"):
        expected_tensors, actual_tensors = one.tensors(name), other.tensors(name)
        assert expected_tensors.keys() == actual_tensors.keys()
        assert all(torch.equal(actual_tensors[key], value) for key, value in expected_tensors.items())
    for key in ("position", "best", "stale", "usual_loss", "optimisers"):
        assert other.state[key] == one.state[key]
    assert find(whole).step == find(killed).step
