"""Face + text → speech: a photo chooses the voice, any text is spoken in it.

After Goto et al., "Face2Speech", Interspeech 2020. The voice is one that suits the face, not that of the person in the
photo.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.config import AudioConfig, load_yaml
from crossmodal.errors import ConfigError, InputWarning, TextError
from crossmodal.journey import Journey

if TYPE_CHECKING:
    import torch

_Speaker = Callable[..., tuple[list[np.ndarray], int]]
"""Embedding, speed, pitch and seed → the sentences' waveforms ``(T_i,)`` and their rate in Hz."""

SENTENCE_PAUSE = 0.22
"""Seconds of silence between two sentences of one text."""


@dataclass
class Speech:
    """Generated speech."""

    waveform: np.ndarray
    """``(T,)`` float32 in [−1, 1]."""
    sample_rate: int
    embedding: torch.Tensor
    """``(E,)`` speaker embedding it was spoken with."""
    text: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """What made it; written into the file."""

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.waveform) / self.sample_rate

    def save(self, path: str | Path, *, watermark: bool = True) -> Path:
        """Write WAV, FLAC or Ogg by suffix, watermarked and marked as generated; whole or not at all.

        Raises:
            WatermarkError: the watermarker is missing or broken; pass ``watermark=False`` to do without it.
            OutputError: the file cannot be written.
        """
        from crossmodal.provenance import save_speech

        save_speech(path, self.waveform, self.sample_rate, watermark=watermark, details=self.details)
        return Path(path)


class Face2Speech(Journey):
    """Speak in a voice that suits a face, or in the voice of a recording.

    >>> f2s = Face2Speech.from_pretrained()                                        # doctest: +SKIP
    >>> f2s("face.jpg", "Good morning.").save("hello.wav")                         # doctest: +SKIP
    >>> f2s.speak("Good morning.", voice="reference.wav").save("hello.wav")        # doctest: +SKIP
    """

    def __call__(self, face: Any, text: str, **options: Any) -> Speech:
        """Speak ``text`` in a voice that suits ``face``; ``options`` as in :meth:`speak`."""
        return self.speak(text, face=face, **options)

    def speak(
        self,
        text: str,
        *,
        face: Any = None,
        voice: Any = None,
        embedding: torch.Tensor | None = None,
        speed: float = 1.0,
        pitch: float = 0.0,
        seed: int = 0,
        index: int | None = None,
        no_detect: bool = False,
    ) -> Speech:
        """Text in the voice of exactly one of ``face``, ``voice`` or ``embedding``.

        A bundle speaks by its TTS if it has one (coqui's VITS, YourTTS or XTTS, in their own language and sample rate),
        else by its acoustic model and vocoder.

        Args:
            text: any English text; numbers, dates and abbreviations are read out, long texts are split at sentences.
            face: a photo (file, ``-``, PIL image, array). ``index`` chooses among several faces, ``no_detect`` takes
                the whole picture for the face.
            voice: a recording to take the voice from.
            embedding: a speaker embedding ``(E,)`` of the bundle's space.
            speed: 0.5 (slow) to 2 (fast).
            pitch: semitones, −12 to 12.
            seed: of the noise in unvoiced sounds; the same seed gives the same samples.

        Raises:
            TextError: the text is empty or holds nothing that can be spoken.
            ImageError, AudioError: the photo or the recording cannot be used.
        """
        if sum(given is not None for given in (face, voice, embedding)) != 1:
            raise ConfigError("give exactly one of face, voice or embedding", source="speak")
        if not 0.5 <= speed <= 2.0:
            raise ConfigError(f"speed {speed} is out of range", source="speak", remedy="use 0.5 to 2")
        if not -12.0 <= pitch <= 12.0:
            raise ConfigError(f"pitch {pitch} is out of range", source="speak", remedy="use -12 to 12 semitones")
        speak = self._end_to_end(text) if "tts" in self.bundle else self._two_stages(text)
        if embedding is None:
            embedding = (
                self.voice_embedding(voice)
                if face is None
                else self.face_embedding(face, index=index, no_detect=no_detect)
            )
        parts, rate = speak(embedding.to(self.device), speed=speed, pitch=pitch, seed=seed)
        return Speech(
            waveform=join(parts, rate, pause=SENTENCE_PAUSE / speed),
            sample_rate=rate,
            embedding=embedding,
            text=text,
            details={
                "journey": "face + text → speech" if face is not None else "voice + text → speech",
                "bundle": f"{self.bundle.info.name} {self.bundle.info.version}",
                "seed": seed,
            },
        )

    def _two_stages(self, text: str) -> _Speaker:
        """Acoustic model and vocoder; the text is read before any network runs."""
        import torch

        from crossmodal.text import encode, sentences

        encoded = [encode(sentence) for sentence in sentences(text)]
        _warn_of_what_is_left_out(text)

        def speak(embedding: torch.Tensor, **how: Any) -> tuple[list[np.ndarray], int]:
            acoustic, vocoder = self.module("acoustic"), self.module("vocoder")
            parts = []
            with torch.inference_mode():
                for tokens in encoded:
                    spoken = acoustic.infer(tokens, embedding, **how)
                    waveform = vocoder(spoken.mel[None], spoken.f0[None])[0]  # (T,)
                    parts.append(waveform.float().cpu().numpy())
            return parts, AudioConfig().sample_rate

        return speak

    def _end_to_end(self, text: str) -> _Speaker:
        """The TTS of the bundle, sentence by sentence; the pitch is moved afterwards."""
        language = load_yaml(self.bundle.file(self.bundle.info.modules["tts"].config)).get("language", "en")
        if language.split("-")[0] == "en":
            from crossmodal.text import sentences

            pieces = sentences(text)
            _warn_of_what_is_left_out(text)
        else:
            pieces = [piece for piece in re.split(r"(?<=[.?!。？！।])\s*", text) if re.search(r"\w", piece)]
            if not pieces:
                raise TextError("holds nothing that can be said", source=f"text {text.strip()[:40]!r}")

        def speak(embedding: torch.Tensor, *, speed: float, pitch: float, seed: int) -> tuple[list[np.ndarray], int]:
            tts = self.module("tts")
            parts = [tts.say(piece, embedding, speed=speed, seed=seed).float().cpu().numpy() for piece in pieces]
            if pitch:
                from librosa.effects import pitch_shift

                parts = [pitch_shift(part, sr=tts.sample_rate, n_steps=pitch) for part in parts]
            return parts, tts.sample_rate

        return speak


