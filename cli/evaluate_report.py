"""``crossmodal evaluate report``: saved results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import Json, check_page, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        results: Annotated[list[Path], typer.Argument(help="JSON files of `crossmodal evaluate … --json`.")],
        out: Annotated[Path, typer.Option("--out", "-o", help="HTML page to write.")] = Path("report.html"),
        title: Annotated[str, typer.Option(help="Heading of the page.")] = "Evaluation",
        json: Json = False,
    ) -> None:
        """Put saved results of several evaluations on one self-contained HTML page.

        Pictures and sounds are not part of saved results: `--report` of each command shows those.
        """
        from crossmodal.evaluation.report import read_report, write_report

        check_page(out)
        page = write_report(out, *map(read_report, results), title=title)
        if json:
            print_json({"page": page, "results": len(results)})
        else:
            say(f"wrote {page}")
