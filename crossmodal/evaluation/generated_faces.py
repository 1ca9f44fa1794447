"""Generated faces against true ones: distance, retrieval, attributes, craniofacial measures, diversity.

What is held against the true face feature is named in every figure: the **feature** predicted from the input, and the
feature **read back** from the drawn face. Beside them stand chance (other people's true faces), the mean face of real
people, and the gender-only baseline (the mean face of the person's own gender): what a system that hears nothing but
the gender would get. Sources: Speech2Face (Oh et al. 2019, section 4), SF2F (Bai et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.errors import DataError
from crossmodal.evaluation import attributes, craniofacial
from crossmodal.evaluation.drawing import Drawing, Drawn
from crossmodal.evaluation.face_cases import FaceCases
from crossmodal.evaluation.face_retrieval import DISTANCES, distances, paired, recall, sf2f_recall, top_picture
from crossmodal.evaluation.figures import Figure, bootstrap, figure

if TYPE_CHECKING:
    from PIL import Image

HYPOTHESES = 4
DIVERSITY_VOICES = 24
PICTURES = 6
CHANCE_FACES = 500
"""About how many other people's true faces the chance level of distances is taken from."""
_UNITS = {"cosine": "degrees", "L2": "feature units", "L1": "feature units"}
_NAMES = {"cosine": "angle", "L2": "L2 distance", "L1": "L1 distance"}


@dataclass(frozen=True)
class CaseValues:
    """One figure case by case, to be broken down by groups of people."""

    name: str
    values: np.ndarray
    """``(N,)``; NaN where it is undefined."""
    higher_is_better: bool


@dataclass
class GeneratedFaces:
    """What was measured."""

    figures: list[Figure] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cases: list[CaseValues] = field(default_factory=list)
    probes: dict[str, attributes.Probe] = field(default_factory=dict)


def measure(
    drawing: Drawing,
    cases: FaceCases,
    *,
    seed: int = 0,
    pictures: int = PICTURES,
    progress: Callable[[str], None] = lambda text: None,
) -> GeneratedFaces:
    """All figures of generated faces.

    Args:
        drawing: the bundle.
        cases: what is measured.
        seed: of bootstraps, galleries and hypotheses.
        pictures: how many rows of retrieved faces.
        progress: told what is being done.

    Raises:
        DataError: something cannot be measured that has to be.
    """
    result = GeneratedFaces(notes=list(cases.notes))
    for name in attributes.ATTRIBUTES:
        try:
            values = attributes.labels(cases.known.attributes, name)
            result.probes[name] = attributes.train_probe(cases.known.features, values, cases.known.people, name)
        except DataError as error:
            result.notes.append(f"no {name}: {error.problem}")
    drawn: dict[str, Drawn] = {}
    for name, features in cases.inputs.items():
        progress(f"drawing {len(features)} faces from {name}")
        drawn[name] = drawing.draw(features, keep=_shown(cases, pictures))
        found = drawn[name].found.astype(float)
        result.figures.append(
            figure(f"drawn from {name}: the detector sees a face", found, clusters=cases.people, seed=seed)
        )
    result.notes.append(
        "the network that reads drawn faces back is the bundle's own: if the decoder was trained against it, distances "
        "and retrieval flatter; craniofacial measures have no part of it"
    )
    if cases.identity:
        progress("comparing with the true faces")
        _likeness(result, cases, drawn, seed)
        _retrieval(result, cases, drawn, pictures, seed)
        _craniofacial(result, drawing, cases, drawn, seed)
    _attributes(result, cases, drawn, seed)
    _face_score(result, drawing, cases, drawn, seed)
    progress("drawing several hypotheses")
    _diversity(result, drawing, cases, seed)
    return result


# ---------------------------------------------------------------------------------------- identity


def systems(cases: FaceCases, drawn: dict[str, Drawn]) -> dict[str, np.ndarray]:
    """What is held against the true feature, by name: ``(N, D)`` each."""
    found: dict[str, np.ndarray] = {}
    for name, features in cases.inputs.items():
        if not np.array_equal(features, cases.true):  # a photo is not compared with itself
            found[f"feature of {name}"] = features
        found[f"drawn from {name}, read back"] = drawn[name].feature
    return found


def baselines(cases: FaceCases) -> dict[str, np.ndarray]:
    """The mean face and, where genders are known, the mean face of the person's gender: ``(N, D)`` each."""
    if len(cases.known):
        found = {"mean face": np.repeat(_mean(cases, None)[None], len(cases.true), axis=0)}
        genders = attributes.labels(cases.attributes, "gender")
        known = set(attributes.labels(cases.known.attributes, "gender")) - {""}
        if all(g in known for g in genders):
            means = {g: _mean(cases, g) for g in set(genders)}
            found["gender only"] = np.stack([means[g] for g in genders])
        return found
    # Without other people: the mean of everyone tested but the person.
    people, member = np.unique(cases.people, return_inverse=True)
    if len(people) < 2:
        return {}
    own = np.stack([cases.true[member == k].mean(0) for k in range(len(people))])
    rest = (own.sum(0) - own) / (len(people) - 1)
    return {"mean face": rest[member]}


