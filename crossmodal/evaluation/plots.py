"""Plots as inline SVG, coloured by the page's CSS variables so that they follow light and dark.

Two kinds: curves with interval bands and a chance line, and the small bar that shows one figure's interval beside what
it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from crossmodal.evaluation.figures import Curve, Figure

_WIDTH, _HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 44
Place = Callable[[Sequence[float], Sequence[float]], list[str]]
COLOURS = 6
"""CSS variables ``--c0`` … of the curves."""


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``: multiples of 1, 2, 2.5 or 5 times a power of ten, at most ``most``."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def number(value: float | None) -> str:
    """Three decimals below ten, fewer above; a dash where undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}".replace("-", "−")


def curve_plot(curves: Sequence[Curve]) -> str:
    """One plot of ``curves``, which share their axes' labels."""
    xs = _finite([c.x for c in curves])
    ys = _finite([series for c in curves for series in (c.y, c.low, c.high, c.reference)])
    if not len(xs) or not len(ys):
        return ""
    x_ticks, y_ticks = _axis(xs), _axis(ys, shares=True)
    (x0, x1), (y0, y1) = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])

    def place(x: Sequence[float], y: Sequence[float]) -> list[str]:
        px = _LEFT + (np.asarray(x, float) - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        py = _HEIGHT - _BOTTOM - (np.asarray(y, float) - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
        return [f"{a:.1f},{b:.1f}" for a, b in zip(px, py) if math.isfinite(a) and math.isfinite(b)]

    parts = [_grid(x_ticks, y_ticks, place)]
    for k, curve in enumerate(curves):
        colour = f"var(--c{k % COLOURS})"
        band = place(curve.x, curve.high) + place(curve.x, curve.low)[::-1]
        if len(band) > 2:
            parts.append(f"<polygon points='{' '.join(band)}' fill='{colour}' opacity='.18'/>")
        if curve.reference is not None and curve.reference not in [c.reference for c in curves[:k]]:
            ends = place([x0, x1], [curve.reference] * 2)
            parts.append(f"<polyline class='chance' points='{' '.join(ends)}'/>")
        points = place(curve.x, curve.y)
        parts.append(f"<polyline points='{' '.join(points)}' fill='none' stroke='{colour}' stroke-width='2'/>")
        if len(points) <= 20:
            parts += [
                f"<circle cx='{px}' cy='{py}' r='3' fill='{colour}'/>" for px, py in (p.split(",") for p in points)
            ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f"<text x='{middle}' y='{_HEIGHT - 6}' class='label' text-anchor='middle'>{escape(curves[0].x_label)}</text>"
    )
    height = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f"<text transform='translate(14 {height}) rotate(-90)' class='label' text-anchor='middle'>"
        f"{escape(curves[0].y_label)}</text>"
    )
    names = ", ".join(c.name for c in curves)
    return (
        f"<svg class='plot' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{escape(names, quote=True)}'>"
        f"{''.join(parts)}</svg>"
    )


def interval_bar(figure: Figure, width: int = 150) -> str:
    """The 95 % interval as a bar, the value as a dot, the reference and chance as ticks, on a scale of its own."""
    marks = [figure.value, figure.low, figure.high, figure.reference, figure.chance]
    known = [float(m) for m in marks if m is not None and math.isfinite(m)]
    if not known or not math.isfinite(figure.value):
        return ""
    low, high = min(known), max(known)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif high == low:
        low, high = low - 1, high + 1
    else:
        low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)

    def x(value: float) -> float:
        return 5 + (value - low) / (high - low) * (width - 10)

    parts = [f"<line x1='5' x2='{width - 5}' y1='9' y2='9' class='axis'/>"]
    for value, kind in ((figure.reference, "reference"), (figure.chance, "chance")):
        if value is not None and math.isfinite(value):
            kind = "chance" if figure.reference_name == "chance" else kind
            parts.append(f"<line x1='{x(value):.1f}' x2='{x(value):.1f}' y1='1' y2='17' class='{kind}'/>")
    if math.isfinite(figure.low) and math.isfinite(figure.high):
        left, right = x(figure.low), x(figure.high)
        parts.append(f"<rect x='{left:.1f}' y='6' width='{max(1.0, right - left):.1f}' height='6' rx='2' class='ci'/>")
    parts.append(f"<circle cx='{x(figure.value):.1f}' cy='9' r='3.5' class='dot'/>")
    size = f"width='{width}' height='18' viewBox='0 0 {width} 18'"
    return f"<svg class='bar' {size} aria-hidden='true'>{''.join(parts)}</svg>"


def _finite(parts: Sequence[object]) -> np.ndarray:
    known = [np.asarray(p, dtype=float).ravel() for p in parts if p is not None]
    values = np.concatenate(known) if known else np.empty(0)
    return values[np.isfinite(values)]


def _axis(values: np.ndarray, *, shares: bool = False) -> list[float]:
    """Ticks that enclose ``values``; 0 to 1 for what looks like ``shares``."""
    low, high = float(values.min()), float(values.max())
    if shares and low >= 0 and 0.5 < high <= 1:
        low, high = 0.0, 1.0
    if high == low:
        low, high = low - 0.5, high + 0.5
    inner = ticks(low, high)
    step = inner[1] - inner[0] if len(inner) > 1 else high - low
    if inner[0] - low > 1e-9 * step:
        inner.insert(0, round(inner[0] - step, 12))
    if high - inner[-1] > 1e-9 * step:
        inner.append(round(inner[-1] + step, 12))
    return inner


def _grid(x_ticks: list[float], y_ticks: list[float], place: Place) -> str:
    (x0, x1), (y0, y1) = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])
    parts = []
    for x in x_ticks:
        bottom, top = place([x, x], [y0, y1])
        (ax, ay), (bx, by) = bottom.split(","), top.split(",")
        parts.append(f"<line x1='{ax}' y1='{ay}' x2='{bx}' y2='{by}' class='grid'/>")
        parts.append(f"<text x='{ax}' y='{float(ay) + 15:.1f}' text-anchor='middle'>{_tick(x)}</text>")
    for y in y_ticks:
        left, right = place([x0, x1], [y, y])
        (ax, ay), (bx, by) = left.split(","), right.split(",")
        parts.append(f"<line x1='{ax}' y1='{ay}' x2='{bx}' y2='{by}' class='grid'/>")
        parts.append(f"<text x='{float(ax) - 7:.1f}' y='{float(ay) + 4:.1f}' text-anchor='end'>{_tick(y)}</text>")
    return "".join(parts)


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")
