"""``crossmodal evaluate calibration``: what cosines in the shared embedding mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import BundleOption, Device, Json, Page, check_page, deliver, say, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("calibration")
    def calibration_(
        data: Annotated[
            Path, typer.Option(envvar="CROSSMODAL_DATA", help="Folder with librispeech/ and london_faces/.")
        ],
        out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write it as YAML.")] = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Measure how alike different people, and the same person twice, are in the shared embedding."""
        show_warnings(quiet=True)
        check_page(page)
        from crossmodal.config import save_yaml
        from crossmodal.evaluation import calibration
        from crossmodal.evaluation.report import Report, describe
        from crossmodal.journey import Journey

        journey = Journey.from_pretrained(bundle, device=device)
        people = calibration.gather(journey, data)
        result = calibration.calibrate(*people)
        report = Report(
            "What a cosine means",
            calibration.figures(*people),
            curves=calibration.curves(*people),
            tables=["\n".join(calibration.table(result))],
            notes=["The faces and the voices are of different people: a face-voice pair is never of one person."],
            bundle=describe(journey.bundle),
            seed=0,
        )
        if out is not None:
            save_yaml(result, out)
            say(f"wrote {out}", quiet=json)
        deliver(report, json=json, page=page, calibration=result)
