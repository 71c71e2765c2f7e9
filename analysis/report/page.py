"""The report: one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from importlib import resources

from analysis.claims import Claim, Relation
from analysis.report.markup import Markup, element, prose, table
from analysis.report.stored import STANDING, Stored, Verdict, standing
from analysis.statements import Effect, Statement

TITLE = "Implicit gradients: every figure, its claim, and whether it holds"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SIGNS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.UNMEASURED: "?", Verdict.UNJUDGED: "–"}
_PNG = b"\x89PNG\r\n\x1a\n"


def page(results: Sequence[Stored], *, missing: Sequence[str] = ()) -> str:
    """Return the page; `missing` are figures without stored results, which it names."""
    main = [
        _opening(results, missing),
        _summary(results),
        _environment(results),
        *(_section(each) for each in results),
        _examined(results),
    ]
    body = element(
        "body",
        element("a", "Skip to the summary", href="#summary", class_="skip"),
        element("main", main),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(), body, lang='en')}\n"


def number(value: float) -> str:
    """Return a number with four digits; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def wanted(claim: Claim) -> str:
    """Return what the claim asks for."""
    sign = {Relation.AT_MOST: "≤ ", Relation.AT_LEAST: "≥ ", Relation.NEAR: ""}[claim.relation]
    return f"{sign}{number(claim.wanted)}" + (f" ± {claim.tolerance:g}" if claim.relation is Relation.NEAR else "")


def duration(seconds: object) -> str:
    """Return seconds in words; what was not stored is said so."""
    if not isinstance(seconds, int | float):
        return "not recorded"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def tally(each: Stored) -> str:
    """Return how many claims of a figure hold, in words."""
    if not each.claims:
        return "states no number"
    parts = [f"{each.count(Verdict.HOLDS)} of {len(each.claims)} hold"]
    others = (Verdict.FAILS, Verdict.UNMEASURED, Verdict.UNJUDGED)
    parts += [counted(each.count(other), other) for other in others if each.count(other)]
    return ", ".join(parts)


def counted(count: int, verdict: Verdict) -> str:
    """Return how many claims have a verdict, in words."""
    several = {Verdict.HOLDS: "hold", Verdict.FAILS: "do not hold"}.get(verdict, verdict.value)
    return f"{count} {verdict.value if count == 1 else several}"


def _head() -> Markup:
    style = resources.files("analysis.report").joinpath("page.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", TITLE),
        element("link", rel="icon", href="data:,"),  # else a browser asks the server for one
        element("style", Markup(style)),
    )


def _opening(results: Sequence[Stored], missing: Sequence[str]) -> Markup:
    claims = sum(len(each.claims) for each in results)
    counts = {verdict: sum(each.count(verdict) for each in results) for verdict in Verdict}
    said = ", ".join(counted(count, verdict) for verdict, count in counts.items() if count)
    parts = [element("h1", TITLE), element("p", f"{len(results)} figures, {claims} claims: {said or 'none'}.")]
    if any(each.quick for each in results):
        parts.append(
            element(
                "p",
                "Quick grids: few tasks and short runs, a look and not a result. A claim that does not hold on them "
                "is not judged. Draw again without --quick.",
                class_="note",
                role="note",
            )
        )
    if missing:
        parts.append(
            element("p", "Without stored results, and so not here: " + ", ".join(missing) + ".", class_="small")
        )
    return element("header", parts)


def _summary(results: Sequence[Stored]) -> Markup:
    rows = [
        (
            element("a", each.stem, href=f"#{each.stem}"),
            each.text("headline") + (" (quick)" if each.quick else ""),
            _mark(_worst(each), tally(each)),
            element("code", each.text("command") or f"implicit-grad reproduce {each.stem}"),
            duration(each.about.get("seconds")),
        )
        for each in results
    ]
    head = ("figure", "what it shows", "claims", "command", "computed in")
    return element("section", element("h2", "Summary"), table("All figures", head, rows), id="summary")


def _worst(each: Stored) -> Verdict:
    for verdict in (Verdict.FAILS, Verdict.UNMEASURED, Verdict.UNJUDGED):
        if each.count(verdict):
            return verdict
    return Verdict.HOLDS


def _mark(verdict: Verdict, text: str = "") -> Markup:
    text = f"{_SIGNS[verdict]} {text or verdict.value}"
    return element("span", text, class_=f"verdict {verdict.name.lower()}")


