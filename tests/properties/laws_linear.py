"""Laws (b) of linear solvers, as checks of any solver: the tests run them on ours, the mutants on broken ones.

`make(max_steps, rtol=0.0, record=False)` builds a solver, as `CG` does; `solve(A, b)` is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad import Status
from implicit_grad.linear.operator import matrix_operator
from implicit_grad.testing.closed_forms import accurate_solve
from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.matrices import UNIT, SpdSpec, orthogonal
from implicit_grad.testing.problems import RidgeSpec

norm = np.linalg.norm


def energy(A: Any, error: Any) -> Any:
    """‖error‖_A for a stack of errors."""
    return np.sqrt(np.einsum("...i,ij,...j->...", error, A, error))


def true_residual(A: Any, b: Any, x: Any) -> Any:
    """‖b − Ax‖ in extended precision."""
    wide = np.longdouble
    return norm((b.astype(wide) - A.astype(wide) @ np.asarray(x, dtype=wide)).astype(np.float64))


def iterates(make: Any, A: Any, b: Any, steps: int) -> Any:
    """Every iterate x_0 … x_steps."""
    return make(steps, record=True)(A, b).path.points


def check_law_13(solve: Any, spec: SpdSpec) -> None:
    """Exact solvers: backward error ≤ 10·N·u, forward error ≤ 2κ times that."""
    A, b = spec.A(), spec.b()
    solution = solve(A, b)
    holds(solution.status is Status.CONVERGED, f"law 13: {solution.status} on a positive definite matrix")
    backward = true_residual(A, b, solution.value) / (norm(A, 2) * norm(solution.value) + norm(b))
    at_most(backward, 10 * spec.size * UNIT, 0.0, "law 13: backward error")
    x = accurate_solve(A, b)
    bound = 2 * spec.kappa * 10 * spec.size * UNIT * float(norm(x))
    same(solution.value, x.astype(np.float64), bound, "law 13: forward error")


def check_law_14(make: Any, spec: SpdSpec) -> None:
    """The energy error of CG never rises, down to 10³·N·u·κ·‖x‖_A."""
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b)
    errors = energy(A, iterates(make, A, b, 2 * spec.size) - x)
    tolerance = 1e3 * spec.size * UNIT * spec.kappa * energy(A, x)
    at_most(errors[1:], errors[:-1], tolerance, "law 14: energy error")


def check_law_15(make: Any, spec: SpdSpec) -> None:
    """Chebyshev: ‖x_k − x‖_A ≤ 2((√κ−1)/(√κ+1))^k ‖x‖_A."""
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b)
    errors = energy(A, iterates(make, A, b, 2 * spec.size) - x)
    root = spec.kappa**0.5
    bound = 2 * ((root - 1) / (root + 1)) ** np.arange(len(errors)) * energy(A, x)
    at_most(errors, bound, 1e3 * spec.size * UNIT * spec.kappa * energy(A, x), "law 15: Chebyshev bound")


def check_law_16(make: Any, spec: SpdSpec) -> None:
    """‖x_k − x‖₂ never rises and ‖x_k‖₂ never falls, from x₀ = 0.

    The first holds to 64·N·u·κ. The second leans on x_kᵀp_k ≥ 0, that is on directions many steps apart, and
    rounded CG is exact CG on a matrix whose eigenvalues are smeared by about √u‖A‖ (Greenbaum 1989).
    """
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b)
    points = iterates(make, A, b, 2 * spec.size)
    holds(not points[0].any(), "law 16: x₀ = 0")
    errors, sizes = norm(points - x, axis=-1), norm(points, axis=-1)
    at_most(errors[1:], errors[:-1], 64 * spec.size * UNIT * spec.kappa * norm(x), "law 16: 2-norm error")
    smearing = max(8 * spec.size * UNIT**0.5, 64 * spec.size * UNIT * spec.kappa)
    at_most(sizes[:-1], sizes[1:], smearing * norm(x), "law 16: ‖x_k‖")


def check_law_17(make: Any, spec: SpdSpec) -> None:
    """CG is exact after rank(H) + 1 steps, to 1e-7."""
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b)
    distinct = min(spec.live + 1, spec.size)
    solution = make(distinct)(A, b)
    same(solution.value, x, 1e-7 * norm(x), "law 17: finite termination")


def check_law_18(make: Any, spec: SpdSpec) -> None:
    """CG-k beats every polynomial of its degree in the energy norm: Neumann's, random ones, its neighbours."""
    A, b = spec.A(), spec.b()
    x, rng = accurate_solve(A, b), np.random.default_rng([spec.seed, 18])
    points = iterates(make, A, b, 4)
    errors = energy(A, points - x)
    alpha = 1 / norm(A, 2)
    neumann, power, krylov = np.zeros_like(b), b, []
    for k in range(1, 5):
        krylov.append(power)
        neumann = neumann + alpha * power
        power = power - alpha * (A @ power)
        coefficients = alpha * rng.standard_normal((5, k))
        turns = 0.01 * norm(x) * _krylov_basis(A, b, k).T
        neighbours = np.concatenate([points[k] + turns, points[k] - turns])
        rivals = np.concatenate([[neumann], coefficients @ np.array(krylov), neighbours])
        tolerance = 1e3 * spec.size * UNIT * spec.kappa * energy(A, x)
        at_most(errors[k], energy(A, rivals - x).min(), tolerance, f"law 18: k = {k}")


