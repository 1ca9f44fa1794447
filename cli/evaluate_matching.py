"""``crossmodal evaluate matching``: which of several faces belongs to a voice, and the other way round?"""

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
    def matching(
        lists: Annotated[
            list[Path],
            typer.Option(
                "--list",
                "-l",
                help="Trials: a matching list of CMPC, or CSV with probe,candidate_1,...,candidate_N (the right one "
                "first, or in 'answer'). Or people to draw trials from: CSV with path,id,kind, or a verification "
                "list. Repeat it to score several as one.",
            ),
        ],
        embeddings: EmbeddingFiles = None,
        media: Media = None,
        meta: Meta = None,
        oracle: Oracle = None,
        split: Split = None,
        candidates: Annotated[int, typer.Option(min=2, max=100, help="Candidates of a trial that is drawn.")] = 10,
        trials: Annotated[int, typer.Option(min=1, help="Trials that are drawn, in each direction.")] = 10_000,
        skip_missing: SkipMissing = False,
        cache: Cache = None,
        seed: Seed = 0,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Which of N faces belongs to this voice (v2f), which of N voices to this face (f2v)? Accuracy for every N.

        The candidate with the highest cosine wins; [bold]ties share the credit[/bold], so an encoder that gives
        everything the same vector scores exactly 1 / N, which is chance. Candidates are nested: the trials of 1:2 are
        the beginnings of those of 1:10. Intervals are 95 % bootstraps over the probes' people.

        With `--meta` the gender oracle stands beside (about 75 % where candidates are drawn at random), and strata keep
        only trials whose first wrong candidate has the probe's gender (G), nationality (N), age by decade (A).

        `--json`: accuracy (of the whole 1:N trials), n, candidates, ci95 (low and high), chance, oracle, figures,
        curves.
        """
        show_warnings(quiet)
        check_source(embeddings, media, oracle)
        check_page(page)
        from crossmodal.errors import DataError
        from crossmodal.evaluation.association import matching as evaluate
        from crossmodal.evaluation.association import trial_oracle
        from crossmodal.evaluation.lists import draw_trials, form_of, read_items, read_trials
        from crossmodal.evaluation.scoring import items_with_embeddings, score_trials

        known = read_known(meta, split)
        drawn = form_of(lists[0]) not in ("cmpc", "trials")
        if drawn and len(lists) > 1:
            raise DataError("trials are drawn from one list of people at a time", source=lists[1])
        notes: list[str] = []
        about: dict = {}
        beside = None
        items = read_items(lists[0], known.people) if drawn else None
        rows = [] if drawn else [trial for path in lists for trial in read_trials(path)]
        if len({len(trial.candidates) for trial in rows}) > 1:
            raise DataError("has another number of candidates than the first list", source=lists[-1])
        if embeddings or media:
            if items is not None:
                voices, faces = items.voices, items.faces
            else:
                clips = [clip for trial in rows for clip in (trial.probe, *trial.candidates)]
                voices, faces = [c for c in clips if not c.is_face], [c for c in clips if c.is_face]
            found, about = get_embeddings(
                voices,
                faces,
                known,
                embeddings=embeddings,
                media=media,
                bundle=bundle,
                device=device,
                cache=cache,
                skip=skip_missing,
                quiet=quiet or json,
            )
            if items is not None:
                items, notes = items_with_embeddings(found, items, known.people, skip=skip_missing)
                rows = draw_trials(items, known.people, candidates=candidates, trials=trials, seed=seed)
            right, wrong, rows, left_out = score_trials(found, rows, known.people, skip=skip_missing)
            persons = [clip.person for trial in rows for clip in (trial.probe, *trial.candidates)]
            beside, more = oracle_beside(known, persons, oracle)
            notes += left_out + more
        else:
            assert oracle is not None
            if items is not None:
                rows = draw_trials(items, known.people, candidates=candidates, trials=trials, seed=seed)
            right, wrong = trial_oracle(rows, known, oracle)
        result = evaluate(right, wrong, rows, known, beside=beside, seed=seed)
        alone = None if embeddings or media else oracle
        show("Matching", result, alone=alone, lists=lists, seed=seed, notes=notes, bundle=about, json=json, page=page)
