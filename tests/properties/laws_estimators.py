"""Laws (c) of meta-gradient estimators: limits, closed forms, and the derivative they claim to be.

`estimate(problem, theta)` is a whole meta-gradient; `unroll(alpha, steps)` builds one through K recorded steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad import (
    BilevelProblem,
    GradientDescent,
    LeastSquares,
    MetaGradient,
    Newton,
    Solution,
    Status,
    UnrolledGradient,
)
from implicit_grad.testing.closed_forms import outer_value
from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.problems import Case, MlpSpec, RidgeSpec, SoftmaxSpec
from implicit_grad.testing.transforms import Linear

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec


def unroll(alpha: float, steps: int) -> MetaGradient:
    """MAML on the regularised inner objective."""
    return MetaGradient(GradientDescent(alpha, steps, record=True), UnrolledGradient())


def at(phi: Any) -> Solution[Any]:
    """An inner solution that claims nothing but its φ."""
    return Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, None)


def step_matrix(case: Case, H: Any = None) -> tuple[float, Any]:
    """α = 1/M̄ and I − αA."""
    alpha = 1 / case.curvature
    A = case.A if H is None else H + case.lam * np.eye(case.size)
    return alpha, np.eye(case.size) - alpha * A


def check_closed_form(estimate: Any, spec: Spec) -> None:
    """g = λ(H + λI)⁻¹∇T(φ*), Hessian of the train loss, right-hand side of the test loss, both at φ*."""
    case = spec.build()
    same(estimate(case.problem, case.theta).gradient, case.g, case.tol_exact(), "closed form")


def check_law_25(truncated: Any, spec: Spec) -> None:
    """From φ*, the last k steps give αλΣ_{j<k}(I − αA)^j b; `truncated(k)` is the estimator."""
    case = spec.build()
    alpha, step = step_matrix(case)
    inner = GradientDescent(alpha, 6, record=True)(case.problem, case.theta, start=case.star)
    expected, power = np.zeros(case.size), case.b
    for k in range(1, 7):
        expected = expected + alpha * case.lam * power
        power = step @ power
        # All six steps from a start that is not θ are no more than six terms: the start does not move with θ.
        g = truncated(k if k < 6 else None)(case.problem, case.theta, inner).gradient
        same(g, expected, case.tol_exact(), f"law 25: window {k}")


def check_law_33(estimate: Any, spec: Spec) -> None:
    """λ → ∞: ‖g − ∇T(θ)‖ ≤ (β_T‖∇L(θ)‖ + M‖b‖)/λ."""
    case = spec.build()
    g = estimate(case.problem, case.theta).gradient
    bound = case.test.curvature * norm(case.train.gradient(case.theta)) + case.train.curvature * norm(case.b)
    distance = norm(g - case.test.gradient(case.theta))
    at_most(distance, bound / case.lam, case.tol_exact(), "law 33: large λ")


def check_law_34(estimate: Any, spec: RidgeSpec) -> None:
    """λ → 0: ‖g − Π_null(H) b‖ ≤ λ/(λ + μ⁺)‖b‖ with μ⁺ the smallest positive eigenvalue of H."""
    case = spec.build()
    mu, V = np.linalg.eigh(case.train.hessian(case.star))
    dead = mu <= 64 * case.size * UNIT * max(mu[-1], 0)
    projection = V[:, dead] @ (V[:, dead].T @ case.b)
    rate = case.lam / (case.lam + mu[~dead].min()) if (~dead).any() else 0.0
    g = estimate(case.problem, case.theta).gradient
    at_most(norm(g - projection), rate * norm(case.b), case.tol_exact(), "law 34: small λ")


def check_law_35(pair: tuple[Any, Any], spec: Spec) -> None:
    """What first-order MAML (the second of the pair) leaves out: ‖b − g‖ ≤ M/(λ + M)‖b‖."""
    case = spec.build()
    g, b = (estimate(case.problem, case.theta).gradient for estimate in pair)
    same(b, case.b, case.tol_exact(), "law 35: first-order MAML is ∇T(φ)")
    bound = case.train.curvature / case.curvature * norm(b)
    at_most(norm(b - g), bound, case.tol_exact(), "law 35: gap")


def check_law_35_flat(estimate: Any, spec: RidgeSpec) -> None:
    """H ≡ 0 ⇒ g = b: bit by bit where λ ≥ 1 is a power of two, else to the 8u of λ·(b/λ)."""
    case = spec.build()
    flat = LeastSquares(np.zeros_like(case.train.X), case.train.y)
    for lam in (case.lam, 2.0 ** abs(spec.log10_lam)):
        estimated = estimate(BilevelProblem(flat, case.problem.outer, lam), case.theta)
        b = case.problem.outer.gradient(estimated.inner.value)
        same(estimated.gradient, b, 8 * UNIT * norm(b) if lam == case.lam else 0.0, "law 35: H = 0")


def check_truncation(truncated: Any, spec: Spec) -> None:
    """Convex L, α = 1/M̄: reversing only the last k of K steps leaves out at most (1 − αλ)ᵏ‖b‖ (Shaban et al.)."""
    case = spec.build()
    inner = GradientDescent(None, 12, record=True)(case.problem, case.theta)
    whole = truncated(None)(case.problem, case.theta, inner)
    alpha, b = float(inner.path.step_size), case.test.gradient(inner.value)
    for k in (0, 1, 3, 8):
        part = truncated(k)(case.problem, case.theta, inner)
        bound = (1 - alpha * case.lam) ** k * norm(b)
        left = norm(whole.gradient - part.gradient)
        at_most(left, bound, case.tol_g(inner.value), f"truncation: k = {k}")


def check_law_36(make: Any, spec: Spec) -> None:
    """Unrolled: K = 0 is ∇T(θ), K = 1 is (I − αH(θ))∇T(θ − α∇L(θ)); λ cancels."""
    case = spec.build()
    alpha = 1 / case.curvature
    none = make(alpha, 0)(case.problem, case.theta).gradient
    same(none, case.test.gradient(case.theta), case.tol_g(case.theta), "law 36: K = 0")
    phi = case.theta - alpha * case.train.gradient(case.theta)
    b = case.test.gradient(phi)
    expected = b - alpha * case.train.hessian(case.theta) @ b
    same(make(alpha, 1)(case.problem, case.theta).gradient, expected, case.tol_g(phi), "law 36: K = 1")


def check_law_37(make: Any, spec: RidgeSpec) -> None:
    """Ridge: J_K = λA⁻¹ + (I − αA)^K(I − λA⁻¹), seen through a linear test loss."""
    case = spec.build()
    c = np.random.default_rng([spec.seed, 37]).standard_normal(case.size)
    problem = BilevelProblem(case.problem.inner, Linear(c), case.lam)
    alpha, step = step_matrix(case)
    limit = case.lam * np.linalg.solve(case.A, c)
    for steps in (1, 3, 8):
        expected = limit + np.linalg.matrix_power(step, steps) @ (c - limit)
        g = make(alpha, steps)(problem, case.theta).gradient
        same(g, expected, 64 * case.size * case.kappa * UNIT * norm(c), f"law 37: K = {steps}")


def check_law_38(make: Any, spec: Spec) -> None:
    """Convex L: ‖g_K − g*‖ ≤ [q^K‖I − λA⁻¹‖ + αρ‖θ − φ*‖K q^{K−1}]‖∇T(φ_K)‖ + β_T q^K‖θ − φ*‖."""
    case = spec.build()
    alpha = 1 / case.curvature
    q, start = 1 - alpha * case.lam, norm(case.theta - case.star)
    defect = norm(np.eye(case.size) - case.lam * np.linalg.inv(case.A), 2)
    for steps in (1, 4, 12):
        estimated = make(alpha, steps)(case.problem, case.theta)
        b = norm(case.test.gradient(estimated.inner.value))
        bend = alpha * case.train.hessian_lipschitz * start * steps * q ** (steps - 1)
        bound = (q**steps * defect + bend) * b + case.test.curvature * q**steps * start
        at_most(norm(estimated.gradient - case.g), bound, case.tol_exact(), f"law 38: K = {steps}")


def check_law_39(make: Any, spec: Spec) -> None:
    """θ stationary for L: φ_t ≡ θ, and g_K = [λA⁻¹ + (I − αA)^K(I − λA⁻¹)]b for any L."""
    case = spec.build()
    H, b = case.train.hessian(case.theta), case.test.gradient(case.theta)
    alpha, step = step_matrix(case, H)
    limit = case.lam * np.linalg.solve(H + case.lam * np.eye(case.size), b)
    for steps in (2, 5):
        estimated = make(alpha, steps)(case.problem, case.theta)
        same(estimated.inner.value, case.theta, case.tol_phi(), "law 39: φ stays")
        expected = limit + np.linalg.matrix_power(step, steps) @ (b - limit)
        same(estimated.gradient, expected, case.tol_exact(), f"law 39: K = {steps}")


def check_law_47(estimate: Any, spec: RidgeSpec) -> None:
    """One sample: g = b − x(xᵀb)/(λ + ‖x‖²)."""
    case = spec.build()
    x = case.train.X[0]
    expected = case.b - x * (x @ case.b) / (case.lam + x @ x)
    same(estimate(case.problem, case.theta).gradient, expected, case.tol_exact(), "law 47: one sample")


def check_law_48(estimate: Any, spec: Spec) -> None:
    """‖g‖ ≤ ‖b‖ and ⟨g, b⟩ ≥ ‖g‖²; on ridge with b fixed, ‖g‖ never falls as λ grows."""
    case = spec.build()
    g = estimate(case.problem, case.theta).gradient
    at_most(norm(g), norm(case.b), case.tol_exact(), "law 48: ‖g‖ ≤ ‖b‖")
    at_most(g @ g, g @ case.b, case.tol_exact() * norm(case.b), "law 48: ⟨g, b⟩ ≥ ‖g‖²")
    if isinstance(spec, RidgeSpec):
        c = np.random.default_rng([spec.seed, 48]).standard_normal(case.size)
        problem = BilevelProblem(case.problem.inner, Linear(c), case.lam)
        sizes = [norm(estimate(problem.with_lam(case.lam * f), case.theta).gradient) for f in (1.0, 1.5, 20.0, 1e4)]
        at_most(sizes[:-1], sizes[1:], 64 * case.size * case.kappa * UNIT * norm(c), "law 48: monotone in λ")


def check_law_49(estimate: Any, spec: Spec) -> None:
    """dT(φ*)/dλ = −bᵀA⁻¹(φ* − θ) = −⟨g, φ* − θ⟩/λ, by a complex step in λ."""
    case = spec.build()
    estimated = estimate(case.problem, case.theta)
    h = 1e-30 * case.lam
    slope = outer_value(case.train, case.test, case.lam + 1j * h, case.theta, case.star).imag / h
    pull = estimated.inner.value - case.theta
    tolerance = case.tol_exact() * (norm(pull) + norm(case.theta)) + norm(case.g) * case.tol_phi()
    same(-estimated.gradient @ pull / case.lam, slope, tolerance / case.lam, "law 49: dT/dλ")


def check_law_50(estimate: Any, spec: Spec) -> None:
    """g·v is the derivative of T(φ*(θ + hv)) with the inner problem solved again, by a complex step."""
    case = spec.build()
    g = estimate(case.problem, case.theta).gradient
    for v in np.random.default_rng([spec.seed, 50]).standard_normal((2, case.size)):
        h = 1e-30 * (norm(case.theta) + case.train.gradient_abs(case.star) / case.curvature)
        theta = case.theta + 1j * h * v
        slope = outer_value(case.train, case.test, case.lam, theta, case.star).imag / h
        same(g @ v, slope, case.tol_exact() * norm(v), "law 50: total derivative")


def check_law_50_differences(estimate: Any, spec: RidgeSpec) -> None:
    """The same by central differences of our own solves: T(φ*(θ)) is quadratic on ridge, so any h is exact."""
    case = spec.build()
    v = np.random.default_rng([spec.seed, 51]).standard_normal(case.size)
    v, h = v / norm(v), 1 + norm(case.theta)
    values, noise = [], 0.0
    for theta in (case.theta + h * v, case.theta - h * v):
        phi = Newton()(case.problem, theta).value
        values.append(float(case.problem.outer.value(phi)))
        noise += 64 * case.size * UNIT * case.test.value_abs(phi)
        noise += norm(case.test.gradient(phi)) * case.tol_phi(phi, theta)
    g = estimate(case.problem, case.theta).gradient
    same(g @ v, (values[0] - values[1]) / (2 * h), case.tol_exact() + noise / h, "law 50: central differences")


def check_law_50_network(estimate: Any, spec: MlpSpec) -> None:
    """Law 50 where nothing is convex: complex steps through the network's own gradient."""
    problem, theta = spec.build()
    lam, v = float(problem.lam), np.random.default_rng([spec.seed, 50]).standard_normal(theta.size)
    estimated = estimate(problem, theta)
    star, h = estimated.inner.value, 1e-30
    H = np.array([problem.inner.gradient(star + 1j * h * e).imag / h for e in np.eye(theta.size)])
    A = 0.5 * (H + H.T) + lam * np.eye(theta.size)
    phi = star.astype(complex)
    for _ in range(4):
        phi = phi - np.linalg.solve(A, problem.inner.gradient(phi) + lam * (phi - theta - 1j * h * v))
    slope = problem.outer.value(phi).imag / h
    scale = spec.curvature_scale()
    kappa = (lam + scale) / np.linalg.eigvalsh(A)[0]
    holds(kappa > 0, "law 50: φ* is no strict minimum")
    tolerance = 64 * theta.size * kappa * UNIT * scale * (1 + scale / lam) * norm(v)
    same(estimated.gradient @ v, slope, tolerance, "law 50: total derivative of a network")


