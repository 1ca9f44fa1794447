"""Twelve craniofacial measures of a face from its landmarks, and how well they agree between two sets of faces.

The measures are those of Speech2Face (Oh et al. 2019, section 4.1), which names them after anthropometry (Farkas 1994)
and correlates them between faces decoded from the *photo's* feature and faces decoded from the *voice's*: both are
frontal, neutral and drawn by one decoder, so pose does not matter. The paper prints no coordinates; the points used
here are in :data:`SCHEMES` and the README of this folder.

==============================  ===========================================================
measure                         points
==============================  ===========================================================
upper lip height                sn–sto
lateral upper lip heights       sbal–ls', mean of left and right
jaw width                       go–go
nose height                     n–sn
nose width                      al–al
labio-oral region               ch–ch
mandibular index                (sto–gn) / (go–go)
intercanthal index              (en–en) / (ex–ex)
nasal index                     (al–al) / (n–sn)
vermilion height index          (ls–sto) / (sto–li)
mouth–face width index          (ch–ch) / (zy–zy)
nose area                       area of the quadrilateral n, al, sn, al
==============================  ===========================================================

Lengths are in units of the distance between the middles of the eyes (halfway from ex to en), the area in its square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossmodal.errors import DataError
from crossmodal.evaluation.figures import Figure, bootstrap

Points = dict[str, tuple[int, ...]]
"""Anatomical point → the landmarks whose mean it is. ``_l`` and ``_r`` are left and right *in the picture*."""

PSYCHOMORPH: Points = {
    "ex_l": (18,), "en_l": (22,), "en_r": (23,), "ex_r": (27,),
    "n": (51, 57),
    "al_l": (62, 63), "al_r": (67, 68), "sn": (55,), "sbal_l": (64,), "sbal_r": (69,),
    "ls": (90,), "lsp_l": (88, 89), "lsp_r": (91, 92), "sto": (96, 101), "li": (106,), "ch_l": (87,), "ch_r": (93,),
    "go_l": (125, 126), "go_r": (132, 133), "gn": (129,), "zy_l": (110,), "zy_r": (113,),
}  # fmt: skip
"""The 189-point Psychomorph template (DeBruine & Jones 2017), counted from 0."""

IBUG: Points = {
    "ex_l": (36,), "en_l": (39,), "en_r": (42,), "ex_r": (45,),
    "n": (27,),
    "al_l": (31,), "al_r": (35,), "sn": (33,), "sbal_l": (31, 32), "sbal_r": (34, 35),
    "ls": (51,), "lsp_l": (49, 50), "lsp_r": (52, 53), "sto": (62, 66), "li": (57,), "ch_l": (48,), "ch_r": (54,),
    "go_l": (4,), "go_r": (12,), "gn": (8,), "zy_l": (1,), "zy_r": (15,),
}  # fmt: skip
"""The 68 points of the 300-W mark-up (Sagonas et al. 2013), counted from 0."""

SCHEMES: dict[int, Points] = {68: IBUG, 189: PSYCHOMORPH, 216: PSYCHOMORPH}
"""Number of landmarks → their points; 216 is the template followed by 27 points on the silhouette."""

PUBLISHED = {
    "upper lip height": 0.16, "lateral upper lip heights": 0.26, "jaw width": 0.11, "nose height": 0.14,
    "nose width": 0.35, "labio-oral region": 0.17, "mandibular index": 0.20, "intercanthal index": 0.21,
    "nasal index": 0.38, "vermilion height index": 0.29, "mouth–face width index": 0.20, "nose area": 0.28,
}  # fmt: skip
"""Pearson r between faces of photo and of voice that Speech2Face reports; its shuffled pairs have .02."""
MEASURES = tuple(PUBLISHED)

_SHUFFLES = 200


def scheme(landmarks: int) -> Points:
    """The points of a mark-up of so many landmarks.

    Raises:
        DataError: no such mark-up is known.
    """
    if landmarks not in SCHEMES:
        known = ", ".join(map(str, SCHEMES))
        raise DataError(f"{landmarks} landmarks are no known mark-up", source="craniofacial", remedy=f"use {known}")
    return SCHEMES[landmarks]


def measure(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks ``(N, L, 2)`` in pixels, y down → ``(N, 12)``, in the order of :data:`MEASURES`.

    Place, size and turn of the face do not matter.

    Raises:
        DataError: not a known number of landmarks, or some are not finite.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.ndim != 3 or landmarks.shape[2] != 2:
        raise DataError(f"expected landmarks (N, L, 2), got {landmarks.shape}", source="craniofacial")
    if not np.isfinite(landmarks).all():
        raise DataError("some landmarks are not finite", source="craniofacial")
    p = {name: landmarks[:, list(indices)].mean(1) for name, indices in scheme(landmarks.shape[1]).items()}  # (N, 2)

    def between(one: str, other: str) -> np.ndarray:
        return np.linalg.norm(p[one] - p[other], axis=1)

    eyes = (p["ex_l"] + p["en_l"]) / 2, (p["ex_r"] + p["en_r"]) / 2
    unit = np.maximum(np.linalg.norm(eyes[1] - eyes[0], axis=1), 1e-9)
    nose, mouth, jaw = between("n", "sn"), between("ch_l", "ch_r"), between("go_l", "go_r")
    wings = between("al_l", "al_r")
    columns = {
        "upper lip height": between("sn", "sto") / unit,
        "lateral upper lip heights": (between("sbal_l", "lsp_l") + between("sbal_r", "lsp_r")) / 2 / unit,
        "jaw width": jaw / unit,
        "nose height": nose / unit,
        "nose width": wings / unit,
        "labio-oral region": mouth / unit,
        "mandibular index": _ratio(between("sto", "gn"), jaw),
        "intercanthal index": _ratio(between("en_l", "en_r"), between("ex_l", "ex_r")),
        "nasal index": _ratio(wings, nose),
        "vermilion height index": _ratio(between("ls", "sto"), between("sto", "li")),
        "mouth–face width index": _ratio(mouth, between("zy_l", "zy_r")),
        "nose area": _area(p["n"], p["al_r"], p["sn"], p["al_l"]) / unit**2,
    }
    return np.stack([columns[name] for name in MEASURES], axis=1)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / np.maximum(b, 1e-9)


def _area(*corners: np.ndarray) -> np.ndarray:
    """Area of polygons whose corners ``(N, 2)`` are given in turn (shoelace formula)."""
    x, y = np.stack([c[:, 0] for c in corners]), np.stack([c[:, 1] for c in corners])
    return np.abs((x * np.roll(y, -1, 0) - y * np.roll(x, -1, 0)).sum(0)) / 2


def agreement(
    true: np.ndarray,
    drawn: np.ndarray,
    people: Sequence[Any] | np.ndarray,
    *,
    label: str = "",
    voices: bool = True,
    seed: int = 0,
) -> list[Figure]:
    """Pearson correlation of each measure between true and drawn faces, over people.

    Several faces of a person are averaged first, so that n is people and the p-value (two-sided, of no correlation)
    holds. The chance level is the mean r of shuffled pairs, the reference for faces drawn from voices Speech2Face's r.

    Args:
        true: landmarks ``(N, L, 2)`` of the true faces.
        drawn: landmarks ``(N, K, 2)`` of the drawn ones; the mark-ups may differ.
        people: ``(N,)`` whose they are.
        label: begins the figures' names.
        voices: the faces were drawn from voices, so the published r are of the same task.
        seed: of the bootstrap and the shuffling.

    Raises:
        DataError: fewer than three people, or landmarks that cannot be measured.
    """
    names, member = np.unique(np.asarray(people), return_inverse=True)
    if len(names) < 3:
        raise DataError(f"{len(names)} people are too few to correlate", source="craniofacial")
    a, b = (_means(measure(points), member, len(names)) for points in (true, drawn))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(names)) for _ in range(_SHUFFLES)]
    figures = []
    for k, name in enumerate(MEASURES):
        pairs = np.stack([a[:, k], b[:, k]], axis=1)
        value = pearson(pairs)
        low, high = bootstrap(pairs, pearson, seed=seed)
        shuffled = [pearson(np.stack([pairs[order, 0], pairs[:, 1]], axis=1)) for order in orders]
        chance = float(np.mean(shuffled))  # undefined like the value itself where one side is constant
        unit = f"Pearson r over people, {_p_value(pairs)}"
        published: tuple[float | None, str] = (PUBLISHED[name], "published") if voices else (None, "")
        figures.append(Figure(f"{label}{name}", value, low, high, len(names), *published, unit, chance))
    return figures


def pearson(pairs: np.ndarray) -> float:
    """Pearson correlation of the columns of ``(N, 2)``; NaN where one is constant."""
    centred = pairs - pairs.mean(0)
    spread = np.sqrt((centred**2).sum(0))
    if len(pairs) < 3 or (spread < 1e-12 * np.maximum(1.0, np.abs(pairs).max(0))).any():
        return float("nan")
    return float((centred[:, 0] @ centred[:, 1]) / (spread[0] * spread[1]))


def _p_value(pairs: np.ndarray) -> str:
    from scipy.stats import pearsonr

    if not np.isfinite(pearson(pairs)):
        return "p undefined: a constant"
    return f"p = {pearsonr(pairs[:, 0], pairs[:, 1]).pvalue:.2g}"


def _means(values: np.ndarray, member: np.ndarray, count: int) -> np.ndarray:
    """Mean of the rows of ``(N, K)`` of each of ``count`` people."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, member, values)
    return sums / np.bincount(member, minlength=count)[:, None]
