"""``crossmodal reface``: photo → face feature → canonical face."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    FaceIndex,
    Json,
    NoDetect,
    Quiet,
    check_output,
    print_json,
    say,
    show_warnings,
    working,
    write_output,
)
from crossmodal.cli.face import PICTURES


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def reface(
        photo: Annotated[
            str, typer.Argument(help="Photo of a face (JPEG, PNG, WebP, HEIC…), or - for standard input.")
        ],
        out: Annotated[
            str, typer.Option("--out", "-o", help="Picture to write; - for standard output.")
        ] = "reface.png",
        face_index: FaceIndex = None,
        no_detect: NoDetect = False,
        skin: Annotated[
            Literal["photo", "feature"],
            typer.Option(
                help="Colour of the skin: measured in the photo (coloured and dim light is discounted), or what the "
                "face feature suggests, which is further off but the same in any light."
            ),
        ] = "photo",
        looks: Annotated[
            Literal["photo", "feature"],
            typer.Option(
                help="Beard, brows, folds and hair: as the photo shows them (what no face explains, such as glasses, "
                "is left out), or what the face feature suggests, which hardly holds them."
            ),
        ] = "photo",
        refine: Annotated[
            int,
            typer.Option(
                min=0,
                max=100,
                help="Steps that bring what face recognition sees in the drawn face nearer to what it sees in the "
                "photo; 0 draws at once what the face feature gives.",
            ),
        ] = 5,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Draw the frontal, neutral face that a photo's face feature describes.

        It shows what the face decoder knows of a face: a relative of the person, not a copy of the photo.

        What a face feature hardly holds (skin colour, beard, brows, hair) comes from the photo itself;
        with --skin feature --looks feature and --refine 0 the feature alone is drawn.
        """
        show_warnings(quiet)
        check_output(out, PICTURES, json=json)
        with working("drawing", quiet=quiet):
            from crossmodal.speech2face import Speech2Face

            journey = Speech2Face.from_pretrained(bundle, device=device)
            face = journey.reface(photo, index=face_index, no_detect=no_detect, skin=skin, looks=looks, refine=refine)
            write_output(out, ".png", face.save)
        if json:
            print_json({"output": out, "feature": face.feature, "landmarks": face.landmarks, **face.details})
        elif out != "-":
            say(f"wrote {out}", quiet=quiet)
