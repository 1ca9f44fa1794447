"""Scores of a list from embeddings: every clip looked up, and what is missing said or left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossmodal.data.protocols import Clip, MatchingTrial, People, VerificationTrial
from crossmodal.errors import DataError
from crossmodal.evaluation.association import ordered_candidates
from crossmodal.evaluation.embeddings import Embeddings
from crossmodal.evaluation.lists import Items


def score_pairs(
    embeddings: Embeddings, pairs: Sequence[VerificationTrial], people: People | None = None, *, skip: bool = False
) -> tuple[np.ndarray, list[VerificationTrial], list[str]]:
    """Cosine of voice and face of every pair → scores ``(N,)``, the pairs scored, and a note on what was left out.

    Args:
        embeddings: keyed by the list's paths.
        pairs: the list.
        people: who is who (:func:`crossmodal.evaluation.embeddings.spellings`).
        skip: leave out pairs without an embedding instead of stopping.

    Raises:
        DataError: clips without an embedding (how many, and the first), or no pair left.
    """
    rows = _rows(embeddings, [[pair.voice, pair.face] for pair in pairs], people, skip)
    kept = np.flatnonzero((rows >= 0).all(1)).tolist()
    scores = embeddings.cosines(rows[kept, 0], rows[kept, 1])
    return scores, [pairs[i] for i in kept], _note(len(kept), len(pairs), "pairs")


def score_trials(
    embeddings: Embeddings, trials: Sequence[MatchingTrial], people: People | None = None, *, skip: bool = False
) -> tuple[np.ndarray, np.ndarray, list[MatchingTrial], list[str]]:
    """Cosine of the probe to every candidate → right ``(T,)``, wrong ``(T, C − 1)``, the trials, and a note.

    Arguments and errors as in :func:`score_pairs`.
    """
    rows = _rows(embeddings, [[trial.probe, *ordered_candidates(trial)] for trial in trials], people, skip)
    kept = np.flatnonzero((rows >= 0).all(1)).tolist()
    rows = rows[kept]
    probes = np.repeat(rows[:, 0], rows.shape[1] - 1)
    scores = embeddings.cosines(probes, rows[:, 1:].ravel()).reshape(len(rows), -1)
    return scores[:, 0], scores[:, 1:], [trials[i] for i in kept], _note(len(kept), len(trials), "trials")


def items_with_embeddings(
    embeddings: Embeddings, items: Items, people: People | None = None, *, skip: bool = False
) -> tuple[Items, list[str]]:
    """The items that have an embedding, and a note on what was left out. Arguments and errors as in
    :func:`score_pairs`."""
    clips = [*items.voices, *items.faces]
    there = _rows(embeddings, [[clip] for clip in clips], people, skip)[:, 0] >= 0
    voices = [clip for clip, found in zip(items.voices, there) if found]
    faces = [clip for clip, found in zip(items.faces, there[len(items.voices) :]) if found]
    return Items(voices, faces), _note(int(there.sum()), len(clips), "clips")


def _rows(embeddings: Embeddings, cases: list[list[Clip]], people: People | None, skip: bool) -> np.ndarray:
    """Rows ``(N, M)`` of the M clips of each case, −1 where there is none."""
    flat = [clip for case in cases for clip in case]
    found = embeddings.rows(flat, people)
    if (found < 0).any() and not skip:
        missing = list(dict.fromkeys(clip.path for clip, row in zip(flat, found) if row < 0))
        raise DataError(
            f"{len(missing)} of the list's {len({clip.path for clip in flat})} clips have no embedding, "
            f"first '{missing[0]}' (the embeddings begin with '{embeddings.paths[0]}')",
            source="embeddings",
            remedy="key them by the list's paths (--media ROOT cuts a folder off), or pass --skip-missing",
        )
    if not (found >= 0).reshape(len(cases), -1).all(1).any():
        raise DataError("nothing on the list has all its embeddings", source="embeddings")
    return found.reshape(len(cases), -1)


def _note(kept: int, listed: int, what: str) -> list[str]:
    return [f"{listed - kept} of the list's {listed} {what} were left out: no embedding"] if kept < listed else []
