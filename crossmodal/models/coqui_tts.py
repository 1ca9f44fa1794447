"""VITS and YourTTS of coqui-tts as the TTS of a bundle: text + speaker embedding → waveform, in one network.

VITS (Kim et al., ICML 2021, "Conditional Variational Autoencoder with Adversarial Learning for End-to-End
Text-to-Speech") needs neither acoustic model nor vocoder beside it. What says whose voice it is differs:

- **d-vectors** (YourTTS: Casanova et al., ICML 2022): any vector of the space it was trained with; YourTTS carries its
  own speaker encoder, with which :meth:`CoquiTTS.embed` turns a recording into such a vector;
- **speaker numbers** (the VITS of VCTK): each speaker's voice was measured in the bundle's space at import, and the
  nearest of them speaks.

``TTS`` takes seconds to import, and is imported when a network is built. :mod:`crossmodal.models.coqui_import` reads
coqui's own folders.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.config import AudioConfig
from crossmodal.errors import BundleError, ConfigError, DependencyError, TextError
from crossmodal.models.spaces import space_size

RATE = AudioConfig().sample_rate
INSTALL = "pip install 'coqui-tts[codec]==0.28.*'"


@dataclass(frozen=True)
class CoquiTTSConfig:
    """What a VITS of coqui-tts is built from."""

    coqui: str = '{"model": "vits"}'
    """coqui's configuration of the model as JSON, as far as speaking needs it."""
    input_space: str = "ge2e-256"
    """The speaker-embedding space read."""
    language: str = "en"
    """Language it speaks, as the model calls it."""
    speakers: int = 0
    """Numbered speakers whose voices were measured; 0 for a model that takes d-vectors."""
    speaker_encoder: str = ""
    """coqui's configuration of the model's own speaker encoder as JSON; empty if it has none."""

    def __post_init__(self) -> None:
        for name in ("coqui", "speaker_encoder"):
            if getattr(self, name):
                parsed(getattr(self, name), source=f"tts-coqui.{name}")
        if self.speakers < 0:
            raise ConfigError("speakers must not be negative", source="tts-coqui")
        space_size(self.input_space)

    @classmethod
    def debug(cls) -> CoquiTTSConfig:
        """Runs in a fraction of a second."""
        return cls(coqui=json.dumps(debug_settings(256)))


def debug_settings(d_vector_dim: int, **args: Any) -> dict[str, Any]:
    """coqui's configuration of the smallest VITS that works, on d-vectors; ``args`` go to its ``model_args``."""
    sizes = {
        "hidden_channels": 16, "hidden_channels_ffn_text_encoder": 16, "num_layers_text_encoder": 1,
        "num_layers_posterior_encoder": 1, "num_layers_flow": 1, "resblock_type_decoder": "2",
        "resblock_kernel_sizes_decoder": [3], "resblock_dilation_sizes_decoder": [[1, 3]],
        "upsample_initial_channel_decoder": 32, "use_sdp": False, "init_discriminator": False,
        "use_d_vector_file": True, "d_vector_dim": d_vector_dim,
    }  # fmt: skip
    return {"model": "vits", "audio": {"sample_rate": 16_000}, "model_args": {**sizes, **args}}


def parsed(text: str, *, source: object) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ConfigError: it is something else.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"is not valid JSON ({error})", source=source) from error
    if not isinstance(content, dict):
        raise ConfigError("is no JSON object", source=source)
    return content


