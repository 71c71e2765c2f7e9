"""The command line: names, exit codes, files."""

import subprocess
import sys
from dataclasses import replace

import pytest

import analysis.panels
from analysis import figure as figures
from analysis.panels import Panel
from implicit_grad import ArgumentError, DataNotFound, cli
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid


@pytest.fixture
def tiny(monkeypatch):
    """The same figures at a size that takes a second."""
    panels = {
        "ridge": Panel("ridge", RandomRidge(dim=5, train_samples=6), 0.1, 3, 32),
        "sinusoid": Panel("sinusoid", Sinusoid(3, 3, (3,)), 20.0, 3, 16, (0, 2)),
        "digits": Panel("digits", Digits(ways=3, shots=2, queries=3), 0.3, 3, 16),
    }
    for name, panel in panels.items():
        monkeypatch.setitem(analysis.panels.PANELS, name, panel)


@pytest.mark.parametrize("stem", figures.DEFAULT)
def test_every_figure_is_drawn_stored_and_captioned(tiny, tmp_path, stem, capsys):
    cli.main(["reproduce", stem, "--quick", "--out", str(tmp_path), "--seed", "7"])
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{stem}.pdf", f"{stem}.png", f"{stem}.md", "results"}
    assert {p.name for p in (tmp_path / "results").iterdir()} == {
        f"{stem}.json",
        "cells",
        *(f"{stem}.{panel}.nc" for panel in ("ridge", "sinusoid", "digits")),
    }
    caption = (tmp_path / f"{stem}.md").read_text(encoding="utf-8")
    assert "Claim." in caption
    assert "seed 7" in caption


def test_drawing_again_from_the_stored_sweeps_gives_the_same_bytes(tiny, tmp_path):
    stem = figures.STEMS[0]
    cli.main(["reproduce", stem, "--quick", "--out", str(tmp_path)])
    before = (tmp_path / f"{stem}.pdf").read_bytes()
    (tmp_path / f"{stem}.pdf").unlink()
    cli.main(["reproduce", stem, "--replot", "--out", str(tmp_path)])
    assert (tmp_path / f"{stem}.pdf").read_bytes() == before


def test_drawing_again_without_stored_sweeps_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reproduce", figures.STEMS[0], "--replot", "--out", str(tmp_path)])
    assert exit_.value.code == 2
    assert "without --replot" in capsys.readouterr().err
    with pytest.raises(DataNotFound):
        figures.figure(figures.STEMS[0]).reproduce(tmp_path, replot=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "error_vs_lamda"], "did you mean 'error_vs_lambda'"),
        (["reproduce", "--seed", "-3"], "seed"),
    ],
)
def test_bad_arguments_exit_with_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unwritable_folder_is_refused_before_any_sweep(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(figures.Figure, "reproduce", lambda *a, **k: pytest.fail("computed first"))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reproduce", "--out", str(tmp_path / "file")])
    assert exit_.value.code == 2
    assert "cannot write" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(figures.Figure, "reproduce", interrupted)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reproduce", "--out", str(tmp_path)])
    assert exit_.value.code == 130


def test_unknown_options_exit_with_two():
    run = subprocess.run(
        [sys.executable, "-m", "implicit_grad.cli", "reproduce", "--quik"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "quik" in run.stdout + run.stderr


def test_unknown_figures_are_named():
    with pytest.raises(ArgumentError, match="none of"):
        figures.figure("figure_9")


def test_every_script_states_a_claim_and_a_source():
    for stem in figures.STEMS:
        text = __import__(f"analysis.{stem}", fromlist=["x"]).__doc__
        assert "Claim." in text
        assert "Source." in text


def test_quick_panels_are_small():
    for panel in analysis.panels.PANELS.values():
        assert replace(panel).quick().tasks <= 3
