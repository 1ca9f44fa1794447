"""Face Research Lab London Set (DeBruine & Jones 2017, doi 10.6084/m9.figshare.5047666), CC BY 4.0: 102 people.

Layout: ``neutral_front/NNN_03.jpg`` and ``smiling_front/NNN_08.jpg`` (and other views, if they are there), a
Psychomorph template ``NNN_03.tem`` beside some of them, and ``london_faces_info.csv`` with age, gender and ethnicity
as the people gave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import IMAGES, files, known, read_table, require

LICENCE = "CC BY 4.0"


def rows(root: Path) -> Iterator[Row]:
    """Rows of every view; ``attributes`` holds ``gender``, ``age``, ``ethnicity``, ``view`` (the folder's name) and,
    where there is a template of landmarks, its path below ``root`` as ``template``.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the folder that holds neutral_front and london_faces_info.csv")
    table = root / "london_faces_info.csv"
    people = {row["face_id"].lstrip("X").zfill(3): row for row in read_table(table)} if table.is_file() else {}
    for face in files(root, IMAGES):
        person, separator, _ = face.stem.partition("_")
        if not separator or not person.isdigit():
            continue
        about = people.get(person.zfill(3), {})
        template = face.with_suffix(".tem")
        yield Row(
            id=f"london_faces/{person}/{face.stem}",
            corpus="london_faces",
            speaker=person,
            face=face,
            attributes=known(
                gender=about.get("face_gender") or about.get("face_sex"),
                age=about.get("face_age"),
                ethnicity=about.get("face_eth"),
                view=face.parent.name,
                template=template.relative_to(root).as_posix() if template.is_file() else None,
            ),
            licence=LICENCE,
        )
