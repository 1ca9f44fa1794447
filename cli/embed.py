"""``crossmodal embed`` and ``crossmodal match``: voices and faces in the shared space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    FaceIndex,
    Json,
    NoDetect,
    Quiet,
    check_inputs,
    check_output,
    print_json,
    say,
    show_warnings,
    working,
    write_output,
)


def register(app: typer.Typer) -> None:
    """Add the two commands."""

    @app.command()
    def embed(
        paths: Annotated[
            list[str],
            typer.Argument(help="Recordings and photos, in any mixture; - for standard input.", metavar="PATH"),
        ],
        out: Annotated[
            str | None,
            typer.Option(
                "--out",
                "-o",
                help="Write 'paths', 'kinds', 'embeddings' (N, 256) and 'space' to this .npz; - for standard output.",
            ),
        ] = None,
        kind: Annotated[
            Literal["voice", "face"] | None,
            typer.Option("--as", help="Treat every file as a voice or a face instead of looking at its content."),
        ] = None,
        face_index: FaceIndex = None,
        no_detect: NoDetect = False,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Turn voices and faces into vectors of the shared 256-d speaker space.

        Voices and faces are told apart by content; a video counts as a voice.
        """
        show_warnings(quiet)
        check_inputs(paths)
        if out is not None:
            check_output(out, (".npz",), json=json)
        from crossmodal.journey import Journey

        with working("loading the models", quiet=quiet):
            journey = Journey.from_pretrained(bundle, device=device)
        rows: list[dict[str, Any]] = []
        for path in paths:
            with working(path, quiet=quiet):
                found, vector = journey.embed(path, kind=kind, index=face_index, no_detect=no_detect)
            rows.append({"path": path, "kind": found, "embedding": vector.numpy()})
        if out is not None:
            write_output(out, ".npz", lambda path: _save(path, rows, journey.embedding_space))
        if json:
            print_json({"space": journey.embedding_space, "items": rows})
        elif out == "-":
            return
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
        face_index: FaceIndex = None,
        no_detect: NoDetect = False,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Say how alike two voices, two faces, or a voice and a face are, against the floor of different people."""
        show_warnings(quiet)
        check_inputs((one, other))
        with working("comparing", quiet=quiet):
            from crossmodal.journey import Journey

            journey = Journey.from_pretrained(bundle, device=device)
            result = journey.match(one, other, index=face_index, no_detect=no_detect)
        if json:
            print_json({**vars(result), "reading": result.reading})
        else:
            typer.echo(result.reading)


def _save(path: Path, rows: Sequence[dict[str, Any]], space: str) -> None:
    """Write an .npz as :func:`crossmodal.evaluation.embeddings.read_embeddings` reads it, whole or not at all."""
    import numpy as np

    from crossmodal.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            paths=np.array([row["path"] for row in rows]),
            kinds=np.array([row["kind"] for row in rows]),
            embeddings=np.stack([row["embedding"] for row in rows]),
            space=np.array(space),
        )
