"""A basis of RGBA pictures in few bytes: luminance at full, colour and alpha at half resolution, 8 bits a value.

Only the pixels where any component differs from zero are kept. Everything is linear, so a picture is combined from the
packed components first and brought to full size and RGB afterwards: the basis itself is never unpacked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Rec. 601 luma and scaled colour differences.
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


_PLANES = ("y", "cb", "cr", "alpha")


def pack_basis(name: str, basis: Tensor) -> dict[str, Tensor]:
    """Compress ``basis`` ``(K, 4, H, W)`` (H and W even) → tensors whose names begin with ``name``."""
    ycc = torch.einsum("ij,kjhw->kihw", _TO_YCC.to(basis), basis[:, :3])
    half = F.avg_pool2d(torch.cat([ycc[:, 1:], basis[:, 3:]], dim=1), 2)  # (K, 3, H/2, W/2)
    packed: dict[str, Tensor] = {}
    for plane_name, plane in zip(_PLANES, (ycc[:, 0], half[:, 0], half[:, 1], half[:, 2])):
        support = (plane.abs().amax(0) > 0.5 / 255 / 4).flatten()
        values = plane.flatten(1)[:, support]
        scale = plane.new_ones(len(plane), 1)
        if values.numel():
            scale = values.abs().amax(1, keepdim=True).clamp_min(1e-9) / 127
        packed[f"{name}.{plane_name}.values"] = (values / scale).round().to(torch.int8)
        packed[f"{name}.{plane_name}.scale"] = scale.flatten().float()
        packed[f"{name}.{plane_name}.support"] = _pack_bits(support)
    return packed


class PackedBasis(nn.Module):
    """Linear combinations of a packed basis.

    Args:
        name: the tensors' names begin with it.
        tensors: of :func:`pack_basis`; those of ``name`` are taken out.
        size: height and width of the pictures.
        components: of the basis.

    Raises:
        KeyError: a tensor is missing. RuntimeError: the tensors are of another size.
    """

    def __init__(self, name: str, tensors: dict[str, Tensor], size: int, components: int) -> None:
        super().__init__()
        self.name, self.size = name, size
        for plane in _PLANES:
            side = size if plane == "y" else size // 2
            values, scale = tensors.pop(f"{name}.{plane}.values"), tensors.pop(f"{name}.{plane}.scale")
            support = _unpack_bits(tensors.pop(f"{name}.{plane}.support"), side * side)
            if len(values) != components or scale.numel() not in (1, components) or len(support) != side * side:
                raise RuntimeError(f"{name}.{plane}: {len(values)} components of {len(support)} pixels")
            if values.shape[1] != int(support.sum()):
                raise RuntimeError(f"{name}.{plane}: {values.shape[1]} values for {int(support.sum())} pixels")
            self.register_buffer(f"{plane}_values", values)
            self.register_buffer(f"{plane}_scale", scale.expand(components).clone())
            self.register_buffer(f"{plane}_where", support.nonzero()[:, 0])

    def planes(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Code ``(B, K)`` → luminance ``(B, 1, H, W)``, and colour and alpha ``(B, 3, H/2, W/2)``: see :func:`rgba`."""
        found = []
        for plane in _PLANES:
            values = self.get_buffer(f"{plane}_values").to(code.dtype)  # (K, P)
            combined = (code * self.get_buffer(f"{plane}_scale")) @ values
            side = self.size if plane == "y" else self.size // 2
            where = self.get_buffer(f"{plane}_where").expand(len(code), -1)
            full = combined.new_zeros(len(code), side * side).scatter(1, where, combined)
            found.append(full.view(-1, 1, side, side))
        return found[0], torch.cat(found[1:], dim=1)

    def packed(self) -> dict[str, Tensor]:
        """The tensors it was made from."""
        tensors: dict[str, Tensor] = {}
        for plane in _PLANES:
            tensors[f"{self.name}.{plane}.values"] = self.get_buffer(f"{plane}_values")
            tensors[f"{self.name}.{plane}.scale"] = self.get_buffer(f"{plane}_scale")
            support = torch.zeros(self.size**2 if plane == "y" else (self.size // 2) ** 2, dtype=torch.bool)
            support[self.get_buffer(f"{plane}_where").cpu()] = True
            tensors[f"{self.name}.{plane}.support"] = _pack_bits(support)
        return tensors


def rgba(luminance: Tensor, half: Tensor) -> Tensor:
    """Luminance ``(B, 1, H, W)``, and both colour differences and alpha ``(B, 3, H/2, W/2)`` → ``(B, 4, H, W)``."""
    half = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
    ycc = torch.cat([luminance, half[:, :2]], dim=1)
    rgb = torch.einsum("ij,kjhw->kihw", torch.linalg.inv(_TO_YCC).to(ycc), ycc)
    return torch.cat([rgb, half[:, 2:]], dim=1)


def _pack_bits(mask: Tensor) -> Tensor:
    """Booleans ``(N,)`` → bytes ``(⌈N/8⌉,)``."""
    padded = F.pad(mask.to(torch.uint8), (0, -len(mask) % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def _unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The reverse of :func:`_pack_bits`."""
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[:count].bool()
