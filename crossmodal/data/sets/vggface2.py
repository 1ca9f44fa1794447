"""VGGFace2 (Cao et al. 2018): 9,131 people, 3.3 million pictures from the web.

Layout: ``{train,test}/n000001/0001_01.jpg`` (picture, face) and ``identity_meta.csv`` (class, name, pictures, part,
gender), at the top or in ``meta/``. The name's blanks are underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import IMAGES, files, known, read_table, require

LICENCE = "VGGFace2: for research under the terms of the pictures' owners"
_CLASS = re.compile(r"^n\d{6}$")


def rows(root: Path) -> Iterator[Row]:
    """One row a picture; ``attributes`` has ``name``, ``gender`` and ``part``.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the VGGFace2 folder with train, test and identity_meta.csv")
    tables = [root / "identity_meta.csv", root / "meta" / "identity_meta.csv", root.parent / "identity_meta.csv"]
    table = next((path for path in tables if path.is_file()), None)
    people = {row.get("class_id", ""): row for row in read_table(table)} if table else {}
    for face in files(root, IMAGES):
        if not _CLASS.match(face.parent.name):
            continue
        person = face.parent.name
        about = people.get(person, {})
        folder = face.parent.parent.name
        flag = {"1": "train", "0": "test"}.get(about.get("flag", ""))
        yield Row(
            id=f"vggface2/{person}/{face.stem}",
            corpus="vggface2",
            speaker=person,
            face=face,
            attributes=known(
                name=about.get("name", "").strip("\"'").replace("_", " "),
                gender=about.get("gender"),
                part=folder if folder in ("train", "test") else flag,
            ),
            licence=LICENCE,
        )
