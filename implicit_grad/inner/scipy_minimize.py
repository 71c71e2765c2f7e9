"""Any of SciPy's minimisers as a black-box inner solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace, norm
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.inner._protocol import gradient_scale, start_point
from implicit_grad.inner.stopping import Distance, Stop, checked_distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status, statuses

_DERIVATIVE_FREE = frozenset({"Nelder-Mead", "Powell", "COBYLA", "COBYQA"})
_SECOND_ORDER = frozenset({"Newton-CG", "trust-ncg", "trust-krylov"})
_FIRST_ORDER = frozenset({"BFGS", "L-BFGS-B", "CG", "TNC", "SLSQP"})


@dataclass(frozen=True)
class ScipyMinimize:
    """Minimise G with `scipy.optimize.minimize`, one problem at a time.

    Implicit gradients do not care how φ was found: derivative-free and quasi-Newton solvers are as good as any,
    if the residual they leave is small. That residual is recomputed here, and it alone decides the status.

    Parameters
    ----------
    method : str
        SciPy's name. Derivative-free: Nelder-Mead, Powell, COBYLA, COBYQA. With gradients: BFGS, L-BFGS-B, CG,
        TNC, SLSQP. With Hessian-vector products: Newton-CG, trust-ncg, trust-krylov.
    rtol : float
        `CONVERGED` means ‖∇_φ G‖ ≤ rtol · (‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖)).
    distance : Distance, float or None
        And that ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`. SciPy stops by its own
        `options`, whatever is asked for here.
    max_steps : int
        Passed as `maxiter` (to TNC, which has none, as `maxfun`).
    options : tuple of (str, value) pairs
        Further SciPy options, such as `(("gtol", 1e-12),)`; a tuple keeps the solver hashable.

    Raises
    ------
    ArgumentError
        For a method it does not know.
    """

    method: str = "L-BFGS-B"
    rtol: float = 1e-6
    max_steps: int = 1000
    options: tuple[tuple[str, Any], ...] = ()
    distance: Distance | float | None = field(default=None, kw_only=True)

    card: ClassVar[Card] = Card(
        "of SciPy's method",
        "of SciPy's method",
        "‖∇G‖ as asked",
        "one problem at a time; derivative-free in more than a few dimensions",
        saddle="of SciPy's method",
    )

    def __post_init__(self) -> None:
        known = _DERIVATIVE_FREE | _FIRST_ORDER | _SECOND_ORDER
        if self.method not in known:
            raise ArgumentError(f"method: {self.method!r} is none of {sorted(known)}")
        border.tolerance("rtol", self.rtol)
        object.__setattr__(self, "distance", checked_distance(self.distance))
        border.count("max_steps", self.max_steps)
        if not isinstance(self.options, tuple):
            raise ArgumentTypeError(f"options: expected a tuple of (name, value) pairs, got {self.options!r}")

    def __call__(
        self, problem: BilevelProblem, theta: Array, *, start: Array | None = None
    ) -> Solution[ScipyMinimize]:
        """Minimise G(·; θ) from `start` (default θ).

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        theta = problem.parameters(theta)
        if namespace(theta) is not np:
            raise ArgumentTypeError("theta: SciPy minimises NumPy arrays only; use Newton or GradientDescent")
        phi = start_point(problem, theta, start)
        # Before the work: an unknown convexity is an error.
        stop = None if self.distance is None else Stop(problem, theta, 0.0, self.distance)
        verdict = Cost() if stop is None else stop.verdict_cost
        shape = theta.shape[:-1]
        steps, limited = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        values = gradients = hvps = 0
        for index in np.ndindex(shape):
            run = _Run(problem.select(index, shape), theta[index])
            result = self._minimize(run, phi[index]) if self.max_steps else None
            if result is not None:
                phi[index] = result.x
                steps[index] = result.get("nit", result.nfev)
                spent = result.nfev if self._limit == "maxfun" else steps[index]
                limited[index] = not result.success and spent >= self.max_steps
            values, gradients, hvps = (
                max(values, run.values),
                max(gradients, run.gradients),
                max(hvps, run.hvps),
            )
        loss_gradient = problem.inner.gradient(phi)
        residual = norm(loss_gradient + problem.lam_like(phi)[..., None] * (phi - theta))
        codes = np.full(shape, Status.STAGNATED.code)
        codes[limited | (self.max_steps == 0)] = Status.MAX_STEPS.code
        within = residual <= self.rtol * gradient_scale(problem, phi, theta, loss_gradient)
        if stop is not None:
            within &= stop.met(residual, 0 * residual, stop.floor(phi))
        codes[within] = Status.CONVERGED.code
        codes[~np.isfinite(residual)] = Status.NONFINITE.code
        return Solution(
            phi,
            residual,
            steps,
            statuses(codes),
            self,
            cost=Cost(gradients=gradients + 1, hvps=hvps, values=values) + verdict,
        )

    @property
    def _limit(self) -> str:
        # TNC limits evaluations, and only warns of an unknown `maxiter`.
        return "maxfun" if self.method == "TNC" else "maxiter"

    def _minimize(self, run: _Run, start: Array) -> Any:
        from scipy.optimize import minimize

        options = {self._limit: self.max_steps, **dict(self.options)}
        derivatives: dict[str, Callable[..., Any]] = {}
        if self.method not in _DERIVATIVE_FREE:
            derivatives["jac"] = run.gradient
        if self.method in _SECOND_ORDER:
            derivatives["hessp"] = run.hvp
        return minimize(run.value, start, method=self.method, options=options, **derivatives)


class _Run:
    """G of one problem as SciPy wants it, counting calls."""

    def __init__(self, problem: BilevelProblem, theta: Array) -> None:
        self.problem, self.theta = problem, theta
        self.values = self.gradients = self.hvps = 0
        self.point: Array | None = None

    def value(self, phi: Array) -> float:
        self.values += 1
        return float(self.problem.value(phi, self.theta))

    def gradient(self, phi: Array) -> Array:
        self.gradients += 1
        return np.asarray(self.problem.stationarity(phi, self.theta))

    def hvp(self, phi: Array, v: Array) -> Array:
        # SciPy asks for many products at one point.
        if self.point is None or not np.array_equal(self.point, phi):
            self.gradients += 1
            self.point, self.curvature = phi.copy(), self.problem.curvature(phi)
        self.hvps += 1
        return np.asarray(self.curvature(v))
