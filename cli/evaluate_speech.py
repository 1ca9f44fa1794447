"""``crossmodal evaluate speech``: how good the voices are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import BundleOption, Device, Json, print_json, say, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def speech(
        data: Annotated[
            Path,
            typer.Option(
                envvar="CROSSMODAL_DATA", help="Folder with cmu_arctic/, kathleen/, an4/, librispeech/, london_faces/."
            ),
        ],
        features: Annotated[
            Path, typer.Option(help="Prepared recordings (made from the data folder where missing).")
        ] = Path("runs/starter/speech/features"),
        sentences: Annotated[int, typer.Option(min=2, help="Held-out sentences for the recogniser.")] = 100,
        unseen: Annotated[int, typer.Option(min=2, help="Held-out speakers to imitate.")] = 64,
        texts: Annotated[int, typer.Option(min=1, help="Varied texts for robustness.")] = 200,
        vocoder_clips: Annotated[int, typer.Option(min=0, help="Clips for the vocoder's own table; 0 for none.")] = 60,
        out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for pictures and figures.")] = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
    ) -> None:
        """Measure intelligibility, likeness, pitch, faces' voices, speed and robustness on held-out data."""
        show_warnings(quiet=True)
        from crossmodal.data.speech_features import SpeechFeatures, prepare_features, starter_rows
        from crossmodal.evaluation.figures import as_dicts
        from crossmodal.evaluation.speech import SpeechEvaluation, SpeechOptions, table
        from crossmodal.face2speech import Face2Speech
        from crossmodal.files import atomic_write

        if (features / "index.jsonl").is_file():
            recordings = SpeechFeatures(features)
        else:
            say(f"preparing {features} (minutes to an hour)", quiet=json)
            recordings = prepare_features(starter_rows(data), features)
        options = SpeechOptions(sentences=sentences, unseen=unseen, texts=texts, vocoder_clips=vocoder_clips)
        journey = Face2Speech.from_pretrained(bundle, device=device)
        report = SpeechEvaluation(journey, recordings, data, options, say=lambda line: say(line, quiet=json)).run()
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for name, picture in report.pictures.items():
                picture.save(out / f"{name}.png")
            atomic_write(out / "figures.txt", ("\n".join(table(report)) + "\n").encode())
        if json:
            print_json(
                {"figures": as_dicts(report.figures), "failures": report.failures, "tables": report.tables}
            )
        else:
            typer.echo("\n".join(table(report)))
