"""Laws (b) of the further linear solvers, as checks of any solver: the tests run them on ours and on broken ones.

`make(max_steps, rtol=0.0, record=False)` builds a solver, as `CG` does; `solve(A, b)` is one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from laws_linear import energy, true_residual

from implicit_grad import (
    CG,
    GradientDescent,
    ImplicitGradient,
    NystromPreconditioner,
    Solution,
    Status,
    UnrolledGradient,
)
from implicit_grad.linear.operator import Operator, matrix_operator
from implicit_grad.testing.closed_forms import accurate_solve
from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.matrices import UNIT, SpdSpec, orthogonal
from implicit_grad.testing.problems import RidgeSpec, SoftmaxSpec

norm = np.linalg.norm


def block_of(spec: SpdSpec, count: int) -> Any:
    """Several right-hand sides."""
    return np.random.default_rng([spec.seed, spec.size, count]).standard_normal((count, spec.size))


def rounding(spec: SpdSpec, x: Any) -> Any:
    """10³·N·u·κ·‖x‖."""
    return 1e3 * spec.size * UNIT * spec.kappa * norm(x, axis=-1)


def shifted(spec: SpdSpec) -> Operator:
    """H + λI that knows its λ."""
    return matrix_operator(spec.hessian()).shifted(np.asarray(spec.lam))


def indefinite(spec: SpdSpec) -> Any:
    """λ·(−1, 2, 3, …) in random axes."""
    Q = orthogonal(np.random.default_rng(spec.seed), spec.size)
    eigenvalues = spec.lam * (1 + np.arange(spec.size, dtype=float))
    eigenvalues[0] *= -1
    A = (Q * eigenvalues) @ Q.T
    return 0.5 * (A + A.T)


# --- smallest residuals -------------------------------------------------------------------------------------------


def residuals(make: Any, A: Any, b: Any, steps: int) -> Any:
    """True residuals of runs of 0, 1, … steps."""
    return np.array([true_residual(A, b, make(k)(A, b).value) for k in range(steps + 1)])


def check_law_20(make: Any, spec: SpdSpec) -> None:
    """MINRES residuals never rise, and are at most CG's at the same k, within √u, while k·log₁₀κ ≤ 8.

    Past that, and below √u‖b‖, both have lost directions to rounding, and not the same ones.
    """
    A, b = spec.A(), spec.b()
    mine, rival = residuals(make, A, b, spec.size + 2), residuals(CG, A, b, spec.size + 2)
    tolerance = rounding(spec, b)
    at_most(mine[1:], mine[:-1], tolerance, "law 20: the residual never rises")
    whole = len(mine) if spec.kappa < 10 else 1 + int(8 / np.log10(spec.kappa))
    at_most(mine[:whole], rival[:whole], UNIT**0.5 * norm(b), "law 20: at most CG's residual")


def check_law_20_indefinite(make: Any, spec: SpdSpec) -> None:
    """Of indefinite A, too: the smallest residual in the Krylov space, and 0 after N steps."""
    A, b = indefinite(spec), spec.b()
    mine = residuals(make, A, b, spec.size)
    tolerance = 1e3 * spec.size**2 * UNIT * norm(b)
    at_most(mine[1:], mine[:-1], tolerance, "law 20: the residual never rises")
    V, w = [], b
    for k in range(1, spec.size + 1):
        for _ in range(2):
            for v in V:
                w = w - (v @ w) * v
        V.append(w / norm(w))
        w = A @ V[-1]
        y = np.linalg.lstsq(A @ np.array(V).T, b, rcond=None)[0]
        same(mine[k], norm(b - A @ (y @ V)), tolerance, f"law 20: the smallest residual of {k} steps")
    at_most(mine[-1], 0.0, tolerance, "law 20: exact after N steps")


def check_law_20_twins(makes: Any, spec: SpdSpec) -> None:
    """Unrestarted GMRES and MINRES have the same residual norms, within √u, while k·log₁₀κ ≤ 6.

    Past that the Lanczos vectors that MINRES forgets have lost their orthogonality, and GMRES is ahead.
    """
    A, b = spec.A(), spec.b()
    steps = min(spec.size, 6 if spec.kappa < 10 else int(6 / np.log10(spec.kappa)))
    first, second = (residuals(make, A, b, steps) for make in makes)
    same(first, second, UNIT**0.5 * norm(b) * (steps + 1) ** 0.5, "law 20: twins")


def check_normal_residuals(make: Any, spec: SpdSpec) -> None:
    """LSMR: ‖A r_k‖ never rises."""
    A, b = spec.A(), spec.b()
    values = np.array([make(k)(A, b).value for k in range(2 * spec.size)])
    sizes = norm((b - values @ A) @ A, axis=-1)
    at_most(sizes[1:], sizes[:-1], rounding(spec, b) * norm(A, 2), "‖A r‖ never rises")


def check_law_69_path(make: Any, spec: SpdSpec) -> None:
    """The smallest Ritz value is ≥ λ_min and non-increasing in k, and exact once the space is invariant."""
    A, b = spec.A(), spec.b()
    values = np.array([make(k)(A, b).smallest_eigenvalue for k in range(1, 2 * spec.size + 2)])
    exact, tolerance = np.linalg.eigvalsh(A)[0], 64 * spec.size * UNIT * norm(A, 2)
    at_most(exact, values, tolerance, "law 69: Ritz values lie inside")
    at_most(values[1:], values[:-1], tolerance, "law 69: the smallest never rises")


# --- preconditioners ----------------------------------------------------------------------------------------------


def inverse_of(preconditioner: Any, A: Any, size: int) -> Any:
    """M⁻¹ as an array."""
    apply = preconditioner.prepare(matrix_operator(A)).apply if hasattr(preconditioner, "prepare") else preconditioner
    inverse = np.array([apply(e) for e in np.eye(size)])
    return 0.5 * (inverse + inverse.T)


def pencil(preconditioner: Any, A: Any) -> Any:
    """Eigenvalues of M⁻¹A, ascending."""
    return symmetric_pencil(inverse_of(preconditioner, A, len(A)), A)


def symmetric_pencil(inverse: Any, A: Any) -> Any:
    """Eigenvalues of A^{1/2} M⁻¹ A^{1/2}, to u·‖M⁻¹‖‖A‖."""
    values, Q = np.linalg.eigh(A)
    root = (Q * values**0.5) @ Q.T
    return np.linalg.eigvalsh(root @ (0.5 * (inverse + inverse.T)) @ root)


def check_law_15_preconditioned(subject: Any, spec: SpdSpec) -> None:
    """‖x_k − x‖_A ≤ 2((√κ−1)/(√κ+1))^k ‖x‖_A with κ of M⁻¹A, and the energy error never rises (law 14)."""
    make, preconditioner = subject
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b)
    errors = energy(A, make(2 * spec.size, preconditioner=preconditioner, record=True)(A, b).path.points - x)
    tolerance = 1e3 * spec.size * UNIT * spec.kappa * energy(A, x)
    at_most(errors[1:], errors[:-1], tolerance, "law 14: energy error")
    values = pencil(preconditioner, A)
    root = (values[-1] / values[0]) ** 0.5
    bound = 2 * ((root - 1) / (root + 1)) ** np.arange(len(errors)) * energy(A, x)
    at_most(errors, bound, tolerance, "law 15: Chebyshev bound of M⁻¹A")


def check_law_17_preconditioned(make: Any, spec: SpdSpec) -> None:
    """With M = A one step is enough; with M⁻¹ = A⁻¹ + vvᵀ two are."""
    A, b = spec.A(), spec.b()
    x, inverse = accurate_solve(A, b), np.linalg.inv(A)
    v = np.random.default_rng([spec.seed, 17]).standard_normal(spec.size) / (norm(A, 2) * spec.size) ** 0.5
    for steps, M in ((1, inverse), (min(2, spec.size), inverse + np.outer(v, v))):
        value = make(steps, preconditioner=lambda r, M=M: r @ M)(A, b).value
        same(value, x, rounding(spec, x), f"law 17: exact after {steps}")


def check_preconditioned_transform(make: Any, spec: SpdSpec) -> None:
    """Preconditioning is CG on L⁻¹AL⁻ᵀ with M = LLᵀ, and x = L⁻ᵀy (k ≤ 3, 1e-9)."""
    A, b, rng = spec.A(), spec.b(), np.random.default_rng([spec.seed, 3])
    L = orthogonal(rng, spec.size) * np.geomspace(1, 10, spec.size)
    M = np.linalg.inv(L @ L.T)
    inner = np.linalg.inv(L)
    B = inner @ A @ inner.T
    for k in range(1, 4):
        expected = inner.T @ CG(k)(0.5 * (B + B.T), inner @ b).value
        value = make(k, preconditioner=lambda r: r @ M)(A, b).value
        same(value, expected, 1e-9 * norm(expected), f"preconditioning is a change of variables, k = {k}")


def check_preconditioner_scale(make: Any, spec: SpdSpec) -> None:
    """M and 2^e M give the same iterates, bit by bit."""
    A, b, diagonal = spec.A(), spec.b(), np.diag(spec.A())
    wanted = make(3, preconditioner=lambda r: r / diagonal)(A, b).value
    for exponent in (-900, -3, 5, 900):
        value = make(3, preconditioner=lambda r, e=exponent: np.ldexp(r / diagonal, e))(A, b).value
        holds(np.array_equal(value, wanted), f"2^{exponent} M gives other iterates")


def check_nystrom_condition(prepare: Any, spec: SpdSpec) -> None:
    """κ(M⁻¹A) ≤ (λ̂_r + λ + E)/λ, up to the noise of the sketch."""
    A, operator = spec.A(), shifted(spec)
    for rank in {1, (spec.size + 1) // 2, spec.size}:
        model = sketched(operator, rank, spec.seed)
        apply = prepare(rank, spec.seed).prepare(operator).apply
        inverse = np.array([apply(e) for e in np.eye(spec.size)])
        values = symmetric_pencil(inverse, A)
        gap = norm(spec.hessian() - model.matrix, 2)
        bound = (model.values[-1] + spec.lam + gap) / spec.lam
        noise = (model.noise + 64 * spec.size * UNIT * norm(A, 2)) / spec.lam
        at_most(values[-1] / values[0], bound, noise * (1 + bound), f"condition at rank {rank}")


# --- blocks -------------------------------------------------------------------------------------------------------


def check_block_beats_cg(make: Any, spec: SpdSpec) -> None:
    """Each column minimises over more than its own Krylov space: its energy error is at most CG's (laws 14, 18)."""
    A, B = spec.A(), block_of(spec, 3)
    X = np.array([accurate_solve(A, b) for b in B])
    block = make(2 * spec.size, record=True)(A, B).path.points
    tolerance = 1e3 * spec.size * UNIT * spec.kappa * energy(A, X)
    errors = energy(A, block - X)
    at_most(errors[1:], errors[:-1], tolerance, "law 14: energy error of a block")
    for i, b in enumerate(B):
        alone = energy(A, CG(2 * spec.size, record=True)(A, b).path.points - X[i])
        # In float64 CG may be ahead by luck once directions are lost; exact arithmetic knows no such thing.
        at_most(errors[:4, i], alone[:4], tolerance[i], "law 18: a block is not behind its columns")


