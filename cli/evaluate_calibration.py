"""``crossmodal evaluate calibration``: what cosines in the shared embedding mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import BundleOption, Device, Json, print_json, say, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def calibration(
        data: Annotated[
            Path, typer.Option(envvar="CROSSMODAL_DATA", help="Folder with librispeech/ and london_faces/.")
        ],
        out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write it as YAML.")] = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
    ) -> None:
        """Measure how alike different people, and the same person twice, are in the shared embedding."""
        show_warnings(quiet=True)
        from crossmodal.config import save_yaml
        from crossmodal.evaluation.calibration import measure, table
        from crossmodal.journey import Journey

        result = measure(Journey.from_pretrained(bundle, device=device), data)
        if out is not None:
            save_yaml(result, out)
        if json:
            print_json(result)
        else:
            typer.echo("\n".join(table(result)))
        if out is not None:
            say(f"wrote {out}")
