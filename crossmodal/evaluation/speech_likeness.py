"""Whether a voice is the one asked for: unseen and studio speakers, and voices of faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crossmodal.data.speech_features import side_of
from crossmodal.evaluation.cepstral_judge import CepstralJudge, pieces
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.speech_measures import correlation, median_f0, slope

if TYPE_CHECKING:
    from crossmodal.evaluation.speech import SpeechEvaluation, Voice

UNSEEN_CORPORA = ("librispeech", "an4")
PUBLISHED = {"matched": 0.709, "same gender": 0.623, "opposite gender": 0.536, "R@1": 0.55, "gender": 0.95, "F0": 0.67}
"""Goto et al. 2020, measured on their 20 published pairs."""


def embed(evaluation: SpeechEvaluation, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """``(N, 256)`` speaker embeddings."""
    with torch.inference_mode():
        return evaluation.encoder.embed_batch(list(waveforms)).float().cpu().numpy()


def measure(evaluation: SpeechEvaluation) -> list[Figure]:
    """Cosine to the target, top-1 of 15, gender and F0 of imitated voices."""
    unseen, seed = evaluation.unseen, evaluation.options.seed
    targets = np.stack([v.embedding for v in unseen])
    waves = [evaluation.speak(evaluation.two(n), v.embedding) for n, v in enumerate(unseen)]
    spoken = embed(evaluation, waves)
    cosine = spoken @ targets.T
    floor = float(cosine[~np.eye(len(cosine), dtype=bool)].mean())
    figures = _studio(evaluation)
    figures.append(
        figure(
            "cosine to target, unseen speakers", np.diag(cosine),
            reference=_natural(evaluation), reference_name="natural", chance=floor, seed=seed,
        )
    )  # fmt: skip
    if hits := top_of_15(cosine):
        figures.append(
            figure("top-1 of 15 unseen speakers", hits, reference=1 / 15, reference_name="chance", seed=seed)
        )
        figures.append(_judged(evaluation, waves))
    male = np.array([v.gender == "male" for v in unseen])
    f0 = np.array([median_f0(w) for w in waves])
    target_f0 = np.array([v.f0 for v in unseen])
    border = evaluation.f0_border
    chance = float(max(male.mean(), 1 - male.mean()))
    for name, guess in (
        ("gender by probe, unseen speakers", evaluation.probe.score(spoken) > 0),
        ("gender by F0, unseen speakers", f0 < border),
        ("gender by F0, their natural speech", target_f0 < border),
    ):
        right = (guess == male).astype(float)
        figures.append(figure(name, right, reference=chance, reference_name="always the commoner gender", seed=seed))
    known = np.isfinite(f0) & (target_f0 > 0)
    pairs = np.stack([target_f0, f0], axis=1)[known]
    semitones = np.abs(12 * np.log2(pairs[:, 1] / pairs[:, 0]))
    return [
        *figures,
        figure("F0 against target, correlation", pairs, statistic=correlation, chance=0.0, seed=seed),
        figure("F0 against target, slope", pairs, statistic=slope, reference=1.0, reference_name="ideal", seed=seed),
        figure("F0 against target, error", semitones, unit="semitones", seed=seed),
    ]


def top_of_15(scores: np.ndarray) -> list[float]:
    """``(N, N)`` scores of spoken (rows) against wanted voices → 1 where the wanted one of 15 scores highest."""
    groups = [slice(i, i + 15) for i in range(0, len(scores) - 14, 15)]
    return [float(row.argmax() == k) for group in groups for k, row in enumerate(scores[group, group])]


def _judged(evaluation: SpeechEvaluation, waves: Sequence[np.ndarray]) -> Figure:
    """The same by a judge that had no part in training, beside its verdict on natural speech."""
    features, unseen = evaluation.features, evaluation.unseen
    known = [(c.speaker, i) for i, c in enumerate(features) if c.corpus in UNSEEN_CORPORA and side_of(c) == "train"]
    train = [(speaker, piece) for speaker, i in known for piece in pieces(features.waveform(i))[:4]]
    judge = CepstralJudge([piece for _, piece in train], [speaker for speaker, _ in train])
    recordings = [np.concatenate([features.waveform(i) for i in v.clips[:8]])[: 12 * 16_000] for v in unseen]
    half = [len(wave) // 2 for wave in recordings]
    first, second = (judge.embed(part) for part in zip(*((w[:h], w[h:]) for w, h in zip(recordings, half))))
    return figure(
        "the same, by cepstra (a judge outside training)", top_of_15(judge.embed(waves) @ judge.embed(recordings).T),
        reference=float(np.mean(top_of_15(first @ second.T))), reference_name="natural", chance=1 / 15,
        seed=evaluation.options.seed,
    )  # fmt: skip


def _studio(evaluation: SpeechEvaluation) -> list[Figure]:
    """Cosine of studio voices, synthetic and natural, to the mean of the voice's training clips."""
    synthetic, natural = [], []
    for k, voice in enumerate(evaluation.studio):
        for n in range(4 * k, 4 * k + 4):
            count = len(evaluation.sentences)
            clips = [evaluation.sentences[(2 * n + j) % count][1][voice.name] for j in (0, 1)]
            recording = np.concatenate([evaluation.features.waveform(c) for c in clips])
            spoken = evaluation.speak(evaluation.two(n), voice.embedding)
            made, real = embed(evaluation, [spoken, recording]) @ voice.embedding
            synthetic.append(made)
            natural.append(real)
    return [
        figure(
            "cosine to target, studio voices", synthetic,
            reference=float(np.mean(natural)), reference_name="natural", seed=evaluation.options.seed,
        )
    ]  # fmt: skip


