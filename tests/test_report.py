"""The report and the ledger, from a small set of stored results."""

import json
import math
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from analysis import claims, report, statements, super_efficiency
from analysis import figure as figures
from analysis.claims import at_least, at_most, near
from analysis.report.__main__ import main as report_main
from analysis.report.markup import element
from analysis.report.stored import STANDING, standing
from analysis.statements import Effect, Statement
from analysis.super_efficiency import RayStudy
from implicit_grad import EXACT, Cholesky, CorruptData, DataNotFound, cli, plot
from implicit_grad.tasks import RandomRidge

ROOT = Path(__file__).parents[1]
VOID = {"img", "link", "meta"}
NASTY = """<script>alert("1")</script> & 'a' | *b* `c` <img src=x onerror=alert(1)>"""


def png(width=3, height=2):
    """Smallest picture there is: grey, no library."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + b"\x80" * width for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def store(folder, stem, found, *, image=True, **about):
    (folder / "results").mkdir(exist_ok=True, parents=True)
    claims.save(found, folder / "results" / f"{stem}.json", stem=stem, **about)
    if image:
        (folder / f"{stem}.png").write_bytes(png())


@pytest.fixture
def folder(tmp_path):
    """Three figures: one whose claims split, one quick, one of bare old format; a statement; nasty text."""
    slope = near("slope of the error", 1.02, 1.0, 0.1, "A. Author 2020, theorem 1")
    crossed = at_most("error over bound", 1.5, 1.0)
    refuting = claims.Claim(
        "error with swap", 0.9, 0.1, 0.0, claims.Relation.AT_LEAST, "article", "Swapping is right."
    )
    words = {"headline": NASTY, "claim": NASTY + "\n\nSecond `code` paragraph.", "source": NASTY, "drawing": NASTY}
    examined = [
        Statement("Swapping is right.", "It is not.", (Effect("error", "ridge", (0.1, 3.0), (0.9, math.nan)),)),
        Statement("All is well.", "Nobody measured.", (), "17 of 23"),
    ]
    store(
        tmp_path,
        "first",
        [slope, crossed, at_least("seen", math.nan, 1), near(NASTY, 2, 2, 0.1, NASTY), refuting],
        seed=5,
        quick=False,
        command=f"implicit-grad reproduce first {NASTY}",
        seconds=12.34,
        environment={"processor": NASTY, "cores": "2"},
        ran={NASTY: NASTY},
        reading=NASTY,
        statements=statements.as_rows(examined),
        **words,
    )
    store(tmp_path, "second", [crossed, slope], seed=7, quick=True, command="implicit-grad reproduce second --quick")
    (tmp_path / "results" / "third.json").write_text('{"schema": 1, "stem": "third", "claims": []}')
    return tmp_path


class Checked(HTMLParser):
    """Every tag closed in order, ids once, and what is linked, shown and said."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.urls, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.urls += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def html(folder):
    return report.page(report.read_all(folder, ("second", "first")), missing=("fourth",))


