"""Contact sheets and pictures of sound."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from crossmodal.pictures import contact_sheet, spectrogram_picture, waveform_picture


def test_contact_sheet_places_every_image():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = contact_sheet([Image.new("RGB", (40, 80), c) for c in colours], ["a", "b", "c" * 200], columns=2, tile=64)
    pixels = np.asarray(sheet).reshape(-1, 3)
    assert all((pixels == c).all(axis=1).sum() > 1000 for c in colours)
    with pytest.raises(ValueError, match="2 captions"):
        contact_sheet([sheet], ["a", "b"])


def test_spectrogram_is_loud_where_the_sound_is():
    mel = np.full((100, 50), -11.0, np.float32)
    mel[20:30, 10:20] = 0.0
    pixels = np.asarray(spectrogram_picture(mel, np.full(50, 250.0), size=(500, 200))).astype(int).sum(axis=-1)
    inside, outside = pixels[150:155, 120:180].mean(), pixels[20:60, 300:400].mean()
    assert inside > 3 * outside
    assert pixels[100, 400] > 2 * outside  # F0 of 250 Hz is drawn in the middle


def test_waveform_height_follows_amplitude():
    quiet, loud = (np.asarray(waveform_picture(a * np.sin(np.arange(8000) / 5))) for a in (0.1, 0.9))
    assert (loud < 200).any(axis=-1).sum() > 5 * (quiet < 200).any(axis=-1).sum()
