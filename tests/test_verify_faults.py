"""What a candidate can do beside being wrong: each fault is seen and named."""

import sys

import autograd.numpy as anp
import numpy as np
import pytest
from verify_scenes import THETA, look, ridge

from implicit_grad import (
    EXACT,
    SGD,
    Adam,
    Autodiff,
    BilevelProblem,
    Cholesky,
    Fault,
    ImplicitGradient,
    MetaGradient,
    MultilayerPerceptron,
    Newton,
    Verdict,
)


@pytest.fixture
def problem(rng):
    return ridge(rng)


def mutates(problem):
    def candidate(theta):
        g = EXACT(problem, theta).gradient
        theta += 1
        return g

    return candidate


def mutates_the_data(problem):
    def candidate(given, theta):
        g = EXACT(given, theta).gradient
        given.outer.y[0] += 1e-3
        return g

    return candidate


def shares(problem):
    kept = np.zeros(3)

    def candidate(theta):
        kept[:] = EXACT(problem, theta).gradient
        return kept

    return candidate


def raises(problem):
    def candidate(theta):
        raise RuntimeError("out of memory")

    return candidate


def noisy(problem):
    rng = np.random.default_rng(3)
    return lambda theta: EXACT(problem, theta).gradient + 1e-3 * rng.standard_normal(3)


def constant(problem):
    g = EXACT(problem, np.ones(3)).gradient
    return lambda theta: g.copy()


def through_single(problem):
    return lambda theta: EXACT(problem, theta).gradient.astype(np.float32).astype(np.float64)


MISBEHAVED = {
    Fault.RAISES: raises,
    Fault.SHAPE: lambda problem: lambda theta: EXACT(problem, theta).gradient[:, None],
    Fault.DTYPE: lambda problem: lambda theta: EXACT(problem, theta).gradient + 0j,
    Fault.NONFINITE: lambda problem: lambda theta: np.array([1.0, np.nan, 2.0]),
    Fault.MUTATION: mutates,
    Fault.SHARED: shares,
    Fault.NONDETERMINISTIC: noisy,
    Fault.ZERO: lambda problem: np.zeros_like,
    Fault.PARTLY_ZERO: lambda problem: lambda theta: EXACT(problem, theta).gradient * [1.0, 0.0, 1.0],
    Fault.CONSTANT: constant,
}


@pytest.mark.parametrize("fault", MISBEHAVED, ids=lambda fault: fault.name)
def test_each_fault_is_seen_and_named(problem, fault):
    report = look(MISBEHAVED[fault](problem), problem, [THETA, THETA + 1])
    assert report.verdict is Verdict.FAIL
    assert fault in report
    assert fault.name in str(report)
    others = {each.fault for each in report.observations} - {fault}
    assert not others, others


def test_a_candidate_that_writes_into_the_data_is_seen(problem):
    assert Fault.MUTATION in look(mutates_the_data(problem), problem)


@pytest.mark.parametrize("result", [None, "g", [1.0], {"g": np.ones(2)}, object()], ids=lambda r: type(r).__name__)
def test_what_is_no_gradient_is_a_failure_not_a_crash(problem, result):
    report = look(lambda theta: result, problem)
    assert report.verdict is Verdict.FAIL
    assert Fault.DTYPE in report or Fault.SHAPE in report


def test_a_candidate_that_exits_raises(problem):
    report = look(lambda theta: sys.exit(0), problem)
    assert report.verdict is Verdict.FAIL
    assert Fault.RAISES in report


def test_its_own_status_is_heard(problem):
    gives_up = MetaGradient(Newton(rtol=1e-13, max_steps=1), ImplicitGradient(Cholesky()))
    softly = BilevelProblem(Autodiff(lambda p: anp.sum(p**4)), Autodiff(lambda p: anp.sum(p**2)), 0.6)
    assert Fault.REFUSED in look(gives_up, softly)


def test_single_precision_is_allowed_for_and_said(problem):
    single = look(lambda theta: EXACT(problem, theta).gradient.astype(np.float32), problem)
    assert single.verdict is Verdict.PASS
    assert Fault.COARSE in single
    hidden = look(through_single(problem), problem, [THETA, THETA + 1], diagnosis=True)
    assert hidden.verdict is Verdict.FAIL
    assert Fault.SINGLE_PRECISION in hidden


def test_an_unconverged_inner_solve_is_named_whatever_solves(problem):
    unconverged = MetaGradient(Adam(1e-2, 60), ImplicitGradient(Cholesky()))
    report = look(unconverged, problem, diagnosis=True)
    assert report.verdict is Verdict.FAIL
    assert Fault.UNCONVERGED in report
    assert not report.diagnosis.confident
    halved = look(lambda p, theta: unconverged(p, theta).gradient / 2, problem, diagnosis=True)
    assert Fault.UNCONVERGED not in halved


def test_minibatch_noise_is_told(rng):
    X, y = rng.standard_normal((24, 2)), rng.standard_normal(24)
    train = MultilayerPerceptron(X[:12], y[:12], (2,))
    two = BilevelProblem(train, MultilayerPerceptron(X[12:], y[12:], (2,)), 4.0)
    seeds = iter(range(100))

    def candidate(problem, theta):
        return MetaGradient(SGD(0.05, 20, batch_size=4, seed=next(seeds)), ImplicitGradient(Cholesky()))(
            problem, theta
        )

    assert Fault.NONDETERMINISTIC in look(candidate, two, None)
