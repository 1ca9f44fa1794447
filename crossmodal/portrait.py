"""The photo of a face as its decoder would see it: head and hair in the decoder's frame, in the light of the drawing.

A face feature hardly holds beard, brows, folds and hair; the photo shows them. :func:`crossmodal.faces.portrait` brings
the photo into the decoder's frame by the detector's five points, :func:`relit` takes its light away; what becomes of it
is up to :class:`~crossmodal.models.appearance.Appearance`.
"""

from __future__ import annotations

import numpy as np

from crossmodal.skin import from_linear, mask, to_linear

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Of linear sRGB (Rec. 709)."""
GAIN = (0.1, 10.0)
"""Range of the factor on linear light: beyond it a photo is too dark, or too bright, to say what it shows."""


def pupils_in(pupils: np.ndarray, frame: int, size: int) -> np.ndarray:
    """Pupils ``(2, 2)`` in pixels of a frame ``frame`` pixels wide → in those of a portrait ``size`` wide."""
    return (np.asarray(pupils, dtype=np.float64) + 0.5) * size / frame - 0.5


def relit(portrait: np.ndarray, pupils: np.ndarray, skin: np.ndarray, measured: np.ndarray | None) -> np.ndarray:
    """A portrait in the light in which its skin has the colour ``skin``.

    Args:
        portrait: ``(S, S, 4)`` uint8 RGBA, see :func:`crossmodal.faces.portrait`.
        pupils: ``(2, 2)`` in it, in pixels.
        skin: ``(3,)`` colour that the skin is to have, sRGB in [0, 1].
        measured: ``(3,)`` its colour in the photo, see :func:`crossmodal.skin.measure`; ``None``, or NaN, for a picture
            without colours: only its brightness is changed.

    Returns:
        ``(S, S, 3)`` float32 sRGB in [0, 1]; NaN outside the photo, and everywhere if no skin can be seen.
    """
    known = portrait[..., 3] > 127
    linear = to_linear(portrait[..., :3] / 255.0)
    seen = mask(np.asarray(pupils, dtype=np.float64), len(portrait)) & known
    if not seen.any():
        return np.full((*known.shape, 3), np.nan, dtype=np.float32)
    wanted = to_linear(np.clip(np.asarray(skin, dtype=np.float64), 0.02, 0.98))
    gain = np.ones(3)
    if measured is not None and np.isfinite(measured).all():
        gain = wanted / np.maximum(to_linear(np.asarray(measured, dtype=np.float64)), 1e-4)
    bright = float(np.median((linear[seen] * gain) @ LUMINANCE))
    gain = gain * float(wanted @ LUMINANCE) / max(bright, 1e-4)
    result = from_linear(np.clip(linear * np.clip(gain, *GAIN), 0, 1)).astype(np.float32)
    result[~known] = np.nan
    return result
