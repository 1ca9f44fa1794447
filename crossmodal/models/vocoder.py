"""Log-mel and pitch → waveform: a harmonic + noise vocoder whose last layers are Griffin–Lim projections.

Everything but the last overlap-add runs at frame rate (80 frames a second), which is why it is quick on a CPU:

1. the source is a band-limited pulse train at the pitch, and white noise (the source–filter model of Wang et al.,
   "Neural Source-Filter Waveform Models", 2019, here in the STFT domain);
2. a ConvNeXt trunk (Liu et al., 2022; as a vocoder: Siuzdak, "Vocos", ICLR 2024) reads mel, pitch and the source's
   comb; for each bin it predicts the fine shape of the magnitude and how far the pulses' comb takes part in it, and a
   complex filter of the pulses and a gain of the noise, which give the first phase; it also corrects the mel itself,
   because predicted mels are blurred;
3. from that shape, a few multiplicative non-negative least-squares steps (Lee & Seung, "Algorithms for Non-negative
   Matrix Factorization", NIPS 2001, eq. 4) lead to a magnitude that has that mel;
4. a few Griffin–Lim-like projections with that magnitude make the phases of neighbouring frames agree (ADMM form:
   Masuyama, Yatabe, Oikawa, "Griffin–Lim Like Phase Recovery via Alternating Direction Method of Multipliers", IEEE SPL
   2019; it needs a quarter of the iterations of accelerated Griffin–Lim). They are differentiable: the trunk is trained
   through them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.audio import mel_filterbank
from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError

_EPS = 1e-9
_RAYLEIGH_MEDIAN = math.sqrt(math.log(2.0))  # of the magnitude of unit-power noise


@dataclass(frozen=True)
class VocoderConfig:
    """Size of the trunk and number of projections."""

    channels: int = 256
    """Width of the trunk."""
    expansion: int = 2
    """Inner width of a block as a multiple of ``channels``."""
    blocks: int = 4
    """ConvNeXt blocks."""
    kernel: int = 7
    """Frames seen by each block's depth-wise convolution."""
    comb_bins: int = 256
    """Lowest bins of the pulse train's spectrum shown to the trunk (256 bins = 4 kHz)."""
    inversion_steps: int = 4
    """Multiplicative steps of the mel inversion."""
    projections: int = 20
    """Projections between consistent spectra and the magnitude."""
    relaxation: float = 0.8
    """β = ρ / (1 + ρ) of the projections' ADMM penalty ρ; 1/2 is close to plain Griffin–Lim."""
    noise_roughness: float = 0.28
    """Mean second difference (nepers) over neighbouring bands that the log-mel of a recording hardly ever falls below
    (its 5th percentile); the noise of predicted mels has 0.05 to 0.15."""
    harmonic_share: float = 0.3
    """Share of the comb from which on a bin counts as harmonic (what training gives voiced frames)."""
    noise_seed: int = 0
    """Seed of the noise in eval mode, where the same input gives the same waveform."""

    def __post_init__(self) -> None:
        audio = AudioConfig()
        if min(self.channels, self.expansion, self.blocks, self.kernel, self.inversion_steps) < 1:
            raise ConfigError("channels, expansion, blocks, kernel and inversion_steps must be at least 1")
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, not {self.kernel}", source="vocoder")
        if not 0 <= self.comb_bins <= audio.n_fft // 2 + 1:
            raise ConfigError(
                f"comb_bins must lie in 0..{audio.n_fft // 2 + 1}, not {self.comb_bins}", source="vocoder"
            )
        if self.noise_roughness <= 0 or self.harmonic_share <= 0:
            raise ConfigError("noise_roughness and harmonic_share must be above 0", source="vocoder")
        if self.projections < 0 or not 0.0 < self.relaxation <= 1.0:
            raise ConfigError("projections must be >= 0 and relaxation in (0, 1]", source="vocoder")

    @classmethod
    def debug(cls) -> VocoderConfig:
        """Runs in milliseconds."""
        return cls(channels=16, blocks=1, kernel=3, projections=1)


