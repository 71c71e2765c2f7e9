"""Laws (f): bounds, as checks of any `certify`: the tests run them on ours, the mutants on broken ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from laws_estimators import at

from implicit_grad import CG, Cholesky, Constants, FirstOrderGradient, GradientDescent, ImplicitGradient
from implicit_grad.testing.comparisons import at_most, same
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.problems import RidgeSpec, SoftmaxSpec
from implicit_grad.testing.transforms import Combination

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec
ESTIMATORS = (FirstOrderGradient(), ImplicitGradient(CG(2)), ImplicitGradient(Cholesky()))


def own_constants(case: Any, train: float = 1.0, test: float = 1.0) -> Constants:
    """m = λ, β and ρ of the oracle, for losses multiplied by `train` and `test`."""
    beta, rho = test * case.test.curvature, train * case.train.hessian_lipschitz
    return Constants(train * case.lam, beta, rho)


def check_bound(certify: Any, spec: Spec) -> None:
    """Law 64: lower ≤ ‖ĝ − g*‖ ≤ bound for every estimator; and law 65 with `newton_steps`."""
    case = spec.build()
    for steps in (0, 2, 40):
        inner = GradientDescent(None, steps)(case.problem, case.theta)
        for estimator in ESTIMATORS:
            g = estimator(case.problem, case.theta, inner).gradient
            found = certify(case.problem, case.theta, g, inner.value)
            error = norm(g - case.g)
            at_most(error, found.bound, case.tol_exact(), "law 64: error ≤ bound")
            at_most(found.lower, error, case.tol_exact(), "law 65: lower ≤ error")


def check_floor(certify: Any, spec: Spec) -> None:
    """Law 66: what is not rounding is linear in the distance from φ*, at most (M̄/m)(β + ρ‖g‖/λ) times it."""
    case = spec.build()
    direction = np.random.default_rng([case.size, 9]).standard_normal(case.size)
    direction /= norm(direction)
    for length in (1e-1, 1e-3, 1e-5):
        phi = case.star + length * (norm(case.star) + norm(case.theta)) * direction
        g = case.lam * np.linalg.solve(
            case.train.hessian(phi) + case.lam * np.eye(case.size), case.test.gradient(phi)
        )
        found = certify(case.problem, case.theta, g, phi)
        worth = case.test.curvature + case.train.hessian_lipschitz * norm(g) / case.lam
        most = case.kappa * worth * norm(phi - case.star)
        at_most(found.bound - found.rounding_share, most, 2 * case.tol_g(phi) + case.tol_exact(), "law 66: linear")
    found = certify(case.problem, case.theta, case.g, case.star)
    n = case.problem.inner.n_samples + case.problem.outer.n_samples + case.size
    # 8(N + n) eps in the allowance beside 64 N u in the tolerance, on terms up to min(N, n) times as large.
    at_most(found.bound, 0.0, 4 * n * case.size * case.tol_exact(), "law 66: down to rounding")


def check_scaling(certify: Any, spec: Spec) -> None:
    """Law 67: T → cT scales the bound by c; (L, λ) → (cL, cλ) leaves it. c is a power of two: nothing else moves."""
    case = spec.build()
    phi = GradientDescent(None, 3)(case.problem, case.theta).value
    g = ImplicitGradient(CG(2))(case.problem, case.theta, at(phi)).gradient
    c = 2.0**-7
    for train, test in ((1.0, 1.0), (1.0, c), (c, 1.0)):
        losses = (Combination(((w, f),)) for w, f in ((train, case.problem.inner), (test, case.problem.outer)))
        problem = replace(case.problem, inner=next(losses), outer=next(losses), lam=train * case.lam)
        found = certify(problem, case.theta, test * g, phi, constants=own_constants(case, train, test))
        if train == test == 1.0:
            plain = found
        for name in ("bound", "inner_share", "linear_share"):
            expected = test * getattr(plain, name)
            same(getattr(found, name), expected, 64 * case.size * UNIT * test * plain.bound, f"law 67: {name}")
