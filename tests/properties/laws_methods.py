"""Laws of the further estimators, as checks of any estimator: the tests run them on ours, the mutants on broken ones.

`make(s, two_sided)` builds a contrastive estimator; every estimator is called as (problem, θ, inner).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from laws_estimators import at

from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.problems import Case, MlpSpec, RidgeSpec, SoftmaxSpec
from implicit_grad.testing.transforms import Combination, Linear

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec


def away(case: Case, share: float = 1.0) -> Any:
    """A φ off φ* by `share` of ‖φ* − θ‖ + ‖θ‖."""
    d = np.random.default_rng([case.size, 7]).standard_normal(case.size)
    return case.star + share * d / norm(d) * (norm(case.star - case.theta) + norm(case.theta))


def nudge(case: Case, share: float) -> float:
    """The s that adds `share`·λ of curvature at most."""
    return share * case.lam / case.test.curvature


def tol_nudged(case: Case, s: float, margin: float = 1.0) -> float:
    """λ·2·tol_φ/s: what two solves at their floor leave of a difference, where A ± sB ⪰ margin·λ."""
    size = case.tol_phi(case.star + s * case.b / case.lam / margin)
    return case.lam * 2 * (size + s * case.test.gradient_abs(case.star) * UNIT / case.lam) / s / margin


def check_contrastive_closed_form(make: Any, spec: RidgeSpec) -> None:
    """Ridge: φ(s) = φ* − s(A + sB)⁻¹b, so the rule gives λ(A − s²BA⁻¹B)⁻¹b, and one-sided λ(A + sB)⁻¹b."""
    case = spec.build()
    B = case.test.hessian(case.star)
    for share in (0.5, 0.02):
        s = nudge(case, share)
        two = case.lam * np.linalg.solve(case.A - s**2 * B @ np.linalg.solve(case.A, B), case.b)
        one = case.lam * np.linalg.solve(case.A + s * B, case.b)
        tolerance = tol_nudged(case, s, 1 - share) + 4 * case.tol_exact()
        for sides, expected in ((True, two), (False, one)):
            g = make(s, sides)(case.problem, case.theta, at(case.star)).gradient
            same(g, expected, tolerance, f"contrastive, two-sided = {sides}, s = {s}")


def check_contrastive_linear(make: Any, spec: RidgeSpec) -> None:
    """Ridge and a linear test loss: φ(s) is linear in s, and every strength is exact."""
    case = spec.build()
    c = np.random.default_rng([spec.seed, 11]).standard_normal(case.size)
    problem = replace(case.problem, outer=Linear(c))
    expected = case.lam * np.linalg.solve(case.A, c)
    for share in (1.0, 1e-2):
        s = share * case.lam * (norm(case.star) + norm(case.theta)) / norm(c)
        moved = case.tol_phi(case.star + s * c / case.lam)
        for sides in (True, False):
            g = make(s, sides)(problem, case.theta, at(case.star)).gradient
            tolerance = 2 * case.lam * moved / s + 64 * case.size * case.kappa * UNIT * norm(c)
            same(g, expected, tolerance, f"contrastive, linear test loss, s = {s}")


def check_contrastive_bound(make: Any, spec: Spec) -> None:
    """Convex losses: the one-sided rule is off by at most (s/2)(ρ_s‖φ'‖² + 2β_T‖φ'‖) with ‖φ'‖ ≤ ‖b(φ(s))‖/λ.

    φ'' solves A_s φ'' = −∇³[φ', φ'] − 2∇²L_test φ', and A_s ⪰ λ for s > 0; along the way b grows to at most
    ‖b‖ + β_T s sup‖φ'‖, that is twice ‖b‖ while sβ_T ≤ λ/2.
    """
    case = spec.build()
    for share in (0.4, 1e-2):
        s = nudge(case, share)
        speed = 2 * norm(case.b) / case.lam
        rho = case.train.hessian_lipschitz + s * case.test.hessian_lipschitz
        bound = s / 2 * (rho * speed**2 + 2 * case.test.curvature * speed)
        g = make(s, False)(case.problem, case.theta, at(case.star)).gradient
        at_most(norm(g - case.g), bound, tol_nudged(case, s) + case.tol_exact(), f"contrastive bound, s = {s}")


def check_contrastive_loudness(make: Any, spec: Spec) -> None:
    """(T, s) → (cT, s/c) is the same nudge: g is scaled by c."""
    case = spec.build()
    s, c = nudge(case, 0.1), 2.0**-5
    louder = replace(case.problem, outer=Combination(((c, case.problem.outer),)))
    for sides in (True, False):
        g = make(s, sides)(case.problem, case.theta, at(case.star)).gradient
        other = make(s / c, sides)(louder, case.theta, at(case.star)).gradient
        same(other, c * g, c * tol_nudged(case, s), "contrastive: (T, s) → (cT, s/c)")


def check_corrected_exact(estimator: Any, spec: RidgeSpec) -> None:
    """On ridge one Newton step ends at φ* from any φ, and what is evaluated there is exact."""
    case = spec.build()
    for phi in (case.star, away(case), away(case, 100.0)):
        g = estimator(case.problem, case.theta, at(phi)).gradient
        off = case.tol_phi(phi)
        tolerance = case.tol_exact() + case.test.curvature * off
        same(g, case.g, tolerance, "exact on quadratics from any φ")


def check_super_efficient(estimator: Any, spec: Spec) -> None:
    """Convex L: the correction squares the inner error, ‖φ_N − φ*‖ ≤ ρ/(2λ)·‖φ − φ*‖², and g is linear in that."""
    case = spec.build()
    for share in (0.3, 1e-3, 1e-6):
        phi = away(case, share)
        estimated = estimator(case.problem, case.theta, at(phi))
        delta = norm(phi - case.star)
        squared = case.train.hessian_lipschitz / (2 * case.lam) * delta**2
        off = case.tol_phi(phi) + 64 * case.size * case.kappa * UNIT * delta
        at_most(norm(estimated.inner.value - case.star), squared, off, "Newton squares the error")
        end = estimated.inner.value
        bound = case.inexact(case.lam * (squared + off))
        at_most(norm(estimated.gradient - case.g), bound, case.tol_g(end) + case.tol_exact(), "super-efficient")


def check_super_efficient_residual(estimator: Any, spec: Spec) -> None:
    """The inner solution reported is the corrected one: its residual is that of its value."""
    case = spec.build()
    inner = estimator(case.problem, case.theta, at(away(case, 0.3))).inner
    residual = case.train.gradient(inner.value) + case.lam * (inner.value - case.theta)
    pull = case.lam * (norm(inner.value) + norm(case.theta))
    noise = 10 * case.size * UNIT * (case.train.gradient_rounding(inner.value) + pull)
    same(inner.residual_norm, norm(residual), noise, "residual of the corrected φ")


def check_one_gradient_step(make: Any, spec: Spec) -> None:
    """Differentiating φ⁺ = φ − α∇G: αλ∇T(φ⁺), which at φ* is αλb, off by at most (1 − αλ)‖b‖."""
    case = spec.build()
    alpha = 1 / case.curvature
    for phi in (case.star, away(case)):
        after = phi - alpha * (case.train.gradient(phi) + case.lam * (phi - case.theta))
        g = make(alpha)(case.problem, case.theta, at(phi)).gradient
        expected = alpha * case.lam * case.test.gradient(after)
        same(g, expected, case.tol_g(after) + case.tol_g(phi), "one gradient step")
    g = make(alpha)(case.problem, case.theta, at(case.star)).gradient
    gap = (1 - alpha * case.lam) * norm(case.b)
    at_most(norm(g - case.g), gap, case.tol_exact() + case.tol_g(), "one gradient step: gap at φ*")


def check_one_newton_step(estimator: Any, spec: Spec) -> None:
    """Differentiating φ⁺ = φ − A(φ)⁻¹∇G: λA(φ)⁻¹∇T(φ⁺), with A still at φ."""
    case = spec.build()
    phi = away(case, 0.3)
    A = case.train.hessian(phi) + case.lam * np.eye(case.size)
    after = phi - np.linalg.solve(A, case.train.gradient(phi) + case.lam * (phi - case.theta))
    expected = case.lam * np.linalg.solve(A, case.test.gradient(after))
    g = estimator(case.problem, case.theta, at(phi)).gradient
    off = case.test.curvature * (case.tol_phi(phi, after) + 64 * case.size * case.kappa * UNIT * norm(after - phi))
    same(g, expected, case.tol_g(after) + case.tol_g(phi) + off, "one Newton step")


def check_differences(estimator: Any, spec: Spec) -> None:
    """What central differences call a success is right to a fifth of ‖g‖, and any other result is refused."""
    case = spec.build()
    estimated = estimator(case.problem, case.theta, at(case.star))
    if estimated.ok:
        error = norm(estimated.gradient - case.g)
        at_most(error, 0.2 * norm(estimated.gradient), case.tol_exact(), "finite differences: a success is right")


def check_differences_exact(make: Any, spec: RidgeSpec) -> None:
    """Ridge: F is quadratic, and every step is exact up to the noise of its solves."""
    case = spec.build()
    size = norm(case.theta) + norm(case.star)
    for h in (size, 1e-2 * size):
        estimated = make(h)(case.problem, case.theta, at(case.star))
        far = case.tol_phi(case.star + h)
        noise = norm(case.b) * far + case.test.curvature * (far**2 + 2 * h * far)
        noise += 64 * case.size * UNIT * case.test.value_abs(np.abs(case.star) + np.abs(case.theta) + h)
        tolerance = case.size**0.5 * noise / h + case.tol_exact()
        same(estimated.gradient, case.g, tolerance, f"finite differences, h = {h}")


def check_differences_noise(make: Any, spec: Spec) -> None:
    """A step so short that the inner solves' noise is all there is must be refused."""
    case = spec.build()
    h = 1e-3 * UNIT * (norm(case.theta) + norm(case.star) or 1.0)
    estimated = make(h)(case.problem, case.theta, at(case.star))
    holds(not estimated.ok, f"a difference of rounding errors passed as {estimated.status}")


