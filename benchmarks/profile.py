"""Where the time of a meta-gradient goes, and other ways to write it: `python -m benchmarks.profile`.

The targets that are missed are missed by conjugate gradients on small batches. This takes them apart, times other
ways to write the loop against the library's own in the same run, and writes PROFILE.md. All run in one process with
one BLAS thread, in turns; times are medians. A way is only timed if its result is the library's to 1e-9.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Data, MetaCase, SweepCase, bilevel_problem, digits, sinusoid
from benchmarks.machine import machine
from benchmarks.report import table
from implicit_grad import CG, GradientDescent, ImplicitGradient, UnrolledGradient
from implicit_grad.storage import atomic_target

ROUNDS, SWEEP_ROUNDS = 200, 5
STEPS = 10
TOLERANCE = 1e-9

Array = Any
Call = Callable[[], Any]


def paired(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of each call; they take turns."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seen[name].append(time.perf_counter() - began)
    return {name: float(np.median(times)) for name, times in seen.items()}


@dataclass(frozen=True)
class Point:
    """One case at its φ: what every way starts from."""

    case: MetaCase
    data: Data

    @property
    def problem(self) -> Any:
        """The library's problem."""
        return bilevel_problem(self.case.model, self.data)

    def part(self, rows: slice) -> Point:
        """Return the same case with some of its tasks."""
        tasks = self.case.tasks
        own = {k: v for k, v in self.data.items() if np.ndim(v) > 1 and np.shape(v)[0] == tasks}
        return Point(self.case, {**self.data, **{k: v[rows] for k, v in own.items()}})


def start(point: Point) -> tuple[Callable[[Array], Array], Array, float]:
    """H as a product, ∇L_test and λ at φ."""
    problem, phi = point.problem, point.data["phi"]
    return problem.inner.linearize(phi).hvp, problem.outer.gradient(phi), float(point.data["lam"])


def textbook(point: Point) -> Array:
    """Nothing but the recurrence: no statuses, no curvature, no residual at the end, every array in place."""
    hvp, b, lam = start(point)
    x, r, p = np.zeros_like(b), b.copy(), b.copy()
    rs, scratch = np.vecdot(r, r), np.empty_like(b)
    for _ in range(STEPS):
        Ap = hvp(p)
        np.multiply(p, lam, out=scratch)
        Ap += scratch
        alpha = (rs / np.vecdot(p, Ap))[:, None]
        np.multiply(p, alpha, out=scratch)
        x += scratch
        Ap *= alpha
        r -= Ap
        new = np.vecdot(r, r)
        p *= (new / rs)[:, None]
        p += r
        rs = new
    return lam * x


def sum_at_the_end(point: Point) -> Array:
    """Keep the directions, and add them up by one product after the last step."""
    hvp, b, lam = start(point)
    r = b.copy()
    rs, P, alphas = np.vecdot(r, r), np.empty((b.shape[0], STEPS, b.shape[1])), np.empty((b.shape[0], STEPS))
    P[:, 0] = b
    for k in range(STEPS):
        p = P[:, k]
        Ap = hvp(p)
        Ap += lam * p
        alphas[:, k] = rs / np.vecdot(p, Ap)
        Ap *= alphas[:, k, None]
        r -= Ap
        new = np.vecdot(r, r)
        if k + 1 < STEPS:
            np.multiply(p, (new / rs)[:, None], out=P[:, k + 1])
            P[:, k + 1] += r
        rs = new
    return lam * (alphas[:, None, :] @ P)[:, 0]


def folded(point: Point) -> Array:
    """Krylov spaces do not see a shift: Lanczos on H alone, λ in a 10 × 10 system afterwards."""
    hvp, b, lam = start(point)
    n, length = b.shape[0], np.sqrt(np.vecdot(b, b))
    Q, T = np.empty((n, STEPS, b.shape[1])), np.zeros((n, STEPS, STEPS))
    Q[:, 0] = b / length[:, None]
    for k in range(STEPS):
        w = hvp(Q[:, k])
        T[:, k, k] = np.vecdot(Q[:, k], w)
        w -= T[:, k, k, None] * Q[:, k]
        if k:
            w -= T[:, k, k - 1, None] * Q[:, k - 1]
        if k + 1 < STEPS:
            beta = np.sqrt(np.vecdot(w, w))
            T[:, k, k + 1] = T[:, k + 1, k] = beta
            np.divide(w, beta[:, None], out=Q[:, k + 1])
    right = np.zeros((n, STEPS, 1))
    right[:, 0, 0] = length
    y = np.linalg.solve(T + lam * np.eye(STEPS), right)
    return lam * (y.swapaxes(-1, -2) @ Q)[:, 0]


