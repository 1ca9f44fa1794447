"""Corpus leakage probe: can a small classifier tell from an embedding which data set it comes from?

Face2Speech's speaker encoder was bitten by this: trained on several corpora, it encoded microphones and rooms. The
probe is a logistic regression on standardised embeddings, cross-validated with no speaker on both sides; its accuracy
is compared with always answering the largest corpus, and balanced accuracy with 1/K. An embedding of voices alone
would stay near chance, as far as the corpora's speakers are alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossmodal.data.features import FeatureStore
from crossmodal.data.manifest import Manifest
from crossmodal.data.splits import fraction
from crossmodal.errors import DataError


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found; ``str`` is the report."""

    n: int
    """Embeddings."""
    speakers: int
    corpora: dict[str, int]
    """Corpus → embeddings."""
    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 %, bootstrap over speakers."""
    chance: float
    """Share of the largest corpus."""
    balanced: float
    """Mean over the corpora of the share recognised."""
    balanced_interval: tuple[float, float]
    balanced_chance: float
    """1 / K."""
    recall: dict[str, float]
    """Corpus → share recognised."""
    left_out: list[str] = field(default_factory=list)
    """Corpora with one speaker only, which cannot be tested on speakers never seen."""

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.corpora.items())
        low, high = self.accuracy_interval
        balanced_low, balanced_high = self.balanced_interval
        recall = ", ".join(f"{name} {value:.3f}" for name, value in self.recall.items())
        lines = [
            f"corpus probe: {self.n} embeddings of {self.speakers} speakers ({counts})",
            f"accuracy {self.accuracy:.3f} [{low:.3f}, {high:.3f}], chance (largest corpus) {self.chance:.3f}",
            f"balanced accuracy {self.balanced:.3f} [{balanced_low:.3f}, {balanced_high:.3f}], "
            f"chance {self.balanced_chance:.3f}; recognised: {recall}",
        ]
        if self.left_out:
            lines.append(f"left out (one speaker): {', '.join(self.left_out)}")
        return "\n".join(lines)


def corpus_probe(
    embeddings: np.ndarray,
    corpora: Sequence[str],
    speakers: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
    bootstrap: int = 2000,
) -> ProbeResult:
    """Run the probe.

    Args:
        embeddings: ``(N, D)``.
        corpora: the data set of each.
        speakers: the speaker of each; no speaker is in training and test of one fold.
        folds: of the cross-validation.
        seed: of folds and bootstrap.
        bootstrap: resamplings of the speakers.

    Raises:
        DataError: lengths differ, or fewer than two corpora have two speakers.
    """
    if not len(embeddings) == len(corpora) == len(speakers):
        raise DataError(
            f"{len(embeddings)} embeddings, {len(corpora)} corpora, {len(speakers)} speakers", source="probe"
        )
    owned: dict[str, set[str]] = {}
    for corpus, speaker in zip(corpora, speakers):
        owned.setdefault(corpus, set()).add(speaker)
    names = sorted(corpus for corpus, people in owned.items() if len(people) >= 2)
    if len(names) < 2:
        raise DataError(
            f"{len(names)} corpora have two speakers or more", source="probe", remedy="two at least are needed"
        )
    keep = [i for i, corpus in enumerate(corpora) if corpus in names]
    data = np.asarray(embeddings, dtype=np.float64)[keep]  # (N, D)
    labels = np.array([names.index(corpora[i]) for i in keep])
    people = np.array([f"{corpora[i]}\x00{speakers[i]}" for i in keep])
    fold_of: dict[str, int] = {}
    for corpus in names:  # every corpus spread over the folds
        ordered = sorted((f"{corpus}\x00{speaker}" for speaker in owned[corpus]), key=lambda key: fraction(key, seed))
        fold_of.update({person: place % folds for place, person in enumerate(ordered)})
    fold = np.array([fold_of[person] for person in people])

    predicted = np.full(len(labels), -1)
    for k in range(folds):
        test = fold == k
        if test.any():
            predicted[test] = _fit_predict(data[~test], labels[~test], data[test], len(names))
    right = predicted == labels

    unique, inverse = np.unique(people, return_inverse=True)
    groups = [np.flatnonzero(inverse == g) for g in range(len(unique))]
    label_of = np.array([labels[group[0]] for group in groups])
    rng = np.random.default_rng(seed)
    accuracies, balanced = [], []
    for _ in range(bootstrap):
        drawn = np.concatenate(
            [rng.choice(np.flatnonzero(label_of == c), (label_of == c).sum()) for c in range(len(names))]
        )
        rows = np.concatenate([groups[g] for g in drawn])
        accuracies.append(right[rows].mean())
        balanced.append(np.mean([right[rows][labels[rows] == c].mean() for c in range(len(names))]))
    recall = {name: float(right[labels == c].mean()) for c, name in enumerate(names)}
    counts = Counter(names[label] for label in labels)
    return ProbeResult(
        n=len(labels),
        speakers=len(unique),
        corpora=dict(sorted(counts.items())),
        accuracy=float(right.mean()),
        accuracy_interval=_interval(accuracies),
        chance=max(counts.values()) / len(labels),
        balanced=float(np.mean(list(recall.values()))),
        balanced_interval=_interval(balanced),
        balanced_chance=1.0 / len(names),
        recall=recall,
        left_out=sorted(set(owned) - set(names)),
    )


def probe_prepared(root: str | Path, feature: str = "ge2e-256", *, seed: int = 0, per_speaker: int = 20) -> ProbeResult:
    """Probe one feature of prepared data: ``root`` itself, and the prepared folders directly in it.

    Args:
        root: a folder that ``crossmodal prepare`` or :mod:`crossmodal.data.speech_features` wrote, or one that holds
            several of the former.
        feature: a feature of fixed size, e.g. ``ge2e-256``.
        seed: of folds and bootstrap.
        per_speaker: at most so many embeddings of a speaker, so that no one voice stands for a corpus.

    Raises:
        DataError: nothing prepared, or too few corpora.
    """
    found = sorted(_stored(Path(root), feature), key=lambda item: fraction(item[0], seed))
    counts: Counter[str] = Counter()
    kept = []
    for row_id, corpus, speaker, read in found:
        if counts[speaker] < per_speaker:
            counts[speaker] += 1
            kept.append((read(row_id).reshape(-1), corpus, speaker))
    values, corpora, speakers = zip(*kept) if kept else ((), (), ())
    return corpus_probe(np.array(values), corpora, speakers, seed=seed)


_Stored = tuple[str, str, str, Callable[[str], np.ndarray]]  # id, corpus, speaker, and what reads the value of an id


def _stored(root: Path, feature: str) -> Iterator[_Stored]:
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    prepared = [folder for folder in folders if (folder / "manifest.parquet").is_file()]
    for folder in prepared:
        store = FeatureStore(folder / "features" / feature)
        for row in Manifest.read(folder / "manifest.parquet"):
            if row.id in store:
                yield row.id, row.corpus, row.identity, store.__getitem__
    if not prepared and feature == "ge2e-256" and (root / "index.jsonl").is_file():
        from crossmodal.data.speech_features import SpeechFeatures

        speech = SpeechFeatures(root)
        for clip in speech:
            speaker = clip.attributes.get("identity") or f"{clip.corpus}/{clip.speaker}"
            yield clip.id, clip.corpus, speaker, lambda row_id: speech.embedding(speech.position(row_id))
    elif not prepared:
        raise DataError("holds no prepared data", source=root, remedy=f"crossmodal prepare ... --features {feature}")


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _fit_predict(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Multinomial logistic regression, every class weighing the same, L2 penalty; L-BFGS."""
    import torch

    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-8
    x = torch.from_numpy((train - mean) / spread)  # (N, D)
    y = torch.from_numpy(labels)
    counts = torch.bincount(y, minlength=classes).clamp_min(1).double()
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y, weight=1.0 / counts, reduction="sum") / classes
        loss = loss + 0.01 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        scores = torch.from_numpy((test - mean) / spread) @ weight + bias
    return scores.argmax(dim=1).numpy()
