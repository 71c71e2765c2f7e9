"""Failures that only the numbers show: a status that tells the truth, and an error on demand.

The numbers in the ids are those of the table of bad input in the project's reference notes.
"""

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from bad_input_scenes import C, D, autodiff, good_data
from oracles.losses import Diagonal
from oracles.scenes import EPS

from implicit_grad import (
    CG,
    EXACT,
    BilevelProblem,
    Cholesky,
    ConvergenceError,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    IndefiniteError,
    MetaGradient,
    Neumann,
    Newton,
    ScipyMinimize,
    Status,
    certify,
)


def _diagonal(*h: float, lam: float = 0.7) -> BilevelProblem:
    h = np.array(h)
    return BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones(h.size), 2.0), lam)


PLAIN = MetaGradient(GradientDescent(0.05, 40), ImplicitGradient(CG(20, 1e-10)))
AT_THETA = MetaGradient(GradientDescent(0.05, 0), ImplicitGradient(Cholesky()))
STATUSES: list[tuple[int, str, Callable[[], Any], set[Status]]] = [
    (4, "saddle, exact", lambda: AT_THETA(_diagonal(1, -2), np.ones(2)), {Status.INDEFINITE}),
    (
        4,
        "saddle, CG",
        lambda: MetaGradient(GradientDescent(0.05, 0), ImplicitGradient(CG(9)))(_diagonal(1, -2), np.ones(2)),
        {Status.INDEFINITE},
    ),
    (5, "lam = -mu_min", lambda: AT_THETA(_diagonal(1, -0.7), np.ones(2)), {Status.INDEFINITE}),
    (
        5,
        "lam = -mu_min + 1e-12, exact",
        lambda: AT_THETA(_diagonal(1, -0.7 + 1e-12), np.ones(2)),
        {Status.ILL_CONDITIONED},
    ),
    (5, "kappa = 1e9", lambda: Cholesky()(np.diag([1.0, 1e-9]), np.array([1.0, 0.0])), {Status.ILL_CONDITIONED}),
    (
        7,
        "inner step limit",
        lambda: MetaGradient(Newton(max_steps=0), FirstOrderGradient())(_diagonal(1, 2), np.ones(2)),
        {Status.MAX_STEPS},
    ),
    (
        7,
        "inner step limit, SciPy",
        lambda: MetaGradient(ScipyMinimize("Nelder-Mead", max_steps=2), FirstOrderGradient())(
            _diagonal(1, 2), np.ones(2)
        ),
        {Status.MAX_STEPS},
    ),
    (8, "step too long", lambda: PLAIN(_diagonal(1, 1e3), np.ones(2)), {Status.DIVERGED}),
    (9, "too few steps for the tolerance", lambda: CG(3, 1e-9)(_hilbert(9), np.ones(9)), {Status.MAX_STEPS}),
    (
        10,
        "budget",
        lambda: MetaGradient(GradientDescent(0.05, 3), ImplicitGradient(CG(1)))(_diagonal(1, 2), np.ones(2)),
        {Status.BUDGET_SPENT},
    ),
    (
        12,
        "step at 2/lambda_max and beyond",
        lambda: Neumann(2.1, 9)(np.diag([1.0, 0.1]), np.ones(2)),
        {Status.DIVERGED},
    ),
    (12, "step of 2/lambda_max", lambda: Neumann(2.0, 9)(np.eye(2), np.ones(2)), {Status.STAGNATED}),
    (11, "singular", lambda: CG(50, 1e-8)(np.ones((3, 3)), np.array([1.0, 2.0, 4.0])), {Status.INDEFINITE}),
    (
        11,
        "singular, exact",
        lambda: Cholesky()(np.ones((3, 3)), np.array([1.0, 2.0, 4.0])),
        {Status.INDEFINITE, Status.STAGNATED},
    ),
    (27, "NaN loss", lambda: PLAIN(autodiff(lambda w: anp.sum(anp.sqrt(w - 9))), np.ones(2)), {Status.NONFINITE}),
    (
        29,
        "log(0) behind where",
        lambda: PLAIN(autodiff(lambda w: anp.sum(anp.where(w > 0, anp.log(w), 0.0))), np.array([0.0, 1.0])),
        {Status.NONFINITE},
    ),
    (
        30,
        "overflow in a naive softmax",
        lambda: PLAIN(autodiff(lambda w: anp.log(anp.sum(anp.exp(w)))), np.array([800.0, 0.0])),
        {Status.NONFINITE, Status.DIVERGED},
    ),
    (
        36,
        "infinite test gradient",
        lambda: AT_THETA(BilevelProblem(Diagonal(np.ones(2)), Diagonal(np.full(2, 1e308)), 0.7), np.full(2, 1e10)),
        {Status.NONFINITE},
    ),
]


def _hilbert(d: int) -> Any:
    return 1 / (np.arange(d)[:, None] + np.arange(d) + 1.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the losses of these cases over- and underflow themselves
@pytest.mark.parametrize("case", STATUSES, ids=[f"{row}: {what}" for row, what, *_ in STATUSES])
def test_numerical_failure_is_a_status_and_an_error_on_demand(case):
    _, _, call, wanted = case
    result = call()
    assert result.status in wanted
    if result.ok:
        result.unwrap()
        return
    with pytest.raises(IndefiniteError if result.status is Status.INDEFINITE else ConvergenceError):
        result.unwrap()


def test_row_06_a_phi_that_is_not_stationary():
    """The residual is reported and true, the error bar covers the error and blames φ, and strict mode goes on."""
    data = good_data()
    problem, theta = BilevelProblem(data.softmax(), data.softmax(labels=(data.labels + 1) % C), 0.3), np.ones(D * C)
    exact = EXACT(problem, theta).unwrap()
    for steps in (0, 2):
        inner = GradientDescent(None, steps)(problem, theta)
        estimate = ImplicitGradient(Cholesky())(problem, theta, inner)
        residual = np.linalg.norm(problem.stationarity(inner.value, theta))
        assert abs(estimate.inner.residual_norm - residual) <= 16 * EPS * residual
        assert residual > 1e-3
        bar = certify(problem, theta, estimate)
        assert np.linalg.norm(estimate.gradient - exact) <= bar.bound
        assert bar.inner_share > 0.5 * bar.bound
    strict = MetaGradient(GradientDescent(None, 2), ImplicitGradient(CG(2))).to_accuracy(problem, theta, 1e-6)
    assert strict.status is Status.CONVERGED
    assert np.linalg.norm(strict.unwrap() - exact) <= 1e-6 * np.linalg.norm(strict.gradient)
