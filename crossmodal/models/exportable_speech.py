"""Acoustic model and vocoder in forms that ONNX can express; see :mod:`crossmodal.models.exportable`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.config import AudioConfig
from crossmodal.models.acoustic import F0_RANGE, SPEECH_LEVEL, AcousticModel
from crossmodal.models.vocoder import HarmonicVocoder

AUDIO = AudioConfig()


class Exportable(nn.Module):
    """A network with named inputs and outputs; ``axes`` says which sizes may change, by input or output."""

    inputs: ClassVar[dict[str, dict[int, str]]]
    outputs: ClassVar[dict[str, dict[int, str]]]

    tolerance: ClassVar[float] = 1e-4
    """Largest deviation from PyTorch that can be asked for, as a share of the output's largest value."""

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """Random inputs of a size."""
        raise NotImplementedError

    def well_posed(self) -> Exportable | None:
        """For a network that magnifies rounding errors: a form of it that does not, to be checked to 1e-4 as well."""
        return None


class ExportableEncoderOfText(Exportable):
    """Acoustic model, first half: tokens and voice → states and how long each token lasts."""

    inputs: ClassVar = {
        **{name: {0: "batch", 1: "tokens"} for name in ("phones", "stress", "word_final", "marks", "mask")},
        "embedding": {0: "batch"},
    }
    outputs: ClassVar = {
        "states": {0: "batch", 1: "tokens"}, "condition": {0: "batch"}, "log_duration": {0: "batch", 1: "tokens"},
        "energy": {0: "batch", 1: "tokens"},
    }  # fmt: skip

    def __init__(self, acoustic: AcousticModel) -> None:
        super().__init__()
        self.acoustic = acoustic

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """Random tokens."""
        generator, config = torch.Generator().manual_seed(seed), self.acoustic.config
        sizes = (len(config.phones), 3, 2, len(config.punctuation))
        tokens = [torch.randint(size, (batch, length), generator=generator) for size in sizes]
        voice = torch.rand(batch, self.acoustic.voice_mean.numel(), generator=generator)
        return (*tokens, torch.ones(batch, length), voice)

    def forward(
        self, phones: Tensor, stress: Tensor, word_final: Tensor, marks: Tensor, mask: Tensor, embedding: Tensor
    ) -> tuple[Tensor, ...]:
        """Tokens ``(B, N)``, mask ``(B, N)``, embedding ``(B, E)`` → as :meth:`AcousticModel.encode`."""
        voice = self.acoustic._exaggerate(F.normalize(embedding, dim=-1))
        return self.acoustic.encode(phones, stress, word_final, marks, mask, voice)


