"""The report in a real browser: nothing on the console, nothing fetched, readable in light, dark and print."""

import re
import shutil
from pathlib import Path

import pytest

from analysis import report
from analysis.claims import at_least, at_most, near
from analysis.statements import Effect, Statement

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install 'implicit-grad[browser]'"
)

FIGURES = Path(__file__).parents[1] / "figures"
INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CONTRASTS = """() => {
function luminance(colour) {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(node) {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
}
return [...document.querySelectorAll('p, a:not(.skip), td, th, code, .verdict, figcaption, h1, h2, h3')].map(node => {
  const [high, low] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
})}"""
"""Contrast of every text with what is behind it, by the definition of WCAG 2."""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        paths = [path for name in INSTALLED if (path := shutil.which(name))]
        if not paths and not Path(own).exists():
            pytest.skip("no Chromium found: playwright install chromium, or apt install chromium")
        # As root, which CI often is, Chromium starts without its sandbox only; the page is our own.
        opened = driver.chromium.launch(executable_path=paths[0] if paths else own, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of the committed figures, and a small one on quick grids with every verdict."""
    folder = tmp_path_factory.mktemp("report")
    picture = next(iter(sorted(FIGURES.glob("*.png")))).read_bytes()
    claims = (near("slope", 1.0, 1.0, 0.1, "a paper"), at_most("a/b" * 40, 2, 1), at_least("n", float("nan"), 1))
    said = Statement("It is so.", "It is not.", (Effect("error", "ridge", (0.1, 3.0), (0.9, 0.8)),))
    small = [
        report.Stored("full", {"quick": False, "claim": "A claim."}, claims, (said,), picture),
        report.Stored("quick", {"quick": True}, claims),
    ]
    report.write(small, report=folder / "small.html")
    report.write(report.read_all(FIGURES), report=folder / "committed.html")
    return folder


def opened(browser, path, **settings):
    """Return the page and, filled while it loads, what it says and what it asks for."""
    page = browser.new_context(**settings).new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.on("pageerror", lambda error: said.append(("error", str(error))))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    return page, said, [url for url in asked if not url.startswith("data:")]


@pytest.mark.parametrize("name", ["small.html", "committed.html"])
def test_nothing_is_on_the_console_and_nothing_is_fetched(browser, pages, name):
    page, said, asked = opened(browser, pages / name)
    assert said == []
    assert asked == [(pages / name).as_uri()]
    assert page.evaluate("document.images.length") >= 1
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.compatMode") == "CSS1Compat"
    page.context.close()


@pytest.mark.parametrize("name", ["small.html", "committed.html"])
def test_the_browser_builds_the_tree_that_is_written(browser, pages, name):
    """A parser that has to repair a page adds, moves or drops elements."""
    page, _, _ = opened(browser, pages / name)
    text = (pages / name).read_text(encoding="utf-8")
    written = re.findall(r"<([a-z][a-z0-9]*)[ >]", text.split("<style>")[0] + "<style>" + text.split("</style>")[1])
    assert page.evaluate("[...document.querySelectorAll('*')].map(node => node.localName)") == written
    page.context.close()


def test_the_console_is_really_watched(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<!DOCTYPE html><img src='missing.png'><script>throw Error('x')</script>")
    page, said, asked = opened(browser, tmp_path / "bad.html")
    assert len(said) >= 2
    assert len(asked) == 2
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, pages, scheme):
    page, _, _ = opened(browser, pages / "small.html", color_scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 26)"}[scheme]
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert min(contrasts) >= 4.5  # level AA
    page.context.close()


def test_a_narrow_window_scrolls_tables_and_not_the_page(browser, pages):
    for name in ("small.html", "committed.html"):
        page, _, _ = opened(browser, pages / name, viewport={"width": 360, "height": 640})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.context.close()


def test_nothing_is_cut_off_in_print(browser, pages):
    page, _, _ = opened(browser, pages / "committed.html", viewport={"width": 717, "height": 1000})  # A4 less margins
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 717
    page.context.close()


def test_it_prints_black_on_white_with_tables_whole(browser, pages):
    page, _, _ = opened(browser, pages / "small.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.querySelector('.wide')).overflowX") == "visible"
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.context.close()
