"""Every figure script from end to end on tiny problems: studies run, panels fill, claims have numbers."""

import importlib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis import figure as figures
from analysis.panels import OMNIGLOT
from analysis.study import median_slope
from implicit_grad import plot
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid

SEED = 7
COUNTS = {"tasks": 1, "seeds": 2, "repeats": 2, "outer_steps": 3, "dim": 60}
GRID = 6
"""Most entries of a grid."""

RANKS = {"products": 10, "linear": 4}
"""Grids whose entries must not exceed the parameters of a tiny problem."""

FEW_UNKNOWN = 0.5
"""On grids this small some slopes have too few points; more than this share without a number is a broken claim."""


def tiny_source(source):
    if isinstance(source, RandomRidge):
        rank = None if source.rank is None else 3
        return replace(source, dim=12, train_samples=14, test_samples=14, rank=rank)
    if isinstance(source, Digits):
        return replace(source, ways=2, shots=3, queries=3)
    if isinstance(source, Sinusoid):
        return replace(source, shots=4, queries=4, hidden=(3,))
    return source


def thin(values):
    """At most `GRID` entries of a tuple of numbers, the first and the last among them."""
    if len(values) <= GRID or isinstance(values[0], str):
        return values
    return tuple(values[i] for i in np.linspace(0, len(values) - 1, GRID).round().astype(int))


def tiny(study):
    """The same study at a size that takes a fraction of a second."""
    changes = {}
    for field in fields(study):
        value = getattr(study, field.name)
        if not field.init:
            continue
        if field.name == "source":
            changes["source"] = tiny_source(value)
        elif field.name in COUNTS and isinstance(value, int):
            changes[field.name] = min(value, COUNTS[field.name])
        elif isinstance(value, tuple) and value and isinstance(value[0], int | float | tuple):
            most = RANKS.get(field.name)
            changes[field.name] = thin(value if most is None else tuple(each for each in value if each <= most))
    return replace(study, **changes)


@pytest.mark.parametrize("stem", [stem for stem in figures.STEMS if stem not in figures.DEFAULT])
def test_every_figure_runs_draws_and_judges(stem):
    figure = figures.figure(stem)
    studies = {name: study for name, study in figure.sweeps(True, SEED).items() if name != OMNIGLOT}
    assert all(is_dataclass(study) for study in studies.values())
    tables = {name: tiny(study).run(backend="numpy") for name, study in studies.items()}
    with plot.house_style():
        drawn = figure.draw(tables)
    try:
        assert all(ax.has_data() for ax in drawn.axes)
        assert all(ax.get_xlabel() or ax.get_ylabel() or ax.get_title(loc="left") for ax in drawn.axes)
    finally:
        plt.close(drawn)
    claims = figure.claims(tables)
    names = [claim.name for claim in claims]
    assert names
    assert len(set(names)) == len(names)
    assert np.mean([np.isnan(claim.measured) for claim in claims]) <= FEW_UNKNOWN
    assert all(f"**{name}**" in figure.caption(tables) for name in tables)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("stem", figures.STEMS)
def test_every_figure_can_be_built_at_its_own_size_and_seed(stem, quick):
    assert figures.figure(stem).sweeps(quick, figures.SEED)


def test_a_panel_without_data_is_named_in_the_caption():
    figure = figures.figure("time_memory_vs_inner_steps")
    studies = figure.sweeps(True, SEED)
    tables = {"sinusoid": tiny(studies["sinusoid"]).run(backend="numpy")}
    assert f"**{OMNIGLOT}**: left out, its data were not found" in figure.caption(tables)


def test_without_its_file_the_omniglot_panel_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr("analysis.panels.candidates", lambda *arguments: [tmp_path / "absent.npz"])
    assert OMNIGLOT not in figures.figure("time_memory_vs_inner_steps").sweeps(True, SEED)


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 4)])
def test_median_slopes_of_vectors_and_of_columns(shape):
    x = np.linspace(1, 3, 9)
    y = np.broadcast_to(np.reshape(2 - 1.5 * x, (9, *(1,) * (len(shape) - 1))), shape)
    assert median_slope(x, y) == pytest.approx(-1.5, rel=1e-12)


def test_a_slope_of_two_points_is_none():
    assert np.isnan(median_slope(np.arange(3.0), np.array([1.0, np.nan, 2.0])))


def test_the_readme_has_every_figure_with_its_claim():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for stem in figures.STEMS:
        claim = importlib.import_module(f"analysis.{stem}").__doc__.splitlines()[0]
        assert f"| [{stem}](figures/{stem}.md) | {claim} |" in text