def check_moreau(make: Any, spec: Spec) -> None:
    """Identity 6: λ(θ − φ*) is the derivative of min_φ G, by a complex step in θ; the test loss plays no part."""
    case = spec.build()
    g = make(case.lam)(case.problem, case.theta, at(case.star)).gradient
    for v in np.random.default_rng([spec.seed, 6]).standard_normal((2, case.size)):
        h = 1e-30 * (norm(case.theta) + case.train.gradient_abs(case.star) / case.curvature)
        theta = case.theta + 1j * h * v
        phi = case.star.astype(complex)
        for _ in range(4):
            phi = phi - np.linalg.solve(case.A, case.train.gradient(phi) + case.lam * (phi - theta))
        pull = phi - theta
        slope = (case.train.value(phi) + case.lam / 2 * np.sum(pull * pull)).imag / h
        noise = 64 * case.size * UNIT * (case.train.gradient_abs(case.star) + case.lam * norm(case.theta))
        same(g @ v, slope, (case.curvature * case.tol_phi() + noise) * norm(v), "identity 6: Moreau envelope")
    other = replace(case.problem, outer=Combination(((-7.0, case.problem.outer),)))
    blind = make(case.lam)(other, case.theta, at(case.star)).gradient
    holds(np.array_equal(blind, g), "Reptile looked at the test loss")


