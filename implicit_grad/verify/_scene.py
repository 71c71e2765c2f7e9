"""One problem at one θ, with everything that right and wrong formulas are made of, each computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.estimators.unrolled import UnrolledGradient
from implicit_grad.inner import GradientDescent, Newton
from implicit_grad.objectives import SmoothFunction
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem, Stretched
from implicit_grad.results import Solution


@dataclass(frozen=True, eq=False)
class Scene:
    """A problem without batch axes at θ; Λ is λ for every parameter, or the diagonal that the problem has.

    Attributes
    ----------
    problem : BilevelProblem
        λ = 1 in the variables √Λφ, where Λ is a diagonal.
    theta : (d,) array
    weights : (d,) array
        Λ.
    lam : float
        λ; NaN for a diagonal.
    train, test : SmoothFunction
        The losses in the user's own variables.
    blocks : tuple of int
        Lengths of the pieces that the parameters come in; a solver of a parameter tree knows them.
    start : (d,) array or None
        Where to look for φ; None is θ.
    """

    problem: BilevelProblem
    theta: Array
    weights: Array
    lam: float
    train: SmoothFunction
    test: SmoothFunction
    blocks: tuple[int, ...]
    start: Array | None = None
    _kept: dict[Any, Any] = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def of(
        cls, problem: Any, theta: Array, *, blocks: tuple[int, ...] | None = None, start: Array | None = None
    ) -> Scene:
        """Build the scene of a `BilevelProblem`, or of a `RegularizedProblem` with a quadratic regulariser.

        Raises
        ------
        ArgumentTypeError
            For a batch, and for other kinds of problem.
        """
        theta = np.array(theta, dtype=float)
        if isinstance(problem, RegularizedProblem):
            whitened, scale = problem.whitened()
            weights = np.broadcast_to(np.asarray(scale) ** 2, theta.shape)
            uniform = bool((weights == weights[0]).all())
            lam = float(weights[0]) if uniform else float("nan")
            whitened = problem_of(problem, lam) if uniform else whitened
        elif isinstance(problem, BilevelProblem):
            whitened, lam = problem, float(np.asarray(problem.lam)) if np.ndim(problem.lam) == 0 else float("nan")
            weights = np.full(theta.shape, lam)
        else:
            raise ArgumentTypeError(f"problem: expected a BilevelProblem, got {type(problem).__name__}")
        if whitened.batch_shape or theta.ndim != 1:
            raise ArgumentTypeError(
                f"problem: a scene is one problem, got the batch {whitened.batch_shape} and theta {theta.shape}; use "
                f"problem.select"
            )
        lengths = tree_blocks(problem.inner, theta.size) if blocks is None else blocks
        return cls(whitened, theta, weights, lam, problem.inner, problem.outer, lengths, start)

    @property
    def size(self) -> int:
        """Number d of parameters."""
        return int(self.theta.size)

    @property
    def uniform(self) -> bool:
        """Whether Λ = λI."""
        return bool(np.isfinite(self.lam))

    @property
    def scale(self) -> Array:
        """√Λ, where the variables of `problem` are √Λφ; 1 where they are φ: `(d,)`."""
        return np.ones(self.size) if self.uniform else np.sqrt(self.weights)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what was made under this key, making it the first time."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def minimum(self, factor: float = 1.0) -> Array:
        """Return φ* of the problem with factor · Λ: `(d,)`."""

        def solve() -> Array:
            near = self.start if factor == 1.0 else self.minimum()
            start = None if near is None else self.scale * near
            problem = self.problem if factor == 1.0 else self.problem.with_lam(factor * self.problem.lam)
            return Newton(1e-13)(problem, self.scale * self.theta, start=start).value / self.scale

        return self.once(("minimum", factor), solve)

    @cached_property
    def phi(self) -> Array:
        """φ*: `(d,)`."""
        return self.minimum()

    @cached_property
    def v(self) -> Array:
        """∇L_test(φ*): `(d,)`."""
        return self.test.gradient(self.phi)

    @cached_property
    def H(self) -> Array:  # noqa: N802  the name of the field
        """∇²L_train(φ*): `(d, d)`."""
        return hessian(self.train, self.phi)

    @cached_property
    def _eigen(self) -> tuple[Array, Array]:
        return np.linalg.eigh(self.H)

    def solve(self, hessian_factor: float, shift: Any, b: Array) -> Array:
        """Return (cH + diag(shift))⁻¹ b at φ*; NaN where that is singular."""
        if np.ndim(shift) == 0:
            values, vectors = self._eigen
            with np.errstate(divide="ignore", invalid="ignore"):
                return vectors @ ((vectors.T @ b) / (hessian_factor * values + shift))
        return solve(hessian_factor * self.H + np.diag(shift), b)

    @property
    def shift(self) -> Any:
        """Λ as a number where it is one: its solves are cheaper."""
        return self.lam if self.uniform else self.weights

    @cached_property
    def right(self) -> Array:
        """Λ(H + Λ)⁻¹∇L_test at φ*: `(d,)`."""
        return self.weights * self.solve(1.0, self.shift, self.v)

    @cached_property
    def step_size(self) -> float:
        """1/M̄ of the regularised train loss: a usual step."""
        return float(GradientDescent(None, 1).alpha(self.problem, self.scale * self.theta))

    def run(self, step_size: float, steps: int, *, proximal: bool = True) -> Solution[Any]:
        """Return a recorded gradient descent from θ, in the variables of `problem`."""
        solver = GradientDescent(step_size, steps, record=True, proximal=proximal)
        return self.once(solver, lambda: solver(self.problem, self.scale * self.theta))

    def unrolled(self, step_size: float, counts: tuple[int, ...], *, proximal: bool = True) -> Array:
        """Return the reverse passes of runs of several lengths: `(len(counts), d)`."""
        run = self.run(step_size, max(counts), proximal=proximal)
        return self.scale * UnrolledGradient().at_steps(self.problem, run, counts)[0]

    def points(self, step_size: float, counts: tuple[int, ...], *, proximal: bool = True) -> Array:
        """Return φ_K of runs of several lengths: `(len(counts), d)`."""
        path = self.run(step_size, max(counts), proximal=proximal).path
        assert path is not None  # it is recorded
        return path.points[list(counts)] / self.scale

    def implicit_at(self, phi: Array) -> Array:
        """Return Λ(H + Λ)⁻¹∇L_test with H and ∇L_test at any φ: `(d,)`."""
        return self.weights * solve(hessian(self.train, phi) + np.diag(self.weights), self.test.gradient(phi))


def problem_of(problem: RegularizedProblem, lam: float) -> BilevelProblem:
    """Return the same losses with one λ for all parameters."""
    return BilevelProblem(problem.inner, problem.outer, lam)


def hessian(loss: SmoothFunction, x: Array) -> Array:
    """Return the dense Hessian at x: `(d, d)`."""
    at = loss.linearize(x)
    matrix = at.hessian() if at.hessian is not None else at.hvp(np.eye(x.size))
    return 0.5 * (matrix + matrix.T)


def solve(A: Array, b: Array) -> Array:
    """Return A⁻¹ b, NaN where A is singular."""
    try:
        return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return np.full_like(b, np.nan)


def tree_blocks(loss: Any, size: int) -> tuple[int, ...]:
    """Lengths of weights and biases of a network; two halves of any other parameter vector."""
    loss = loss.loss if isinstance(loss, Stretched) else loss
    widths = getattr(loss, "widths", None)
    if widths is not None:
        return tuple(n for a, b in pairwise(widths) for n in (a * b, b))
    half = (size + 1) // 2
    return (half, size - half) if size > 1 else (1,)
