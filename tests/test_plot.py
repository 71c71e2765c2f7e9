"""Plots, by their artists rather than their pixels."""

import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pytest

from implicit_grad import plot


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_a_band_is_the_median_and_the_middle_eighty_percent(ax):
    rng = np.random.default_rng(5)
    values = 10.0 ** rng.normal(size=(4, 101))
    line = plot.band(ax, np.arange(4), values, label="CG-5")
    assert np.array_equal(line.get_ydata(), np.median(values, axis=1))
    drawn = ax.collections[0].get_paths()[0].vertices
    assert drawn[:, 1].max() == pytest.approx(np.quantile(values, 0.9, axis=1).max())
    assert drawn[:, 1].min() == pytest.approx(np.quantile(values, 0.1, axis=1).min())


def test_zero_is_drawn_at_the_floor_and_nan_not_at_all(ax):
    values = np.array([[1.0, 1.0], [0.0, 0.0], [np.nan, np.nan]])
    line = plot.band(ax, [1, 2, 3], values, label="a")
    assert np.array_equal(line.get_ydata(), [1.0, plot.FLOOR, np.nan], equal_nan=True)


def test_hollow_markers_are_where_asked(ax):
    plot.band(ax, [1, 2, 3], np.ones((3, 2)), label="a", hollow=[False, True, False])
    filled, hollow = (line for line in ax.lines if line.get_linestyle() == "None")
    assert list(filled.get_xdata()) == [1, 3]
    assert list(hollow.get_xdata()) == [2]
    assert hollow.get_markerfacecolor() == "white"


def test_the_legend_names_each_estimator_once(ax):
    figure = ax.figure
    for label in ("CG-2", "CG-5", "CG-2"):
        plot.band(ax, [1, 2], np.ones((2, 2)), label=label)
    legend = plot.shared_legend(figure, [ax], columns=2)
    assert [text.get_text() for text in legend.get_texts()] == ["CG-2", "CG-5"]


def test_styles_are_distinct_and_stable():
    assert len({(s.color, s.marker) for s in plot.STYLES.values()}) == len(plot.STYLES)
    assert plot.style_of("another estimator") == plot.style_of("another estimator")


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_fitted_slope_recovers_a_power_law(exponent):
    x = np.geomspace(1e-6, 1, 20)
    slope, factor = plot.fitted_slope(x, 3 * x**exponent, low=1e-5, high=0.5)
    assert slope == pytest.approx(exponent, rel=1e-10)
    assert factor == pytest.approx(3, rel=1e-9)


def test_tasks_share_the_exponent_and_keep_their_factors():
    x = np.geomspace(1e-6, 1, 20)[:, None] * np.array([1.0, 3.0, 0.2])
    slope, factor = plot.fitted_slope(x, np.array([5.0, 1e3, 1e-2]) * x**1.5, low=1e-5, high=0.5)
    assert slope == pytest.approx(1.5, rel=1e-10)
    assert factor == pytest.approx(5, rel=1e-9)


def test_two_points_make_no_slope():
    assert np.isnan(plot.fitted_slope([1e-3, 1e-2, 1], [1, 2, 3], low=1e-4, high=0.1)[0])


def test_the_callers_settings_are_left_alone():
    before = plt.rcParams["font.size"]
    with plot.house_style():
        assert plt.rcParams["font.size"] == 8
    assert plt.rcParams["font.size"] == before


def test_the_same_figure_has_the_same_bytes(tmp_path):
    def draw(stem):
        figure, axes = plt.subplots()
        plot.band(axes, [1, 2], np.ones((2, 2)), label="a")
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in plot.save_figure(figure, tmp_path / stem)]

    assert draw("one") == draw("two")
    assert not plt.get_fignums()
