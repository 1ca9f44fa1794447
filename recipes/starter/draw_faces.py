"""Draw the faces that the README and FACES.md show: one voice from high to low, hypotheses, and faces drawn again.

::

    python -m crossmodal.recipes.starter.draw_faces recipes/starter/pictures --data DIR

Everybody in them is drawn; the voices are of held-out LibriSpeech speakers, the first woman and the first man.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from crossmodal.data.prepared_voices import change_voice
from crossmodal.evaluation.voice_faces import held_out_voices
from crossmodal.provenance import save_image
from crossmodal.speech2face import Face, Speech2Face

FACTORS = (1.2, 1.1, 1.0, 0.92, 0.85, 0.77, 0.7)
"""On pitch and formants, from high to low."""
TILE = 192


def row(faces: Sequence[Face]) -> Image.Image:
    """Faces side by side."""
    sheet = Image.new("RGB", (TILE * len(faces), TILE))
    for place, face in enumerate(faces):
        sheet.paste(face.image.resize((TILE, TILE), Image.Resampling.LANCZOS), (TILE * place, 0))
    return sheet


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows of equal size below each other."""
    sheet = Image.new("RGB", (rows[0].width, TILE * len(rows)))
    for place, picture in enumerate(rows):
        sheet.paste(picture, (0, TILE * place))
    return sheet


def draw(folder: Path, data: Path) -> None:
    """Write the three pictures into ``folder``."""
    journey = Speech2Face.from_pretrained(device="cpu")
    voices = held_out_voices(data, limit=12)
    woman, man = (next(v for v in voices if v.male is male) for male in (False, True))
    rng = np.random.default_rng(0)
    lowered = [change_voice(woman.one, "shifted", factor, rng) for factor in FACTORS]
    strip = [journey(voice, sample_rate=16_000) for voice in lowered]
    hypotheses = [journey(voice.one, n=6, sample_rate=16_000) for voice in (woman, man)]
    drawn = [*hypotheses[0][:3], *hypotheses[1][:3]]
    with tempfile.TemporaryDirectory() as scratch:
        photos = [face.save(Path(scratch) / f"{place}.png") for place, face in enumerate(drawn)]
        again = [journey.reface(photo) for photo in photos]
    details = drawn[0].details
    save_image(folder / "voice_high_to_low.jpg", row(strip), details)
    save_image(folder / "hypotheses.jpg", stack([row(faces) for faces in hypotheses]), details)
    save_image(folder / "reface.jpg", stack([row(drawn), row(again)]), details)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="development data")
    options = parser.parse_args()
    draw(options.folder, options.data)


if __name__ == "__main__":
    main()
