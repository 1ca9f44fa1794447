"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys

import pytest

from crossmodal.errors import DependencyError, OutputError
from crossmodal.files import atomic_path, atomic_write, package_folder, sha256


def test_write_and_checksum(tmp_path):
    atomic_write(tmp_path / "a.bin", b"hello")
    assert (tmp_path / "a.bin").read_bytes() == b"hello"
    assert sha256(tmp_path / "a.bin") == hashlib.sha256(b"hello").hexdigest()
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="boom"), atomic_path(target) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        raise ValueError("boom")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_full_disk_is_an_output_error(tmp_path):
    target = tmp_path / "a.wav"
    with pytest.raises(OutputError, match="No space left"), atomic_path(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_missing_folder_and_folder_as_file(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        atomic_write(tmp_path / "no" / "a", b"")
    with pytest.raises(OutputError, match="is a folder"):
        atomic_write(tmp_path, b"")


def test_packages_are_found_without_importing_them():
    code = (
        "import sys; from crossmodal.files import package_folder\n"
        "print(package_folder('torch').name, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["torch", "False"]
    for name in ("no_such_package", "no_such_package.part", "os", "", ".relative"):
        with pytest.raises(DependencyError, match="is not installed: pip install"):
            package_folder(name)
