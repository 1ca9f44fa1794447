"""Retrieval: every voice looks for its person's faces in a gallery, every face for the voices (R@K, mAP).

The gallery's size says how hard it is, so it is printed with every figure. Several disjoint galleries are averaged over
their queries (SF2F, Bai et al. 2022: three of 100 people). Nothing larger than 512 queries × gallery is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crossmodal.data.protocols import Clip
from crossmodal.errors import DataError
from crossmodal.evaluation.association import Association, draw_people, interval, plain_curve
from crossmodal.evaluation.embeddings import Embeddings
from crossmodal.evaluation.figures import Figure
from crossmodal.evaluation.lists import Items
from crossmodal.evaluation.metrics import Ranks, guessing, mean_credit, rank
from crossmodal.evaluation.oracles import Known, agreement

KS = (1, 2, 5, 10, 20, 50, 100)
_BLOCK = 512


@dataclass(frozen=True)
class Gallery:
    """Voices and faces of the same people."""

    voices: list[Clip]
    faces: list[Clip]
    people: int


class Scorer(Protocol):
    """Something that scores queries against a gallery, block by block."""

    def __call__(self, queries: Sequence[Clip], gallery: Sequence[Clip]) -> Iterator[np.ndarray]:
        """Scores ``(≤ 512, len(gallery))`` of the next queries."""


def by_cosine(embeddings: Embeddings, known: Known) -> Scorer:
    """Score by the cosine of embeddings; every clip must have one."""

    def score(queries: Sequence[Clip], gallery: Sequence[Clip]) -> Iterator[np.ndarray]:
        rows = (embeddings.rows(clips, known.people) for clips in (queries, gallery))
        return embeddings.cosine_blocks(*rows)

    return score


def by_attribute(name: str, known: Known) -> Scorer:
    """Score as an oracle does that knows one attribute (see :mod:`crossmodal.evaluation.oracles`)."""

    def score(queries: Sequence[Clip], gallery: Sequence[Clip]) -> Iterator[np.ndarray]:
        asked, offered = (known.values([clip.person for clip in clips], name) for clips in (queries, gallery))
        known.require([clip.person for clip in (*queries, *gallery)], name)
        for start in range(0, len(asked), _BLOCK):
            yield agreement(asked[start : start + _BLOCK, None], offered[None]).astype(np.float32)

    return score


def draw_galleries(
    items: Items, known: Known, *, people: int = 0, count: int = 0, per_person: int = 0, seed: int = 0
) -> list[Gallery]:
    """Disjoint galleries of the people who have both a voice and a face.

    Args:
        items: what there is.
        known: who is who.
        people: in each gallery; 0: everybody, in one.
        count: galleries; 0: as many as there are people for.
        per_person: at most so many voices and so many faces of each person, drawn; 0: all.
        seed: of the draws.

    Raises:
        DataError: not enough people.
    """
    voices, faces = _by_person(items.voices, known), _by_person(items.faces, known)
    both = sorted(voices.keys() & faces.keys())
    people = people or len(both)
    count = count or (len(both) // people if people else 0)
    if people < 2 or count < 1 or count * people > len(both):
        raise DataError(
            f"{len(both)} people have a voice and a face: not enough for {max(count, 1)} × {people}",
            source="galleries",
            remedy="ask for fewer or smaller galleries, of two people at least",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(both)

    def some(clips: list[Clip]) -> list[Clip]:
        if not per_person or len(clips) <= per_person:
            return clips
        return [clips[i] for i in sorted(rng.choice(len(clips), per_person, replace=False))]

    galleries = []
    for start in range(0, count * people, people):
        chosen = order[start : start + people].tolist()
        galleries.append(
            Gallery(
                [clip for person in chosen for clip in some(voices[person])],
                [clip for person in chosen for clip in some(faces[person])],
                people,
            )
        )
    return galleries


def retrieval(
    score: Scorer, galleries: Sequence[Gallery], known: Known, *, beside: str | None = None, seed: int = 0
) -> Association:
    """R@K and mAP in both directions, averaged over the queries of all galleries.

    R@K is the share of queries with one right item at least among the first K; mAP the mean of the average precision
    over all right items. Chance is what random ranking gives on the same galleries.

    Args:
        score: what ranks.
        galleries: of :func:`draw_galleries`.
        known: who is who.
        beside: attribute of the oracle to print beside; ``None`` for none.
        seed: of the bootstrap.
    """
    oracle = by_attribute(beside, known) if beside else None
    result = Association({"galleries": [_sizes(g) for g in galleries], "n": 0})
    for direction in ("v2f", "f2v"):
        sides = [(g.voices, g.faces) if direction == "v2f" else (g.faces, g.voices) for g in galleries]
        ks = [k for k in KS if k < min(len(offered) for _, offered in sides)]
        persons = [[known.key(clip.person) for clip in asked] for asked, _ in sides]
        places = [_places(own, [known.key(c.person) for c in offered]) for own, (_, offered) in zip(persons, sides)]
        measured = [rank(score(*side), where, len(side[1])) for side, where in zip(sides, places)]
        told = [rank(oracle(*side), where, len(side[1])) for side, where in zip(sides, places)] if oracle else []
        guessed = [guessing(np.array([len(p) for p in where]), len(side[1])) for side, where in zip(sides, places)]
        sizes = sorted({len(offered) for _, offered in sides})
        gallery = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
        names = {**{f"R@{k}": k for k in ks}, "mAP": 0}
        values = np.stack([_values(measured, k) for k in names.values()], axis=1)
        intervals = _intervals(values, np.concatenate(persons), seed)
        figures = [
            Figure(
                f"{name}, {direction}, gallery of {gallery}",
                mean_credit(values[:, i]),
                *intervals[i],
                n=len(values),
                reference=mean_credit(_values(told, k)) if told else None,
                reference_name=f"{beside} oracle" if told else "",
                chance=mean_credit(_values(guessed, k)),
            )
            for i, (name, k) in enumerate(names.items())
        ]
        result.figures += figures
        result.headline[direction] = _headline(figures, ks, sizes)
        result.headline["n"] += figures[0].n
        result.lines.append(_line(direction, figures, len(galleries), gallery))
        if len(ks) > 1:
            result.curves += _curves(direction, ks, figures)
    return result


def _by_person(clips: Sequence[Clip], known: Known) -> dict[str, list[Clip]]:
    groups: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.path):
        groups.setdefault(known.key(clip.person), []).append(clip)
    return groups


def _places(asked: Sequence[str], offered: Sequence[str]) -> list[np.ndarray]:
    """For each query's person the places of their items in the gallery."""
    keys = np.array(offered)
    where = {person: np.flatnonzero(keys == person) for person in set(asked)}
    return [where[person] for person in asked]


