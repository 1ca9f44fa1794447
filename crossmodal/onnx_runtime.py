"""The journeys with onnxruntime in place of PyTorch's networks; sound, pictures and text are read as ever.

>>> s2f = use_onnx(Speech2Face.from_pretrained("starter-onnx", device="cpu"))       # doctest: +SKIP

The results are those of PyTorch up to rounding. ``crossmodal bench --onnx`` measures whether it pays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from crossmodal.bundle import Bundle
from crossmodal.config import AudioConfig, from_dict, load_yaml
from crossmodal.errors import ConfigError
from crossmodal.onnx_export import graphs_of, open_session

if TYPE_CHECKING:
    from crossmodal.journey import Journey
    from crossmodal.text import TokenSequence

J = TypeVar("J", bound="Journey")


class Graphs:
    """The ONNX graphs of a bundle, opened when first run.

    Raises:
        BundleError: the bundle holds no ONNX. DependencyError: onnxruntime is not installed.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.bundle, self.threads = bundle, threads
        self.listed = graphs_of(bundle)
        self._sessions: dict[str, Any] = {}

    def run(self, name: str, *values: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the graph ``name`` for its inputs in their order."""
        if name not in self._sessions:
            self._sessions[name] = open_session(self.bundle.file(f"onnx/{name}.onnx"), self.threads)
        given = {k: np.ascontiguousarray(v.numpy()) for k, v in zip(self.listed[name]["inputs"], values, strict=True)}
        return tuple(torch.from_numpy(value) for value in self._sessions[name].run(None, given))


def use_onnx(journey: J, threads: int = 0) -> J:
    """Let onnxruntime run the networks of ``journey`` (on the CPU); returns it.

    Args:
        journey: opened on a bundle that ``crossmodal models export --format onnx`` wrote.
        threads: of onnxruntime; 0 leaves their number to it.

    Raises:
        BundleError: the bundle holds no ONNX. DependencyError: onnxruntime is not installed.
        ConfigError: the journey is not on the CPU.
    """
    if journey.device.type != "cpu":
        raise ConfigError("onnxruntime runs on the CPU here", source="device", remedy="use --device cpu")
    graphs = Graphs(journey.bundle, threads)
    roles = {str(graph["role"]) for graph in graphs.listed.values()}
    for role in roles:
        if role == "acoustic":
            journey._modules[role] = _Acoustic(graphs)  # type: ignore[assignment]
        elif role == "vocoder":
            journey._modules[role] = _Vocoder(graphs)  # type: ignore[assignment]
        else:
            journey._modules[role] = _with_forward(journey, role, graphs)
    return journey


def _with_forward(journey: Journey, role: str, graphs: Graphs) -> Any:
    """The network itself, for what it does around its forward pass, with that pass in onnxruntime."""
    network: Any = journey.bundle.load(role)
    if role == "feature-head":
        network.mode = lambda embedding: graphs.run(role, embedding)[0]
    elif role == "face-decoder":
        # The graph draws the likeliest hair and takes no looks from a photo.
        network.forward = lambda feature, skin=None, portrait=None, style=None: _decoded(graphs, feature, skin)
        network.draw_styles, network.appearance = (lambda feature, generator=None: None), None
    else:
        network.forward = lambda x: graphs.run(role, x)[0]
    return network


def _decoded(graphs: Graphs, feature: Tensor, skin: Tensor | None) -> Any:
    """Faces without their textures."""
    from crossmodal.models.face_decoder import DecodedFace

    skin = torch.full((len(feature), 3), -1.0) if skin is None else skin.float()
    image, landmarks = graphs.run("face-decoder", feature, skin)
    return DecodedFace(image, landmarks, image[:0])


class _Vocoder:
    """Stands for :class:`~crossmodal.models.vocoder.HarmonicVocoder`, with the same noise, or for HiFi-GAN."""

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs
        self.takes_noise = "noise" in graphs.listed["vocoder"]["inputs"]
        entry = graphs.bundle.info.modules["vocoder"]
        self.seed = int(load_yaml(graphs.bundle.file(entry.config)).get("noise_seed", 0))

    def __call__(self, mel: Tensor, f0: Tensor) -> Tensor:
        if not self.takes_noise:
            return self.graphs.run("vocoder", mel)[0]
        batch, hop = mel.shape[0], AudioConfig().hop_length
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn((batch, (mel.shape[2] + 3) * hop), generator=generator).view(batch, -1, hop)
        return self.graphs.run("vocoder", mel, f0, noise)[0]


class _Acoustic:
    """Stands for :class:`~crossmodal.models.acoustic.AcousticModel` when it speaks."""

    def __init__(self, graphs: Graphs) -> None:
        from crossmodal.models import classes

        entry = graphs.bundle.info.modules["acoustic"]
        self.graphs = graphs
        self.config: Any = from_dict(classes(entry.kind)[1], load_yaml(graphs.bundle.file(entry.config)))

    def infer(
        self, tokens: TokenSequence, embedding: Tensor, *, speed: float = 1.0, pitch: float = 0.0,
        seed: int | None = None, variation: float = 0.0,
    ) -> Any:  # fmt: skip
        """As :meth:`AcousticModel.infer`."""
        from crossmodal.models.acoustic import AcousticModel, AcousticOutput, frame_layout

        def row(values: Any) -> Tensor:
            return torch.tensor([[int(v) for v in values]])

        AcousticModel._check(self, embedding, speed, pitch)  # type: ignore[arg-type]
        phones, voice = row(tokens.phones), embedding.float()[None]
        marks = (row(tokens.stress), row(tokens.word_final), row(tokens.punctuation))
        ones = torch.ones(1, len(tokens))
        states, condition, log_duration, energy = self.graphs.run("acoustic-text", phones, *marks, ones, voice)
        noise = AcousticModel._noise(len(tokens), seed, variation, torch.device("cpu"))  # (2, N)
        durations = AcousticModel._durations(self, log_duration[0] + 0.08 * noise[0], tokens, speed)  # type: ignore[arg-type]
        index, position = frame_layout(durations.tolist())
        token, place = torch.as_tensor(index)[None], torch.as_tensor(position).float()[None]
        shift = (0.05 * noise[1, token[0]] + pitch * math.log(2) / 12)[None]
        mel, f0 = self.graphs.run(
            "acoustic-frames", states, condition, energy, phones, token, place, shift, voice
        )  # fmt: skip
        return AcousticOutput(mel[0], f0[0], durations)
