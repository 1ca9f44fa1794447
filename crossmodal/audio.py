"""Sound: loading, voice activity, and every front-end of the library, all with the numbers of one ``AudioConfig``.

A waveform is float32, mono, 16 kHz, in [-1, 1]. :func:`load` makes one from any file (see :mod:`crossmodal.media`),
:func:`load_speech` also removes silence and refuses what is no speech. The spectrograms take ``(T,)`` or ``(B, T)``
tensors on any device, are differentiable, and keep their windows and filterbanks per device.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmodal.config import AudioConfig
from crossmodal.errors import AudioError, OutputError
from crossmodal.files import atomic_path

CONFIG = AudioConfig()
PITCH_FLOOR, PITCH_CEILING = 71.0, 600.0
"""Range of F0 in Hz that :func:`pitch` looks for; a lower floor takes the mains hum of recordings for a voice."""


# ---------------------------------------------------------------------------------------------- spectrograms


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Mel of Slaney's Auditory Toolbox (linear to 1 kHz, logarithmic above) → Hz."""
    linear = mel * (200.0 / 3.0)
    return np.where(mel < 15.0, linear, 1000.0 * np.exp((mel - 15.0) * (np.log(6.4) / 27.0)))


def _slaney_mel(hz: float) -> float:
    """The reverse of :func:`_slaney_hz`."""
    return hz / (200.0 / 3.0) if hz < 1000.0 else 15.0 + np.log(hz / 1000.0) * (27.0 / np.log(6.4))


def mel_filterbank(n_fft: int, n_mels: int, sample_rate: int = CONFIG.sample_rate) -> np.ndarray:
    """Triangles of unit area on Slaney's mel scale, 0 Hz to Nyquist → ``(n_mels, n_fft // 2 + 1)``."""
    edges = _slaney_hz(np.linspace(0.0, _slaney_mel(sample_rate / 2), n_mels + 2))  # (M + 2,) Hz
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)  # (K,) Hz
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]  # (M, 1)
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (upper - lower))  # (M, K)