def coqui_config(values: dict[str, Any], *, source: object) -> Any:
    """coqui's own configuration object of a TTS model.

    Raises:
        DependencyError: ``coqui-tts`` cannot be imported.
        ConfigError: a value is not what coqui expects, or names code outside of it.
    """
    try:
        from TTS.config import register_config
    except ImportError as error:
        raise DependencyError(f"cannot be imported ({error})", source="coqui-tts", remedy=INSTALL) from error
    symbols = values.get("characters") or {}
    if not str(symbols.get("characters_class") or "TTS.tts.").startswith("TTS.tts."):
        problem = f"characters_class {symbols['characters_class']} is not coqui's own"  # coqui would import it
        raise ConfigError(problem, source=source)
    try:
        config: Any = register_config(values["model"])()
        config.from_dict(values)
    except Exception as error:  # coqpit raises what its checks happen to raise
        raise ConfigError(f"is no configuration of coqui-tts ({_line(error)})", source=source) from error
    return config


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from ``seed`` inside, the caller's again afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class CoquiTTS(nn.Module):
    """Text + speaker embedding → waveform, by a VITS of coqui-tts.

    Raises:
        DependencyError: ``coqui-tts``, or the phonemiser that the model was trained with, is not installed.
        ConfigError: the configuration is not coqui's.
    """

    kind: ClassVar[str] = "tts-coqui"
    voices: Tensor

    def __init__(self, config: CoquiTTSConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CoquiTTSConfig()
        settings = coqui_config(parsed(config.coqui, source="coqui"), source="tts-coqui")
        from TTS.tts.models.vits import Vits

        try:
            self.network: Any = Vits(settings)
        except Exception as error:
            if "espeak" in str(error).lower() or "phonemizer" in str(error).lower():
                remedy = "install espeak-ng (apt install espeak-ng, brew install espeak-ng)"
                raise DependencyError("the model's phonemiser is missing", source="espeak-ng", remedy=remedy) from error
            raise ConfigError(f"coqui-tts cannot build it ({_line(error)})", source="tts-coqui") from error
        self.network.posterior_encoder = None  # for training only
        self.sample_rate = int(settings.audio.sample_rate)
        """Hz of what it speaks."""
        self._pace = float(self.network.length_scale)
        self.register_buffer("voices", torch.zeros(config.speakers, space_size(config.input_space)))
        self.encoder: Any = None
        if config.speaker_encoder:
            self.encoder = build_speaker_encoder(parsed(config.speaker_encoder, source="speaker_encoder"))

    @property
    def hears(self) -> bool:
        """Whether it has a speaker encoder of its own, so that :meth:`embed` works."""
        return self.encoder is not None

    @torch.no_grad()
    def embed(self, waveform: np.ndarray | Tensor) -> Tensor:
        """Speech ``(T,)`` at 16 kHz → unit-length ``(D,)`` in ``config.input_space``, by the model's own encoder: the
        mean over ten stretches of 2.5 s, as coqui-tts takes it.

        Raises:
            BundleError: the model has no speaker encoder.
        """
        if self.encoder is None:
            remedy = "put a speaker encoder of its space into the bundle"
            raise BundleError("has no speaker encoder of its own", source=self.kind, remedy=remedy)
        from torchaudio.functional import resample

        signal = torch.as_tensor(waveform, dtype=torch.float32, device=self._device)
        signal = resample(signal, RATE, int(self.encoder.audio_config["sample_rate"]))
        return F.normalize(self.encoder.compute_embedding(signal[None])[0], dim=-1).clone()

    @torch.no_grad()
    def say(self, text: str, embedding: Tensor, *, speed: float = 1.0, seed: int = 0) -> Tensor:
        """One sentence → ``(T,)`` waveform at :attr:`sample_rate`.

        Args:
            text: a sentence in ``config.language``.
            embedding: ``(D,)`` in ``config.input_space``.
            speed: 2 speaks twice as fast.
            seed: of its prior noise; the same seed gives the same samples on one device.

        Raises:
            TextError: none of its letters or phones is in ``text``.
            ConfigError: the embedding has another size.
        """
        check_embedding(embedding, self.config.input_space)
        tokens = self.network.tokenizer.text_to_ids(text, language=self.config.language)
        if len(tokens) < 2:
            raise TextError("holds nothing that this TTS can say", source=f"text {text[:40]!r}")
        given: dict[str, Any] = {"d_vectors": None, "speaker_ids": None, "language_ids": None}
        embedding = embedding.to(self._device).float()
        if self.config.speakers:
            given["speaker_ids"] = self.nearest(embedding)[None]
        else:
            given["d_vectors"] = embedding[None]
        if self.network.args.use_language_embedding:
            number = self.network.language_manager.name_to_id[self.config.language]
            given["language_ids"] = torch.tensor([number], device=self._device)
        return self._speak(tokens, given, speed, seed)

    def say_as(self, text: str, speaker: int, *, seed: int = 0) -> Tensor:
        """One sentence by the speaker of that number → ``(T,)``; for models with numbered speakers."""
        tokens = self.network.tokenizer.text_to_ids(text, language=self.config.language)
        number = torch.tensor([speaker], device=self._device)
        return self._speak(tokens, {"speaker_ids": number, "d_vectors": None, "language_ids": None}, 1.0, seed)

    def nearest(self, embedding: Tensor) -> Tensor:
        """Number of the speaker whose measured voice is most like ``embedding (D,)``, by cosine."""
        return (F.normalize(self.voices, dim=-1) @ embedding).argmax()

    def _speak(self, tokens: list[int], given: dict[str, Any], speed: float, seed: int) -> Tensor:
        x = torch.tensor([tokens], device=self._device)
        lengths = torch.tensor([len(tokens)], device=self._device)
        self.network.length_scale = self._pace / speed
        with seeded(seed, x.device):
            spoken = self.network.inference(x, {"x_lengths": lengths, **given})
        return spoken["model_outputs"][0, 0].clone()

    @property
    def _device(self) -> torch.device:
        return self.voices.device


def check_embedding(embedding: Tensor, space: str) -> None:
    """Raises:
    ConfigError: ``embedding`` is not one vector of ``space``.
    """
    if tuple(embedding.shape) != (space_size(space),):
        problem = f"expected ({space_size(space)},) in {space}, got {tuple(embedding.shape)}"
        raise ConfigError(problem, source="embedding")


def build_speaker_encoder(values: dict[str, Any]) -> nn.Module:
    """coqui's speaker encoder on waveforms.

    Raises:
        ConfigError: it is of a form that coqui-tts cannot build or that reads mels.
    """
    from TTS.encoder.utils.generic_utils import setup_encoder_model

    if not values.get("model_params", {}).get("use_torch_spec"):
        raise ConfigError("is not one that reads waveforms (use_torch_spec)", source="speaker encoder")
    config = coqui_config({**values, "model": "speaker_encoder"}, source="speaker encoder")
    try:
        return setup_encoder_model(config)
    except Exception as error:
        raise ConfigError(f"coqui-tts cannot build it ({_line(error)})", source="speaker encoder") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
