"""VoxCeleb1 (Nagrani et al. 2017): 1,251 people, 153,516 clips cut from YouTube interviews.

Layout: ``[dev|test/]wav/id10001/<video>/00001.wav``, ``vox1_meta.csv`` (tabs: id, VGGFace1 name, gender, nationality,
set), and, where the frames were fetched, ``unzippedFaces/<Name>/[1.6/]<video>/0000375.jpg``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets import voxceleb


def rows(root: Path) -> Iterator[Row]:
    """One row a clip with sound, then one row a frame; ``attributes`` has ``name``, ``gender``, ``nationality``,
    ``video`` and ``part`` (``dev``, ``test``).

    Raises:
        DataError: no folder.
    """
    yield from voxceleb.rows(root, "voxceleb1", "vox1_meta.csv")
