"""VoxCeleb2 (Chung et al. 2018): 6,112 people, a million clips; sound as AAC, faces as cropped video.

Layout: ``dev/aac/id00012/<video>/00001.m4a`` (or ``wav``), ``dev/mp4/id00012/<video>/00001.mp4`` (224×224 face tracks,
silent or not), and ``vox2_meta.csv`` (id, VGGFace2 id, gender, set; a later edition adds the name).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets import voxceleb


def rows(root: Path) -> Iterator[Row]:
    """One row a clip, its video as the face where there is one; ``attributes`` has ``vggface2`` (the class of the same
    person in VGGFace2), ``gender``, ``video``, ``part`` and, if the table has it, ``name``.

    Raises:
        DataError: no folder.
    """
    yield from voxceleb.rows(root, "voxceleb2", "vox2_meta.csv")
