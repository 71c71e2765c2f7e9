"""Stochastic gradient descent on minibatches."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.inner._first_order import FullGradient, State, descend
from implicit_grad.inner._recording import checked_record
from implicit_grad.inner._step_size import loss_curvature
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution

_AHEAD = 1024
"""Minibatches drawn together."""


@dataclass(frozen=True)
class SGD:
    r"""Gradient descent on G(·; θ) with the train loss of a fresh minibatch in every step.

    .. math:: \varphi_{k+1} = \varphi_k - \alpha_k\bigl(\nabla L_{B_k}(\varphi_k) + \lambda(\varphi_k - \theta)\bigr),
              \qquad \alpha_k = \frac{\alpha}{1 + \mathrm{decay}\cdot k}

    B_k is drawn without replacement, independently for every step, by `numpy.random.default_rng(seed).choice` on the
    host, and put in ascending order: with `batch_size` = n this is gradient descent, bit by bit. All problems of a
    batch see the same positions, so that each does what it would do alone.

    Parameters
    ----------
    step_size : float or None
        α > 0. None takes 1/(λ + M n/m) per problem, with the loss's curvature M as in `GradientDescent`: no minibatch
        of m from n samples has a larger one.
    steps : int
        Number K of steps.
    batch_size : int
        Samples m of a minibatch.
    seed : int
        Of the draws. The same seed gives the same run, bit by bit.
    decay : float
        0 keeps the step size. αλ makes α_k = 1/(1/α + λk), with which E‖φ_k − φ*‖² = O(1/k) on convex losses.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        When called on a train loss without `minibatch`, such as `Autodiff`, or with fewer samples than `batch_size`.

    Notes
    -----
    K gradients of m samples, each counted as one, and one of all samples for the residual, with one more for each
    recorded step. That residual belongs to the whole loss, so the solution says how far from *its* minimum this run
    ended. With a constant step it ends at a distance of O(√α) and stays there; the status is that of a spent budget.
    Where there are several minima different seeds may find different ones: an estimator that is given this
    solution speaks of the one found. Use `rtol` of another solver, started here, to sharpen it.

    References
    ----------
    Robbins, Monro, A stochastic approximation method, 1951.
    """

    step_size: float | None
    steps: int
    batch_size: int
    seed: int
    decay: float = field(default=0.0, kw_only=True)
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "1 gradient of m samples a step",
        "O(d)",
        "O(√α), with decay O(K^−½)",
        "digits are wanted: noise stays",
        saddle="noise moves off it",
    )

    def __post_init__(self) -> None:
        if self.step_size is not None:
            object.__setattr__(self, "step_size", border.positive_float("step_size", self.step_size))
        border.count("steps", self.steps)
        border.count("batch_size", self.batch_size, minimum=1)
        object.__setattr__(self, "seed", _checked_seed(self.seed))
        if isinstance(self.decay, bool) or self.decay != 0:
            object.__setattr__(self, "decay", border.positive_float("decay", self.decay))
        object.__setattr__(self, "record", checked_record(self.record, self.steps))

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[SGD]:
        """Run from `start` (default θ)."""
        theta = problem.parameters(theta)
        loss: Any = problem.inner
        if not hasattr(loss, "minibatch"):
            raise ArgumentTypeError(
                f"problem: SGD needs a train loss over samples, with n_samples and minibatch(indices), such as "
                f"LeastSquares; got {type(loss).__name__}"
            )
        if self.batch_size > loss.n_samples:
            raise ArgumentError(f"batch_size: {self.batch_size} is more than the {loss.n_samples} samples")
        alpha, extra = self._step_sizes(problem, theta)
        return descend(
            self, problem, theta, start, _MinibatchRule(problem, theta, self, alpha), alpha=alpha, extra=extra
        )

    def _step_sizes(self, problem: BilevelProblem, theta: Array) -> tuple[Array, Cost]:
        if self.step_size is not None:
            return namespace(theta).full_like(theta[..., 0], self.step_size), Cost()
        curvature, extra = loss_curvature(problem, theta)
        loss: Any = problem.inner
        return 1 / (curvature * (loss.n_samples / self.batch_size) + problem.lam_like(theta)), extra


def _checked_seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ArgumentTypeError(f"seed: expected a whole number >= 0, got {value!r}")
    if value < 0:
        raise ArgumentError(f"seed: expected a whole number >= 0, got {value}")
    return int(value)


class _MinibatchRule(FullGradient):
    """The state is φ alone."""

    at_iterate = False

    def __init__(self, problem: BilevelProblem, theta: Array, settings: SGD, alpha: Array) -> None:
        super().__init__(problem, theta)
        self.settings, self.alpha = settings, alpha[..., None]
        self.loss: Any = problem.inner
        self.rng = np.random.default_rng(settings.seed)
        self.left = settings.steps
        self.batches: list[Array] = []

    def start(self, phi: Array) -> State:
        """Return φ."""
        return (phi,)

    def point(self, state: State) -> Array:
        """Where the next gradient is taken."""
        return state[0]

    def gradient(self, point: Array, step: int = 0) -> tuple[Array, Array]:
        """Return ∇L_B and ∇L_B + λ(φ − θ) for the next minibatch B."""
        if not self.batches:
            self._draw(min(self.left, _AHEAD))
        loss = self.loss.minibatch(self.batches.pop()).gradient(point)
        return loss, loss + self.lam * (point - self.theta)

    def _draw(self, count: int) -> None:
        """Draw positions for some steps at once: a device gets them in one piece."""
        n, m = self.loss.n_samples, self.settings.batch_size
        drawn = np.stack([np.sort(self.rng.choice(n, m, replace=False)) for _ in range(count)])
        rows = namespace(self.theta).asarray(drawn)
        self.batches = [rows[i, ...] for i in reversed(range(count))]
        self.left -= count

    def update(self, state: State, gradient: Array, step: int) -> State:
        """Return the state after one step."""
        return (state[0] - self.alpha / (1 + self.settings.decay * step) * gradient,)
