"""Differentiable, regularised thin-plate-spline warp (Bookstein 1989) on a coarse grid: Cole et al.'s "spline warp".

The spline maps control points of the *output* to control points of the *texture*; evaluated at every pixel of the
output it says where in the texture to look. It is smooth, so it is evaluated at an eighth of the resolution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Solve = Callable[[Tensor, Tensor], Tensor]
"""``(B, N, N)``, ``(B, N, M)`` → the solution ``(B, N, M)``."""


def _kernel(squared: Tensor) -> Tensor:
    """``U(r) = r² log r²`` from squared distances, 0 at 0 (also its gradient)."""
    return squared * torch.log(squared.clamp_min(1e-9))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of points ``(B, N, 2)`` and ``(B, M, 2)`` → ``(B, N, M)``, differentiable at 0."""
    return (a[:, :, None] - b[:, None]).square().sum(-1)


def spline_coefficients(
    source: Tensor, target: Tensor, regularisation: float = 1e-3, solve: Solve = torch.linalg.solve
) -> Tensor:
    """Fit the spline with ``f(source) ≈ target``.

    Args:
        source: ``(B, N, 2)`` control points, in units of about the frame's size.
        target: ``(B, N, 2)`` where they go.
        regularisation: 0 interpolates; larger bends less. Also keeps coinciding control points solvable.
        solve: how the linear system is solved.

    Returns:
        ``(B, N + 3, 2)``: kernel weights, then offset and linear part.
    """
    batch, count, _ = source.shape
    kernel = _kernel(_distances(source, source))  # (B, N, N)
    kernel = kernel + regularisation * torch.eye(count, dtype=source.dtype, device=source.device)
    affine = torch.cat([source.new_ones(batch, count, 1), source], dim=-1)  # (B, N, 3)
    top = torch.cat([kernel, affine], dim=-1)
    bottom = torch.cat([affine.transpose(1, 2), source.new_zeros(batch, 3, 3)], dim=-1)
    system = torch.cat([top, bottom], dim=1)  # (B, N + 3, N + 3)
    right = torch.cat([target, source.new_zeros(batch, 3, 2)], dim=1)
    return solve(system, right)


def apply_spline(coefficients: Tensor, source: Tensor, points: Tensor) -> Tensor:
    """Evaluate at ``points`` ``(B, M, 2)`` the spline fitted on control points ``source`` → ``(B, M, 2)``."""
    affine = torch.cat([points.new_ones(*points.shape[:2], 1), points], dim=-1)  # (B, M, 3)
    basis = torch.cat([_kernel(_distances(points, source)), affine], dim=-1)  # (B, M, N + 3)
    return basis @ coefficients


def warp(
    texture: Tensor,
    texture_points: Tensor,
    output_points: Tensor,
    *,
    regularisation: float = 1e-3,
    step: int = 8,
    solve: Solve = torch.linalg.solve,
) -> Tensor:
    """Move ``texture`` so that its ``texture_points`` come to lie at ``output_points``.

    Args:
        texture: ``(B, C, H, W)``.
        texture_points: ``(N, 2)`` or ``(B, N, 2)`` control points in pixels (x, y) of the texture; the spline is fitted
            in their precision.
        output_points: ``(B, N, 2)`` the same points in pixels of the output, which is as large as the texture.
        regularisation: of the spline; in units of the squared frame.
        step: pixels between the grid points at which the spline is evaluated.
        solve: how its linear system is solved.

    Returns:
        ``(B, C, H, W)``; outside the texture its edge is repeated.
    """
    batch, _, height, width = texture.shape
    scale = texture.new_tensor([width, height])
    source = (output_points + 0.5) / scale * 2 - 1  # grid_sample's [-1, 1], pixel centres at half
    target = (texture_points.expand(batch, -1, -1) + 0.5) / scale * 2 - 1
    # Displacements rather than positions: the spline then only has to bend, and extrapolates by standing still.
    coefficients = spline_coefficients(source, target - source, regularisation, solve)
    rows, columns = -(-height // step), -(-width // step)
    y = (torch.arange(rows, device=texture.device, dtype=texture.dtype) + 0.5) / rows * 2 - 1
    x = (torch.arange(columns, device=texture.device, dtype=texture.dtype) + 0.5) / columns * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)  # (rows, columns, 2) as (x, y)
    points = grid.reshape(1, -1, 2).expand(batch, -1, -1).to(source.dtype)
    moved = apply_spline(coefficients, source, points).to(texture.dtype).reshape(batch, rows, columns, 2)
    moved = F.interpolate(moved.permute(0, 3, 1, 2), size=(height, width), mode="bicubic", align_corners=False)
    fine_y = (torch.arange(height, device=texture.device, dtype=texture.dtype) + 0.5) / height * 2 - 1
    fine_x = (torch.arange(width, device=texture.device, dtype=texture.dtype) + 0.5) / width * 2 - 1
    identity = torch.stack(torch.meshgrid(fine_y, fine_x, indexing="ij")[::-1], dim=-1)  # (H, W, 2)
    where = identity + moved.permute(0, 2, 3, 1)
    return F.grid_sample(texture, where, mode="bilinear", padding_mode="border", align_corners=False)


def with_anchors(points: Tensor, size: int) -> Tensor:
    """Add fixed points along the frame's border, so that only what the landmarks surround is bent.

    Args:
        points: ``(B, L, 2)`` landmarks in pixels.
        size: height and width of the frame.

    Returns:
        ``(B, L + 8, 2)``.
    """
    end, half = size - 1.0, (size - 1.0) / 2
    places = [(0.0, 0.0), (half, 0.0), (end, 0.0), (0.0, half), (end, half), (0.0, end), (half, end), (end, end)]
    return torch.cat([points, points.new_tensor(places).expand(points.shape[0], -1, -1)], dim=1)
