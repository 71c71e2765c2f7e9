"""The unrolled gradient forwards: for few parameters and any number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentError
from implicit_grad.inner import GradientDescent
from implicit_grad.inner._step_size import step_sizes
from implicit_grad.inner.gradient_descent import step_by_step
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import statuses


@dataclass(frozen=True)
class ForwardModeGradient:
    r"""The unrolled gradient with the Jacobian carried along the run instead of a path behind it.

    .. math:: J_{k+1} = (I - \alpha A_k) J_k + \alpha\lambda I, \qquad J_0 = I, \qquad
              g = J_K^\top \nabla L_{\mathrm{test}}(\varphi_K)

    Equal to `UnrolledGradient` up to rounding; memory d² instead of K·d, and d Hessian-vector products a step.

    Notes
    -----
    Works on `GradientDescent` runs that began at θ; the run is made again with the Jacobian. As the unrolled gradient
    it does not ask whether the run ended at a minimum.
    """

    card: ClassVar[Card] = Card(
        "K·d HVPs + 2K + 1 gradients",
        "d²",
        "as unrolled",
        "d is larger than a few dozen",
        saddle="as unrolled",
    )

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "unrolled, forward mode"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the derivative through the whole run of `inner`.

        Raises
        ------
        ArgumentError
            If `inner` is not a `GradientDescent` run.
        """
        expect_solution(inner)
        solver = inner.solver
        if not isinstance(solver, GradientDescent):
            raise ArgumentError(f"inner: only GradientDescent can be run again, got {type(solver).__name__}")
        theta = problem.parameters(theta)
        xp, d = namespace(theta), int(theta.shape[-1])
        alpha, extra = step_sizes(problem, theta, solver.step_size)
        ones = (1,) * (theta.ndim - 1)
        # Row j is J e_j; all d of them go through the Hessian at once.
        rows = xp.zeros((d, *theta.shape), dtype=theta.dtype)
        rows += xp.reshape(xp.eye(d, dtype=theta.dtype), (d, *ones, d))
        start, phi = rows, theta
        lam = problem.lam_like(theta)[..., None]
        alphas = step_by_step(alpha, inner)
        for step in range(solver.steps):
            rows, _ = solver.pull_step(problem, phi, alphas(step), rows)
            if solver.proximal:
                rows = rows + alphas(step)[..., None] * lam * start
            phi = solver.advance(problem, theta, phi, alphas, range(step, step + 1))
        gradient = xp.moveaxis(xp.sum(rows * problem.outer.gradient(phi), axis=-1), 0, -1)
        spent = extra + Cost(gradients=2 * solver.steps + 1, hvps=d * solver.steps)
        return Estimate(gradient, inner, None, inner.cost + spent, statuses(inner.codes))