def gauss_newton_matrix(spec: MlpSpec, loss: Any, phi: Any) -> Any:
    """Jᵀ(∂²L/∂z²)J with J from autograd through the outputs, sample by sample."""
    import autograd.numpy as anp
    from autograd import jacobian

    def outputs(x: Any) -> Any:
        a, start = loss.X, 0
        for depth, (fan_in, fan_out) in enumerate(zip(loss.widths[:-1], loss.widths[1:], strict=True)):
            W = anp.reshape(x[start : start + fan_in * fan_out], (fan_in, fan_out))
            start += fan_in * fan_out
            z = anp.dot(a, W) + x[start : start + fan_out]
            start += fan_out
            a = z if depth + 2 == len(loss.widths) else (anp.logaddexp(0.0, z) if spec.softplus else anp.tanh(z))
        return a

    J, z = jacobian(outputs)(phi), outputs(phi)
    if not spec.classes:
        return np.einsum("nmi,nmj->ij", J, J) / len(z)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    blocks = p[:, :, None] * np.eye(spec.classes) - p[:, :, None] * p[:, None, :]
    return np.einsum("nmi,nmk,nkj->ij", J, blocks, J) / len(z)


def check_gauss_newton(estimator: Any, spec: MlpSpec) -> None:
    """λ(JᵀCJ + λI)⁻¹∇T at any φ, minimum or not; shorter than ∇T, and ‖B − H‖‖g_H‖/λ from the implicit one."""
    problem, theta = spec.build()
    lam = float(problem.lam) * 1e-2
    problem, scale = problem.with_lam(lam), spec.curvature_scale()
    b = problem.outer.gradient(theta)
    B = gauss_newton_matrix(spec, problem.inner, theta)
    expected = lam * np.linalg.solve(B + lam * np.eye(theta.size), b)
    rounding = 64 * theta.size * UNIT * (1 + scale / lam) * norm(b)
    g = estimator(problem, theta, at(theta)).gradient
    same(g, expected, rounding, "Gauss–Newton")
    at_most(norm(g), norm(b), rounding, "law 48: ‖g‖ ≤ ‖∇T‖")
    H = problem.inner.linearize(theta).hvp(np.eye(theta.size))
    A = H + lam * np.eye(theta.size)
    if np.linalg.eigvalsh(0.5 * (A + A.T))[0] > 1e-3 * lam:
        implicit = lam * np.linalg.solve(A, b)
        gap = norm(B - H, 2) * norm(implicit) / lam
        at_most(norm(g - implicit), gap, 1e3 * rounding, "Gauss–Newton: gap")


