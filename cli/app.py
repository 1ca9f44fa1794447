"""The Typer app. Each file of this folder holds a command or a few, and is imported when one of them is asked for."""

from __future__ import annotations

import errno
from typing import Annotated, Any, ClassVar

import typer

from crossmodal import __version__
from crossmodal.cli.lazy import LazyGroup
from crossmodal.errors import CrossmodalError


class _App(LazyGroup):
    """Turns the library's errors, and what the system says of a file, into one line and exit code 1."""

    files: ClassVar = {
        "face": "face",
        "speak": "speak",
        "reface": "reface",
        "embed": "embed",
        "match": "embed",
        "tour": "tour",
        "detect": "detect",
        "doctor": "doctor",
        "bench": "bench",
        "train": "train",
        "prepare": "prepare",
        "models": "models",
        "evaluate": "evaluate",
    }

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CrossmodalError as error:
            typer.echo(f"error: {error}", err=True)
        except OSError as error:  # no such file, read-only, disk full
            if error.filename is None and error.errno != errno.ENOSPC:
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            typer.echo(f"error: {where}{error.strerror}", err=True)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        raise typer.Exit(1)


app = typer.Typer(
    name="crossmodal",
    cls=_App,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Faces from voices and voices for faces.\n\n"
    "[bold]crossmodal face voice.wav -o face.png[/bold] draws a face for a voice, "
    '[bold]crossmodal speak "Good morning." --face photo.jpg -o hello.wav[/bold] gives a face a voice. '
    "Both work offline with the models that come with the package; "
    "[bold]crossmodal tour[/bold] shows everything on examples.\n\n"
    "Use pictures and recordings of people only with their consent. Nothing here identifies anyone.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"crossmodal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
