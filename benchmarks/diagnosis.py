"""How well does `verify` judge? Every wrong formula it knows on several problems, and thousands of right gradients.

`python -m benchmarks.diagnosis` writes docs/diagnosis.md; its exit status is 1 if a wrong cause was named with
confidence, a right gradient was called wrong, or fewer than nine in ten causes were named.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from implicit_grad import (
    EXACT,
    BilevelProblem,
    Cholesky,
    DiagonalQuadratic,
    LeastSquares,
    MultilayerPerceptron,
    Newton,
    RegularizedProblem,
    SoftmaxCrossEntropy,
    Verdict,
    verify,
)
from implicit_grad.estimators import ImplicitGradient, MetaGradient
from implicit_grad.storage import atomic_target
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec
from implicit_grad.verify import CATALOGUE, WrongFormula, wrong_formula
from implicit_grad.verify._scene import Scene

PAGE = Path(__file__).parents[1] / "docs" / "diagnosis.md"
WANTED = 0.9
RIGHT = 2000
WORKERS = 2
SLOW = ("unrolled limit",)

NAMED, AMONG, UNSURE, MISSED, WRONG, SOUND = (
    "named",
    "among several",
    "named, unsure",
    "not named",
    "another named with confidence",
    "right here",
)
OUTCOMES = (NAMED, UNSURE, AMONG, MISSED, WRONG, SOUND)


def _data(seed: int, n: int, d: int, decades: float = 0.0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, d)) * np.geomspace(1, 10.0**-decades, d)
    return X, rng.standard_normal(2 * n), rng.integers(3, size=2 * n)


def ridge(seed: int, n: int, d: int, lam: float, decades: float = 0.0) -> BilevelProblem:
    """Least squares, features falling over some decades."""
    X, y, _ = _data(seed, n, d, decades)
    return BilevelProblem(LeastSquares(X[:n], y[:n]), LeastSquares(X[n:], y[n:]), lam)


def softmax(seed: int, n: int, d: int, lam: float) -> BilevelProblem:
    """Three classes."""
    X, _, labels = _data(seed, n, d)
    return BilevelProblem(SoftmaxCrossEntropy(X[:n], labels[:n], 3), SoftmaxCrossEntropy(X[n:], labels[n:], 3), lam)


def network(seed: int, n: int, d: int, lam: float) -> BilevelProblem:
    """One hidden layer of three."""
    X, y, _ = _data(seed, n, d)
    return BilevelProblem(MultilayerPerceptron(X[:n], y[:n], (3,)), MultilayerPerceptron(X[n:], y[n:], (3,)), lam)


def diagonal(seed: int, n: int, d: int) -> RegularizedProblem:
    """Least squares with one λ a parameter."""
    problem = ridge(seed, n, d, 1.5)
    weights = np.random.default_rng(seed).uniform(0.1, 2.0, size=d)
    return RegularizedProblem(problem.inner, problem.outer, DiagonalQuadratic(weights))


PROBLEMS: dict[str, Callable[[], Any]] = {
    "ridge, d = 6, λ = 0.3": partial(ridge, 5, 12, 6, 0.3),
    "ridge, d = 8 > n = 5, κ ~ 1e4, λ = 0.004": partial(ridge, 6, 5, 8, 0.004, 1.0),
    "softmax, d = 12, λ = 0.3": partial(softmax, 8, 12, 4, 0.3),
    "softmax, d = 9, λ = 2.5": partial(softmax, 9, 10, 3, 2.5),
    "network, d = 13, λ = 0.7": partial(network, 11, 9, 3, 0.7),
    "ridge, diagonal Λ, d = 6": partial(diagonal, 12, 10, 6),
}


@dataclass(frozen=True)
class Trial:
    """One wrong formula on one problem."""

    formula: str
    problem: str
    number: float | None
    count: int | None
    factor: float

    @property
    def candidate(self) -> Callable[[Any, Any], Any]:
        """The formula as `(problem, theta) -> gradient`."""
        wrong = wrong_formula(self.formula)
        return lambda problem, theta: wrong(problem, theta, number=self.number, count=self.count, factor=self.factor)


def trials(seed: int = 7) -> Iterator[Trial]:
    """Every formula on every problem, free numbers drawn from the middle of their range."""
    for name, make in PROBLEMS.items():
        problem = make()
        scene = Scene.of(problem, np.full(problem.inner.size, 0.5))
        for formula in CATALOGUE:
            rng = np.random.default_rng([seed, zlib.crc32(f"{name} {formula.name}".encode())])
            yield Trial(
                formula.name, name, _number(formula, scene, rng), _count(formula, scene, rng), _factor(formula, rng)
            )


def _number(formula: WrongFormula, scene: Scene, rng: np.random.Generator) -> float | None:
    if formula.number is None:
        return None
    if formula.number.symbol == "α":
        return float(rng.uniform(0.2, 1.2)) * formula.number.unit.of(scene)
    # At a factor of 1 the formula is right, so that draws keep away from it.
    return float(10.0 ** (rng.choice([-1, 1]) * rng.uniform(0.2, 1.2))) * formula.number.unit.of(scene)


def _count(formula: WrongFormula, scene: Scene, rng: np.random.Generator) -> int | None:
    if not formula.counts:
        return None
    rows = formula.table(scene, np.nan if formula.number is None else formula.number.unit.of(scene)).shape[1]
    return int(rng.choice([count for count in formula.counts[:rows] if count <= 20]))


def _factor(formula: WrongFormula, rng: np.random.Generator) -> float:
    return float(rng.choice([-1, 1]) * rng.uniform(1.5, 4.0)) if formula.scaled else 1.0


def outcome(trial: Trial) -> tuple[Trial, str, tuple[str, ...], float]:
    """Verify one trial and say how the diagnosis did."""
    began = time.perf_counter()
    try:
        report = verify(trial.candidate, PROBLEMS[trial.problem](), without=SLOW)
    except (AttributeError, TypeError, ValueError) as error:
        raise RuntimeError(f"{trial}: {error}") from error
    return trial, judge(trial.formula, report), _names(report), time.perf_counter() - began


def _names(report: Any) -> tuple[str, ...]:
    return () if report.diagnosis is None else report.diagnosis.names


def judge(formula: str, report: Any) -> str:
    """What a diagnosis is worth where the true cause is known."""
    if report.verdict is not Verdict.FAIL:
        return SOUND if report.verdict is Verdict.PASS else MISSED
    names = _names(report)
    if report.diagnosis is not None and report.diagnosis.confident:
        return NAMED if names == (formula,) else WRONG
    if names == (formula,):
        return UNSURE
    return AMONG if formula in names else MISSED


def applies(trial: Trial) -> bool:
    """Whether the formula has a meaning on the problem: finite numbers."""
    problem = PROBLEMS[trial.problem]()
    try:
        g = trial.candidate(problem, np.random.default_rng(77).standard_normal(problem.inner.size))
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        return False
    return bool(np.isfinite(g).all())


# Right gradients.


def _solve(problem: BilevelProblem, theta: Any) -> tuple[Any, Any, float]:
    phi = Newton(1e-13)(problem, theta).value
    return problem.inner.linearize(phi).hvp(np.eye(theta.size)), problem.outer.gradient(phi), float(problem.lam)


def by_division(problem: BilevelProblem, theta: Any) -> Any:
    """(I + H/λ)⁻¹ b as the paper writes it."""
    H, b, lam = _solve(problem, theta)
    return np.linalg.solve(np.eye(theta.size) + H / lam, b)


def by_inverse(problem: BilevelProblem, theta: Any) -> Any:
    """λ inv(H + λI) b."""
    H, b, lam = _solve(problem, theta)
    return lam * (np.linalg.inv(H + lam * np.eye(theta.size)) @ b)


def by_eigenvectors(problem: BilevelProblem, theta: Any) -> Any:
    """Through the spectrum of H."""
    H, b, lam = _solve(problem, theta)
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    return vectors @ ((vectors.T @ b) * lam / (values + lam))


def in_single(problem: BilevelProblem, theta: Any) -> Any:
    """Data, θ and every operation in float32."""
    low = [_single_loss(loss) for loss in (problem.inner, problem.outer)]
    return _SINGLE(BilevelProblem(*low, problem.lam), theta.astype(np.float32)).gradient


def _single_loss(loss: Any) -> Any:
    arrays = {name: getattr(loss, name, None) for name in ("X", "y")}
    floats = {name: a for name, a in arrays.items() if a is not None and a.dtype.kind == "f"}
    return replace(loss, **{name: a.astype(np.float32) for name, a in floats.items()})


_SINGLE = MetaGradient(Newton(rtol=1e-6), ImplicitGradient(Cholesky(refinements=1)))

METHODS: dict[str, Callable[[BilevelProblem, Any], Any]] = {
    "EXACT": EXACT,
    "(I + H/λ)⁻¹b by LU": by_division,
    "λ·inv(H + λI) b": by_inverse,
    "eigenvectors of H": by_eigenvectors,
    "float32 throughout": in_single,
}


@dataclass(frozen=True)
class Right:
    """A right gradient: how it is computed, on what."""

    method: str
    family: str
    seed: int


def right_trials(count: int) -> list[Right]:
    """Methods and families in turn."""
    families, methods = ("ridge", "scaled ridge", "softmax", "network"), tuple(METHODS)
    return [Right(methods[i % 5], families[(i // 5) % 4], 1000 + i) for i in range(count)]


def right_problem(family: str, seed: int) -> tuple[BilevelProblem, Any]:
    """A random problem with θ: condition numbers to 1e6, λ from 1e-6 to 1e6, losses scaled by 1e-12 to 1e12."""
    rng = np.random.default_rng(seed)

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    if family == "network":
        spec = MlpSpec(pick(1, 2), (pick(1, 3),), pick(2, 6), pick(2, 5), log10_lam=pick(1, 3), seed=seed)
        return spec.build()
    if family == "softmax":
        case = SoftmaxSpec(
            pick(1, 4),
            pick(2, 3),
            pick(1, 8),
            pick(1, 6),
            pick(0, 3),
            pick(-3, 4),
            pick(-6, 6),
            pick(-2, 2),
            seed=seed,
        ).build()
        return case.problem, case.theta
    case = RidgeSpec(
        pick(1, 8), pick(1, 10), pick(1, 6), pick(1, 8), pick(0, 4), pick(-3, 6), pick(-6, 6), pick(-2, 2), seed
    ).build()
    problem: Any = case.problem
    if family == "scaled ridge":
        both, test = 10.0 ** pick(-12, 12), 10.0 ** pick(-12, 12)
        losses = [
            LeastSquares(loss.X * c**0.5, loss.y * c**0.5)
            for loss, c in ((problem.inner, both), (problem.outer, test))
        ]
        problem = BilevelProblem(*losses, problem.lam * both)
    return problem, case.theta


def right_outcome(right: Right) -> tuple[Right, str, float]:
    """Verify one right gradient."""
    problem, theta = right_problem(right.family, right.seed)
    method = METHODS[right.method]
    report = verify(lambda theta: method(problem, theta), problem, theta, diagnosis=False, without=SLOW)
    return right, report.verdict.name, report.error


def table(rows: list[tuple[Trial, str, tuple[str, ...], float]]) -> list[str]:
    """One row a formula: how often it was named."""
    lines = [f"| formula | {' | '.join(OUTCOMES)} | confused with |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for formula in CATALOGUE:
        mine = [row for row in rows if row[0].formula == formula.name]
        counts = Counter(row[1] for row in mine)
        others = sorted({name for row in mine for name in row[2]} - {formula.name})
        cells = " | ".join(str(counts[each] or "·") for each in OUTCOMES)
        lines.append(f"| {formula.name} | {cells} | {', '.join(others)} |")
    return lines


def shares(rows: list[tuple[Trial, str, tuple[str, ...], float]]) -> tuple[Counter[str], int]:
    """Counts of outcomes, and how many gradients were wrong."""
    counts = Counter(row[1] for row in rows)
    return counts, len(rows) - counts[SOUND]


def page(rows: list[Any], rights: list[Any]) -> str:
    """The whole page."""
    counts, wrong = shares(rows)
    right = counts[NAMED] + counts[UNSURE] + counts[AMONG]
    verdicts = Counter(verdict for _, verdict, _ in rights)
    seconds = sorted(row[3] for row in rows)
    lines = [
        "# How well `verify` judges",
        "",
        "Written by `python -m benchmarks.diagnosis`; nothing here is typed by hand.",
        "",
        "## Wrong gradients: is the cause named?",
        "",
        f"All {len(CATALOGUE)} formulas of the catalogue as `(problem, theta) -> gradient`, free numbers drawn at",
        "random, on the problems below; a formula that has no meaning on a problem is left out there. Of the oracles",
        "the unrolled limit is left out on this page: it costs seconds where κ is large, and decides nothing.",
        "",
        *(f"- {name}" for name in PROBLEMS),
        "",
        f"Of {wrong} wrong gradients the right cause was named in {right} ({right / max(wrong, 1):.1%}): with",
        f"confidence {counts[NAMED]}, alone without confidence {counts[UNSURE]}, among several that are the same",
        f"vector there {counts[AMONG]}. Not named: {counts[MISSED]}. A wrong cause with confidence: {counts[WRONG]}.",
        f"Right on that problem, and passed: {counts[SOUND]}. Median time {seconds[len(seconds) // 2]:.1f} s.",
        "",
        *table(rows),
        "",
        "## Right gradients: is one called wrong?",
        "",
        f"{len(rights)} random problems and methods: condition numbers to 1e6, λ from 1e-6 to 1e6, losses scaled by "
        "1e-12 to 1e12.",
        "",
        "| method | family | pass | inconclusive | fail | largest error |",
        "|---|---|---|---|---|---|",
    ]
    groups = sorted({(right.method, right.family) for right, _, _ in rights})
    for method, family in groups:
        mine = [(v, e) for r, v, e in rights if (r.method, r.family) == (method, family)]
        n = Counter(v for v, _ in mine)
        errors = [e for v, e in mine if v == "PASS" and np.isfinite(e)]
        largest = f"{max(errors):.1e}" if errors else ""
        lines.append(f"| {method} | {family} | {n['PASS']} | {n['INCONCLUSIVE']} | {n['FAIL']} | {largest} |")
    lines += [
        "",
        f"Passed {verdicts['PASS']}, inconclusive {verdicts['INCONCLUSIVE']}, false alarms {verdicts['FAIL']}. The "
        "largest error is over ‖∇F‖, of those that passed.",
        "",
    ]
    return "\n".join(lines)


def complaints(rows: list[Any], rights: list[Any]) -> list[str]:
    """What is worse than promised."""
    counts, wrong = shares(rows)
    found = [f"{row[0]}: named {row[2]} with confidence" for row in rows if row[1] == WRONG]
    found += [f"{right}: called wrong, error {error:.1e}" for right, verdict, error in rights if verdict == "FAIL"]
    right = counts[NAMED] + counts[UNSURE] + counts[AMONG]
    if wrong and right < WANTED * wrong:
        found.append(f"{right} of {wrong} causes named, fewer than {WANTED:.0%}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run all, print the page, and write it after a full run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one problem and 50 right gradients: a look")
    parser.add_argument("--out", type=Path, help="where the page goes; a full run has its own place")
    options = parser.parse_args(arguments)
    chosen = [trial for trial in trials() if applies(trial)]
    if options.quick:
        first = next(iter(PROBLEMS))
        chosen = [trial for trial in chosen if trial.problem == first]
    with ProcessPoolExecutor(WORKERS) as pool:
        rights = list(pool.map(right_outcome, right_trials(50 if options.quick else RIGHT), chunksize=10))
        rows = []
        for row in pool.map(outcome, chosen):
            rows.append(row)
            sys.stderr.write(f"{row[3]:6.1f} s  {row[0].problem:42} {row[0].formula:34} {row[1]:30} {row[2]}\n")
    text, wrong = page(rows, rights), complaints(rows, rights)
    sys.stdout.write(text)
    sys.stderr.write("\n".join([*wrong, ""]))
    target = options.out or (None if options.quick else PAGE)
    if target is not None:
        with atomic_target(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
