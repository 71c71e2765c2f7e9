"""Audit of the error bars: `python -m benchmarks.certificates [--quick] [--out FILE]`.

Random problems, inner budgets and estimators go through `certify`; every bound is held against a reference refined to
the rounding floor, and some against 50 digits with a proven radius. A full run writes `docs/certificates.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.certificate_pairs import (
    BUDGETS,
    ESTIMATORS,
    FAMILIES,
    REFERENCE,
    Linear,
    Pair,
    linear_test,
    logistic,
    pairs,
)
from implicit_grad import (
    BilevelProblem,
    Certificate,
    Constants,
    GradientDescent,
    SoftmaxCrossEntropy,
    certify,
)
from implicit_grad.certificates import Kind, closed_form_constants
from implicit_grad.storage import atomic_target

TABLE = Path(__file__).resolve().parent.parent / "docs" / "certificates.md"
SEED = 20191210
NEWTON_STEPS = 20
"""Damped Newton steps of the enclosure, at most: a problem at the rounding floor takes no more."""
VISIBLE = 1e-9
"""Ratios are taken of errors above this share of ‖∇F‖: below, rounding is compared with its allowance."""
AT_PHI, AHEAD, NEWTON = "at φ", "L-BFGS on (default)", "1 Newton step on"
ENCLOSURE = f"enclosure, ≤ {NEWTON_STEPS} Newton steps"
MEDIAN, SHARP, PRODUCTS = 6.0, 0.95, 2
"""What was wanted before anything was measured: bound/error, share of enclosures within 10 %, products."""

FULL = {"ridge": 160, "logistic": 160, "softmax": 120, "digits": 80}
"""Problems of each family: 520 · 7 budgets · 6 estimators = 21,840 pairs, each with four bounds."""
LOOK = {"ridge": 40, "logistic": 40, "softmax": 40, "digits": 40}
STEPS_AHEAD = (0, 1, 2, 4, 6, 10)
QUICK = {"ridge": 8, "logistic": 8, "softmax": 8, "digits": 4}


@dataclass
class Tally:
    """What became of one kind of bound on one family."""

    pairs: int = 0
    crossed: int = 0
    informative: int = 0
    ratios: list[Any] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    hvps: int = 0
    hessians: int = 0

    def add(self, found: Certificate, pair: Pair) -> None:
        """Count a batch."""
        if found.kind is not Kind.RIGOROUS:
            raise RuntimeError(f"a certificate of closed-form losses is {found.kind}")
        self.pairs += pair.error.size
        self.crossed += int(((pair.error > found.bound) | (pair.error < found.lower)).sum())
        self.informative += int(found.informative.sum())
        seen = pair.error > VISIBLE * pair.size
        self.ratios.append(found.bound[seen] / pair.error[seen])
        self.gradients.append(found.cost.gradients)
        self.hvps, self.hessians = max(self.hvps, found.cost.hvps), max(self.hessians, found.cost.hessians)

    @property
    def median(self) -> float:
        """Of bound over error."""
        return float(np.median(np.concatenate(self.ratios)))

    @property
    def sharp(self) -> float:
        """Share of bounds within 10 % of the error."""
        return float(np.mean(np.concatenate(self.ratios) <= 1.1))

    @property
    def row(self) -> list[str]:
        """Cells of the table."""
        ratios = np.concatenate(self.ratios)
        return [
            f"{self.pairs:,}",
            str(self.crossed),
            f"{self.median:.3g}",
            f"{np.quantile(ratios, 0.9):.3g}",
            f"{100 * self.sharp:.1f} %",
            f"{100 * self.informative / self.pairs:.0f} %",
            f"{np.mean(self.gradients):.0f}",
            str(self.hvps),
            str(self.hessians),
        ]


def bounds_of(pair: Pair) -> dict[str, Certificate]:
    """The bounds of one batch."""

    def made(**options: Any) -> Certificate:
        return certify(pair.problem, pair.theta, pair.gradient, pair.phi, **options)

    return {
        AT_PHI: made(gradient_steps=0),
        AHEAD: made(),
        NEWTON: made(newton_steps=1, two_sided=False),
        ENCLOSURE: made(newton_steps=NEWTON_STEPS),
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


Power = dict[tuple[str, str, str], tuple[int, int]]


def power(count: int, seed: int = SEED) -> Power:
    """Return (violations, pairs) for each test loss, each wrong constant and where the bound is taken."""
    found: Power = {}
    for loss, draw in {"logistic": logistic, "linear": linear_test}.items():
        for pair in pairs(draw, np.random.default_rng([seed, 99]), count):
            constants = closed_form_constants(pair.problem)
            assert constants is not None  # both losses know theirs
            for name, shrink in SHRUNK.items():
                for level, steps in ((AT_PHI, 0), (AHEAD, None)):
                    options: dict[str, Any] = {"constants": shrink(constants), "gradient_steps": steps}
                    bar = certify(pair.problem, pair.theta, pair.gradient, pair.phi, **options)
                    crossed, total = found.get((loss, name, level), (0, 0))
                    more = int((pair.error > bar.bound).sum())
                    found[loss, name, level] = (crossed + more, total + pair.error.size)
    return found


def sharp_instance() -> tuple[float, float]:
    """Bound/error where both meet, with ρ and with ρ/1.1: the second must be below 1.

    One sample and one feature, two classes at p = (3 − √3)/6, where the third derivative is largest; a linear test
    loss and λ = 1000, so that nothing but ρ enters.
    """
    p, direction = (3 - 3**0.5) / 6, np.array([1.0, -1.0])
    train = SoftmaxCrossEntropy(np.array([[1.0]]), np.array([0]), 2)
    star = 0.5 * np.log(p / (1 - p)) * direction
    lam, test = 1e3, Linear(direction)
    theta, phi = star + train.gradient(star) / lam, star + 1e-4 * direction / 2**0.5
    problem = BilevelProblem(train, test, lam)
    g, exact = (lam * np.linalg.solve(problem.curvature(x).dense(), direction) for x in (phi, star))
    rho, error = float(train.hessian_lipschitz()), float(np.linalg.norm(g - exact))
    first, second = (
        float(certify(problem, theta, g, phi, constants=Constants(lam, 0.0, rho / shrink), gradient_steps=0).bound)
        / error
        for shrink in (1.0, 1.1)
    )
    return first, second


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


def slack(counts: dict[str, int], seed: int = SEED) -> dict[str, list[float]]:
    """Return, by family, how much each premise gives away: medians of bound over truth, for exact linear solves.

    Of ‖φ − φ*‖ by ‖∇G‖/m, of ‖b̂ − b*‖ by β‖φ − φ*‖, and of ‖(H* − Ĥ)ĝ‖ by ρ‖φ − φ*‖‖ĝ‖.
    """
    found: dict[str, list[float]] = {}
    for number, (family, count) in enumerate(counts.items()):
        problem, theta = FAMILIES[family](np.random.default_rng([seed, 7, number]), count)
        star, constants = REFERENCE(problem, theta).inner.value, closed_form_constants(problem)
        assert constants is not None  # all families know theirs
        run = GradientDescent(None, 30, record=True)(problem, theta)
        ratios: list[Any] = []
        for steps in (0, 1, 3, 10, 30):
            phi = run.at(steps).value
            g = ESTIMATORS["exact"](problem, theta, run.at(steps)).gradient
            away = np.linalg.norm(phi - star, axis=-1)
            residual = np.linalg.norm(problem.stationarity(phi, theta), axis=-1)
            b, H = (problem.outer.gradient(phi) - problem.outer.gradient(star)), problem.curvature
            bent = np.linalg.norm(H(star)(g) - H(phi)(g), axis=-1)
            size = np.linalg.norm(g, axis=-1)
            with np.errstate(invalid="ignore", divide="ignore"):  # quadratics do not bend
                straight = bent <= VISIBLE * away * size
                third = np.where(straight, np.nan, constants.rho * away * size / bent)
                ratios.append(
                    [residual / constants.m / away, constants.beta * away / np.linalg.norm(b, axis=-1), third]
                )
        columns = (np.array(each)[np.isfinite(each)] for each in zip(*ratios, strict=True))
        found[family] = [float(np.median(each)) if each.size else np.nan for each in columns]
    return found


def ahead(counts: dict[str, int], seed: int = SEED) -> dict[tuple[str, int], tuple[float, float]]:
    """Return, by family and L-BFGS steps, the median of bound over error and the gradients a certificate costs."""
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for number, (family, count) in enumerate(counts.items()):
        tallies = {steps: Tally() for steps in STEPS_AHEAD}
        for pair in pairs(FAMILIES[family], np.random.default_rng([seed, 8, number]), count):
            for steps, tally in tallies.items():
                bar = certify(pair.problem, pair.theta, pair.gradient, pair.phi, gradient_steps=steps)
                tally.add(bar, pair)
        for steps, tally in tallies.items():
            found[family, steps] = tally.median, float(np.mean(tally.gradients))
    return found


def targets(tallies: dict[Any, Tally]) -> list[str]:
    """One line for each thing that was wanted beforehand, met or not."""
    found = []
    for (family, name), tally in tallies.items():
        if name == ENCLOSURE:
            wanted, measured, met = f"within 10 % in ≥ {SHARP:.0%}", f"{tally.sharp:.1%}", tally.sharp >= SHARP
        else:
            wanted, measured, met = f"median ≤ {MEDIAN:g}", f"{tally.median:.3g}", tally.median <= MEDIAN
        found.append(f"| {family} | {name} | {wanted} | {measured} | {'met' if met else '**missed**'} |")
        if name in (AT_PHI, AHEAD):
            wanted, met = f"≤ {PRODUCTS} products with H", tally.hvps <= PRODUCTS
            found.append(f"| {family} | {name} | {wanted} | {tally.hvps} | {'met' if met else '**missed**'} |")
    return found


def _looseness(counts: dict[str, int]) -> list[str]:
    slacks, medians = slack(counts), ahead(counts)
    return [
        "## Why bounds at φ are loose, and what helps",
        "",
        "How much each premise gives away: medians of bound over truth, exact linear solves, K ≤ 30.",
        "",
        "| family | ‖∇G‖/m over ‖φ − φ*‖ | β‖φ − φ*‖ over ‖b̂ − b*‖ | ρ‖φ − φ*‖‖ĝ‖ over ‖(H* − Ĥ)ĝ‖ |",
        "|---|---|---|---|",
        *(
            f"| {family} | {' | '.join('–' if np.isnan(x) else f'{x:.3g}' for x in each)} |"
            for family, each in slacks.items()
        ),
        "",
        "The distance is known well; its direction is not. On digits φ − φ* lies where the test loss is flat, and β",
        "charges for its steepest direction. No norm of a residual can tell. A few steps on it shows: what φ lacked",
        "has become a difference of two gradients. Median of bound/error, and gradients that a certificate costs:",
        "",
        "| family | " + " | ".join(f"{k} steps" for k in STEPS_AHEAD) + " |",
        "|---" * (1 + len(STEPS_AHEAD)) + "|",
        *(
            f"| {family} | "
            + " | ".join("{:.3g} ({:.0f})".format(*medians[family, steps]) for steps in STEPS_AHEAD)
            + " |"
            for family in counts
        ),
        "",
    ]


def report(tallies: dict[Any, Tally], wrong: Power, digits50: tuple[int, int], counts: dict[str, int]) -> str:
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
        "rounding is held against its allowance, and only violations are counted. Informative: bound < ‖ĝ‖. Costs",
        "are a certificate's own: gradients of either loss (mean), products with H and Hessians (largest).",
        "",
        f"- *{AT_PHI}*: the smallest of the one-sided bounds from residuals at φ (`gradient_steps=0`);",
        f"- *{AHEAD}*: the same with the same ĝ, at φ and at a point six steps of L-BFGS on;",
        f"- *{NEWTON}*: the same, at φ and at a point one damped Newton step with Cholesky on;",
        f"- *{ENCLOSURE}*: two-sided (`newton_steps={NEWTON_STEPS}`).",
        "",
        "| family | bound | pairs | violations | median bound/error | 90 % | within 10 % | informative "
        "| gradients | HVPs | Hessians |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(f"| {family} | {name} | {' | '.join(t.row)} |" for (family, name), t in tallies.items()),
        "",
        f"Against 50 digits (ridge, logistic, softmax): {digits50[0]} violations in {digits50[1]:,} bounds.",
        "",
        "## Targets set beforehand",
        "",
        "The one-sided bounds are one family: the same inequality, evaluated at φ, or at a point further on. The",
        f"target of {MEDIAN:g} is for the family; here each member is held to it.",
        "",
        "| family | bound | wanted | measured | |",
        "|---|---|---|---|---|",
        *targets(tallies),
        "",
        *_looseness(counts),
        "## Power",
        "",
        "The same audit of logistic problems with wrong constants must find violations, or it could not see any.",
        "With a linear test loss β is 0, and ρ and R carry the bound alone.",
        "",
        "| test loss | constant | bound | violations | pairs |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(which)} | {crossed:,} | {total:,} |" for which, (crossed, total) in wrong.items()),
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
    page = report(tallies, wrong, proven, QUICK if options.quick else LOOK)
    sys.stdout.write(page)
    target = options.out or (None if options.quick else TABLE)
    if target is not None:
        with atomic_target(target) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return int(proven[0] > 0 or any(tally.crossed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