def _environment(results: Sequence[Stored]) -> Markup:
    """One table for each machine and seed, with the figures that came from it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    names = ("processor", "cores", "system", "threads", "versions")
    for each in results:
        place = each.about.get("environment") or {}
        key = (*(str(place.get(name, "not recorded")) for name in names), str(each.about.get("seed", "not recorded")))
        groups.setdefault(key, []).append(each.stem)
    tables = [
        table(
            f"Where {len(stems)} of {len(results)} figures were computed",
            ("what", "which"),
            [("figures", ", ".join(stems)), *zip((*names, "seed"), key, strict=True)],
        )
        for key, stems in groups.items()
    ]
    return element("section", element("h2", "Environment"), tables, id="environment")


def _section(each: Stored) -> Markup:
    headline = each.text("headline")
    parts = [
        element("h2", each.stem),
        element("p", element("strong", headline)) if headline else "",
        prose(each.text("claim")),
        element("div", prose("Source. " + each.text("source")), class_="source") if each.text("source") else "",
        _picture(each),
        element(
            "p", "Command: ", element("code", each.text("command") or f"implicit-grad reproduce {each.stem}"),
            f". Computed in: {duration(each.about.get('seconds'))}. Seed: {each.about.get('seed', 'not recorded')}.",
        ),
    ]  # fmt: skip
    if each.quick:
        parts.append(element("p", "Drawn on quick grids.", class_="note"))
    parts.append(_numbers(each))
    ran = each.about.get("ran") or {}
    if ran:
        parts += [
            element("h3", f"What was run for {each.stem}"),
            element("ul", [element("li", element("strong", panel), f": {text}") for panel, text in ran.items()]),
        ]
    return element("section", [part for part in parts if part], id=each.stem)


def _picture(each: Stored) -> Markup:
    if each.image is None or not each.image.startswith(_PNG):
        return element("p", "There is no drawing of this figure in the folder.", class_="small")
    width, height = struct.unpack(">II", each.image[16:24])
    alt = " ".join(filter(None, (f"Plot: {each.stem}.", each.text("drawing"), each.text("headline"))))
    data = base64.b64encode(each.image).decode("ascii")
    image = element("img", src=f"data:image/png;base64,{data}", alt=alt, width=width, height=height)
    reading = each.text("reading")
    return element("figure", image, element("figcaption", reading) if reading else "")


def _numbers(each: Stored) -> Markup:
    if not each.claims:
        return element("p", "This figure states no number that could be judged.", class_="small")
    rows = [
        (
            claim.name,
            number(claim.measured),
            wanted(claim),
            _mark(each.verdict(claim)),
            f"against: {claim.source}" if claim.refutes else claim.source,
        )
        for claim in each.claims
    ]
    head = ("claim", "measured", "wanted", "verdict", "source")
    return table(f"Numbers of {each.stem}", head, rows, class_="numbers")


def _examined(results: Sequence[Stored]) -> Markup:
    """Statements of others, with what it costs to believe them."""
    statements = [statement for each in results for statement in each.statements]
    if not statements:
        return Markup("")
    parts = [
        element("h2", "Published statements, examined"),
        element("p", "In our words. A statement does not hold if every claim that refutes it does."),
    ]
    for statement in statements:
        parts += [
            element("h3", statement.says),
            element("p", _mark(standing(statement, results), STANDING[standing(statement, results)])),
            prose(statement.instead),
            *_effects(statement),
        ]
        if statement.quoted:
            parts.append(element("p", statement.quoted, class_="small"))
    return element("section", parts, id="statements")


def _effects(statement: Statement) -> list[Markup]:
    """One table for each row of λ that occurs."""
    grids: dict[tuple[float, ...], list[Effect]] = {}
    for effect in statement.effects:
        grids.setdefault(effect.lam, []).append(effect)
    return [
        table(
            "Measured on " + ", ".join(dict.fromkeys(each.problem for each in effects)),
            ("median over tasks", *(f"λ = {x:.3g}" for x in lam)),
            ((f"{each.problem}: {each.quantity}", *map(short, each.value)) for each in effects),
        )
        for lam, effects in grids.items()
    ]


def short(value: float) -> str:
    """Return a number with two digits; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.2g}"
