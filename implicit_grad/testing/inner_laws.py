"""Laws of inner solvers: what any minimiser of G(φ; θ) = L(φ) + λ/2‖φ − θ‖² owes, by what it promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from implicit_grad.problem import BilevelProblem
from implicit_grad.testing import strategies
from implicit_grad.testing.comparisons import NotApplicable, Violation, at_most, holds, same
from implicit_grad.testing.law import Law
from implicit_grad.testing.linear_subject import REFUSALS, Answer, Claim, read_answer
from implicit_grad.testing.matrices import UNIT, Array, orthogonal
from implicit_grad.testing.problems import Case, ConvexSpec, MlpSpec, RidgeSpec, Twist
from implicit_grad.testing.promises import Budget, Promise, Tolerance
from implicit_grad.testing.transforms import Combination, Diagonal, Turned

norm = np.linalg.norm


@dataclass(frozen=True, eq=False)
class InnerSubject:
    """An inner solver with what it promises.

    Attributes
    ----------
    solver : callable
        `(problem, theta) → φ`, `(φ, info)` or a `Solution`.
    promise : Promise
    """

    solver: Callable[[BilevelProblem, Array], Any]
    promise: Promise

    def __call__(self, problem: BilevelProblem, theta: Array) -> Answer:
        """Solve, and check that what came back is a vector like θ.

        Raises
        ------
        Violation
            For another shape, or what are no real numbers.
        """
        answer = read_answer(self.solver(problem, theta))
        if answer.value.shape != theta.shape:
            raise Violation(f"φ has shape {answer.value.shape}, and θ has shape {theta.shape}")
        if answer.value.dtype.kind != "f":
            raise Violation(f"φ has dtype {answer.value.dtype}, and θ has dtype {theta.dtype}")
        return answer

    def minimiser(self, problem: BilevelProblem, theta: Array) -> Array:
        """Solve a strongly convex problem for a law about φ*; who stopped short, or may, is left alone.

        Raises
        ------
        NotApplicable
            For a budget, and where a solver with a tolerance says that it was not met.
        Violation
            Where one that promises the minimum says so.
        """
        if isinstance(self.promise, Budget):
            raise NotApplicable("a budget promises nothing about φ*")
        answer = self(problem, theta)
        if answer.claim is Claim.FAILURE:
            if isinstance(self.promise, Tolerance):
                raise NotApplicable(f"the solver says that it did not get there ({answer.said})")
            raise Violation(f"{answer.said} on a strongly convex problem")
        return answer.value

    def allowed_residual(self, case: Case, phi: Array) -> float:
        """max(rtol·(‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖)), 20·√N·u·(rounding of ∇G))."""
        pull = pull_terms(case, phi)
        wanted = getattr(self.promise, "rtol", 0.0) * (norm(case.train.gradient(phi)) + pull)
        return float(max(wanted, 20 * case.size**0.5 * UNIT * (case.train.gradient_rounding(phi) + pull)))

    def tol_phi(self, case: Case, *points: Array) -> float:
        """Return `Case.tol_phi`, and what the promise leaves of φ*: the residual allowed, over m = λ."""
        allowed = max(self.allowed_residual(case, phi) for phi in (case.star, *points))
        return case.tol_phi(*points) + allowed / case.lam


def inner_residual(case: Case, phi: Array) -> Any:
    """‖∇L(φ) + λ(φ − θ)‖ by the oracle."""
    return norm(case.train.gradient(phi) + case.lam * (phi - case.theta))


def pull_terms(case: Case, phi: Array) -> float:
    """λ(‖φ‖ + ‖θ‖)."""
    return case.lam * float(norm(phi) + norm(case.theta))


def check_honesty(solve: InnerSubject, spec: ConvexSpec) -> None:
    """The residual reported is the oracle's, and success means that it meets the promise."""
    case = spec.build()
    answer = solve(case.problem, case.theta)
    if answer.claim is Claim.NOTHING:
        raise NotApplicable("the solver returns an array and reports nothing")
    phi = answer.value
    residual = inner_residual(case, phi)
    noise = 10 * case.size * UNIT * (case.train.gradient_abs(phi) + pull_terms(case, phi))
    if answer.residual is not None:
        same(answer.residual, residual, noise, "the residual reported, and ‖∇G‖")
    if answer.claim is Claim.SUCCESS:
        at_most(residual, solve.allowed_residual(case, phi), noise, f"‖∇G‖ where {answer.said} is reported")


