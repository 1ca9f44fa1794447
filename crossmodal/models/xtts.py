"""XTTS v2 of coqui-tts as the TTS of a bundle (Casanova et al., Interspeech 2024, "XTTS: a Massively Multilingual
Zero-Shot Text-to-Speech Model").

A GPT writes audio tokens, prompted by 32 *conditioning latents* of a reference; a HiFi-GAN turns its states into 24 kHz
sound, conditioned on a speaker embedding of the same reference. Both together are the voice: one vector of the space
``xtts-<n>``, the latents first, n = 32 · width + 512 (33,280 for the published model). Their lengths and signs carry
information, so the space is ``free`` (:func:`crossmodal.models.spaces.space_form`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError
from crossmodal.models.coqui_tts import check_embedding, coqui_config, parsed, seeded
from crossmodal.models.spaces import space_size

RATE = AudioConfig().sample_rate
LATENTS = 32
"""Conditioning latents that the perceiver makes of any reference."""


@dataclass(frozen=True)
class XTTSConfig:
    """What an XTTS is built from."""

    coqui: str = '{"model": "xtts", "model_args": {"gpt_use_perceiver_resampler": true}}'
    """coqui's configuration of the model as JSON, as far as speaking needs it."""
    input_space: str = "xtts-33280"
    """The voice: conditioning latents and speaker embedding."""
    language: str = "en"
    """Language it speaks, as the model calls it."""

    def __post_init__(self) -> None:
        args = parsed(self.coqui, source="tts-xtts.coqui").get("model_args", {})
        if not args.get("gpt_use_perceiver_resampler"):
            remedy = "use XTTS v2, whose voices are vectors of one size"
            raise ConfigError("is an XTTS without perceiver (v1)", source="tts-xtts", remedy=remedy)
        size = LATENTS * args.get("gpt_n_model_channels", 1024) + args.get("d_vector_dim", 512)
        if space_size(self.input_space) != size:
            problem = f"a voice has {size} components, {self.input_space} is named"
            raise ConfigError(problem, source="tts-xtts.input_space", remedy=f"name xtts-{size}")

    @classmethod
    def debug(cls) -> XTTSConfig:
        """A GPT of one narrow layer; coqui fixes the size of the rest (16 M parameters)."""
        settings = debug_settings()
        return cls(coqui=json.dumps(settings), input_space=f"xtts-{LATENTS * 64 + 512}")


def debug_settings() -> dict[str, Any]:
    """coqui's configuration of the smallest XTTS that works."""
    args = {
        "gpt_layers": 1, "gpt_n_model_channels": 64, "gpt_n_heads": 2, "gpt_max_audio_tokens": 12,
        "gpt_max_text_tokens": 60, "gpt_max_prompt_tokens": 40, "gpt_num_audio_tokens": 34,
        "gpt_start_audio_token": 32, "gpt_stop_audio_token": 33, "gpt_use_perceiver_resampler": True,
        "decoder_input_dim": 64,
    }  # fmt: skip
    return {"model": "xtts", "model_args": args, "languages": ["en", "fr"]}


