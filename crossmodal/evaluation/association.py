"""How well a face and a voice are told to belong together: verification, matching and retrieval, as figures.

Every figure stands beside chance and, where people are known, beside an oracle that knows one attribute only
(:mod:`crossmodal.evaluation.oracles`). Intervals draw **people** again, not pairs: the pairs of one person rise and
fall together (Field & Welsh 2007, "Bootstrapping clustered data"). The person of a case is the one who is asked about:
the voice in verification, the probe in matching, the query in retrieval (:mod:`crossmodal.evaluation.retrieval`).

Protocols: verification and its strata, Nagrani et al. 2018 ("Learnable PINs", ECCV); 1:2 and 1:N matching, Nagrani et
al. 2018 ("Seeing Voices and Hearing Faces", CVPR); heard and unheard languages, Saeed et al. 2024 (FAME challenge).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossmodal.data.protocols import Clip, MatchingTrial, VerificationTrial
from crossmodal.data.sets.layout import AUDIO, VIDEO
from crossmodal.errors import DataError
from crossmodal.evaluation.figures import DRAWS, LEVELS, Curve, Figure, figure
from crossmodal.evaluation.metrics import PairScores, matching_credit, mean_credit
from crossmodal.evaluation.oracles import SEEN, STRATA, UNSEEN, Known

_GRID = np.linspace(0.0, 1.0, 51)


@dataclass
class Association:
    """What one protocol found."""

    headline: dict[str, Any]
    """The main numbers, for JSON: ``auc``, ``eer``, ``accuracy`` …, ``n``, ``ci95``, ``chance``."""
    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """The headline for people to read."""


def verification(
    scores: np.ndarray,
    pairs: Sequence[VerificationTrial],
    known: Known,
    *,
    beside: str | None = None,
    heard: str = "",
    seed: int = 0,
) -> Association:
    """AUC and EER of scored pairs, of all and of each stratum.

    Strata keep all pairs of one person and only those of different people who share gender (G), nationality (N), age
    (A), or several of these; and, with a split, the pairs whose people are all seen in training or all unseen; and,
    with languages, the pairs of each.

    Args:
        scores: ``(N,)``, higher means more alike.
        pairs: the list.
        known: what is known of its people.
        beside: attribute of the oracle to print beside; ``None`` for none.
        heard: language that the system was trained on; the others are unheard.
        seed: of the bootstrap.

    Raises:
        DataError: no pairs, or only pairs of one kind.
    """
    same = np.array([pair.same for pair in pairs], dtype=bool)
    strata = {"all pairs": np.ones(len(pairs), bool), **_pair_strata(pairs, same, known, heard)}
    sorted_pairs = {name: PairScores(scores[mask], same[mask]) for name, mask in strata.items()}
    languages = [name for name in strata if name.startswith("voices in ")]
    clusters, named = clusters_of([pair.voice for pair in pairs], known)
    oracle = _pair_oracle(pairs, known, beside)
    drawn, bands = _verification_draws(sorted_pairs, strata, clusters, seed)
    result = Association({})
    for name, mask in strata.items():
        value = sorted_pairs[name].measure()
        other = PairScores(oracle[mask], same[mask]).measure() if oracle is not None else (None, None)
        for k, metric in enumerate(("AUC", "EER")):
            low, high = interval(drawn[name][:, k])
            reference = {"reference": other[k], "reference_name": f"{beside} oracle"} if oracle is not None else {}
            result.figures.append(
                Figure(f"{metric}, {name}", value[k], low, high, int(mask.sum()), chance=0.5, **reference)  # type: ignore[arg-type]
            )
    if len(languages) > 1:  # the score of the FAME challenge
        low, high = interval(np.mean([drawn[name][:, 1] for name in languages], axis=0))
        mean = float(np.mean([sorted_pairs[name].measure()[1] for name in languages]))
        result.figures.append(Figure("EER, mean over languages", mean, low, high, len(pairs), chance=0.5))
    auc, eer = result.figures[:2]
    result.headline = {
        "auc": auc.value,
        "eer": eer.value,
        "n": len(pairs),
        "positives": int(same.sum()),
        "people": len(np.unique(clusters)) if named else None,
        "ci95": {"auc": [auc.low, auc.high], "eer": [eer.low, eer.high]},
        "chance": 0.5,
    }
    result.curves = _roc_curves(sorted_pairs["all pairs"], bands, len(pairs))
    if oracle is not None:
        result.headline["oracle"] = {"attribute": beside, "auc": auc.reference, "eer": eer.reference}
        result.curves.append(_roc_curve(f"{beside} oracle", PairScores(oracle, same), len(pairs)))
    result.notes = _notes(named, known, pairs=pairs)
    result.lines = [
        f"AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}], EER {eer.value:.3f} = {100 * eer.value:.1f} % "
        f"[{100 * eer.low:.1f}, {100 * eer.high:.1f}] on {len(pairs)} pairs, {int(same.sum())} of one person"
        + (f", {result.headline['people']} people" if named else "")
        + "; chance AUC 0.500, EER 50.0 %"
        + (f"; {beside} oracle AUC {auc.reference:.3f}, EER {100 * (eer.reference or 0):.1f} %" if beside else "")
    ]
    return result


def matching(
    right: np.ndarray,
    wrong: np.ndarray,
    trials: Sequence[MatchingTrial],
    known: Known,
    *,
    beside: str | None = None,
    seed: int = 0,
) -> Association:
    """Accuracy of picking the right one of N candidates, for every N up to the list's own.

    Candidates are nested: a trial of N has the right one and the first N − 1 wrong ones, so that the trials of a small
    N are part of those of a larger one. Ties share the credit (:func:`crossmodal.evaluation.metrics.matching_credit`).

    Args:
        right: ``(T,)`` scores of the right candidates.
        wrong: ``(T, C − 1)`` scores of the wrong ones, in the list's order.
        trials: the list.
        known: what is known of its people.
        beside: attribute of the oracle to print beside; ``None`` for none.
        seed: of the bootstrap.

    Raises:
        DataError: no trials, or scores that are not finite.
    """
    if not len(trials):
        raise DataError("no trials to score", source="matching")
    if not (np.isfinite(right).all() and np.isfinite(wrong).all()):
        raise DataError("some scores are not finite", source="matching")
    clusters, named = clusters_of([trial.probe for trial in trials], known)
    oracle = trial_oracle(trials, known, beside) if beside else None
    most = wrong.shape[1] + 1

    def accuracy(name: str, mask: np.ndarray, n: int) -> Figure:
        reference: dict[str, Any] = {}
        if oracle is not None:
            credit = matching_credit(oracle[0][mask], oracle[1][mask, : n - 1])
            reference = {"reference": mean_credit(credit), "reference_name": f"{beside} oracle"}
        credit = matching_credit(right[mask], wrong[mask, : n - 1])
        measured = figure(name, credit, clusters=clusters[mask], chance=1 / n, seed=seed, **reference)
        return dataclasses.replace(measured, value=mean_credit(credit))

    result = Association({})
    directions = _directions(trials)
    for direction, mask in directions.items():
        steps = [accuracy(f"accuracy 1:{n}, {direction}", mask, n) for n in range(2, most + 1)]
        result.figures += steps
        if most > 2:
            result.curves.append(_steps_curve(direction, steps))
        strata = _trial_strata([t for t, kept in zip(trials, mask) if kept], known)
        inside = np.flatnonzero(mask)
        for name, part in strata.items():
            chosen = np.zeros(len(trials), bool)
            chosen[inside[part]] = True
            result.figures.append(accuracy(f"accuracy 1:2, {direction}, {name}", chosen, 2))
    if most > 2:
        numbers = range(2, most + 1)
        result.curves.append(plain_curve("chance", "candidates", numbers, "accuracy", [1 / n for n in numbers], 0))
    whole = accuracy("", np.ones(len(trials), bool), most)
    result.headline = {
        "accuracy": whole.value,
        "n": len(trials),
        "candidates": most,
        "directions": list(directions),
        "people": len(np.unique(clusters)) if named else None,
        "ci95": [whole.low, whole.high],
        "chance": 1 / most,
    }
    if oracle is not None:
        result.headline["oracle"] = {"attribute": beside, "accuracy": whole.reference}
    result.notes = _notes(named, known, trials=trials)
    result.lines = [
        f"accuracy {100 * whole.value:.1f} % [{100 * whole.low:.1f}, {100 * whole.high:.1f}] of {len(trials)} trials "
        f"1:{most}, {' and '.join(directions)}"
        + (f", {result.headline['people']} people" if named else "")
        + f"; chance {100 / most:.1f} %"
        + (f"; {beside} oracle {100 * (whole.reference or 0):.1f} %" if beside else "")
    ]
    return result


def pair_oracle(pairs: Sequence[VerificationTrial], known: Known, attribute: str) -> np.ndarray:
    """Scores ``(N,)`` of an oracle: 1 where voice and face share the attribute, 0 where not, 0.5 where not known.

    Raises:
        DataError: nothing is known of these people.
    """
    voices, faces = [pair.voice.person for pair in pairs], [pair.face.person for pair in pairs]
    known.require([*voices, *faces], attribute)
    return known.agree(voices, faces, attribute)


def trial_oracle(trials: Sequence[MatchingTrial], known: Known, attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of an oracle for the right ``(T,)`` and the wrong candidates ``(T, C − 1)`` (see :func:`pair_oracle`).

    Raises:
        DataError: nothing is known of these people.
    """
    ordered = [ordered_candidates(trial) for trial in trials]
    known.require([trial.probe.person for trial in trials] + [c.person for row in ordered for c in row], attribute)
    columns = [
        known.agree([trial.probe.person for trial in trials], [row[k].person for row in ordered], attribute)
        for k in range(len(ordered[0]))
    ]
    return columns[0], np.stack(columns[1:], axis=1)