def check_stationary(solve: InnerSubject, spec: ConvexSpec) -> None:
    """∇L(φ) + λ(φ − θ) = 0: what pulls φ back to θ is the gradient of the train loss."""
    case = spec.build()
    phi = solve.minimiser(case.problem, case.theta)
    noise = 10 * case.size * UNIT * (case.train.gradient_abs(phi) + pull_terms(case, phi))
    at_most(inner_residual(case, phi), solve.allowed_residual(case, phi), noise, "‖∇G(φ)‖")


def check_minimum(solve: InnerSubject, spec: ConvexSpec) -> None:
    """φ is the minimiser φ* of the oracle."""
    case = spec.build()
    phi = solve.minimiser(case.problem, case.theta)
    same(phi, case.star, 2 * solve.tol_phi(case, phi), "φ and φ*")


def check_residual_bound(solve: InnerSubject, spec: ConvexSpec) -> None:
    """‖φ̂ − φ*‖ ≤ ‖r‖/λ, with the residual that is reported."""
    case = spec.build()
    answer = solve(case.problem, case.theta)
    if answer.residual is None:
        raise NotApplicable("no residual is reported")
    bound = answer.residual / case.lam
    at_most(norm(answer.value - case.star), bound, case.tol_phi(answer.value), "‖φ̂ − φ*‖")


def check_nonexpansive(solve: InnerSubject, spec: ConvexSpec) -> None:
    """θ ↦ φ* is firmly non-expansive: ‖Δφ*‖² ≤ ⟨Δφ*, Δθ⟩."""
    case = spec.build()
    draw = np.random.default_rng([spec.seed, 8]).standard_normal(case.size)
    other = case.theta + draw * (0.1 + norm(case.theta)) / norm(draw)
    moved = solve.minimiser(case.problem, other) - solve.minimiser(case.problem, case.theta)
    turn = other - case.theta
    tolerance = 2 * solve.tol_phi(case, other, moved) * (norm(moved) + norm(turn))
    at_most(moved @ moved, moved @ turn, tolerance, "‖Δφ*‖² ≤ ⟨Δφ*, Δθ⟩")


def check_lambda_path(solve: InnerSubject, spec: ConvexSpec) -> None:
    """‖φ*(λ) − θ‖ is non-increasing and L(φ*(λ)) non-decreasing in λ."""
    case = spec.build()
    lams = case.lam * np.array([1.0, 1.5, 10.0, 1000.0])
    stars = [solve.minimiser(case.problem.with_lam(lam), case.theta) for lam in lams]
    tolerance = 2 * solve.tol_phi(case, *stars)
    distances = [norm(x - case.theta) for x in stars]
    train = case.train.extended()
    losses = np.array([train.value(x.astype(np.longdouble)) for x in stars])
    slopes = [norm(case.train.gradient(x)) + case.curvature * tolerance for x in stars]
    at_most(distances[1:], distances[:-1], tolerance, "‖φ*(λ) − θ‖ falls with λ")
    rounding = UNIT * max(case.train.value_abs(x) for x in stars)
    at_most(losses[:-1], losses[1:], np.array(slopes[:-1]) * tolerance + rounding, "L(φ*(λ)) rises with λ")


def check_distance(solve: InnerSubject, spec: ConvexSpec) -> None:
    """‖φ* − θ‖ ≤ ‖∇L(θ)‖/λ."""
    case = spec.build()
    phi = solve.minimiser(case.problem, case.theta)
    bound = norm(case.train.gradient(case.theta)) / case.lam
    at_most(norm(phi - case.theta), bound, solve.tol_phi(case, phi), "‖φ* − θ‖")


def check_envelope(solve: InnerSubject, spec: RidgeSpec) -> None:
    """λ(θ − φ*) is the derivative of min_φ G(φ; θ), which is quadratic in θ: central differences are exact."""
    case = spec.build()
    v = np.random.default_rng([spec.seed, 11]).standard_normal(case.size)
    v, h = v / norm(v), 1 + norm(case.theta)
    values, terms, loose = [], 0.0, 0.0
    for theta in (case.theta + h * v, case.theta - h * v):
        phi = solve.minimiser(case.problem, theta)
        values.append(float(case.problem.value(phi, theta)))
        terms += case.train.value_abs(phi) + case.lam / 2 * float(norm(phi) + norm(theta)) ** 2
        loose += solve.allowed_residual(case, phi) ** 2 / case.lam
    slope = case.lam * (case.theta - solve.minimiser(case.problem, case.theta)) @ v
    noise = (64 * case.size * UNIT * terms + loose) / h + case.lam * solve.tol_phi(case)
    same((values[0] - values[1]) / (2 * h), slope, noise, "λ(θ − φ*) and the slope of min G")


