"""The HTML page of an evaluation: one file, readable offline, in light and dark, on paper and on a telephone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.evaluation.figures import Curve, Figure
from crossmodal.evaluation.plots import COLOURS, curve_plot, interval_bar, number
from crossmodal.evaluation.report import Report, Sound

if TYPE_CHECKING:
    from PIL import Image

GENERATED = (
    "Faces and voices marked as generated belong to nobody: a computer made them. None of them identifies anyone, and "
    "none is evidence of anything about a person."
)
READING = (
    "Intervals are 95 % percentile bootstraps over people or cases. In the small bars the dot is the figure, the band "
    "its interval, the dashed tick chance, the dotted tick what it is compared with."
)

_STYLE = """
:root{color-scheme:light dark;--ink:#23272f;--soft:#666d78;--paper:#f7f7f9;--card:#fff;--line:#e2e3e8;--grid:#ececf0;
--c0:#3465a4;--c1:#c4453c;--c2:#2f8f5b;--c3:#8d5bb5;--c4:#b87a14;--c5:#148a9c}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ec;--soft:#9aa3b0;--paper:#15181d;--card:#1d2127;--line:#343a43;
--grid:#2a2f37;--c0:#7aa7e8;--c1:#f0857c;--c2:#6fcf97;--c3:#c39be6;--c4:#e8b45c;--c5:#63c9d9}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.25rem;margin:.1rem 0 .6rem}h3{font-size:1rem;margin:1.4rem 0 .4rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem 1.25rem;margin:1.25rem 0}
.note,.about{color:var(--soft);font-size:.9rem}.about{margin:.3rem 0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.93rem}
th{text-align:left;font-weight:600;color:var(--soft);font-size:.85rem}
th,td{padding:.28rem .7rem .28rem 0;border-bottom:1px solid var(--line);vertical-align:middle}
tr:last-child td{border-bottom:0}td.n{font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}
th.n{text-align:right}td.c{font-variant-numeric:tabular-nums;white-space:nowrap}.unit{color:var(--soft)}
.bar{display:block}.axis{stroke:var(--line);stroke-width:2}.ci{fill:var(--c0);opacity:.4}.dot{fill:var(--c0)}
.bar .chance{stroke:var(--c1);stroke-width:2;stroke-dasharray:3 2}
.bar .reference{stroke:var(--soft);stroke-width:2;stroke-dasharray:1.5 1.5}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:1rem}
figure{margin:0;max-width:660px}.plot{width:100%;height:auto;font:11px system-ui,sans-serif}.plot text{fill:var(--soft)}
.plot .label{fill:var(--ink);font-size:12px}.grid{stroke:var(--grid);stroke-width:1}
.plot .chance{fill:none;stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4}
figcaption{font-size:.88rem;color:var(--soft)}.key{display:inline-block;margin-right:1rem}
.key i{display:inline-block;width:1.1rem;height:.22rem;margin-right:.35rem;vertical-align:middle;border-radius:2px}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:1rem}
.wide{grid-column:1/-1;max-width:none}.gallery img{max-width:100%;border-radius:6px;background:#fff}
audio{width:100%;max-width:420px;display:block}
code,pre{background:var(--grid);border-radius:4px;font-size:.88em}code{padding:.1rem .35rem}
pre{padding:.7rem .9rem;overflow-x:auto}
@media print{body{max-width:none}section{break-inside:avoid}audio{display:none}}
"""


def page(reports: Sequence[Report], *, title: str) -> str:
    """``reports`` as one HTML document without external resources."""
    colours = "".join(f".k{k}{{background:var(--c{k})}}" for k in range(COLOURS))
    shown = [r for r in reports if r.pictures or r.sounds]
    head = f"<p class='about'>{escape(READING)}</p>" + (f"<p><b>{escape(GENERATED)}</b></p>" if shown else "")
    body = "".join(_section(r, heading=r.title != title) for r in reports)
    # The policy makes the browser itself refuse anything that is not in this file.
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}{colours}</style></head>"
        f"<body><h1>{escape(title)}</h1>{head}{body}</body></html>\n"
    )


def _section(report: Report, *, heading: bool) -> str:
    parts = [f"<h2>{escape(report.title)}</h2>"] if heading else []
    parts.append(_about(report))
    parts += [f"<p class='note'>{escape(note)}</p>" for note in report.notes]
    if report.figures:
        parts.append(_figures(report.figures))
    if plots := _plots(report.curves):
        parts.append(f"<h3>Curves</h3><div class='plots'>{plots}</div>")
    for table in report.tables:
        parts.append(_table(table))
    if report.pictures:
        items = "".join(_picture(name, picture) for name, picture in report.pictures.items())
        parts.append(f"<h3>Pictures</h3><div class='gallery'>{items}</div>")
    for kind, sounds, generated in (
        ("Generated speech", report.sounds, True),
        ("Natural speech", report.recordings, False),
    ):
        if sounds:
            items = "".join(_player(name, sound, generated) for name, sound in sounds.items())
            parts.append(f"<h3>{kind}</h3><div class='gallery'>{items}</div>")
    return f"<section>{''.join(parts)}</section>"


def _about(report: Report) -> str:
    facts = []
    if report.command:
        facts.append(f"<code>{escape(report.command)}</code>")
    if report.bundle:
        b = report.bundle
        facts.append(escape(f"bundle {b.get('name', '')} {b.get('version', '')}, SHA-256 {b.get('sha256', '')}…"))
    if report.seed is not None:
        facts.append(f"seed {report.seed}")
    if report.versions:
        facts.append(escape(", ".join(f"{name} {version}" for name, version in report.versions.items())))
    return f"<p class='about'>{' · '.join(facts)}</p>"


def _figures(figures: Sequence[Figure]) -> str:
    rows = []
    for f in figures:
        beside = []
        if f.reference is not None:
            beside.append(f"{escape(f.reference_name)} {number(f.reference)}")
        if f.chance is not None:
            beside.append(f"chance {number(f.chance)}")
        unit = f" <span class='unit'>{escape(f.unit)}</span>" if f.unit else ""
        rows.append(
            f"<tr><td>{escape(f.name)}{unit}</td><td class='n'><b>{number(f.value)}</b></td>"
            f"<td class='c'>[{number(f.low)}, {number(f.high)}]</td><td>{interval_bar(f)}</td>"
            f"<td class='n'>{f.n:,}</td><td>{', '.join(beside)}</td></tr>"
        )
    head = (
        "<tr><th>measure</th><th class='n'>figure</th><th>95 % interval</th><th></th><th class='n'>n</th>"
        "<th>beside it</th></tr>"
    )
    return f"<div class='scroll'><table>{head}{''.join(rows)}</table></div>"


def _plots(curves: Sequence[Curve]) -> str:
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.x_label, curve.y_label), []).append(curve)
    drawn = []
    for group in groups.values():
        if not (plot := curve_plot(group)):
            continue
        keys = [
            f"<span class='key'><i class='k{k % COLOURS}'></i>{escape(c.name)}{f' (n={c.n:,})' if c.n else ''}</span>"
            for k, c in enumerate(group)
        ]
        names = {c.reference_name or "reference" for c in group if c.reference is not None}
        dashed = f"dashed: {escape(', '.join(sorted(names)))}" if names else ""
        drawn.append(f"<figure>{plot}<figcaption>{''.join(keys)}{dashed}</figcaption></figure>")
    return "".join(drawn)


def _table(text: str) -> str:
    """A Markdown table as a table; anything else keeps its pitch."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    if len(rows) < 2 or set("".join(rows[1]).strip()) - set("-: "):
        return f"<pre>{escape(text)}</pre>"
    before = [line for line in text.splitlines() if line.strip() and not line.startswith("|")]
    head = "".join(f"<th>{escape(cell.strip())}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(c.strip())}</td>" for c in row) + "</tr>" for row in rows[2:])
    notes = "".join(f"<p class='note'>{escape(line)}</p>" for line in before)
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>{notes}"


def _picture(name: str, picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=88, method=4)
    data = base64.b64encode(buffer.getvalue()).decode()
    wide = " class=wide" if picture.width > 800 else ""
    size = f"width='{picture.width}' height='{picture.height}' style='height:auto'"
    return (
        f"<figure{wide}><img src='data:image/webp;base64,{data}' alt='{escape(name, quote=True)}' {size}>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )


def _player(name: str, sound: Sound, generated: bool) -> str:
    import soundfile

    waveform, rate = np.asarray(sound[0], dtype=np.float32), int(sound[1])
    if generated:
        from crossmodal.watermark import mark_audio

        waveform = mark_audio(waveform, rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    seconds = len(waveform) / rate
    return (
        f"<figure><audio controls preload='none' src='data:audio/wav;base64,{data}'></audio>"
        f"<figcaption>{escape(name)}, {seconds:.1f} s</figcaption></figure>"
    )
