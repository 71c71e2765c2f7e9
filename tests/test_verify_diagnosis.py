"""Is the cause named: fits of the catalogue, and when they say that they are not sure. All: benchmarks.diagnosis."""

import numpy as np
import pytest

from benchmarks.diagnosis.report import PAGE, complaints
from benchmarks.diagnosis.right import Right
from benchmarks.diagnosis.wrong import NAMED as WELL_NAMED
from benchmarks.diagnosis.wrong import WRONG, Trial, judge
from implicit_grad import EXACT, BilevelProblem, LeastSquares, SoftmaxCrossEntropy, Verdict, verify
from implicit_grad.verify import CATALOGUE, wrong_formula
from implicit_grad.verify._diagnosis import Diagnosis, diagnose
from implicit_grad.verify._fit import Fitter, Sample
from implicit_grad.verify._scene import Scene

QUICK = ("unrolled limit", "finite difference")
FREE = [formula for formula in CATALOGUE if formula.number is not None or formula.counts]


@pytest.fixture(scope="module")
def softmax():
    rng = np.random.default_rng(21)
    X, labels = rng.standard_normal((16, 2)), rng.integers(3, size=16)
    return BilevelProblem(SoftmaxCrossEntropy(X[:8], labels[:8], 3), SoftmaxCrossEntropy(X[8:], labels[8:], 3), 0.4)


@pytest.fixture(scope="module")
def ridge():
    rng = np.random.default_rng(22)
    X, y = rng.standard_normal((14, 4)), rng.standard_normal(14)
    return BilevelProblem(LeastSquares(X[:7], y[:7]), LeastSquares(X[7:], y[7:]), 0.4)


def samples_of(candidate, problem, count=3):
    rng = np.random.default_rng(5)
    made = []
    for theta in rng.standard_normal((count, problem.inner.size)):
        scene = Scene.of(problem, theta)
        g = candidate(theta)
        made.append(Sample(scene, g, scene.right, 1e-11 * max(np.linalg.norm(g), np.linalg.norm(scene.right))))
    return tuple(made)


@pytest.mark.parametrize("formula", FREE, ids=lambda formula: formula.name)
def test_free_numbers_are_found(softmax, formula):
    """At a θ that was not fitted, too, and to many digits."""
    first = Scene.of(softmax, np.zeros(6))
    number = None if formula.number is None else 0.73 * formula.number.example * formula.number.unit.of(first)
    count = formula.counts[2] if formula.counts else None
    fit = Fitter(samples_of(lambda t: formula(softmax, t, number=number, count=count), softmax)).fit(formula)
    assert fit.fits
    assert fit.count == count
    assert fit.number is None or fit.number == pytest.approx(number, rel=1e-6)
    assert fit.unexplained <= 1e-9


@pytest.mark.parametrize(
    ("name", "count", "step"), [("K-step unrolled", 14, 0.1), ("Neumann series cut off", 16, 0.7)]
)
def test_counts_are_found_where_their_neighbours_nearly_fit(softmax, name, count, step):
    """16 steps of 0.7 are nearly 20 of 0.56: the fit walks from one to the other."""
    formula = wrong_formula(name)
    number = step * Scene.of(softmax, np.zeros(6)).step_size
    fit = Fitter(samples_of(lambda t: formula(softmax, t, number=number, count=count), softmax)).fit(formula)
    assert fit.fits
    assert fit.count == count
    assert fit.number == pytest.approx(number, rel=1e-6)


@pytest.mark.parametrize("name", ["damped curvature", "K-step unrolled, start held"])
def test_the_end_of_a_range_explains_nothing(softmax, name):
    """No damping is the right gradient and a step of nothing is zero: those are not what the formula is about."""
    formula = wrong_formula(name)
    unit = formula.number.unit.of(Scene.of(softmax, np.zeros(6)))
    held = samples_of(lambda t: formula(softmax, t, number=1e-3 * formula.number.lowest * unit), softmax)
    fitter = Fitter(held)
    assert fitter._judged(formula, 0, 1e-3 * formula.number.lowest * unit, False) is None
    assert fitter._judged(formula, 0, 2 * formula.number.lowest * unit, False) is not None


def test_containers_exist_and_hold_no_circle():
    parents = {formula.name: formula.part_of for formula in CATALOGUE}
    for name in parents:
        seen, waiting = set(), [name]
        while waiting:
            for parent in parents[waiting.pop()]:
                assert parent != name
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
    assert len(parents) == len(CATALOGUE)
    assert all(formula.remedy and "\n" not in formula.remedy for formula in CATALOGUE)


