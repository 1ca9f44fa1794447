"""The command line. ``main`` is the entry point; commands import torch only when they run."""

from __future__ import annotations


def main() -> None:
    """Run the Typer app."""
    import gc
    import sys

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows ? instead of an error
    gc.set_threshold(10_000)  # importing torch makes a million objects that stay: look less often for garbage
    from crossmodal.cli.app import app

    app()
