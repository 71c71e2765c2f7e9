"""Error sweeps: meta-gradient error over λ, inner steps, estimators and tasks, as one labelled data set.

All tasks and all λ go through as one batch; one inner run serves every inner accuracy and one conjugate gradient
run every number of steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from implicit_grad import border, storage
from implicit_grad.backend import Backend, get_backend, namespace, norm, to_numpy
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.estimators import (
    CheckpointedGradient,
    ForwardModeGradient,
    ImplicitGradient,
    LambdaPath,
    MetaGradient,
    UnrolledGradient,
)
from implicit_grad.inner import GradientDescent, InnerSolver, Newton
from implicit_grad.linear import CG, Cholesky, spectrum_ends
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Solution, describe
from implicit_grad.status import Status, status_codes, statuses, worst_status
from implicit_grad.tasks import TaskSource

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ErrorSweep:
    r"""Relative error of meta-gradient methods against the exact gradient of the branch that was found.

    .. math:: \mathrm{error} = \frac{\lVert g - g^*\rVert}{\lVert g^*\rVert}, \qquad
              g^* = \lambda A(\varphi^*)^{-1}\nabla L_{\mathrm{test}}(\varphi^*)

    φ* is found by Newton from the last iterate of the inner solver, so that it is the minimum which that path
    runs into; for convex losses there is no other.

    Parameters
    ----------
    source : TaskSource
        Where the tasks come from.
    methods : tuple of MetaGradient
        Each with a `GradientDescent` inner solver, whose `steps` and `record` the sweep sets. Methods with the
        same inner solver share its run; conjugate gradients share one recorded run.
    lams : tuple of float
        Values of λ.
    inner_steps : tuple of int
        Step counts K at which the inner run is looked at.
    tasks : int
        Number of tasks.
    seed : int
        Of the tasks and of θ.
    at_optimum : bool
        Also evaluate at φ* itself (`inner_steps = inf`): the pure error of the linear solve.
    reference_solver : InnerSolver
        Polishes the last iterate to φ*.
    """

    source: TaskSource
    methods: tuple[MetaGradient, ...]
    lams: tuple[float, ...]
    inner_steps: tuple[int, ...]
    tasks: int
    seed: int
    at_optimum: bool = False
    reference_solver: InnerSolver = field(default_factory=lambda: Newton(rtol=1e-13))

    def __post_init__(self) -> None:
        if not callable(getattr(self.source, "sample", None)) or isinstance(self.source, type):
            raise ArgumentTypeError(f"source: expected a task source such as Sinusoid(), got {self.source!r}")
        object.__setattr__(self, "methods", _several("methods", self.methods))
        for method in self.methods:
            _check_method(method)
        border.count("tasks", self.tasks, minimum=1)
        object.__setattr__(self, "seed", border.seed("seed", self.seed))
        object.__setattr__(self, "lams", tuple(border.positive_float("lams", x) for x in _several("lams", self.lams)))
        steps = {border.count("inner_steps", k) for k in _several("inner_steps", self.inner_steps)}
        object.__setattr__(self, "inner_steps", tuple(sorted(steps)))

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # of a run that diverged its status tells
    def run(self, progress: Progress = lambda stage: None, *, backend: str | Backend | None = None) -> Any:
        """Return the sweep as an `xarray.Dataset`, which lives on the host whatever the backend.

        `backend` is where the tasks are solved, as in `get_backend`; what is drawn does not depend on it.

        Dimensions are `estimator`, `lam`, `inner_steps` and `task`; variables `relative_error`, `status` (codes
        of `Status`), `distance` (‖φ_K − φ*‖/‖θ − φ*‖), `margin` (λ + μ_min(H)) and, at φ*, `condition`,
        `curvature_min`, `step_size`, `reference_status`. Attributes hold configuration, seed and versions.
        """
        place = get_backend(backend)
        task_rng, theta_rng = np.random.default_rng(self.seed).spawn(2)
        problem = self.source.sample(task_rng, tasks=self.tasks, lam=np.asarray(self.lams)[:, None], backend=place)
        theta = problem.parameters(self.source.initial_parameters(theta_rng, backend=place))
        progress("inner runs")
        runs = {solver: self._inner_run(solver, problem, theta) for solver in self._inner_solvers()}
        progress("reference")
        exact = _Reference(problem, theta, self._branch(runs), self.reference_solver)
        table = _Table(self, problem, theta, exact)
        for solver, run in runs.items():
            progress(f"estimators on {len(self.inner_steps)} inner accuracies")
            table.fill(solver, run)
        progress("curvature")
        return table.dataset(runs)

    def _inner_solvers(self) -> list[GradientDescent]:
        found: dict[GradientDescent, None] = {}
        for method in self.methods:
            solver = method.inner_solver
            assert isinstance(solver, GradientDescent)  # checked at construction
            found[replace(solver, steps=self.inner_steps[-1], record=False)] = None
        return list(found)

    def methods_of(self, solver: GradientDescent) -> Iterator[tuple[int, MetaGradient]]:
        """Iterate over the methods whose inner solver is `solver`, with their positions."""
        for i, method in enumerate(self.methods):
            if replace(method.inner_solver, steps=self.inner_steps[-1], record=False) == solver:  # type: ignore[type-var]
                yield i, method

    def _inner_run(self, solver: GradientDescent, problem: BilevelProblem, theta: Any) -> Solution[Any]:
        unrolled = any(isinstance(m.estimator, UnrolledGradient) for _, m in self.methods_of(solver))
        record: bool | tuple[int, ...] = True if unrolled else self.inner_steps
        return replace(solver, record=record)(problem, theta)

    def _branch(self, runs: dict[GradientDescent, Solution[Any]]) -> Any:
        """Start of the reference: the last iterate on the regularised objective."""
        for solver, run in runs.items():
            if solver.proximal:
                return run.value
        return None


def _several(name: str, values: Any) -> tuple[Any, ...]:
    """Return one entry or more as a tuple, which keeps the sweep hashable."""
    if not isinstance(values, tuple | list | range | np.ndarray):
        raise ArgumentTypeError(f"{name}: expected a tuple, got {values!r}")
    if len(values) == 0:
        raise ArgumentError(f"{name}: at least one entry is needed")
    return tuple(values)


def _check_method(method: Any) -> None:
    """Refuse what cannot be evaluated at all inner accuracies of one run at once."""
    if not isinstance(method, MetaGradient):
        raise ArgumentTypeError(f"methods: expected a MetaGradient, got {method!r}")
    if not isinstance(method.inner_solver, GradientDescent):
        raise ArgumentError(f"methods: a sweep over inner steps needs GradientDescent, got {method!r}")
    if isinstance(method.estimator, CheckpointedGradient | ForwardModeGradient):
        raise ArgumentError(
            f"methods: {method.label} runs the inner solver again, once for each step count; UnrolledGradient gives "
            f"the same numbers from one run"
        )
    if isinstance(method.estimator, LambdaPath):
        raise ArgumentError(f"methods: {method.label} has λ of its own; the sweep's are those of its problem")


class _Reference:
    """φ* and g*, with the spectrum of A there."""

    def __init__(self, problem: BilevelProblem, theta: Any, start: Any, solver: InnerSolver) -> None:
        self.inner = solver(problem, theta, start=start)
        estimate = ImplicitGradient(Cholesky(refinements=2))(problem, theta, self.inner)
        # Without a converged reference there is no error to state: those cells are NaN, and counted.
        self.gradient = np.where(estimate.ok[..., None], to_numpy(estimate.gradient), np.nan)
        self.norm, self.status = norm(to_numpy(estimate.gradient)), to_numpy(estimate.codes)
        self.smallest, largest = spectrum_ends(problem.curvature(self.inner.value))
        self.condition = largest / self.smallest


class _Table:
    """The arrays of a sweep while it fills."""

    def __init__(self, sweep: ErrorSweep, problem: BilevelProblem, theta: Any, exact: _Reference) -> None:
        self.sweep, self.problem, self.theta, self.exact = sweep, problem, theta, exact
        self.steps = (*map(float, sweep.inner_steps), *((np.inf,) if sweep.at_optimum else ()))
        batch = theta.shape[:-1]
        shape = (len(sweep.methods), batch[0], len(self.steps), batch[1])
        self.error = np.full(shape, np.nan)
        self.status = np.full(shape, Status.NONFINITE.code, dtype=np.int8)

    def points(self, run: Solution[Any]) -> Any:
        """Inner iterates at the step counts of the sweep, φ* last: `(S, L, T, d)`."""
        kept = [run.path.points[run.path.index(k)] for k in self.sweep.inner_steps]  # type: ignore[union-attr]
        kept = [*kept, self.exact.inner.value] if self.sweep.at_optimum else kept
        return namespace(*kept).stack(kept, axis=0)

    def inner_codes(self, run: Solution[Any]) -> Any:
        """How a run that ends at each of the points has ended: `(S, L, T)`."""
        path = run.path
        assert path is not None  # recorded
        assert path.codes is not None
        codes = [to_numpy(path.codes[path.index(k), ...]) for k in self.sweep.inner_steps]
        return np.stack([*codes, to_numpy(self.exact.inner.codes)] if self.sweep.at_optimum else codes)

    def fill(self, solver: GradientDescent, run: Solution[Any]) -> None:
        stacked = replace(run, value=self.points(run), path=None, status=statuses(self.inner_codes(run)))
        shared = self._conjugate_gradients(solver, stacked)
        for i, method in self.sweep.methods_of(solver):
            if i in shared:
                continue
            if isinstance(method.estimator, UnrolledGradient):
                gradients = to_numpy(method.estimator.at_steps(self.problem, run, self.sweep.inner_steps)[0])
                codes = self.inner_codes(run)
                if self.sweep.at_optimum:
                    gradients = np.concatenate([gradients, np.full_like(gradients[:1], np.nan)])
                    codes[-1] = Status.NONFINITE.code  # no path ends there
                self._store(i, gradients, codes)
            else:
                estimate = method.estimator(self.problem, self.theta, stacked)
                self._store(i, estimate.gradient, to_numpy(estimate.codes))

    def _conjugate_gradients(self, solver: GradientDescent, stacked: Solution[Any]) -> set[int]:
        """One recorded run of the longest CG gives the gradients of all shorter ones."""
        found = {
            i: m.estimator
            for i, m in self.sweep.methods_of(solver)
            if isinstance(m.estimator, ImplicitGradient) and type(m.estimator.linear_solver) is CG
        }
        budgets = {i: e.linear_solver.max_steps for i, e in found.items() if e.linear_solver.rtol == 0}  # type: ignore[attr-defined]
        if not budgets:
            return set()
        longest = CG(max(budgets.values()), record=True)
        estimate = ImplicitGradient(longest, require_minimum=False)(self.problem, self.theta, stacked)
        assert estimate.path is not None  # record=True
        assert estimate.linear is not None
        codes, taken = to_numpy(estimate.linear.codes), to_numpy(estimate.linear.steps)
        for i, k in budgets.items():
            # A shorter run ends before the direction of negative curvature that stopped the longest.
            early = (codes == Status.INDEFINITE.code) & (k <= taken)
            own = np.where(early, Status.BUDGET_SPENT.code, codes)
            self._store(i, estimate.path.points[k], status_codes(worst_status(stacked, statuses(own))))
        return set(budgets)

    def _store(self, i: int, gradients: Any, codes: Any) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):
            error = norm(to_numpy(gradients) - self.exact.gradient) / self.exact.norm
        self.error[i] = np.moveaxis(error, 0, 1)
        self.status[i] = np.moveaxis(np.broadcast_to(codes, error.shape), 0, 1)

    def _start_norm(self) -> Any:
        """‖∇L_test(θ)‖, what ‖∇F‖ tends to for λ → ∞."""
        return to_numpy(norm(self.problem.outer.gradient(self.theta)))

    def dataset(self, runs: dict[GradientDescent, Solution[Any]]) -> Any:
        xr = storage.xarray()
        run = next((r for s, r in runs.items() if s.proximal), next(iter(runs.values())))
        points = self.points(run)
        distance = to_numpy(norm(points - self.exact.inner.value) / norm(self.theta - self.exact.inner.value))
        margin = spectrum_ends(self.problem.curvature(points))[0]
        sweep = self.sweep
        cube, plane = ("lam", "inner_steps", "task"), ("lam", "task")
        return xr.Dataset(
            {
                "relative_error": (("estimator", *cube), self.error),
                "status": (("estimator", *cube), self.status),
                "distance": (cube, np.moveaxis(distance, 0, 1)),
                "margin": (cube, np.moveaxis(margin, 0, 1)),
                "condition": (plane, self.exact.condition),
                "curvature_min": (plane, self.exact.smallest),
                "step_size": (plane, to_numpy(run.path.step_size)),  # type: ignore[union-attr]
                "reference_status": (plane, self.exact.status.astype(np.int8)),
                "reference_norm": (plane, self.exact.norm),
                "start_norm": (plane, self._start_norm()),
            },
            coords={
                "estimator": [method.label for method in sweep.methods],
                "lam": np.asarray(sweep.lams, dtype=float),
                "inner_steps": np.asarray(self.steps),
                "task": np.arange(sweep.tasks),
            },
            attrs={
                "config": json.dumps(describe(sweep), default=repr),
                "statuses": json.dumps([status.name for status in Status]),
                "source": sweep.source.label,
                "seed": sweep.seed,
                "missing_references": int((~np.isfinite(self.exact.gradient).all(axis=-1)).sum()),
                "dimension": int(self.theta.shape[-1]),
                "versions": json.dumps(storage.versions()),
            },
        )


def powers_of_two(last: int) -> tuple[int, ...]:
    """0, 1, 2, 4, …, last."""
    return (0, *_doubling(last))


def _doubling(last: int) -> Iterable[int]:
    k = 1
    while k <= last:
        yield k
        k *= 2
