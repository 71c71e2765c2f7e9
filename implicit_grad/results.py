"""What a solve and an estimate return: values with their status, per problem of the batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from implicit_grad._deferred import Deferrable, held, replaced
from implicit_grad.backend import Array, namespace, to_numpy
from implicit_grad.errors import ArgumentError, ArgumentTypeError, ConvergenceError, IndefiniteError
from implicit_grad.status import Judged, Status, statuses

SolverT = TypeVar("SolverT")


@dataclass(frozen=True)
class Card:
    """What a method costs and when it fails, in the words of the README's tables, which are generated from these.

    Attributes
    ----------
    cost : str
        Products and gradients after the inner solve.
    memory : str
        Numbers kept for one problem, beyond a few vectors.
    error : str
        Order of the error.
    fails : str
        The failure mode.
    saddle : str
        What it does at a saddle or a maximum, where there is no meta-gradient.
    """

    cost: str
    memory: str
    error: str
    fails: str
    saddle: str


@dataclass(frozen=True)
class Cost:
    """Oracle calls made for each problem of the batch; the batch makes them together.

    Attributes
    ----------
    gradients : int
        Gradients of the train and of the test loss. A linearisation counts as one: it stores the passes a
        gradient makes.
    hvps : int
        Hessian-vector products, the d products of a dense Hessian among them.
    values : int
        Loss values without a gradient (line searches, derivative-free solvers).
    hessians : int
        Hessians assembled from a loss's structure, without products.
    peak_bytes : int or None
        Peak of newly allocated memory, where it was measured.
    """

    gradients: int = 0
    hvps: int = 0
    values: int = 0
    hessians: int = 0
    peak_bytes: int | None = None

    def __add__(self, other: Cost) -> Cost:
        peaks = [p for p in (self.peak_bytes, other.peak_bytes) if p is not None]
        return Cost(
            self.gradients + other.gradients,
            self.hvps + other.hvps,
            self.values + other.values,
            self.hessians + other.hessians,
            max(peaks) if peaks else None,
        )

    def times(self, count: int) -> Cost:
        """Return what `count` such runs cost: the calls add up, the peak does not."""
        return Cost(
            self.gradients * count,
            self.hvps * count,
            self.values * count,
            self.hessians * count,
            self.peak_bytes,
        )


@dataclass(frozen=True, eq=False)
class Path:
    """Iterates kept from one run.

    Attributes
    ----------
    steps : tuple of int
        Step counts at which the iterates were taken, ascending.
    points : (len(steps), ..., d) array
    residual_norms : (len(steps), ...) array
        Recomputed at each kept iterate where the solver has it at hand.
    step_size : (...) array or None
        The step size α used, for first-order methods.
    codes : (len(steps), ...) int array or None
        `Status.code`, where the points live, of a run that would have ended at each kept step.
    costs : tuple of Cost
        What such a run would have cost, leaving out what recording costs.
    starts_at_theta : bool
        Whether the run began at θ, so that its first point moves with θ.
    taken : (...) int array or None
        Steps after which each problem stood still, where a tolerance may have stopped it before the last.
    """

    steps: tuple[int, ...]
    points: Array
    residual_norms: Array
    step_size: Array | None = None
    codes: Array | None = None
    costs: tuple[Cost, ...] = ()
    starts_at_theta: bool = True
    taken: Array | None = None

    def index(self, step: int) -> int:
        """Return the position of `step`.

        Raises
        ------
        ArgumentError
            If that step was not kept.
        """
        try:
            return self.steps.index(step)
        except ValueError:
            raise ArgumentError(f"step: {step} was not recorded; recorded steps are {self.steps}") from None

    def is_complete(self) -> bool:
        """Whether every step from 0 to the last was kept."""
        return self.steps == tuple(range(len(self.steps)))


@dataclass(frozen=True, eq=False)
class Solution(Judged, Generic[SolverT]):
    """Result of an inner or a linear solve, one per problem of the batch.

    Attributes
    ----------
    value : (..., d) array
        The iterate; NaN where there is none (a Cholesky factor of an indefinite matrix).
    residual_norm : (...) array
        ‖∇_φ G(φ, θ)‖ of an inner, ‖b − A x‖ of a linear solve; always recomputed from `value`.
    steps : (...) int array
        Steps taken.
    status : Status or (...) object array of Status
    solver : object
        The value object that made it.
    path : Path or None
        Iterates, where the solver was asked to keep them.
    cost : Cost
    smallest_eigenvalue : (...) array or None
        Smallest curvature met: exact where a dense factorisation failed, else an upper bound of λ_min(A)
        (a Rayleigh quotient). Never a certificate.
    condition : (...) array or None
        Condition number κ, or an estimate of it, of what the solver factored: A, or the small matrix of `Woodbury`.
    safe_step_size : (...) array or None
        1/M̄ after a descent that diverged, where the loss knows a bound of its curvature.
    """

    value: Array
    residual_norm: Array
    steps: Any
    status: Any = Deferrable()
    solver: SolverT = field()  # type: ignore[misc]  # the status before it is required
    path: Path | None = None
    cost: Cost = field(default_factory=Cost)
    smallest_eigenvalue: Any = Deferrable(None)
    condition: Array | None = None
    safe_step_size: Array | None = None

    def unwrap(self) -> Array:
        """Return `value` if every problem succeeded.

        Raises
        ------
        IndefiniteError, ConvergenceError
            Naming the first failed problem, its status and its residual. The error carries this solution.
        """
        ok = np.asarray(self.ok)
        if ok.all():
            return self.value
        index = tuple(int(i) for i in np.argwhere(~ok)[0])
        status = self.status if isinstance(self.status, Status) else self.status[index]
        where = f"problem {index} of the batch {ok.shape}" if index else "the problem"
        residual = float(to_numpy(self.residual_norm)[index])
        message = f"{self.solver!r}: {where}: {status.name}: {status.value}. Residual norm {residual:.3g}"
        if status is Status.INDEFINITE and self.smallest_eigenvalue is not None:
            smallest = float(to_numpy(self.smallest_eigenvalue)[index])
            raise IndefiniteError(f"{message}; smallest eigenvalue of H + λI seen: {smallest:.6g}", self)
        if status is Status.DIVERGED and self.safe_step_size is not None:
            message = f"{message}; a step of 1/M̄ = {float(to_numpy(self.safe_step_size)[index]):.3g} cannot diverge"
        if status is Status.ILL_CONDITIONED and self.condition is not None:
            message = f"{message}; κ is about {float(to_numpy(self.condition)[index]):.1e}"
        error = IndefiniteError if status is Status.INDEFINITE else ConvergenceError
        raise error(message, self)

    def at(self, step: int) -> Solution[SolverT]:
        """Return the solution a run of `step` steps would have given, from the recorded path.

        Value, residual, status and cost are those of that run: what happened after `step` is not known to it.

        Raises
        ------
        ArgumentError
            If the path was not recorded, or not at that step.
        """
        if self.path is None:
            raise ArgumentError(f"path: {self.solver!r} recorded none; ask it to with record=")
        i = self.path.index(step)
        solver = self.solver
        names = {f.name for f in dataclasses.fields(solver)} if dataclasses.is_dataclass(solver) else set()
        changes: dict[str, Any] = {name: step for name in ("steps", "max_steps") if name in names}
        if "record" in names and isinstance(solver.record, tuple):  # type: ignore[attr-defined]
            changes["record"] = self.path.steps[: i + 1]
        if changes:
            solver = dataclasses.replace(solver, **changes)  # type: ignore[type-var]
        path, kept = self.path, slice(0, i + 1)
        steps = self.steps
        return replaced(
            self,
            value=path.points[i, ...],
            residual_norm=path.residual_norms[i, ...],
            steps=namespace(steps).where(steps < step, steps, namespace(steps).full_like(steps, step)),
            status=held(self, "status") if path.codes is None else statuses(path.codes[i, ...]),
            solver=solver,
            path=dataclasses.replace(
                path,
                steps=path.steps[kept],
                points=path.points[kept, ...],
                residual_norms=path.residual_norms[kept, ...],
                codes=None if path.codes is None else path.codes[kept, ...],
                costs=path.costs[kept],
            ),
            cost=path.costs[i] if path.costs else self.cost,
        )


@dataclass(frozen=True, eq=False)
class Estimate(Judged):
    """A meta-gradient with what it came from.

    Attributes
    ----------
    gradient : (..., d) array, or the parameter tree of θ
        Estimate of ∇F(θ), one per problem; average over tasks afterwards.
    inner : Solution
        The inner solve.
    linear : Solution or None
        The linear solve, for implicit estimators; its residual is r_lin = b − (I + H/λ) g.
    cost : Cost
    status : Status or (...) object array of Status
        The first stage that failed, else the last stage's success.
    certificate : object or None
    path : Path or None
        The estimates of every recorded step of the linear solve (`steps` counts linear steps).
    """

    gradient: Any
    inner: Solution[Any]
    linear: Solution[Any] | None
    cost: Cost
    status: Any = Deferrable()
    certificate: Any = None
    path: Path | None = None

    def unwrap(self) -> Any:
        """Return `gradient` if every stage succeeded for every problem.

        Raises
        ------
        IndefiniteError, ConvergenceError
            Of the first stage that failed: the inner solve, the linear one, or a solve of the estimator's own.
        """
        self.inner.unwrap()
        if self.linear is not None:
            self.linear.unwrap()
        ok = np.asarray(self.ok)
        if not ok.all():
            index = tuple(int(i) for i in np.argwhere(~ok)[0])
            status = self.status if isinstance(self.status, Status) else self.status[index]
            where = f"problem {index} of the batch {ok.shape}" if index else "the problem"
            error = IndefiniteError if status is Status.INDEFINITE else ConvergenceError
            raise error(f"estimate: {where}: {status.name}: {status.value}", self.inner)
        return self.gradient


def expect_solution(inner: Any) -> None:
    """Refuse what did not come from an inner solver.

    Raises
    ------
    ArgumentTypeError
        Naming the type that came, and how to make a solution of a bare φ.
    """
    if not isinstance(inner, Solution):
        raise ArgumentTypeError(
            f"inner: expected the Solution of an inner solver, got {type(inner).__name__}; for a φ of your own pass "
            "Newton(max_steps=0)(problem, theta, start=phi)"
        )


def describe(strategy: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a strategy to label columns: `{"estimator": "ImplicitGradient", "estimator.linear_solver": "CG", …}`.

    `dataclasses.asdict` would drop the class names, which are the point of a label.

    Examples
    --------
    >>> from implicit_grad import CG, ImplicitGradient
    >>> describe(ImplicitGradient(CG(max_steps=5)), "estimator")["estimator.linear_solver"]
    'CG'
    """
    if not dataclasses.is_dataclass(strategy) or isinstance(strategy, type):
        return {prefix: strategy}
    columns: dict[str, Any] = {prefix: type(strategy).__name__} if prefix else {"": type(strategy).__name__}
    for f in dataclasses.fields(strategy):
        name = f"{prefix}.{f.name}" if prefix else f.name
        columns.update(describe(getattr(strategy, f.name), name))
    return columns
