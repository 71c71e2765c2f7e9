"""The unrolled gradient: reverse through the inner solver's own steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentError
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Path, Solution, expect_solution
from implicit_grad.status import statuses


@dataclass(frozen=True)
class UnrolledGradient:
    r"""MAML's meta-gradient: the exact derivative of L_test(φ_K(θ)) through K recorded gradient steps.

    .. math:: g_K = \Bigl(\frac{\mathrm d\varphi_K}{\mathrm d\theta}\Bigr)^{\!\top}
              \nabla L_{\mathrm{test}}(\varphi_K), \qquad \frac{\mathrm d\varphi_{k+1}}{\mathrm d\theta}
              = (I - \alpha A_k)\frac{\mathrm d\varphi_k}{\mathrm d\theta} + \alpha\lambda I,
              \qquad \frac{\mathrm d\varphi_0}{\mathrm d\theta} = I

    Of the regularised objective it tends to the implicit gradient as K grows; of the plain one
    (`GradientDescent(..., proximal=False)`) it does not: there the Jacobian of a convex loss tends to zero.

    Parameters
    ----------
    window : int or None
        Reverse only the last `window` steps W (truncated backpropagation); None reverses all.

    Notes
    -----
    Needs `GradientDescent(..., record=True)`: memory grows with K, K + 1 vectors a problem. K Hessian-vector
    products and K linearisations. With a window `record=tuple(range(K - W, K + 1))` is enough: W + 1 vectors, however
    large K is. It is the derivative of the path,
    right wherever that ends; whether the end is a minimum is not asked.

    References
    ----------
    Finn, Abbeel, Levine 2017, arXiv:1703.03400; Shaban et al. 2019, arXiv:1810.10667 (truncation).
    """

    window: int | None = None

    card: ClassVar[Card] = Card(
        "K HVPs + K + 1 gradients",
        "K vectors",
        "O(K(1 − αμ)ᴷ) against ∇F; exact for φ_K(θ)",
        "K is large; of a plain run it does not tend to ∇F",
        saddle="does not look: the derivative of the path, wherever that ends",
    )

    def __post_init__(self) -> None:
        if self.window is not None:
            border.count("window", self.window)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "unrolled" if self.window is None else f"unrolled, last {self.window}"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the derivative through the whole path of `inner`."""
        expect_solution(inner)
        path = _path(inner)
        last = path.steps[-1]
        gradients, cost = self.at_steps(problem, inner, (last,))
        return Estimate(gradients[0, ...], inner, None, inner.cost + cost, statuses(inner.codes))

    def at_steps(self, problem: BilevelProblem, inner: Solution[Any], steps: tuple[int, ...]) -> tuple[Array, Cost]:
        """Return the gradients of runs of several lengths from one path: `(len(steps), ..., d)`.

        Raises
        ------
        ArgumentError
            If a step that is needed was not recorded, the solver has no reverse pass, or `steps` does not ascend.
        """
        path, solver = _path(inner), inner.solver
        if not steps or list(steps) != sorted(steps):
            raise ArgumentError(f"steps: expected ascending step counts, got {steps}")
        ends = namespace(path.points).stack([path.points[path.index(step), ...] for step in steps], axis=0)
        cotangents = problem.outer.gradient(ends)
        gradients, cost = solver.pullback(problem, path, tuple(steps), cotangents, self.window)
        return gradients, cost + Cost(gradients=len(steps))


def _path(inner: Solution[Any]) -> Path:
    if not hasattr(inner.solver, "pullback"):
        raise ArgumentError(
            f"inner: {type(inner.solver).__name__} has no reverse pass; "
            "unroll GradientDescent, or use ImplicitGradient"
        )
    if inner.path is None:
        raise ArgumentError(
            "inner: the unrolled gradient needs every inner iterate; use GradientDescent(..., record=True)"
        )
    return inner.path
