"""The catalogue: wrong meta-gradients that people compute, each as a function of the problem."""

from __future__ import annotations

from implicit_grad.errors import ArgumentError
from implicit_grad.verify._formula import WrongFormula
from implicit_grad.verify._inner_formulas import INNER
from implicit_grad.verify._linear_formulas import LINEAR

CATALOGUE: tuple[WrongFormula, ...] = (*LINEAR, *INNER)
"""Every formula that the diagnosis knows; names are unique."""


def wrong_formula(name: str) -> WrongFormula:
    """Return the entry of that name.

    Raises
    ------
    ArgumentError
        If there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad import BilevelProblem, LeastSquares
    >>> train, test = LeastSquares(np.diag([1.0, 2.0]), np.ones(2)), LeastSquares(np.eye(2), np.zeros(2))
    >>> wrong_formula("2I + H/λ")(BilevelProblem(train, test, 0.5), np.zeros(2))
    array([0.08333333, 0.03333333])
    """
    for formula in CATALOGUE:
        if formula.name == name:
            return formula
    raise ArgumentError(f"name: {name!r} is none of {[formula.name for formula in CATALOGUE]}")
