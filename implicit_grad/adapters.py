"""Solvers and estimators inside larger autograd programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, device_of
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.estimators import MetaGradient
from implicit_grad.implicit import ImplicitFunction
from implicit_grad.linear import LinearSolver
from implicit_grad.linear.general_lu import GeneralLU
from implicit_grad.newton_root import operator
from implicit_grad.objectives import AutodiffMap
from implicit_grad.objectives._primitive import Loss, Root, loss_of, reshape, root_of, vector_of
from implicit_grad.objectives.autodiff import make_known
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Solution


def implicit_function(
    solver: Callable[[Any], Any],
    F: Callable[[Any, Any], Any],
    linear_solver: LinearSolver | None = None,
    rtol: float = 1e-6,
) -> Callable[[Any], Any]:
    r"""Make θ ↦ φ*(θ) of any solver differentiable by autograd, forwards and backwards, to any order.

    .. math:: F(\varphi^*, \theta) = 0, \qquad
              \frac{\mathrm d\varphi^*}{\mathrm d\theta} = -(\partial_\varphi F)^{-1}\,\partial_\theta F

    The solver is never differentiated. The derivatives are linear solves with ∂_φF, roots of linear maps, and are
    differentiated as such: derivatives of derivatives need third derivatives of a loss, and autograd has them.

    Parameters
    ----------
    solver : callable
        `solver(theta)` returns φ, an array of any shape or a `Solution`. It gets plain arrays, in the structure in
        which θ was given.
    F : callable
        `F(phi, theta)`, zero at the solution and of the shape of φ, written with `autograd.numpy`. All that φ depends
        on and is to be differentiated by has to come in through θ.
    linear_solver : LinearSolver, optional
        `GeneralLU()` by default; where F is a gradient, `Cholesky()` refuses saddles and `CG(k, rtol)` needs no
        matrix.
    rtol : float
        A plain array is refused unless ‖F‖ ≤ rtol · (‖∂_φF φ‖ + ‖∂_θF θ‖).

    Returns
    -------
    callable
        θ ↦ φ*(θ), for θ a number, an array, or a dict, list or tuple of arrays.

    Raises
    ------
    ConvergenceError, IndefiniteError
        When called or differentiated: if φ is no root, or a linear solve fails. No wrong number enters the program.
    ArgumentTypeError
        For θ on a device: `ImplicitFunction` works there.

    Notes
    -----
    A reverse pass costs one solve with the transpose, a forward pass one solve; each of their own derivatives takes
    one or two more. Every solve linearises F afresh.

    References
    ----------
    Blondel et al., Efficient and modular implicit differentiation, 2022, arXiv:2105.15183.

    Examples
    --------
    The square root as a root, and its first two derivatives at 4:

    >>> from autograd import grad
    >>> root = implicit_function(np.sqrt, lambda phi, theta: phi**2 - theta)
    >>> root(4.0), grad(root)(4.0), grad(grad(root))(4.0)
    (array(2.), array(0.25), array(-0.03125))
    """
    settings = _Settings(solver, F, GeneralLU() if linear_solver is None else linear_solver, rtol)

    def phi_star(theta: Any) -> Any:
        """Return φ*(θ), differentiably."""
        _refuse_device(theta)
        vector, unflatten = vector_of(theta)
        call = _Call(settings, unflatten)
        flat = root_of(vector, Root(call.F, call.find, call.solve))
        return reshape(flat, call.shape)

    return phi_star


def _refuse_device(theta: Any) -> None:
    """Refuse device arrays anywhere in a structure, before autograd does so without saying why."""
    if isinstance(theta, dict | list | tuple):
        for each in theta.values() if isinstance(theta, dict) else theta:
            _refuse_device(each)
    elif device_of(theta) is not None:
        raise ArgumentTypeError("theta: implicit_function takes NumPy arrays only; use ImplicitFunction on a device")


@dataclass(frozen=True, eq=False)
class _Settings:
    """What one differentiable solver is made of, checked."""

    solver: Callable[[Any], Any]
    F: Callable[[Any, Any], Any]
    linear_solver: LinearSolver
    rtol: float

    def __post_init__(self) -> None:
        border.strategy("solver", self.solver, "lambda theta: ...")
        border.strategy("linear_solver", self.linear_solver, "GeneralLU()")
        border.tolerance("rtol", self.rtol)
        if not callable(self.F):
            raise ArgumentTypeError(f"F: expected a callable F(phi, theta), got {type(self.F).__name__}")


@dataclass(eq=False)
class _Call:
    """One φ*(θ), on flat vectors; the shape of φ is known once the solver has run."""

    settings: _Settings
    unflatten: Callable[[Any], Any]
    shape: tuple[int, ...] = field(init=False)

    def F(self, phi: Any, theta: Any) -> Any:  # noqa: N802 -- the map's name
        value = self.settings.F(reshape(phi, self.shape), self.unflatten(theta))
        shape = np.shape(value)
        if shape != self.shape:
            raise ArgumentError(f"F: returned shape {shape} where {self.shape}, that of phi, was expected")
        return reshape(value, (-1,))

    def find(self, theta: Array) -> Array:
        found = self.settings.solver(self.unflatten(theta))
        phi = border.real_array("solver", found.unwrap() if isinstance(found, Solution) else found)
        self.shape = tuple(phi.shape)
        if not isinstance(found, Solution):
            self._function.judge(phi.reshape(-1), theta).unwrap()
        return phi.reshape(-1)

    def solve(self, phi: Array, theta: Array, b: Array, transposed: bool) -> Array:
        function = self._function
        at = function.F.linearize(phi, theta)
        return function.linear_solver(operator(at, phi, transposed=transposed), b).unwrap()

    @property
    def _function(self) -> ImplicitFunction:
        return ImplicitFunction(AutodiffMap(self.F), self.settings.linear_solver, self.settings.rtol)


def outer_loss(problem: BilevelProblem, method: MetaGradient) -> Callable[[Any], Any]:
    r"""Make θ ↦ F(θ) = L_test(φ(θ)) differentiable by autograd, with any estimator as its gradient.

    Parameters
    ----------
    problem : BilevelProblem
    method : MetaGradient
        Inner solver and estimator. The value is L_test at the inner solution; the derivative is what the estimator
        says, and no more exact than that.

    Returns
    -------
    callable
        `theta (..., d) → (...)`, one loss a problem. It can be differentiated once; `implicit_function` goes further.
        With arrays on a device call it before you differentiate it for the first time (as `Autodiff`, it makes them
        known to autograd, which otherwise cannot differentiate with respect to their type).

    Raises
    ------
    ConvergenceError, IndefiniteError
        When differentiated: if a stage of the estimate failed.

    Examples
    --------
    >>> from autograd import grad
    >>> from implicit_grad import EXACT, LeastSquares
    >>> train, test = LeastSquares(np.eye(2), np.ones(2)), LeastSquares(np.eye(2), np.zeros(2))
    >>> problem = BilevelProblem(train, test, lam=0.5)
    >>> theta = np.array([0.5, -1.0])
    >>> grad(lambda t: outer_loss(problem, EXACT)(3 * t))(theta)
    array([ 0.9375, -0.75  ])
    """
    if not isinstance(problem, BilevelProblem):
        raise ArgumentTypeError(f"problem: expected a BilevelProblem, got {type(problem).__name__}")
    if not isinstance(method, MetaGradient):
        raise ArgumentTypeError(f"method: expected a MetaGradient, got {type(method).__name__}")

    def loss(theta: Any) -> Any:
        """Return F(θ), differentiably."""
        make_known(theta)
        kept: list[tuple[Array, Solution[Any]]] = []

        def value(t: Array) -> Array:
            t = problem.parameters(t)
            inner = method.inner_solver(problem, t)
            kept[:] = [(t, inner)]
            return problem.outer.value(inner.value)

        def gradient(_: Array) -> Array:
            t, inner = kept[0]
            return method.estimator(problem, t, inner).unwrap()

        return loss_of(theta, Loss(value, gradient))

    return loss
