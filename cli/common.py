"""Options and output that every command shares."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmodal.errors import InputWarning

if TYPE_CHECKING:
    from crossmodal.evaluation.report import Report

Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda or cuda:N.")]
BundleOption = Annotated[
    str, typer.Option("--bundle", help="Models to use: 'starter', a bundle folder, or a Hugging Face Hub id user/repo.")
]
FaceIndex = Annotated[
    int | None,
    typer.Option("--face-index", min=0, help="Which face of a group picture, counted from the largest (0)."),
]
NoDetect = Annotated[bool, typer.Option("--no-detect", help="Take the whole picture for the face.")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable JSON object.")]
Page = Annotated[
    Path | None,
    typer.Option("--report", help="Also write one self-contained HTML page: table, plots, pictures, players."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def say(message: str, *, quiet: bool = False) -> None:
    """A line for people, on standard error so that standard output stays usable in a pipe."""
    if not quiet:
        typer.echo(message, err=True)


def print_json(content: Any) -> None:
    """One JSON object on standard output."""
    typer.echo(json.dumps(content, ensure_ascii=False, default=_plain))


def check_page(page: Path | None) -> None:
    """Refuse a ``--report`` that cannot be written before anything is measured (see :func:`check_output`)."""
    if page is not None:
        check_output(str(page), (".html", ".htm"))


def deliver(report: Report, *, json: bool, page: Path | None = None, out: Path | None = None, **more: Any) -> None:
    """Print what was measured, as lines or as JSON, and write its page and its folder.

    Args:
        report: what was measured; its command line is filled in if it has none.
        json: print one JSON object, with ``more`` in it.
        page: HTML file.
        out: folder for ``figures.json`` and the pictures.
    """
    from crossmodal.evaluation.report import write_report

    report.command = report.command or "crossmodal " + shlex.join(sys.argv[1:])
    if out is not None:
        _save_results(report, out)
    if page is not None:
        write_report(page, report)
    if json:
        print_json({**report.as_dict(), **more})
    else:
        typer.echo("\n".join(report.lines()))
    if page is not None:
        say(f"wrote {page}", quiet=json)


def check_folder(out: Path | None) -> None:
    """Refuse an ``--out`` folder that cannot be made before anything is measured.

    Raises:
        OutputError: it is a file, or the folder that it would be made in cannot be written.
    """
    import os

    from crossmodal.errors import OutputError

    if out is None:
        return
    place = out.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise OutputError("is a file", source=place, remedy="name another folder")
    if not os.access(place, os.W_OK):
        raise OutputError("is not writable", source=place, remedy="name another folder")


def _save_results(report: Report, out: Path) -> None:
    from crossmodal.files import atomic_path, atomic_write

    out.mkdir(parents=True, exist_ok=True)
    for name, picture in report.pictures.items():
        with atomic_path(out / f"{name}.png") as path:
            picture.save(path)
    atomic_write(out / "figures.json", json.dumps(report.as_dict(), ensure_ascii=False, default=_plain).encode())


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def show_warnings(quiet: bool) -> None:
    """Print the library's own warnings as one line each; hide those of other packages."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not quiet:
            typer.echo(f"warning: {message}", err=True)

    warnings.showwarning = show
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", category=InputWarning)


@contextmanager
def working(message: str, *, quiet: bool = False) -> Iterator[None]:
    """Show a spinner while something takes its time; silent when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(message):
        yield


def write_output(path: str, suffix: str, save: Callable[[Path], object]) -> None:
    """Save to ``path`` with ``save``; ``-`` sends the bytes to standard output."""
    if path != "-":
        save(Path(path))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"out{suffix}"
        save(file)
        sys.stdout.buffer.write(file.read_bytes())
        sys.stdout.buffer.flush()


def check_inputs(paths: Sequence[str]) -> None:
    """Refuse ``-`` for more than one input: standard input can be read once.

    Raises:
        BadParameter: it is.
    """
    if paths.count("-") > 1:
        raise typer.BadParameter("only one input can come from standard input (-)")


def check_text(text: str) -> None:
    """Refuse a text without a letter or digit before the models load.

    Raises:
        TextError: it has none.
    """
    if not any(letter.isalnum() for letter in text):
        from crossmodal.text import sentences

        sentences(text)


def check_output(path: str, suffixes: tuple[str, ...], *, json: bool = False) -> None:
    """Refuse an output that cannot be written before any work is done.

    Args:
        path: file to write; ``-`` for standard output.
        suffixes: those that name a known format.
        json: whether ``--json`` prints to standard output too.

    Raises:
        OutputError: the folder does not exist, is not writable, or the suffix names no known format.
        BadParameter: the file and the JSON would both go to standard output.
    """
    import os

    from crossmodal.errors import OutputError

    if path == "-":
        if json:
            raise typer.BadParameter(
                "the file and --json cannot both go to standard output", param_hint="--out / --json"
            )
        return
    if not path:
        raise OutputError("no file is named", source="--out", remedy=f"give a file name, e.g. out{suffixes[0]}")
    target = Path(path)
    if target.is_dir():
        raise OutputError("is a folder", source=path, remedy=f"give a file name, e.g. {path}/out{suffixes[0]}")
    if target.suffix.lower() not in suffixes:
        raise OutputError(f"unknown format '{target.suffix}'", source=path, remedy=f"use {', '.join(suffixes)}")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist", source=path, remedy="create it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"the folder {target.parent} is not writable", source=path)
