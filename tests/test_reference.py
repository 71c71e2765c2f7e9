"""References: enclosures that hold, whatever computes them, and refusals where there is nothing to enclose."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from oracles import scenes
from oracles.fifty_digits import MP, meta_gradient
from oracles.losses import Diagonal

from implicit_grad import (
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    IndefiniteError,
    LeastSquares,
    MissingDependency,
    MultilayerPerceptron,
    Newton,
    reference,
)
from implicit_grad.reference import _arithmetic, _reference
from implicit_grad.reference._losses import ReferenceLoss

SCENES = {
    "ridge": lambda lam: scenes.ridge(lam),
    "softmax": lambda lam: scenes.softmax(lam),
    "tanh": lambda lam: scenes.network(lam, (2,), "tanh", 0),
    "softplus": lambda lam: scenes.network(lam, (2,), "softplus", 2),
}
EVERY_SCENE = pytest.mark.parametrize("make", SCENES.values(), ids=SCENES)


def _distance(one, other):
    return float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True))) ** 0.5


@EVERY_SCENE
@pytest.mark.parametrize("lam", [0.37, 41.0])
def test_it_is_the_gradient_of_the_outer_loss(make, lam):
    """Central differences of F through minima enclosed anew: their error h² is near 1e-30."""
    scene = make(lam)
    h, found = Fraction(1, 2**50), reference(scene.problem, scene.theta)
    R = _arithmetic.verified_arithmetic()
    with R.precision(300):
        test = ReferenceLoss("outer", scene.problem.outer, R)
        for j in (0, len(scene.theta) - 1):
            values = []
            for sign in (1, -1):
                moved = scene.theta.copy()
                moved[j] += sign * float(h) * 2**-1 * abs(moved[j])
                phi = _phi(R, scene.problem, moved)
                values.append((test.value(phi), Fraction(moved[j])))
            (up, right), (down, left) = values
            slope = R.fractions(np.array([up - down], dtype=object))[0] / (right - left)
            assert abs(float(slope - found.values[j])) <= 1e-25 * max(1.0, abs(float(slope)))


@EVERY_SCENE
def test_an_oracle_that_shares_no_code_agrees(make):
    """The tests' own fifty digits: plain sums, and Hessians by differences, wrong near 1e-32."""
    scene = make(0.37)
    start = Newton(1e-13)(scene.problem, scene.theta).value  # a network has several minima
    found = reference(scene.problem, scene.theta, start=start)
    exact = meta_gradient(*scene.exact, 0.37, scene.theta, start)
    other = [int(MP.sign(x) * x.man) * Fraction(2) ** x.exp for x in exact]
    size = _distance(other, [Fraction(0)] * len(other))
    assert _distance(found.values, other) <= found.radius + 1e-26 * size


def _phi(R, problem, theta):
    """φ* in 300 bits, by the enclosure's own proof."""
    from implicit_grad.reference._enclosure import enclose

    start = Newton(1e-13)(problem, theta).value
    train, test = (ReferenceLoss("a", loss, R) for loss in (problem.inner, problem.outer))
    found = enclose(R, train, test, float(problem.lam), theta, start, 60)
    return np.array([R.exact(1)[()] * int(f.numerator) / int(f.denominator) for f in found.phi], dtype=object)


@EVERY_SCENE
def test_two_arithmetics_and_two_precisions_agree_within_their_radii(make, monkeypatch):
    scene = make(0.7)
    balls, coarse = reference(scene.problem, scene.theta), reference(scene.problem, scene.theta, digits=20)
    monkeypatch.setattr(_reference, "verified_arithmetic", _arithmetic.MpmathIntervals)
    intervals = reference(scene.problem, scene.theta, digits=25)
    assert "mpmath" in intervals.arithmetic
    for other in (coarse, intervals):
        assert _distance(balls.values, other.values) <= balls.radius + other.radius
        assert other.proven
    assert balls.digits >= 50
    assert coarse.digits >= 20
    assert intervals.digits >= 25


