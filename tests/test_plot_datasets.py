"""From a labelled data set to a panel: every public `plot_*`, by what it draws."""

import hashlib
import inspect
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from implicit_grad import ArgumentError, plot

xr = pytest.importorskip("xarray")
PLOTS = sorted(name for name in dir(plot) if name.startswith("plot_"))


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.fixture
def table(rng):
    """Errors of three estimators at five budgets for seven tasks, with bounds above them."""
    error = 10.0 ** rng.uniform(-6, 0, size=(3, 5, 7))
    over = ("estimator", "inner_steps", "task")
    return xr.Dataset(
        {
            "relative_error": (over, error),
            "relative_bound": (over, error * 10.0 ** rng.uniform(0, 2, size=error.shape)),
            **{
                name: (("inner_steps", "task"), rng.uniform(0.1, 1, (5, 7)))
                for name in ("inner", "linear", "rounding")
            },
        },
        {"estimator": ["CG-2", "CG-5", "unrolled"], "inner_steps": [1, 2, 4, 8, 16]},
    )


def labelled(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_takes_a_data_set_and_axes_and_says_so(name):
    function = getattr(plot, name)
    first, *others = inspect.signature(function).parameters.values()
    assert first.name == "dataset"
    assert all(each.kind is each.KEYWORD_ONLY for each in others)
    assert next(each.default for each in others if each.name == "ax") is None
    assert all(word in function.__doc__ for word in ("Parameters", "Returns", "xarray.Dataset"))


def test_the_axes_are_those_given_or_new_ones(ax, table):
    assert plot.plot_errors(table, ax=ax) is ax
    try:
        assert plot.plot_errors(table) is plt.gca()
    finally:
        plt.close("all")


def test_errors_need_no_tasks(ax, table):
    plot.plot_errors(table.isel(task=3), ax=ax)
    solid = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert np.array_equal(solid[1].get_ydata(), table.relative_error.isel(task=3, estimator=1))


def test_one_axis_at_a_time(table, ax):
    """A sweep has λ beside the inner steps."""
    for whole in (table.expand_dims(lam=[0.5, 2.0]), table.isel(inner_steps=0)):
        with pytest.raises(ArgumentError, match=r"^dataset: "):
            plot.plot_errors(whole, ax=ax)


def test_bound_ratios_leave_out_what_is_too_small_or_unknown(ax, table):
    table.relative_bound[0, 0, 0] = np.nan
    plot.plot_bound_ratios(table, ax=ax, smallest=1e-4)
    kept = (table.relative_error > 1e-4) & np.isfinite(table.relative_bound)
    for i, label in enumerate(table.estimator.values):
        line, mine = labelled(ax)[label], kept[i].values
        assert np.array_equal(line.get_xdata(), table.relative_error.values[i][mine])
        assert np.array_equal(line.get_ydata(), (table.relative_bound / table.relative_error).values[i][mine])


def test_bound_ratios_of_all_series_at_once(ax, table):
    plot.plot_bound_ratios(table, ax=ax, series=None, label="all")
    assert labelled(ax)["all"].get_xdata().size == table.relative_error.size


def test_shares_fill_the_panel(ax, table):
    plot.plot_shares(table, ax=ax, x="inner_steps")
    fractions = plot.share_fractions(table)
    assert np.allclose(fractions.sum(axis=0), 1, rtol=0, atol=4 * np.finfo(float).eps)
    top = ax.collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(1, abs=1e-12)


def test_demand_stands_beside_the_best_budget_of_each_cost(ax):
    errors = np.array([[[3.0, 1.0], [0.5, 2.0]]])  # λ, K, k
    table = xr.Dataset(
        {
            "error": (("lam", "rtol"), [[0.1, 0.01]]),
            "cost": (("lam", "rtol"), [[10, 20]]),
            "fixed_error": (("lam", "inner_steps", "linear_steps"), errors),
            "fixed_cost": (("inner_steps", "linear_steps"), [[2, 3], [5, 4]]),
        },
        {"lam": [0.5]},
    )
    plot.plot_demand(table, ax=ax)
    front, asked = ax.lines[:2]
    assert list(front.get_xdata()) == [2, 3, 4, 5]
    assert list(front.get_ydata()) == [3, 1, 1, 0.5]
    assert list(asked.get_ydata()) == [0.1, 0.01]
    assert asked.get_label() == "λ = 0.5"


@pytest.mark.parametrize(("fronts", "shown"), [(False, [1, 2, 3, 4]), (True, [1, 3])])
def test_a_front_has_no_setting_that_a_cheaper_one_beats(ax, fronts, shown):
    table = xr.Dataset(
        {
            "cost": ("setting", [1, 2, 3, 4, 2]),
            "family": ("setting", ["a", "a", "a", "a", "b"]),
            "relative_error": (("setting", "task"), np.array([[4.0], [5.0], [2.0], [3.0], [1.0]])),
        }
    )
    plot.plot_pareto(table, ax=ax, fronts=fronts)
    assert list(labelled(ax)["a"].get_xdata()) == shown
    assert list(labelled(ax)["Pareto front"].get_xdata()) == [1, 2]


@pytest.mark.parametrize("exponent", [-0.5, 1.0, 2.0])
def test_powers_say_their_exponent(ax, exponent):
    x = np.geomspace(2, 200, 6)
    table = xr.Dataset({"y": (("what", "x"), (3 * x**exponent)[None])}, {"what": ["cost"], "x": x})
    plot.plot_powers(table, ax=ax, x="x", y="y", series="what")
    assert f"cost: {exponent:.2f}" in labelled(ax)


@pytest.mark.parametrize("decades", [1.5, -1.5])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_slope_triangle_has_the_slope_and_its_number_outside(ax, decades, backwards):
    ax.set_xscale("log")
    ax.set_yscale("log")
    if backwards:
        ax.invert_xaxis()
    line = plot.slope_triangle(ax, (1e-3, 1e-5), -0.5, decades=decades)
    (x0, x1), (y0, y1) = line.get_xdata()[[0, 2]], line.get_ydata()[[0, 2]]
    assert np.log(y1 / y0) / np.log(x1 / x0) == pytest.approx(-0.5, rel=1e-12)
    (number,) = ax.texts
    assert number.get_text() == "−0.5"
    assert number.get_horizontalalignment() == ("left" if (decades > 0) != backwards else "right")


@pytest.mark.parametrize("paper", plot.PAPERS)
def test_a_figure_is_as_wide_as_its_paper(paper):
    with plot.house_style(plot.PAPERS[paper]):
        figure, axes = plot.grid(3, 2)
    assert figure.get_figwidth() == plot.PAPERS[paper].width
    assert axes.shape == (2, 3)
    plt.close(figure)


PROGRAM = """
import sys
from pathlib import Path
import numpy as np, xarray as xr
from implicit_grad import plot
error = 10.0 ** -np.arange(12.0).reshape(2, 3, 2)
table = xr.Dataset(
    {"relative_error": (("estimator", "inner_steps", "task"), error)},
    {"estimator": ["CG-5", "one of its own"], "inner_steps": [1, 2, 4]},
)
with plot.house_style():
    figure, axes = plot.grid(1)
    plot.plot_errors(table, ax=axes[0, 0])
    plot.shared_legend(figure, axes.ravel(), columns=2)
    plot.save_figure(figure, Path(sys.argv[1]))
"""


def test_another_process_writes_the_same_bytes(tmp_path):
    found = []
    for number, salt in enumerate(("11", "12")):
        stem = tmp_path / f"figure{number}"
        environment = {**os.environ, "PYTHONHASHSEED": salt, "MPLBACKEND": "Agg"}
        subprocess.run([sys.executable, "-c", PROGRAM, str(stem)], check=True, env=environment)
        found.append([hashlib.sha256(stem.with_suffix(end).read_bytes()).hexdigest() for end in (".pdf", ".png")])
    assert found[0] == found[1]


def test_a_legend_keeps_to_the_width_of_the_figure():
    with plot.house_style(plot.PAPERS["icml"]):
        figure, axes = plot.grid(1)
        for i in range(6):
            axes[0, 0].plot([1, 2], [1, 2], label=f"a rather long name, number {i}")
        legend = plot.shared_legend(figure, axes.ravel(), columns=6)
    assert legend.get_window_extent().width <= figure.bbox.width
    assert len(figure.legends) == 1
    assert len(legend.get_texts()) == 6
    plt.close(figure)


def test_titles_shrink_beside_their_letters(tmp_path):
    with plot.house_style(plot.PAPERS["neurips"]):
        figure, axes = plot.grid(3)
        for i, title in enumerate(("short", "sinusoid, MLP 1-40-40-1", "short too")):
            plot.panel_title(axes[0, i], i, title)
        plot.save_figure(figure, tmp_path / "figure")
        figure.draw_without_rendering()  # what was saved had another resolution
    letters, titles = (
        [ax.findobj(lambda artist, name=name: artist.get_gid() == name)[0] for ax in axes[0]]
        for name in ("panel letter", "panel title")
    )
    sizes = [title.get_fontsize() for title in titles]
    assert sizes[0] == sizes[2] > sizes[1]
    assert letters[1].get_window_extent().x1 < titles[1].get_window_extent().x0
