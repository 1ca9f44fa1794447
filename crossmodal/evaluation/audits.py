"""Audits: for whom does it work worse, and how much clean speech does it need?

**Groups.** A figure's cases are broken down by what is known of the people (gender, age band, ethnicity, nationality,
language) and the worst group is named, with n people and its interval. Groups of fewer than five people are listed as
too few and never named the worst: their interval says nothing. Several of them are measured together instead.

**Sweeps.** The same voices, cut shorter, in white noise, or through a lower sample rate, against themselves clean: does
the drawn face keep the gender, how far does the face feature move, how like itself stays the speaker embedding?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmodal.errors import DataError
from crossmodal.evaluation.attributes import AGE_BANDS, FEWEST_PEOPLE, GROUPS, Probe, labels, majority
from crossmodal.evaluation.drawing import Drawing
from crossmodal.evaluation.figures import Curve, Figure, bootstrap, figure
from crossmodal.evaluation.generated_faces import CaseValues

RATE = 16_000
LENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
"""Seconds."""
SNRS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
"""Decibels."""
RATES = (4_000, 8_000, 11_025, 16_000)
"""Hertz; the clean speech has 16,000."""
CLEAN_SECONDS = 6.0
"""What noise and sample rate are tried on."""


# ---------------------------------------------------------------------------------------- groups


@dataclass
class Breakdown:
    """Figures by group."""

    figures: list[Figure]
    """The worst group of each figure and attribute."""
    tables: list[str]
    """Every group, as Markdown."""
    notes: list[str]


def break_down(
    cases: Sequence[CaseValues],
    attributes: Sequence[Mapping[str, str]],
    people: np.ndarray,
    *,
    groups: Sequence[str] = GROUPS,
    seed: int = 0,
) -> Breakdown:
    """Each figure by each attribute that is known of at least two groups of people.

    Args:
        cases: figures case by case, ``(N,)`` values each.
        attributes: ``N`` rows.
        people: ``(N,)`` whose the cases are; n counts people, and intervals are over them.
        groups: attributes to look at.
        seed: of the bootstraps.

    Raises:
        DataError: the values do not fit the rows.
    """
    found = Breakdown([], [], [])
    people = np.asarray(people)
    for case in cases:
        if len(case.values) != len(attributes) or len(people) != len(attributes):
            problem = f"{len(case.values)} values, {len(attributes)} rows and {len(people)} people do not fit"
            raise DataError(problem, source=case.name)
    for attribute in groups:
        values = labels(attributes, attribute)
        names = _ordered(set(values) - {""})
        if len(names) < 2:
            why = "is the same for all" if names else "is not known"
            found.notes.append(f"not broken down by {attribute}: it {why}")
            continue
        lines = ["| by " + attribute + " | group | value | 95 % interval | people | |", "| --- " * 6 + "|"]
        for case in cases:
            lines += _by_group(found, case, attribute, values, names, people, seed)
        found.tables.append("\n".join(lines))
    return found


def _by_group(
    found: Breakdown,
    case: CaseValues,
    attribute: str,
    values: np.ndarray,
    names: Sequence[str],
    people: np.ndarray,
    seed: int,
) -> list[str]:
    """Rows of the table; the worst group becomes a figure."""
    usable = np.isfinite(case.values)
    if not usable.any():
        return []

    def count(group: Sequence[str]) -> int:
        return len(np.unique(people[usable & np.isin(values, list(group))]))

    groups = {name: [name] for name in names}
    few = [name for name in names if count([name]) < FEWEST_PEOPLE]
    if len(few) > 1 and count(few) >= FEWEST_PEOPLE:
        groups[f"{', '.join(few)} together"] = few
    measured: dict[str, Figure] = {}
    for name, members in groups.items():
        chosen = usable & np.isin(values, members)
        if count(members) >= FEWEST_PEOPLE:
            part = figure(name, case.values[chosen], clusters=people[chosen], seed=seed)
            measured[name] = Figure(name, part.value, part.low, part.high, count(members))
    overall = float(case.values[usable].mean())
    sign = 1.0 if case.higher_is_better else -1.0
    worst = min(measured, key=lambda name: sign * measured[name].value, default="")
    differ = len({part.value for part in measured.values()}) > 1
    if differ:
        title, part = f"worst {attribute}: {worst} ({case.name})", measured[worst]
        unit = f"n = people, {len(measured)} groups compared"
        found.figures.append(Figure(title, part.value, part.low, part.high, part.n, overall, "everybody", unit))
    lines = []
    for name, members in groups.items():
        if name in measured:
            part = measured[name]
            what = f"{part.value:.3f} | [{part.low:.3f}, {part.high:.3f}] | {part.n} | "
            lines.append(what + ("worst" if differ and name == worst else ""))
        else:
            lines.append(f"– | – | {count(members)} | too few")
    lines.append(f"{overall:.3f} | | {count(names)} | ")
    better = "higher" if case.higher_is_better else "lower"
    title = f"{case.name} ({better} is better)"
    return [
        f"| {title if k == 0 else ''} | {g} | {line} |"
        for k, (g, line) in enumerate(zip([*groups, "everybody"], lines))
    ]


def _ordered(names: set[str]) -> list[str]:
    bands = [name for _, name in AGE_BANDS]
    return sorted(names, key=lambda n: (bands.index(n) if n in bands else -1, n))


# ---------------------------------------------------------------------------------------- sweeps


@dataclass
class AuditVoices:
    """Voices to be spoilt."""

    people: Sequence[str]
    gender: np.ndarray
    """``(N,)``; empty where unknown."""
    waveforms: Sequence[np.ndarray]
    """Clean speech ``(T_i,)`` at 16 kHz."""


def shorten(waveform: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A stretch of ``seconds`` from a random place; the whole if it is no longer."""
    samples = round(seconds * RATE)
    start = int(rng.integers(0, max(1, len(waveform) - samples + 1)))
    return waveform[start : start + samples]


