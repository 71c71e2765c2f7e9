"""Gradient descent, with its path and the reverse pass through it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, expand, namespace
from implicit_grad.errors import ArgumentError
from implicit_grad.inner._first_order import FullGradient, State, descend
from implicit_grad.inner._recording import checked_record, kept_steps
from implicit_grad.inner._step_size import safe_step_size, step_sizes
from implicit_grad.inner.stopping import Distance, checked_distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Path, Solution


@dataclass(frozen=True)
class GradientDescent:
    r"""Gradient steps on G(·; θ) from θ.

    .. math:: \varphi_{k+1} = \varphi_k - \alpha\,\bigl(\nabla L(\varphi_k) + \lambda(\varphi_k - \theta)\bigr)

    Parameters
    ----------
    step_size : float or None
        α > 0. None takes α = 1/M̄ per problem, with M̄ = λ + the loss's global curvature bound where it knows
        one, else λ + 1.1 times a Lanczos estimate of λ_max(∇²L(θ)); G then never increases on convex losses.
    steps : int
        Largest number K of steps; without a tolerance their number.
    rtol : float
        A problem stops when ‖∇G‖ ≤ rtol · (‖∇L‖ + λ(‖φ‖ + ‖θ‖)).
    distance : Distance, float or None
        A problem stops when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`: one run serves every
        accuracy. Unrolled gradients need True.
    proximal : bool
        With False the proximal term is left out and the steps go down L_train alone, as in MAML: by steps only, since
        they do not lead to φ*.

    Notes
    -----
    Costs K + 1 gradients (the last for the residual), and one linearisation with up to 20 products where the
    step size needs a Lanczos estimate. Without `record` the memory does not depend on K.
    """

    step_size: float | None
    steps: int
    rtol: float = field(default=0.0, kw_only=True)
    distance: Distance | float | None = field(default=None, kw_only=True)
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)
    proximal: bool = field(default=True, kw_only=True)

    card: ClassVar[Card] = Card(
        "K gradients",
        "2 vectors; K with record",
        "(1 − αμ)ᴷ",
        "κ is large; diverges for α > 2/M̄",
        saddle="stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        if self.step_size is not None:
            border.positive_float("step_size", self.step_size)
        border.count("steps", self.steps)
        border.flag("proximal", self.proximal)
        object.__setattr__(self, "rtol", border.tolerance("rtol", self.rtol))
        object.__setattr__(self, "distance", checked_distance(self.distance))
        for name in ("rtol", "distance"):
            if getattr(self, name) and not self.proximal:
                raise ArgumentError(f"{name}: with proximal=False the steps do not lead to φ*; stop them by number")
        object.__setattr__(self, "record", checked_record(self.record, self.steps))

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Step counts whose iterates are recorded."""
        return kept_steps(self.record, self.steps)

    def alpha(self, problem: BilevelProblem, theta: Array) -> Array:
        """Return the step size of every problem: `(...)`."""
        return step_sizes(problem, theta, self.step_size)[0]

    def __call__(
        self, problem: BilevelProblem, theta: Array, *, start: Array | None = None
    ) -> Solution[GradientDescent]:
        """Run from `start` (default θ).

        Raises
        ------
        ArgumentError
            If the recorded path would not fit into this machine's memory, or `distance` cannot be proven.
        """
        theta = problem.parameters(theta)
        alpha, extra = step_sizes(problem, theta, self.step_size)
        rule = _DescentRule(problem, theta, alpha, self.proximal)
        return descend(
            self,
            problem,
            theta,
            start,
            rule,
            alpha=alpha,
            extra=extra,
            rtol=self.rtol,
            distance=self.distance,
            safe=None if self.step_size is None else partial(safe_step_size, problem, theta),
        )

    def advance(
        self, problem: BilevelProblem, theta: Array, phi: Array, alphas: Callable[[int], Array], steps: range
    ) -> Array:
        """Return the iterate after the given steps from φ, the same numbers as a whole run's."""
        rule = FullGradient(problem, theta)
        for step in steps:
            loss = problem.inner.gradient(phi)
            gradient = rule.pulled(loss, phi) if self.proximal else loss
            phi = phi - alphas(step)[..., None] * gradient
        return phi

    def pull_step(self, problem: BilevelProblem, point: Array, alpha: Array, v: Array) -> tuple[Array, Array | None]:
        """Reverse one step taken at `point`: return (I − αA) v, and αλ v, which goes to θ (None without λ)."""
        hvp, step = problem.inner.linearize(point).hvp, alpha[..., None]
        if not self.proximal:
            return v - step * hvp(v), None
        lam = problem.lam_like(v)[..., None]
        moved = lam * v
        moved += hvp(v)
        moved *= step
        return v - moved, step * lam * v

    def pullback(
        self,
        problem: BilevelProblem,
        path: Path,
        steps: tuple[int, ...],
        cotangents: Array,
        window: int | None,
    ) -> tuple[Array, Cost]:
        r"""Reverse pass through the recorded path, for several end points K at once.

        .. math:: g \mathrel{+}= \alpha\lambda\,v, \qquad v \leftarrow v - \alpha A(\varphi_k)\,v, \qquad
                  k = K-1, \dots, 0; \qquad g \mathrel{+}= v \ (\varphi_0 = \theta)

        All end points share each linearisation: reversing runs of 1, 2, 4, …, K steps costs K of them. A run
        that was given its own `start` does not begin at θ, and the last term is left out.

        Parameters
        ----------
        problem : BilevelProblem
        path : Path
            With every step that is reversed: complete from step 0, or with a `window` the last steps of each run.
        steps : tuple of int
            End points, ascending.
        cotangents : (len(steps), ..., d) array
            ∇L_test at the end points.
        window : int or None
            Reverse only the last `window` steps; what lies before them is held constant.

        Returns
        -------
        gradients : (len(steps), ..., d) array
        cost : Cost

        Raises
        ------
        ArgumentError
            Naming a step that is needed and was not recorded.
        """
        if path.step_size is None:
            raise ArgumentError("path: the reverse pass needs the step size; use GradientDescent(..., record=True)")
        position = {step: i for i, step in enumerate(path.steps)}
        xp = namespace(cotangents)
        shape = broadcast_shapes(tuple(cotangents.shape), (1, *path.points.shape[1:]))
        v = expand(cotangents, shape)
        g, cost = xp.zeros_like(v), Cost()
        ends = None if path.taken is None else _ends(path.taken, steps)
        earliest = min(steps) if ends is None else int(xp.min(ends))
        lowest = 0 if window is None else max(0, earliest - window)
        for k in range(max(steps) - 1, lowest - 1, -1):
            begin = bisect_right(steps, k)
            end = len(steps) if window is None or ends is not None else bisect_right(steps, k + window)
            if begin == end:
                continue
            if k not in position:
                whole = "record=True" if window is None else f"record=tuple(range(K - {window}, K + 1))"
                raise ArgumentError(
                    f"path: step {k} was not recorded, and the reverse pass needs every iterate it goes through; "
                    f"use GradientDescent(..., {whole})"
                )
            active, alpha = slice(begin, end), path.step_size
            if ends is not None:
                alpha = xp.where(_within(ends[active, ...], k, window), alpha, xp.zeros_like(alpha))
            v[active, ...], gained = self.pull_step(problem, path.points[position[k], ...], alpha, v[active, ...])
            if gained is not None:
                g[active, ...] += gained
            cost += Cost(gradients=1, hvps=end - begin)
        if path.starts_at_theta:
            for i, step in enumerate(steps):
                if ends is not None and window is not None:
                    g[i, ...] = g[i, ...] + xp.where((ends[i, ...] <= window)[..., None], v[i, ...], 0 * v[i, ...])
                elif window is None or step <= window:
                    g[i, ...] += v[i, ...]
        return g, cost


def step_by_step(alpha: Array, inner: Solution[GradientDescent]) -> Callable[[int], Array]:
    """Return the step size of every step of a run: zero once a tolerance has stopped a problem."""
    solver, taken = inner.solver, inner.steps
    if not (solver.rtol or solver.distance):
        return lambda step: alpha
    xp = namespace(alpha)
    return lambda step: xp.where(taken > step, alpha, xp.zeros_like(alpha))


def _ends(taken: Array, steps: tuple[int, ...]) -> Array:
    """Steps that runs of given lengths really took: `(len(steps), ...)`."""
    xp = namespace(taken)
    return xp.stack([xp.where(taken < step, taken, xp.full_like(taken, step)) for step in steps], axis=0)


def _within(ends: Array, k: int, window: int | None) -> Array:
    """Whether step k is one of the last `window` steps of a run that ends there."""
    return ends > k if window is None else (ends > k) & (ends <= k + window)


class _DescentRule(FullGradient):
    """The state is φ alone."""

    at_iterate = True

    def __init__(self, problem: BilevelProblem, theta: Array, alpha: Array, proximal: bool) -> None:
        super().__init__(problem, theta)
        self.alpha, self.proximal = alpha[..., None], proximal

    def start(self, phi: Array) -> State:
        """Return φ."""
        return (phi,)

    def point(self, state: State) -> Array:
        """Where the next gradient is taken."""
        return state[0]

    def gradient(self, point: Array, step: int = 0) -> tuple[Array, Array]:
        """Return ∇L, and the gradient that the steps follow."""
        if self.proximal:
            return super().gradient(point)
        loss = self.problem.inner.gradient(point)
        return loss, loss

    def update(self, state: State, gradient: Array, step: int) -> State:
        """Return the state after one step."""
        return (state[0] - self.alpha * gradient,)
