"""The truncated Neumann series: what k steps of unrolling at φ* amount to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, epsilon, look_again, namespace
from implicit_grad.linear._restarts import mark_saddles
from implicit_grad.linear._system import System, prepare, verdict
from implicit_grad.linear.lanczos import extreme_eigenvalues
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status

_LANCZOS_STEPS = 20
_SAFETY = 1.1


@dataclass(frozen=True)
class Neumann:
    r"""`steps` terms of the Neumann series of A⁻¹, for all problems of a batch at once.

    .. math:: x_k = \alpha \sum_{j<k} (I - \alpha A)^j\, b, \qquad x_k - A^{-1}b = -(I - \alpha A)^k A^{-1} b

    These are Richardson's iterates x ← x + α(b − A x) from 0, and λx_k is the derivative through the last k of many
    gradient descent steps of size α at φ*: truncated backpropagation. Conjugate gradient is closer to A⁻¹b in the
    energy norm after as many products, always.

    Parameters
    ----------
    step_size : float or None
        α > 0; the series converges if and only if 0 < α λ < 2 for all eigenvalues λ of A. None takes 1/M̄ per
        problem, M̄ = the operator's bound of λ_max where it has one, else 1.1 times a Lanczos estimate.
    steps : int
        Number k of terms.
    record : bool
        Keep every partial sum in `Solution.path`.

    Notes
    -----
    One product a term and one for the final residual; up to 20 more for a Lanczos estimate. ‖r_k‖ = ‖(I − αA)ᵏb‖
    shrinks in every step if the series converges, and never again once it has grown: at the first step that would
    let it grow the problem keeps its partial sum and is `DIVERGED` (lower α), or `INDEFINITE` where a Rayleigh
    quotient or, then, a Lanczos probe of up to 20 products shows that A is not positive definite and no α will do.
    What does not show within k terms is not noticed: a step far below 1/λ_max hides a saddle.
    It is `STAGNATED` where ‖r_k‖ does not change by more than rounding. `Solution.smallest_eigenvalue` is the
    smallest curvature met, an upper bound of λ_min(A).

    References
    ----------
    Lorraine, Vicol, Duvenaud, Optimizing millions of hyperparameters by implicit differentiation, AISTATS 2020;
    Shaban et al., Truncated back-propagation for bilevel optimization, AISTATS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> A, b = np.diag([1.0, 0.5]), np.array([1.0, 1.0])
    >>> Neumann(1.0, steps=3)(A, b).value
    array([1.  , 1.75])
    >>> Neumann(4.5, steps=3)(A, b).status
    Status.DIVERGED
    """

    step_size: float | None
    steps: int
    record: bool = field(default=False, kw_only=True)
    card: ClassVar[Card] = Card(
        "k + 1 HVPs (+ min(20, d) where no bound of λ_max is known)",
        "none",
        "(1 − αλ_min)ᵏ",
        "αλ_max ≥ 2; κ in the hundreds",
        saddle="refused at a step that lets ‖r‖ grow; unseen in few or short steps",
    )

    def __post_init__(self) -> None:
        if self.step_size is not None:
            border.positive_float("step_size", self.step_size)
        border.count("steps", self.steps)
        border.flag("record", self.record)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"Neumann-{self.steps}"

    def __call__(self, A: Any, b: Array) -> Solution[Neumann]:
        """Sum the series for A⁻¹ b."""
        system = prepare(A, b)
        xp = namespace(system.b)
        alpha, lowest, setup = self._step_sizes(system)
        saddle = lowest <= 0
        series = _Series(system, alpha, saddle)
        points = [series.x] if self.record else None
        with np.errstate(over="ignore", invalid="ignore"):
            while series.count < self.steps and look_again(series.active, series.count, tolerance=False):
                series.advance()
                if points is not None:
                    points.append(xp.asarray(series.x, copy=True))
        done, probe = series.count, 0
        onset = series.onset()
        if setup.hvps == 0 and onset <= done:
            # The growth is either a step too long or a saddle, and only the second has no remedy.
            probe = min(_LANCZOS_STEPS, system.A.size)
            lowest = _lowest(system, probe)[0]
        lowest = xp.where(series.grown | saddle, lowest, xp.full_like(lowest, float("inf")))
        series.negative = series.negative | (lowest <= 0)
        smallest = xp.where(lowest < series.smallest, lowest, series.smallest)

        def cost(k: int) -> Cost:
            return setup + Cost(hvps=min(k, done) + (probe if k >= onset else 0) + 1)

        if points is not None:
            points += [points[-1]] * (self.steps + 1 - len(points))
        recorded = range(len(points or ()))
        solution = verdict(
            system,
            series.x,
            solver=self,
            rtol=0.0,
            # Terms below rounding are not computed, but they are there.
            steps=xp.where(series.faded, xp.full_like(series.steps, self.steps), series.steps),
            budget=self.steps,
            operator_norm=series.largest,
            failed={
                Status.NONFINITE: series.nonfinite,
                Status.STAGNATED: series.stuck,
                Status.DIVERGED: series.grown,
                Status.INDEFINITE: series.negative,
            },
            iterates=None if points is None else xp.stack(points, axis=0),
            costs=tuple(map(cost, recorded)),
            cost=cost(self.steps) + Cost(hvps=len(recorded)),
            smallest_eigenvalue=smallest,
        )
        return mark_saddles(solution, saddle & system.finite)

    def _step_sizes(self, system: System) -> tuple[Array, Array, Cost]:
        """α and, where it took a Lanczos run, the smallest Ritz value, per problem."""
        xp, A = namespace(system.b), system.A
        one = xp.ones_like(system.b[..., 0])
        unknown = xp.full_like(one, float("inf"))
        if self.step_size is not None:
            return self.step_size * one, unknown, Cost()
        if A.bound is not None:
            return one / A.bound(), unknown, Cost()
        count = min(_LANCZOS_STEPS, A.size)
        lowest, largest = _lowest(system, count)
        usable = xp.isfinite(largest) & (largest > 0)
        alpha = xp.where(usable, 1 / (_SAFETY * xp.where(usable, largest, one)), one)
        return alpha, lowest, Cost(hvps=count)


def _lowest(system: System, count: int) -> tuple[Array, Array]:
    """Extreme Ritz values of A in the shape of the system; the smallest is 0 where rounding hides its sign."""
    xp, one = namespace(system.b), system.b[..., 0] * 0 + 1
    with np.errstate(over="ignore", invalid="ignore"):
        smallest, largest = (xp.asarray(end, dtype=one.dtype) * one for end in extreme_eigenvalues(system.A, count))
    noise = count * epsilon(one) * xp.abs(largest)
    hidden = (smallest > 0) & (smallest <= noise)
    return xp.where(hidden, xp.zeros_like(smallest), smallest), largest


class _Series:
    """The partial sums of a batch, and why some of them ended early."""

    def __init__(self, system: System, alpha: Array, saddle: Array) -> None:
        xp = namespace(system.b)
        self.A, self.alpha = system.A, alpha
        self.x, self.r = xp.zeros_like(system.b), xp.asarray(system.b, copy=True)
        self.square = dot(self.r, self.r)
        self.floor = epsilon(self.r) ** 4 * self.square
        self.active = (self.square > 0) & ~saddle
        self.negative, self.nonfinite, self.grown, self.stuck, self.faded = (
            xp.zeros_like(self.active) for _ in range(5)
        )
        self.smallest, self.largest = xp.full_like(alpha, float("inf")), xp.zeros_like(alpha)
        self.steps = xp.zeros(alpha.shape, dtype=xp.int64)
        self.count, self._grew_at = 0, xp.full_like(alpha, float("inf"))

    def advance(self) -> None:
        """Add one term to every sum whose residual it lets shrink."""
        xp, eps, d = namespace(self.r), epsilon(self.r), self.A.size
        Ar = self.A(self.r)
        self.count += 1
        curvature, one = dot(self.r, Ar), xp.ones_like(self.square)
        usable = self.active & xp.isfinite(curvature)
        self.nonfinite = self.nonfinite | (self.active & ~usable)
        quotient = curvature / xp.where(self.active, self.square, one)
        self.smallest = xp.where(usable & (quotient < self.smallest), quotient, self.smallest)
        self.largest = xp.where(usable & (quotient > self.largest), quotient, self.largest)
        positive = quotient > eps * self.largest
        self.negative = self.negative | (usable & ~positive)
        following = self.r - self.alpha[..., None] * Ar
        square = dot(following, following)
        growth = usable & positive & ~(square < self.square)
        self.stuck = self.stuck | (growth & (square <= (1 + 8 * d * eps) * self.square))
        self.grown = self.grown | (growth & ~self.stuck)
        self._grew_at = xp.where(self.grown & xp.isinf(self._grew_at), self.count * one, self._grew_at)
        good = usable & positive & ~growth
        # A zero step would do, were it not for the NaN of a neighbour.
        self.x = self.x + xp.where(good, self.alpha, 0 * self.alpha)[..., None] * self.r
        self.r = xp.where(good[..., None], following, xp.zeros_like(self.r))
        self.square = square
        self.steps = self.steps + xp.astype(good, xp.int64)
        self.active = good & (square > self.floor)
        self.faded = self.faded | (good & ~self.active & (square > 0))

    def onset(self) -> float:
        """Step at which the first residual of the batch would have grown."""
        grew = self._grew_at
        return float(namespace(grew).min(grew)) if 0 not in grew.shape else float("inf")