def check_at_rest(solve: InnerSubject, spec: ConvexSpec) -> None:
    """θ stationary for L: φ* = θ, for every λ and any number of steps."""
    case = replace(spec, twist=Twist.THETA_OPTIMAL).build()
    answer = solve(case.problem, case.theta)
    same(answer.value, case.theta, 2 * solve.tol_phi(case), "φ and θ")


def check_descends(solve: InnerSubject, spec: ConvexSpec) -> None:
    """G(φ) ≤ G(θ): whatever the budget, it does not climb."""
    case = spec.build()
    phi = solve(case.problem, case.theta).value.astype(np.longdouble)
    train, theta = case.train.extended(), case.theta.astype(np.longdouble)
    after, before = train.value(phi) + case.lam / 2 * np.sum((phi - theta) ** 2), train.value(theta)
    terms = case.train.value_abs(case.theta) + case.curvature * norm(case.theta) ** 2
    at_most(float(after), float(before), 64 * case.size * UNIT * terms, "G(φ) ≤ G(θ)")


def check_scale(solve: InnerSubject, spec: ConvexSpec) -> None:
    """(L, λ) → (cL, cλ) leaves φ*."""
    case = spec.build()
    one = solve.minimiser(case.problem, case.theta)
    for c in (2.0**-17, 2.0**14):
        scaled = replace(case.problem, inner=Combination(((c, case.problem.inner),)), lam=c * case.lam)
        same(solve.minimiser(scaled, case.theta), one, 2 * solve.tol_phi(case, one), f"φ* under {c:g}·(L, λ)")


def check_rotation(solve: InnerSubject, spec: ConvexSpec) -> None:
    """φ = Qψ with orthogonal Q: ψ* = Qᵀφ*."""
    case = spec.build()
    Q = orthogonal(np.random.default_rng([spec.seed, 42]), case.size)
    one = solve.minimiser(case.problem, case.theta)
    turned = replace(case.problem, inner=Turned(case.problem.inner, Q), outer=Turned(case.problem.outer, Q))
    same(solve.minimiser(turned, case.theta @ Q), one @ Q, 4 * solve.tol_phi(case, one), "ψ* and Qᵀφ*")


def check_translation(solve: InnerSubject, spec: RidgeSpec) -> None:
    """Ridge: y → y + Xc and θ → θ + c moves φ* by c."""
    case = spec.build()
    X, y, X_test, y_test, theta = spec.data()
    c = np.random.default_rng([spec.seed, 46]).standard_normal(spec.size)
    moved = spec.case(X, y + X @ c, X_test, y_test, theta + c)
    first, second = solve.minimiser(case.problem, theta), solve.minimiser(moved.problem, moved.theta)
    tolerance = solve.tol_phi(case, first) + solve.tol_phi(moved, second)
    same(second - c, first, tolerance, "φ* of the moved problem, moved back")


def check_saddle(solve: InnerSubject, spec: RidgeSpec) -> None:
    """G without a minimum is not minimised: no success is claimed."""
    size = max(spec.size, 2)
    rng = np.random.default_rng([spec.seed, 5])
    h = spec.lam * np.concatenate([[-2.0 - spec.spread], 1 + np.arange(size - 1.0)])
    problem = BilevelProblem(Diagonal(h), Diagonal(np.ones(size)), spec.lam)
    try:
        answer = solve(problem, rng.standard_normal(size))
    except REFUSALS:
        return
    if answer.claim is Claim.NOTHING:
        raise NotApplicable("the solver returns an array and reports nothing")
    holds(answer.claim is not Claim.SUCCESS, f"G has no minimum, and {answer.said} is reported")


def check_purity(solve: InnerSubject, spec: ConvexSpec) -> None:
    """θ is as it was, φ is not a view of it, and the same call gives the same bits."""
    case = spec.build()
    before = case.theta.copy()
    first = solve(case.problem, case.theta).value
    holds(np.array_equal(before, case.theta), "θ was overwritten")
    holds(not np.shares_memory(first, case.theta), "φ is a view of θ")
    kept = first.copy()
    second = solve(case.problem, case.theta).value
    holds(np.array_equal(first, kept) and np.array_equal(second, kept), "the same call gave other numbers")


