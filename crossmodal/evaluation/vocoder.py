"""Copy-synthesis of a vocoder on held-out speakers, beside Griffin–Lim on the same mels.

Each clip's natural log-mel and F0 go through the vocoder; the waveform is compared with the recording. Three
Griffin–Lim baselines (60 iterations, momentum 0.99) get the same mels; they differ in how they invert the filter bank:

- ``griffin-lim``: non-negative least squares by 60 multiplicative steps, the strongest;
- ``griffin-lim-librosa``: ``librosa.feature.inverse.mel_to_stft`` + ``librosa.griffinlim``;
- ``griffin-lim-torchaudio``: ``torchaudio.transforms.InverseMelScale`` + ``GriffinLim``.

Measures: wide-band PESQ (ITU-T P.862.2), mean absolute log-mel error (nepers), F0 correlation and voicing error against
the recording's F0, real-time factor. Command: ``crossmodal evaluate vocoder``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.audio import log_mel, mel_filterbank, pitch
from crossmodal.config import AudioConfig
from crossmodal.data.speech_features import SpeechFeatures, side_of
from crossmodal.errors import DataError, DependencyError
from crossmodal.evaluation.figures import Figure, bootstrap, figure

_AUDIO = AudioConfig()
BASELINES = ("griffin-lim", "griffin-lim-librosa", "griffin-lim-torchaudio")
_MEASURES = (
    ("pesq", "PESQ-WB", "1.04-4.64"),
    ("mel_error", "log-mel error", "nepers"),
    ("f0_correlation", "F0 correlation", ""),
    ("voicing_error", "voicing error", ""),
)
Synthesis = Callable[[Tensor, Tensor], Tensor]
"""Log-mel ``(1, 100, F)`` and F0 ``(1, F)`` → waveform ``(1, T)``."""


@dataclass
class VocoderScores:
    """Figures of one system, one value a clip; nan where a measure is undefined for a clip."""

    system: str
    pesq: list[float] = field(default_factory=list)
    mel_error: list[float] = field(default_factory=list)
    f0_correlation: list[float] = field(default_factory=list)
    voicing_error: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """Length of all clips."""
    time: float = 0.0
    """Time to synthesise them."""

    @property
    def real_time_factor(self) -> float:
        return self.time / max(self.seconds, 1e-9)

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """Mean, 95 % bootstrap interval and number of clips of each measure."""
        measures = {
            name: interval(getattr(self, name), seed)
            for name in ("pesq", "mel_error", "f0_correlation", "voicing_error")
        }
        return {"system": self.system, **measures, "real_time_factor": round(self.real_time_factor, 5)}


def interval(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Mean of the finite ``values`` with its 95 % bootstrap interval and their number."""
    known = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    low, high = bootstrap(known, seed=seed)
    return {"mean": float(known.mean()) if len(known) else float("nan"), "low": low, "high": high, "n": len(known)}


def held_out_clips(
    features: SpeechFeatures,
    count: int = 60,
    corpora: Sequence[str] = ("librispeech", "an4"),
    *,
    min_seconds: float = 1.0,
) -> list[int]:
    """About ``count`` test clips, in equal parts of each corpus and spread over its speakers, in a fixed order.

    Raises:
        DataError: the features hold no test clip of those corpora.
    """
    chosen: list[int] = []
    for place, corpus in enumerate(corpora):
        speakers: dict[str, list[int]] = {}
        for i, clip in enumerate(features):
            if clip.corpus != corpus or clip.seconds < min_seconds:
                continue
            if side_of(clip) == "test":
                speakers.setdefault(clip.speaker, []).append(i)
        rounds = max((len(v) for v in speakers.values()), default=0)
        order = [v[turn] for turn in range(rounds) for _, v in sorted(speakers.items()) if turn < len(v)]
        quota = (count - len(chosen)) // (len(corpora) - place)
        chosen += order[:quota]
    if not chosen:
        raise DataError(f"no held-out clip of {', '.join(corpora)}", source=features.folder)
    return chosen


