"""Laws of conjugate gradient after k steps: what makes it more than a solver that stopped early."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad.testing.closed_forms import accurate_solve
from implicit_grad.testing.comparisons import NotApplicable, at_most, same
from implicit_grad.testing.linear_subject import LinearSubject
from implicit_grad.testing.matrices import UNIT, Array, LinearSystem
from implicit_grad.testing.promises import Krylov

norm = np.linalg.norm


def energy(A: Array, error: Array) -> Any:
    """‖error‖_A for a stack of errors."""
    return np.sqrt(np.einsum("...i,ij,...j->...", error, A, error))


def check_termination(solve: LinearSubject, system: LinearSystem) -> None:
    """CG is exact after as many steps as A has distinct eigenvalues, to 1e-7 for κ ≤ 10³."""
    if not isinstance(solve.promise, Krylov):
        raise NotApplicable("only steps of CG end like this")
    A, b = system.matrix(), system.rhs()
    if len(set(system.eigenvalues)) > solve.promise.steps:
        raise NotApplicable("more distinct eigenvalues than steps")
    x = accurate_solve(A, b).astype(np.float64)
    same(solve(A, b).value, x, 1e-7 * norm(x), f"‖x_{solve.promise.steps} − A⁻¹b‖")


def check_chebyshev(solve: LinearSubject, system: LinearSystem) -> None:
    """‖x_k − x‖_A ≤ 2((√κ−1)/(√κ+1))^k ‖x‖_A."""
    if not isinstance(solve.promise, Krylov):
        raise NotApplicable("a bound of CG's error")
    A, b = system.matrix(), system.rhs()
    x = accurate_solve(A, b).astype(np.float64)
    root = system.condition**0.5
    bound = 2 * ((root - 1) / (root + 1)) ** solve.promise.steps * energy(A, x)
    rounding = 1e3 * system.size * UNIT * system.condition * energy(A, x)
    at_most(energy(A, solve(A, b).value - x), bound, rounding, "energy error")


def check_optimality(solve: LinearSubject, system: LinearSystem) -> None:
    """No polynomial of degree k − 1 in A, applied to b, comes nearer in the energy norm: nor does a turn of x_k."""
    if not isinstance(solve.promise, Krylov):
        raise NotApplicable("only CG is the best of its Krylov space")
    A, b, k = system.matrix(), system.rhs(), min(solve.promise.steps, 6)
    x = accurate_solve(A, b).astype(np.float64)
    basis = krylov_basis(A, b, k)
    rounding = 1e3 * system.size * UNIT * system.condition * energy(A, x)
    best = basis @ np.linalg.solve(basis.T @ A @ basis, basis.T @ b)
    at_most(energy(A, solve(A, b).value - x), energy(A, best - x), rounding, f"energy error of step {k}")


def krylov_basis(A: Array, b: Array, k: int) -> Array:
    """Orthonormal columns that span {b, Ab, …, A^{k−1}b}, fewer where that space is invariant."""
    basis = [b / norm(b)]
    while len(basis) < k:
        w = A @ basis[-1]
        for _ in range(2):
            for q in basis:
                w = w - (q @ w) * q
        if norm(w) <= 8 * len(b) * UNIT * norm(A, 2):
            break
        basis.append(w / norm(w))
    return np.array(basis).T