def check_network(solve: InnerSubject, spec: MlpSpec) -> None:
    """∇G(φ) = 0 for a network, near a θ where G is strictly convex."""
    problem, theta = spec.build()
    lam = float(problem.lam)
    phi = solve.minimiser(problem, theta)
    slope = problem.inner.gradient(phi)
    pull = lam * float(norm(phi) + norm(theta))
    wanted = getattr(solve.promise, "rtol", 0.0) * (norm(slope) + pull)
    floor = 64 * theta.size * UNIT * (spec.curvature_scale() * (1 + norm(phi)) + pull)
    at_most(norm(slope + lam * (phi - theta)), max(wanted, floor), floor, "‖∇G(φ)‖ of a network")


_small = {"size": st.integers(1, 6), "log10_ratio": st.integers(-3, 4)}
_ridge = strategies.ridge_specs(**_small)
_convex = st.one_of(
    _ridge,
    strategies.softmax_specs(log10_ratio=st.integers(-3, 4)),
    strategies.logistic_specs(log10_ratio=st.integers(-3, 4)),
)
_EDGES = (
    *(edge for edge in strategies.RIDGE_EDGES if edge.log10_ratio <= 4),
    *strategies.SOFTMAX_EDGES[:3],
    *strategies.LOGISTIC_EDGES[:2],
)
_PHI = "64·√N·κ̄·u·‖φ‖ + (the residual promised)/λ"

INNER_LAWS: tuple[Law, ...] = (
    Law(
        "1",
        "honest status",
        "success ⇒ ‖∇G‖ is small; the residual reported is ‖∇G‖",
        "10·N·u·(|∇L| + λ‖φ‖ + λ‖θ‖)",
        check_honesty,
        _convex,
        _EDGES,
    ),
    Law("1b", "minimum", "φ = φ*", f"2·({_PHI})", check_minimum, _convex, _EDGES),
    Law("3", "descent", "G(φ) ≤ G(θ)", "64·N·u·|G|", check_descends, _convex, _EDGES),
    Law("6", "residual bounds error", "‖φ̂ − φ*‖ ≤ ‖r‖/λ", "64·√N·κ̄·u·‖φ‖", check_residual_bound, _convex, _EDGES),
    Law("8", "firmly non-expansive", "‖Δφ*‖² ≤ ⟨Δφ*, Δθ⟩", f"2·({_PHI})·(‖Δφ‖ + ‖Δθ‖)", check_nonexpansive, _convex),
    Law("9", "path in λ", "‖φ*(λ) − θ‖ falls and L(φ*(λ)) rises with λ", f"2·({_PHI})", check_lambda_path, _convex),
    Law("10", "distance", "‖φ* − θ‖ ≤ ‖∇L(θ)‖/λ", _PHI, check_distance, _convex),
    Law(
        "11",
        "stationarity",
        "λ(θ − φ) = ∇L(φ)",
        "rtol·(‖∇L‖ + λ‖φ‖ + λ‖θ‖), or 20·√N·u of it",
        check_stationary,
        _convex,
        _EDGES,
    ),
    Law("11b", "envelope", "∇_θ min G = λ(θ − φ*)", f"64·N·u·|G| + λ·({_PHI})", check_envelope, _ridge),
    Law("12", "at rest", "∇L(θ) = 0: φ = θ", f"2·({_PHI})", check_at_rest, _convex),
    Law("41", "scale", "(L, λ) → (cL, cλ): φ* stays", f"2·({_PHI})", check_scale, _convex),
    Law("42", "rotation", "φ = Qψ: ψ* = Qᵀφ*", f"4·({_PHI})", check_rotation, _convex),
    Law("46", "translation", "y + Xc, θ + c: φ* + c", f"2·({_PHI})", check_translation, _ridge),
    Law("saddle", "saddle", "G without a minimum: no success", "none", check_saddle, _ridge),
    Law(
        "network",
        "network",
        "∇G(φ) = 0 for a network",
        "rtol, or 64·N·u·(curvature scale)·‖φ‖",
        check_network,
        strategies.mlp_specs(),
    ),
    Law("pure", "purity", "θ stays, the same call gives the same bits", "none: bit by bit", check_purity, _convex),
)
"""What `check_inner_solver` tries."""
