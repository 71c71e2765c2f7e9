"""The composition that a user calls: inner solver, then estimator."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, device_of, namespace
from implicit_grad.certificates import Constants
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.estimators._accuracy import check, reach
from implicit_grad.estimators.implicit import ImplicitGradient
from implicit_grad.inner import InnerSolver, Newton
from implicit_grad.linear import Cholesky
from implicit_grad.objectives.autodiff import flatten, is_tree
from implicit_grad.problem import BilevelProblem, expect_problem
from implicit_grad.results import Cost, Estimate, Solution


class Estimator(Protocol):
    """Estimate ∇F(θ) from an inner solution; the solution may be any φ."""

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate with its cost and status, per problem."""
        ...


@dataclass(frozen=True)
class MetaGradient:
    r"""∇F(θ) by an inner solver and an estimator.

    .. math:: F(\theta) = L_{\mathrm{test}}(\varphi^*(\theta)), \qquad
              \varphi^*(\theta) = \arg\min_\varphi L_{\mathrm{train}}(\varphi)
              + \tfrac{\lambda}{2}\lVert\varphi-\theta\rVert^2

    Parameters
    ----------
    inner_solver : InnerSolver
        `GradientDescent(step_size, steps)`, `Newton()`, `ScipyMinimize(method)` or any such callable.
    estimator : Estimator
        `ImplicitGradient(linear_solver)`, `UnrolledGradient()`, `FirstOrderGradient()` or any such callable.
    measure_memory : bool
        Record the peak of newly allocated bytes in `Estimate.cost` (tracemalloc: several times slower).

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad import BilevelProblem, CG, GradientDescent, LeastSquares
    >>> rng = np.random.default_rng(5)
    >>> X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    >>> problem = BilevelProblem(LeastSquares(X[:10], y[:10]), LeastSquares(X[10:], y[10:]), lam=0.5)
    >>> imaml = MetaGradient(GradientDescent(None, steps=200), ImplicitGradient(CG(3)))
    >>> estimate = imaml(problem, np.zeros(3))
    >>> bool(np.allclose(estimate.gradient, EXACT(problem, np.zeros(3)).gradient, rtol=1e-12))
    True
    """

    inner_solver: InnerSolver
    estimator: Estimator
    measure_memory: bool = False

    def __post_init__(self) -> None:
        border.strategy("inner_solver", self.inner_solver, "Newton()")
        border.strategy("estimator", self.estimator, "ImplicitGradient(CG(5))")
        border.flag("measure_memory", self.measure_memory)

    @property
    def label(self) -> str:
        """Short name for legends."""
        name = str(getattr(self.estimator, "label", repr(self.estimator)))
        return f"{name} (plain)" if getattr(self.inner_solver, "proximal", True) is False else name

    def __call__(self, problem: BilevelProblem, theta: Any) -> Estimate:
        """Estimate the meta-gradient at θ.

        Parameters
        ----------
        problem : BilevelProblem
        theta : (..., d) array, or a dict, list or tuple of arrays
            A parameter tree is handed to the losses (which are `Autodiff`) as a tree, and
            `Estimate.gradient` has its structure.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            For bad input, before any work.
        """
        expect_problem(problem)
        if is_tree(theta):
            vector, unflatten = flatten(theta)
            if problem.batch_shape:
                raise ArgumentError(
                    f"theta: a parameter tree is one problem, but λ and the losses are a batch "
                    f"{problem.batch_shape}; take its problems one by one, with problem.select"
                )
            estimate = self(problem.on_tree(unflatten), vector)
            return replace(estimate, gradient=unflatten(estimate.gradient))
        theta = problem.parameters(theta)
        if self.measure_memory and device_of(theta) is not None:
            raise ArgumentTypeError("measure_memory: counts memory of the host only, and θ lives on a device")
        return self._measured(problem, theta) if self.measure_memory else self._estimate(problem, theta)

    def to_accuracy(
        self,
        problem: BilevelProblem,
        theta: Array,
        rtol: float = 1e-6,
        *,
        limit: Cost | None = None,
        constants: Constants | None = None,
    ) -> Estimate:
        r"""Estimate the meta-gradient until its own certificate says ‖g − ∇F‖ ≤ rtol·‖g‖.

        Inner steps and linear steps are taken in turn, each from where the last ones ended. The certificate's shares
        say which: the inner solve goes on until its share is half the tolerance (or a hundredth of what it was), and
        the linear system is only solved as accurately as the inner share justifies.

        Parameters
        ----------
        problem : BilevelProblem
        theta : (..., d) array
            Each problem of the batch stops on its own.
        rtol : float
            0 < rtol < 1.
        limit : Cost, optional
            Gradients and Hessian-vector products to be spent; default: 100,000 of each. Steps that were begun are
            finished.
        constants : Constants, optional
            As in `certify`.

        Returns
        -------
        Estimate
            With its certificate. `CONVERGED`: certified, as far as `certificate.kind` goes. `BUDGET_SPENT`: the limit
            came first; the bound is what it is. `STAGNATED`: not attainable; where rounding is to blame,
            rounding_share/‖g‖ is about the smallest rtol that is. `INDEFINITE`: no minimum was found, and no number
            is returned.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            For estimators without a linear solve, inner solvers without steps, and bad input.

        References
        ----------
        Eisenstat, Walker, Choosing the forcing terms in an inexact Newton method, SIAM J. Sci. Comput. 17 (1996).
        """
        expect_problem(problem)
        theta = problem.parameters(theta)
        border.positive_float("rtol", border.tolerance("rtol", rtol))
        if namespace(theta) is not np:
            raise ArgumentTypeError("theta: certificates are computed on the host; move the problem with to_numpy")
        if limit is not None and not isinstance(limit, Cost):
            raise ArgumentTypeError(f"limit: expected Cost(gradients=..., hvps=...), got {limit!r}")
        budget = limit or Cost(gradients=100_000, hvps=100_000)
        linear_solver = check(self.estimator, self.inner_solver)
        return reach(self.inner_solver, linear_solver, problem, theta, rtol, budget, constants)

    def _estimate(self, problem: BilevelProblem, theta: Array) -> Estimate:
        # Of an inner solve that diverged the status tells, and no warning of each operation at its end.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self.estimator(problem, theta, self.inner_solver(problem, theta))

    def _measured(self, problem: BilevelProblem, theta: Array) -> Estimate:
        nested = tracemalloc.is_tracing()
        if not nested:
            tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            estimate = self._estimate(problem, theta)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            if not nested:
                tracemalloc.stop()
        return replace(estimate, cost=estimate.cost + Cost(peak_bytes=peak))


EXACT = MetaGradient(Newton(rtol=1e-13), ImplicitGradient(Cholesky(refinements=2)))
"""The reference: φ* by Newton to the rounding floor, A by Cholesky with refinement."""
