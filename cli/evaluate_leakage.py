"""``crossmodal evaluate leakage``: may a trained run be tested on this data?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import Json, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def leakage(
        run: Annotated[Path, typer.Argument(help="Run folder of `crossmodal train`, or one of its checkpoints.")],
        prepared: Annotated[Path, typer.Argument(help="Folder of `crossmodal prepare`, with a split.")],
        part: Annotated[str, typer.Option(help="Part of the split to test on.")] = "test",
        json: Json = False,
    ) -> None:
        """Refuse to test a run on people it was trained on, or on the test list of another protocol.

        Exit code 0 if the run may be tested there, 1 with the reason if not: put it before your own evaluation.
        """
        from crossmodal.data import splits
        from crossmodal.data.manifest import Manifest
        from crossmodal.training.checkpoints import find

        checkpoint = find(run)
        test = splits.part(Manifest.read(prepared / "manifest.parquet"), part)
        splits.require_protocol(checkpoint.state.get("protocol"), test, source=checkpoint.folder)
        if json:
            print_json({"allowed": True, "checkpoint": checkpoint.folder, "rows": len(test.rows)})
        else:
            typer.echo(f"{checkpoint.folder} may be tested on the {len(test.rows)} rows of '{part}' in {prepared}")
