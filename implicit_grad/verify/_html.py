"""The report as one HTML file: no scripts, no other files, light and dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from implicit_grad.backend import Array

if TYPE_CHECKING:
    from implicit_grad.verify._report import Point, Report

_STYLE = """
:root { color-scheme: light dark; --pass: #1a7f37; --fail: #cf222e; --inconclusive: #9a6700; --line: #8885; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 span { color: white; padding: 0.1em 0.5em; border-radius: 0.3em; }
.PASS { background: var(--pass); } .FAIL { background: var(--fail); }
.INCONCLUSIVE { background: var(--inconclusive); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3em 0.8em; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; padding: 0.8em; border: 1px solid var(--line); border-radius: 0.3em; }
svg { display: block; width: 100%; height: 9rem; }
.remedy { border-left: 4px solid var(--line); padding-left: 0.8em; }
"""


def page(report: Report) -> str:
    """Return the HTML of a report."""
    name, verdict = escape(report.name), report.verdict.name
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{verdict}: {name}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f'<h1><span class="{verdict}">{verdict}</span> {name}</h1>',
        f"<p>{escape(report.verdict.value)}.</p>",
        _points(report),
    ]
    if report.observations:
        parts += ["<h2>Seen</h2>", _items([str(each) for each in report.observations])]
    if report.diagnosis is not None:
        parts += ["<h2>Diagnosis</h2>", f"<pre>{escape(str(report.diagnosis))}</pre>"]
    worst = report.worst
    if np.isfinite(worst.relative_error) and worst.error > 0:
        place = report.points.index(worst)
        parts += [f"<h2>Where it is off at θ {place}</h2>", _bars("entry", worst.coordinates)]
        parts.append(_bars("eigenvector of H + λI, soft ones first", worst.directions))
    if report.findings:
        parts += ["<h2>The problem itself</h2>", _items([str(each) for each in report.findings])]
    if report.notes:
        parts += ["<h2>Notes</h2>", _items(list(report.notes))]
    if worst.right.agreement is not None:
        parts += [f"<h2>Oracles at θ {report.points.index(worst)}</h2>"]
        parts += [f"<pre>{escape(str(worst.right.agreement))}</pre>"]
    return "\n".join([*parts, "</body></html>", ""])


def _items(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _points(report: Report) -> str:
    titles = ("θ", "verdict", "error", "allowed", "resolution", "cosine", "‖gradient‖/‖∇F‖")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = "".join(_row(i, point) for i, point in enumerate(report.points))
    return f"<table><tr>{head}</tr>{rows}</table><p>Error, allowed and resolution over ‖∇F‖.</p>"


def _row(i: int, p: Point) -> str:
    allowed = p.allowed / p.right.size if p.right.size > 0 else float("nan")
    numbers = (f"{p.relative_error:.1e}", f"{allowed:.1e}", f"{p.resolution:.1e}", f"{p.cosine:.6f}")
    cells = (str(i), p.verdict.name, *numbers, f"{p.norm_ratio:.4g}")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _bars(title: str, values: Array) -> str:
    """Signed bars, the largest filling half the height."""
    largest = float(np.max(np.abs(values)))
    if not (np.isfinite(largest) and largest > 0):
        return ""
    bars = []
    for i, value in enumerate(values):
        height = 48 * abs(float(value)) / largest
        y = 50 - height if value > 0 else 50.0
        bars.append(f'<rect x="{i + 0.1:.1f}" y="{y:.2f}" width="0.8" height="{height:.2f}" fill="#4477aa"/>')
    label = escape(f"error by {title}, over ‖∇F‖; the largest is {largest:.1e}")
    return (
        f'<figure><svg viewBox="0 0 {values.size} 100" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<line x1="0" x2="{values.size}" y1="50" y2="50" stroke="#888" stroke-width="0.5" '
        f'vector-effect="non-scaling-stroke"/>{"".join(bars)}</svg><figcaption>{label}</figcaption></figure>'
    )
