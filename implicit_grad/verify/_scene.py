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
from implicit_grad.inner import GradientDescent, Newton
from implicit_grad.objectives import Autodiff, SmoothFunction
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem, Stretched


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

    def pulled_to_zero(self) -> Array:
        """Return the minimum of the train loss with weight decay in place of the proximal term: `(d,)`."""
        zero = np.zeros(self.size)
        return Newton(1e-13)(self.problem, zero, start=self.scale * self.phi).value / self.scale

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

    def solve(self, factor: Any, shift: Any, b: Array) -> Array:
        """Return (cH + diag(shift))⁻¹ b at φ*, NaN where that is singular.

        Parameters
        ----------
        factor : (...) array
            c.
        shift : (..., 1) or (..., d) array
            One entry stands for all: those solves share one eigendecomposition.
        b : (d,) array
        """
        factor, shift = np.asarray(factor, dtype=float)[..., None], np.asarray(shift, dtype=float)
        if shift.shape[-1] == 1:
            values, vectors = self._eigen
            with np.errstate(divide="ignore", invalid="ignore"):
                return ((vectors.T @ b) / (factor * values + shift)) @ vectors.T
        eye = np.eye(self.size)
        return solve(factor[..., None] * self.H + shift[..., None] * eye, b)

    @property
    def shift(self) -> Array:
        """Λ, as a single number where it is one: `(1,)` or `(d,)`."""
        return np.array([self.lam]) if self.uniform else self.weights

    @cached_property
    def right(self) -> Array:
        """Λ(H + Λ)⁻¹∇L_test at φ*: `(d,)`."""
        return self.weights * self.solve(1.0, self.shift, self.v)

    @cached_property
    def step_size(self) -> float:
        """1/M̄ of the regularised train loss: a usual step."""
        return float(GradientDescent(None, 1).alpha(self.problem, self.scale * self.theta))

    def descent(self, step_sizes: Array, steps: int, *, proximal: bool = True) -> Array:
        """Return θ, φ_1, …, φ_K of gradient descent with J step sizes, in `problem`'s variables: `(K+1, J, d)`."""

        def run() -> Array:
            alpha, theta = step_sizes[:, None], self.scale * self.theta
            points = np.empty((steps + 1, step_sizes.size, self.size))
            points[0] = theta
            for k in range(steps):
                phi = points[k]
                pull = self.problem.lam * (phi - theta) if proximal else 0.0
                points[k + 1] = phi - alpha * (self.problem.inner.gradient(phi) + pull)
            return points

        return self.once(("descent", step_sizes.tobytes(), steps, proximal), run)

    def unrolled(self, step_sizes: Array, counts: tuple[int, ...], *, proximal: bool = True) -> tuple[Array, Array]:
        """Return dL_test(φ_K)/dθ with φ_0 = θ, and with φ_0 held constant: two arrays (J, len(counts), d)."""

        def reverse() -> tuple[Array, Array]:
            points = self.descent(step_sizes, max(counts), proximal=proximal)
            alpha, lam = step_sizes[:, None], float(self.problem.lam) if proximal else 0.0
            v = self.problem.outer.gradient(points[list(counts)])
            held, dense = np.zeros_like(v), self.size <= len(counts)
            for k in reversed(range(max(counts))):
                on = [i for i, count in enumerate(counts) if count > k]
                held[on] += alpha * lam * v[on]
                if dense:  # fewer products for a matrix than for all counts
                    Hv = np.einsum("jab,cjb->cja", hessian(self.problem.inner, points[k]), v[on])
                else:
                    Hv = self.problem.inner.linearize(points[k]).hvp(v[on])
                v[on] -= alpha * (Hv + lam * v[on])
            whole = held + v
            return self.scale * np.swapaxes(whole, 0, 1), self.scale * np.swapaxes(held, 0, 1)

        return self.once(("unrolled", step_sizes.tobytes(), counts, proximal), reverse)

    def unrolled_at(self, step_sizes: Array, counts: Array, *, proximal: bool = True) -> tuple[Array, Array]:
        """Return the same for pairs of a step size and a number of steps: two arrays (J, d)."""
        points = self.descent(step_sizes, int(max(counts)), proximal=proximal)
        alpha, lam = step_sizes[:, None], float(self.problem.lam) if proximal else 0.0
        v = self.problem.outer.gradient(points[counts, np.arange(counts.size)])
        held = np.zeros_like(v)
        for k in reversed(range(int(max(counts)))):
            on = np.flatnonzero(counts > k)
            step = alpha[on]
            held[on] += step * lam * v[on]
            v[on] -= step * (self.problem.inner.linearize(points[k, on]).hvp(v[on]) + lam * v[on])
        return self.scale * (held + v), self.scale * held

    def points_at(self, step_sizes: Array, counts: Array, *, proximal: bool = True) -> Array:
        """Return φ_K for pairs of a step size and a number of steps: `(J, d)`."""
        points = self.descent(step_sizes, int(max(counts)), proximal=proximal)
        return points[counts, np.arange(counts.size)] / self.scale

    @property
    def loops(self) -> bool:
        """Whether the train loss takes a batch one by one, so that it is dear."""
        loss = self.train.loss if isinstance(self.train, Stretched) else self.train
        return isinstance(loss, Autodiff) and not loss.broadcasts

    def points(self, step_sizes: Array, counts: tuple[int, ...], *, proximal: bool = True) -> Array:
        """Return φ_K of runs of several lengths: `(J, len(counts), d)`."""
        points = self.descent(step_sizes, max(counts), proximal=proximal)[list(counts)]
        return np.swapaxes(points, 0, 1) / self.scale

    def implicit_at(self, phi: Array) -> Array:
        """Return Λ(H + Λ)⁻¹∇L_test with H and ∇L_test at any φ: `(..., d)`."""
        return self.weights * solve(hessian(self.train, phi) + np.diag(self.weights), self.test.gradient(phi))

    def implicit_of(self, factors: Array) -> Array:
        """Return g of the problems with cΛ in place of Λ: `(J, d)`."""
        good = np.isfinite(factors) & (factors > 0)
        found = np.full((factors.size, self.size), np.nan)
        if good.any():
            c = factors[good]
            problem = self.problem.with_lam(c * self.problem.lam)
            start = np.broadcast_to(self.scale * self.minimum(), (c.size, self.size))
            phi = Newton(1e-13)(problem, self.scale * self.theta, start=start).value / self.scale
            weights = c[:, None] * self.weights
            A = hessian(self.train, phi) + weights[..., None] * np.eye(self.size)
            found[good] = weights * solve(A, self.test.gradient(phi))
        return found