def test_a_formula_that_does_not_fit_says_so(softmax):
    held = samples_of(lambda t: wrong_formula("2I + H/λ")(softmax, t), softmax)
    for name in ("first-order", "CG stopped", "K-step unrolled", "scaled by a constant"):
        fit = Fitter(held).fit(wrong_formula(name))
        assert not fit.fits
        assert fit.misfit >= 1e3


def test_what_fits_by_chance_does_not_survive_the_held_out_point(ridge):
    """A factor fitted to one θ leaves the other θ unexplained."""
    candidates = iter([2.0, 2.0, 3.0])
    held = samples_of(lambda t: next(candidates) * EXACT(ridge, t).gradient, ridge)
    fit = Fitter(held).fit(wrong_formula("scaled by a constant"))
    assert fit.misfit <= 1
    assert fit.held_out > 1e3
    assert not fit.fits


NAMED = {
    "first-order": {},
    "train-loss right-hand side": {},
    "1/λ for λ": {},
    "2I + H/λ": {},
    "damped λ": {"number": 0.9},
    "block-diagonal inverse": {},
    "θ for φ in H": {},
    "CG stopped": {"count": 2},
    "K-step unrolled": {"number": 0.3, "count": 5},
    "train loss summed": {},
    "scaled by a constant": {"factor": -1.7},
}


@pytest.mark.parametrize("name", NAMED)
def test_the_cause_is_named_with_confidence(softmax, name):
    def candidate(problem, theta):
        return wrong_formula(name)(problem, theta, **NAMED[name])

    report = verify(candidate, softmax, np.full(6, 0.4) * [1, -1, 2, 0.5, 1, -2], without=QUICK)
    assert report.verdict is Verdict.FAIL
    assert report.diagnosis.names == (name,)
    assert report.diagnosis.confident
    assert wrong_formula(name).remedy in str(report)


def test_what_one_lambda_cannot_tell_apart_is_not_told_apart(ridge):
    """(I + H/(λ + δ))⁻¹, (I + cH/λ)⁻¹ and another constant for λ are one vector, until λ moves."""
    damped = wrong_formula("damped λ")

    def blind(theta):
        return damped(ridge, theta, number=0.9)

    def seeing(problem, theta):
        return damped(problem, theta, number=0.9)

    theta = np.array([0.4, -1.0, 0.7, 2.0])
    report = verify(blind, ridge, theta, without=QUICK)
    assert {"damped λ", "H scaled", "constant for λ in the system"} <= set(report.diagnosis.names)
    assert not report.diagnosis.confident
    assert "cannot be told apart" in str(report)
    assert verify(seeing, ridge, theta, without=QUICK).diagnosis.names == ("damped λ",)


def test_two_faults_at_once(softmax):
    """A known formula times a constant is recognised; noise is nothing that is known."""
    first = samples_of(lambda t: 2.5 * wrong_formula("train-loss right-hand side")(softmax, t), softmax, 4)
    assert diagnose(first).names == ("train-loss right-hand side, times c",)
    rng = np.random.default_rng(3)
    noise = diagnose(samples_of(lambda t: rng.standard_normal(6), softmax, 4))
    assert not noise.causes
    assert not noise.confident
    assert "comes close" in str(noise)


def test_the_closest_are_named_where_none_explains_it(softmax):
    off = np.random.default_rng(4).standard_normal(6)
    held = samples_of(lambda t: wrong_formula("first-order")(softmax, t) * (1 + 1e-3 * off), softmax, 4)
    found = diagnose(held)
    assert not found.causes
    assert found.closest[0].name in ("first-order", "Jacobian-free")
    assert 1e-5 < found.closest[0].residual < 1e-1
    assert "the closest" in str(found)
    assert not Diagnosis().confident


def test_wrong_in_confidence_would_be_counted(softmax):
    """The benchmark can tell: its judge is shown a report whose confident cause is another."""
    report = verify(lambda p, t: wrong_formula("first-order")(p, t), softmax, np.ones(6), without=QUICK)
    assert judge("first-order", report) == WELL_NAMED
    assert judge("1/λ for λ", report) == WRONG
    trial = Trial("1/λ for λ", "", None, None, 1.0)
    wrong = [(trial, WRONG, ("first-order",), 1.0)]
    assert "with confidence" in complaints(wrong, [])[0]
    assert "called wrong" in complaints([], [(Right("EXACT", "ridge", 5), "FAIL", 1.0)])[0]


def test_the_page_is_the_benchmarks(softmax):
    text = PAGE.read_text(encoding="utf-8")
    for formula in CATALOGUE:
        assert f"| {formula.name} |" in text, "run: python -m benchmarks.diagnosis"
