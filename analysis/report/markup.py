"""HTML by function calls: text is escaped unless it is already `Markup`."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = {"img", "link", "meta"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Return text as HTML, quotes included; markup as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text, quote=True))


def element(name: str, /, *children: str | Iterable[str], **attributes: str | int | None) -> Markup:
    """Return `<name …>children</name>`; a trailing underscore of an attribute is dropped, others become hyphens.

    >>> element("p", "1 < 2", class_="note", aria_label='a "b"')
    '<p class="note" aria-label="a &quot;b&quot;">1 &lt; 2</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    parts = (part for child in children for part in ([child] if isinstance(child, str) else child))
    return Markup(f"<{name}{written}>{''.join(map(escaped, parts))}</{name}>")


def prose(text: str) -> Markup:
    """Return paragraphs, split at empty lines, with `code` between backticks."""
    paragraphs = [" ".join(block.split()) for block in text.split("\n\n")]
    return Markup("".join(element("p", _coded(each)) for each in paragraphs if each))


def _coded(text: str) -> list[str]:
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a lone backtick is a backtick
        return [text]
    return [element("code", piece) if i % 2 else piece for i, piece in enumerate(pieces)]


def table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]], *, class_: str | None = None) -> Markup:
    """Return a table that scrolls sideways where the window is narrow; the first cell of a row heads it."""
    lines = [
        element("tr", [element("th", first, scope="row"), *(element("td", cell) for cell in rest)])
        for first, *rest in rows
    ]
    inside = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", [element("th", cell, scope="col") for cell in head])),
        element("tbody", lines),
        class_=class_,
    )
    return element("div", inside, class_="wide", role="region", tabindex=0, aria_label=caption)
