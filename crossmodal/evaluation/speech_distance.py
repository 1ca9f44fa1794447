"""How far speech is from another recording of the same sentence: spectrum, melody, timing.

Mel-cepstral distortion (Kubichek 1993) is in dB over coefficients 1 to 24 of the WORLD spectral envelope (CheapTrick;
Morise 2015) on the all-pass mel axis of 16 kHz speech (α = 0.42; Tokuda et al. 1994), after dynamic time warping of the
two sequences, silence at both ends left out. Figures of other papers compare only where envelope, order and alignment
are the same; what two natural speakers of one sentence reach is printed beside ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal import audio
from crossmodal.config import AudioConfig
from crossmodal.errors import NoSpeechError
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.speech_measures import geometric_mean
from crossmodal.text import encode, sentences

if TYPE_CHECKING:
    from crossmodal.evaluation.speech import SpeechEvaluation

ORDER = 24
WARP = 0.42
"""All-pass constant that imitates the mel scale at 16 kHz."""
MCD = 10.0 / math.log(10.0) * math.sqrt(2.0)
"""dB a unit of cepstral distance (Kubichek 1993, eq. 1)."""
QUIET_DB = 40.0
"""What is this far below the loudest frame at either end is not speech."""
_AUDIO = AudioConfig()


@dataclass(frozen=True)
class Analysis:
    """What two recordings are compared by; a frame is 12.5 ms."""

    cepstrum: np.ndarray
    """``(F, 25)``"""
    f0: np.ndarray
    """``(F,)`` Hz, 0 where unvoiced."""
    seconds: float
    """Without the silence at both ends."""


@dataclass(frozen=True)
class Distance:
    """One recording against another of the same sentence."""

    mcd: float
    """dB"""
    f0_error: float
    """RMS over aligned frames voiced in both, in cents; NaN without such frames."""
    melody_error: float
    """The same after each recording's own median is taken away: the course without the register."""
    f0_deviation: float
    """Standard deviation of F0 in cents, ratio to the other's."""
    f0_range: float
    """From the 5 % to the 95 % quantile of F0 in cents, ratio to the other's."""
    length: float
    """Ratio of durations."""


def analyse(waveform: np.ndarray) -> Analysis:
    """Cepstrum and F0 of ``waveform (T,)`` at 16 kHz between its first and its last sound.

    Raises:
        NoSpeechError: it is silent.
    """
    import librosa

    if not np.any(waveform):
        raise NoSpeechError("silent", source="waveform")
    trimmed, _ = librosa.effects.trim(waveform, top_db=QUIET_DB, frame_length=800, hop_length=_AUDIO.hop_length)
    f0 = audio.pitch(trimmed)
    return Analysis(mel_cepstrum(trimmed, f0), f0, len(trimmed) / _AUDIO.sample_rate)


def mel_cepstrum(waveform: np.ndarray, f0: np.ndarray, order: int = ORDER) -> np.ndarray:
    """Mel-cepstrum of the WORLD envelope.

    Args:
        waveform: ``(T,)`` at 16 kHz.
        f0: ``(F,)`` of :func:`crossmodal.audio.pitch`.
        order: highest coefficient.

    Returns:
        ``(F, order + 1)``; the log magnitude is ``c_0 / 2 + Σ c_m cos(m ω̃)`` on the warped axis ω̃.
    """
    import pyworld

    signal = np.ascontiguousarray(waveform, dtype=np.float64)
    times = np.arange(len(f0)) * _AUDIO.hop_length / _AUDIO.sample_rate
    power = pyworld.cheaptrick(signal, f0.astype(np.float64), times, _AUDIO.sample_rate)
    return warped_cepstrum(np.log(power.clip(1e-16)), order)


def warped_cepstrum(log_power: np.ndarray, order: int = ORDER, warp: float = WARP) -> np.ndarray:
    """Cepstrum ``(F, order + 1)`` of log power spectra ``(F, K)`` from 0 to half the rate, on the all-pass axis."""
    bins = log_power.shape[1]
    warped = np.linspace(0.0, np.pi, bins)
    linear = warped - 2 * np.arctan(warp * np.sin(warped) / (1 + warp * np.cos(warped)))
    place = linear / np.pi * (bins - 1)
    below = np.minimum(place.astype(int), bins - 2)
    share = place - below
    log_warped = log_power[:, below] * (1 - share) + log_power[:, below + 1] * share
    return np.fft.irfft(log_warped, axis=1)[:, : order + 1]


