"""Speed, and whether varied texts are spoken whole: length, end, clicks, and refusal of what cannot be spoken."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.errors import TextError
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.speech_measures import AUDIO, clicks, median
from crossmodal.evaluation.speech_texts import NOT_SPEAKABLE, varied_texts
from crossmodal.text import encode, sentences

if TYPE_CHECKING:
    from crossmodal.evaluation.speech import SpeechEvaluation

TEN_WORDS = "The small boat crossed the wide river before the storm."
SIXTY_WORDS = (
    "When the last guests had gone, she opened the window and listened to the rain. It fell on the roofs, on the empty "
    "street, and on the garden that nobody had looked after for years. Somewhere a dog barked twice and was quiet "
    "again. "
    "She thought of the letter in her pocket, smiled, and decided that tomorrow she would answer it at last."
)


def measure_speed(evaluation: SpeechEvaluation) -> list[Figure]:
    """Real-time factor of whole texts, models loaded."""
    voice = evaluation.unseen[0].embedding
    evaluation.speak(TEN_WORDS, voice)
    figures = []
    for name, text in (("10 words", TEN_WORDS), ("60 words", SIXTY_WORDS)):
        factors = []
        for _ in range(5):
            begin = time.perf_counter()
            wave = evaluation.speak(text, voice)
            factors.append((time.perf_counter() - begin) / (len(wave) / AUDIO.sample_rate))
        figures.append(
            figure(
                f"real-time factor, {name}", factors, statistic=median, reference=0.05, reference_name="target",
                seed=evaluation.options.seed,
            )
        )  # fmt: skip
    return figures


def measure(evaluation: SpeechEvaluation) -> list[Figure]:
    """Length a phone, clicks, and the end of the speech, on varied texts; texts that cannot be spoken must say so.

    What went wrong goes into ``evaluation.failures``.
    """
    seed = evaluation.options.seed
    good, click_rate = [], []
    for n, text in enumerate(varied_texts(evaluation.options.texts, seed)):
        wave = evaluation.speak(text, evaluation.unseen[n % len(evaluation.unseen)].embedding)
        problems = _problems(wave, sum(sum(p != 0 for p in encode(s).phones) for s in sentences(text)))
        if problems:
            evaluation.failures.append(f"{', '.join(problems)}: {text[:60]!r}")
        good.append(float(not problems))
        click_rate.append(60 * clicks(wave) / (len(wave) / AUDIO.sample_rate))
    features = evaluation.features
    natural = [60 * clicks(features.waveform(v.clips[0])) / features[v.clips[0]].seconds for v in evaluation.libri[:40]]
    refused = [float(_refuses(text)) for text in NOT_SPEAKABLE]
    ideal: dict[str, Any] = {"reference": 1.0, "reference_name": "ideal", "seed": seed}
    return [
        figure("varied texts spoken whole, and ending when they end", good, **ideal),
        figure(
            "clicks a minute, varied texts", click_rate,
            reference=float(np.mean(natural)), reference_name="natural speech", seed=seed,
        ),
        figure("texts without words refused", refused, **ideal),
    ]  # fmt: skip


def _problems(wave: np.ndarray, phones: int) -> list[str]:
    """What is wrong with speech ``(T,)`` of so many phones."""
    seconds = len(wave) / AUDIO.sample_rate
    level = np.sqrt(np.convolve(wave**2, np.ones(400) / 400, mode="same"))
    last = np.flatnonzero(level > 0.05 * level.max(initial=1e-9))
    tail = seconds - (last[-1] / AUDIO.sample_rate if len(last) else 0.0)
    found = {
        f"{seconds:.2f} s for {phones} phones": not 0.035 * phones <= seconds <= 0.16 * phones + 1.0,
        f"{tail:.2f} s of silence at the end": tail > 0.5,
        "not finite": not np.isfinite(wave).all(),
        "silent": float(np.abs(wave).max(initial=0.0)) < 0.05,
    }
    return [label for label, wrong in found.items() if wrong]


def _refuses(text: str) -> bool:
    try:
        sentences(text)
    except TextError:
        return True
    return False