def _warn_of_what_is_left_out(text: str) -> None:
    from crossmodal.text import unspeakable
    from crossmodal.text_normalise import markup

    left_out = [("what is not English", unspeakable(text)), ("markup", list(dict.fromkeys(markup(text))))]
    for what, found in left_out:
        if found:
            warnings.warn(InputWarning(f"text: left out {what}: {' '.join(found[:10])}"), stacklevel=4)


def join(parts: list[np.ndarray], sample_rate: int, *, pause: float) -> np.ndarray:
    """Sentences ``(T_i,)`` → one waveform ``(T,)`` with silence between, without clicks.

    Each edge is faded over 5 ms, so that no step reaches the silence; the whole is lowered if it would clip.
    """
    fade = max(1, int(0.005 * sample_rate))
    silence = np.zeros(int(pause * sample_rate), dtype=np.float32)
    joined: list[np.ndarray] = []
    for part in parts:
        faded = part.astype(np.float32, copy=True)
        ramp = np.linspace(0.0, 1.0, min(fade, len(faded) // 2), dtype=np.float32)
        if len(ramp):
            faded[: len(ramp)] *= ramp
            faded[-len(ramp) :] *= ramp[::-1]
        joined += [silence, faded] if joined else [faded]
    waveform = np.concatenate(joined) if joined else silence
    peak = float(np.abs(waveform).max(initial=0.0))
    return waveform * (0.98 / peak) if peak > 0.98 else waveform


def as_dict(speech: Speech) -> dict[str, Any]:
    """What ``--json`` prints of a speech: everything but the samples."""
    fields = {f.name: getattr(speech, f.name) for f in dataclasses.fields(speech) if f.name in ("sample_rate", "text")}
    return {**fields, "seconds": round(speech.seconds, 3), **speech.details}
