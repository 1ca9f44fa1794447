"""Shared fixtures: the folder of openly licensed development data, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DATA = Path(os.environ.get("CROSSMODAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The development data; tests that ask for it are skipped, with a reason, where it is absent."""
    if not (_DATA / "london_faces").is_dir():
        pytest.skip(f"no development data in {_DATA} (set CROSSMODAL_DATA)")
    return _DATA


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests share a small machine; results must not depend on the number of threads."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