def _natural(evaluation: SpeechEvaluation) -> float:
    """Mean cosine of the second half to the first half of an unseen speaker's natural speech."""
    found = []
    for voice in evaluation.libri[:30]:
        wave = evaluation.features.waveform(voice.clips[0])
        one, two = embed(evaluation, [wave[: len(wave) // 2], wave[len(wave) // 2 :]])
        found.append(float(one @ two))
    return float(np.mean(found)) if found else float("nan")


def measure_faces(evaluation: SpeechEvaluation, faces: dict[str, np.ndarray]) -> list[Figure]:
    """Gender, sameness over two photos, spread; and Face2Speech's own comparison on pseudo-pairs.

    Args:
        evaluation: the bundle and what it is measured on.
        faces: embedding ``(256,)`` of each person's neutral photo; without any, nothing is measured.
    """
    if not faces:
        return []
    from crossmodal.data.sets import london_faces

    root, seed = evaluation.data / "london_faces", evaluation.options.seed
    male_of = {r.speaker: r.attributes.get("gender") == "male" for r in london_faces.rows(root)}
    people = sorted(faces)
    male = np.array([male_of[p] for p in people])
    neutral = np.stack([faces[p] for p in people])
    waves = [evaluation.speak(evaluation.two(n), e) for n, e in enumerate(neutral)]
    f0 = np.array([median_f0(w) for w in waves])
    chance = float(max(male.mean(), 1 - male.mean()))
    figures = [
        figure(
            f"face to voice: gender by {name}",
            right.astype(float),
            reference=chance,
            reference_name="chance",
            seed=seed,
        )
        for name, right in (
            ("probe", (evaluation.probe.score(neutral) > 0) == male),
            ("F0 of the speech", (f0 < evaluation.f0_border) == male),
        )
    ]
    smiling = [root / "smiling_front" / f"{p}_08.jpg" for p in people]
    both = [(faces[p], evaluation.journey.face_embedding(s).numpy()) for p, s in zip(people, smiling) if s.is_file()]
    if both:
        figures.append(
            figure(
                "face to voice: cosine of one person's two photos", [float(a @ b) for a, b in both],
                reference=_between(neutral), reference_name="different people", seed=seed,
            )
        )  # fmt: skip
    rows = [np.delete(neutral @ neutral[i], i).mean() for i in range(len(people))]
    voices = np.stack([v.embedding for v in evaluation.libri])
    figures.append(
        figure(
            "face to voice: cosine between people", rows,
            reference=_between(voices), reference_name="real voices", seed=seed,
        )
    )  # fmt: skip
    return figures + _published(evaluation, neutral, male, waves, f0)


def _published(
    evaluation: SpeechEvaluation, neutral: np.ndarray, male: np.ndarray, waves: list[np.ndarray], f0: np.ndarray
) -> list[Figure]:
    """Goto et al.'s measures: face-driven against speech-driven synthesis, pairs by gender and rank of the cue."""
    partners = _partners(evaluation, neutral, male)
    driven = [evaluation.speak(evaluation.two(n), v.embedding) for n, v in enumerate(partners)]
    cosine = embed(evaluation, waves) @ embed(evaluation, driven).T
    eye = np.eye(len(cosine), dtype=bool)
    same = male[:, None] == male[None]
    seed = evaluation.options.seed

    def beside(name: str, values: Any, published: str, **more: Any) -> Figure:
        given = {"reference": PUBLISHED[published], "reference_name": "published", "seed": seed, **more}
        return figure(f"Face2Speech: {name}", values, **given)

    figures = [beside("matched cosine", np.diag(cosine), "matched")]
    for name, mask in (("same gender", same & ~eye), ("opposite gender", ~same)):
        rows = [cosine[i][mask[i]].mean() for i in range(len(cosine)) if mask[i].any()]
        figures.append(beside(f"{name} cosine", rows, name))
    pairs = np.stack([f0, [median_f0(w) for w in driven]], axis=1)
    hits = (cosine.argmax(1) == np.arange(len(cosine))).astype(float)
    agree = ((f0 < evaluation.f0_border) == male).astype(float)
    return [
        *figures,
        beside(f"R@1 of {len(cosine)}", hits, "R@1", chance=1 / len(cosine)),
        beside("gender", agree, "gender"),
        beside("median-F0 correlation", pairs, "F0", statistic=correlation),
    ]


def _partners(evaluation: SpeechEvaluation, neutral: np.ndarray, male: np.ndarray) -> list[Voice]:
    """For each face the held-out voice of its gender at the same rank along the probe."""
    scores = evaluation.probe.score(neutral)
    found = []
    for i in range(len(neutral)):
        same = [v for v in evaluation.libri if (v.gender == "male") == male[i]]
        order = sorted(same, key=lambda v: float(evaluation.probe.score(v.embedding[None])[0]))
        rank = float((scores[male == male[i]] < scores[i]).sum() / max(1, (male == male[i]).sum() - 1))
        found.append(order[round(rank * (len(order) - 1))])
    return found


def _between(embeddings: np.ndarray) -> float:
    """Mean cosine of different rows of ``(N, D)``."""
    cosine = embeddings @ embeddings.T
    return float(cosine[~np.eye(len(cosine), dtype=bool)].mean())