def add_noise(waveform: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """White noise at ``snr`` dB below the speech's mean power; scaled down where it would clip."""
    noise = rng.standard_normal(len(waveform))
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    noise *= np.sqrt(power / max(float(np.mean(noise**2)), 1e-12) / 10 ** (snr / 10))
    mixed = waveform + noise
    return (mixed / max(1.0, float(np.abs(mixed).max(initial=0.0)))).astype(np.float32)


def lower_rate(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Speech as a recording of ``rate`` Hz would hold it, back at 16 kHz: what lies above rate / 2 is gone."""
    if rate >= RATE:
        return waveform
    from crossmodal.media import resample

    there = resample(np.ascontiguousarray(waveform, dtype=np.float32), RATE, int(rate))
    back = resample(there, int(rate), RATE)
    return np.pad(back, (0, max(0, len(waveform) - len(back))))[: len(waveform)].astype(np.float32)


def sweeps(
    drawing: Drawing,
    voices: AuditVoices,
    probe: Probe | None,
    *,
    lengths: Sequence[float] = LENGTHS,
    snrs: Sequence[float] = SNRS,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[Curve], list[str]]:
    """Three sweeps, up to three curves each, and notes.

    Args:
        drawing: the bundle.
        voices: clean speech.
        probe: gender in face features; without one the gender of drawn faces is left out.
        lengths: seconds; those that fewer than half of the voices (or fewer than two) have are left out.
        snrs: decibels.
        rates: hertz.
        seed: of places, noise and bootstraps.
        progress: told what is being done.

    Raises:
        DataError: fewer than two voices.
    """
    if len(voices.waveforms) < 2:
        raise DataError(f"{len(voices.waveforms)} voices are too few for a sweep", source="audit")
    notes = []
    seconds = np.array([len(w) / RATE for w in voices.waveforms])
    enough = [x for x in lengths if np.count_nonzero(seconds >= x) >= max(2, len(seconds) / 2)]
    if len(enough) < len(lengths):
        left = ", ".join(f"{x:g}" for x in lengths if x not in enough)
        notes.append(f"clip length: fewer than half of the voices have {left} s of speech")
    curves: list[Curve] = []
    if enough:
        rows = [i for i in range(len(seconds)) if seconds[i] >= max(enough)]
        some = _pick(voices, rows)
        longest = f"clean: all {seconds[rows].mean():.1f} s (mean) of the clip it is cut from"
        curves += _sweep(
            drawing, some, probe, "clip length", "clip length (s)", enough, some.waveforms,
            lambda w, x, rng: shorten(w, x, rng), seed, progress,
        )  # fmt: skip
        notes.append(f"clip length: {longest}")
    clean = [w[: round(CLEAN_SECONDS * RATE)] for w in voices.waveforms]
    curves += _sweep(
        drawing, voices, probe, "noise", "signal-to-noise ratio (dB)", snrs, clean, add_noise, seed, progress
    )
    curves += _sweep(
        drawing, voices, probe, "sample rate", "sample rate (kHz)", [r / 1000 for r in rates], clean,
        lambda w, x, _: lower_rate(w, 1000 * x), seed, progress,
    )  # fmt: skip
    if probe is None:
        notes.append("no gender of drawn faces: no probe could be fitted")
    return curves, notes


def _pick(voices: AuditVoices, rows: Sequence[int]) -> AuditVoices:
    return AuditVoices([voices.people[i] for i in rows], voices.gender[list(rows)], [voices.waveforms[i] for i in rows])


def _sweep(
    drawing: Drawing,
    voices: AuditVoices,
    probe: Probe | None,
    name: str,
    x_label: str,
    points: Sequence[float],
    clean: Sequence[np.ndarray],
    change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray],
    seed: int,
    progress: Callable[[str], None],
) -> list[Curve]:
    """One sweep: the gender of the drawn face, the distance of its feature, the cosine of the embedding."""
    progress(f"{name}: {len(clean)} voices, {len(points)} points")
    embeddings, features = _both(drawing, clean)
    people = np.asarray(voices.people)
    known = np.zeros(len(people), dtype=bool)
    if probe is not None:
        known = np.array([g in probe.classes for g in voices.gender])
    rows: dict[str, list[np.ndarray]] = {"gender": [], "distance": [], "cosine": []}
    for number, x in enumerate(points):
        rng = np.random.default_rng([seed, number])
        changed = [change(w, x, rng) for w in clean]
        embedding, feature = _both(drawing, changed)
        rows["distance"].append(np.linalg.norm(feature - features, axis=1))
        if embedding is not None and embeddings is not None:
            rows["cosine"].append((embedding * embeddings).sum(1))
        if probe is not None and known.any():
            read = probe.read(drawing.draw(feature[known], keep=()).feature)
            rows["gender"].append((read == voices.gender[known]).astype(float))
    other = ~np.eye(len(features), dtype=bool)
    apart = np.linalg.norm(features[:, None] - features[None], axis=-1)[other]
    references: dict[str, tuple[float | None, str]] = {
        "gender": (majority(voices.gender[known]) if known.any() else None, "chance"),
        "distance": (float(apart.mean()), "different speakers"),
        "cosine": (
            None if embeddings is None else float((embeddings @ embeddings.T)[other].mean()),
            "different speakers",
        ),
    }
    about = {
        "gender": "gender of the drawn face agrees",
        "distance": "distance of the face feature to that of clean speech",
        "cosine": "cosine of the speaker embedding to that of clean speech",
    }
    curves = []
    for kind, values in rows.items():
        if not values:
            continue
        whose = people[known] if kind == "gender" else people
        ends = [bootstrap(v, clusters=whose, seed=seed) for v in values]
        curves.append(
            Curve(
                f"{name}: {about[kind]}",
                x_label,
                tuple(float(x) for x in points),
                about[kind],
                tuple(float(v.mean()) for v in values),
                tuple(low for low, _ in ends),
                tuple(high for _, high in ends),
                len(values[0]),
                *references[kind],
            )
        )
    return curves


def _both(drawing: Drawing, waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray | None, np.ndarray]:
    """Speaker embeddings (if the bundle has an encoder) and face features."""
    embeddings: Any = drawing.embed(waveforms) if "speaker-encoder" in drawing.journey.bundle else None
    return embeddings, drawing.features(waveforms, embeddings)
