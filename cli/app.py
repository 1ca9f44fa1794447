"""The Typer app: one file per command group, none of which imports torch before a command runs."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crossmodal import __version__
from crossmodal.errors import CrossmodalError

# In the order of `crossmodal --help`.
_GROUPS = ("face", "speak", "reface", "embed", "tour", "detect", "models", "doctor", "bench", "train", "prepare")
_EVALUATE = (
    "evaluate_verification",
    "evaluate_matching",
    "evaluate_retrieval",
    "evaluate_faces",
    "evaluate_speech",
    "evaluate_vocoder",
    "evaluate_calibration",
    "evaluate_generated_faces",
    "evaluate_cycle",
    "evaluate_audit",
    "evaluate_selfcheck",
    "evaluate_leakage",
    "evaluate_report",
)


class _Group(TyperGroup):
    """Turns the library's errors into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CrossmodalError as error:
            typer.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        raise typer.Exit(1)


app = typer.Typer(
    name="crossmodal",
    cls=_Group,
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


for _name in _GROUPS:
    importlib.import_module(f"crossmodal.cli.{_name}").register(app)

evaluate = typer.Typer(
    no_args_is_help=True, help="Measure a bundle on held-out people, with n, chance level and intervals."
)
for _name in _EVALUATE:
    importlib.import_module(f"crossmodal.cli.{_name}").register(evaluate)
app.add_typer(evaluate, name="evaluate")
