"""``crossmodal evaluate``: the group of everything that measures."""

from __future__ import annotations

from typing import ClassVar

import typer

from crossmodal.cli.lazy import LazyGroup


class _Evaluate(LazyGroup):
    files: ClassVar = {
        "verification": "evaluate_verification",
        "matching": "evaluate_matching",
        "retrieval": "evaluate_retrieval",
        "faces": "evaluate_faces",
        "speech": "evaluate_speech",
        "vocoder": "evaluate_vocoder",
        "calibration": "evaluate_calibration",
        "generated-faces": "evaluate_generated_faces",
        "cycle": "evaluate_cycle",
        "audit": "evaluate_audit",
        "selfcheck": "evaluate_selfcheck",
        "leakage": "evaluate_leakage",
        "report": "evaluate_report",
    }


def register(app: typer.Typer) -> None:
    """Add the command group."""
    about = "Measure a bundle on held-out people, with n, chance level and intervals."
    app.add_typer(typer.Typer(cls=_Evaluate, no_args_is_help=True, help=about), name="evaluate")