def _values(ranks: Sequence[Ranks], k: int) -> np.ndarray:
    """R@k of every query of all galleries, or the average precision for ``k`` = 0."""
    return np.concatenate([part.recall_at_k(k) if k else part.average_precision() for part in ranks])


def _intervals(values: np.ndarray, persons: np.ndarray, seed: int) -> list[tuple[float, float]]:
    """Intervals of the means of ``values (Q, M)``, people drawn again: one draw serves all M."""
    _, member = np.unique(persons, return_inverse=True)
    table = np.stack([np.bincount(member, weights=column) for column in (*values.T, np.ones(len(values)))], axis=1)
    sums = np.stack([np.einsum("c,cm->m", counts, table) for counts in draw_people(len(table), seed)])
    return [interval(column) for column in (sums[:, :-1] / sums[:, -1:]).T]


def _sizes(gallery: Gallery) -> dict[str, int]:
    return {"people": gallery.people, "voices": len(gallery.voices), "faces": len(gallery.faces)}


def _headline(figures: Sequence[Figure], ks: Sequence[int], sizes: Sequence[int]) -> dict:
    def each(part: str) -> dict:
        values = [getattr(f, part) for f in figures]
        return {"recall": dict(zip(map(str, ks), values)), "map": values[-1]}

    low, high = each("low"), each("high")
    content = {"n": figures[0].n, "gallery": list(sizes), **each("value"), "chance": each("chance")}
    intervals = {k: [low["recall"][k], high["recall"][k]] for k in low["recall"]}
    content["ci95"] = {"recall": intervals, "map": [low["map"], high["map"]]}
    if figures[0].reference is not None:
        content["oracle"] = each("reference")
    return content


def _line(direction: str, figures: Sequence[Figure], count: int, gallery: str) -> str:
    text = ", ".join(f"{f.name.split(',')[0]} {100 * f.value:.1f} %" for f in figures)
    chance = ", ".join(f"{100 * (f.chance or 0):.1f}" for f in figures)
    averaged = f", {count} disjoint galleries averaged" if count > 1 else ""
    return f"{direction}: {text} (chance {chance}) of {figures[0].n} queries, gallery of {gallery}{averaged}"


def _curves(direction: str, ks: Sequence[int], figures: Sequence[Figure]) -> list:
    steps = figures[: len(ks)]

    def series(part: str) -> list[float]:
        return [float(getattr(f, part)) for f in steps]

    labels = ("K", ks, "recall at K")
    curves = [plain_curve(direction, *labels, series("value"), steps[0].n, series("low"), series("high"))]
    curves.append(plain_curve(f"{direction}, chance", *labels, series("chance"), steps[0].n))
    if steps[0].reference is not None:
        curves.append(plain_curve(f"{direction}, oracle", *labels, series("reference"), steps[0].n))
    return curves
