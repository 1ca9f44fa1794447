"""Sound: loading, voice activity, and every front-end of the library, all with the numbers of one ``AudioConfig``.

A waveform is float32, mono, 16 kHz, in [-1, 1]. :func:`load` makes one from any file (see :mod:`crossmodal.media`),
:func:`load_speech` also removes silence and refuses what is no speech. The spectrograms take ``(T,)`` or ``(B, T)``
tensors on any device, are differentiable, and keep their windows and filterbanks per device.
"""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmodal import media
from crossmodal.config import AudioConfig
from crossmodal.errors import AudioError, InputWarning, NoSpeechError, OutputError
from crossmodal.files import atomic_write

CONFIG = AudioConfig()
PITCH_FLOOR, PITCH_CEILING = 71.0, 600.0
"""Range of F0 in Hz that :func:`pitch` looks for; a lower floor takes the mains hum of recordings for a voice."""

_SILENCE = 1e-4
"""Peak below which a recording is silent (three steps of 16-bit PCM)."""
_VAD_MS = 30
_MAX_CHANNELS = 64


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


def load(source: Any, *, sample_rate: int | None = None, max_seconds: float | None = media.MAX_SECONDS) -> np.ndarray:
    """Anything with sound in it → float32 mono 16 kHz ``(T,)`` in [-1, 1].

    Channels are averaged; sound beyond ±1 (floats, lossy codecs) is scaled down to fit.

    Args:
        source: path of any sound or video file, ``-`` (standard input), bytes, an open binary file, or an array or
            tensor ``(T,)``, ``(C, T)`` or ``(T, C)`` (the shorter axis holds the channels) of floats in [-1, 1] or of
            8-, 16- or 32-bit integers.
        sample_rate: rate of an array or tensor in Hz; files say theirs.
        max_seconds: longest sound to accept; ``None`` for no limit.

    Raises:
        UnreadableAudioError: no such file, a folder, empty, not audio, or nothing of it can be decoded.
        NoAudioStreamError: a video without sound.
        AudioError: NaN or infinite samples, an array of unknown rate or type, or longer than ``max_seconds``.

    Warns:
        InputWarning: the file ends early or is damaged in places, or the sound is clipped towards a square wave.
    """
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.dtype in (torch.bfloat16, torch.float16) else source).numpy()
    if isinstance(source, np.ndarray | list | tuple):
        name, samples, rate = "array", _from_array(np.asarray(source), sample_rate), int(sample_rate or 0)
        if max_seconds is not None and len(samples) > max_seconds * rate:
            raise AudioError(f"longer than {max_seconds:.0f} s", source=name, remedy="cut it or raise max_seconds")
    else:
        decoded = media.decode(source, max_seconds=max_seconds)
        name, samples, rate = _name(source), decoded.samples, decoded.sample_rate
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples", source=name, remedy="export it again")
    samples = _fit_range(samples)
    if _is_clipped(samples):
        _warn(f"{name}: is badly clipped: expect poor results; record it at a lower level")
    return np.ascontiguousarray(_fit_range(media.resample(samples, rate, CONFIG.sample_rate)))


def load_speech(
    source: Any,
    *,
    sample_rate: int | None = None,
    min_seconds: float = 0.5,
    max_seconds: float | None = media.MAX_SECONDS,
) -> np.ndarray:
    """:func:`load`, then keep the speech: pauses are shortened to a fraction of a second, silence at the ends goes.

    Args:
        source: as in :func:`load`.
        sample_rate: as in :func:`load`.
        min_seconds: least duration of speech that is enough.
        max_seconds: as in :func:`load`.

    Returns:
        float32 ``(T,)`` of at least ``min_seconds``.

    Raises:
        NoSpeechError: silence, a steady tone or noise, or less speech than ``min_seconds``.
        AudioError: as in :func:`load`.
    """
    waveform = load(source, sample_rate=sample_rate, max_seconds=max_seconds)
    name = "array" if isinstance(source, np.ndarray | torch.Tensor | list | tuple) else _name(source)
    seconds = len(waveform) / CONFIG.sample_rate
    if not len(waveform) or np.abs(waveform - waveform.mean()).max() < _SILENCE:
        raise NoSpeechError(f"is silent ({seconds:.1f} s)", source=name, remedy="check the microphone or the track")
    speech = waveform[voice_activity(waveform)]
    if len(speech) < min_seconds * CONFIG.sample_rate:
        raise NoSpeechError(
            f"holds only {len(speech) / CONFIG.sample_rate:.2f} s of speech in {seconds:.2f} s",
            source=name,
            remedy=f"record at least {min_seconds:g} s, better 3 to 6 s, of clear speech",
        )
    if _is_tone(speech):
        raise NoSpeechError("is a steady tone, not speech", source=name, remedy="give a recording of a voice")
    if _is_steady(speech):
        raise NoSpeechError("is a steady noise, not speech", source=name, remedy="give a recording of a voice")
    return speech


