"""``crossmodal evaluate audit``: for whom it works worse, and how much clean speech it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    Json,
    Page,
    check_folder,
    check_page,
    deliver,
    save_results,
    say,
    show_warnings,
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def audit(
        prepared: Annotated[
            Path | None,
            typer.Argument(
                help="Folder of `crossmodal prepare`, with a split; without one, the starter's held-out people.",
                show_default=False,
            ),
        ] = None,
        part: Annotated[str, typer.Option(help="Part of the split to test on.")] = "test",
        run: Annotated[
            Path | None, typer.Option(help="Run folder that the bundle comes from, to check for leakage.")
        ] = None,
        data: Annotated[
            Path | None,
            typer.Option(envvar="CROSSMODAL_DATA", help="Folder with london_faces/, librispeech/, an4/, cmu_arctic/."),
        ] = None,
        faces: Annotated[
            Path, typer.Option(help="Folder of prepared London faces; made there if it is empty (minutes).")
        ] = Path("runs/starter/faces/prepared"),
        speakers: Annotated[
            int, typer.Option(min=0, help="Most speakers (of each corpus; of a prepared set, in the sweeps); 0: all.")
        ] = 20,
        limit: Annotated[int, typer.Option(min=0, help="Most voices of a prepared set; 0 for all.")] = 0,
        sweep: Annotated[bool, typer.Option(help="Also sweep clip length, noise and sample rate.")] = True,
        out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for figures.json.")] = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Break figures down by groups of people, and sweep clip length, noise and sample rate.

        The worst group of every figure is named with n and its interval; groups of fewer than five people are listed as
        too few. Read the intervals before you read the order.
        """
        show_warnings(quiet=True)
        check_page(page)
        check_folder(out)
        from crossmodal.errors import DataError
        from crossmodal.evaluation import audit_people, face_cases, leakage
        from crossmodal.evaluation.drawing import Drawing
        from crossmodal.evaluation.report import Report, describe
        from crossmodal.face2speech import Face2Speech

        speaking = Face2Speech.from_pretrained(bundle, device=device)

        def progress(text: str) -> None:
            say(text, quiet=json)

        if prepared is not None:
            from crossmodal.data import splits
            from crossmodal.data.manifest import Manifest

            note = leakage.require(
                speaking.bundle, splits.part(Manifest.read(prepared / "manifest.parquet"), part), run
            )
            drawing = Drawing(speaking)
            cases = face_cases.from_prepared(drawing, prepared, part, limit=limit, progress=progress)
            cases.notes.insert(0, note)
            found, _ = audit_people.of_prepared(drawing, cases, voices=speakers, swept=sweep, progress=progress)
            title = f"Audit: {prepared.name}, {part}"
        else:
            from crossmodal.data.canonical_faces import Frame
            from crossmodal.data.prepared_faces import load_or_prepare
            from crossmodal.evaluation.faces import HELD_OUT

            if data is None:
                remedy = "give it by --data or CROSSMODAL_DATA, or name a folder of `crossmodal prepare`"
                raise DataError("needs the development data", source="audit", remedy=remedy)
            drawing = Drawing(speaking)
            progress("reading the faces")
            known = load_or_prepare(faces, data, Frame())
            found = audit_people.starter(
                drawing, speaking, data, known, HELD_OUT, speakers=speakers, swept=sweep, progress=progress
            )
            title = "Audit: people held out of the starter"
        report = Report(
            title,
            found.figures,
            curves=found.curves,
            tables=found.tables,
            notes=found.notes,
            bundle=describe(speaking.bundle),
            seed=0,
        )
        save_results(report, out)
        deliver(report, json=json, page=page)