def in_pieces(size: int, points: list[Point]) -> Array:
    """The textbook loop on pieces of the batch small enough for the second-level cache."""
    return np.concatenate([textbook(point) for point in points])


_POOL = ThreadPoolExecutor(2)


def in_threads(points: list[Point]) -> Array:
    """The textbook loop on two halves of the batch, a thread for each."""
    return np.concatenate([future.result() for future in [_POOL.submit(textbook, point) for point in points]])


def over_samples(point: Point) -> Array:
    """Softmax only. All vectors of the Krylov space are c·b + XᵀU: iterate on c and U (n × C), with XXᵀ once.

    ‖r‖² is then a difference of sums as large as ‖b‖²: below ‖r‖ ~ √eps ‖b‖ it has no correct digit, so that a
    solver with a tolerance could not be written like this.
    """
    loss, phi = point.problem.inner, point.data["phi"]
    b, lam, X = point.problem.outer.gradient(phi), float(point.data["lam"]), loss.X
    (n, C), tasks = (X.shape[-2], loss.n_classes), b.shape[0]
    B = b.reshape(tasks, -1, C)
    logits = X @ phi.reshape(tasks, -1, C)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    P = weights / weights.sum(-1, keepdims=True)
    gram, XB = X @ X.mT, X @ B
    bb = np.vecdot(b, b)

    def inner(c: Array, U: Array, e: Array, V: Array, GV: Array) -> Array:
        cross = c * np.einsum("tnc,tnc->t", XB, V) + e * np.einsum("tnc,tnc->t", XB, U)
        return c * e * bb + cross + np.einsum("tnc,tnc->t", U, GV)

    zero, one = np.zeros((tasks, n, C)), np.ones(tasks)
    xc, xU, rc, rU, pc, pU = 0 * one, zero, one, zero, one, zero
    G_r, G_p, rs = zero, zero, bb
    for _ in range(STEPS):
        Z = pc[:, None, None] * XB + G_p
        W = P * Z
        W = (W - P * W.sum(-1, keepdims=True)) / n
        aU = W + lam * pU
        G_a = gram @ W + lam * G_p
        alpha = rs / inner(pc, pU, lam * pc, aU, G_a)
        step = alpha[:, None, None]
        xc, xU = xc + alpha * pc, xU + step * pU
        rc, rU, G_r = rc - alpha * lam * pc, rU - step * aU, G_r - step * G_a
        new = inner(rc, rU, rc, rU, G_r)
        beta = new / rs
        pc, pU = rc + beta * pc, rU + beta[:, None, None] * pU
        G_p, rs = G_r + beta[:, None, None] * G_p, new
    return lam * (xc[:, None] * b + (X.mT @ xU).reshape(tasks, -1))


