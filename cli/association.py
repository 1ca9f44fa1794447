"""Options and steps that `evaluate verification`, `matching` and `retrieval` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crossmodal.cli.common import deliver, working

if TYPE_CHECKING:
    from crossmodal.data.protocols import Clip
    from crossmodal.evaluation.association import Association
    from crossmodal.evaluation.embeddings import Embeddings
    from crossmodal.evaluation.oracles import Known

EmbeddingFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--embeddings",
        "-e",
        help="Vectors of your system, keyed by the list's paths: .npz of 'paths' and 'embeddings' as `crossmodal embed "
        "-o` writes it, or .parquet with 'path' and 'embedding'. Repeat it for voices and faces apart.",
    ),
]
Media = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the list's paths are relative to: its files are embedded with --bundle, once. With "
        "--embeddings: cut off from the beginning of their paths."
    ),
]
Meta = Annotated[
    Path | None,
    typer.Option(
        help="Table of people (vox1_meta.csv, or CSV with id and some of name, gender, nationality, age): adds strata "
        "and the gender oracle."
    ),
]
Oracle = Annotated[
    Literal["gender", "nationality", "age"] | None,
    typer.Option(
        help="Score the oracle that knows only this of everybody; with a system, print it beside. Needs --meta."
    ),
]
Split = Annotated[
    Path | None,
    typer.Option(help="identity_splits.txt ('Name 1|2|4', 1: trained on): adds figures of people seen and unseen."),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out clips without an embedding, and say how many.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder that remembers what a bundle embedded; your cache folder by default.", show_default=False
    ),
]
Seed = Annotated[int, typer.Option(help="Of the bootstrap, and of what is drawn.")]


def check_source(embeddings: Sequence[Path] | None, media: Path | None, oracle: str | None) -> None:
    """See that there is something to score.

    Raises:
        BadParameter: nothing is.
    """
    if not (embeddings or media or oracle):
        raise typer.BadParameter(
            "give --embeddings FILE, or --media FOLDER to embed with a bundle, or --oracle",
            param_hint="--embeddings / --media / --oracle",
        )


def read_known(meta: Path | None, split: Path | None) -> Known:
    """What is known of people, from the files of ``--meta`` and ``--split``."""
    from crossmodal.data.protocols import People, identity_sides
    from crossmodal.errors import DataError
    from crossmodal.evaluation.oracles import Known

    if meta is not None and not meta.exists():
        raise DataError("no such file", source=meta, remedy="vox1_meta.csv comes with VoxCeleb1")
    return Known(People(meta) if meta else None, identity_sides(split) if split else None)


def oracle_beside(known: Known, persons: Sequence[str], oracle: str | None) -> tuple[str | None, list[str]]:
    """The oracle to print beside a system's result, and a note if there cannot be one.

    The one asked for, else gender where the table knows everybody's.
    """
    from crossmodal.errors import DataError

    if oracle is not None:
        known.require(persons, oracle)
        return oracle, []
    if known.people is None:
        return None, ["without --meta no oracle stands beside: how much of this is gender alone is not known"]
    try:
        known.require(persons, "gender")
    except DataError as error:
        return None, [f"no gender oracle stands beside: {error}"]
    return "gender", []


def get_embeddings(
    voices: Sequence[Clip],
    faces: Sequence[Clip],
    known: Known,
    *,
    embeddings: Sequence[Path] | None,
    media: Path | None,
    bundle: str,
    device: str,
    cache: Path | None,
    skip: bool,
    quiet: bool,
) -> tuple[Embeddings, dict[str, Any]]:
    """The embeddings of a list, from files or from a bundle, and what is to be said of the bundle."""
    if embeddings:
        from crossmodal.evaluation.embeddings import read_embeddings

        return read_embeddings(embeddings, media), {}
    from rich.console import Console
    from rich.progress import Progress

    from crossmodal.evaluation.embed_media import embed_media
    from crossmodal.evaluation.report import describe
    from crossmodal.journey import Journey

    assert media is not None
    with working("loading the models", quiet=quiet):
        journey = Journey.from_pretrained(bundle, device=device)
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("embedding", total=None)
        found = embed_media(
            journey,
            {"voice": voices, "face": faces},
            media,
            people=known.people,
            cache=cache,
            skip=skip,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return found, describe(journey.bundle)


def show(
    title: str,
    result: Association,
    *,
    alone: str | None,
    lists: Sequence[Path],
    seed: int,
    notes: Sequence[str],
    bundle: dict[str, Any],
    json: bool,
    page: Path | None,
) -> None:
    """Print a result, and write its page; the headline stands last, where a terminal shows it.

    ``alone`` is the oracle if nothing else was scored.
    """
    from crossmodal.evaluation.report import Report

    if alone is not None:
        title, notes = f"{title}, {alone} oracle", [f"what is scored is the {alone} oracle: it hears and sees nothing"]
    report = Report(
        title,
        figures=result.figures,
        curves=result.curves if json or page else [],  # a terminal has the figures they are made of
        tables=["\n".join(result.lines)],
        notes=[f"list: {', '.join(map(str, lists))}", *result.notes, *notes],
        bundle=bundle,
        seed=seed,
    )
    deliver(report, json=json, page=page, **result.headline)
