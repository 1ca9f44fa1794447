"""One public data set per file: ``rows(root)`` reads its published layout and yields manifest rows, opening no media.

>>> from crossmodal.data import sets
>>> manifest = sets.manifest("arctic", "/data/cmu_arctic")             # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crossmodal.data.manifest import Manifest, Row
from crossmodal.errors import DataError

NAMES = (
    "an4",
    "arctic",
    "avspeech",
    "folder",
    "grid",
    "hq_voxceleb",
    "kathleen",
    "librispeech",
    "libritts",
    "london_faces",
    "mav_celeb",
    "vctk",
    "vggface2",
    "voxceleb1",
    "voxceleb2",
)


def preparer(name: str) -> Callable[..., Iterator[Row]]:
    """The ``rows(root, **options)`` function of data set ``name`` (``-`` and ``_`` are the same).

    Raises:
        DataError: no preparer of that name.
    """
    key = name.lower().replace("-", "_")
    if key not in NAMES:
        raise DataError(f"no data set called '{name}'", remedy=f"known: {', '.join(NAMES)}")
    return importlib.import_module(f"crossmodal.data.sets.{key}").rows


def manifest(name: str, root: str | Path, **options: Any) -> Manifest:
    """All rows of data set ``name`` below ``root``.

    Raises:
        DataError: unknown set, missing folder, or nothing in it that looks like the set.
    """
    found = Manifest(preparer(name)(Path(root), **options), root=root, metadata={"sets": [name]})
    if not len(found):
        raise DataError(
            f"holds nothing that looks like {name}", source=root, remedy="give the folder the set was unpacked to"
        )
    return found
