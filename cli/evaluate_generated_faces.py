"""``crossmodal evaluate generated-faces``: generated faces against true ones."""

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
)  # fmt: skip
from crossmodal.cli.held_out import FACES, Data, Faces, Out, Part, Prepared, Run, check_leakage, london_people


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("generated-faces")
    def generated_faces(
        prepared: Prepared = None,
        part: Part = "test",
        run: Run = None,
        route: Annotated[str, typer.Option(help="embedding, spectrogram, or auto: what the bundle has.")] = "auto",
        limit: Annotated[int, typer.Option(min=0, help="Most voices; 0 for all.")] = 0,
        data: Data = None,
        faces: Faces = FACES,
        out: Out = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Measure generated faces: likeness, retrieval, attributes, craniofacial measures, diversity.

        On prepared data the faces of the voices' owners are known, so likeness can be measured. The data of the starter
        have no true pairs: there a photo takes the voice's place, which shows what the face decoder keeps, and voices
        only show how much their faces differ.
        """
        show_warnings(quiet=True)
        check_page(page)
        check_folder(out)
        from crossmodal.errors import ConfigError
        from crossmodal.evaluation import face_cases
        from crossmodal.evaluation.drawing import Drawing
        from crossmodal.evaluation.generated_faces import diversity, measure
        from crossmodal.evaluation.report import Report, describe
        from crossmodal.journey import Journey

        if route not in ("auto", "embedding", "spectrogram"):
            raise ConfigError(f"unknown route '{route}'", source="--route", remedy="use auto, embedding or spectrogram")
        journey = Journey.from_pretrained(bundle, device=device)

        def progress(text: str) -> None:
            say(text, quiet=json)

        if prepared is not None:
            note = check_leakage(journey.bundle, prepared, part, run)
            drawing = Drawing(journey, route)  # type: ignore[arg-type]
            cases = face_cases.from_prepared(drawing, prepared, part, limit=limit, progress=progress)
            cases.notes.insert(0, note)
            title = f"Generated faces: {prepared.name}, {part}"
        else:
            from crossmodal.evaluation.faces import HELD_OUT

            drawing = Drawing(journey, route)  # type: ignore[arg-type]
            progress("reading the faces")
            cases = face_cases.from_london(drawing, london_people(faces, data), HELD_OUT)
            title = "Generated faces: photo → face, London people held out"
        found = measure(drawing, cases, progress=progress)
        if prepared is None and data is not None and (data / "librispeech").is_dir() and drawing.hypotheses:
            from crossmodal.evaluation.voice_faces import held_out_voices

            progress("drawing several faces for held-out voices")
            voices = drawing.embed([voice.one for voice in held_out_voices(data, limit=12)])
            found.figures += diversity(drawing, voices, cases.gallery.features)
        report = Report(
            title,
            found.figures,
            pictures=found.pictures,
            tables=found.tables,
            notes=found.notes,
            bundle=describe(journey.bundle),
            seed=0,
        )
        deliver(report, json=json, page=page, out=out)
