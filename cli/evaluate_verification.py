"""``crossmodal evaluate verification``: do a voice and a face belong to one person?"""

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
    Split,
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
    def verification(
        lists: Annotated[
            list[Path],
            typer.Option(
                "--list",
                "-l",
                help="Pairs of a voice and a face: a list of Learnable PINs or MAV-Celeb, or CSV with "
                "voice,face,label and, where known, voice_id,face_id. Repeat it to score several as one.",
            ),
        ],
        embeddings: EmbeddingFiles = None,
        media: Media = None,
        meta: Meta = None,
        oracle: Oracle = None,
        split: Split = None,
        labels: Annotated[
            Path | None, typer.Option(help="Labels of a MAV-Celeb list, lines of 'id 0|1', where it has none.")
        ] = None,
        heard: Annotated[str, typer.Option(help="Language trained on; the list's others are marked unheard.")] = "",
        skip_missing: SkipMissing = False,
        cache: Cache = None,
        seed: Seed = 0,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Are this voice and this face one person's? AUC and EER of the cosine, beside chance and a gender oracle.

        The [bold]AUC[/bold] is how often a pair of one person scores above a pair of different people (chance 0.5,
        perfect 1). The [bold]EER[/bold] is the error at the threshold where as many true pairs are refused as false
        ones are let in (chance 50 %, perfect 0). Equal scores count half. Intervals are 95 % bootstraps over the
        voices' people.

        Most of what a system scores can be gender. With `--meta` an oracle that knows nobody's face or voice, only
        everybody's gender, stands beside, and strata keep only negatives of the same gender (G), nationality (N), age
        by decade (A), and of several of these: in G the gender oracle is at chance.

        `--json`: auc, eer (a fraction), n, positives, people, ci95 (of auc and of eer, low and high), chance, oracle,
        figures, curves.
        """
        show_warnings(quiet)
        check_source(embeddings, media, oracle)
        check_page(page)
        from crossmodal.evaluation.association import pair_oracle
        from crossmodal.evaluation.association import verification as evaluate
        from crossmodal.evaluation.lists import read_pairs
        from crossmodal.evaluation.scoring import score_pairs

        known = read_known(meta, split)
        pairs = [pair for path in lists for pair in read_pairs(path, labels)]
        notes: list[str] = []
        about: dict = {}
        beside = None
        if embeddings or media:
            persons = [clip.person for pair in pairs for clip in (pair.voice, pair.face)]
            beside, notes = oracle_beside(known, persons, oracle)
            found, about = get_embeddings(
                [pair.voice for pair in pairs],
                [pair.face for pair in pairs],
                known,
                embeddings=embeddings,
                media=media,
                bundle=bundle,
                device=device,
                cache=cache,
                skip=skip_missing,
                quiet=quiet or json,
            )
            scores, pairs, left_out = score_pairs(found, pairs, known.people, skip=skip_missing)
            notes += left_out
        else:
            assert oracle is not None
            scores = pair_oracle(pairs, known, oracle)
        result = evaluate(scores, pairs, known, beside=beside, heard=heard, seed=seed)
        alone = None if embeddings or media else oracle
        show(
            "Verification", result, alone=alone, lists=lists, seed=seed, notes=notes, bundle=about, json=json, page=page
        )
