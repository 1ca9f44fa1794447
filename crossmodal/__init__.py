"""Faces from voices and voices for faces.

Two journeys share one embedding (the GE2E speaker space, 256-d)::

    speech → face          Speech2Face   waveform → speaker embedding → face feature → face image
    face + text → speech   Face2Speech   photo → face feature → speaker embedding; text + embedding → mel → waveform

>>> from crossmodal import Speech2Face, Face2Speech
>>> face = Speech2Face.from_pretrained()("voice.wav")                  # doctest: +SKIP
>>> face.save("face.png")                                              # doctest: +SKIP
>>> speech = Face2Speech.from_pretrained()("photo.jpg", "Good morning.")  # doctest: +SKIP
>>> speech.save("hello.wav")                                           # doctest: +SKIP

Importing this package imports neither torch nor any other heavy package; the classes load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Bundle", "Face2Speech", "Speech2Face", "__version__"]

if TYPE_CHECKING:
    from crossmodal.bundle import Bundle
    from crossmodal.face2speech import Face2Speech
    from crossmodal.speech2face import Speech2Face

_LAZY = {"Speech2Face": "speech2face", "Face2Speech": "face2speech", "Bundle": "bundle"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"crossmodal.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'crossmodal' has no attribute '{name}'")