def check_law_19(make: Any, spec: SpdSpec) -> None:
    """On G = I + H/λ: ‖x_k‖ ≤ ‖b‖ and ⟨x_k, b⟩ ≥ ‖x_k‖², so every CG-k meta-gradient descends."""
    G, b = spec.G(), spec.b()
    points = iterates(make, G, b, 2 * spec.size)
    tolerance = 64 * spec.size * spec.kappa * UNIT * norm(b)
    at_most(norm(points, axis=-1), norm(b), tolerance, "law 19: ‖x_k‖ ≤ ‖b‖")
    at_most(np.sum(points**2, axis=-1), points @ b, tolerance * norm(b), "law 19: ⟨x_k, b⟩ ≥ ‖x_k‖²")


def check_law_21(make: Any, spec: SpdSpec) -> None:
    """k steps on (G, b) and on (A, λb) give the same iterate (k ≤ 3, 1e-9)."""
    b = spec.b()
    for k in range(1, 4):
        first, second = make(k)(spec.G(), b).value, make(k)(spec.A(), spec.lam * b).value
        same(first, second, 1e-9 * norm(first), f"law 21: scale invariance, k = {k}")


def check_law_22(make: Any, spec: SpdSpec) -> None:
    """One Lanczos basis of (H, b) serves every λ: CG-k on H + λI is V(T + λI)⁻¹Vᵀb (k ≤ 3, 1e-9)."""
    H, b = spec.hessian(), spec.b()
    for k in range(1, 4):
        V = _krylov_basis(H, b, k)
        for lam in (0.3 * spec.lam, spec.lam, 5 * spec.lam):
            T = V.T @ H @ V + lam * np.eye(V.shape[1])
            expected = V @ np.linalg.solve(T, V.T @ b)
            value = make(k)(H + lam * np.eye(spec.size), b).value
            same(value, expected, 1e-9 * norm(expected), f"law 22: shift invariance, k = {k}, λ = {lam}")


def _krylov_basis(H: Any, b: Any, k: int) -> Any:
    """Orthonormal basis of span{b, Hb, …, H^{k−1}b}, short where that space is invariant."""
    basis = [b / norm(b)]
    while len(basis) < k:
        w = H @ basis[-1]
        for _ in range(2):
            for q in basis:
                w = w - (q @ w) * q
        if norm(w) <= 8 * len(b) * UNIT * norm(H, 2):
            break
        basis.append(w / norm(w))
    return np.array(basis).T


