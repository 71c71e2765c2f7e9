"""Fitted orders of convergence, inside the window where an order can be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from oracles import fifty_digits


def exact(scene: Any, start: Any = None) -> Any:
    """The meta-gradient in fifty digits."""
    return fifty_digits.meta_gradient(*scene.exact, scene.lam, scene.theta, start)


def slope(x: Any, errors: Any, floor: Any, ceiling: float = 3e-2) -> float:
    """Slope of log error over log x where floor < error < ceiling: above the noise, below the first order.

    Raises
    ------
    AssertionError
        If that window holds fewer than three points.
    """
    x, errors = np.asarray(x), np.asarray(errors)
    window = (errors > floor) & (errors < ceiling)
    assert window.sum() >= 3, f"no window: errors {errors}, floor {floor}, ceiling {ceiling}"
    return float(np.polyfit(np.log(x[window]), np.log(errors[window]), 1)[0])