class XTTS(nn.Module):
    """Text + voice → waveform, by XTTS v2. Its text tokens come with the weights (``vocab.json``)."""

    kind: ClassVar[str] = "tts-xtts"
    hears: ClassVar[bool] = True

    def __init__(self, config: XTTSConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or XTTSConfig()
        settings = coqui_config(parsed(config.coqui, source="coqui"), source="tts-xtts")
        from TTS.tts.models.xtts import Xtts

        self.network: Any = Xtts(settings)
        self.sample_rate = int(settings.model_args.output_sample_rate)
        """Hz of what it speaks."""
        self.vocabulary = ""

    def take(self, state: dict[str, Tensor], vocabulary: str) -> None:
        """Take weights, and the text tokeniser that they belong to, and get ready to speak.

        Args:
            state: coqui's ``model`` part of a checkpoint.
            vocabulary: the text of its ``vocab.json``.

        Raises:
            ValueError: the vocabulary is damaged. RuntimeError: weights are missing or of another shape.
        """
        from tokenizers import Tokenizer

        try:
            self.network.tokenizer.tokenizer = Tokenizer.from_str(vocabulary)
        except Exception as error:  # tokenizers raises bare exceptions
            raise ValueError(f"its vocabulary is damaged ({error})") from error
        self.vocabulary = vocabulary
        self.network.init_models()
        self.network.load_state_dict({name: value.float() for name, value in _used(state).items()})
        self.network.gpt.init_gpt_for_inference(kv_cache=self.network.args.kv_cache)
        self.eval()

    @torch.no_grad()
    def embed(self, waveform: np.ndarray | Tensor) -> Tensor:
        """Speech ``(T,)`` at 16 kHz → voice ``(D,)`` in ``config.input_space``.

        Raises:
            ConfigError: less than a third of a second of speech.
        """
        settings = self.network.config
        signal = torch.as_tensor(waveform, dtype=torch.float32, device=self.network.device)[None]
        if signal.shape[1] < RATE // 3:
            raise ConfigError("is too short for XTTS", source="waveform", remedy="give six seconds or more of speech")
        signal = signal[:, : RATE * settings.max_ref_len]
        if settings.sound_norm_refs:
            signal = signal / signal.abs().max().clamp_min(1e-6) * 0.75
        speaker = self.network.get_speaker_embedding(signal, RATE)  # (1, 512, 1)
        latents = self.network.get_gpt_cond_latents(
            signal, RATE, length=settings.gpt_cond_len, chunk_length=settings.gpt_cond_chunk_len
        )  # (1, 32, W)
        return torch.cat([latents.flatten(), speaker.flatten()]).float().clone()

    @torch.no_grad()
    def say(self, text: str, embedding: Tensor, *, speed: float = 1.0, seed: int = 0) -> Tensor:
        """One sentence → ``(T,)`` waveform at :attr:`sample_rate`, 24 kHz; arguments as of ``CoquiTTS.say``.

        Raises:
            ConfigError: the embedding has another size, or the sentence is longer than the GPT reads.
        """
        check_embedding(embedding, self.config.input_space)
        settings, width = self.network.config, self.network.args.gpt_n_model_channels
        latents, speaker = (
            embedding.to(self.network.device).float().split([LATENTS * width, len(embedding) - LATENTS * width])
        )
        with seeded(seed, self.network.device):
            try:
                spoken = self.network.inference(
                    text,
                    self.config.language,
                    latents.view(1, LATENTS, width),
                    speaker.view(1, -1, 1),
                    temperature=settings.temperature,
                    length_penalty=settings.length_penalty,
                    repetition_penalty=settings.repetition_penalty,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    speed=speed,
                )
            except AssertionError as error:  # its check of the number of tokens
                problem = f"sentence of {len(text)} characters is longer than XTTS reads"
                raise ConfigError(problem, source=f"text {text[:40]!r}", remedy="use shorter sentences") from error
        return torch.from_numpy(spoken["wav"])

    def export_state(self) -> dict[str, Tensor]:
        """Weights, and the vocabulary as bytes."""
        state = {f"network.{name}": value for name, value in _used(self.network.state_dict()).items()}
        letters = np.frombuffer(self.vocabulary.encode(), dtype=np.uint8).copy()
        return {**state, "vocabulary": torch.from_numpy(letters)}

    def load_export(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of :meth:`export_state`."""
        text = tensors["vocabulary"].numpy().tobytes().decode()
        prefix = "network."
        self.take({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, text)


_TRAINING = ("torch_mel_spectrogram_style_encoder.", "torch_mel_spectrogram_dvae.", "dvae.")
_REPEATED = ("gpt.gpt_inference.", "gpt.gpt.wte.")


def _used(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what belongs to training, and what inference holds a second time."""
    named = {name.removeprefix("xtts."): value for name, value in state.items()}
    return {name: value for name, value in named.items() if not name.startswith(_TRAINING + _REPEATED)}
