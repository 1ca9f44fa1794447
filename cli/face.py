"""``crossmodal face``: draw a face for a voice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    Json,
    Quiet,
    check_inputs,
    check_output,
    print_json,
    say,
    show_warnings,
    working,
    write_output,
)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def face(
        voices: Annotated[
            list[str],
            typer.Argument(help="Recordings: any audio or video file, or - for standard input.", metavar="VOICE"),
        ],
        out: Annotated[
            str,
            typer.Option(
                "--out",
                "-o",
                help="Picture to write (.png, .jpg, .webp; - for standard output). With several voices or faces, "
                "this is the contact sheet and each face goes beside it, numbered.",
            ),
        ] = "face.png",
        n: Annotated[int, typer.Option("-n", min=1, max=64, help="How many different plausible faces to draw.")] = 1,
        seed: Annotated[int, typer.Option(help="Chooses the further faces; the same seed draws the same ones.")] = 0,
        route: Annotated[
            Literal["auto", "embedding", "spectrogram"],
            typer.Option(help="embedding, spectrogram (the published Speech2Face route), or what the bundle has."),
        ] = "auto",
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Draw a plausible face for a voice.

        Many faces fit one voice: the first is the most likely, [bold]-n 4[/bold] draws four different ones.
        The picture shows what the voice suggests, never who is speaking.
        """
        show_warnings(quiet)
        check_inputs(voices)
        check_output(out, PICTURES, json=json)
        with working("loading the models", quiet=quiet):
            from crossmodal.pictures import contact_sheet
            from crossmodal.provenance import save_image
            from crossmodal.speech2face import Speech2Face

            journey = Speech2Face.from_pretrained(bundle, device=device)
        drawn = []
        for voice in voices:
            with working(f"listening to {voice}", quiet=quiet):
                faces = journey(voice, n=n, seed=seed, route=route)
            drawn += [(voice, i, picture) for i, picture in enumerate(faces)]
        if len(drawn) == 1:
            write_output(out, ".png", drawn[0][2].save)
            written = [out]
        else:
            names = [Path(voice).stem if voice != "-" else "stdin" for voice, _, _ in drawn]
            captions = [f"{name} {i + 1}" if n > 1 else name for name, (_, i, _) in zip(names, drawn)]
            sheet = contact_sheet([p.image for _, _, p in drawn], captions, columns=n if n > 1 else None)
            details = {**drawn[0][2].details, "hypothesis": "contact sheet"}
            written = [out]
            if out != "-":
                target = Path(out)
                for k, (_, _, picture) in enumerate(drawn):
                    single = target.with_name(f"{target.stem}-{k + 1}{target.suffix}")
                    picture.save(single)
                    written.append(str(single))
            write_output(out, ".png", lambda path: save_image(path, sheet, details))
        if json:
            print_json(
                {
                    "outputs": written,
                    "faces": [
                        {"voice": voice, "hypothesis": i, "feature": p.feature, "embedding": p.embedding, **p.details}
                        for voice, i, p in drawn
                    ],
                }
            )
        elif out != "-":
            say(f"wrote {', '.join(written)}", quiet=quiet)
