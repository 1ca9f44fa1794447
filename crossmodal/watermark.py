"""An inaudible mark of origin in generated speech: the watermark of ``resemble-perth``, read from its package.

Perth's network reads the log-magnitude spectrum below 2 kHz and predicts a small change to it, hidden under the speech;
a second network tells whether that change is there. This module runs the two networks itself: importing ``perth`` loads
librosa and torchaudio (seconds), and its class is silently ``None`` when one of its own imports fails. The arithmetic
is Perth's at half its sample rate (the same bins and frames, since nothing above 8 kHz takes part), and the mark is
*added* to the speech, so everything above 2 kHz stays untouched.

It is a mark of origin, not tamper-proof.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from crossmodal import media
from crossmodal.errors import DependencyError, WatermarkError
from crossmodal.files import package_folder

_RATE = 16_000
_N_FFT, _HOP = 1024, 160  # Perth: 2048 and 320 at 32 kHz
_PERTH_BINS = 1025
_FLOOR_DB, _RANGE_DB = -180.0, 195.0  # decibels are scaled by (dB - floor) / range
_CHUNK_SECONDS = 20.0
_SILENCE = 1e-4
_STRENGTHS, _CERTAIN = (1.0, 1.4, 2.0), 0.95  # 1.0 is Perth's own, enough for nearly all natural speech
_REMEDY = "reinstall it (pip install resemble-perth), or switch the watermark off explicitly (watermark=False)"


def _stack(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """1×1, five of width 7, 1×1; keys of the state dict as in Perth's checkpoint."""
    sizes = [(inputs, hidden, 1), *[(hidden, hidden, 7)] * 5, (hidden, outputs, 1)]
    return nn.Sequential(*(nn.ModuleDict({"conv": nn.Conv1d(i, o, k, padding=k // 2)}) for i, o, k in sizes))


def _run(stack: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    for i, layer in enumerate(stack):
        x = layer["conv"](x if i == 0 else F.leaky_relu(x))  # type: ignore[index]
    return x


class PerthNetwork(nn.Module):
    """Encoder and decoder of Perth's implicit watermark on the scaled log-magnitude ``(B, 1025, F)``."""

    SPEEDS = (("slow", 1.25), ("normal", 1.0), ("fast", 0.75))

    def __init__(self, bands: int = 128, hidden: int = 256) -> None:
        super().__init__()
        self.bands = bands
        self.encoder = nn.ModuleDict({"layers": _stack(bands, hidden, bands)})
        self.decoder = nn.ModuleDict({f"{name}_layers": _stack(bands, hidden, 2) for name, _ in self.SPEEDS})

    @staticmethod
    def loud(level: torch.Tensor) -> torch.Tensor:
        """``(B, K, F)`` → 1 where a frame is no silence, ``(B, 1, F)``."""
        total = level.sum(dim=1, keepdim=True)
        return (total > 0.05 * total.amax(dim=2, keepdim=True)).to(level.dtype)

    def change(self, level: torch.Tensor) -> torch.Tensor:
        """What the mark adds to the lowest bands ``(B, bands, F)`` of ``level``."""
        return _run(self.encoder["layers"], level[:, : self.bands]) * self.loud(level)  # type: ignore[arg-type]

    def confidence(self, level: torch.Tensor) -> torch.Tensor:
        """How surely ``level`` carries the mark ``(B,)``, about 0 to 1; read at three speeds, weighted by attention."""
        low, loud = level[:, : self.bands], self.loud(level)
        votes = []
        for name, speed in self.SPEEDS:
            size = int(level.shape[2] * speed)
            stretched = low if speed == 1.0 else F.interpolate(low, size, mode="linear", align_corners=True)
            mask = F.interpolate(loud, size, mode="nearest")  # (B, 1, F')
            out = _run(self.decoder[f"{name}_layers"], stretched)  # type: ignore[arg-type]  # (B, 2, F')
            votes.append((out * mask).sum(dim=2) / mask.sum(dim=2).clamp_min(1.0))  # (B, 2): attention, vote
        attention, vote = torch.stack(votes, dim=2).unbind(dim=1)  # (B, 3) each
        return (vote * attention.softmax(dim=1)).sum(dim=1)


@functools.lru_cache(maxsize=1)
def load_network() -> PerthNetwork:
    """The trained network, read from the installed package without importing it.

    Raises:
        WatermarkError: the package is missing, or its weights are missing, damaged or of another version.
    """
    try:
        folder = package_folder("perth")
    except DependencyError as error:
        raise WatermarkError("is not installed", source="resemble-perth", remedy=_REMEDY) from error
    weights = sorted((folder / "perth_net" / "pretrained" / "implicit").glob("perth_net_*.pth.tar"))
    if not weights:
        raise WatermarkError("its weights are missing", source="resemble-perth", remedy=_REMEDY)
    with torch.inference_mode(False):
        with torch.device("meta"):  # no random weights: all of them come from the file
            network = PerthNetwork()
        try:
            state = torch.load(weights[-1], map_location="cpu", weights_only=True)["model"]
            trained = {k: v for k, v in state.items() if k.startswith(("encoder.", "decoder."))}
            network.load_state_dict(trained, assign=True)
        except Exception as error:  # a damaged zip or pickle raises almost anything
            raise WatermarkError(
                f"its weights cannot be used ({type(error).__name__})", source=weights[-1].name, remedy=_REMEDY
            ) from error
    return network.eval().requires_grad_(False)


def _spectrum(samples: np.ndarray) -> torch.Tensor:
    """``(T,)`` at 16 kHz → complex ``(1, 513, F)``, scaled as Perth's at 32 kHz."""
    signal = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None]
    window = torch.hann_window(_N_FFT)
    mode = "reflect" if len(samples) > _N_FFT // 2 else "constant"
    return 2.0 * torch.stft(signal, _N_FFT, _HOP, window=window, center=True, pad_mode=mode, return_complex=True)


def _level(spectrum: torch.Tensor) -> torch.Tensor:
    """Scaled log-magnitude with the bins that Perth has above 8 kHz, empty: ``(1, 1025, F)``."""
    level = (20.0 * spectrum.abs().clamp_min(10 ** (_FLOOR_DB / 20)).log10() - _FLOOR_DB) / _RANGE_DB
    return F.pad(level, (0, 0, 0, _PERTH_BINS - level.shape[1]))


def _chunks(samples: np.ndarray, rate: int) -> list[np.ndarray]:
    """Pieces of about 20 s, so that hours of sound need little memory."""
    return np.array_split(samples, max(1, round(len(samples) / (rate * _CHUNK_SECONDS))))


def _check(waveform: np.ndarray | torch.Tensor) -> np.ndarray:
    samples = np.asarray(waveform.detach().cpu() if isinstance(waveform, torch.Tensor) else waveform, dtype=np.float32)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise WatermarkError(f"expected finite samples (T,), got shape {samples.shape}", source="waveform")
    return samples


def mark_audio(waveform: np.ndarray | torch.Tensor, sample_rate: int) -> np.ndarray:
    """Hide the mark in speech, stronger where it would not be read back with certainty (very clean, synthetic voices).

    Args:
        waveform: ``(T,)`` in [-1, 1].
        sample_rate: its rate in Hz; the mark lives below 2 kHz, so any rate does.

    Returns:
        float32 ``(T,)``, of the same RMS level; silence comes back unchanged.

    Raises:
        WatermarkError: the package is unusable, or the samples are not a finite ``(T,)``.
    """
    samples = _check(waveform)
    marked = samples
    for strength in _STRENGTHS:
        marked = _marked(samples, sample_rate, strength)
        if audio_mark(marked, sample_rate) >= _CERTAIN:
            break
    return marked


def _marked(samples: np.ndarray, sample_rate: int, strength: float) -> np.ndarray:
    network = load_network()
    narrow = media.resample(samples, sample_rate, _RATE)
    with torch.inference_mode():
        mark = np.concatenate([_mark_of(network, chunk, strength) for chunk in _chunks(narrow, _RATE)])
    mark = media.resample(mark, _RATE, sample_rate)[: len(samples)]
    marked = samples + np.pad(mark, (0, len(samples) - len(mark)))
    before, after = _rms(samples), _rms(marked)
    if after > 0:
        marked *= before / after
    peak = float(np.abs(marked).max())
    return (marked / peak if peak > 1.0 else marked).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _mark_of(network: PerthNetwork, samples: np.ndarray, strength: float) -> np.ndarray:
    """What to add to ``samples`` ``(T,)`` at 16 kHz."""
    if not len(samples) or np.abs(samples).max() < _SILENCE:
        return np.zeros_like(samples)
    spectrum = _spectrum(samples)
    gain = 10.0 ** (network.change(_level(spectrum)) * (strength * _RANGE_DB / 20.0)) - 1.0  # (1, bands, F)
    mark = torch.zeros_like(spectrum)
    mark[:, : network.bands] = 0.5 * spectrum[:, : network.bands] * gain
    return torch.istft(mark, _N_FFT, _HOP, window=torch.hann_window(_N_FFT), length=len(samples))[0].numpy()


def audio_mark(waveform: np.ndarray | torch.Tensor, sample_rate: int) -> float:
    """How surely the sound carries the mark, from 0 to 1: the surest of its pieces of about 20 s.

    Raises:
        WatermarkError: the package is unusable, or the samples are not a finite ``(T,)``.
    """
    narrow = media.resample(_check(waveform), sample_rate, _RATE)
    network = load_network()
    with torch.inference_mode():
        found = [
            float(network.confidence(_level(_spectrum(chunk))).clamp(0.0, 1.0))
            for chunk in _chunks(narrow, _RATE)
            if len(chunk) >= _N_FFT and np.abs(chunk).max() >= _SILENCE
        ]
    return max(found, default=0.0)
