"""Figures on the sweep engine: a stopped run goes on, a second one computes nothing, and the bytes stay the same."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import analysis.panels
from analysis import cells, figure, super_efficiency
from analysis.panels import Panel
from analysis.time_memory_vs_inner_steps import FIGURE as RESOURCES
from implicit_grad import cli
from implicit_grad.engine import Local, Serial, Store
from implicit_grad.engine.cell import job
from implicit_grad.engine.provenance import source_digest
from implicit_grad.errors import CellFailed
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid

STEM = "super_efficiency"
DRAWN = [f"{STEM}.{kind}" for kind in ("pdf", "png", "md")]


@pytest.fixture
def tiny(monkeypatch):
    """The figure at a size that takes a second."""
    panels = {
        "ridge": Panel("ridge", RandomRidge(dim=4, train_samples=5), 0.1, 2, 32),
        "sinusoid": Panel("sinusoid", Sinusoid(3, 3, (3,)), 20.0, 2, 16, (0, 2)),
        "digits": Panel("digits", Digits(ways=3, shots=2, queries=3), 0.3, 2, 16),
    }
    for name, panel in panels.items():
        monkeypatch.setitem(analysis.panels.PANELS, name, panel)


def reproduce(out, *options):
    cli.main(["reproduce", STEM, "--quick", "--out", str(out), *options])
    return {name: (out / name).read_bytes() for name in DRAWN}


def compute(folder, **options):
    """The data sets alone: drawing them is what takes time."""
    found = cells.cells_of(super_efficiency.FIGURE, quick=True, seed=3, backend="numpy")
    return cells.compute(found.values(), folder, **{"runner": None, "fresh": False, "progress": None} | options)


def files(results):
    return sorted((results / "cells").glob("*/*.npz"))


def failing(study, progress=None, backend=None):
    raise RuntimeError("computed")


def test_a_second_run_computes_nothing(tiny, tmp_path, monkeypatch, capsys):
    drawn = reproduce(tmp_path)
    assert len(files(tmp_path / "results")) == 3
    record = (tmp_path / "results" / f"{STEM}.json").read_bytes()
    for name in DRAWN:
        (tmp_path / name).unlink()
    monkeypatch.setattr(super_efficiency.RayStudy, "run", failing)
    assert reproduce(tmp_path) == drawn
    assert (tmp_path / "results" / f"{STEM}.json").read_bytes() == record  # with the seconds of the first run
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        reproduce(tmp_path, "--fresh")
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "3 of 3 cells failed; the first: super_efficiency: ridge: RuntimeError: computed" in said
    assert "Traceback" in said


def test_damaged_and_missing_panels_are_computed_again(tiny, tmp_path):
    before = [table.drop_attrs() for table in compute(tmp_path)]
    first, second, _ = files(tmp_path)
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    told = []
    results = compute(tmp_path, progress=told.append)
    assert results.tally.computed == 2
    assert told[-1] == "3 of 3 panels, 1 damaged and set aside"
    assert all(table.drop_attrs().identical(old) for table, old in zip(results, before, strict=True))


def test_several_processes_give_the_same_bits(tiny, tmp_path):
    loky = pytest.importorskip("joblib.externals.loky", reason="the extra `sweep` is not installed")
    loky.get_reusable_executor().shutdown(wait=True)  # workers of an earlier test may know sources edited since
    source_digest.cache_clear()
    both = zip(compute(tmp_path / "one"), compute(tmp_path / "two", runner=Local(2)), strict=True)
    assert all(one.drop_attrs().identical(two.drop_attrs()) for one, two in both)


def test_the_command_line_hands_the_panels_of_all_figures_to_the_workers(tiny, tmp_path, monkeypatch):
    made = []

    def pretend(where):
        def runner(store, waiting, fresh):
            made.append((where, [job.cell.label for job in waiting]))
            return Serial()(store, waiting, fresh)

        return runner

    monkeypatch.setattr("implicit_grad.engine.Local", pretend)
    monkeypatch.setattr("implicit_grad.engine.Cluster", pretend)
    monkeypatch.setattr(figure.Figure, "reproduce", lambda self, out, **options: [])
    for option, value in (("--jobs", 3), ("--scheduler", "tcp://there:1")):
        out = tmp_path / option
        cli.main(["reproduce", STEM, "error_vs_lambda", "--quick", option, str(value), "--out", str(out)])
        panels = [f"{stem}: {name}" for stem in (STEM, "error_vs_lambda") for name in ("ridge", "sinusoid", "digits")]
        assert made.pop() == (value, panels)


def test_size_seed_and_place_name_the_panels(tiny):
    def keys(**changed):
        found = cells.cells_of(super_efficiency.FIGURE, **{"quick": True, "seed": 3, "backend": "numpy"} | changed)
        return {job(cell).key for cell in found.values()}

    assert keys() == keys()
    assert not keys() & (keys(quick=False) | keys(seed=4) | keys(backend="cupy"))


def test_what_measures_runs_alone():
    alone = {
        stem: {
            cell.alone for cell in cells.cells_of(figure.figure(stem), quick=True, seed=3, backend="numpy").values()
        }
        for stem in (STEM, RESOURCES.stem)
    }
    assert alone == {STEM: {False}, RESOURCES.stem: {True}}


def test_stages_and_panels_are_told(tiny, tmp_path):
    told = []
    compute(tmp_path, progress=told.append)
    assert "reference" in told
    assert [line for line in told if line.endswith("panels")] == [f"{n} of 3 panels" for n in range(4)]


def test_every_study_of_every_figure_has_a_key():
    for stem in figure.STEMS:
        for quick in (True, False):
            found = cells.cells_of(figure.figure(stem), quick=quick, seed=3, backend="numpy")
            assert len({job(cell).key for cell in found.values()}) == len(found), stem


def test_a_panel_that_fails_names_itself(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(super_efficiency.RayStudy, "run", failing)
    with pytest.raises(CellFailed, match="super_efficiency: ridge: RuntimeError: computed"):
        compute(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "jobs"),
        (["--jobs", "2", "--scheduler", "tcp://127.0.0.1:9"], "leave --jobs out"),
    ],
)
def test_bad_options_exit_with_two(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        reproduce(tmp_path, *options)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_scheduler_that_is_not_there_exits_with_two(tiny, tmp_path, capsys):
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with pytest.raises(SystemExit) as exit_:
        reproduce(tmp_path, "--scheduler", "nonsense://")
    assert exit_.value.code == 2
    assert "no scheduler answers at 'nonsense://'" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="SIGINT to a process group")
def test_an_interrupt_keeps_finished_panels_and_exits_with_130(tmp_path):
    command = [sys.executable, "-m", "implicit_grad.cli", "reproduce", STEM, "--quick", "--out", str(tmp_path)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(cli.__file__).parents[1]
    )
    deadline = time.monotonic() + 120
    while not files(tmp_path / "results") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "finished panels are kept" in said
    assert not re.search("Traceback", said)
    kept = files(tmp_path / "results")
    assert 1 <= len(kept) < 3
    assert not any(Store(tmp_path / "results").fault(path.stem) for path in kept)
    assert not list(tmp_path.glob("**/.*"))
    assert not list(tmp_path.glob("*.pdf"))
