"""One Newton step from any φ, as correcting and one-step estimators take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from implicit_grad.backend import Array, namespace
from implicit_grad.linear import LinearSolver, Operator
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Solution


@dataclass(frozen=True, eq=False)
class NewtonMove:
    """φ − A⁻¹∇G(φ), with the A and the solve it was made with. It costs one linearisation and the solve."""

    value: Array
    operator: Operator
    linear: Solution[Any]


def newton_move(problem: BilevelProblem, theta: Array, phi: Array, solver: LinearSolver) -> NewtonMove:
    """Take one full Newton step of G(·; θ) from φ; a problem without a solution of its system stays at φ."""
    xp = namespace(phi)
    at = problem.inner.linearize(phi)
    A = problem.operator(at, phi)
    linear = solver(A, -(at.gradient + problem.lam_like(phi)[..., None] * (phi - theta)))
    found = xp.all(xp.isfinite(linear.value), axis=-1)[..., None]
    return NewtonMove(phi + xp.where(found, linear.value, xp.zeros_like(phi)), A, linear)