def check_implicit_gap(estimator: Any, spec: Spec, matrix: Any) -> None:
    """λ(D + λI)⁻¹b for a simpler D ⪰ 0: at most ‖D − H‖‖g‖/λ from the meta-gradient at φ*. `matrix(H)` is D."""
    case = spec.build()
    H = case.train.hessian(case.star)
    D = matrix(H)
    g = estimator(case.problem, case.theta, at(case.star)).gradient
    expected = case.lam * np.linalg.solve(D + case.lam * np.eye(case.size), case.b)
    same(g, expected, case.tol_exact(), "a simpler Hessian")
    gap = norm(D - H, 2) * norm(case.g) / case.lam
    at_most(norm(g - case.g), gap, 2 * case.tol_exact(), "a simpler Hessian: gap")


def check_richardson(make: Any, spec: RidgeSpec) -> None:
    """Ridge, two-sided: the series in s² is λΣ(s²A⁻¹BA⁻¹B)ʲA⁻¹b, and the extrapolation leaves −4/(4·4)… of its s⁴.

    With C = A⁻¹BA⁻¹B the rule gives g(s) = λ(I − s²C)⁻¹A⁻¹b. `make(s)` extrapolates over s and s/2.
    """
    case = spec.build()
    B = case.test.hessian(case.star)
    s = nudge(case, 0.4)
    C = np.linalg.solve(case.A, B @ np.linalg.solve(case.A, B))
    q, eye = np.linalg.solve(case.A, case.b), np.eye(case.size)

    def rule(t: float) -> Any:
        return case.lam * np.linalg.solve(eye - t**2 * C, q)

    g = make(s)(case.problem, case.theta, at(case.star)).gradient
    expected = (4 * rule(s / 2) - rule(s)) / 3
    tolerance = 4 * tol_nudged(case, s / 2, 0.6) + 8 * case.tol_exact()
    same(g, expected, tolerance, "Richardson")
    # The terms of the series beyond s⁰ and s²: −¼s⁴C² and on, each at most its coarse self.
    rest = norm(s**4 * C @ C @ rule(s))
    at_most(norm(g - case.g), rest, tolerance, "Richardson: what is left is of order s⁴")
