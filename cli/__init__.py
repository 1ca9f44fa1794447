"""The command line. ``main`` is the entry point; commands import torch only when they run."""

from __future__ import annotations


def main() -> None:
    """Run the Typer app."""
    from crossmodal.cli.app import app

    app()
