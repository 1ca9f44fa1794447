"""``crossmodal evaluate vocoder``: copy-synthesis beside Griffin–Lim."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import BundleOption, Json, Page, check_page, deliver, say, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def vocoder(
        features: Annotated[
            Path, typer.Option(help="Prepared recordings, see `python -m crossmodal.data.speech_features`.")
        ] = Path("runs/starter/speech/features"),
        weights: Annotated[
            Path | None, typer.Option(help="A vocoder.safetensors with its vocoder.yaml, instead of a bundle.")
        ] = None,
        clips: Annotated[int, typer.Option(min=1, help="Held-out clips.")] = 52,
        seconds: Annotated[float, typer.Option(min=1.0, help="Longer clips are cut here.")] = 5.0,
        baseline: Annotated[
            list[str] | None,
            typer.Option(
                help="griffin-lim, griffin-lim-librosa or griffin-lim-torchaudio; may be given again. Default: all."
            ),
        ] = None,
        speed: Annotated[bool, typer.Option("--speed", help="Only time it, beside an untrained HiFi-GAN V1.")] = False,
        bundle: BundleOption = "starter",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Make held-out speakers' speech again from its mel and F0: PESQ, log-mel error, F0, beside Griffin–Lim."""
        show_warnings(quiet=True)
        check_page(page)
        import torch

        from crossmodal.bundle import Bundle
        from crossmodal.data.speech_features import SpeechFeatures
        from crossmodal.evaluation import vocoder as measured
        from crossmodal.evaluation.figures import figure
        from crossmodal.evaluation.report import Report, describe
        from crossmodal.models import build

        report = Report("Vocoder", seed=0)
        if weights is None:
            report.bundle = describe(Bundle.open(bundle))
        network = measured.load_vocoder(bundle, weights)
        if speed:
            systems = {"vocoder": network, "hifi-gan-v1": build("vocoder-hifigan").eval()}
            for name, factors in measured.speed(systems).items():
                report.figures.append(figure(f"real-time factor, {name}", factors))
            report.notes = [f"{torch.get_num_threads()} thread(s); the best of three runs."]
        else:
            recordings = SpeechFeatures(features)
            chosen = measured.held_out_clips(recordings, clips)
            scores = measured.evaluate_vocoder(
                network, recordings, chosen, baselines=baseline or measured.BASELINES, max_seconds=seconds,
                progress=lambda line: say(line, quiet=json),
            )  # fmt: skip
            speakers = len({recordings[i].speaker for i in chosen})
            report.figures = measured.figures(scores)
            report.tables = [measured.table(scores)]
            report.notes = [f"{len(chosen)} clips of {speakers} speakers never trained on."]
        deliver(report, json=json, page=page)