def ways(point: Point) -> dict[str, Call]:
    """All ways to write one case, the library's first."""
    tasks = point.case.tasks
    estimator, problem = ImplicitGradient(CG(STEPS)), point.problem
    theta = problem.parameters(point.data["theta"])
    solution = GradientDescent(point.data["step_size"], 0)(problem, theta, start=point.data["phi"])
    found: dict[str, Call] = {
        "library: `ImplicitGradient(CG(10))`": lambda: estimator(problem, theta, solution).gradient,
        "textbook loop, in place, nothing checked": partial(textbook, point),
        "directions kept, x summed at the end": partial(sum_at_the_end, point),
        "Lanczos on H, λ in a 10 × 10 system": partial(folded, point),
    }
    for size in (tasks // 2 + tasks % 2, tasks // 4):
        pieces = [point.part(slice(k, k + size)) for k in range(0, tasks, size)]
        found[f"textbook loop, {size} tasks at a time"] = partial(in_pieces, size, pieces)
    halves = [point.part(slice(None, tasks // 2)), point.part(slice(tasks // 2, None))]
    found["textbook loop, two threads"] = partial(in_threads, halves)
    if not point.case.model.bias:
        found["over samples: XXᵀ once, vectors c·b + XᵀU"] = partial(over_samples, point)
    return found


def parts(point: Point) -> dict[str, Call]:
    """What any way has to do."""
    problem, phi = point.problem, point.data["phi"]
    hvp, b, _ = start(point)

    def products() -> None:
        for _ in range(STEPS):
            hvp(b)

    return {
        "linearisation of the train loss": lambda: problem.inner.linearize(phi),
        "gradient of the test loss": lambda: problem.outer.gradient(phi),
        f"{STEPS} products H p": products,
    }


def sweep_parts(case: SweepCase, data: Data) -> dict[str, Call]:
    """The canonical sweep in its three stages, and what the last cannot do without."""
    problem = bilevel_problem(case.model, data)
    theta = problem.parameters(data["theta"])
    descend = GradientDescent(data["step_size"], case.last, record=True)
    run = descend(problem, theta)
    assert run.path is not None
    points = np.stack([run.path.points[k] for k in case.inner_steps])
    implicit = ImplicitGradient(CG(case.cg_steps, record=True), require_minimum=False)
    at_points = replace(run, value=points, path=None)
    path = run.path.points

    def linearisations() -> None:
        for phi in path[:-1]:
            problem.inner.linearize(phi)

    return {
        f"descent, {case.last} steps, recorded": lambda: descend(problem, theta),
        f"implicit, CG 1…{case.cg_steps} at {len(case.inner_steps)} φ": lambda: implicit(problem, theta, at_points),
        "unrolled, all step counts in one pass": lambda: UnrolledGradient().at_steps(problem, run, case.inner_steps),
        f"— of it: {case.last} linearisations alone": linearisations,
    }


def _case_text(point: Point) -> str:
    found, shares = ways(point), parts(point)
    wanted = next(iter(found.values()))()
    for name, call in found.items():
        error = np.abs(call() - wanted).max() / np.abs(wanted).max()
        if not error <= TOLERANCE:
            raise AssertionError(f"{point.case.label}: {name}: differs by {error:.1e}")
    times = paired({**found, **shares}, ROUNDS)
    own = times[next(iter(found))]
    rows = [(name, f"{1e3 * times[name]:.2f} ms", f"{times[name] / own:.2f}") for name in found]
    floor = sum(times[name] for name in shares)
    rest = [(name, f"{1e3 * times[name]:.2f} ms", f"{times[name] / own:.2f}") for name in shares]
    rest.append(("together: the floor of whoever makes these calls", f"{1e3 * floor:.2f} ms", f"{floor / own:.2f}"))
    return "\n\n".join(
        [
            f"## {point.case.label}",
            table(("way", "time", "/ library"), rows, numbers=(1, 2)),
            table(("call", "time", "/ library"), rest, numbers=(1, 2)),
        ]
    )


def _sweep_text(case: SweepCase) -> str:
    calls = sweep_parts(case, case.data())
    times = paired(calls, SWEEP_ROUNDS)
    rows = [(name, f"{seconds:.2f} s") for name, seconds in times.items()]
    return f"## Sweep, {case.label}\n\n" + table(("stage", "time"), rows, numbers=(1,))


def main(arguments: list[str] | None = None) -> None:
    """Time everything and write the page."""
    given = sys.argv[1:] if arguments is None else arguments
    place = Path(given[0]) if given else Path(__file__).with_name("PROFILE.md")
    text = [
        "# Where the time goes, and other ways to write it",
        " ".join((__doc__ or "").partition("\n\n")[2].split()),
        "\n".join(f"- {name}: {value}" for name, value in machine().items()),
    ]
    text += [_case_text(Point(case, case.data())) for case in (sinusoid(25), digits(32))]
    text.append(_sweep_text(SweepCase()))
    page = "\n\n".join(text) + "\n"
    sys.stdout.write(page)
    with atomic_target(place) as path:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