def problem_of(problem: RegularizedProblem, lam: float) -> BilevelProblem:
    """Return the same losses with one λ for all parameters."""
    return BilevelProblem(problem.inner, problem.outer, lam)


def hessian(loss: SmoothFunction, x: Array) -> Array:
    """Return the dense Hessian at x: `(..., d, d)`."""
    at, d = loss.linearize(x), x.shape[-1]
    if at.hessian is not None:
        matrix = np.broadcast_to(at.hessian(), (*x.shape, d))
    else:
        columns = at.hvp(np.broadcast_to(np.eye(d).reshape(d, *(1,) * (x.ndim - 1), d), (d, *x.shape)))
        matrix = np.moveaxis(columns, 0, -1)
    return 0.5 * (matrix + np.swapaxes(matrix, -1, -2))


def solve(A: Array, b: Array) -> Array:
    """Return A⁻¹ b, NaN where A is singular: `(..., d)`."""
    b = np.broadcast_to(b, A.shape[:-1])
    try:
        return np.linalg.solve(A, b[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.full_like(b, np.nan) if A.ndim == 2 else np.array([solve(*each) for each in zip(A, b, strict=True)])


def tree_blocks(loss: Any, size: int) -> tuple[int, ...]:
    """Lengths of weights and biases of a network; two halves of any other parameter vector."""
    loss = loss.loss if isinstance(loss, Stretched) else loss
    widths = getattr(loss, "widths", None)
    if widths is not None:
        return tuple(n for a, b in pairwise(widths) for n in (a * b, b))
    half = (size + 1) // 2
    return (half, size - half) if size > 1 else (1,)
