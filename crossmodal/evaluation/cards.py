"""Tables of model cards, filled from saved results so that no figure is typed by hand.

A Markdown file says where a table goes, and under which name::

    <!-- figures: faces -->
    … replaced …
    <!-- end -->

:func:`fill` puts blocks there; the functions below make blocks from results of ``crossmodal evaluate … --json``
(:func:`~crossmodal.evaluation.report.read_report`) and from a bundle's own listing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmodal.bundle import Bundle
from crossmodal.errors import DataError
from crossmodal.evaluation.figures import Figure
from crossmodal.evaluation.report import Report, describe

_MARKER = re.compile(r"<!-- figures: ([\w-]+) -->\n(.*?)<!-- end -->", re.S)
_START = re.compile(r"<!-- figures: ")


def names(text: str) -> list[str]:
    """Names of the marked places of ``text``, in order.

    Raises:
        DataError: a marker has no end, or another one inside.
    """
    found = list(_MARKER.finditer(text))
    if len(found) != len(_START.findall(text)) or any(_START.search(m[2]) for m in found):
        raise DataError("a figures marker is not closed", source="card", remedy="end each with <!-- end -->")
    return [m[1] for m in found]


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """``text`` with the marked places replaced; a place without a block stays as it is.

    Raises:
        DataError: see :func:`names`.
    """
    names(text)

    def block(match: re.Match[str]) -> str:
        if match[1] not in blocks:
            return match[0]
        return f"<!-- figures: {match[1]} -->\n{blocks[match[1]].strip()}\n<!-- end -->"

    return _MARKER.sub(block, text)


def all_figures(report: Report) -> str:
    """Every figure of a result, a line each, with further tables below and the command that measured it."""
    parts = [f"`{report.command}`"] if report.command else []
    if lines := [f.line() for f in report.figures] + [c.line() for c in report.curves]:
        parts.append("\n".join(["```", *lines, "```"]))
    for table in report.tables:
        parts.append(table if table.startswith("|") else f"```\n{table}\n```")
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Row:
    """One line of a chosen table."""

    words: str
    """What the figure says, for readers."""
    result: str
    """Name of the result that holds it."""
    figure: str
    """Its name there."""
    beside: str = ""
    """Words for the reference; the figure's own if empty."""
    decimals: int = 2


def chosen_figures(head: str, rows: Sequence[Row], results: Mapping[str, Report]) -> str | None:
    """A Markdown table of chosen figures: words, figure with interval, n, what it is compared with.

    ``None`` while one of the results is missing.

    Raises:
        DataError: a result has no figure of that name.
    """
    if any(row.result not in results for row in rows):
        return None
    lines = [f"| {head} | figure | n | beside it |", "| --- | --- | --- | --- |"]
    for row in rows:
        found = {f.name: f for f in results[row.result].figures}
        if row.figure not in found:
            raise DataError(f"has no figure '{row.figure}'", source=row.result, remedy="correct the list of rows")
        f = found[row.figure]
        lines.append(f"| {row.words} | {_with_interval(f, row.decimals)} | {f.n} | {_beside(f, row)} |")
    return "\n".join(lines)


def modules(bundle: Bundle, words: Mapping[str, str]) -> str:
    """A Markdown table of the networks: kind, parameters, spaces, stored size, checksum, and what each is in ``words``.

    Raises:
        DataError: there are no words for a role.
    """
    lines = [
        "| module | network | parameters | in → out | MB | SHA-256 | what it is |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    digests = describe(bundle)["modules"]
    stored = 0
    for role, entry in bundle.info.modules.items():
        if role not in words:
            raise DataError(f"no words for the role '{role}'", source="card", remedy="add them to figures/cards.yaml")
        size = sum(bundle.info.files[name].bytes for name in (entry.config, entry.weights) if name)
        stored += size
        spaces = " → ".join(space or "–" for space in (entry.input_space, entry.output_space))
        where = f"{size / 1e6:.2f}" if size else f"in `{entry.package}`"
        lines.append(
            f"| {role} | {entry.kind} | {entry.parameters:,} | {spaces} | {where} | {digests[role]} | {words[role]} |"
        )
    total = sum(entry.parameters for entry in bundle.info.modules.values())
    lines.append(f"| all | | {total:,} | | {stored / 1e6:.2f} | {describe(bundle)['sha256']} | |")
    return "\n".join(lines)


def timings(content: Mapping[str, Any]) -> str:
    """A Markdown table of ``crossmodal bench --json``."""
    lines = ["| what | median | n |", "| --- | --- | --- |"]
    for row in content["figures"]:
        lines.append(f"| {row['what']} | {row['median']:.2f} {row['unit']} | {content['runs']} |")
    return "\n".join(lines)


def stale(report: Report, bundle: Bundle, roles: Sequence[str]) -> list[str]:
    """Roles out of ``roles`` whose networks are not those that ``report`` measured."""
    then, now = report.bundle.get("modules", {}), describe(bundle)["modules"]
    return [role for role in roles if then.get(role) != now.get(role)]


def _with_interval(figure: Figure, decimals: int) -> str:
    value, low, high = (short(v, decimals) for v in (figure.value, figure.low, figure.high))
    return value if value == low == high else f"{value} [{low}, {high}]"


def _beside(figure: Figure, row: Row) -> str:
    parts = []
    if figure.reference is not None:
        parts.append(f"{row.beside or figure.reference_name} {short(figure.reference, row.decimals)}")
    if figure.chance is not None:
        parts.append(f"chance {short(figure.chance, row.decimals)}")
    return ", ".join(parts)


def short(value: float, decimals: int = 2) -> str:
    """``0.974`` → ``.97``: a leading nought says nothing."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{decimals}f}"
    return re.sub(r"^(-?)0\.", r"\1.", text)
