"""Programs that listen: recognisers for word error rates, and a predictor of naturalness; none takes part in training.

pocketsphinx is always there (``pip install 'crossmodal[eval]'``). Whisper (Radford et al. 2023) and UTMOS (Saeki et al.
2022) are used when the user has their weights; nothing is downloaded, and nothing that could run code is loaded:
Whisper comes as a Hugging Face folder with safetensors, UTMOS as an ONNX graph. TorchScript files are refused, because
loading one runs what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError, DependencyError
from crossmodal.text import words

Recogniser = Callable[[np.ndarray], str]
"""Waveform ``(T,)`` at 16 kHz → the words heard, lower case, as spoken."""
Listener = Callable[[np.ndarray], float]
"""Waveform ``(T,)`` at 16 kHz → a score."""
_RATE = AudioConfig().sample_rate


def pocketsphinx() -> Recogniser:
    """The recogniser that pocketsphinx ships.

    Raises:
        DependencyError: pocketsphinx is not installed.
    """
    from crossmodal.data.alignment import Aligner

    recogniser = Aligner()
    return lambda waveform: recogniser.recognise(np.pad(waveform, 1600))


def whisper(folder: Path) -> Recogniser:
    """Whisper from a local Hugging Face folder (config, tokeniser, ``model.safetensors``), English, greedy.

    Raises:
        ConfigError: the folder does not hold such a model.
    """
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    remedy = "give a folder saved by transformers' save_pretrained, with model.safetensors"
    if not (folder / "config.json").is_file():
        raise ConfigError("holds no config.json", source=folder, remedy=remedy)
    try:
        processor = WhisperProcessor.from_pretrained(folder, local_files_only=True)
        model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"is no Whisper model ({reason})", source=folder, remedy=remedy) from error
    model.eval()
    options: dict[str, Any] = (
        {"language": "en", "task": "transcribe"} if getattr(model.generation_config, "is_multilingual", False) else {}
    )

    most = min(200, model.config.max_target_positions - 8)  # room for the prompt

    def recognise(waveform: np.ndarray) -> str:
        features = processor(waveform, sampling_rate=_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(features, do_sample=False, num_beams=1, max_new_tokens=most, **options)
        return " ".join(words(processor.batch_decode(tokens, skip_special_tokens=True)[0]))

    return recognise


def utmos(file: Path) -> Listener:
    """A predictor of mean opinion scores (1 to 5) as an ONNX graph: waveform ``(1, T)`` at 16 kHz → one number.

    Raises:
        DependencyError: onnxruntime is not installed.
        ConfigError: the file is no ONNX graph with one input of one or two dimensions.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError("UTMOS needs onnxruntime", remedy="pip install onnxruntime") from error
    remedy = "export the model with torch.onnx, input (1, T) of 16 kHz samples, output the score"
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own exceptions, without a common base
        raise ConfigError("is no ONNX graph that onnxruntime can run", source=file, remedy=remedy) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) not in (1, 2):
        shapes = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise ConfigError(f"takes {shapes}", source=file, remedy=remedy)
    name, dimensions = inputs[0].name, len(inputs[0].shape)

    def listen(waveform: np.ndarray) -> float:
        samples = np.ascontiguousarray(waveform, dtype=np.float32)
        scores = session.run(None, {name: samples[None] if dimensions == 2 else samples})[0]
        return float(np.mean(scores))

    return listen