def check_block_of_one(make: Any, spec: SpdSpec) -> None:
    """One right-hand side is conjugate gradient (k ≤ 3, 1e-9)."""
    A, b = spec.A(), spec.b()
    for k in range(4):
        wanted = CG(k)(A, b).value
        for B in (b, b[None], b[None, None]):
            same(make(k)(A, B).value.reshape(b.shape), wanted, 1e-9 * norm(wanted), f"block of one, k = {k}")


def check_block_mixing(make: Any, spec: SpdSpec) -> None:
    """The block space does not depend on its basis: X(TB) = T X(B) for orthogonal T (k ≤ 2, 1e-9)."""
    A, B = spec.A(), block_of(spec, 3)
    T = orthogonal(np.random.default_rng([spec.seed, 31]), 3)
    for k in range(1, 3):
        one, other = T @ make(k)(A, B).value, make(k)(A, T @ B).value
        same(one, other, 1e-9 * norm(one), f"mixed right-hand sides, k = {k}")


def check_block_breakdown(make: Any, spec: SpdSpec) -> None:
    """Equal, opposite, dependent, zero and surplus right-hand sides are solved like any other."""
    A, b = spec.A(), block_of(spec, 3)
    B = np.array([b[0], b[0], -3 * b[0], np.zeros(spec.size), b[1], 1e-9 * (b[0] + b[1]), b[2] * 1e-200])
    rtol = 1e-9
    solution = make(100 * spec.size, rtol=rtol)(A, B)
    for i, column in enumerate(B):
        holds(solution.status[i] is Status.CONVERGED, f"breakdown: {solution.status[i]} in column {i}")
        scale = norm(column) or 1.0
        residual = true_residual(A, column / scale, solution.value[i] / scale)
        # 20·N·u·(‖A‖‖x‖ + ‖b‖) is attained in any case.
        attainable = 20 * spec.size * UNIT * (norm(A, 2) * norm(solution.value[i] / scale) + 1)
        at_most(residual, max(rtol, attainable), 4 * UNIT, f"breakdown: residual of column {i}")
    holds(solution.steps[3] == 0, "breakdown: a zero right-hand side takes no step")


