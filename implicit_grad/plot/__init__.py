"""Paper-style error plots. The only room that imports matplotlib.

Every `plot_*(dataset, *, ax=None, …)` draws a labelled data set (`xarray.Dataset`) into the axes given, or into those
at hand, and returns them. Lines are medians over the dimension `task`, bands the 10 to 90 % quantiles, both
interpolated on a logarithmic scale.

| function | draws |
|---|---|
| `plot_errors` | a line with its band for each series, doubly logarithmic |
| `plot_powers` | the same, with the fitted exponent of each series in the legend |
| `plot_pareto` | error over cost, and the front |
| `plot_bound_ratios` | bound over error, over the error: below 1 is no bound |
| `plot_shares` | what a bound consists of, as stacked fractions |
| `plot_demand` | error over cost when asked for, beside the best fixed budgets |

`theory_line`, `floor_line`, `slope_triangle` and `note` put bounds, rounding floors, slopes and numbers beside them.
`house_style(PAPERS["icml"])` sets type and width of a paper, `grid` its panels, `save_figure` writes PDF and PNG with
the same bytes for the same figure. Colours are Okabe and Ito's; `styles_of` gives each series its own pair of colour
and marker.

Examples
--------
>>> import matplotlib.pyplot as plt, numpy as np, xarray as xr
>>> steps = np.array([1, 2, 4, 8])
>>> errors = 0.3 / steps[:, None] * np.array([1.0, 1.2, 0.9])
>>> table = xr.Dataset(
...     {"relative_error": (("estimator", "inner_steps", "task"), errors[None])},
...     {"estimator": ["CG-5"], "inner_steps": steps},
... )
>>> with house_style(PAPERS["icml"]):
...     figure, axes = grid(1)
...     ax = plot_errors(table, ax=axes[0, 0])
...     triangle = slope_triangle(ax, (2.0, 0.05), -1, decades=0.4)
...     legend = shared_legend(figure, [ax], columns=2)
>>> float(figure.get_figwidth()), [text.get_text() for text in legend.get_texts()]
(3.25, ['CG-5'])
>>> plt.close(figure)
"""

from implicit_grad.plot.certificates import plot_bound_ratios as plot_bound_ratios
from implicit_grad.plot.certificates import plot_demand as plot_demand
from implicit_grad.plot.certificates import plot_shares as plot_shares
from implicit_grad.plot.certificates import share_fractions as share_fractions
from implicit_grad.plot.datasets import plot_errors as plot_errors
from implicit_grad.plot.datasets import plot_pareto as plot_pareto
from implicit_grad.plot.datasets import plot_powers as plot_powers
from implicit_grad.plot.layout import grid as grid
from implicit_grad.plot.layout import hollow_key as hollow_key
from implicit_grad.plot.layout import note as note
from implicit_grad.plot.layout import panel_title as panel_title
from implicit_grad.plot.layout import plain_numbers as plain_numbers
from implicit_grad.plot.layout import save_figure as save_figure
from implicit_grad.plot.layout import shared_legend as shared_legend
from implicit_grad.plot.marks import band as band
from implicit_grad.plot.marks import fitted_slope as fitted_slope
from implicit_grad.plot.marks import floor_line as floor_line
from implicit_grad.plot.marks import geometric_quantiles as geometric_quantiles
from implicit_grad.plot.marks import slope_triangle as slope_triangle
from implicit_grad.plot.marks import theory_line as theory_line
from implicit_grad.plot.style import FLOOR as FLOOR
from implicit_grad.plot.style import PAPERS as PAPERS
from implicit_grad.plot.style import RC as RC
from implicit_grad.plot.style import SERIES as SERIES
from implicit_grad.plot.style import STYLES as STYLES
from implicit_grad.plot.style import Paper as Paper
from implicit_grad.plot.style import Style as Style
from implicit_grad.plot.style import house_style as house_style
from implicit_grad.plot.style import style_of as style_of
from implicit_grad.plot.style import styles_of as styles_of