@EVERY_SCENE
def test_refinement_stays_within_its_stated_bound(make, monkeypatch):
    scene = make(0.7)
    balls = reference(scene.problem, scene.theta)
    monkeypatch.setattr(_reference, "LARGEST", 0)
    refined = reference(scene.problem, scene.theta)
    assert not refined.proven
    off = _distance(balls.values, refined.values)
    assert off <= refined.radius
    # Long doubles are worth three digits where the machine has them.
    if np.finfo(np.longdouble).eps < 1e-18:
        assert off < 1e-17 * scene.condition * np.linalg.norm(balls.gradient) or np.isnan(scene.condition)


def test_the_exact_gradient_is_within_rounding_of_it():
    scene = scenes.softmax(0.37)
    found = reference(scene.problem, scene.theta)
    assert found.error(EXACT(scene.problem, scene.theta).gradient) <= 64 * 9 * scene.condition * scenes.EPS
    assert found.error(found.gradient) <= scenes.EPS
    assert found.error(found.gradient * (1 + 1e-9)) == pytest.approx(1e-9, rel=1e-6)


def test_a_batch_is_its_problems():
    scene = scenes.ridge(0.37)
    problem = replace(scene.problem, lam=np.array([0.37, 2.0]))
    both = reference(problem, scene.theta, digits=20)
    for i in range(2):
        one = reference(replace(scene.problem, lam=problem.lam[i]), scene.theta, digits=20)
        assert (both.values[i] == one.values).all()


def test_a_wrong_derivative_is_no_proof(monkeypatch):
    """Mutant: a Hessian that lost a part makes Krawczyk's condition fail or widens the box, never a wrong number."""
    scene = scenes.softmax(0.37)
    right = reference(scene.problem, scene.theta, digits=20)
    hessian = ReferenceLoss.hessian
    monkeypatch.setattr(ReferenceLoss, "hessian", lambda self, x: hessian(self, x) * 2)
    wrong = reference(scene.problem, scene.theta, digits=20)
    assert _distance(right.values, wrong.values) > right.radius + wrong.radius


def test_a_saddle_is_refused():
    """All-zero weights: stationary, and λ is smaller than the negative curvature. Newton in float64 stays there."""
    train = MultilayerPerceptron(np.array([[1.0], [-1.0]]), np.array([4.0, -4.0]), (2,))
    zero = np.zeros(train.size)
    with pytest.raises(IndefiniteError, match="strict minimum"):
        reference(BilevelProblem(train, train, 1e-3), zero)
    assert reference(BilevelProblem(train, train, 50.0), zero).proven


def test_a_missing_library_names_the_extra(monkeypatch):
    def absent():
        raise ImportError("absent")

    monkeypatch.setattr(_arithmetic, "ArbBalls", absent)
    monkeypatch.setattr(_arithmetic, "MpmathIntervals", absent)
    with pytest.raises(MissingDependency, match=r"implicit-grad\[reference\]"):
        _arithmetic.verified_arithmetic()


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda p, t: reference(p, t, digits=0), ArgumentError, "digits"),
        (lambda p, t: reference(p, t, digits=10**6), ArgumentError, "digits"),
        (lambda p, t: reference(replace(p, inner=Diagonal(np.ones(6))), t), ArgumentTypeError, "inner"),
    ],
)
def test_bad_input(call, error, name):
    scene = scenes.ridge(0.37)
    with pytest.raises(error, match=name):
        call(scene.problem, scene.theta)


def test_the_textbook_case():
    problem = BilevelProblem(LeastSquares(np.eye(1), np.ones(1)), LeastSquares(np.eye(1), np.zeros(1)), 0.5)
    found = reference(problem, np.zeros(1), digits=100)
    assert abs(found.values[0] - Fraction(2, 9)) <= Fraction(float(found.radius))
    assert found.radius < 1e-100
