"""Files written whole or not at all, their checksums, and the folders of installed packages."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import DependencyError, OutputError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on failure nothing is left behind.

    The temporary name keeps the suffix, so that writers that guess the format from it still work.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError("is a folder", source=path, remedy="give a file name")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist", source=path, remedy="create it first")
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", source=path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all (see :func:`atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def package_folder(package: str, *, remedy: str = "") -> Path:
    """The folder of an installed package, found without importing it: some carry weights and take seconds to import.

    Args:
        package: its import name.
        remedy: how to get it, ``pip install`` and its name if not given.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # "one.two" without "one"; no name of a package at all
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError("is not installed", source=package, remedy=remedy or f"pip install {package}")
    return Path(next(iter(spec.submodule_search_locations)))
