"""Options and steps that `evaluate generated-faces`, `cycle` and `audit` share: on whom a bundle is measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossmodal.bundle import Bundle
    from crossmodal.data.prepared_faces import PreparedFaces

Prepared = Annotated[
    Path | None,
    typer.Argument(
        help="Folder of `crossmodal prepare`, with a split; without one, the people held out of the starter.",
        show_default=False,
    ),
]
Part = Annotated[str, typer.Option(help="Part of the split to test on.")]
Run = Annotated[Path | None, typer.Option(help="Run folder that the bundle comes from, to check for leakage.")]
Data = Annotated[
    Path | None,
    typer.Option(envvar="CROSSMODAL_DATA", help="Folder with london_faces/, librispeech/, an4/, cmu_arctic/."),
]
Faces = Annotated[Path, typer.Option(help="Folder of prepared London faces; made there if it is empty (minutes).")]
FACES = Path("runs/starter/faces/prepared")
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for pictures and figures.json.")]


def check_leakage(bundle: Bundle, prepared: Path, part: str, run: Path | None) -> str:
    """A note that ``bundle`` was trained on nobody in ``part`` of ``prepared``, or that it does not say.

    Raises:
        LeakageError: it was. CheckpointError: it was trained under another protocol.
    """
    from crossmodal.data import splits
    from crossmodal.data.manifest import Manifest
    from crossmodal.evaluation import leakage

    return leakage.require(bundle, splits.part(Manifest.read(prepared / "manifest.parquet"), part), run)


def london_people(faces: Path, data: Path | None) -> PreparedFaces:
    """The prepared London faces; prepared from ``data`` first if ``faces`` is empty."""
    from crossmodal.data.canonical_faces import Frame
    from crossmodal.data.prepared_faces import load_or_prepare

    return load_or_prepare(faces, data, Frame())


def need_data(data: Path | None, command: str) -> Path:
    """``data``, which ``command`` cannot do without.

    Raises:
        DataError: it was not given.
    """
    from crossmodal.errors import DataError

    if data is None:
        remedy = "give it by --data or CROSSMODAL_DATA, or name a folder of `crossmodal prepare`"
        raise DataError("needs the development data", source=command, remedy=remedy)
    return data