class ExportableDecoderOfFrames(Exportable):
    """Acoustic model, second half: states, spread over frames, → log-mel and F0."""

    inputs: ClassVar = {
        "states": {0: "batch", 1: "tokens"}, "condition": {0: "batch"}, "energy": {0: "batch", 1: "tokens"},
        "phones": {0: "batch", 1: "tokens"}, "token": {0: "batch", 1: "frames"}, "position": {0: "batch", 1: "frames"},
        "shift": {0: "batch", 1: "frames"}, "embedding": {0: "batch"},
    }  # fmt: skip
    outputs: ClassVar = {"mel": {0: "batch", 2: "frames"}, "f0": {0: "batch", 1: "frames"}}

    def __init__(self, acoustic: AcousticModel) -> None:
        super().__init__()
        self.acoustic = acoustic
        self.first = ExportableEncoderOfText(acoustic)

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """What the first half makes of random tokens, four frames each."""
        from crossmodal.models.acoustic import frame_layout

        tokens = self.first.example(batch, length, seed)
        with torch.no_grad():
            states, condition, _, energy = self.first(*tokens)
        index, position = frame_layout([4] * length)
        token = torch.as_tensor(index).expand(batch, -1).contiguous()
        place = torch.as_tensor(position).float().expand(batch, -1, -1).contiguous()
        return states, condition, energy, tokens[0], token, place, torch.zeros(batch, 4 * length), tokens[-1]

    def forward(
        self, states: Tensor, condition: Tensor, energy: Tensor, phones: Tensor, token: Tensor, position: Tensor,
        shift: Tensor, embedding: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """One sentence an example; ``shift`` ``(B, F)`` is added to log F0 → mel ``(B, 100, F)``, F0 ``(B, F)`` Hz."""
        net = self.acoustic
        embedding = F.normalize(embedding, dim=-1)
        voice, mask = net._exaggerate(embedding), torch.ones_like(shift)
        frames = net.spread(states, token)
        log_f0, voicing = net.contour(frames, position, condition, mask, voice)
        silent = net.spread((phones == 0).float(), token)  # (B, F)
        voiced = (torch.sigmoid(voicing) > 0.5).float() * (1 - silent)
        log_f0 = self._calibrate(log_f0, voiced, embedding) + shift
        log_f0 = log_f0.clamp(math.log(F0_RANGE[0]), math.log(F0_RANGE[1]))
        mel = net.decode(frames, position, net.spread(energy, token), log_f0, voiced, condition, mask)
        mel = self._level(net.restore_mel(mel), silent)
        return mel.transpose(1, 2), log_f0.exp() * voiced

    def _calibrate(self, log_f0: Tensor, voiced: Tensor, embedding: Tensor) -> Tensor:
        net = self.acoustic
        if float(net.f0_level) == 0.0:
            return log_f0
        mean = (log_f0 * voiced).sum(1, keepdim=True) / voiced.sum(1, keepdim=True).clamp_min(1.0)
        return net.f0_level + (embedding @ net.f0_weight)[:, None] + net.f0_range * (log_f0 - mean)

    @staticmethod
    def _level(mel: Tensor, silent: Tensor) -> Tensor:
        """:func:`crossmodal.models.acoustic.speech_level` without a choice by mask: sort, then weigh."""
        amplitude = mel.exp().mean(-1)  # (B, F)
        spoken = (silent < 0.5).float()
        spoken = torch.where(spoken.sum(1, keepdim=True) > 0, spoken, torch.ones_like(spoken))
        loud = torch.where(spoken > 0, amplitude, torch.zeros_like(amplitude)).sort(dim=1, descending=True).values
        count = (spoken.sum(1, keepdim=True) / 2).floor().clamp_min(1.0)
        weights = (torch.arange(mel.shape[1])[None] < count).float()
        level = ((loud * weights).sum(1, keepdim=True) / count).log()  # (B, 1)
        mel = mel + (SPEECH_LEVEL - level)[..., None]
        near = F.avg_pool1d(silent[:, None], 5, stride=1, padding=2, count_include_pad=False)[:, 0]
        return (mel - 3.0 * (near > 0.99).float()[..., None]).clamp_min(math.log(AUDIO.mel_floor))


class ExportableVocoder(Exportable):
    """Harmonic vocoder on real numbers; its white noise is an input.

    Phase recovery magnifies: a change of the input by 1e-7 of its size changes the waveform by 1e-3 (speech) to 1e-2
    (noise) of its scale after 20 projections, in PyTorch itself, for the phase of what is almost zero is anything. Two
    correct programs differ as much, so the strict comparison is made with four projections, which all do the same.
    """

    tolerance: ClassVar[float] = 0.1

    inputs: ClassVar = {
        "mel": {0: "batch", 2: "frames"}, "f0": {0: "batch", 1: "frames"}, "noise": {0: "batch", 1: "hops"},
    }  # fmt: skip
    outputs: ClassVar = {"waveform": {0: "batch", 1: "samples"}}
    forward_basis: Tensor
    inverse_basis: Tensor
    square: Tensor

    def __init__(self, vocoder: HarmonicVocoder, projections: int | None = None) -> None:
        super().__init__()
        self.vocoder, self.bins = vocoder, AUDIO.n_fft // 2 + 1
        self.projections = vocoder.config.projections if projections is None else projections
        time = torch.arange(AUDIO.win_length, dtype=torch.float64)
        bins = torch.arange(self.bins, dtype=torch.float64)
        angle = 2 * math.pi * time[:, None] * bins / AUDIO.n_fft  # (T, K)
        window = vocoder.window[: AUDIO.win_length].double()
        forward = window[:, None] * torch.cat([angle.cos(), -angle.sin()], dim=1)  # (T, 2K)
        twice = torch.full((self.bins,), 2.0, dtype=torch.float64)
        twice[0] = twice[-1] = 1.0  # bins without a mirrored one
        inverse = torch.cat([twice * angle.cos(), -twice * angle.sin()], dim=1).T / AUDIO.n_fft * window  # (2K, T)
        self.register_buffer("forward_basis", forward.float())
        self.register_buffer("inverse_basis", inverse.float())
        self.register_buffer("square", window.square().float().view(4, 1, AUDIO.hop_length))

    def well_posed(self) -> Exportable | None:
        """The vocoder with four projections."""
        return ExportableVocoder(self.vocoder, 4) if self.projections > 4 else None

    def example(self, batch: int, length: int, seed: int) -> tuple[Tensor, ...]:
        """A rough mel, and F0 with gaps."""
        generator = torch.Generator().manual_seed(seed)
        mel = torch.randn(batch, AUDIO.n_mels, length, generator=generator) - 5.0
        f0 = 100.0 + 100.0 * torch.rand(batch, length, generator=generator)
        f0[:, length // 3 : length // 2] = 0.0
        return mel, f0, torch.randn(batch, length + 3, AUDIO.hop_length, generator=generator)

    def forward(self, mel: Tensor, f0: Tensor, noise: Tensor) -> Tensor:
        """mel ``(B, 100, F)``, F0 ``(B, F)`` Hz, white noise ``(B, F + 3, hop)`` → ``(B, F · hop)``."""
        net, hop = self.vocoder, AUDIO.hop_length
        scale = 1.0 / math.sqrt(0.375 * AUDIO.win_length)
        pulses = F.pad(self._pulses(f0), (2 * hop, hop)).view(f0.shape[0], -1, hop)
        pulses, noise = self.analyse(pulses * scale), self.analyse(noise * scale)  # (B, F, 2K)
        comb = torch.log(self._size(pulses) + 0.03)
        voiced = f0 > 0
        pitch = torch.where(voiced, torch.log(f0.clamp_min(1.0) / 160.0), torch.zeros_like(f0))
        shown = comb[..., : net.config.comb_bins].transpose(1, 2)
        hidden = net.embed(torch.cat([(mel + 5.0) / 3.0, shown, pitch[:, None], voiced[:, None].float()], dim=1))
        for block in net.blocks:
            hidden = block(hidden)
        output = net.head(net.norm(hidden.transpose(1, 2)))
        shape, share, real, imaginary, gain, sharper = output.split(net.sizes, dim=-1)
        smooth = self._smoothness(mel)
        grain = smooth * (1.0 - share / net.config.harmonic_share).clamp(0.0, 1.0)
        shape = (shape + share * (1.0 + 1.5 * smooth) * (comb + 1.0)).clamp(-8.0, 4.0)
        magnitude = net.invert_mel(mel + sharper.transpose(1, 2).clamp(-6.0, 3.0), shape)
        a, b = pulses.split(self.bins, dim=-1)
        filtered = torch.cat([a * (1.0 + real) - b * imaginary, a * imaginary + b * (1.0 + real)], dim=-1)
        spectrum = filtered + noise * self._both(torch.exp(gain.clamp(-8.0, 4.0) - 3.0))
        median = math.sqrt(math.log(2.0))  # of the magnitude of unit-power noise
        magnitude = magnitude * torch.exp(grain * torch.log(self._size(noise) / median + 1e-3))
        grain = self._both(grain)
        spectrum = self._sign(spectrum) * (1.0 - grain) + self._sign(noise) * grain
        return self._project(spectrum, magnitude)

    def _smoothness(self, mel: Tensor) -> Tensor:
        """:meth:`HarmonicVocoder.smoothness` with a channel axis, which ONNX's pooling wants."""
        rough = (mel[:, 2:] - 2.0 * mel[:, 1:-1] + mel[:, :-2]).abs()[:, None]
        rough = F.avg_pool2d(F.pad(rough, (3, 3, 4, 4), mode="replicate"), (7, 7), stride=1)[:, 0]  # (B, M, F)
        rough = rough.transpose(1, 2) @ self.vocoder.interpolation
        return (2.0 - 2.0 * rough / self.vocoder.config.noise_roughness).clamp(0.0, 1.0)

    def _project(self, spectrum: Tensor, magnitude: Tensor) -> Tensor:
        beta = self.vocoder.config.relaxation
        state = spectrum = self._with_magnitude(spectrum, magnitude)
        for _ in range(self.projections):
            consistent = self.analyse(self.synthesise(state))
            spectrum = self._with_magnitude(2.0 * beta * consistent + (1.0 - 2.0 * beta) * state, magnitude)
            state = spectrum + beta * (state - consistent)
        return self.synthesise(spectrum)[:, 2:-1].flatten(1)

    def analyse(self, blocks: Tensor) -> Tensor:
        """``(B, F + 3, hop)`` → ``(B, F, 2K)``: see :meth:`HarmonicVocoder.analyse`."""
        end = blocks.shape[1] - 3
        return torch.cat([blocks[:, i : end + i] for i in range(4)], dim=-1) @ self.forward_basis

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """``(B, F, 2K)`` → ``(B, F + 3, hop)``: see :meth:`HarmonicVocoder.synthesise`."""
        hop = AUDIO.hop_length
        parts = (spectrum @ self.inverse_basis).split(hop, dim=-1)  # four of (B, F, hop)
        one = torch.ones_like(parts[0][:1, :, :1])  # (1, F, 1)
        return self._overlap(parts) / self._overlap([one * square for square in self.square]).clamp_min(0.1)

    @staticmethod
    def _overlap(parts: Any) -> Tensor:
        total = F.pad(parts[0], (0, 0, 0, 3))
        for i in range(1, 4):
            total = total + F.pad(parts[i], (0, 0, i, 3 - i))
        return total

    def _pulses(self, f0: Tensor) -> Tensor:
        """:func:`crossmodal.models.vocoder.pulse_train`, the running maximum written as a masked maximum."""
        rate, hop = AUDIO.sample_rate, AUDIO.hop_length
        pitch = _continuous_pitch(f0).clamp(20.0, rate / 4)
        following = torch.cat([pitch[:, 1:], pitch[:, -1:]], dim=1)
        ramp = torch.arange(hop) / hop
        frequency = (pitch[..., None] + (following - pitch)[..., None] * ramp).flatten(1)
        cycles = torch.cumsum(frequency.double() / rate, dim=1)
        phase = (2.0 * math.pi * (cycles - cycles.round())).float()
        harmonics = torch.floor(0.49 * rate / frequency)
        half = torch.sin(phase / 2)
        near = half.abs() < 1e-4
        kernel = torch.sin((harmonics + 0.5) * phase) / torch.where(near, torch.ones_like(half), half)
        kernel = torch.where(near, 2.0 * harmonics + 1.0, kernel)
        return (kernel - 1.0) / 2.0 * torch.rsqrt(harmonics)

    def _both(self, values: Tensor) -> Tensor:
        return torch.cat([values, values], dim=-1)

    def _power(self, spectrum: Tensor) -> Tensor:
        real, imaginary = spectrum.split(self.bins, dim=-1)
        return real * real + imaginary * imaginary

    def _size(self, spectrum: Tensor) -> Tensor:
        return self._power(spectrum).sqrt()

    def _sign(self, spectrum: Tensor) -> Tensor:
        size = self._size(spectrum)
        return spectrum * self._both(torch.where(size > 0, 1.0 / size.clamp_min(1e-30), size))

    def _with_magnitude(self, spectrum: Tensor, magnitude: Tensor) -> Tensor:
        return spectrum * self._both(torch.rsqrt(self._power(spectrum) + 1e-12) * magnitude)


def _continuous_pitch(f0: Tensor) -> Tensor:
    """:func:`crossmodal.models.vocoder.continuous_pitch` with a triangular mask in place of a running maximum."""
    frames = f0.shape[1]
    index = torch.arange(frames)
    voiced = f0 > 0  # (B, F)
    past = (index[None, :] <= index[:, None]) & voiced[:, None]  # (B, F, F): j ≤ i and voiced
    before = torch.where(past, index, torch.full_like(index, -1)).amax(-1)
    later = (index[None, :] >= index[:, None]) & voiced[:, None]
    after = torch.where(later, index, torch.zeros_like(index) + frames).amin(-1)
    left = torch.where(before < 0, after, before).clamp_min(0).minimum(torch.zeros_like(before) + frames - 1)
    right = torch.where(after >= frames, before, after).clamp_min(0).minimum(torch.zeros_like(before) + frames - 1)
    share = (index - left).float() / (right - left).clamp_min(1).float()
    first, second = f0.gather(1, left), f0.gather(1, right)
    filled = first + share.clamp(0.0, 1.0) * (second - first)
    return torch.where(voiced.float().sum(1, keepdim=True) > 0, filled, torch.full_like(f0, 120.0))