def check_law_51(estimator: Any, spec: RidgeSpec) -> None:
    """Ridge and a linear test loss: the gradient does not depend on φ̂. Otherwise its error is linear in ‖φ̂ − φ*‖."""
    case = spec.build()
    rng = np.random.default_rng([spec.seed, 51])
    c, d = rng.standard_normal((2, case.size))
    linear = BilevelProblem(case.problem.inner, Linear(c), case.lam)
    exact = estimator(linear, case.theta, at(case.star)).gradient
    other = estimator(linear, case.theta, at(case.star + d)).gradient
    same(other, exact, 64 * case.size * case.kappa * UNIT * norm(c), "law 51: φ̂ does not matter")
    slope = case.lam * np.linalg.solve(case.A, case.test.hessian(case.star) @ d)
    for delta in (1.0, 1e-2, 1e-4):
        phi = case.star + delta * d
        error = estimator(case.problem, case.theta, at(phi)).gradient - case.g
        same(error, delta * slope, 2 * case.tol_g(phi) + case.tol_exact(), f"law 51: error at δ = {delta}")


def check_law_51_bound(estimator: Any, spec: Spec) -> None:
    """Convex L: an inexact φ̂ costs at most (β_T + ρ‖g‖/λ)‖φ̂ − φ*‖."""
    case = spec.build()
    d = np.random.default_rng([spec.seed, 51]).standard_normal(case.size)
    d = d / norm(d) * (norm(case.star - case.theta) + norm(case.theta))
    for delta in (1.0, 1e-3):
        phi = case.star + delta * d
        error = norm(estimator(case.problem, case.theta, at(phi)).gradient - case.g)
        bound = case.inexact(case.lam * delta * norm(d))
        at_most(error, bound, case.tol_g(phi) + case.tol_exact(), f"law 51: bound at δ = {delta}")


def check_saddle(estimator: Any, spec: MlpSpec) -> None:
    """At a saddle there is no meta-gradient: NaN, and a status that says INDEFINITE."""
    train, test, theta = spec.losses()
    H = train.linearize(theta).hvp(np.eye(theta.size))
    smallest = float(np.linalg.eigvalsh(0.5 * (H + H.T))[0])
    problem = BilevelProblem(train, test, max(-0.5 * smallest, UNIT))
    estimated = estimator(problem, theta, at(theta))
    negative = smallest < -64 * theta.size * UNIT * spec.curvature_scale()
    holds(not negative or estimated.status is Status.INDEFINITE, f"a saddle passed as {estimated.status}")
    holds(not negative or np.isnan(estimated.gradient).all(), "a saddle got a meta-gradient")
