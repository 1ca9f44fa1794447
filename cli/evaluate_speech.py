"""``crossmodal evaluate speech``: how good the voices are."""

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
    say,
    show_warnings,
)
from crossmodal.cli.held_out import Out


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
        whisper: Annotated[
            Path | None, typer.Option(help="Folder of a Whisper model (Hugging Face, safetensors): listens too.")
        ] = None,
        utmos: Annotated[
            Path | None, typer.Option(help="UTMOS as an ONNX file: waveform (1, T) at 16 kHz to score.")
        ] = None,
        out: Out = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Measure intelligibility, distance to recordings, likeness, pitch, faces' voices, speed and robustness.

        Word error rates by pocketsphinx, and by Whisper where you have one; mel-cepstral distortion, F0 and timing
        against recordings of the same sentences; likeness of unseen speakers; everything on held-out data.
        """
        show_warnings(quiet=True)
        check_page(page)
        check_folder(out)
        from crossmodal.data.speech_features import SpeechFeatures, prepare_features, starter_rows
        from crossmodal.evaluation.speech import SpeechEvaluation, SpeechOptions
        from crossmodal.face2speech import Face2Speech

        recordings = SpeechFeatures(features) if (features / "index.jsonl").is_file() else None
        if recordings is None or not recordings.complete:  # never begun, or interrupted
            say(f"preparing {features} (minutes to an hour)", quiet=json)
            recordings = prepare_features(starter_rows(data), features)
        options = SpeechOptions(sentences=sentences, unseen=unseen, texts=texts, whisper=whisper, utmos=utmos)
        journey = Face2Speech.from_pretrained(bundle, device=device)
        evaluation = SpeechEvaluation(journey, recordings, data, options, say=lambda line: say(line, quiet=json))
        deliver(evaluation.run(), json=json, page=page, out=out, failures=evaluation.failures)
