"""The library itself, by its public interface."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.cases import Data, MetaCase, ProductCase, SweepCase, bilevel_problem
from benchmarks.contenders import Form, Forms
from implicit_grad import CG, GradientDescent, ImplicitGradient, MetaGradient, Solution, UnrolledGradient
from implicit_grad.estimators import CheckpointedGradient

THREADS = 2
_POOL = ThreadPoolExecutor(THREADS)
"""NumPy's loops and matrix products let go of the interpreter's lock: two halves of a batch take both cores."""

SPLIT = f"batch split over {THREADS} threads"


def _same(result: Any) -> Any:
    return result


def _offered(name: str, one: Form, parts: list[Form], axis: int = 0) -> dict[str, Form]:
    """Return the form of the whole batch and, where there is more than one part, that of a thread for each."""
    if len(parts) < 2:
        return {name: one}

    def call() -> list[Any]:
        return [future.result() for future in [_POOL.submit(part.call) for part in parts]]

    def host(results: list[Any]) -> Any:
        arrays = [part.host(result) for part, result in zip(parts, results, strict=True)]
        if isinstance(arrays[0], dict):
            return {key: np.concatenate([each[key] for each in arrays], axis=axis) for key in arrays[0]}
        return np.concatenate(arrays, axis=axis)

    return {name: one, f"{name}, {SPLIT}": Form(call, host)}


def _parts(data: Data, tasks: int) -> list[Data]:
    """Split every array that has a row for each task."""
    if tasks < 2 * THREADS:
        return []
    bounds = np.linspace(0, tasks, THREADS + 1).astype(int)
    rows = {name for name, value in data.items() if np.ndim(value) > 1 and np.shape(value)[0] == tasks}
    return [
        {name: value[start:stop] if name in rows else value for name, value in data.items()}
        for start, stop in pairwise(bounds)
    ]


def products(case: ProductCase, data: Data) -> Forms:
    """HVP after `linearize`, the linearisation, and the gradient."""

    def of(data: Data) -> dict[str, Form]:
        loss, x, v = case.model.loss(data["X"], data["y"]), data["x"], data["v"]
        linearization = loss.linearize(x)
        return {
            "HVP": Form(lambda: linearization.hvp(v), _same),
            "gradient": Form(lambda: loss.gradient(x), _same),
            "linearisation": Form(lambda: loss.linearize(x), lambda result: result.gradient),
        }

    names = {"HVP": "linearize, hvp", "gradient": "gradient", "linearisation": "linearize"}
    whole, parts = of(data), [of(part) for part in _parts(data, case.tasks)]
    return {what: _offered(name, whole[what], [part[what] for part in parts]) for what, name in names.items()}


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """`ImplicitGradient(CG(k))` at the given φ."""
    estimator = ImplicitGradient(CG(case.cg_steps))

    def of(data: Data) -> Form:
        problem, theta, inner = _at_phi(case, data)
        return Form(lambda: estimator(problem, theta, inner), lambda estimate: estimate.unwrap())

    parts = [of(part) for part in _parts(data, case.tasks)]
    return {"meta-gradient": _offered("ImplicitGradient(CG)", of(data), parts)}


def _at_phi(case: MetaCase, data: Data) -> tuple[Any, Any, Solution[Any]]:
    problem = bilevel_problem(case.model, data)
    theta = problem.parameters(data["theta"])
    nothing = GradientDescent(data["step_size"], 0)
    return problem, theta, replace(nothing(problem, theta), value=data["phi"])


def sweep(case: SweepCase, data: Data) -> Forms:
    """One recorded inner run, one recorded CG run from all its step counts, one reverse pass for all of them."""
    descend = GradientDescent(data["step_size"], case.last, record=True)
    implicit = ImplicitGradient(CG(case.cg_steps, record=True), require_minimum=False)

    def of(data: Data) -> Form:
        problem = bilevel_problem(case.model, data)
        theta = problem.parameters(data["theta"])

        def call() -> tuple[Any, Any, Any]:
            run = descend(problem, theta)
            assert run.path is not None
            points = np.stack([run.path.points[k] for k in case.inner_steps])
            estimate = implicit(problem, theta, replace(run, value=points, path=None))
            assert estimate.path is not None
            return points, estimate.path.points[1:], UnrolledGradient().at_steps(problem, run, case.inner_steps)[0]

        return Form(call, _named)

    parts = [of(part) for part in _parts(data, case.tasks)]
    return {"sweep": _offered("record=True, at_steps", of(data), parts, axis=-2)}


def _named(result: tuple[Any, Any, Any]) -> dict[str, Any]:
    return dict(zip(("inner", "implicit", "unrolled"), result, strict=True))


def descent(case: MetaCase, data: Data) -> Forms:
    """K gradient steps from θ."""
    problem = bilevel_problem(case.model, data)
    theta = problem.parameters(data["theta"])
    solver = GradientDescent(data["step_size"], case.inner_steps)
    return {"descent": {"GradientDescent": Form(lambda: solver(problem, theta), lambda solution: solution.value)}}


def memory(case: MetaCase, data: Data, inner_steps: tuple[int, ...]) -> dict[str, dict[int, int]]:
    """Peak bytes newly allocated (tracemalloc) by K inner steps and the estimator after them."""
    problem = bilevel_problem(case.model, data)
    theta = problem.parameters(data["theta"])
    peaks: dict[str, dict[int, int]] = {}
    for estimator, record_of in _estimators(case):
        label = f"{'implicit, ' if isinstance(estimator, ImplicitGradient) else ''}{estimator.label}"
        peaks[label] = {}
        for steps in inner_steps:
            descend = GradientDescent(data["step_size"], steps, record=record_of(steps))
            method = MetaGradient(descend, estimator, measure_memory=True)
            method(problem, theta)  # whatever is allocated once and kept
            peaks[label][steps] = method(problem, theta).cost.peak_bytes or 0
    return peaks


WINDOW = 16


def _estimators(case: MetaCase) -> list[tuple[Any, Callable[[int], bool | tuple[int, ...]]]]:
    """Estimators, and what each needs recorded of K inner steps."""
    return [
        (ImplicitGradient(CG(case.cg_steps)), lambda steps: False),
        (UnrolledGradient(), lambda steps: True),
        (UnrolledGradient(window=WINDOW), lambda steps: tuple(range(max(0, steps - WINDOW), steps + 1))),
        (CheckpointedGradient(), lambda steps: False),
    ]
