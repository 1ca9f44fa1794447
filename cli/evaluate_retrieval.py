"""``crossmodal evaluate retrieval``: how far up a gallery do a voice's faces stand, and a face's voices?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.association import (
    Cache,
    EmbeddingFiles,
    Media,
    Meta,
    Oracle,
    Seed,
    SkipMissing,
    check_source,
    get_embeddings,
    oracle_beside,
    read_known,
    show,
)
from crossmodal.cli.common import BundleOption, Device, Json, Page, Quiet, check_page, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def retrieval(
        lists: Annotated[
            Path,
            typer.Option(
                "--list",
                "-l",
                help="Voices and faces and whose they are: CSV with path,id and kind (voice or face, where the suffix "
                "does not tell). A verification or matching list that names its people will do as well.",
            ),
        ],
        embeddings: EmbeddingFiles = None,
        media: Media = None,
        meta: Meta = None,
        oracle: Oracle = None,
        people: Annotated[int, typer.Option(min=0, help="People in a gallery; 0: everybody, in one.")] = 0,
        galleries: Annotated[int, typer.Option(min=0, help="Disjoint galleries; 0: as many as fit.")] = 0,
        per_person: Annotated[
            int, typer.Option(min=0, help="At most so many voices and so many faces of each person; 0: all.")
        ] = 0,
        skip_missing: SkipMissing = False,
        cache: Cache = None,
        seed: Seed = 0,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Rank a gallery of faces for every voice (v2f) and of voices for every face (f2v): R@K and mAP.

        [bold]R@K[/bold] is the share of queries with a right item among the first K, [bold]mAP[/bold] the mean
        precision at the places of all right items. Both fall as the gallery grows, so its size is printed with every
        figure, and figures of galleries of different sizes cannot be compared. Ties share the credit: an encoder that
        tells nothing apart scores exactly what chance is printed to be. Intervals are 95 % bootstraps over the
        queries' people.

        `--people 100 --galleries 3 --per-person 1` is the protocol of SF2F: three disjoint galleries of 100 people.

        `--json`: galleries, and for v2f and f2v each: recall, map, n, gallery, ci95, chance, oracle; figures, curves.
        """
        show_warnings(quiet)
        check_source(embeddings, media, oracle)
        check_page(page)
        from crossmodal.evaluation.lists import read_items
        from crossmodal.evaluation.retrieval import by_attribute, by_cosine, draw_galleries
        from crossmodal.evaluation.retrieval import retrieval as evaluate
        from crossmodal.evaluation.scoring import items_with_embeddings

        known = read_known(meta, None)
        items = read_items(lists, known.people)
        notes: list[str] = []
        about: dict = {}
        beside = None
        if embeddings or media:
            found, about = get_embeddings(
                items.voices,
                items.faces,
                known,
                embeddings=embeddings,
                media=media,
                bundle=bundle,
                device=device,
                cache=cache,
                skip=skip_missing,
                quiet=quiet or json,
            )
            items, notes = items_with_embeddings(found, items, known.people, skip=skip_missing)
            beside, more = oracle_beside(known, [clip.person for clip in (*items.voices, *items.faces)], oracle)
            notes += more
            score = by_cosine(found, known)
        else:
            assert oracle is not None
            score = by_attribute(oracle, known)
        chosen = draw_galleries(items, known, people=people, count=galleries, per_person=per_person, seed=seed)
        result = evaluate(score, chosen, known, beside=beside, seed=seed)
        alone = None if embeddings or media else oracle
        show(
            "Retrieval", result, alone=alone, lists=[lists], seed=seed, notes=notes, bundle=about, json=json, page=page
        )
