"""Every error a user of the library can meet, in one place.

Each error says what it is about (``source``), what is wrong (``problem``) and what to do (``remedy``); ``str(error)``
is one line made of the three, which is also what the command line prints before it exits with code 1.
"""

from __future__ import annotations


class CrossmodalError(Exception):
    """Base of all errors raised on purpose by this library.

    Args:
        problem: what is wrong, lower case, without a full stop.
        source: the file, argument or module it is about; empty if there is none.
        remedy: what the user can do about it; empty if nothing helps.
    """

    def __init__(self, problem: str, *, source: object = "", remedy: str = "") -> None:
        self.problem, self.source, self.remedy = problem, str(source), remedy
        line = f"{self.source}: {problem}" if self.source else problem
        super().__init__(f"{line}: {remedy}" if remedy else line)


class AudioError(CrossmodalError):
    """A sound that cannot be read or used."""


class UnreadableAudioError(AudioError):
    """The file is not audio, is truncated, or its codec is unknown."""


class NoAudioStreamError(AudioError):
    """The container (a video, say) holds no audio stream."""


class NoSpeechError(AudioError):
    """Silence, or less speech than the model needs."""


class ImageError(CrossmodalError):
    """A picture that cannot be read or used."""


class UnreadableImageError(ImageError):
    """The file is not an image, is truncated, or is too large to open safely."""


class NoFaceError(ImageError):
    """No face was found in the picture, or the face asked for does not exist."""


class TextError(CrossmodalError):
    """A text that cannot be spoken (empty, or nothing but punctuation)."""


class ConfigError(CrossmodalError):
    """A configuration with an unknown key or a value out of range."""


class BundleError(CrossmodalError):
    """A bundle that is missing, damaged, tampered with or of an unknown version."""


class SpaceMismatchError(BundleError):
    """Two modules that should share an embedding space name different ones."""


class DataError(CrossmodalError):
    """A data set, manifest or split that cannot be used."""


class LeakageError(DataError):
    """One identity would be on both sides of a split."""


class TrainingError(CrossmodalError):
    """A training run that cannot start or go on (a non-finite loss, a foreign checkpoint)."""


class CheckpointError(TrainingError):
    """A checkpoint that is damaged or belongs to another task or protocol."""


class DependencyError(CrossmodalError):
    """An optional package that the request needs is not installed."""


class OutputError(CrossmodalError):
    """An output that cannot be written (folder missing, disk full, unknown format)."""


class WatermarkError(CrossmodalError):
    """The watermark could not be applied or read, or its package is not usable."""


class InputWarning(UserWarning):
    """The input is usable, but the result may suffer (clipped sound, tiny face, several faces)."""
