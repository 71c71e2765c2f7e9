"""What the studies behind the figures share: a scene with its exact gradient, errors, and a labelled data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from implicit_grad import EXACT, BilevelProblem, Cholesky, ImplicitGradient, InnerSolver, Solution, describe, storage
from implicit_grad.backend import NUMPY, Backend, get_backend, norm
from implicit_grad.errors import ArgumentError
from implicit_grad.linear import spectrum_ends
from implicit_grad.tasks import TaskSource

Progress = Callable[[str], Any]


def silent(stage: str) -> None:
    """Report nothing."""


class Study(Protocol):
    """A value that computes one labelled data set: its fields say all that the numbers depend on."""

    def run(self, progress: Progress = silent, *, backend: str | Backend | None = None) -> Any:
        """Return an `xarray.Dataset`; its attribute `ran` is the sentence that the caption needs."""
        ...


def host(backend: str | Backend | None) -> None:
    """Refuse a device: these studies measure on the host.

    Raises
    ------
    ArgumentError
        For any backend but NumPy.
    """
    if get_backend(backend) is not NUMPY:
        raise ArgumentError(f"backend: this figure is measured on the host, got {backend!r}; leave --backend out")


@dataclass(frozen=True, eq=False)
class Scene:
    """A batch of problems with the exact answer.

    Attributes
    ----------
    problem : BilevelProblem
    theta : (..., d) array
    optimum : Solution
        φ*, the minimum that the start leads to.
    gradient : (..., d) array
        g* there; NaN where φ* was not found, so that no error is stated there.
    smallest, largest : (...) arrays
        Ends of the spectrum of A(φ*).
    """

    problem: BilevelProblem
    theta: Any
    optimum: Solution[Any]
    gradient: Any
    smallest: Any
    largest: Any

    @property
    def condition(self) -> Any:
        """κ(A) at φ*."""
        return self.largest / self.smallest

    def error(self, gradient: Any) -> Any:
        """‖g − g*‖/‖g*‖, per problem; leading axes of `gradient` are kept."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return norm(gradient - self.gradient) / norm(self.gradient)

    def distance(self, phi: Any) -> Any:
        """‖φ − φ*‖/‖θ − φ*‖, per problem."""
        return norm(phi - self.optimum.value) / norm(self.theta - self.optimum.value)


def draw(source: TaskSource, lam: Any, tasks: int, seed: int) -> tuple[BilevelProblem, Any]:
    """Draw tasks and one θ for all of them, each from its own stream of the seed, as a sweep does."""
    task_rng, theta_rng = np.random.default_rng(seed).spawn(2)
    problem = source.sample(task_rng, tasks=tasks, lam=lam, backend=NUMPY)
    return problem, problem.parameters(source.initial_parameters(theta_rng, backend=NUMPY))


def solved(
    problem: BilevelProblem, theta: Any, *, solver: InnerSolver = EXACT.inner_solver, start: Any = None
) -> Scene:
    """Find φ* from `start` (default θ) and the gradient there."""
    optimum = solver(problem, theta, start=start)
    estimate = ImplicitGradient(Cholesky(refinements=2))(problem, theta, optimum)
    smallest, largest = spectrum_ends(problem.curvature(optimum.value))
    gradient = np.where(np.asarray(estimate.ok)[..., None], estimate.gradient, np.nan)
    return Scene(problem, theta, optimum, gradient, smallest, largest)


def hessian(problem: BilevelProblem, loss: Any, phi: Any) -> Any:
    """∇²loss(φ) in full, for each problem: (..., d, d). The regulariser of the problem is left out."""
    return problem.operator(loss.linearize(phi), phi, proximal=False).dense()


def dataset(study: Any, variables: Mapping[str, Any], coords: Mapping[str, Any], *, ran: str, **attrs: Any) -> Any:
    """Return the data set of a study with its configuration and versions."""
    return storage.xarray().Dataset(
        dict(variables),
        coords=dict(coords),
        attrs={
            "ran": ran,
            "config": json.dumps(describe(study), default=repr),
            "versions": json.dumps(storage.versions()),
            **attrs,
        },
    )


def median_slope(x: Any, y: Any, keep: Any = True) -> float:
    """Slope of y over x (already logarithms, or counts) by least squares, per column, and the median of these.

    NaN where no column has three points.
    """
    x, y = (np.asarray(each, dtype=float) for each in (x, y))
    x, y = (each if each.ndim > 1 else each[:, None] for each in (x, y))
    x, y, keep = np.broadcast_arrays(x, y, keep)
    slopes = []
    for column in range(y.shape[1]):
        use = keep[:, column] & np.isfinite(x[:, column]) & np.isfinite(y[:, column])
        if use.sum() >= 3:
            slopes.append(float(np.polyfit(x[use, column], y[use, column], 1)[0]))
    return float(np.median(slopes)) if slopes else float("nan")
