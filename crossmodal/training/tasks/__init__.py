"""The table of things that can be trained; one file each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from crossmodal.errors import ConfigError

if TYPE_CHECKING:
    from crossmodal.training.task import Task

# task → (module in this folder, class)
TABLE: dict[str, tuple[str, str]] = {
    "speaker-encoder": ("speaker_encoder", "SpeakerEncoderTask"),
    "face-encoder": ("face_encoder", "FaceEncoderTask"),
    "voice-encoder": ("voice_encoder", "VoiceEncoderTask"),
    "feature-head": ("feature_head", "FeatureHeadTask"),
    "face-decoder": ("face_decoder", "FaceDecoderTask"),
    "acoustic": ("acoustic", "AcousticTask"),
    "vocoder": ("vocoder", "VocoderTask"),
}


def task_class(name: str) -> type[Task]:
    """The task called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TABLE:
        raise ConfigError(f"no task called '{name}'", remedy=f"known tasks: {', '.join(sorted(TABLE))}")
    module, cls = TABLE[name]
    return getattr(importlib.import_module(f"crossmodal.training.tasks.{module}"), cls)
