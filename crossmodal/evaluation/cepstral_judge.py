"""A judge of voices that took no part in training: long-term cepstral statistics under linear discriminant analysis.

The neural speaker encoder drives the speech model, and may have trained it, so its opinion flatters. This judge knows
only what classic speaker recognition knew: mean and deviation of mel-frequency cepstra over the loud frames (Davis &
Mermelstein 1980; channel and voice together), projected on what tells the training speakers apart (Fisher 1936). It is
much the weaker judge: its figure on natural speech must stand beside its verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.errors import DataError, DependencyError

CEPSTRA = 24
_RATE = AudioConfig().sample_rate


def cepstral_statistics(waveform: np.ndarray) -> np.ndarray:
    """Speech ``(T,)`` at 16 kHz → ``(46,)``: mean and log deviation of cepstra 1 to 23 over the louder 60 % of frames.

    The zeroth cepstrum, loudness, is left out.
    """
    import librosa

    waveform = 0.1 * waveform / max(float(np.sqrt(np.mean(np.square(waveform)))), 1e-9)  # librosa has a floor
    mfcc = librosa.feature.mfcc(y=waveform.astype(np.float32), sr=_RATE, n_mfcc=CEPSTRA, n_fft=400, hop_length=160)
    loud = mfcc[:, mfcc[0] >= np.quantile(mfcc[0], 0.4)]  # (24, F)
    return np.concatenate([loud[1:].mean(1), np.log(loud[1:].std(1) + 1e-3)])


class CepstralJudge:
    """Tells training speakers apart by their cepstra, and so judges new ones.

    Args:
        waveforms: speech of at least two speakers, several pieces of each.
        speakers: who speaks in each.

    Raises:
        DependencyError: scikit-learn is not installed. DataError: fewer than two speakers with two pieces.
    """

    def __init__(self, waveforms: Sequence[np.ndarray], speakers: Sequence[str]) -> None:
        try:
            from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        except ImportError as error:
            raise DependencyError(
                "is not installed", source="scikit-learn", remedy="pip install crossmodal[eval]"
            ) from error
        names, count = np.unique(np.asarray(speakers), return_counts=True)
        if (count >= 2).sum() < 2:
            raise DataError(f"{len(names)} speakers, most with one piece", source="cepstral judge")
        self._lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=min(20, len(names) - 1))
        statistics = np.stack([cepstral_statistics(w) for w in waveforms])
        self._centre = self._lda.fit_transform(statistics, np.asarray(speakers)).mean(0)

    def embed(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Speech → ``(N, K)`` unit-length vectors."""
        projected = self._lda.transform(np.stack([cepstral_statistics(w) for w in waveforms])) - self._centre
        return projected / np.linalg.norm(projected, axis=1, keepdims=True)


def pieces(waveform: np.ndarray, seconds: float = 3.0) -> list[np.ndarray]:
    """``(T,)`` → its whole pieces of ``seconds``; the whole if it is shorter."""
    size = int(seconds * _RATE)
    return [waveform[i : i + size] for i in range(0, len(waveform) - size + 1, size)] or [waveform]
