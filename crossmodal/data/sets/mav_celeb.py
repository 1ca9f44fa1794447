"""MAV-Celeb (Nawaz et al. 2021; FAME challenge): faces and voices of people who speak two languages.

Layout: ``{voices,faces}/id0001/<Language>/<video>/<file>``, any folders above (``v1``, ``mavceleb_v2_train``, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, IMAGES, files, known, require

LICENCE = "MAV-Celeb: for research under the terms of the media's owners"
_PERSON = re.compile(r"^id\d{4}$")


def rows(root: Path) -> Iterator[Row]:
    """One row a clip and one a picture, of the same speaker id; ``attributes`` has ``language`` and ``video``.

    Raises:
        DataError: no folder.
    """
    root = require(Path(root), "the MAV-Celeb folder with voices and faces")
    for path in files(root, AUDIO | IMAGES):
        inside = path.relative_to(root).parts[:-1]
        place = next((i for i, name in enumerate(inside) if _PERSON.match(name)), None)
        if place is None:
            continue
        kind = "voice" if path.suffix.lower() in AUDIO else "face"
        below = inside[place + 1 :]
        yield Row(
            id="/".join(("mav_celeb", inside[place], kind, *below, path.stem)),
            corpus="mav_celeb",
            speaker=inside[place],
            audio=path if kind == "voice" else None,
            face=path if kind == "face" else None,
            attributes=known(language=below[0] if below else None, video=below[1] if len(below) > 1 else None),
            licence=LICENCE,
        )
