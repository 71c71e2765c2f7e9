"""Right, wrong, or not to be told: the three verdicts, and the numbers beside them."""

import autograd.numpy as anp
import numpy as np
import pytest
from verify_scenes import THETA, look, ridge

from implicit_grad import (
    EXACT,
    Autodiff,
    BilevelProblem,
    Cholesky,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    Verdict,
    verify,
)


@pytest.fixture
def problem(rng):
    return ridge(rng)


def test_a_right_gradient_passes_with_numbers(problem):
    report = verify(EXACT, problem)
    assert report.verdict is Verdict.PASS
    assert len(report.points) == 3
    assert report.error <= 1e-13
    assert report.resolution <= 1e-15
    for point in report.points:
        assert point.cosine == pytest.approx(1)
        assert point.norm_ratio == pytest.approx(1)
        assert {"exact", "contrastive", "finite difference", "unrolled limit"} <= set(point.right.agreement.oracles)
        assert bool(point.right.agreement.agrees)


def test_errors_are_measured_along_entries_and_eigenvectors(problem):
    off = np.array([0.0, 1e-3, 0.0])
    report = look(lambda theta: EXACT(problem, theta).gradient + off, problem)
    (point,) = report.points
    size = np.linalg.norm(EXACT(problem, THETA).gradient)
    assert report.verdict is Verdict.FAIL
    assert point.error == pytest.approx(1e-3, rel=1e-9)
    assert point.coordinates == pytest.approx(off / size, rel=1e-9, abs=1e-14)
    assert np.linalg.norm(point.directions) == pytest.approx(1e-3 / size, rel=1e-9)
    assert point.relative_error == report.error


@pytest.mark.parametrize("off", [1e-9, 1e-5, 0.3])
def test_the_tolerance_is_the_users_where_there_is_one(problem, off):
    def candidate(theta):
        return EXACT(problem, theta).gradient * (1 + off)

    assert look(candidate, problem).verdict is Verdict.FAIL
    assert look(candidate, problem, rtol=min(2 * off, 0.9)).verdict is Verdict.PASS
    assert look(candidate, problem, rtol=off / 2).verdict is Verdict.FAIL


def test_what_the_oracles_cannot_resolve_is_neither_right_nor_wrong(problem):
    """The difference between the tolerance and the error is less than the blunt oracles can see."""

    def candidate(theta):
        return EXACT(problem, theta).gradient * (1 + 1e-9)

    blunt = ("reference", "exact", "complex step", "unrolled limit")
    report = verify(candidate, problem, THETA, rtol=1e-9, without=blunt, diagnosis=False)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "cannot tell" in Verdict.INCONCLUSIVE.value


def test_one_oracle_is_no_oracle(problem):
    others = ("reference", "contrastive", "finite difference", "complex step", "unrolled limit")
    report = look(EXACT, problem, without=others)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "fewer than two" in str(report)


class Wrong(LeastSquares):
    """Whose products are not of its Hessian."""

    def linearize(self, x):
        at = super().linearize(x)
        return type(at)(at.value, at.gradient, lambda v: 1.3 * at.hvp(v))


def test_wrong_products_of_the_problem_are_named(problem):
    """What is computed with them is wrong, and the report says that the problem is to blame."""
    wrong = BilevelProblem(Wrong(problem.inner.X, problem.inner.y), problem.outer, 0.6)
    report = verify(EXACT, wrong, THETA, without=("reference", "complex step"))
    assert report.verdict is not Verdict.PASS
    assert "HVP" in str(report)


def test_a_hopeless_condition_is_no_crash(problem):
    hopeless = BilevelProblem(LeastSquares(problem.inner.X[:2], 1e9 * problem.inner.y[:2]), problem.outer, 1e-17)
    assert verify(EXACT, hopeless, THETA, diagnosis=False).verdict is not Verdict.PASS


def test_a_saddle_has_no_gradient():
    saddle = BilevelProblem(Autodiff(lambda p: p[0] ** 2 - p[1] ** 2), Autodiff(anp.sum), 0.5)
    assert look(lambda theta: theta, saddle, np.zeros(2)).verdict is Verdict.INCONCLUSIVE


def test_another_minimum_is_no_error():
    wells = Autodiff(lambda p: anp.sum((p**2 - 1) ** 2))
    outer = Autodiff(lambda p: anp.sum((p - 3.0) ** 2))
    two = BilevelProblem(wells, outer, 0.2)

    class Right:
        """Finds the right-hand well from anywhere."""

        def __call__(self, problem, theta, *, start=None):
            return Newton(1e-13)(problem, theta, start=np.ones(1) if start is None else start)

    theta = np.array([-0.4])
    here, there = EXACT(two, theta), MetaGradient(Right(), ImplicitGradient(Cholesky()))(two, theta)
    assert here.inner.value[0] < 0 < there.inner.value[0]
    assert look(EXACT, two, theta).verdict is Verdict.PASS
    anchored = MetaGradient(Right(), ImplicitGradient(Cholesky()))
    assert look(anchored, two, theta).verdict is Verdict.FAIL
    assert look(anchored, two, theta, solver=Right()).verdict is Verdict.PASS