def check_block_termination(make: Any, spec: SpdSpec) -> None:
    """Exact after ⌈m/s⌉ steps, for m distinct eigenvalues met by s right-hand sides, to 1e-7 (law 17)."""
    A, B = spec.A(), block_of(spec, 3)
    distinct = min(spec.live + 1, spec.size)
    X = np.array([accurate_solve(A, b) for b in B])
    # The eigenspace of λ, of dimension N − rank H, is met along at most s directions.
    met = spec.live + min(3, spec.size - spec.live)
    steps = min(distinct, -(-met // 3))
    same(make(steps)(A, B).value, X, 1e-7 * norm(X, axis=-1), "law 17: block termination")


# --- Neumann ------------------------------------------------------------------------------------------------------


def check_law_24(make: Any, spec: SpdSpec) -> None:
    """The error of Neumann-k is −(I − αA)^k A⁻¹b, and its energy norm falls; α is 0.3, 1 and 1.7 over λ_max."""
    A, b = spec.A(), spec.b()
    x, wide = accurate_solve(A, b), A.astype(np.longdouble)
    for share in (0.3, 1.0, 1.7):
        alpha = share / norm(A, 2)
        solution = make(alpha, 2 * spec.size)(A, b)
        holds(solution.status is not Status.DIVERGED, f"law 24: {solution.status} for a convergent series")
        error = -x
        for k, point in enumerate(solution.path.points):
            tolerance = 64 * spec.size * (k + 1) * UNIT * norm(x)
            same((point - x).astype(float), error.astype(float), tolerance, f"law 24: error after {k}")
            error = error - alpha * (wide @ error)
        errors = energy(A, solution.path.points - x)
        at_most(errors[1:], errors[:-1], 64 * spec.size**2 * UNIT * energy(A, x), "law 24: energy error")


def check_law_24_divergence(make: Any, spec: SpdSpec) -> None:
    """αλ_max > 2 is reported, and what is returned is a partial sum from before the residual grew."""
    A, b = spec.A(), spec.b()
    for share in (2.1, 3.0, 30.0, 1e200):
        solution = make(share / norm(A, 2), 400)(A, b)
        holds(solution.status is Status.DIVERGED, f"law 24: {solution.status} at αλ_max = {share}")
        at_most(solution.residual_norm, norm(b), 8 * spec.size * UNIT * norm(b), "law 24: before it grew")


def check_law_24_marginal(make: Any, spec: SpdSpec) -> None:
    """αλ = 2 for every λ: ‖r_k‖ stays what it is, and no success is claimed."""
    solution = make(2 / spec.lam, 50)(spec.lam * np.eye(spec.size), spec.b())
    holds(not solution.ok, f"law 24: {solution.status} where |1 − αλ| = 1")


def check_law_18_neumann(make: Any, spec: SpdSpec) -> None:
    """CG-k is at least as close in the energy norm as Neumann-k, whatever α."""
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b)
    tolerance = 1e3 * spec.size * UNIT * spec.kappa * energy(A, x)
    errors = energy(A, CG(4, record=True)(A, b).path.points - x)
    for share in (0.3, 1.0, 1.9):
        rival = energy(A, make(share / norm(A, 2), 4)(A, b).path.points - x)
        at_most(errors, rival, tolerance, f"law 18: αλ_max = {share}")


def check_law_25(make: Any, spec: RidgeSpec | SoftmaxSpec) -> None:
    """GD from φ* with the last k steps reversed is λ·Neumann-k; all of them add (I − αA)^k b."""
    case = spec.build()
    alpha = 1 / case.curvature
    k = 3
    b, power, wide = case.b, case.b, case.A
    for _ in range(k):
        power = power - alpha * (wide @ power)
    for steps, extra in ((k + 2, 0.0), (k, power)):
        inner = GradientDescent(alpha, steps, record=True)(case.problem, case.theta, start=case.star)
        reversed_ = UnrolledGradient(k)(case.problem, case.theta, _moving(inner)).gradient
        series = ImplicitGradient(make(alpha, k))(case.problem, case.theta, inner).gradient
        tolerance = case.tol_g(case.star, float(inner.residual_norm)) + 64 * case.size * UNIT * norm(b)
        same(reversed_, series + extra, tolerance, f"law 25: {k} of {steps} steps")


def _moving(inner: Solution[Any]) -> Solution[Any]:
    """The same path, its start taken for θ: what the law calls dφ₀/dθ = I."""
    assert inner.path is not None
    return replace(inner, path=replace(inner.path, starts_at_theta=True))


def check_law_26_neumann(make: Any, spec: SpdSpec) -> None:
    """⟨c, Sb⟩ = ⟨Sc, b⟩ and S(b + sc) = Sb + sSc for any k-term series or sketch S, on G (law 26)."""
    G = spec.G()
    b, c = block_of(spec, 2)
    solve = make(spec)
    Sb, Sc, Sbc = (solve(G, v).value for v in (b, c, b - 0.7 * c))
    tolerance = 64 * spec.size * spec.kappa * UNIT * norm(b) * norm(c)
    same(c @ Sb, Sc @ b, tolerance, "law 26: symmetry")
    same(Sbc, Sb - 0.7 * Sc, 64 * spec.size * spec.kappa * UNIT * (norm(b) + norm(c)), "law 26: linearity")


# --- Nyström ------------------------------------------------------------------------------------------------------


class Model:
    """Ĥ in the words of the law, from the directions the method was seen to multiply."""

    def __init__(self, H: Any, lam: float, omega: Any) -> None:
        core = omega.T @ H @ omega
        values, W = np.linalg.eigh(0.5 * (core + core.T))
        floor = len(H) * 2 * UNIT * (norm(H, 2) + lam)
        live = values > 16 * floor
        Y = (H @ omega) @ W[:, live]
        self.matrix = (Y / values[live]) @ Y.T
        self.values = np.sort(np.linalg.eigvalsh(self.matrix))[::-1][: omega.shape[1]].clip(0)
        # Rounding in HΩ, ~ floor, is divided by the smallest eigenvalue s of ΩᵀHΩ and multiplied by ‖Hω‖ ≤ √(s‖H‖).
        smallest = values[live].min() if live.any() else floor
        self.noise = 64 * floor * (1 + (norm(H, 2) / smallest) ** 0.5)
        # What is cut off is no larger than this.
        self.noise += 64 * floor * ((~live).any() and (norm(H, 2) / floor) ** 0.5)


def directions(solve: Any, operator: Operator) -> Any:
    """The vectors that a method multiplies, orthonormal columns."""
    seen: list[Any] = []

    def apply(v: Any) -> Any:
        seen.append(np.reshape(v, (-1, operator.size)))
        return operator(v)

    solve(Operator(apply, (), operator.size, operator.like, stacks=True, shift=operator.shift))
    return seen[0].T


def sketched(operator: Operator, rank: int, seed: int) -> Model:
    """The law's Ĥ for the preconditioner's directions."""
    omega = directions(NystromPreconditioner(rank, seed).prepare, operator)
    H = operator.dense() - float(operator.shift) * np.eye(operator.size)
    return Model(H, float(operator.shift), omega)


def resolvent(solve: Any, spec: SpdSpec) -> Any:
    """λ(Ĥ + λI)⁻¹, column by column."""
    return spec.lam * solve(shifted(spec), np.eye(spec.size)).value.T


def check_law_28(make: Any, spec: SpdSpec) -> None:
    """‖(I + Ĥ/λ)⁻¹ − (I + H/λ)⁻¹‖ ≤ E/(λ + E), with Ĥ = HΩ(ΩᵀHΩ)⁺ΩᵀH and E = ‖H − Ĥ‖: no damping but λ."""
    H, eye = spec.hessian(), np.eye(spec.size)
    exact = np.linalg.inv(eye + H / spec.lam)
    for rank in {1, (spec.size + 1) // 2, spec.size}:
        solve = make(rank, spec.seed)
        omega = directions(lambda A, solve=solve: solve(A, np.ones(spec.size)), shifted(spec))
        holds(omega.shape == (spec.size, rank), "law 28: as many products as the rank")
        model = Model(H, spec.lam, omega)
        approximate = resolvent(solve, spec)
        tolerance = model.noise / spec.lam + 64 * spec.size * spec.kappa * UNIT
        gap = norm(H - model.matrix, 2)
        at_most(norm(approximate - exact, 2), gap / (spec.lam + gap), tolerance, f"law 28: rank {rank}")
        mine = np.linalg.inv(eye + model.matrix / spec.lam)
        at_most(norm(approximate - mine, 2), 0.0, tolerance, f"law 28: the formula, rank {rank}")


def check_law_28_exact(make: Any, spec: SpdSpec) -> None:
    """Rank ≥ rank H: no error but rounding, times what the sketch makes of it."""
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b).astype(float)
    for rank in {spec.live, spec.size}:
        solve = make(rank, spec.seed)
        omega = directions(lambda A, solve=solve: solve(A, np.ones(spec.size)), shifted(spec))
        Q = orthogonal(np.random.default_rng(spec.seed), spec.size)[:, : spec.live]
        spread = 1 / np.linalg.svd(Q.T @ omega, compute_uv=False)[-1]
        tolerance = 64 * spec.size * spec.kappa * UNIT * spread**2 * norm(b) / spec.lam
        same(solve(shifted(spec), b).value, x, tolerance, f"law 28: exact at rank {rank}")


def check_law_19_nystrom(make: Any, spec: SpdSpec) -> None:
    """On G = I + H/λ: ‖x‖ ≤ ‖b‖ and ⟨x, b⟩ ≥ ‖x‖², at any rank."""
    b, G = spec.b(), matrix_operator(spec.hessian() / spec.lam).shifted(np.asarray(1.0))
    for rank in range(1, spec.size + 1):
        x = make(rank, spec.seed)(G, b).value
        tolerance = 64 * spec.size * spec.kappa * UNIT * norm(b)
        at_most(norm(x), norm(b), tolerance, "law 19: ‖x‖ ≤ ‖b‖")
        at_most(x @ x, x @ b, tolerance * norm(b), "law 19: ⟨x, b⟩ ≥ ‖x‖²")


# --- mixed precision ----------------------------------------------------------------------------------------------


def check_refinement(make: Any, spec: SpdSpec) -> None:
    """Every correction multiplies the error by at most 64·N·κ·u₃₂, down to what float64 attains."""
    A, b = spec.A(), spec.b()
    x = accurate_solve(A, b).astype(float)
    factor = 64 * spec.size * spec.kappa * 2.0**-24
    if factor >= 0.5:  # nothing is promised
        return
    errors = np.array([norm(make(k)(A, b).value - x) for k in range(7)])
    floor = 64 * spec.size * spec.kappa * UNIT * norm(x)
    at_most(errors[1:], factor * errors[:-1], floor, "refinement: contraction")
    at_most(errors[-1], 0.0, floor + factor**6 * norm(x), "refinement: float64's own accuracy")


# --- every method -------------------------------------------------------------------------------------------------


def check_law_21_any(make: Any, spec: SpdSpec, steps: int = 3) -> None:
    """k steps on (G, b) and on (A, λb) give the same iterate (k ≤ 3, 1e-9)."""
    b = spec.b()
    for k in range(1, steps + 1):
        first, second = make(k)(spec.G(), b).value, make(k)(spec.A(), spec.lam * b).value
        same(first, second, 1e-9 * norm(first), f"law 21: scale invariance, k = {k}")


def check_law_27_any(make: Any, spec: SpdSpec) -> None:
    """b = v with Hv = μv: x = v/(1 + μ/λ) in one step."""
    index = spec.seed % spec.size
    v = orthogonal(np.random.default_rng(spec.seed), spec.size)[:, index]
    tolerance = 64 * spec.size * spec.kappa * UNIT
    value = make(1)(spec.G(), v).value
    same(value, v / (1 + spec.spectrum[index] / spec.lam), tolerance, "law 27: eigenvector")


def check_law_23_any(make: Any, spec: SpdSpec) -> None:
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
