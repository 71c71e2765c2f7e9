"""Laws (f): bounds, as checks of any `certify`: the tests run them on ours, the mutants on broken ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import autograd.numpy as anp
import numpy as np
from laws_estimators import at

from implicit_grad import (
    CG,
    Autodiff,
    BilevelProblem,
    Cholesky,
    Constants,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    Newton,
)
from implicit_grad.testing.comparisons import at_most, same
from implicit_grad.testing.matrices import UNIT, orthogonal
from implicit_grad.testing.problems import Case, RidgeSpec, SoftmaxSpec
from implicit_grad.testing.transforms import Combination, Diagonal, Turned

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


def check_invariance(certify: Any, spec: Spec) -> None:
    """Law 67: what leaves g or turns it (laws 42 to 46) leaves the bound and its shares."""
    case = spec.build()
    phi = GradientDescent(None, 3)(case.problem, case.theta).value
    g = ImplicitGradient(CG(2))(case.problem, case.theta, at(phi)).gradient
    bar = partial(certify, constants=own_constants(case), gradient_steps=0)
    plain = bar(case.problem, case.theta, g, phi)
    for name, (other, turn, shift) in same_problems(case, spec).items():
        problem, first = other if isinstance(other, BilevelProblem) else other.problem, plain
        if name == "turned":  # which hides what the losses know of themselves
            same_axes = (Turned(f, np.eye(case.size)) for f in (case.problem.inner, case.problem.outer))
            first = bar(BilevelProblem(*same_axes, case.lam), case.theta, g, phi)
        found = bar(problem, turn(case.theta) + shift, turn(g), turn(phi) + shift)
        noise = 64 * case.size * UNIT * case.kappa * first.bound + first.rounding_share + found.rounding_share
        noise += case.tol_exact() + 2 * case.tol_g(phi)
        if name == "translated":  # its terms are longer, and rounded as what they are
            noise += other.tol_exact() + 2 * other.tol_g(phi + shift)
        same(found.bound, first.bound, noise, f"law 67: bound, {name}")
        same(found.inner_share, first.inner_share, noise, f"law 67: inner share, {name}")


def same_problems(case: Case, spec: Spec) -> dict[str, tuple[BilevelProblem | Case, Any, Any]]:
    """The same problem in other words, with how that turns θ, φ and g, and shifts θ and φ."""
    X, y, X_test, y_test, theta = spec.data()
    rng = np.random.default_rng([spec.seed, 67])
    Q, i, c = orthogonal(rng, case.size), rng.permutation(len(y)), rng.standard_normal(case.size)
    c *= norm(theta) / norm(c)
    turned = BilevelProblem(Turned(case.problem.inner, Q), Turned(case.problem.outer, Q), case.lam)
    twice = spec.case(*(np.concatenate([each, each]) for each in (X, y, X_test, y_test)), theta).problem
    found = {
        "turned": (turned, lambda v: v @ Q, 0.0),
        "samples in another order": (spec.case(X[i], y[i], X_test, y_test, theta).problem, _stay, 0.0),
        "every sample twice": (twice, _stay, 0.0),
    }
    if isinstance(spec, RidgeSpec):
        found["translated"] = spec.case(X, y + X @ c, X_test, y_test + X_test @ c, theta + c), _stay, c
        return found
    shift = np.repeat(c[: spec.features], spec.classes)
    found["logits shifted"] = case.problem, _stay, shift
    new = rng.permutation(spec.classes)
    columns = np.argsort(new)
    renamed = spec.case(X, new[y], X_test, new[y_test], theta).problem
    found["classes renamed"] = renamed, lambda v: v.reshape(-1, spec.classes)[:, columns].reshape(-1), 0.0
    return found


def _stay(v: Any) -> Any:
    return v


SHRUNK = 1.1
"""By how much a constant is made too small; the bounds of law 68 are within 1 % of the error."""


def check_power(certify: Any, seed: int) -> None:
    """Law 68: where bound and error meet, a constant a little too small is crossed, and the right one is not."""
    for name, (problem, theta, phi, right) in sharp_instances(seed).items():
        star = Newton(1e-15)(problem, theta, start=phi).value
        g, exact = (
            problem.lam * np.linalg.solve(problem.curvature(x).dense(), problem.outer.gradient(x))
            for x in (phi, star)
        )
        error, value = norm(g - exact), getattr(right, name)
        wrong = replace(right, **{name: value * SHRUNK if name == "m" else value / SHRUNK})
        bound, crossed = (
            certify(problem, theta, g, phi, constants=c, gradient_steps=0).bound for c in (right, wrong)
        )
        at_most(error, bound, 1e-9 * error, f"law 68: error ≤ bound, {name}")
        at_most(bound, 1.01 * error, 0.0, f"law 68: the instance is sharp, {name}")
        at_most(crossed, error, 0.0, f"law 68: {name} too small is seen")


def sharp_instances(seed: int) -> dict[str, tuple[BilevelProblem, Any, Any, Constants]]:
    """Problems, θ, φ and constants, by the constant of which the bound is nothing but a multiple.

    β and m: all curvatures equal, so that no direction is special. ρ: f = ρx³/6 at 0 beside a large λ. R: f = eˣ,
    whose f‴ is f″, at the λ = f″ for which √h/(h + λ) is largest.
    """
    rng = np.random.default_rng([seed, 68])
    lam, curvature, beta, rho = 10 ** rng.uniform(-1, 1, size=4)
    away, theta = rng.standard_normal((2, 3))
    bowl, slope = Diagonal(np.full(3, curvature), rng.standard_normal(3)), Diagonal(np.zeros(1), np.ones(1))
    flat = Diagonal(np.zeros(3), rng.standard_normal(3))
    test = Diagonal(np.full(3, beta), rng.standard_normal(3))
    cube, exponential = Autodiff(lambda p: rho * anp.sum(p**3) / 6), Autodiff(lambda p: anp.sum(anp.exp(p)))
    zero, step = np.zeros(1), np.full(1, 1e-3)

    def placed(train: Any, outer: Any, lam: float, star: Any, away: Any, right: Constants) -> Any:
        return BilevelProblem(train, outer, lam), star + train.gradient(star) / lam, star + away, right

    return {
        "beta": placed(flat, test, lam, theta, away, Constants(lam, beta, 0.0)),
        "m": placed(bowl, test, lam, theta, away, Constants(lam + curvature, beta, 0.0)),
        "rho": placed(cube, slope, 1e3, zero, step, Constants(1e3, 0.0, rho)),
        "concordance": placed(exponential, slope, 1.0, zero, step, Constants(1.0, 0.0, 1e6, concordance=1.0)),
    }
