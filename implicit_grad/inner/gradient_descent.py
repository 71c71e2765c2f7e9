"""Gradient descent, with its path and the reverse pass through it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, device_of, expand, namespace, norm
from implicit_grad.errors import ArgumentError
from implicit_grad.inner._protocol import start_point
from implicit_grad.inner._recording import check_memory, checked_record, descent_codes, kept_steps
from implicit_grad.inner._step_size import step_sizes
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Path, Solution, statuses


@dataclass(frozen=True)
class GradientDescent:
    r"""`steps` gradient steps on G(·; θ) from θ.

    .. math:: \varphi_{k+1} = \varphi_k - \alpha\,\bigl(\nabla L(\varphi_k) + \lambda(\varphi_k - \theta)\bigr)

    Parameters
    ----------
    step_size : float or None
        α > 0. None takes α = 1/M̄ per problem, with M̄ = λ + the loss's global curvature bound where it knows
        one, else λ + 1.1 times a Lanczos estimate of λ_max(∇²L(θ)); G then never increases on convex losses.
    steps : int
        Number K of steps.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`: one run serves every
        accuracy. Unrolled gradients need True.
    proximal : bool
        With False the proximal term is left out and the steps go down L_train alone, as in MAML.

    Notes
    -----
    Costs K + 1 gradients (the last for the residual), and one linearisation with up to 20 products where the
    step size needs a Lanczos estimate. Without `record` the memory does not depend on K.
    """

    step_size: float | None
    steps: int
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)
    proximal: bool = field(default=True, kw_only=True)

    card: ClassVar[Card] = Card(
        "K gradients", "2 vectors; K with record", "(1 − αμ)ᴷ", "κ is large; diverges for α > 2/M̄"
    )

    def __post_init__(self) -> None:
        if self.step_size is not None:
            border.positive_float("step_size", self.step_size)
        border.count("steps", self.steps)
        border.flag("proximal", self.proximal)
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
        """Run K steps from `start` (default θ).

        Raises
        ------
        ArgumentError
            If the recorded path would not fit into this machine's memory.
        """
        theta = problem.parameters(theta)
        check_memory(theta, len(self.kept_steps))
        xp = namespace(theta)
        phi = start_point(problem, theta, start)
        alpha, extra = step_sizes(problem, theta, self.step_size)
        lam = problem.lam_like(theta)[..., None]
        kept = self.kept_steps
        points = xp.empty((len(kept), *phi.shape), dtype=phi.dtype)
        norms: list[Array] = []
        lives: list[Array] = []
        sizes: list[Array] = []
        alive = xp.isfinite(alpha)
        taken = xp.zeros(alpha.shape, dtype=xp.int64)
        first = None
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(self.steps + 1):
                loss_gradient = problem.inner.gradient(phi)
                pull = phi - theta
                pull *= lam
                gradient = loss_gradient + pull if self.proximal else loss_gradient
                if len(sizes) < len(kept) and step == kept[len(sizes)]:
                    points[len(sizes), ...] = phi
                    lives.append(alive)
                    sizes.append(norm(gradient))
                    norms.append(sizes[-1] if self.proximal else norm(loss_gradient + pull))
                if first is None:
                    first = norm(gradient)
                if step == self.steps:
                    break
                moved = phi - alpha[..., None] * gradient
                # One bad problem is frozen at its last finite iterate; its neighbours go on.
                alive = alive & xp.isfinite(xp.sum(moved, axis=-1))
                # On a device the mask is not looked at: that would make the host wait at every step.
                whole = device_of(alive) is None and bool(xp.all(alive))
                phi = moved if whole else xp.where(alive[..., None], moved, phi)
                taken = taken + xp.astype(alive, xp.int64)
            residual = norm(loss_gradient + pull)
            final = norm(gradient)
        path = None
        if kept:
            path = Path(
                kept,
                points,
                xp.stack(norms, axis=0),
                alpha,
                codes=descent_codes(xp.stack(lives, axis=0), first, xp.stack(sizes, axis=0)),
                costs=tuple(extra + Cost(gradients=step + 1) for step in kept),
                starts_at_theta=start is None,
            )
        return Solution(
            value=phi,
            residual_norm=residual,
            steps=taken,
            status=statuses(descent_codes(alive, first, final)),
            solver=self,
            path=path,
            cost=extra + Cost(gradients=self.steps + 1),
        )

    def advance(self, problem: BilevelProblem, theta: Array, phi: Array, alpha: Array, steps: int) -> Array:
        """Return the iterate `steps` steps after φ, the same numbers as a whole run's."""
        lam = problem.lam_like(theta)[..., None]
        for _ in range(steps):
            gradient = problem.inner.gradient(phi)
            if self.proximal:
                pull = phi - theta
                pull *= lam
                gradient = gradient + pull
            phi = phi - alpha[..., None] * gradient
        return phi

    def pull_step(self, problem: BilevelProblem, point: Array, alpha: Array, v: Array) -> tuple[Array, Array | None]:
        """Reverse one step taken at `point`: return (I − αA) v, and αλ v, which goes to θ (None without λ)."""
        hvp, step = problem.inner.linearize(point).hvp, alpha[..., None]
        if not self.proximal:
            return v - step * hvp(v), None
        lam = problem.lam_like(v)[..., None]
        return v - step * (hvp(v) + lam * v), step * lam * v

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
            Complete from step 0 to max(steps).
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
        """
        xp = namespace(cotangents)
        if path.step_size is None or not path.is_complete():
            raise ArgumentError("path: the reverse pass needs every iterate; use GradientDescent(..., record=True)")
        shape = broadcast_shapes(tuple(cotangents.shape), (1, *path.points.shape[1:]))
        v = expand(cotangents, shape)
        g, cost = xp.zeros_like(v), Cost()
        lowest = 0 if window is None else max(0, min(steps) - window)
        for k in range(max(steps) - 1, lowest - 1, -1):
            begin = bisect_right(steps, k)
            end = len(steps) if window is None else bisect_right(steps, k + window)
            if begin == end:
                continue
            active = slice(begin, end)
            v[active, ...], gained = self.pull_step(problem, path.points[k, ...], path.step_size, v[active, ...])
            if gained is not None:
                g[active, ...] = g[active, ...] + gained
            cost += Cost(gradients=1, hvps=end - begin)
        whole = [i for i, step in enumerate(steps) if path.starts_at_theta and (window is None or step <= window)]
        for i in whole:
            g[i, ...] = g[i, ...] + v[i, ...]
        return g, cost
