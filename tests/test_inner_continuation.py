"""Warm starts along λ."""

import numpy as np
import pytest
from hypothesis import given

from implicit_grad import ArgumentError, Continuation, GradientDescent, Newton
from implicit_grad.tasks import Sinusoid
from implicit_grad.testing.strategies import softmax_specs

LAMS = (0.3, 40.0, 3.0)


@given(softmax_specs())
def test_finds_the_minimum_of_every_lambda(spec):
    """Convex losses have one minimum: warm and cold starts agree (law 7)."""
    case = spec.build()
    warm = Continuation(LAMS)(case.problem, case.theta)
    for i, lam in enumerate(LAMS):
        cold = Newton()(case.problem.with_lam(lam), case.theta)
        apart = np.linalg.norm(warm.value[i] - cold.value)
        assert apart <= (warm.residual_norm[i] + cold.residual_norm) / lam + case.tol_phi()


def test_follows_one_branch_of_a_network_and_saves_steps():
    rng = np.random.default_rng(47)
    source = Sinusoid(shots=6, queries=6, hidden=(8,))
    problem, theta = source.sample(rng, tasks=4, lam=1.0), source.initial_parameters(rng)
    lams = tuple(np.geomspace(100, 2, 12))
    warm = Continuation(lams)(problem, theta)
    assert np.all(warm.ok)
    moved = np.linalg.norm(np.diff(warm.value, axis=0), axis=-1)
    assert moved.max() < np.linalg.norm(warm.value[0] - theta, axis=-1).max() * 20  # no jump between neighbours
    cold = Newton()(problem.with_lam(np.asarray(lams)[:, None]), theta)
    assert warm.steps.sum() < cold.steps.sum()


def test_the_order_given_is_the_order_returned():
    rng = np.random.default_rng(53)
    source = Sinusoid(shots=6, queries=6, hidden=(3,))
    problem, theta = source.sample(rng, tasks=2, lam=1.0), source.initial_parameters(rng)
    forth, back = Continuation(LAMS)(problem, theta), Continuation(LAMS[::-1])(problem, theta)
    assert np.array_equal(forth.value, back.value[::-1])


def test_a_failed_solve_is_no_start():
    """Too large a step diverges at the largest λ; the next one starts from θ again."""
    rng = np.random.default_rng(59)
    source = Sinusoid(shots=6, queries=6, hidden=(3,))
    problem, theta = source.sample(rng, tasks=1, lam=1.0), source.initial_parameters(rng)
    solver = GradientDescent(0.02, 300)
    warm = Continuation((1e4, 5.0), solver)(problem, theta)
    alone = solver(problem.with_lam(5.0), theta)
    assert not warm.ok[0, 0]
    assert np.array_equal(warm.value[1], alone.value)


@pytest.mark.parametrize("bad", [(), (0.0,), (np.nan,)])
def test_bad_lambdas(bad):
    with pytest.raises(ArgumentError, match="lams"):
        Continuation(bad)