def _mean(cases: FaceCases, gender: str | None) -> np.ndarray:
    """Mean over people of real faces, of one gender or of all."""
    use = np.ones(len(cases.known), dtype=bool)
    if gender is not None:
        use = attributes.labels(cases.known.attributes, "gender") == gender
    _, member = np.unique(cases.known.people[use], return_inverse=True)
    features = cases.known.features[use].astype(np.float64)
    return np.stack([features[member == k].mean(0) for k in range(member.max() + 1)]).mean(0)


def _likeness(result: GeneratedFaces, cases: FaceCases, drawn: dict[str, Drawn], seed: int) -> None:
    """Distances to the true feature. Chance is the mean distance to other people's true faces."""
    base = baselines(cases)
    some = slice(None, None, max(1, len(cases.gallery) // CHANCE_FACES))
    other = cases.people[:, None] != cases.gallery.people[None, some]
    for kind in DISTANCES:
        values = {name: paired(features, cases.true, kind) for name, features in base.items()}
        nearest = "gender only" if "gender only" in values else "mean face"
        for name, features in systems(cases, drawn).items():
            own = paired(features, cases.true, kind)
            table = distances(features, cases.gallery.features[some], kind)
            reference = {"reference": float(values[nearest].mean()), "reference_name": nearest} if values else {}
            chance = float(table[other].mean()) if other.any() else None
            result.figures.append(
                figure(
                    f"{name}: {_NAMES[kind]} to the true feature", own,
                    chance=chance, unit=_UNITS[kind], clusters=cases.people, seed=seed, **reference,  # type: ignore[arg-type]
                )
            )  # fmt: skip
            if kind == "cosine":
                result.cases.append(CaseValues(f"{name}: angle to the true feature", own, False))
        for name, own in values.items():
            title = f"{name}: {_NAMES[kind]} to the true feature"
            result.figures.append(figure(title, own, unit=_UNITS[kind], clusters=cases.people, seed=seed))


def _retrieval(result: GeneratedFaces, cases: FaceCases, drawn: dict[str, Drawn], pictures: int, seed: int) -> None:
    """R@K in the gallery of Speech2Face and in those of SF2F, and the nearest true faces as pictures."""
    if len(cases.gallery) < 2:
        result.notes.append("no retrieval: a gallery needs two people")
        return
    place = {name: i for i, name in enumerate(cases.gallery.people)}
    right = np.array([place[name] for name in cases.people])
    gallery, people = cases.gallery.features, cases.people
    made = systems(cases, drawn)
    tested = {**made, **{k: v for k, v in baselines(cases).items() if k == "gender only"}}
    for name, features in tested.items():
        result.figures += recall(features, right, gallery, people, name=name, seed=seed)
        if name.endswith("read back"):
            table = distances(features, gallery)
            own = table[np.arange(len(table)), right][:, None]
            rank = ((table < own).sum(1) + ((table == own).sum(1) - 1) / 2) / (len(gallery) - 1)
            result.cases.append(CaseValues(f"{name}: place of the right person (0 first, 1 last)", rank, False))
    for name, features in made.items():
        for kind in DISTANCES[1:]:
            result.figures += recall(
                features, right, gallery, people, name=f"{name}, {kind}", ks=(1, 2, 5, 10), kind=kind, seed=seed
            )
    distractors = ~np.isin(cases.gallery.people, people)
    true = np.concatenate([cases.true, gallery[distractors]])
    whose = np.concatenate([people, cases.gallery.people[distractors]])
    for name, features in tested.items():
        result.figures += sf2f_recall(features, people, true, whose, name=name, seed=seed)
    if cases.gallery.picture is None:
        return
    for name, faces in drawn.items():
        for index in _shown(cases, pictures):
            title = f"{str(people[index]).replace('/', '-')} from {name}"
            result.pictures[title] = top_picture(
                faces.feature[index], int(right[index]), gallery, faces.picture(index), cases.gallery.picture
            )


def _shown(cases: FaceCases, pictures: int) -> list[int]:
    """The first case of the first people: those whose pictures are shown."""
    return np.unique(cases.people, return_index=True)[1][:pictures].tolist()


def _craniofacial(
    result: GeneratedFaces, drawing: Drawing, cases: FaceCases, drawn: dict[str, Drawn], seed: int
) -> None:
    """Twelve measures, each correlated over people; true landmarks as marked by hand, or as the decoder places them."""
    try:
        true = cases.points if cases.points is not None else drawing.landmarks(cases.true)
        for name, faces in drawn.items():
            label = f"drawn from {name}: craniofacial "
            result.figures += craniofacial.agreement(
                true, faces.landmarks, cases.people, label=label, voices=cases.points is None, seed=seed
            )
        marked = "marked by hand in the photo" if cases.points is not None else "the decoder's, from the true feature"
        result.notes.append(f"craniofacial measures: the true landmarks are {marked}")
    except DataError as error:
        result.notes.append(f"no craniofacial measures: {error.problem}")


# ---------------------------------------------------------------------------------------- attributes, spread


def _attributes(result: GeneratedFaces, cases: FaceCases, drawn: dict[str, Drawn], seed: int) -> None:
    """What the probes read in drawn faces against what they read in the true ones, and against the labels."""
    for attribute, probe in result.probes.items():
        result.figures.append(probe.accuracy)
        truth = attributes.labels(cases.attributes, attribute)
        true_read = probe.read(cases.true)
        if probe.left_out:
            result.notes.append(f"{attribute}: too few people to learn {', '.join(probe.left_out)}")
        for name, faces in drawn.items():
            pairs = [(truth, "the labels", cases.true if cases.identity else None)]
            if cases.identity:
                pairs.insert(0, (true_read, "the true face", None))
            for values, against, ceiling in pairs:
                found, read, known = attributes.agreement(
                    probe, faces.feature, values, cases.people,
                    name=name, against=against, ceiling=ceiling, seed=seed,
                )  # fmt: skip
                if found is None:
                    continue
                result.figures.append(found)
                title = f"{attribute} read in the face drawn from {name}, by {against}:"
                counts = attributes.confusion(values, read, probe.classes)
                result.tables.append(attributes.confusion_table(title, counts, probe.classes))
                if against == "the labels":
                    right = np.where(known, (read == values).astype(float), np.nan)
                    result.cases.append(CaseValues(f"drawn from {name}: {attribute} agrees", right, True))


def _face_score(result: GeneratedFaces, drawing: Drawing, cases: FaceCases, drawn: dict[str, Drawn], seed: int) -> None:
    """SF2F's VGGFace score, where the bundle's face network has a classifier."""
    true = drawing.classify(cases.true)
    if true is None:
        result.notes.append("no VGGFace score: the bundle's face network has no classifier over identities")
        return
    own = face_score(true)
    for name, faces in drawn.items():
        logits = drawing.classify(faces.feature)
        assert logits is not None
        # Fewer draws than elsewhere: each one goes through thousands of identities for every face.
        low, high = bootstrap(logits, face_score, clusters=cases.people, draws=200, seed=seed)
        title, value = f"drawn from {name}: VGGFace score", face_score(logits)
        result.figures.append(Figure(title, value, low, high, len(logits), own, "true faces", chance=1.0))


def face_score(logits: np.ndarray) -> float:
    """``exp E KL(p(y|x) ‖ p(y))`` of identity logits ``(N, C)`` (Bai et al. 2022): 1 if all are one face, at most C."""
    logits = logits - logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    p = np.exp(log_p)
    marginal = np.log(np.maximum(p.mean(0), 1e-300))
    return float(np.exp((p * (log_p - marginal)).sum(1).mean()))


def _diversity(result: GeneratedFaces, drawing: Drawing, cases: FaceCases, seed: int) -> None:
    """Mean distance between hypotheses for one voice, as drawn, beside that between real people."""
    if cases.embeddings is None:
        return
    if not drawing.hypotheses:
        result.notes.append("no diversity: the spectrogram route draws one face only")
        return
    first = np.unique(cases.people, return_index=True)[1][:DIVERSITY_VOICES]
    result.figures += diversity(drawing, cases.embeddings[first], cases.gallery.features, seed=seed)


def diversity(drawing: Drawing, embeddings: np.ndarray, real: np.ndarray, *, seed: int = 0) -> list[Figure]:
    """Distances between four hypotheses for one voice, and between the first hypotheses of different voices.

    Args:
        drawing: the bundle.
        embeddings: ``(V, 256)``, one a person.
        real: ``(G, D)`` true features of different people.
        seed: of the hypotheses.
    """
    samples = drawing.samples(embeddings, HYPOTHESES, seed)  # (V, H, D)
    faces = drawing.draw(samples.reshape(-1, samples.shape[-1]), keep=()).feature.reshape(samples.shape)
    upper = np.triu_indices(HYPOTHESES, 1)
    within = np.array([distances(row, row, "L2")[upper].mean() for row in faces])
    pairs = distances(real, real, "L2")[np.triu_indices(len(real), 1)]
    reference = float(pairs.mean()) if len(pairs) else None
    about = {"reference": reference, "reference_name": "real people", "unit": "L2", "seed": seed}
    figures = [figure(f"{HYPOTHESES} hypotheses: mean distance between two", within, **about)]  # type: ignore[arg-type]
    if len(faces) > 1:
        first = distances(faces[:, 0], faces[:, 0], "L2")
        between = (first.sum(1) - np.diag(first)) / (len(first) - 1)
        figures.append(figure("likeliest faces of different voices: mean distance", between, **about))  # type: ignore[arg-type]
    return figures
