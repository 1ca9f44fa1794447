"""``crossmodal embed`` and ``crossmodal match``: voices and faces in the shared space."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    Json,
    Quiet,
    check_output,
    print_json,
    say,
    show_warnings,
    working,
)


def register(app: typer.Typer) -> None:
    """Add the two commands."""

    @app.command()
    def embed(
        paths: Annotated[list[str], typer.Argument(help="Recordings and photos, in any mixture.", metavar="PATH")],
        out: Annotated[
            str | None,
            typer.Option("--out", "-o", help="Write 'paths', 'kinds', 'embeddings' (N, 256) and 'space' to this .npz."),
        ] = None,
        kind: Annotated[
            Literal["voice", "face"] | None,
            typer.Option("--as", help="Treat every file as a voice or a face instead of looking at its content."),
        ] = None,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Turn voices and faces into vectors of the shared 256-d speaker space.

        Voices and faces are told apart by content; a video counts as a voice.
        """
        show_warnings(quiet)
        if out is not None:
            check_output(out, (".npz",))
        import numpy as np

        from crossmodal.files import atomic_path
        from crossmodal.journey import Journey

        with working("loading the models", quiet=quiet):
            journey = Journey.from_pretrained(bundle, device=device)
        rows: list[dict[str, Any]] = []
        for path in paths:
            with working(path, quiet=quiet):
                found, vector = journey.embed(path, kind=kind)
            rows.append({"path": path, "kind": found, "embedding": vector.numpy()})
        if out is not None:
            with atomic_path(out) as temporary, open(temporary, "wb") as file:
                np.savez(
                    file,
                    paths=np.array([r["path"] for r in rows]),
                    kinds=np.array([r["kind"] for r in rows]),
                    embeddings=np.stack([r["embedding"] for r in rows]),
                    space=np.array(journey.embedding_space),
                )
        if json:
            print_json({"space": journey.embedding_space, "items": rows})
        elif out is not None:
            say(f"wrote {out} ({len(rows)} embedding{'s' * (len(rows) > 1)})", quiet=quiet)
        else:
            for row in rows:
                head = " ".join(f"{v:.3f}" for v in row["embedding"][:6])
                typer.echo(f"{row['kind']}\t{row['path']}\t[{head} …]")

    @app.command()
    def match(
        one: Annotated[str, typer.Argument(help="A recording or a photo.")],
        other: Annotated[str, typer.Argument(help="Another recording or photo.")],
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Say how alike two voices, two faces, or a voice and a face are, against the floor of different people."""
        if one == other == "-":
            raise typer.BadParameter("only one of the two can come from standard input", param_hint="ONE OTHER")
        show_warnings(quiet)
        with working("comparing", quiet=quiet):
            from crossmodal.journey import Journey

            result = Journey.from_pretrained(bundle, device=device).match(one, other)
        if json:
            print_json({**vars(result), "reading": result.reading})
        else:
            typer.echo(result.reading)