def evaluate_vocoder(
    vocoder: nn.Module | Synthesis,
    features: SpeechFeatures,
    clips: Sequence[int],
    *,
    baselines: Sequence[str] = ("griffin-lim",),
    others: dict[str, Synthesis] | None = None,
    max_seconds: float = 8.0,
    progress: Callable[[str], None] | None = None,
) -> list[VocoderScores]:
    """Copy-synthesis of ``clips`` by ``vocoder``, by the ``baselines`` and by ``others``.

    Args:
        vocoder: takes mel ``(1, 100, F)`` and F0 ``(1, F)``.
        features: the prepared recordings.
        clips: their indices, see :func:`held_out_clips`.
        baselines: names out of :data:`BASELINES`.
        others: more systems to compare, e.g. HiFi-GAN.
        max_seconds: longer clips are cut.
    """
    unknown = sorted(set(baselines) - set(BASELINES))
    if unknown:
        raise DataError(f"no baseline called '{unknown[0]}'", remedy=f"known: {', '.join(BASELINES)}")
    if isinstance(vocoder, nn.Module):
        vocoder.eval()
    systems: dict[str, Synthesis] = {"vocoder": vocoder, **(others or {})}
    systems |= {name: functools.partial(_griffin_lim, name) for name in baselines}
    scores = []
    for name, system in systems.items():
        score = VocoderScores(name)
        for number, index in enumerate(clips):
            samples = int(max_seconds * _AUDIO.sample_rate)
            natural = features.waveform(index, 0, samples)
            f0 = features.pitch(index, 0, len(natural) // _AUDIO.hop_length + 1)
            with torch.inference_mode():
                mel = log_mel(torch.from_numpy(natural)[None])  # (1, 100, F)
                if number == 0:
                    system(mel, torch.from_numpy(f0)[None])  # the first call also sets things up
                begin = time.perf_counter()
                estimate = system(mel, torch.from_numpy(f0)[None])[0]
                score.time += time.perf_counter() - begin
            score.seconds += len(natural) / _AUDIO.sample_rate
            _score(score, natural, f0, estimate.float().cpu().numpy())
            if progress:
                progress(f"{name}: {number + 1}/{len(clips)}")
        scores.append(score)
    return scores


def _score(score: VocoderScores, natural: np.ndarray, f0: np.ndarray, estimate: np.ndarray) -> None:
    estimate = np.pad(estimate[: len(natural)], (0, max(0, len(natural) - len(estimate))))
    score.pesq.append(wideband_pesq(natural, estimate))
    with torch.inference_mode():
        mels = log_mel(torch.from_numpy(np.stack([natural, estimate])))
    score.mel_error.append(float((mels[0] - mels[1]).abs().mean()))
    heard = pitch(estimate)
    both = (f0 > 0) & (heard > 0)
    enough = both.sum() > 10
    score.f0_correlation.append(float(np.corrcoef(f0[both], heard[both])[0, 1]) if enough else float("nan"))
    score.voicing_error.append(float(((f0 > 0) != (heard > 0)).mean()))


def wideband_pesq(natural: np.ndarray, estimate: np.ndarray) -> float:
    """Wide-band PESQ (1.04 … 4.64) of ``estimate`` against ``natural``, both ``(T,)``; nan if no speech is found.

    Raises:
        DependencyError: the package ``pesq`` is not installed.
    """
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise DependencyError("PESQ needs the package pesq", remedy="pip install 'crossmodal[eval]'") from error
    value = pesq(_AUDIO.sample_rate, natural, estimate, "wb", on_error=PesqError.RETURN_VALUES)
    return float(value) if value > 0 else float("nan")


def _griffin_lim(name: str, mel: Tensor, f0: Tensor, iterations: int = 60) -> Tensor:
    """One of :data:`BASELINES`; ``f0`` is not used."""
    magnitude = torch.exp(mel[0])  # (100, F)
    samples = mel.shape[2] * _AUDIO.hop_length
    if name == "griffin-lim-torchaudio":
        inverse, synthesis = _torchaudio_inverse()
        return synthesis(inverse(magnitude))[None, :samples]
    import librosa

    if name == "griffin-lim-librosa":
        linear = librosa.feature.inverse.mel_to_stft(
            magnitude.numpy(), sr=_AUDIO.sample_rate, n_fft=_AUDIO.n_fft, power=1.0
        )
    else:
        linear = invert_filterbank(magnitude).numpy()
    wave = librosa.griffinlim(
        linear, n_iter=iterations, hop_length=_AUDIO.hop_length, win_length=_AUDIO.win_length, random_state=0
    )
    return torch.from_numpy(wave)[None]


@functools.lru_cache(maxsize=1)
def _torchaudio_inverse() -> tuple[nn.Module, nn.Module]:
    import torchaudio

    inverse = torchaudio.transforms.InverseMelScale(
        n_stft=_AUDIO.n_fft // 2 + 1,
        n_mels=_AUDIO.n_mels,
        sample_rate=_AUDIO.sample_rate,
        f_max=_AUDIO.sample_rate / 2,
        norm="slaney",
        mel_scale="slaney",
    )
    synthesis = torchaudio.transforms.GriffinLim(
        _AUDIO.n_fft, n_iter=60, win_length=_AUDIO.win_length, hop_length=_AUDIO.hop_length, power=1.0
    )
    return inverse, synthesis


def invert_filterbank(magnitude: Tensor, steps: int = 60) -> Tensor:
    """Non-negative least squares: mel magnitudes ``(100, F)`` → ``(513, F)`` (Lee & Seung 2001, eq. 4)."""
    basis = torch.from_numpy(mel_filterbank(_AUDIO.n_fft, _AUDIO.n_mels)).float()  # (M, K)
    linear = magnitude.mean(0).expand(basis.shape[1], -1).clone()
    gram, target = basis.T @ basis, basis.T @ magnitude
    for _ in range(steps):
        linear = linear * target / (gram @ linear + 1e-10)
    return linear


def figures(scores: Sequence[VocoderScores], seed: int = 0) -> list[Figure]:
    """The vocoder's measures beside the first baseline's, and its PESQ above each baseline on the same clips."""
    ours, *others = scores
    made = []
    for name, label, unit in _MEASURES:
        values = _known(getattr(ours, name))
        beside: dict[str, Any] = {}
        if others:
            reference = float(np.mean(_known(getattr(others[0], name))))
            beside = {"reference": reference, "reference_name": others[0].system}
        made.append(figure(f"vocoder: {label}", values, unit=unit, seed=seed, **beside))
    for other in others:
        difference = _known([a - b for a, b in zip(ours.pesq, other.pesq, strict=True)])
        name = f"vocoder: PESQ-WB above {other.system}, same clips"
        made.append(figure(name, difference, reference=0.0, reference_name="no difference", seed=seed))
    return made


def _known(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def speed(
    systems: Mapping[str, Synthesis], seconds: Sequence[float] = (4.0,), repeats: int = 3
) -> dict[str, list[float]]:
    """Real-time factor of each system for mels of so many ``seconds``: the best of ``repeats``, after one warm-up."""
    result: dict[str, list[float]] = {}
    for name, system in systems.items():
        for duration in seconds:
            frames = int(duration * _AUDIO.sample_rate / _AUDIO.hop_length)
            generator = torch.Generator().manual_seed(0)
            mel = torch.randn(1, _AUDIO.n_mels, frames, generator=generator) - 4.0
            f0 = torch.full((1, frames), 150.0)
            times = []
            with torch.inference_mode():
                system(mel, f0)
                for _ in range(repeats):
                    begin = time.perf_counter()
                    system(mel, f0)
                    times.append(time.perf_counter() - begin)
            result.setdefault(name, []).append(min(times) / duration)
    return result


def table(scores: Sequence[VocoderScores]) -> str:
    """A Markdown table of the summaries."""
    lines = [
        "| system | PESQ-WB [95 %] | log-mel error | F0 correlation | voicing error | n |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for score in scores:
        s = score.summary()
        lines.append(
            f"| {s['system']} | {s['pesq']['mean']:.2f} [{s['pesq']['low']:.2f}, {s['pesq']['high']:.2f}] "
            f"| {s['mel_error']['mean']:.3f} | {s['f0_correlation']['mean']:.3f} | {s['voicing_error']['mean']:.3f} "
            f"| {s['pesq']['n']} |"
        )
    return "\n".join(lines)


def load_vocoder(bundle: str | None = None, weights: Path | None = None) -> nn.Module:
    """The vocoder of a bundle (default: the starter's), or an exported ``vocoder.safetensors`` (+ ``.yaml``)."""
    if weights is None:
        from crossmodal.bundle import Bundle

        return Bundle.open(bundle).load("vocoder")
    from safetensors import safe_open

    from crossmodal.config import load_yaml
    from crossmodal.models import build

    with safe_open(weights, framework="pt") as file:
        kind = (file.metadata() or {}).get("kind", "vocoder")
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    module = build(kind, load_yaml(weights.with_suffix(".yaml")))
    module.load_state_dict(tensors)
    return module.eval()