def voice_activity(waveform: np.ndarray) -> np.ndarray:
    """Where there is speech, by WebRTC's detector as in Resemblyzer's ``trim_long_silences``.

    Frames of 30 ms at its strictest setting, smoothed over 8 frames and widened by 3 to each side. Quiet recordings
    are raised to -30 dBFS for the decision only.

    Args:
        waveform: ``(T,)`` at 16 kHz.

    Returns:
        bool ``(T,)``; a last part shorter than one frame is never speech.
    """
    import _webrtcvad  # the detector itself: its wrapper `webrtcvad` imports pkg_resources, a tenth of a second

    size = CONFIG.sample_rate * _VAD_MS // 1000
    frames = len(waveform) // size
    level = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0
    gain = max(1.0, 10 ** (CONFIG.speaker_target_dbfs / 20) / level) if level else 1.0
    pcm = to_int16(waveform[: frames * size] * gain).tobytes()
    detector = _webrtcvad.create()
    _webrtcvad.init(detector)
    _webrtcvad.set_mode(detector, 3)
    flags = [
        _webrtcvad.process(detector, CONFIG.sample_rate, pcm[2 * i : 2 * (i + size)], size)
        for i in range(0, frames * size, size)
    ]
    active = np.zeros(len(waveform), dtype=bool)
    if not any(flags):
        return active
    # The window of 8 covers 3 frames before and 4 after; a half rounds to even, that is, down.
    votes = np.convolve(np.pad(np.asarray(flags, dtype=int), (3, 4)), np.ones(8, dtype=int), mode="valid")
    widened = np.convolve((votes > 4).astype(int), np.ones(7, dtype=int), mode="same")[:frames] > 0
    active[: frames * size] = np.repeat(widened, size)
    return active


def _from_array(array: np.ndarray, sample_rate: int | None) -> np.ndarray:
    """Array of any layout and type → float32 mono ``(T,)`` at its own rate."""
    if sample_rate is None:
        raise AudioError("has no sample rate", source="array", remedy="pass sample_rate=, for example 16000")
    if not media.LOWEST_RATE <= sample_rate <= media.HIGHEST_RATE:
        raise AudioError(
            f"sample rate {sample_rate} Hz", source="array", remedy=f"use {media.LOWEST_RATE} to {media.HIGHEST_RATE}"
        )
    if array.ndim == 2 and array.shape[0] <= array.shape[1]:
        array = array.T
    if array.ndim not in (1, 2) or not array.size or (array.ndim == 2 and array.shape[1] > _MAX_CHANNELS):
        raise AudioError(f"expected (T,), (C, T) or (T, C), got shape {array.shape}", source="array")
    if not (array.dtype.kind == "f" or (array.dtype.kind in "iu" and array.dtype.itemsize <= 4)):
        raise AudioError(
            f"holds {array.dtype}", source="array", remedy="convert it to float in [-1, 1] or to 16-bit integers"
        )
    return media.to_mono(array if array.ndim == 2 else array[:, None])


def _fit_range(samples: np.ndarray) -> np.ndarray:
    """Scale down what goes beyond ±1; clipping would distort it."""
    peak = float(np.abs(samples).max(initial=0.0))
    return (samples / np.float32(peak)).clip(-1.0, 1.0) if peak > 1.0 else samples


def _is_clipped(samples: np.ndarray) -> bool:
    """Whether the wave has been cut to a square: over 40 % of it within 2 % of its peak, or over 5 % exactly there.

    "Exactly there" counts three equal samples in a row, which no sine or speech holds at its peak.
    """
    level = np.abs(samples - samples.mean())
    peak = level.max(initial=0.0)
    if len(samples) < 400 or peak < _SILENCE:
        return False
    at_peak = ((samples == samples.max()) | (samples == samples.min())) & (level > 0.5 * peak)
    flat = at_peak[:-2] & at_peak[1:-1] & at_peak[2:]
    return bool(np.mean(level >= 0.98 * peak) > 0.4 or flat.mean() > 0.05)


def _is_tone(samples: np.ndarray) -> bool:
    """Whether the power spectrum stays the same: cosine of its frames to their mean above 0.99 (speech: below 0.7)."""
    size = CONFIG.n_fft
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames)))  # (F, K)
    mean = power.mean(axis=0)
    norms = np.linalg.norm(power, axis=1) * np.linalg.norm(mean)
    return bool(np.mean(power @ mean / np.maximum(norms, 1e-12)) > 0.99)


def _is_steady(samples: np.ndarray) -> bool:
    """Whether the level stays the same: it spreads by less than 1 dB over frames of 50 ms.

    Hiss and hum spread by .2 to .9 dB, speech by 6 and more, speech in white noise as loud as itself by 1.6 and more
    (149 recordings of four corpora).
    """
    size = CONFIG.sample_rate // 20
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    level = 10.0 * np.log10(np.mean(np.square(frames), axis=1) + 1e-12)  # (F,) dB
    return bool(level.std() < 1.0)


def _name(source: Any) -> str:
    if isinstance(source, str | Path):
        return "standard input" if str(source) == "-" else str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "sound"


def _warn(message: str) -> None:
    warnings.warn(message, InputWarning, stacklevel=3)


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
    content = io.BytesIO()  # libsndfile says no more than "System error" of a full disk
    try:
        soundfile.write(content, to_int16(samples), sample_rate, format="WAV", subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise OutputError(f"cannot be written ({error.error_string})", source=path) from error
    atomic_write(path, content.getvalue())


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] → 16-bit PCM, rounded and clipped."""
    return (np.asarray(samples, dtype=np.float64) * 32768.0).round().clip(-32768, 32767).astype(np.int16)
