"""Two processes give what one process gives on the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossmodal.training.checkpoints import find
from crossmodal.training.logging import read_log
from tests import ddp_driver

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that two processes made."""
    folder = tmp_path_factory.mktemp("two")
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ddp_driver", str(folder)],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", list(ddp_driver.CASES))
def test_two_processes_match_one(case: str, two: Path, tmp_path: Path) -> None:
    ddp_driver.train(case, tmp_path)
    expected, actual = read_log(tmp_path), read_log(two / case)
    assert len(expected) == len(actual) == (16 if case == "sharded" else 12)
    names = [n for n in expected[0] if n.endswith(("loss", "gradient_norm"))]
    for one, other in zip(expected, actual, strict=True):
        for name in names:
            assert other[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5)
    for one, other in zip(read_log(tmp_path, "validation"), read_log(two / case, "validation"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)
    one_end, other_end = find(tmp_path, "last"), find(two / case, "last")
    for kind in ("modules", "ema"):
        expected_tensors, actual_tensors = one_end.tensors(kind), other_end.tensors(kind)
        assert expected_tensors.keys() == actual_tensors.keys()
        for name, value in expected_tensors.items():
            torch.testing.assert_close(actual_tensors[name], value, rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_batch_are_equal() -> None:
    from crossmodal.errors import ConfigError
    from crossmodal.training.loading import share

    batch = list(range(12))
    assert [share(batch, rank, 3) for rank in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(ConfigError, match="multiple of 5"):
        share(batch, 0, 5)
