"""Pictures for the report on faces: photos above what was drawn from them, and faces drawn for voices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from crossmodal.evaluation.faces import PhotoResult, decode
from crossmodal.pictures import contact_sheet

if TYPE_CHECKING:
    from crossmodal.evaluation.voice_faces import HeldOutVoice
    from crossmodal.models.face_decoder import FaceDecoder

TILE = 160


def photo_sheet(data: Path, result: PhotoResult, *, view: int = 0, most: int = 10) -> Image.Image:
    """Photos of the first people of ``result`` above the faces drawn from them."""
    pattern = ("neutral_front/{}_03.jpg", "smiling_front/{}_08.jpg")[view]
    people = result.people[:most]
    photos = []
    for person in people:
        with Image.open(data / "london_faces" / pattern.format(person)) as photo:
            photos.append(photo.convert("RGB"))
    drawn = [Image.fromarray(image) for image in result.images[:most]]
    captions = [f"photo {p}" for p in people] + [f"drawn from {p}" for p in people]
    return contact_sheet(photos + drawn, captions, columns=len(people), tile=TILE)


@torch.no_grad()
def voice_sheet(
    faces_of: Callable[[np.ndarray, int], np.ndarray],
    decoder: FaceDecoder,
    voices: Sequence[HeldOutVoice],
    *,
    each: int = 3,
) -> Image.Image:
    """Faces drawn for ``each`` women's and men's voices, a row a voice; the first is the most likely.

    Args:
        faces_of: waveform ``(T,)`` and seed → features ``(H, D)``, as many for each voice.
        decoder: face feature → face.
        voices: see :func:`crossmodal.evaluation.voice_faces.held_out_voices`.
        each: voices of women, and of men.
    """
    chosen = [v for male in (False, True) for v in [v for v in voices if v.male == male][:each]]
    images, captions, columns = [], [], 1
    for i, voice in enumerate(chosen):
        features = faces_of(voice.one, i)
        columns = len(features)
        styles = decoder.draw_styles(torch.from_numpy(features).float(), torch.Generator().manual_seed(i))
        images += [Image.fromarray(image) for image in decode(decoder, features, styles=styles)[2]]
        captions += [f"{voice.speaker} ({'man' if voice.male else 'woman'})", *["or"] * (columns - 1)]
    return contact_sheet(images, captions, columns=columns, tile=TILE)
