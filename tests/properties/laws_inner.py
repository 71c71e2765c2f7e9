"""Laws (a) of inner solvers, as checks of any solver: the tests run them on ours, the mutants on broken ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from implicit_grad import BilevelProblem, Status
from implicit_grad.testing import inner_laws as suite
from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.inner_laws import InnerSubject, inner_residual, pull_terms
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.problems import RidgeSpec, SoftmaxSpec
from implicit_grad.testing.promises import Budget, Tolerance

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec


def check_law_01(solve: Any, spec: Spec) -> None:
    """The residual is honest, and CONVERGED means that it meets the tolerance asked for."""
    case = spec.build()
    solution = solve(case.problem, case.theta)
    phi = solution.value
    residual = inner_residual(case, phi)
    noise = 10 * case.size * UNIT * (case.train.gradient_abs(phi) + pull_terms(case, phi))
    same(solution.residual_norm, residual, noise, "law 1: reported residual")
    if solution.solver is None or not hasattr(solution.solver, "rtol"):
        return
    wanted = solution.solver.rtol * (norm(case.train.gradient(phi)) + pull_terms(case, phi))
    floor = 20 * case.size**0.5 * UNIT * (case.train.gradient_rounding(phi) + pull_terms(case, phi))
    if solution.status is Status.CONVERGED:
        at_most(residual, max(wanted, floor), noise, "law 1: CONVERGED meets the tolerance")
    else:
        at_most(wanted, residual, noise, "law 1: what meets the tolerance is CONVERGED")


def check_law_01_global(solve: Any, spec: Spec) -> None:
    """Damped Newton reaches the minimum of every strongly convex G, whatever κ̄."""
    case = spec.build()
    solution = solve(case.problem, case.theta)
    holds(solution.status is Status.CONVERGED, f"law 1: {solution.status} on a strongly convex problem")
    bound = case.tol_phi() + inner_residual(case, case.star) / case.lam
    same(solution.value, case.star, bound, "law 1: the minimum")


class Counting:
    """A loss that counts what is asked of it."""

    def __init__(self, loss: Any) -> None:
        self.loss, self.derivatives = loss, 0

    def value(self, x: Any) -> Any:
        return self.loss.value(x)

    def gradient(self, x: Any) -> Any:
        self.derivatives += 1
        return self.loss.gradient(x)

    def linearize(self, x: Any) -> Any:
        self.derivatives += 1
        return self.loss.linearize(x)


def check_law_02(solve: Any, spec: Spec) -> None:
    """No steps: θ itself, bit by bit, for the price of the residual."""
    case = spec.build()
    counting = Counting(case.problem.inner)
    problem = BilevelProblem(counting, case.problem.outer, case.lam)
    solution = solve(problem, case.theta)
    holds(solution.value.tobytes() == case.theta.tobytes(), "law 2: K = 0 moved θ")
    holds(solution.steps == 0, "law 2: K = 0 counted steps")
    holds(counting.derivatives <= 1, f"law 2: {counting.derivatives} derivatives for one residual")


def check_law_03(make: Any, spec: Spec) -> None:
    """Descent: F_{t+1} ≤ F_t − (α/2)‖∇F‖² with the default step α ≤ 1/M̄."""
    case = spec.build()
    path = make(None, steps=8, record=True)(case.problem, case.theta).path
    at_most(path.step_size * case.curvature, 1.0, 16 * case.size * UNIT, "law 3: α ≤ 1/M̄")
    train, theta = case.train.extended(), case.theta.astype(np.longdouble)
    points = path.points.astype(np.longdouble)
    values = [train.value(x) + case.lam / 2 * np.sum((x - theta) ** 2) for x in points]
    for t in range(8):
        x = points[t]
        promised = path.step_size / 2 * np.sum((train.gradient(x) + case.lam * (x - theta)) ** 2)
        terms = case.train.value_abs(path.points[t]) + case.lam / 2 * (norm(path.points[t]) + norm(theta)) ** 2
        at_most(values[t + 1], values[t] - promised, 8 * UNIT * terms, "law 3: sufficient decrease")


def check_law_04(make: Any, spec: Spec) -> None:
    """Contraction by 1 − αλ a step."""
    case = spec.build()
    path = make(None, steps=12, record=True)(case.problem, case.theta).path
    q = 1 - path.step_size * case.lam
    distances = norm(path.points - case.star, axis=-1)
    allowed = q ** np.arange(13) * norm(case.theta - case.star)
    at_most(distances, allowed, case.tol_phi(*path.points), "law 4: contraction")


def check_law_05(make: Any, spec: RidgeSpec) -> None:
    """Ridge: φ_K − φ* = (I − αA)^K (θ − φ*)."""
    case = spec.build()
    for steps in (1, 2, 7):
        solution = make(None, steps=steps, record=True)(case.problem, case.theta)
        step = np.eye(case.size) - solution.path.step_size * case.A
        expected = np.linalg.matrix_power(step, steps) @ (case.theta - case.star)
        same(solution.value - case.star, expected, case.tol_phi(solution.value), f"law 5: K = {steps}")


def _to_the_floor(solve: Any) -> InnerSubject:
    """A solver of ours as the suites take it, held to the rounding floor."""
    return InnerSubject(solve, Tolerance(1e-13))


def check_law_06(solve: Any, spec: Spec) -> None:
    """‖φ̂ − φ*‖ ≤ ‖r_in‖/m, however early the solver stopped."""
    suite.check_residual_bound(InnerSubject(solve, Budget()), spec)


def check_law_08(solve: Any, spec: Spec) -> None:
    """θ ↦ φ* is firmly non-expansive: ‖Δφ*‖² ≤ ⟨Δφ*, Δθ⟩."""
    suite.check_nonexpansive(_to_the_floor(solve), spec)


def check_law_09(solve: Any, spec: Spec) -> None:
    """‖φ*(λ) − θ‖ never rises and L(φ*(λ)) never falls as λ grows."""
    suite.check_lambda_path(_to_the_floor(solve), spec)


def check_law_10(solve: Any, spec: Spec) -> None:
    """‖φ* − θ‖ ≤ ‖∇L(θ)‖/λ."""
    suite.check_distance(_to_the_floor(solve), spec)


def check_law_11(solve: Any, spec: RidgeSpec) -> None:
    """Envelope: λ(θ − φ*) is the slope of min_φ G over θ, and equals ∇L(φ*)."""
    suite.check_envelope(_to_the_floor(solve), spec)
    case = spec.build()
    phi = solve(case.problem, case.theta).value
    tolerance = case.curvature * case.tol_phi(phi) + 2 * inner_residual(case, case.star)
    same(case.lam * (case.theta - phi), case.train.gradient(case.star), tolerance, "law 11: λ(θ − φ*) = ∇L(φ*)")


def check_law_07(solvers: tuple[Any, Any], spec: Spec) -> None:
    """Any two solvers agree to (‖r₁‖ + ‖r₂‖)/m."""
    case = spec.build()
    first, second = (solve(case.problem, case.theta) for solve in solvers)
    allowed = (first.residual_norm + second.residual_norm) / case.lam
    tolerance = case.tol_phi(first.value, second.value)
    at_most(norm(first.value - second.value), allowed, tolerance, "law 7: two solvers agree")


def check_law_12(solve: Any, spec: RidgeSpec) -> None:
    """One Newton step solves a quadratic, from any start."""
    case = spec.build()
    start = case.theta + np.random.default_rng([spec.seed, 12]).standard_normal(case.size)
    solution = solve(case.problem, case.theta, start=start)
    holds(solution.steps <= 1, "law 12: one step")
    same(solution.value, case.star, case.tol_phi(start), "law 12: one Newton step")


def check_law_12_fixed_point(solve: Any, spec: Spec) -> None:
    """A start at φ* stays there."""
    case = spec.build()
    solution = solve(case.problem, case.theta, start=case.star)
    tolerance = case.tol_phi() + inner_residual(case, case.star) / case.lam
    same(solution.value, case.star, tolerance, "law 12: φ* is a fixed point")


def neighbour(spec: Spec) -> Spec:
    """Another problem of the same shape."""
    return replace(spec, seed=spec.seed + 1000)
