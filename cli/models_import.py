"""``crossmodal models import``: the group of everything that turns published weights into parts of a bundle."""

from __future__ import annotations

from typing import ClassVar

import typer

from crossmodal.cli.lazy import LazyGroup


class _Import(LazyGroup):
    files: ClassVar = {
        "vgg-face": "models_import_faces",
        "facenet": "models_import_faces",
        "speaker-encoder": "models_import_voices",
        "ast": "models_import_ast",
        "coqui-tts": "models_import_coqui_tts",
        "state-dict": "models_import_state",
    }


def register(group: typer.Typer) -> None:
    """Add the command group to ``crossmodal models``."""
    about = "Turn published weights that you have into parts of a bundle."
    group.add_typer(typer.Typer(cls=_Import, no_args_is_help=True, help=about), name="import")
