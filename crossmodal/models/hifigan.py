"""HiFi-GAN vocoder (Kong et al. 2020) by coqui-tts, behind the library's vocoder interface.

An alternative to :class:`~crossmodal.models.vocoder.HarmonicVocoder` for who has a GPU to train it on: it needs no F0,
and costs 10 to 50 times as much on a CPU. ``TTS`` takes seconds to import and is imported when a network is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from crossmodal.config import AudioConfig
from crossmodal.errors import ConfigError, DependencyError

AUDIO = AudioConfig()


@dataclass(frozen=True)
class HiFiGANConfig:
    """Size of the generator; the defaults are HiFi-GAN V1's with upsampling for a hop of 200."""

    upsample_factors: tuple[int, ...] = (5, 5, 4, 2)
    """Stride of each transposed convolution; their product is the hop length."""
    upsample_kernels: tuple[int, ...] = (11, 11, 8, 4)
    """Kernel of each; kernel minus stride must be even."""
    channels: int = 512
    """Channels before the first upsampling, halved by each (V1 512, V2 128, V3 256)."""
    resblock: Literal["1", "2"] = "1"
    """Kind of residual block (V1 and V2: 1, V3: 2)."""
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def __post_init__(self) -> None:
        source = "vocoder-hifigan"
        if math.prod(self.upsample_factors) != AUDIO.hop_length:
            problem = f"upsample_factors multiply to {math.prod(self.upsample_factors)}, not {AUDIO.hop_length}"
            raise ConfigError(problem, source=source)
        if len(self.upsample_kernels) != len(self.upsample_factors):
            raise ConfigError("upsample_kernels needs one number a factor", source=source)
        if any(k < u or (k - u) % 2 for k, u in zip(self.upsample_kernels, self.upsample_factors)):
            raise ConfigError("each kernel must exceed its factor by an even number", source=source)
        if len(self.resblock_kernels) != len(self.resblock_dilations):
            raise ConfigError("resblock_dilations needs one tuple a kernel", source=source)
        if any(len(d) != (3 if self.resblock == "1" else 2) for d in self.resblock_dilations):
            raise ConfigError("resblock 1 takes three dilations a kernel, resblock 2 takes two", source=source)
        if self.channels % 2 ** len(self.upsample_factors):
            raise ConfigError("channels must be divisible by two for every upsampling", source=source)

    @classmethod
    def debug(cls) -> HiFiGANConfig:
        """Runs in milliseconds."""
        return cls(channels=16, resblock="2", resblock_kernels=(3,), resblock_dilations=((1, 3),))


class HiFiGANVocoder(nn.Module):
    """Log-mel → waveform.

    Raises:
        DependencyError: ``coqui-tts`` cannot be imported.
    """

    kind: ClassVar[str] = "vocoder-hifigan"

    def __init__(self, config: HiFiGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HiFiGANConfig()
        try:
            from TTS.vocoder.models.hifigan_generator import HifiganGenerator
        except ImportError as error:
            problem = f"cannot be imported ({error})"
            raise DependencyError(
                problem, source="coqui-tts", remedy="pip install 'coqui-tts[codec]==0.28.*'"
            ) from error
        self.generator = HifiganGenerator(
            in_channels=AUDIO.n_mels,
            out_channels=1,
            resblock_type=config.resblock,
            resblock_dilation_sizes=[list(d) for d in config.resblock_dilations],
            resblock_kernel_sizes=list(config.resblock_kernels),
            upsample_kernel_sizes=list(config.upsample_kernels),
            upsample_initial_channel=config.channels,
            upsample_factors=list(config.upsample_factors),
            inference_padding=0,
        )

    def forward(self, mel: Tensor, f0: Tensor | None = None) -> Tensor:
        """Synthesise.

        Args:
            mel: ``(B, 100, F)`` natural-log mel (:func:`crossmodal.audio.log_mel`).
            f0: ignored; HiFi-GAN finds the pitch in the mel.

        Returns:
            ``(B, F · 200)`` waveform in [-1, 1].
        """
        return self.generator(mel).squeeze(1)

    def export_state(self) -> dict[str, Tensor]:
        """Weights with weight normalisation multiplied out: two thirds of the tensors, and faster to load."""
        state = {}
        modules = dict(self.generator.named_modules())
        for name, module in modules.items():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                state[f"{name}.weight"] = module.weight.detach()
                if module.bias is not None:
                    state[f"{name}.bias"] = module.bias.detach()
        return state

    def load_export(self, tensors: dict[str, Tensor]) -> None:
        """Take what :meth:`export_state` gave; the network can be trained on."""
        modules = dict(self.generator.named_modules())
        with torch.no_grad():
            for key, value in tensors.items():
                name, _, part = key.rpartition(".")
                # assigning to a parametrised weight splits it into direction and length again
                target = getattr(modules[name], part)
                if target.shape != value.shape:
                    raise ValueError(f"{key} has shape {tuple(value.shape)}, not {tuple(target.shape)}")
                if part == "weight" and hasattr(modules[name], "parametrizations"):
                    modules[name].weight = value.to(target)
                else:
                    target.copy_(value)
