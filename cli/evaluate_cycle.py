"""``crossmodal evaluate cycle``: face → speech → face and speech → face → speech."""

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
    def cycle(
        prepared: Prepared = None,
        part: Part = "test",
        run: Run = None,
        data: Data = None,
        faces: Faces = FACES,
        speakers: Annotated[int, typer.Option(min=0, help="Most speakers (of each corpus); 0 for all.")] = 0,
        out: Out = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Measure what a round trip keeps: a face given a voice given a face, and a voice given a face given a voice.

        Each cosine stands beside that to other people, each top-1 beside chance and beside knowing only the gender.
        """
        show_warnings(quiet=True)
        check_page(page)
        check_folder(out)
        from crossmodal.evaluation import cycle_people, face_cases
        from crossmodal.evaluation.cycle import measure
        from crossmodal.evaluation.drawing import Drawing
        from crossmodal.evaluation.report import Report, describe
        from crossmodal.face2speech import Face2Speech

        speaking = Face2Speech.from_pretrained(bundle, device=device)

        def progress(text: str) -> None:
            say(text, quiet=json)

        if prepared is not None:
            note = check_leakage(speaking.bundle, prepared, part, run)
            drawing = Drawing(speaking)
            cases = face_cases.from_prepared(drawing, prepared, part, limit=speakers, progress=progress)
            people = cycle_people.from_prepared(drawing, prepared, cases, part, progress=progress)
            people.notes.insert(0, note)
            title = f"Round trips: {prepared.name}, {part}"
        else:
            from crossmodal.evaluation.faces import HELD_OUT

            data = need_data(data, "cycle")
            drawing = Drawing(speaking)
            progress("reading the faces")
            known = london_people(faces, data)
            people = cycle_people.from_starter(drawing, data, known, HELD_OUT, speakers=speakers, progress=progress)
            title = "Round trips: people held out of the starter"
        found = measure(
            drawing,
            speaking,
            people.faces,
            people.voices,
            face_probe=people.face_probe,
            voice_probe=people.voice_probe,
            progress=progress,
        )
        probes = [probe.accuracy for probe in (people.face_probe, people.voice_probe) if probe is not None]
        report = Report(
            title,
            found.figures + probes,
            pictures=found.pictures,
            sounds=found.sounds,
            recordings=found.recordings,
            notes=people.notes + found.notes,
            bundle=describe(speaking.bundle),
            seed=0,
        )
        deliver(report, json=json, page=page, out=out)