def ordered_candidates(trial: MatchingTrial) -> tuple[Clip, ...]:
    """The candidates of a trial, the right one first, the others in the list's order."""
    others = tuple(clip for k, clip in enumerate(trial.candidates) if k != trial.answer)
    return (trial.candidates[trial.answer], *others)


def _pair_oracle(pairs: Sequence[VerificationTrial], known: Known, attribute: str | None) -> np.ndarray | None:
    return pair_oracle(pairs, known, attribute) if attribute else None


def clusters_of(clips: Sequence[Clip], known: Known) -> tuple[np.ndarray, bool]:
    """Whose case each is, as numbers, and whether that is known; where it is not, every clip is its own."""
    named = all(clip.person for clip in clips)
    keys = {clip.person: known.key(clip.person) for clip in clips} if named else {}
    texts = [keys[clip.person] if named else clip.path for clip in clips]
    return np.unique(texts, return_inverse=True)[1], named


def _verification_draws(
    sorted_pairs: dict[str, PairScores], strata: dict[str, np.ndarray], clusters: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """AUC and EER ``(DRAWS, 2)`` of every stratum in every draw of people, and the ROC of all pairs on the grid.

    A draw is how often each person came up, the same for all strata; no pair is gathered and no score sorted again.
    """
    members = {name: clusters[mask][sorted_pairs[name].order] for name, mask in strata.items()}
    drawn = {name: np.empty((DRAWS, 2)) for name in strata}
    rocs = np.empty((DRAWS, len(_GRID)))
    for i, counts in enumerate(draw_people(int(clusters.max()) + 1, seed)):
        for name, member in members.items():
            drawn[name][i] = sorted_pairs[name].measure(counts[member])
        rocs[i] = np.interp(_GRID, *sorted_pairs["all pairs"].roc(counts[members["all pairs"]]))
    return drawn, rocs


def draw_people(people: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of ``people`` comes up ``(people,)`` in every one of the bootstrap's draws."""
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        yield np.bincount(rng.integers(people, size=people), minlength=people).astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % percentile interval of drawn values; draws without a value do not count."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, LEVELS)
    return float(low), float(high)


def _pair_strata(
    pairs: Sequence[VerificationTrial], same: np.ndarray, known: Known, heard: str
) -> dict[str, np.ndarray]:
    """Masks of the parts of a list that hold pairs of both kinds and are not the whole."""
    voices, faces = [pair.voice.person for pair in pairs], [pair.face.person for pair in pairs]
    found: dict[str, np.ndarray] = {}
    spoken = np.array([pair.voice.language for pair in pairs])
    for language in sorted(set(spoken) - {""}):
        status = "" if not heard else ", heard" if language.casefold() == heard.casefold() else ", unheard"
        found[f"voices in {language}{status}"] = spoken == language
    seen = [(known.seen(voice), known.seen(face)) for voice, face in zip(voices, faces)]
    for name, side in ((SEEN, True), (UNSEEN, False)):
        found[name] = np.array([both == (side, side) for both in seen])
    agree = {name: known.agree(voices, faces, name) == 1 for name in STRATA["GNA"]}
    for letters, attributes in STRATA.items():
        shared = np.logical_and.reduce([agree[name] for name in attributes])
        if (shared & ~same).any():
            found[f"same {', '.join(attributes)} ({letters})"] = same | shared
    return {name: mask for name, mask in found.items() if not mask.all() and 0 < same[mask].sum() < mask.sum()}


def _trial_strata(trials: Sequence[MatchingTrial], known: Known) -> dict[str, np.ndarray]:
    """Masks of the parts of 1:2 trials in which the wrong candidate is like the probe, or all are seen or unseen."""
    ordered = [ordered_candidates(trial)[:2] for trial in trials]
    probes, wrong = [trial.probe.person for trial in trials], [row[1].person for row in ordered]
    found: dict[str, np.ndarray] = {}
    seen = [{known.seen(person) for person in pair} for pair in zip(probes, wrong)]
    for name, side in ((SEEN, True), (UNSEEN, False)):
        found[name] = np.array([sides == {side} for sides in seen])
    agree = {name: known.agree(probes, wrong, name) == 1 for name in STRATA["GNA"]}
    for letters, attributes in STRATA.items():
        shared = np.logical_and.reduce([agree[name] for name in attributes])
        found[f"same {', '.join(attributes)} ({letters})"] = shared
    return {name: mask for name, mask in found.items() if 0 < mask.sum() < len(mask)}


def _directions(trials: Sequence[MatchingTrial]) -> dict[str, np.ndarray]:
    """Masks of the trials from voice to face (v2f) and from face to voice (f2v); one if the suffixes do not tell."""

    def direction(clip: Clip) -> str:
        suffix = "." + clip.file.rpartition(".")[2].lower()
        return "f2v" if clip.is_face else "v2f" if suffix in AUDIO | VIDEO else "matching"

    names = np.array([direction(trial.probe) for trial in trials])
    return {name: names == name for name in sorted(set(names), reverse=True)}


def _notes(
    named: bool,
    known: Known,
    *,
    pairs: Sequence[VerificationTrial] = (),
    trials: Sequence[MatchingTrial] = (),
) -> list[str]:
    """What a reader has to know of people, oracle and split."""
    notes = []
    if not named:
        notes.append("the list does not say who is who: intervals draw clips, not people, and may be too narrow")
    if known.sides is not None:
        persons = [clip.person for pair in pairs for clip in (pair.voice, pair.face)]
        persons += [clip.person for trial in trials for clip in (trial.probe, *trial.candidates)]
        sides = {known.key(person): known.seen(person) for person in persons}
        counts = {seen: sum(side is seen for side in sides.values()) for seen in (True, False, None)}
        notes.append(
            f"{counts[True]} of the people are seen in training, {counts[False]} are not"
            + (f", {counts[None]} are not in the split" if counts[None] else "")
        )
    return notes


def _roc_curves(pairs: PairScores, bands: np.ndarray, n: int) -> list[Curve]:
    low, high = np.nanpercentile(bands, LEVELS, axis=0) if np.isfinite(bands).any() else (_GRID * np.nan,) * 2
    chance = plain_curve("chance", _FPR, _GRID, _TPR, _GRID, n)
    return [_roc_curve("all pairs", pairs, n, low, high), chance]


_FPR, _TPR = "false-positive rate", "true-positive rate"


def _roc_curve(
    name: str, pairs: PairScores, n: int, low: np.ndarray | None = None, high: np.ndarray | None = None
) -> Curve:
    y = np.interp(_GRID, *pairs.roc())
    return plain_curve(name, _FPR, _GRID, _TPR, y, n, low, high)


def _steps_curve(name: str, steps: Sequence[Figure]) -> Curve:
    y, low, high = ([getattr(f, part) for f in steps] for part in ("value", "low", "high"))
    return plain_curve(name, "candidates", range(2, len(steps) + 2), "accuracy", y, steps[0].n, low, high)


def plain_curve(
    name: str, x_label: str, x: Any, y_label: str, y: Any, n: int, low: Any = None, high: Any = None
) -> Curve:
    """A curve from any sequences; without an interval it has none (NaN)."""
    missing = [float("nan")] * len(y)
    parts = (
        tuple(map(float, part)) for part in (x, y, missing if low is None else low, missing if high is None else high)
    )
    xs, ys, lows, highs = parts
    return Curve(name, x_label, xs, y_label, ys, lows, highs, n)
