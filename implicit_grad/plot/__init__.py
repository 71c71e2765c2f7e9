"""Paper-style error plots. The only room that imports matplotlib."""

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
