"""HQ-VoxCeleb (Bai et al. 2022): normalised face pictures of 3,638 people of VoxCeleb1 and 2.

Layout: ``{vox1,vox2}/masked_faces/<person>/*.jpg``, where the person is a name (``A.J._Buckley``) or a VoxCeleb id.
Copies of the set differ in the folder between (``masked_faces``, ``faces``, ...) or leave it out; any is accepted, and
so is a set without the ``vox1``, ``vox2`` level.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.names import normalise_name
from crossmodal.data.sets.layout import IMAGES, files, known, require
from crossmodal.data.sets.voxceleb import people_table

LICENCE = "HQ-VoxCeleb: for research under the terms of VoxCeleb"
_PERSON = re.compile(r"^id\d{5}$")


def rows(root: Path) -> Iterator[Row]:
    """One row a picture; ``attributes`` has ``name`` and, as far as folder or tables (``vox1_meta.csv``,
    ``vox2_meta.csv``) tell, ``voxceleb`` (the id there), ``gender`` and ``nationality``.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the HQ-VoxCeleb folder with vox1 and vox2")
    people = {**people_table(root, "vox1_meta.csv"), **people_table(root, "vox2_meta.csv")}
    by_name = {normalise_name(about["name"]): person for person, about in people.items() if "name" in about}
    for face in files(root, IMAGES):
        inside = face.relative_to(root).parts[:-1]
        if not inside:
            continue
        folder = inside[-1]
        voxceleb = folder if _PERSON.match(folder) else by_name.get(normalise_name(folder))
        about = people.get(voxceleb or "", {})
        name = about.get("name") or ("" if _PERSON.match(folder) else folder.replace("_", " "))
        yield Row(
            id=f"hq_voxceleb/{folder}/{face.stem}",
            corpus="hq_voxceleb",
            speaker=folder,
            face=face,
            attributes=known(
                name=name,
                voxceleb=voxceleb,
                gender=about.get("gender"),
                nationality=about.get("nationality"),
                part=inside[0] if inside[0] in ("vox1", "vox2") else None,
            ),
            licence=LICENCE,
        )