def check_law_23(make: Any, spec: SpdSpec) -> None:
    """b = 0 is solved by x = 0 without a step; without steps, b ≠ 0 is not."""
    A, b = spec.A(), spec.b()
    for rtol in (0.0, 1e-6):
        nothing = make(5, rtol=rtol)(A, np.zeros_like(b))
        holds(not nothing.value.any(), "law 23: b = 0 must give x = 0")
        holds(nothing.steps == 0, "law 23: b = 0 takes no step")
        holds(nothing.status is Status.CONVERGED, f"law 23: {nothing.status} for b = 0")
        idle = make(0, rtol=rtol)(A, b)
        holds(not idle.value.any(), "law 23: no step from zero")
        holds(idle.status is not Status.CONVERGED, "law 23: nothing done, and called converged")
        same(idle.residual_norm, norm(b), 4 * UNIT * norm(b), "law 23: residual of x = 0")


def check_law_26(solve: Any, spec: SpdSpec) -> None:
    """⟨c, G⁻¹b⟩ = ⟨G⁻¹c, b⟩."""
    G, b = spec.G(), spec.b()
    c = np.random.default_rng([spec.seed, 26]).standard_normal(spec.size)
    tolerance = 64 * spec.size * spec.kappa * UNIT * norm(b) * norm(c)
    same(c @ solve(G, b).value, solve(G, c).value @ b, tolerance, "law 26: symmetry")


def check_law_27(make: Any, spec: SpdSpec) -> None:
    """b = v with Hv = μv: one CG step gives x = v/(1 + μ/λ)."""
    v = orthogonal(np.random.default_rng(spec.seed), spec.size)[:, spec.seed % spec.size]
    mu = spec.spectrum[spec.seed % spec.size]
    rounding = 64 * spec.size * spec.kappa * UNIT
    solution = make(5, rtol=rounding)(spec.G(), v)
    holds(solution.steps == 1, f"law 27: {solution.steps} steps for an eigenvector")
    holds(solution.status is Status.CONVERGED, f"law 27: {solution.status}")
    same(solution.value, v / (1 + mu / spec.lam), rounding, "law 27: eigenvector")


def check_law_29(solve: Any, spec: RidgeSpec) -> None:
    """Woodbury: G⁻¹b = b − Xᵀ(λnI + XXᵀ)⁻¹Xb for ridge with n < N."""
    case = spec.build()
    X, n = case.train.X, len(case.train.X)
    kernel = case.lam * n * np.eye(n) + X @ X.T
    expected = case.b - X.T @ np.linalg.solve(kernel, X @ case.b)
    G = case.train.hessian(case.star) / case.lam + np.eye(case.size)
    same(solve(G, case.b).value, expected, case.tol_g(), "law 29: Woodbury")


def check_law_30(make: Any, spec: SpdSpec) -> None:
    """G ⪰ I: the true residual bounds ‖x_k − x‖₂ and ‖x_k − x‖_G, without any constant."""
    G, b = spec.G(), spec.b()
    x = accurate_solve(G, b)
    path = make(2 * spec.size, record=True)(G, b).path
    tolerance = 64 * spec.size * spec.kappa * UNIT * norm(b)
    at_most(norm(path.points - x, axis=-1), path.residual_norms, tolerance, "law 30: 2-norm")
    at_most(energy(G, path.points - x), path.residual_norms, tolerance, "law 30: energy norm")