def test_the_page_is_balanced_html(html):
    page = Checked(html)
    assert html.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    names = [tag for tag, _ in page.tags]
    assert names.count("h1") == 1
    levels = [int(name[1]) for name in names if re.fullmatch(r"h\d", name)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert page.tags[0] == ("html", {"lang": "en"})


def test_the_checker_sees_what_is_not_balanced():
    for broken in ("<p><b>x</p></b>", "<p>x", "x</p>"):
        with pytest.raises(AssertionError):
            Checked(broken)


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(html):
    page = Checked(html)
    assert all(url.startswith(("#", "data:")) for url in page.urls)
    assert {url[1:] for url in page.urls if url.startswith("#")} <= set(page.ids)
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "video", "audio"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "default-src 'none'" in next(a["content"] for t, a in page.tags if "http-equiv" in a)


def test_foreign_text_is_shown_and_not_obeyed(html):
    page = Checked(html)
    assert "<script>" not in html
    assert [attributes["src"][:22] for tag, attributes in page.tags if tag == "img"] == ["data:image/png;base64,"] * 2
    said = " ".join(NASTY.replace("`c`", "c").split())
    assert page.words.count('<script>alert("1")</script>') >= 8
    assert said in page.words.replace(" c ", " c ")


def test_pictures_have_words_and_sizes(html):
    images = [attributes for tag, attributes in Checked(html).tags if tag == "img"]
    assert all(image["alt"].startswith("Plot: ") for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("3", "2")}
    assert "There is no drawing of this figure" in html  # third has none


def test_tables_say_what_heads_what(html):
    page = Checked(html)
    scopes = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    assert [tag for tag, _ in page.tags].count("caption") == [tag for tag, _ in page.tags].count("table")


def test_verdicts_are_shown_in_words(html, folder):
    first, second = report.read(folder, "first"), report.read(folder, "second")
    assert [first.verdict(c).name for c in first.claims] == ["HOLDS", "FAILS", "UNMEASURED", "HOLDS", "HOLDS"]
    assert [second.verdict(c).name for c in second.claims] == ["UNJUDGED", "HOLDS"]
    words = Checked(html).words
    assert "3 figures, 7 claims: 4 hold, 1 does not hold, 1 not measured, 1 not judged on quick grids." in words
    assert "✗ 3 of 5 hold, 1 does not hold, 1 not measured" in words
    assert "– 1 of 2 holds, 1 not judged on quick grids" in words or "– 1 of 2 hold, 1 not judged on quick" in words
    for text in ("✓ holds", "✗ does not hold", "? not measured", "– not judged on quick grids"):
        assert text in words
    assert "Quick grids: few tasks and short runs" in words
    assert "12.3 s" in words
    assert "not recorded" in words  # the old file says neither machine nor time
    assert "Without stored results, and so not here: fourth" in words


def test_a_page_of_full_grids_does_not_speak_of_quick_ones(folder):
    words = Checked(report.page([report.read(folder, "first")])).words
    assert "Quick grids" not in words
    assert "quick" not in words


def test_failures_count_full_grids_only(folder):
    assert report.failures([report.read(folder, "first")]) == 2
    assert report.failures([report.read(folder, "second"), report.read(folder, "third")]) == 0


@pytest.mark.parametrize(
    ("measured", "quick", "expected"),
    [((0.9, 0.8), False, "does not hold"), ((0.9, 0.01), False, "not refuted here"),
     ((0.9, 0.01), True, "not judged on quick grids"), ((0.9, math.nan), False, "not measured here"),
     ((), False, "not measured here")],
)  # fmt: skip
def test_a_statement_stands_unless_all_that_refutes_it_holds(measured, quick, expected):
    said = Statement("Up is down.", "Up is up.")
    against = tuple(claims.Claim("x", m, 0.1, 0, claims.Relation.AT_LEAST, "", said.says) for m in measured)
    others = (at_most("unrelated", 5, 1),)
    result = report.Stored("a", {"quick": quick}, against + others, (said,))
    assert STANDING[standing(said, [result])] == expected


def cells(line):
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_the_ledger_is_a_set_of_whole_tables(folder):
    text = report.ledger(report.read_all(folder, ("first",)), missing=("fourth",))
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5  # figures, what does not hold, two figures' numbers, one statement's effects
    for block in blocks:
        assert len({len(cells(line)) for line in block}) == 1
    assert "<script>" not in text
    assert "7 claims: 4 hold, 1 does not hold, 1 not measured, 1 not judged on quick grids." in text
    assert "what does not hold there is not judged" in text
    failing = text.split("## What does not hold")[1].split("\n## ")[0]
    assert "error over bound" in failing
    assert "`second`" not in failing
    assert "| A. Author 2020, theorem 1 | slope of the error | 1.02 | 1 ± 0.1 | holds |" in text
    assert "**Does not hold.** It is not." in text
    assert "| ridge: error | 0.9 | – |" in text
    assert "17 of 23" in text
    assert "`fourth`" in text


def test_the_committed_ledger_is_that_of_the_stored_results():
    results = report.read_all(ROOT / "figures", figures.STEMS)
    missing = [stem for stem in figures.STEMS if stem not in {each.stem for each in results}]
    written = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert written == report.ledger(results, missing=missing), "run `make ledger`"


def test_a_missing_or_broken_result_is_named(folder):
    with pytest.raises(DataNotFound, match="reproduce nothing"):
        report.read(folder, "nothing")
    for content in ("{", "[]", '{"claims": [{"name": 1}]}', '{"claims": 3}'):
        (folder / "results" / "third.json").write_text(content)
        with pytest.raises(CorruptData, match=r"third\.json"):
            report.read(folder, "third")


def test_building_from_a_folder_alone(folder, capsys):
    report_main([str(folder)])
    Checked((folder / "report.html").read_text(encoding="utf-8"))
    report_main([str(folder), "--ledger", str(folder / "docs" / "ledger.md")])
    assert (folder / "docs" / "ledger.md").read_text(encoding="utf-8").startswith("# Ledger")
    (folder / "results" / "third.json").write_text("{")
    with pytest.raises(SystemExit, match=r"third\.json"):
        report_main([str(folder)])


@pytest.mark.parametrize(("measured", "quick", "code"), [(1.5, False, 1), (0.5, False, None), (1.5, True, None)])
def test_the_command_exits_with_one_where_a_claim_fails_and_writes_all_the_same(
    tmp_path, monkeypatch, capsys, measured, quick, code
):
    def drawn(self, out, **settings):
        store(out, self.stem, [at_most("error over bound", measured, 1)], quick=quick)
        return []

    monkeypatch.setattr(figures.Figure, "reproduce", drawn)
    arguments = ["reproduce", "super_efficiency", "--out", str(tmp_path), "--report"]
    arguments += ["--ledger", str(tmp_path / "new" / "ledger.md")]
    if code is None:
        cli.main(arguments)
    else:
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert exit_.value.code == code
        assert "1 of 1 claims do not hold" in capsys.readouterr().out
    Checked((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (tmp_path / "new" / "ledger.md").exists()


def test_a_ledger_that_cannot_be_written_is_refused_before_any_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures.Figure, "reproduce", lambda *a, **k: pytest.fail("computed first"))
    (tmp_path / "file").write_text("")
    for path, words in ((tmp_path / "file" / "ledger.md", "cannot write"), (tmp_path, "is a folder")):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["reproduce", "super_efficiency", "--out", str(tmp_path / "out"), "--ledger", str(path)])
        assert exit_.value.code == 2
        assert words in capsys.readouterr().err


def test_drawing_again_keeps_size_seed_machine_and_time(tmp_path, monkeypatch):
    def sweeps(quick, seed):
        return {"ridge": RayStudy(RandomRidge(4, 6), 0.1, (1.0, 0.1, 0.01), 2, seed, Cholesky(), EXACT.inner_solver)}

    small = replace(super_efficiency.FIGURE, sweeps=sweeps, draw=lambda tables: None)
    monkeypatch.setattr(super_efficiency, "FIGURE", small)
    monkeypatch.setattr(plot, "save_figure", lambda figure, stem: ())
    path = tmp_path / "results" / "super_efficiency.json"
    cli.main(["reproduce", "super_efficiency", "--quick", "--seed", "23", "--out", str(tmp_path)])
    before = json.loads(path.read_text(encoding="utf-8"))
    assert before["quick"] is True
    assert before["command"] == "implicit-grad reproduce super_efficiency --quick --seed 23"
    assert before["claim"].startswith("At φ = φ*")
    assert before["source"].startswith("Ye, Peyré")
    assert set(before["ran"]) == {"ridge"}
    assert before["environment"]["versions"]
    cli.main(["reproduce", "super_efficiency", "--replot", "--report", "--out", str(tmp_path)])
    assert json.loads(path.read_text(encoding="utf-8")) == before
    assert "Drawn on quick grids." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_attributes_are_written_as_html_has_them():
    assert element("p", "a<b", class_="x", aria_label='"') == '<p class="x" aria-label="&quot;">a&lt;b</p>'
    assert element("img", alt=None, src="y") == '<img src="y">'
