"""What listeners make of the speech: word error rates and naturalness on held-out sentences, natural and synthetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from crossmodal import audio
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.speech_listeners import Listener, Recogniser
from crossmodal.evaluation.speech_measures import AUDIO, word_errors
from crossmodal.pictures import spectrogram_picture
from crossmodal.text import words

if TYPE_CHECKING:
    from crossmodal.evaluation.report import Report
    from crossmodal.evaluation.speech import SpeechEvaluation

KINDS = ("natural", "studio voice", "unseen speaker", "voice from a face")
SHOWN, HEARD = 6, 3
"""Sentences whose spectrograms, and whose sounds, go into the report."""


def utterances(
    evaluation: SpeechEvaluation, faces: dict[str, np.ndarray], n: int
) -> tuple[str, str, dict[str, np.ndarray]]:
    """Held-out sentence ``n``, the studio voice that read it, and its waveforms by :data:`KINDS`."""
    text, clips = evaluation.sentences[n]
    studio = {voice.name: voice for voice in evaluation.studio}
    name = sorted(studio)[n % len(studio)]
    found = {
        "natural": evaluation.features.waveform(clips[name]),
        "studio voice": evaluation.speak(text, studio[name].embedding),
        "unseen speaker": evaluation.speak(text, evaluation.unseen[n % len(evaluation.unseen)].embedding),
    }
    if faces:
        person = sorted(faces)[n % len(faces)]
        found["voice from a face"] = evaluation.speak(text, faces[person])
    return text, name, found


def measure(
    evaluation: SpeechEvaluation,
    faces: dict[str, np.ndarray],
    recognisers: dict[str, Recogniser],
    listeners: dict[str, Listener],
) -> list[Figure]:
    """Word error rate by each recogniser and score by each listener, of each kind of voice, on the same sentences.

    Spectrograms and sounds of the first sentences go into the evaluation's report.
    """
    errors: dict[tuple[str, str], list[tuple[int, int]]] = {}
    scores: dict[tuple[str, str], list[float]] = {}
    for n in range(min(evaluation.options.sentences, len(evaluation.sentences))):
        text, name, found = utterances(evaluation, faces, n)
        reference = words(text)
        for kind, waveform in found.items():
            for listener, recognise in recognisers.items():
                heard = recognise(waveform).split()
                errors.setdefault((listener, kind), []).append((word_errors(reference, heard), len(reference)))
            for listener, listen in listeners.items():
                scores.setdefault((listener, kind), []).append(listen(waveform))
        if n < SHOWN:
            _show(evaluation.report, f"{n + 1}. {name}: {text}", found, sounds=n < HEARD)
    seed = evaluation.options.seed
    figures = []
    for (listener, kind), rows in errors.items():
        natural: dict[str, Any] = (
            {} if kind == "natural" else {"reference": _rate(np.array(errors[listener, "natural"]))}
        )
        by = "" if listener == "pocketsphinx" else f" ({listener})"
        figures.append(
            figure(
                f"word error rate{by}, {kind}",
                np.array(rows),
                statistic=_rate,
                reference_name="natural",
                seed=seed,
                **natural,
            )
        )
    for (listener, kind), values in scores.items():
        natural = {} if kind == "natural" else {"reference": float(np.mean(scores[listener, "natural"]))}
        figures.append(
            figure(f"{listener}, {kind}", values, reference_name="natural", unit="1-5", seed=seed, **natural)
        )
    return figures


def _rate(rows: np.ndarray) -> float:
    """Errors over words of rows ``(errors, words)``."""
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def _show(report: Report, title: str, found: dict[str, np.ndarray], *, sounds: bool) -> None:
    panels = [
        spectrogram_picture(audio.log_mel(torch.from_numpy(w)).numpy(), audio.pitch(w))
        for w in (found["natural"], found["studio voice"])
    ]
    sheet = Image.new("RGB", (panels[0].width, panels[0].height * 2 + 6), "white")
    for k, panel in enumerate(panels):
        sheet.paste(panel, (0, k * (panel.height + 6)))
    report.pictures[f"{title} Natural above, synthetic below; F0 in light blue."] = sheet
    for kind, waveform in found.items() if sounds else ():
        side = report.recordings if kind == "natural" else report.sounds
        side[f"{title} ({kind})"] = (waveform, AUDIO.sample_rate)