class ConvNeXtBlock(nn.Module):
    """Depth-wise convolution over time, then a two-layer perceptron per frame, added to the input (Liu et al. 2022)."""

    def __init__(self, channels: int, hidden: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F)`` → ``(B, C, F)``."""
        h = self.norm(self.depthwise(x).transpose(1, 2))  # (B, F, C)
        h = self.project(F.gelu(self.expand(h))) * self.scale
        return x + h.transpose(1, 2)


class HarmonicVocoder(nn.Module):
    """Log-mel + F0 → waveform.

    The mel is the library's own (:func:`crossmodal.audio.log_mel`). In eval mode the noise comes from
    ``config.noise_seed``; in training mode from torch's global generator.
    """

    kind: ClassVar[str] = "vocoder"

    mel_basis: Tensor
    interpolation: Tensor
    window: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = audio = AudioConfig()
        if audio.win_length != 4 * audio.hop_length:
            raise ConfigError("the vocoder needs a window of four hops", source="audio")
        bins = audio.n_fft // 2 + 1
        basis = torch.from_numpy(mel_filterbank(audio.n_fft, audio.n_mels)).float()  # (M, K)
        self.register_buffer("mel_basis", basis, persistent=False)
        weights = basis / basis.sum(0, keepdim=True).clamp_min(_EPS)
        self.register_buffer("interpolation", weights, persistent=False)
        window = F.pad(torch.hann_window(audio.win_length), (0, audio.n_fft - audio.win_length))
        self.register_buffer("window", window, persistent=False)

        inputs = audio.n_mels + 2 + config.comb_bins
        self.embed = nn.Conv1d(inputs, config.channels, config.kernel, padding=config.kernel // 2)
        hidden = config.channels * config.expansion
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.channels, hidden, config.kernel, 1.0 / config.blocks) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.channels)
        # shape of the magnitude, share of the comb in it, filter of the pulses (real, imaginary), gain of the noise;
        # correction of the mel
        self.sizes = [bins] * 5 + [audio.n_mels]
        self.head = nn.Linear(config.channels, sum(self.sizes))
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, mel: Tensor, f0: Tensor) -> Tensor:
        """Synthesise.

        Args:
            mel: ``(B, 100, F)`` natural-log mel magnitudes.
            f0: ``(B, F)`` Hz, 0 where unvoiced.

        Returns:
            ``(B, F * 200)`` float32 waveform; frame ``i`` of the mel is centred on sample ``200 i``.

        Raises:
            ValueError: shapes that do not fit.
        """
        spectrum, magnitude = self.initial_spectrum(mel, f0, textured=True)
        return self.project(spectrum, magnitude)

    def initial_spectrum(self, mel: Tensor, f0: Tensor, *, textured: bool = False) -> tuple[Tensor, Tensor]:
        """The trunk's part: ``(B, F, K)`` complex spectrum with the first phase, and ``(B, F, K)`` magnitude.

        With ``textured``, noise and harmonics get the texture that a smooth mel does not have (:meth:`smoothness`).
        """
        if mel.ndim != 3 or mel.shape[1] != self.audio.n_mels or f0.shape != (mel.shape[0], mel.shape[2]):
            raise ValueError(
                f"expected mel (B, {self.audio.n_mels}, F) and f0 (B, F), got {tuple(mel.shape)}, {tuple(f0.shape)}"
            )
        with torch.autocast(mel.device.type, enabled=False):
            mel, f0 = mel.float(), f0.float()
            pulses, noise = self.source(f0)  # (B, F, K) complex
            comb = torch.log(pulses.abs() + 0.03)  # (B, F, K)
            shown = comb[..., : self.config.comb_bins].transpose(1, 2)
            voiced = f0 > 0
            pitch = torch.where(voiced, torch.log(f0.clamp_min(1.0) / 160.0), torch.zeros_like(f0))
            features = torch.cat([(mel + 5.0) / 3.0, shown, pitch[:, None], voiced[:, None].float()], dim=1)
        hidden = self.embed(features)  # (B, C, F)
        for block in self.blocks:
            hidden = block(hidden)
        output = self.head(self.norm(hidden.transpose(1, 2)))  # (B, F, 5 K + M)
        with torch.autocast(mel.device.type, enabled=False):
            shape, share, real, imaginary, gain, sharper = output.float().split(self.sizes, dim=-1)
            grain = None
            if textured:
                smooth = self.smoothness(mel)  # (B, F, K)
                grain = smooth * (1.0 - share / self.config.harmonic_share).clamp(0.0, 1.0)
                share = share * (1.0 + 1.5 * smooth)
            shape = (shape + share * (comb + 1.0)).clamp(-8.0, 4.0)
            magnitude = self.invert_mel(mel + sharper.transpose(1, 2).clamp(-6.0, 3.0), shape)
            spectrum = pulses * torch.complex(1.0 + real, imaginary) + noise * torch.exp(gain.clamp(-8.0, 4.0) - 3.0)
            if grain is not None:
                magnitude = magnitude * torch.exp(grain * torch.log(noise.abs() / _RAYLEIGH_MEDIAN + 1e-3))
                spectrum = torch.lerp(torch.sgn(spectrum), torch.sgn(noise), grain.to(spectrum.dtype))
        return spectrum, magnitude

    def smoothness(self, mel: Tensor) -> Tensor:
        """Where a log-mel ``(B, M, F)`` is smoother than any recording's: ``(B, F, K)``, 0 … 1.

        The mel of recorded speech is rough from band to band, with harmonics or with the grain of noise, and is used as
        it is. A predicted mel is an average and smooth; projections turn a smooth magnitude into a lattice of tones
        that buzzes at the frame rate. There, bins that the pulses shape get a deeper comb, and the others the random
        magnitude and phase of noise.
        """
        rough = (mel[:, 2:] - 2.0 * mel[:, 1:-1] + mel[:, :-2]).abs()
        rough = F.avg_pool2d(F.pad(rough, (3, 3, 4, 4), mode="replicate"), (7, 7), stride=1)  # (B, M, F)
        rough = rough.transpose(1, 2) @ self.interpolation  # (B, F, K)
        return (2.0 - 2.0 * rough / self.config.noise_roughness).clamp(0.0, 1.0)

    def project(self, spectrum: Tensor, magnitude: Tensor, projections: int | None = None) -> Tensor:
        """Phase recovery from the phase of ``spectrum``: ``(B, F, K)``, ``(B, F, K)`` → ``(B, F * hop)``.

        With ``P`` the projection on consistent spectra and ``A`` on the magnitude, a step is
        ``X = A(2β P(V) + (1 − 2β) V)``, ``V ← X + β (V − P(V))``: Masuyama et al. without the dual variable.
        """
        steps = self.config.projections if projections is None else projections
        beta = self.config.relaxation
        with torch.autocast(magnitude.device.type, enabled=False):
            state = spectrum = with_magnitude(spectrum, magnitude)
            for _ in range(steps):
                consistent = self.analyse(self.synthesise(state))
                spectrum = with_magnitude(2.0 * beta * consistent + (1.0 - 2.0 * beta) * state, magnitude)
                state = spectrum + beta * (state - consistent)
            blocks = self.synthesise(spectrum)
        return blocks[:, 2:-1].flatten(1)

    def invert_mel(self, mel: Tensor, shape: Tensor | None = None) -> Tensor:
        """``(B, M, F)`` log-mel → ``(B, F, K)`` magnitude whose mel is close to it (non-negative least squares).

        Many magnitudes have the same mel; the multiplicative steps find one near where they start, which is the mel
        interpolated over frequency, times ``exp(shape)`` ``(B, F, K)`` if given.
        """
        target = torch.exp(mel).transpose(1, 2)  # (B, F, M)
        density = torch.log(target / self.mel_basis.sum(1) + 1e-6) @ self.interpolation  # (B, F, K)
        magnitude = torch.exp(density if shape is None else density + shape)
        numerator = target @ self.mel_basis
        for _ in range(self.config.inversion_steps):
            magnitude = magnitude * numerator / (magnitude @ self.mel_basis.T @ self.mel_basis + _EPS)
        return magnitude

    def source(self, f0: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra ``(B, F, K)`` of the pulses at ``f0`` ``(B, F)`` and of white noise, of about unit power."""
        batch, frames = f0.shape
        hop = self.audio.hop_length
        pulses = pulse_train(f0, hop, self.audio.sample_rate)  # (B, F * hop)
        shape = (batch, (frames + 3) * hop)
        if self.training:
            noise = torch.randn(shape, device=f0.device)
        else:  # drawn on the CPU, so that every device gets the same
            generator = torch.Generator().manual_seed(self.config.noise_seed)
            noise = torch.randn(shape, generator=generator).to(f0.device)
        scale = 1.0 / math.sqrt(0.375 * self.audio.win_length)  # Hann² has mean 3/8
        pulses = F.pad(pulses, (2 * hop, hop))
        both = torch.cat([pulses, noise]).view(2 * batch, frames + 3, hop) * scale
        spectra = self.analyse(both)
        return spectra[:batch], spectra[batch:]

    def analyse(self, blocks: Tensor) -> Tensor:
        """STFT of a signal in hops: ``(B, F + 3, hop)`` → ``(B, F, K)``; frame ``i`` covers hops ``i … i + 3``."""
        frames = blocks.shape[1] - 3
        signal = F.pad(blocks.flatten(1), (0, self.audio.n_fft - self.audio.win_length))
        windows = signal.unfold(1, self.audio.n_fft, self.audio.hop_length)[:, :frames]  # (B, F, n_fft)
        return torch.fft.rfft(windows * self.window)

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Least-squares inverse STFT (Griffin & Lim 1984, eq. 6): ``(B, F, K)`` → ``(B, F + 3, hop)``."""
        batch, frames, _ = spectrum.shape
        hop, length = self.audio.hop_length, self.audio.win_length
        window = self.window[:length]
        frame = (torch.fft.irfft(spectrum, n=self.audio.n_fft)[..., :length] * window).view(batch, frames, 4, hop)
        total = frame.new_zeros(batch, frames + 3, hop)
        for i in range(4):
            total[:, i : i + frames] += frame[:, :, i]
        return total / self._coverage(frames)

    def _coverage(self, frames: int) -> Tensor:
        """``(frames + 3, hop)`` sum of the squared windows over each sample; fewer cover the hops at the ends."""
        hop = self.audio.hop_length
        square = self.window[: self.audio.win_length].square().view(4, hop)
        few = min(frames, 4)
        ends = square.new_zeros(few + 3, hop)
        for i in range(4):
            ends[i : i + few] += square[i]
        if frames > few:
            ends = torch.cat([ends[:3], ends[3:4].expand(frames - 3, hop), ends[-3:]])
        return ends.clamp_min(0.1)


def with_magnitude(spectrum: Tensor, magnitude: Tensor) -> Tensor:
    """The phase of ``spectrum`` (complex) with another ``magnitude``; same shapes."""
    power = spectrum.real * spectrum.real + spectrum.imag * spectrum.imag  # abs() and sgn() take twice the time
    return spectrum * (torch.rsqrt(power + 1e-12) * magnitude)


def continuous_pitch(f0: Tensor) -> Tensor:
    """``(B, F)`` F0 with unvoiced frames (0) filled linearly from voiced neighbours; 120 Hz if there are none."""
    frames = f0.shape[1]
    index = torch.arange(frames, device=f0.device).expand_as(f0)
    voiced = f0 > 0
    before = torch.where(voiced, index, torch.full_like(index, -1)).cummax(1).values
    after = torch.where(voiced, index, torch.full_like(index, frames)).flip(1).cummin(1).values.flip(1)
    nothing = ~voiced.any(1, keepdim=True)
    left = torch.where(before < 0, after, before).clamp(0, frames - 1)
    right = torch.where(after >= frames, before, after).clamp(0, frames - 1)
    share = (index - left).float() / (right - left).clamp_min(1).float()
    filled = torch.lerp(f0.gather(1, left), f0.gather(1, right), share.clamp(0.0, 1.0))
    return torch.where(nothing, torch.full_like(f0, 120.0), filled)


def pulse_train(f0: Tensor, hop: int, sample_rate: int) -> Tensor:
    """Band-limited pulses ``Σ cos kθ`` at the pitch, of power 1/2: ``(B, F)`` Hz → ``(B, F * hop)``.

    The sum over the harmonics below Nyquist has the closed form of the Dirichlet kernel. The pulses go on through
    unvoiced frames (at the interpolated pitch), so that a wrong voicing decision costs nothing.
    """
    pitch = continuous_pitch(f0).clamp(20.0, sample_rate / 4)
    following = torch.cat([pitch[:, 1:], pitch[:, -1:]], dim=1)
    ramp = torch.arange(hop, device=f0.device) / hop
    frequency = (pitch[..., None] + (following - pitch)[..., None] * ramp).flatten(1)  # (B, F * hop)
    cycles = torch.cumsum(frequency.double() / sample_rate, dim=1)
    phase = (2.0 * math.pi * (cycles - cycles.round())).float()  # (-π, π]
    harmonics = torch.floor(0.49 * sample_rate / frequency)
    half = torch.sin(phase / 2)
    near = half.abs() < 1e-4
    kernel = torch.sin((harmonics + 0.5) * phase) / torch.where(near, torch.ones_like(half), half)
    kernel = torch.where(near, 2.0 * harmonics + 1.0, kernel)
    return (kernel - 1.0) / 2.0 * torch.rsqrt(harmonics)