@functools.lru_cache(maxsize=32)
def _filterbank(n_fft: int, n_mels: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # a tensor born in inference mode could not be used in training later
        return torch.tensor(mel_filterbank(n_fft, n_mels), dtype=dtype, device=device)


@functools.lru_cache(maxsize=32)
def _hann(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(length, dtype=torch.float64).to(device=device, dtype=dtype)


def _batched(waveform: torch.Tensor) -> torch.Tensor:
    """Check and convert to a float ``(B, T)``."""
    if waveform.ndim not in (1, 2) or waveform.shape[-1] == 0 or not waveform.is_floating_point():
        raise AudioError(
            f"expected float samples (T,) or (B, T), got {waveform.dtype} {tuple(waveform.shape)}",
            source="waveform",
            remedy="load it with crossmodal.audio.load",
        )
    waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
    return waveform if waveform.ndim == 2 else waveform[None]


def _pad_reflected(waveform: torch.Tensor, pad: int) -> torch.Tensor:
    """``(B, T)`` → ``(B, pad + T + pad)``, mirrored at both ends as often as a short waveform needs."""
    length = waveform.shape[-1]
    if length > pad:
        return torch.nn.functional.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
    period = max(2 * (length - 1), 1)
    index = torch.arange(-pad, length + pad, device=waveform.device).remainder(period)
    return waveform[:, torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)]


def _stft(waveform: torch.Tensor, n_fft: int, win_length: int, hop_length: int) -> torch.Tensor:
    """``(B, T)`` already padded → complex ``(B, K, F)``; the window stands in the middle of the FFT frame."""
    window = _hann(win_length, waveform.dtype, waveform.device)
    return torch.stft(waveform, n_fft, hop_length, win_length, window, center=False, return_complex=True)


def log_mel(waveform: torch.Tensor) -> torch.Tensor:
    """The one log-mel of acoustic model and vocoder.

    Magnitude STFT (frames centred, edges reflected) → 100 Slaney bands of unit area, 0 Hz to Nyquist → natural
    logarithm of at least 1e-5.

    Args:
        waveform: ``(B, T)`` or ``(T,)`` at 16 kHz.

    Returns:
        ``(B, 100, T // 200 + 1)``, or ``(100, T // 200 + 1)`` for ``(T,)``.

    Raises:
        AudioError: the shape or type is not that of a waveform.
    """
    signal = _batched(waveform)
    with torch.autocast(signal.device.type, enabled=False):
        padded = _pad_reflected(signal, CONFIG.n_fft // 2)
        magnitude = _stft(padded, CONFIG.n_fft, CONFIG.win_length, CONFIG.hop_length).abs()  # (B, K, F)
        mel = _filterbank(CONFIG.n_fft, CONFIG.n_mels, signal.dtype, signal.device) @ magnitude  # (B, M, F)
        mel = mel.clamp_min(CONFIG.mel_floor).log()
    return mel if waveform.ndim == 2 else mel[0]


def speaker_mel(waveform: torch.Tensor) -> torch.Tensor:
    """Power mel without logarithm, the input of the GE2E speaker encoder (Resemblyzer's setting).

    Args:
        waveform: ``(B, T)`` or ``(T,)`` at 16 kHz.

    Returns:
        ``(B, T // 160 + 1, 40)``, or ``(T // 160 + 1, 40)`` for ``(T,)``.

    Raises:
        AudioError: the shape or type is not that of a waveform.
    """
    signal = _batched(waveform)
    n_fft = int(CONFIG.sample_rate * CONFIG.speaker_win_ms / 1000)
    hop = int(CONFIG.sample_rate * CONFIG.speaker_hop_ms / 1000)
    with torch.autocast(signal.device.type, enabled=False):
        padded = torch.nn.functional.pad(signal, (n_fft // 2, n_fft // 2))
        spectrum = _stft(padded, n_fft, n_fft, hop)  # (B, K, F)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = _filterbank(n_fft, CONFIG.speaker_n_mels, signal.dtype, signal.device) @ power  # (B, M, F)
    mel = mel.transpose(1, 2)  # (B, F, M)
    return mel if waveform.ndim == 2 else mel[0]


def fit_length(waveform: torch.Tensor, samples: int) -> torch.Tensor:
    """``(..., T)`` → ``(..., samples)``: shorter ones are repeated, longer ones cut (Oh et al. 2019, section 3)."""
    length = waveform.shape[-1]
    if length < samples:
        waveform = waveform.repeat(*[1] * (waveform.ndim - 1), -(-samples // length))
    return waveform[..., :samples]


def complex_spectrogram(waveform: torch.Tensor, *, seconds: float | None = CONFIG.s2f_seconds) -> torch.Tensor:
    """The input of Speech2Face's voice encoder (Oh et al. 2019, section 3).

    25 ms Hann window each 10 ms, zero-padded to a 512-point FFT, no padding at the edges; real and imaginary part
    are compressed one by one: ``sgn(S) |S|^0.3``.

    Args:
        waveform: ``(B, T)`` or ``(T,)`` at 16 kHz.
        seconds: repeat or cut to this duration; ``None`` keeps the waveform's own.

    Returns:
        ``(B, 2, frames, 257)``, or ``(2, frames, 257)`` for ``(T,)``; 6 s are 598 frames.

    Raises:
        AudioError: the shape or type is not that of a waveform.
    """
    signal = _batched(waveform)
    window_length, hop = CONFIG.s2f_win_length, CONFIG.s2f_hop_length
    samples = signal.shape[-1] if seconds is None else round(seconds * CONFIG.sample_rate)
    signal = fit_length(signal, max(samples, window_length))
    with torch.autocast(signal.device.type, enabled=False):
        frames = signal.unfold(-1, window_length, hop) * _hann(window_length, signal.dtype, signal.device)  # (B, F, W)
        spectrum = torch.view_as_real(torch.fft.rfft(frames, n=CONFIG.s2f_n_fft))  # (B, F, K, 2)
        compressed = spectrum.sign() * spectrum.abs().clamp_min(1e-12) ** CONFIG.s2f_power
    compressed = compressed.permute(0, 3, 1, 2).contiguous()  # (B, 2, F, K)
    return compressed if waveform.ndim == 2 else compressed[0]


# ----------------------------------------------------------------------------------------------------- pitch


def pitch(waveform: np.ndarray) -> np.ndarray:
    """F0 contour, frame by frame beside :func:`log_mel` (DIO refined by StoneMask; Morise et al. 2009, WORLD).

    Args:
        waveform: ``(T,)`` at 16 kHz.

    Returns:
        float32 ``(T // 200 + 1,)`` in Hz; 0 where unvoiced.

    Raises:
        AudioError: the shape is not that of a waveform, or it holds NaN or infinite samples.
    """
    import pyworld

    signal = np.ascontiguousarray(waveform, dtype=np.float64)
    if signal.ndim != 1 or not len(signal) or not np.isfinite(signal).all():
        raise AudioError(
            f"expected finite samples (T,), got shape {signal.shape}", source="waveform", remedy="use audio.load"
        )
    frames = len(signal) // CONFIG.hop_length + 1
    contour = np.zeros(frames, dtype=np.float32)
    if not signal.any():
        return contour
    period = 1000.0 * CONFIG.hop_length / CONFIG.sample_rate
    coarse, times = pyworld.dio(
        signal, CONFIG.sample_rate, f0_floor=PITCH_FLOOR, f0_ceil=PITCH_CEILING, frame_period=period
    )
    fine = pyworld.stonemask(signal, coarse, times, CONFIG.sample_rate)[:frames]
    contour[: len(fine)] = np.where((fine >= PITCH_FLOOR) & (fine <= PITCH_CEILING), fine, 0.0)
    return contour


# -------------------------------------------------------------------------------------------- loading, saving


def load(source: Any, *, sample_rate: int | None = None) -> np.ndarray:
    """Anything with sound in it → float32 mono 16 kHz ``(T,)`` in [-1, 1]."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(str(source), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return soxr.resample(mono, rate, CONFIG.sample_rate, "HQ") if rate != CONFIG.sample_rate else mono


def load_speech(source: Any, *, sample_rate: int | None = None, min_seconds: float = 0.5) -> np.ndarray:
    """:func:`load`."""
    return load(source, sample_rate=sample_rate)


def save_wav(path: str | Path, waveform: np.ndarray | torch.Tensor, sample_rate: int = CONFIG.sample_rate) -> None:
    """Write 16-bit mono WAV, whole or not at all; samples beyond ±1 are clipped.

    Raises:
        AudioError: the samples are not a finite ``(T,)``.
        OutputError: the file cannot be written.
    """
    import soundfile

    samples = np.asarray(waveform.detach().cpu() if isinstance(waveform, torch.Tensor) else waveform)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise AudioError(f"expected finite samples (T,), got shape {samples.shape}", source="waveform")
    with atomic_path(path) as temporary:
        try:
            soundfile.write(temporary, to_int16(samples), sample_rate, format="WAV", subtype="PCM_16")
        except soundfile.LibsndfileError as error:
            raise OutputError(f"cannot be written ({error.error_string})", source=path) from error


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] → 16-bit PCM, rounded and clipped."""
    return (np.asarray(samples, dtype=np.float64) * 32768.0).round().clip(-32768, 32767).astype(np.int16)
