"""Laws of accelerated and quasi-Newton inner solvers, as checks of any such solver.

`make(step_size, steps, momentum=…, record=…)` builds a solver with momentum; `solve(problem, theta)` is any.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from implicit_grad import Status
from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.inner_laws import inner_residual
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.problems import RidgeSpec, SoftmaxSpec
from implicit_grad.testing.transforms import Combination

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec


def companion(A: Any, alpha: float, beta: float, ahead: bool) -> Any:
    """(e_{k+1}, e_k) from (e_k, e_{k−1}) on a quadratic with curvature A."""
    eye = np.eye(len(A))
    if ahead:
        step = eye - alpha * A
        return np.block([[(1 + beta) * step, -beta * step], [eye, 0 * eye]])
    return np.block([[(1 + beta) * eye - alpha * A, -beta * eye], [eye, 0 * eye]])


def check_momentum_path(make: Any, spec: RidgeSpec, ahead: bool) -> None:
    """Ridge: the error after k steps is that of the linear recurrence, whatever α and β."""
    case = spec.build()
    first = case.theta - case.star
    for share, beta in ((1.0, 0.9), (0.3, 0.5), (0.7, 0.0)):
        alpha = share / case.curvature
        path = make(alpha, 8, momentum=beta, record=True)(case.problem, case.theta).path
        M = companion(case.A, alpha, beta, ahead)
        for k in (1, 2, 3, 8):
            expected = (np.linalg.matrix_power(M, k) @ np.concatenate([first, first]))[: case.size]
            tolerance = 4 * case.tol_phi(*path.points)
            same(path.points[k] - case.star, expected, tolerance, f"momentum path, β = {beta}, k = {k}")


def check_nesterov_rate(make: Any, spec: Spec) -> None:
    """Convex L and the defaults: G(φ_k) − G* ≤ (1 − 1/√κ)ᵏ (G(θ) − G* + λ/2‖θ − φ*‖²)."""
    case = spec.build()
    path = make(None, 100, record=True)(case.problem, case.theta).path
    train, wide, theta = case.train.extended(), np.longdouble, case.theta.astype(np.longdouble)

    def G(phi: Any) -> Any:
        return train.value(phi.astype(wide)) + case.lam / 2 * np.sum((phi.astype(wide) - theta) ** 2)

    best, q = G(case.star), 1 - (case.lam / case.curvature) ** 0.5
    size = G(case.theta) - best + case.lam / 2 * norm(case.theta - case.star) ** 2
    for k, phi in enumerate(path.points):
        terms = case.train.value_abs(phi) + case.lam / 2 * (norm(phi) + norm(case.theta)) ** 2
        noise = 64 * case.size * UNIT * terms + case.curvature * case.tol_phi(phi) ** 2
        at_most(G(phi) - best, q**k * size, noise, f"Nesterov's rate, k = {k}")


def check_heavy_ball_rate(make: Any, spec: RidgeSpec) -> None:
    """Ridge and the defaults: ‖φ_k − φ*‖ ≤ (1 + 2k)·βᵏᐟ²·‖θ − φ*‖ with √β = (√κ − 1)/(√κ + 1)."""
    case = spec.build()
    path = make(None, 30, record=True)(case.problem, case.theta).path
    root = case.kappa**0.5
    r, k = (root - 1) / (root + 1), np.arange(31)
    bound = (1 + 2 * k) * r**k * norm(case.theta - case.star)
    # κ̄ rounds, and with it the double root that the bound is for: √u more than r at most.
    slack = 4 * case.tol_phi(*path.points) + (1 + k) ** 2 * UNIT**0.5 * norm(case.theta - case.star) * (r < 1e-6)
    at_most(norm(path.points - case.star, axis=-1), bound, slack, "the heavy ball's rate")


def check_scaling(solve: Any, spec: Spec, factor: float) -> None:
    """(L, λ) → (cL, cλ): the same path, bit by bit where c is a power of two."""
    case = spec.build()
    scaled = replace(case.problem, inner=Combination(((factor, case.problem.inner),)), lam=factor * case.lam)
    plain = replace(case.problem, inner=Combination(((1.0, case.problem.inner),)))
    one, other = solve(plain, case.theta), solve(scaled, case.theta)
    holds(np.array_equal(one.value, other.value), f"another path under c = {factor}")
    holds(one.status is other.status, f"{one.status} turned into {other.status} under c = {factor}")


def check_global(solve: Any, spec: Spec) -> None:
    """Every strongly convex G is minimised, whatever κ̄ ≤ 10⁶."""
    case = spec.build()
    solution = solve(case.problem, case.theta)
    holds(solution.status is Status.CONVERGED, f"{solution.status} on a strongly convex problem")
    bound = solution.residual_norm / case.lam + case.tol_phi() + inner_residual(case, case.star) / case.lam
    same(solution.value, case.star, bound, "the minimum")


def check_tolerance(make: Any, spec: Spec) -> None:
    """With a tolerance every problem stops at the first step that meets it, and the longer run knows the shorter."""
    case = spec.build()
    solution = make(1e-4)(case.problem, case.theta)
    size = norm(case.train.gradient(solution.value)) + case.lam * (norm(solution.value) + norm(case.theta))
    floor = 20 * case.size**0.5 * UNIT * (case.train.gradient_rounding(solution.value) + size)
    if solution.status is Status.CONVERGED:
        at_most(solution.residual_norm, max(1e-4 * size, floor), 64 * case.size * UNIT * size, "what was asked for")
    else:
        # Adam's steps have a length of their own: where that is far too long for the problem it says so.
        allowed = (Status.MAX_STEPS, Status.DIVERGED)
        holds(solution.status in allowed, f"{solution.status} for a run that is too short")
        holds(solution.steps == solution.solver.steps, "a run that is too short takes all its steps")
