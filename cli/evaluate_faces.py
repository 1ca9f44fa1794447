"""``crossmodal evaluate faces``: the faces of a bundle, on people and speakers it has not met."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from crossmodal.cli.common import BundleOption, Json, Page, Quiet, check_page, deliver, say, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def faces(
        data: Annotated[
            Path,
            typer.Option(envvar="CROSSMODAL_DATA", help="Folder with london_faces/, librispeech/, an4/, cmu_arctic/."),
        ],
        prepared: Annotated[
            Path, typer.Option(help="Folder of prepared faces; made there if it is empty (minutes).")
        ] = Path("runs/starter/faces/prepared"),
        only: Annotated[
            str, typer.Option(help="Only 'photos', 'conditions' (small, dark, turned ... photos; video) or 'voices'.")
        ] = "",
        speakers: Annotated[int, typer.Option(min=0, help="Most speakers of each corpus; 0 for all held out.")] = 0,
        route: Annotated[
            Literal["auto", "embedding", "spectrogram"],
            typer.Option(
                help="Of the voices: embedding, spectrogram (the published Speech2Face route), or what the bundle has."
            ),
        ] = "auto",
        source: Annotated[
            Literal["photo", "feature"],
            typer.Option(
                help="Draw photos as reface does, or from the face feature alone (no skin colour or looks of the "
                "photo, no refinement): how decoders compare."
            ),
        ] = "photo",
        bundle: BundleOption = "starter",
        page: Page = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Measure photo → face, also in bad photos, and voice → face on held-out people.

        Each figure comes with n, a reference and a 95 % interval.
        """
        show_warnings(quiet=True)
        check_page(page)
        from crossmodal.errors import ConfigError

        if only not in ("", "photos", "conditions", "voices"):
            raise ConfigError(f"'{only}' is not a part", source="--only", remedy="use photos, conditions or voices")
        from crossmodal.evaluation.faces import evaluate

        report = evaluate(
            bundle,
            data,
            prepared,
            only=only,
            speakers=speakers,
            route=route,
            source=source,
            progress=lambda text: say(text, quiet=quiet or json),
        )
        deliver(report, json=json, page=page)