def align(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cheapest path ``(P, 2)`` through the frames of ``(N, D)`` and ``(M, D)`` (dynamic time warping, Euclidean)."""
    import librosa
    from scipy.spatial.distance import cdist

    _, path = librosa.sequence.dtw(C=cdist(one, other))
    return path[::-1]


def cepstral_distortion(one: np.ndarray, other: np.ndarray, path: np.ndarray) -> float:
    """MCD in dB of cepstra ``(N, D)`` and ``(M, D)`` along ``path (P, 2)``; coefficient 0, the level, has no part."""
    difference = one[path[:, 0], 1:] - other[path[:, 1], 1:]
    return MCD * float(np.linalg.norm(difference, axis=1).mean())


def compare(one: Analysis, other: Analysis) -> Distance:
    """``one`` against ``other``; ratios are ``one`` over ``other``."""
    path = align(one.cepstrum[:, 1:], other.cepstrum[:, 1:])
    both = np.stack([one.f0[path[:, 0]], other.f0[path[:, 1]]])
    voiced = np.log2(both[:, (both > 0).all(0)]) * 1200
    own, reference = _cents(one.f0), _cents(other.f0)
    level = np.median(own) - np.median(reference) if len(own) and len(reference) else np.nan
    error = voiced[0] - voiced[1]
    return Distance(
        mcd=cepstral_distortion(one.cepstrum, other.cepstrum, path),
        f0_error=_rms(error),
        melody_error=_rms(error - level),
        f0_deviation=_ratio(_spread(own, np.std), _spread(reference, np.std)),
        f0_range=_ratio(_spread(own, _range), _spread(reference, _range)),
        length=one.seconds / other.seconds,
    )


def measure(evaluation: SpeechEvaluation) -> list[Figure]:
    """Studio voices reading held-out sentences against their own recordings of them.

    Beside them: another natural speaker of the same sentence, another sentence of the same speaker, and F0 that stays
    at the recording's median.
    """
    studio = {voice.name: voice for voice in evaluation.studio}
    names = sorted(studio)
    texts = evaluation.sentences[: evaluation.options.sentences]
    made: list[Distance] = []
    natural: list[Distance] = []
    wrong: list[float] = []
    flat, rate, natural_rate = [], [], []
    for n, (text, clips) in enumerate(texts):
        name, second = names[n % len(names)], names[(n + 1) % len(names)]
        own = analyse(evaluation.features.waveform(clips[name]))
        spoken = analyse(evaluation.speak(text, studio[name].embedding))
        made.append(compare(spoken, own))
        natural.append(compare(analyse(evaluation.features.waveform(clips[second])), own))
        elsewhere = texts[(n + 1) % len(texts)][1][name]
        wrong.append(compare(analyse(evaluation.features.waveform(elsewhere)), own).mcd)
        flat.append(_rms(_cents(own.f0) - np.median(_cents(own.f0))))
        phones = sum(sum(p != 0 for p in encode(s).phones) for s in sentences(text))
        rate.append(phones / spoken.seconds)
        natural_rate.append(phones / own.seconds)
    return _figures(made, natural, wrong, flat, rate, natural_rate, evaluation.options.seed)


def _figures(
    made: list[Distance],
    natural: list[Distance],
    wrong: list[float],
    flat: list[float],
    rate: list[float],
    natural_rate: list[float],
    seed: int,
) -> list[Figure]:
    def values(distances: list[Distance], name: str) -> np.ndarray:
        found = np.array([getattr(d, name) for d in distances])
        return found[np.isfinite(found)]

    two = "two natural speakers"
    spectrum = values(natural, "mcd")
    melody = values(natural, "melody_error")
    off = np.abs(np.log(values(made, "length")))
    natural_off = np.abs(np.log(values(natural, "length")))
    ideal: dict[str, Any] = {"reference": 1.0, "reference_name": "ideal", "statistic": geometric_mean, "seed": seed}
    return [
        figure(
            "mel-cepstral distortion, studio voice to its recording", values(made, "mcd"),
            reference=float(spectrum.mean()), reference_name=two, unit="dB", seed=seed,
        ),
        figure(
            "mel-cepstral distortion, two natural speakers", spectrum,
            reference=float(np.mean(wrong)), reference_name="another sentence, same speaker", unit="dB", seed=seed,
        ),
        figure(
            "F0 error, studio voice to its recording", values(made, "f0_error"),
            reference=float(np.nanmean(flat)), reference_name="level F0 at its median", unit="cents RMS", seed=seed,
        ),
        figure(
            "F0 error, own medians taken away", values(made, "melody_error"),
            reference=float(melody.mean()), reference_name=two, unit="cents RMS", seed=seed,
        ),
        figure("F0 standard deviation, synthetic over natural", values(made, "f0_deviation"), **ideal),
        figure("F0 range (5-95 %), synthetic over natural", values(made, "f0_range"), **ideal),
        figure("length, synthetic over natural", values(made, "length"), **ideal),
        figure(
            "length, relative error", np.expm1(off),
            reference=float(np.expm1(natural_off).mean()), reference_name=two, seed=seed,
        ),
        figure("phones a second", rate, reference=float(np.mean(natural_rate)), reference_name="natural", seed=seed),
    ]  # fmt: skip


def _cents(f0: np.ndarray) -> np.ndarray:
    return 1200 * np.log2(f0[f0 > 0])


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def _range(values: np.ndarray) -> float:
    low, high = np.percentile(values, (5, 95))
    return float(high - low)


def _spread(cents: np.ndarray, of: Callable[[np.ndarray], Any]) -> float:
    return float(of(cents)) if len(cents) > 1 else float("nan")


def _ratio(one: float, other: float) -> float:
    return one / other if one > 0 and other > 0 else float("nan")
