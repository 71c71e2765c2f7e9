"""Audit of the error bars: `python -m benchmarks.certificates [--quick] [--out FILE]`.

Random problems, inner budgets and estimators go through `certify`; every bound is held against a reference refined to
the rounding floor, and some against 50 digits with a proven radius. A full run writes `docs/certificates.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from implicit_grad import (
    CG,
    BilevelProblem,
    Certificate,
    Cholesky,
    Constants,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    SoftmaxCrossEntropy,
    UnrolledGradient,
    certify,
)
from implicit_grad.certificates import Kind, closed_form_constants
from implicit_grad.objectives import Linearization
from implicit_grad.storage import atomic_target
from implicit_grad.tasks import Digits

TABLE = Path(__file__).resolve().parent.parent / "docs" / "certificates.md"
SEED = 20191210
BUDGETS = (0, 1, 3, 10, 30, 100, 1000)
"""Gradient descent steps of step size 1/M̄ from θ."""
NEWTON_STEPS = 12
"""Damped Newton steps of the enclosure, at most: a problem at the rounding floor takes no more."""
ESTIMATORS = {
    "first order": FirstOrderGradient(),
    "CG-1": ImplicitGradient(CG(1)),
    "CG-2": ImplicitGradient(CG(2)),
    "CG-5": ImplicitGradient(CG(5)),
    "exact": ImplicitGradient(Cholesky()),
    "unrolled": UnrolledGradient(),
}
REFERENCE = MetaGradient(Newton(1e-14), ImplicitGradient(Cholesky(refinements=3)))
VISIBLE = 1e-9
"""Ratios are taken of errors above this share of ‖∇F‖: below, rounding is compared with its allowance."""
Draw = Callable[[np.random.Generator, int], tuple[BilevelProblem, Any]]


def ridge(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """Gaussian features of scale 10^U(−1, 1), 2 to 8 of them, 2 to 19 samples, λ = 10^U(−2, 2)."""
    X, Z, lam = _features(rng, count)
    losses = (LeastSquares(F, rng.normal(size=F.shape[:2])) for F in (X, Z))
    return _problem(rng, *losses, lam)


def logistic(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """The same features with random labels, two classes."""
    return _classes(rng, count, 2)


def softmax(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """The same features with random labels, three or four classes."""
    return _classes(rng, count, int(rng.integers(3, 5)))


def digits(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """Images of digits: 2 or 3 ways, 1 to 5 shots, λ = 10^U(−2, 1), θ a random initialisation."""
    source = Digits(ways=int(rng.integers(2, 4)), shots=int(rng.integers(1, 6)), queries=10)
    problem = source.sample(rng, tasks=count, lam=10 ** rng.uniform(-2, 1, size=count))
    return problem, problem.parameters(source.initial_parameters(rng))


def _features(rng: np.random.Generator, count: int) -> tuple[Any, Any, Any]:
    d, n, n_test = (int(rng.integers(low, high)) for low, high in ((2, 9), (2, 20), (2, 20)))
    scale = 10 ** rng.uniform(-1, 1, size=(count, 1, 1))
    X, Z = rng.normal(size=(count, n, d)) * scale, rng.normal(size=(count, n_test, d)) * scale
    return X, Z, 10 ** rng.uniform(-2, 2, size=count)


def _classes(rng: np.random.Generator, count: int, classes: int) -> tuple[BilevelProblem, Any]:
    X, Z, lam = _features(rng, count)
    losses = (SoftmaxCrossEntropy(F, rng.integers(0, classes, size=F.shape[:2]), classes) for F in (X, Z))
    return _problem(rng, *losses, lam)


def _problem(rng: np.random.Generator, inner: Any, outer: Any, lam: Any) -> tuple[BilevelProblem, Any]:
    theta = rng.normal(size=(lam.size, inner.size)) * 10 ** rng.uniform(-1, 1, size=(lam.size, 1))
    return BilevelProblem(inner, outer, lam), theta


FAMILIES: dict[str, Draw] = {"ridge": ridge, "logistic": logistic, "softmax": softmax, "digits": digits}
FULL = {"ridge": 160, "logistic": 160, "softmax": 120, "digits": 80}
"""Problems of each family: 520 · 7 budgets · 6 estimators = 21,840 pairs, each with three bounds."""
QUICK = {"ridge": 8, "logistic": 8, "softmax": 8, "digits": 4}


@dataclass(frozen=True, eq=False)
class Pair:
    """All problems of a batch under one budget and one estimator, with the error of the estimate."""

    problem: BilevelProblem
    theta: Any
    phi: Any
    gradient: Any
    error: Any
    size: Any


def pairs(draw: Draw, rng: np.random.Generator, count: int, batch: int = 20) -> Iterator[Pair]:
    """Run every estimator on every budget of random problems; problems without a reference are left out."""
    done = 0
    while done < count:
        take = min(batch, count - done)
        problem, theta = draw(rng, take)
        exact = REFERENCE(problem, theta)
        if not np.all(exact.ok):  # the audit's problems are well posed: a missing reference is a bug, not a statistic
            raise RuntimeError("a reference did not converge")
        size = np.linalg.norm(exact.gradient, axis=-1)
        run = GradientDescent(None, BUDGETS[-1], record=True)(problem, theta)
        for steps in BUDGETS:
            inner = run.at(steps)
            for estimator in ESTIMATORS.values():
                g = estimator(problem, theta, inner).gradient
                yield Pair(problem, theta, inner.value, g, np.linalg.norm(g - exact.gradient, axis=-1), size)
        done += take


@dataclass
class Tally:
    """What became of one kind of bound on one family."""

    pairs: int = 0
    crossed: int = 0
    informative: int = 0
    ratios: list[Any] = field(default_factory=list)

    def add(self, found: Certificate, pair: Pair) -> None:
        """Count a batch."""
        if found.kind is not Kind.RIGOROUS:
            raise RuntimeError(f"a certificate of closed-form losses is {found.kind}")
        self.pairs += pair.error.size
        self.crossed += int(((pair.error > found.bound) | (pair.error < found.lower)).sum())
        self.informative += int(found.informative.sum())
        seen = pair.error > VISIBLE * pair.size
        self.ratios.append(found.bound[seen] / pair.error[seen])

    @property
    def row(self) -> list[str]:
        """Cells of the table."""
        ratios = np.concatenate(self.ratios)
        return [
            f"{self.pairs:,}",
            str(self.crossed),
            f"{np.median(ratios):.3g}",
            f"{np.quantile(ratios, 0.9):.3g}",
            f"{100 * np.mean(ratios <= 1.1):.1f} %",
            f"{100 * self.informative / self.pairs:.0f} %",
        ]


def bounds_of(pair: Pair) -> dict[str, Certificate]:
    """The bounds of one batch."""

    def made(**options: Any) -> Certificate:
        return certify(pair.problem, pair.theta, pair.gradient, pair.phi, **options)

    return {
        "residuals, ≤ 2 HVPs": made(),
        "1 Newton step, one-sided": made(newton_steps=1, two_sided=False),
        f"enclosure, ≤ {NEWTON_STEPS} Newton steps": made(newton_steps=NEWTON_STEPS),
    }


def audit(
    counts: dict[str, int], seed: int = SEED, say: Callable[[str], Any] = lambda text: None
) -> dict[Any, Tally]:
    """Return tallies by (family, bound)."""
    tallies: dict[Any, Tally] = {}
    for number, (family, count) in enumerate(counts.items()):
        say(f"{family}: {count} problems")
        for pair in pairs(FAMILIES[family], np.random.default_rng([seed, number]), count):
            for name, found in bounds_of(pair).items():
                tallies.setdefault((family, name), Tally()).add(found, pair)
    return tallies


SHRUNK: dict[str, Callable[[Constants], Constants]] = {
    "β/2": lambda c: replace(c, beta=c.beta / 2),
    "β/10": lambda c: replace(c, beta=c.beta / 10),
    "ρ/10": lambda c: replace(c, rho=c.rho / 10),
    "R/10": lambda c: replace(c, concordance=c.concordance / 10),
    "10 m": lambda c: replace(c, m=10 * c.m),
}
"""Wrong constants: an audit that cannot see them proves nothing."""


def linear_test(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """Logistic problems whose test loss is linear: β = 0, and no slack of its term hides that of ρ and R."""
    problem, theta = logistic(rng, count)
    return replace(problem, outer=_Linear(rng.normal(size=theta.shape))), theta


def power(count: int, seed: int = SEED) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (violations, pairs) for each test loss and each wrong constant."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for loss, draw in {"logistic": logistic, "linear": linear_test}.items():
        for pair in pairs(draw, np.random.default_rng([seed, 99]), count):
            constants = closed_form_constants(pair.problem)
            assert constants is not None  # both losses know theirs
            for name, shrink in SHRUNK.items():
                bar = certify(pair.problem, pair.theta, pair.gradient, pair.phi, constants=shrink(constants))
                crossed, total = found.get((loss, name), (0, 0))
                found[loss, name] = (crossed + int((pair.error > bar.bound).sum()), total + pair.error.size)
    return found


def sharp_instance() -> tuple[float, float]:
    """Bound/error where both meet, with ρ and with ρ/1.1: the second must be below 1.

    One sample and one feature, two classes at p = (3 − √3)/6, where the third derivative is largest; a linear test
    loss and λ = 1000, so that nothing but ρ enters.
    """
    p, direction = (3 - 3**0.5) / 6, np.array([1.0, -1.0])
    train = SoftmaxCrossEntropy(np.array([[1.0]]), np.array([0]), 2)
    star = 0.5 * np.log(p / (1 - p)) * direction
    lam, test = 1e3, _Linear(direction)
    theta, phi = star + train.gradient(star) / lam, star + 1e-4 * direction / 2**0.5
    problem = BilevelProblem(train, test, lam)
    g, exact = (lam * np.linalg.solve(problem.curvature(x).dense(), direction) for x in (phi, star))
    rho, error = float(train.hessian_lipschitz()), float(np.linalg.norm(g - exact))
    first, second = (
        float(certify(problem, theta, g, phi, constants=Constants(lam, 0.0, rho / shrink)).bound) / error
        for shrink in (1.0, 1.1)
    )
    return first, second


@dataclass(frozen=True, eq=False)
class _Linear:
    """L(φ) = cᵀφ, one c per problem."""

    c: Any

    def value(self, x: Any) -> Any:
        return np.sum(x * self.c, axis=-1)

    def curvature_bound(self) -> Any:
        return np.zeros(self.c.shape[:-1])

    def gradient(self, x: Any) -> Any:
        return np.broadcast_to(self.c, x.shape)

    def linearize(self, x: Any) -> Any:
        return Linearization(self.value(x), self.gradient(x), np.zeros_like)


def fifty_digits(count: int, seed: int = SEED) -> tuple[int, int]:
    """Return (violations, pairs) of all bounds against references of 50 digits, whose radius counts against us."""
    from implicit_grad import reference

    crossed = total = 0
    for number, (family, draw) in enumerate(FAMILIES.items()):
        if family == "digits":  # d is in the hundreds: for refinement
            continue
        problem, theta = draw(np.random.default_rng([seed, 50, number]), count)
        exact = reference(problem, theta, digits=50).gradient
        run = GradientDescent(None, BUDGETS[-1], record=True)(problem, theta)
        for steps in BUDGETS:
            for estimator in ESTIMATORS.values():
                inner = run.at(steps)
                g = estimator(problem, theta, inner).gradient
                error = np.linalg.norm(g - exact, axis=-1)
                pair = Pair(problem, theta, inner.value, g, error, np.linalg.norm(exact, axis=-1))
                for found in bounds_of(pair).values():
                    crossed += int(((error > found.bound) | (error < found.lower)).sum())
                    total += error.size
    return crossed, total


def report(
    tallies: dict[Any, Tally], wrong: dict[tuple[str, str], tuple[int, int]], digits50: tuple[int, int]
) -> str:
    """Return the page."""
    lines = [
        "# How good the error bars are",
        "",
        "Written by `make certificates` (`python -m benchmarks.certificates`). A pair is a random problem with an",
        f"inner budget (gradient descent from θ, K = {', '.join(map(str, BUDGETS))}) and an estimator",
        f"({', '.join(ESTIMATORS)}).",
        "Its error is taken against Newton at the rounding floor and a refined exact solve.",
        "",
        *(f"- *{family}*: {draw.__doc__}" for family, draw in FAMILIES.items()),
        "",
        "A violation is an error outside [lower, bound]. Ratios bound/error are over errors above "
        f"{VISIBLE:g}·‖∇F‖; below that",
        "rounding is held against its allowance, and only violations are counted. Informative: bound < ‖ĝ‖.",
        "",
        "| family | bound | pairs | violations | median bound/error | 90 % | within 10 % | informative |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {family} | {name} | {' | '.join(t.row)} |" for (family, name), t in tallies.items()),
        "",
        f"Against 50 digits (ridge, logistic, softmax): {digits50[0]} violations in {digits50[1]:,} bounds.",
        "",
        "## Power",
        "",
        "The same audit of logistic problems with wrong constants must find violations, or it could not see any.",
        "With a linear test loss β is 0, and ρ and R carry the bound alone.",
        "",
        "| test loss | constant | violations | pairs |",
        "|---|---|---|---|",
        *(f"| {loss} | {name} | {crossed:,} | {total:,} |" for (loss, name), (crossed, total) in wrong.items()),
        "",
        "On the sharp instance (one-dimensional logistic loss at p = (3 − √3)/6, linear test loss, λ = 1000)",
        "bound/error is {:.4f}, and {:.4f} with ρ/1.1: a violation.".format(*sharp_instance()),
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Audit, print the page, and write it after a full run; the exit status is 1 if any bound was crossed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certificates", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few problems: a look, not a result")
    parser.add_argument("--out", type=Path, help="where the page goes; a full run has its own place")
    options = parser.parse_args(arguments)
    counts = QUICK if options.quick else FULL
    tallies = audit(counts, say=lambda text: sys.stderr.write(text + "\n"))
    wrong, proven = power(20 if options.quick else 120), fifty_digits(1 if options.quick else 5)
    page = report(tallies, wrong, proven)
    sys.stdout.write(page)
    target = options.out or (None if options.quick else TABLE)
    if target is not None:
        with atomic_target(target) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return int(proven[0] > 0 or any(tally.crossed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
