"""CPU beside GPU over the number of problems in a batch: `python -m benchmarks.gpu`.

The same arrays go to both; results are compared before any clock starts. Times are the shortest of several runs
with the device synchronised before and after; transfers to the device are not in them. Tasks are drawn once and
repeated, which changes nothing for the clock. Memory is what CuPy's pool holds in use after a run, with the path.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from implicit_grad import (
    CG,
    BackendUnavailable,
    BilevelProblem,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    MultilayerPerceptron,
    UnrolledGradient,
)
from implicit_grad.backend import NUMPY, Backend, get_backend
from implicit_grad.tasks import RandomRidge, Sinusoid

SIZES = tuple(4**k for k in range(9))
"""1 to 65,536 problems."""

SOURCES = {"ridge, d = 50": RandomRidge(dim=50, train_samples=60), "network, d = 1761": Sinusoid()}
METHODS = {
    "GD-16, CG-5": MetaGradient(GradientDescent(1e-3, 16), ImplicitGradient(CG(5))),
    "GD-16, unrolled": MetaGradient(GradientDescent(1e-3, 16, record=True), UnrolledGradient()),
}
_DRAWN = 64
_LAM = 10.0


def problem_of(source: Any, count: int, dtype: Any, place: Backend) -> tuple[BilevelProblem, Any]:
    """Return a batch of `count` problems and θ, on a backend."""
    rng = np.random.default_rng(20190910)
    drawn = source.sample(rng, tasks=min(count, _DRAWN), lam=_LAM, backend=NUMPY)
    theta = source.initial_parameters(rng, backend=NUMPY).astype(dtype)

    def moved(loss: LeastSquares | MultilayerPerceptron) -> Any:
        rows = np.arange(count) % min(count, _DRAWN)
        X, y = (place.asarray(np.ascontiguousarray(part[rows]).astype(dtype)) for part in (loss.X, loss.y))
        if isinstance(loss, LeastSquares):
            return LeastSquares(X, y)
        return MultilayerPerceptron(X, y, loss.hidden, loss.activation)

    return BilevelProblem(moved(drawn.inner), moved(drawn.outer), _LAM), place.asarray(theta)


def seconds(run: Callable[[], Any], place: Backend, repeats: int) -> float:
    """Shortest of `repeats` runs, after one that does not count."""
    run()
    best = float("inf")
    for _ in range(repeats):
        place.synchronize()
        began = time.perf_counter()
        run()
        place.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def memory_in_use(place: Backend) -> int | None:
    """Bytes in use in CuPy's pool, or None elsewhere."""
    pool = getattr(place.xp, "get_default_memory_pool", None)
    return None if pool is None else int(pool().used_bytes())


def measure(place: Backend, sizes: tuple[int, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield one row for each source, method, dtype and batch size.

    Raises
    ------
    AssertionError
        If the two backends do not agree: then there is nothing to time.
    """
    for source_name, source in SOURCES.items():
        for method_name, method in METHODS.items():
            for dtype in (np.float32, np.float64):
                for count in sizes:
                    here, theta = problem_of(source, count, dtype, NUMPY)
                    there, moved = problem_of(source, count, dtype, place)
                    wanted, got = method(here, theta).gradient, place.to_host(method(there, moved).gradient)
                    bound = 1e3 * source.size * float(np.finfo(dtype).eps)
                    error = float(np.abs(got - wanted).max() / np.abs(wanted).max())
                    if not error <= bound:
                        raise AssertionError(f"{source_name}, {method_name}, {count}: differs by {error:.1e}")
                    kept = method(there, moved)
                    memory = memory_in_use(place)
                    del kept
                    yield {
                        "source": source_name,
                        "method": method_name,
                        "dtype": np.dtype(dtype).name,
                        "problems": count,
                        "cpu_seconds": seconds(lambda m=method, p=here, t=theta: m(p, t), NUMPY, repeats),
                        "device_seconds": seconds(lambda m=method, p=there, t=moved: m(p, t), place, repeats),
                        "device_bytes": memory,
                        "difference": error,
                    }


def crossover(rows: list[dict[str, Any]]) -> int | None:
    """Smallest number of problems from which on the device is faster, or None."""
    best = None
    for row in sorted(rows, key=lambda row: -row["problems"]):
        if row["device_seconds"] >= row["cpu_seconds"]:
            break
        best = row["problems"]
    return best


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown, with the crossover of each block."""
    lines = []
    blocks = {(row["source"], row["method"], row["dtype"]): [] for row in rows}
    for row in rows:
        blocks[row["source"], row["method"], row["dtype"]].append(row)
    for (source, method, dtype), block in blocks.items():
        found = crossover(block)
        verdict = "never faster on the device" if found is None else f"faster on the device from {found} problems"
        lines += [
            f"## {source}; {method}; {dtype}: {verdict}",
            "",
            "| problems | CPU s | device s | MiB |",
            "|--:" * 4 + "|",
        ]
        for row in block:
            mib = "–" if row["device_bytes"] is None else f"{row['device_bytes'] / 2**20:.1f}"
            lines.append(f"| {row['problems']} | {row['cpu_seconds']:.2e} | {row['device_seconds']:.2e} | {mib} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and write the rows as JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest number of problems")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="file for the rows")
    options = parser.parse_args(arguments)
    try:
        place = get_backend(options.backend)
    except BackendUnavailable as error:
        sys.exit(f"benchmarks.gpu: {error}")
    sizes = tuple(size for size in SIZES if size <= options.most)
    rows = list(measure(place, sizes, options.repeats))
    sys.stdout.write(table(rows) + "\n")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
