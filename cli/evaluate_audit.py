"""``crossmodal evaluate audit``: for whom it works worse, and how much clean speech it needs."""

from __future__ import annotations

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
    say,
    show_warnings,
)
from crossmodal.cli.held_out import (
    FACES,
    Data,
    Faces,
    Out,
    Part,
    Prepared,
    Run,
    check_leakage,
    london_people,
    need_data,
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def audit(
        prepared: Prepared = None,
        part: Part = "test",
        run: Run = None,
        data: Data = None,
        faces: Faces = FACES,
        speakers: Annotated[
            int, typer.Option(min=0, help="Most speakers (of each corpus; of a prepared set, in the sweeps); 0: all.")
        ] = 20,
        limit: Annotated[int, typer.Option(min=0, help="Most voices of a prepared set; 0 for all.")] = 0,
        sweep: Annotated[bool, typer.Option(help="Also sweep clip length, noise and sample rate.")] = True,
        out: Out = None,
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
        from crossmodal.evaluation import audit_people, face_cases
        from crossmodal.evaluation.drawing import Drawing
        from crossmodal.evaluation.report import Report, describe
        from crossmodal.face2speech import Face2Speech

        speaking = Face2Speech.from_pretrained(bundle, device=device)

        def progress(text: str) -> None:
            say(text, quiet=json)

        if prepared is not None:
            note = check_leakage(speaking.bundle, prepared, part, run)
            drawing = Drawing(speaking)
            cases = face_cases.from_prepared(drawing, prepared, part, limit=limit, progress=progress)
            cases.notes.insert(0, note)
            found, _ = audit_people.of_prepared(drawing, cases, voices=speakers, swept=sweep, progress=progress)
            title = f"Audit: {prepared.name}, {part}"
        else:
            from crossmodal.evaluation.faces import HELD_OUT

            data = need_data(data, "audit")
            drawing = Drawing(speaking)
            progress("reading the faces")
            known = london_people(faces, data)
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
        deliver(report, json=json, page=page, out=out)
