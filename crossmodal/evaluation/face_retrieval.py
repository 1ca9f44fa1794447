"""Face retrieval: does a predicted face feature find its person among the true features of many?

Two protocols. Speech2Face (Oh et al. 2019, section 4.2): one gallery of 5,000 true features, queried by cosine, L2 or
L1 distance. SF2F (Bai et al. 2022): three disjoint galleries of 100 people, each person the mean of their true
features. Chance is K over the gallery's size. Candidates that tie with the right one share its place: nothing is won by
the order of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from crossmodal.errors import DataError
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.metrics import Ranks, rank

if TYPE_CHECKING:
    from PIL import Image

Distance = Literal["cosine", "L2", "L1"]
DISTANCES: tuple[Distance, ...] = ("cosine", "L2", "L1")
KS = (1, 2, 5, 10, 20, 25, 50, 75, 100)
SF2F_KS = (1, 2, 5, 10, 20, 50)
SF2F_SIZE, SF2F_GALLERIES = 100, 3
GALLERY = 5000


def distances(query: np.ndarray, gallery: np.ndarray, kind: Distance = "cosine") -> np.ndarray:
    """``(N, D)`` against ``(G, D)`` → ``(N, G)``; the cosine distance is the angle in degrees."""
    from scipy.spatial.distance import cdist

    query, gallery = np.asarray(query, dtype=np.float64), np.asarray(gallery, dtype=np.float64)
    if kind == "cosine":
        cosine = unit(query) @ unit(gallery).T
        return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return cdist(query, gallery, "euclidean" if kind == "L2" else "cityblock")


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of unit length; a zero row stays."""
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def paired(one: np.ndarray, other: np.ndarray, kind: Distance = "cosine") -> np.ndarray:
    """Distance of row i of ``(N, D)`` to row i of the other ``(N, D)``: ``(N,)``, the cosine as an angle in degrees."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if kind == "cosine":
        return np.degrees(np.arccos(np.clip((unit(one) * unit(other)).sum(-1), -1, 1)))
    return np.linalg.norm(one - other, ord=2 if kind == "L2" else 1, axis=-1)


def ranked(table: np.ndarray, right: np.ndarray) -> Ranks:
    """Places of the right candidates.

    Args:
        table: ``(N, G)`` distances.
        right: ``(N,)`` column of the right candidate of each row.
    """
    return rank([-table], list(np.asarray(right)[:, None]), table.shape[1])


def recall(
    query: np.ndarray,
    right: np.ndarray,
    gallery: np.ndarray,
    people: np.ndarray,
    *,
    name: str,
    ks: Sequence[int] = KS,
    kind: Distance = "cosine",
    seed: int = 0,
) -> list[Figure]:
    """R@K with intervals over people; one figure for each K below the gallery's size.

    Args:
        query: ``(N, D)`` predicted features.
        right: ``(N,)`` row of the right one in the gallery.
        gallery: ``(G, D)`` true features.
        people: ``(N,)`` whose the queries are.
        name: ends the figures' names.
        ks: the Ks.
        kind: the distance.
        seed: of the bootstrap.
    """
    ranks = ranked(distances(query, gallery, kind), right)
    return [
        figure(
            f"R@{k} of {len(gallery)}, {name}", ranks.recall_at_k(k),
            reference=k / len(gallery), reference_name="chance", clusters=people, seed=seed,
        )
        for k in ks
        if k < len(gallery)
    ]  # fmt: skip


def person_means(features: np.ndarray, people: Sequence[str] | np.ndarray) -> tuple[list[str], np.ndarray]:
    """Sorted people, and the mean of each one's features ``(P, D)``."""
    names, member = np.unique(np.asarray(people), return_inverse=True)
    sums = np.zeros((len(names), features.shape[1]))
    np.add.at(sums, member, features)
    return [str(n) for n in names], sums / np.bincount(member)[:, None]


def sf2f_galleries(people: Sequence[str], seed: int = 0) -> list[list[str]]:
    """Disjoint galleries of 100 people, three at most; one of all of them if there are fewer than 100.

    Who is in which is decided by a hash of the names and ``seed``.
    """
    from crossmodal.data.splits import fraction

    order = sorted(set(people), key=lambda name: fraction(f"gallery:{name}", seed))
    if len(order) < SF2F_SIZE:
        return [sorted(order)]
    count = min(SF2F_GALLERIES, len(order) // SF2F_SIZE)
    return [sorted(order[g * SF2F_SIZE : (g + 1) * SF2F_SIZE]) for g in range(count)]


def sf2f_recall(
    query: np.ndarray,
    people: np.ndarray,
    true: np.ndarray,
    true_people: np.ndarray,
    *,
    name: str,
    seed: int = 0,
) -> list[Figure]:
    """R@K of SF2F: queries against per-identity mean features, over disjoint galleries.

    Args:
        query: ``(N, D)`` features of generated faces.
        people: ``(N,)`` whose voices they are.
        true: ``(M, D)`` true features.
        true_people: ``(M,)`` whose they are.
        name: ends the figures' names.
        seed: of galleries and bootstrap.

    Raises:
        DataError: fewer than two people.
    """
    names, means = person_means(true, true_people)
    if len(names) < 2:
        raise DataError("a gallery needs two people", source="SF2F retrieval")
    place = {n: i for i, n in enumerate(names)}
    galleries = sf2f_galleries(names, seed)
    found, who = [], []
    for gallery in galleries:
        inside = {n: i for i, n in enumerate(gallery)}
        rows = [i for i, person in enumerate(people) if str(person) in inside]
        if rows:
            right = np.array([inside[str(people[i])] for i in rows])
            found.append(ranked(distances(query[rows], means[[place[n] for n in gallery]]), right))
            who.append(np.asarray(people)[rows])
    size = len(galleries[0])
    label = f"of {size} people" + (f" × {len(galleries)} galleries" if len(galleries) > 1 else "")
    return [
        figure(
            f"SF2F R@{k} {label}, {name}",
            np.concatenate([ranks.recall_at_k(k) for ranks in found]),
            reference=k / size, reference_name="chance", clusters=np.concatenate(who), seed=seed,
        )
        for k in SF2F_KS
        if k < size
    ]  # fmt: skip


def top_picture(
    query: np.ndarray,
    right: int,
    gallery: np.ndarray,
    drawn: Image.Image,
    picture: Callable[[int], Image.Image],
    *,
    first: int = 5,
) -> Image.Image:
    """A row of pictures: the true face, the drawn one, and the ``first`` nearest true faces, the right one marked.

    Args:
        query: ``(D,)`` feature of the drawn face.
        right: row of the right one in the gallery.
        gallery: ``(G, D)``.
        drawn: the drawn face.
        picture: gallery row → its photo.
        first: how many are shown.
    """
    from crossmodal.pictures import contact_sheet

    angles = distances(query[None], gallery)[0]
    order = np.argsort(angles, kind="stable")
    shown = order[: min(first, len(order))]
    place = int(np.flatnonzero(order == right)[0]) + 1
    images = [picture(right), drawn, *(picture(int(i)) for i in shown)]
    captions = [f"true face (place {place} of {len(order)})", "generated"]
    captions += [f"{n}. {angles[i]:.0f}°{' (right)' if i == right else ''}" for n, i in enumerate(shown, 1)]
    return contact_sheet(images, captions, columns=len(images), tile=180)
