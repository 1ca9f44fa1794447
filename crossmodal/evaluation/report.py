"""What an evaluation hands over: figures, curves, pictures and sounds, as lines, as JSON, or as one HTML page.

::

    report = Report("Verification", figures, curves=curves, bundle=describe(bundle), command="crossmodal evaluate …")
    write_report("report.html", report)                                # everything inside one file
    json.dumps(report.as_dict())                                       # what --json prints
    write_report("all.html", *(read_report(path) for path in paths))   # one page for several saved results

The page is made by :mod:`crossmodal.evaluation.report_page`; it loads nothing from anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal import __version__
from crossmodal.errors import DataError
from crossmodal.evaluation.figures import Curve, Figure
from crossmodal.files import atomic_write

if TYPE_CHECKING:
    from PIL import Image

    from crossmodal.bundle import Bundle

Sound = tuple[np.ndarray, int]
"""Waveform ``(T,)`` in [−1, 1] and its sample rate in Hz."""


@dataclass
class Report:
    """One evaluation's results."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    """Curves with the same axes share one plot."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    """Generated speech; it is watermarked in the page."""
    recordings: dict[str, Sound] = field(default_factory=dict)
    """Natural speech, for comparison."""
    tables: list[str] = field(default_factory=list)
    """Further tables, as Markdown or as lines of equal pitch."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know: where the data come from, what a figure cannot say."""
    command: str = ""
    """Command line that made it."""
    bundle: dict[str, Any] = field(default_factory=dict)
    """What was measured, see :func:`describe`; empty if no bundle took part."""
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def lines(self) -> list[str]:
        """For people to read in a terminal."""
        lines = [f.line() for f in self.figures]
        lines += [c.line() for c in self.curves if len(c.x) <= 12]  # finer ones are for the page
        for text in self.tables:
            lines += ["", *text.splitlines()] if lines else text.splitlines()
        return lines + [f"note: {note}" for note in self.notes]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but pictures and sounds. Empty parts are left out, ``figures`` never."""
        content: dict[str, Any] = {
            "title": self.title,
            "command": self.command,
            "bundle": self.bundle,
            "seed": self.seed,
            "versions": self.versions,
            "curves": [_curve_dict(curve) for curve in self.curves],
            "tables": self.tables,
            "notes": self.notes,
        }
        kept = {key: value for key, value in content.items() if value not in ({}, [], "", None)}
        return {**kept, "figures": [f.as_dict() for f in self.figures]}


def write_report(path: str | Path, *reports: Report, title: str = "") -> Path:
    """Write ``reports`` as one self-contained HTML page; whole or not at all.

    Args:
        path: ``.html``.
        reports: sections in order.
        title: of the page; the first report's title if empty.

    Raises:
        OutputError: the file cannot be written.
    """
    from crossmodal.evaluation.report_page import page

    atomic_write(path, page(reports, title=title or reports[0].title).encode())
    return Path(path)


def read_report(path: str | Path) -> Report:
    """A report saved by ``crossmodal evaluate … --json``; pictures and sounds are not in it.

    Raises:
        DataError: the file cannot be read, or is not such a result.
    """
    remedy = "save one with `crossmodal evaluate … --json > FILE`"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return Report(
            title=str(content.get("title", Path(path).stem)),
            figures=[_figure(entry) for entry in content["figures"]],
            curves=[_curve(entry) for entry in content.get("curves", [])],
            tables=[str(text) for text in content.get("tables", [])],
            notes=[str(note) for note in content.get("notes", [])],
            command=str(content.get("command", "")),
            bundle=dict(content.get("bundle", {})),
            seed=content.get("seed"),
            versions=dict(content.get("versions", {})),
        )
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", source=path, remedy=remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError("is not the result of an evaluation", source=path, remedy=remedy) from error


def describe(bundle: Bundle) -> dict[str, Any]:
    """Name, version and checksums of a bundle's networks: equal checksums, equal networks.

    ``modules`` maps each role to a short SHA-256 of its config and weights, ``sha256`` is one over all of them. The
    card and the examples are left out, so that a card can quote the checksum of the bundle it stands in.
    """
    info = bundle.info
    modules = {}
    for role, entry in sorted(info.modules.items()):
        parts = [info.files[name].sha256 for name in (entry.config, entry.weights) if name]
        modules[role] = _short(":".join([entry.kind, entry.sha256, *parts]))
    return {"name": info.name, "version": info.version, "sha256": _short(json.dumps(modules)), "modules": modules}


def versions() -> dict[str, str]:
    """Versions of the library, of Python and of the packages that figures depend on."""
    found = {"crossmodal": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy"):
        found[package] = importlib.metadata.version(package)
    return found


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _figure(entry: Mapping[str, Any]) -> Figure:
    """The reverse of :meth:`Figure.as_dict`."""
    low, high = entry["ci95"]
    named_chance = entry.get("reference_name") == "chance"
    return Figure(
        name=entry["name"],
        value=_number(entry["value"]),
        low=_number(low),
        high=_number(high),
        n=int(entry["n"]),
        reference=entry.get("reference"),
        reference_name=entry.get("reference_name", ""),
        unit=entry.get("unit", ""),
        chance=None if named_chance else entry.get("chance"),
    )


def _curve(entry: Mapping[str, Any]) -> Curve:
    """The reverse of :func:`_curve_dict`."""
    series = {name: tuple(_number(v) for v in entry[name]) for name in ("x", "y", "low", "high")}
    return Curve(**{**entry, **series})


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _curve_dict(curve: Curve) -> dict[str, Any]:
    """Five significant digits; undefined numbers are null."""

    def plain(value: float) -> float | None:
        return float(f"{value:.5g}") if math.isfinite(value) else None

    content = asdict(curve)
    return {**content, **{name: [plain(v) for v in content[name]] for name in ("x", "y", "low", "high")}}