def check_law_31(make: Any, spec: SpdSpec) -> None:
    """Hestenes–Stiefel: Σ_{j=k}^{k+d−1} α_j‖r_j‖² ≤ ‖x_k − x‖²_G, where α_j‖r_j‖² = r_jᵀ(x_{j+1} − x_j)."""
    G, b = spec.G(), spec.b()
    x = accurate_solve(G, b)
    points = iterates(make, G, b, spec.size + 3)
    residuals = b - points @ G
    gains = np.sum(residuals[:-1] * np.diff(points, axis=0), axis=-1)
    squares = energy(G, points - x) ** 2
    tolerance = 1e3 * spec.size * UNIT * spec.kappa * squares[0]
    for d in (1, 3):
        sums = np.array([gains[k : k + d].sum() for k in range(len(gains) - d + 1)])
        at_most(sums, squares[: len(sums)], tolerance, f"law 31: lower bound, d = {d}")
        at_most(0.0, gains, tolerance, "law 31: every term is a gain")


def check_law_32(make: Any, spec: SpdSpec, rtol: float, steps: int) -> None:
    """CONVERGED ⇔ the recomputed residual ≤ max(rtol‖b‖, 10·N·eps·(‖A‖‖x‖ + ‖b‖)), and it is the one reported."""
    A, b = spec.A(), spec.b()
    solution = make(steps, rtol=rtol)(A, b)
    residual = true_residual(A, b, solution.value)
    unit = spec.size * UNIT * (norm(A, 2) * norm(solution.value) + norm(b))
    same(solution.residual_norm, residual, 4 * unit, "law 32: reported residual")
    if solution.status is Status.CONVERGED:
        at_most(residual, max(rtol * norm(b), 20 * unit), 4 * unit, "law 32: CONVERGED meets the tolerance")
    else:
        at_most(rtol * norm(b), residual, 4 * unit, "law 32: what meets the tolerance is CONVERGED")


def check_scale(make: Any, spec: SpdSpec, exponent: int) -> None:
    """b → 2^e b scales every iterate by 2^e, bit by bit: no absolute tolerance, no under- or overflow."""
    A, b, scale = spec.A(), spec.b(), 2.0**exponent
    one, other = make(3, rtol=1e-10)(A, b), make(3, rtol=1e-10)(A, scale * b)
    holds(one.status is other.status, f"scale of b: {one.status} turned into {other.status}")
    holds(np.array_equal(one.value * scale, other.value), "scale of b: other iterates")


def check_indefinite(solve: Any, spec: SpdSpec) -> None:
    """A saddle is refused: with a negative eigenvalue in A the status is INDEFINITE."""
    Q = orthogonal(np.random.default_rng(spec.seed), spec.size)
    eigenvalues = spec.lam * (1 + np.arange(spec.size, dtype=float))
    eigenvalues[0] *= -1
    A = (Q * eigenvalues) @ Q.T
    solution = solve(0.5 * (A + A.T), spec.b())
    holds(solution.status is Status.INDEFINITE, f"a saddle passed as {solution.status}")
    smallest, noise = solution.smallest_eigenvalue, 64 * spec.size * UNIT * norm(A, 2)
    at_most(eigenvalues[0], smallest, noise, "a Rayleigh quotient is no less than λ_min")
    at_most(smallest, 0.0, 0.0, "the witness of a saddle is negative")


def check_law_69(extremes: Any, spec: SpdSpec) -> None:
    """Ritz values lie inside the spectrum, spread out with every step, and end at its ends."""
    A = spec.A()
    operator = matrix_operator(A)
    tolerance = 64 * spec.size * UNIT * norm(A, 2)
    exact = np.linalg.eigvalsh(A)
    ends = np.array([extremes(operator, k) for k in range(1, spec.size + 1)])
    at_most(exact[0], ends[:, 0], tolerance, "law 69: smallest Ritz value ≥ λ_min")
    at_most(ends[:, 1], exact[-1], tolerance, "law 69: largest Ritz value ≤ λ_max")
    at_most(ends[1:, 0], ends[:-1, 0], tolerance, "law 69: the smallest never rises")
    at_most(ends[:-1, 1], ends[1:, 1], tolerance, "law 69: the largest never falls")
    same(ends[-1], [exact[0], exact[-1]], 2 * tolerance, "law 69: exact after N steps")
