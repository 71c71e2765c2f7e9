"""The library itself, by its public interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.cases import Data, MetaCase, ProductCase, SweepCase, bilevel_problem
from benchmarks.contenders import Form, Forms
from implicit_grad import CG, GradientDescent, ImplicitGradient, MetaGradient, Solution, UnrolledGradient
from implicit_grad.estimators import CheckpointedGradient


def _same(result: Any) -> Any:
    return result


def products(case: ProductCase, data: Data) -> Forms:
    """HVP after `linearize`, the linearisation, and the gradient."""
    loss, x, v = case.model.loss(data["X"], data["y"]), data["x"], data["v"]
    linearization = loss.linearize(x)
    return {
        "HVP": {"linearize, hvp": Form(lambda: linearization.hvp(v), _same)},
        "gradient": {"gradient": Form(lambda: loss.gradient(x), _same)},
        "linearisation": {"linearize": Form(lambda: loss.linearize(x), lambda result: result.gradient)},
    }


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """`ImplicitGradient(CG(k))` at the given φ."""
    problem, theta, inner = _at_phi(case, data)
    estimator = ImplicitGradient(CG(case.cg_steps))
    form = Form(lambda: estimator(problem, theta, inner), lambda estimate: estimate.unwrap())
    return {"meta-gradient": {"ImplicitGradient(CG)": form}}


def _at_phi(case: MetaCase, data: Data) -> tuple[Any, Any, Solution[Any]]:
    problem = bilevel_problem(case.model, data)
    theta = problem.parameters(data["theta"])
    nothing = GradientDescent(data["step_size"], 0)
    return problem, theta, replace(nothing(problem, theta), value=data["phi"])


def sweep(case: SweepCase, data: Data) -> Forms:
    """One recorded inner run, one recorded CG run from all its step counts, one reverse pass for all of them."""
    problem = bilevel_problem(case.model, data)
    theta = problem.parameters(data["theta"])
    descend = GradientDescent(data["step_size"], case.last, record=True)
    implicit = ImplicitGradient(CG(case.cg_steps, record=True), require_minimum=False)

    def call() -> tuple[Any, Any, Any]:
        run = descend(problem, theta)
        assert run.path is not None
        points = np.stack([run.path.points[k] for k in case.inner_steps])
        estimate = implicit(problem, theta, replace(run, value=points, path=None))
        assert estimate.path is not None
        return points, estimate.path.points[1:], UnrolledGradient().at_steps(problem, run, case.inner_steps)[0]

    return {"sweep": {"record=True, at_steps": Form(call, _named)}}


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
        (UnrolledGradient(window=WINDOW), lambda steps: True),
        (CheckpointedGradient(), lambda steps: False),
    ]
