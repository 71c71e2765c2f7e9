"""Accuracy on demand: what is called converged is, and what cannot be reached is said so."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Counting, Diagonal

from implicit_grad import (
    CG,
    EXACT,
    LBFGS,
    ArgumentError,
    BilevelProblem,
    Cholesky,
    Cost,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Nesterov,
    Newton,
    Status,
    certify,
    reference,
)
from implicit_grad.certificates import Kind, sampled_constants
from implicit_grad.estimators import _accuracy
from implicit_grad.tasks import Sinusoid

MAKES = {"ridge": scenes.ridge, "softmax": scenes.softmax}
INNERS = (GradientDescent(None, 10), Newton(), LBFGS(10), Nesterov(None, 10))


def _method(inner=INNERS[0]):
    return MetaGradient(inner, ImplicitGradient(CG(5)))


@pytest.mark.parametrize("inner", INNERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("rtol", [1e-2, 1e-5])
def test_converged_means_within_the_tolerance(make, inner, rtol):
    scene = make(0.37)
    problem = replace(scene.problem, lam=np.array([0.05, 0.37, 30.0]))
    found, exact = _method(inner).to_accuracy(problem, scene.theta, rtol), EXACT(problem, scene.theta).gradient
    assert all(status is Status.CONVERGED for status in found.status)
    size = np.linalg.norm(found.gradient, axis=-1)
    assert (np.linalg.norm(found.gradient - exact, axis=-1) <= found.certificate.bound).all()
    assert (found.certificate.bound <= rtol * size).all()


def test_more_accuracy_costs_more_and_a_loose_one_little():
    scene = scenes.softmax(0.05)
    costs = [_method().to_accuracy(scene.problem, scene.theta, rtol).cost for rtol in (1e-1, 1e-3, 1e-5)]
    assert costs[0].gradients < costs[1].gradients < costs[2].gradients
    assert costs[0].hvps <= costs[1].hvps <= costs[2].hvps


def test_what_rounding_does_not_allow_is_said():
    scene = scenes.softmax(0.37)
    found = _method(Newton()).to_accuracy(scene.problem, scene.theta, 1e-15)
    assert found.status is Status.STAGNATED
    attainable = found.certificate.rounding_share / np.linalg.norm(found.gradient)
    assert attainable > 1e-15
    assert _method(Newton()).to_accuracy(scene.problem, scene.theta, 10 * float(attainable)).ok


def test_a_spent_budget_is_said():
    scene = scenes.softmax(0.05)
    found = _method().to_accuracy(scene.problem, scene.theta, 1e-6, limit=Cost(gradients=20, hvps=1000))
    assert found.status is Status.BUDGET_SPENT
    assert found.certificate.bound > 1e-6 * np.linalg.norm(found.gradient)
    assert found.cost.gradients < 200


def test_its_cost_is_what_a_counting_loss_sees():
    scene = scenes.softmax(0.37)
    train, test = Counting(scene.problem.inner), Counting(scene.problem.outer)
    found = _method().to_accuracy(BilevelProblem(train, test, scene.problem.lam), scene.theta, 1e-4)
    assert found.cost.hvps == train.calls["hvps"]
    assert found.cost.gradients == train.calls["gradients"] + test.calls["gradients"]


def networks(seed, lam, hidden=(5,), tasks=4):
    rng = np.random.default_rng(seed)
    source = Sinusoid(6, 6, hidden)
    return source.sample(rng, tasks=tasks, lam=lam), source.initial_parameters(rng)


@pytest.mark.parametrize("lam", [3.0, 30.0])
@pytest.mark.parametrize("hidden", [(5,), (8, 8)])
def test_networks_are_estimates_that_hold(lam, hidden):
    """ρ and β are sampled, so nothing is proven; what is called converged agrees with Newton's reference."""
    problem, theta = networks(61, lam, hidden)
    found = _method().to_accuracy(problem, theta, 1e-4)
    assert found.certificate.kind is Kind.ESTIMATE
    assert all(status is Status.CONVERGED for status in found.status)
    star = Newton(1e-14)(problem, theta, start=found.inner.value)
    exact = ImplicitGradient(Cholesky(refinements=2))(problem, theta, star).gradient
    error, size = (np.linalg.norm(v, axis=-1) for v in (found.gradient - exact, found.gradient))
    assert (error <= found.certificate.bound).all()
    assert (found.certificate.bound <= 1e-4 * size).all()


def test_a_network_against_fifty_digits():
    scene = scenes.network(5.3, (2,), "tanh", 0)
    found = _method().to_accuracy(scene.problem, scene.theta, 1e-6)
    exact = reference(scene.problem, scene.theta, start=found.inner.value)
    assert found.ok
    assert exact.proven
    assert np.linalg.norm(found.gradient - exact.gradient) <= found.certificate.bound


def test_an_inner_solver_that_cycles_is_given_up():
    """The step size that fits at θ is too long at the minima of two tasks: gradient descent never arrives."""
    problem, theta = networks(62, 10.0)
    found = _method().to_accuracy(problem, theta, 1e-4)
    assert list(found.status) == [Status.CONVERGED, Status.STAGNATED, Status.STAGNATED, Status.CONVERGED]
    assert np.isinf(found.certificate.bound[1:3]).all()
    assert found.cost.gradients < 2000
    assert _method(LBFGS(10)).to_accuracy(problem, theta, 1e-4).ok.all()


def test_slow_is_not_stagnated():
    """κ = 800, gradient descent: ‖∇G‖ hardly moves in the first chunks."""
    X = np.diag(np.geomspace(0.1, 4.0, 6)) * 6**0.5
    loss = LeastSquares(X, np.ones(6))
    found = _method().to_accuracy(BilevelProblem(loss, loss, 0.01), np.full(6, 0.3), 1e-2, limit=Cost(10**6, 10**4))
    assert found.ok
    assert found.cost.gradients > 3000


def test_sampling_goes_on_from_round_to_round(monkeypatch):
    """Every round looks in new directions, and the last round's maxima still count."""
    seen, used = [], []

    def sample(problem, phi, *, rng, **options):
        seen.append(rng.bit_generator.state["state"]["state"])
        return sampled_constants(problem, phi, rng=rng, **options)

    def judge(*arguments, constants, **options):
        used.append(constants)
        return certify(*arguments, constants=constants, **options)

    monkeypatch.setattr(_accuracy, "sampled_constants", sample)
    monkeypatch.setattr(_accuracy, "certify", judge)
    problem, theta = networks(61, 10.0)
    one, other = (_method().to_accuracy(problem, theta, 1e-4) for _ in range(2))
    rounds = len(seen) // 2
    assert seen[:rounds] == seen[rounds:], "the same call looks in the same directions"
    assert len(set(seen)) == rounds >= 3
    assert np.linalg.norm(one.gradient - other.gradient) <= 1e-9 * np.linalg.norm(one.gradient)
    assert all(c.kind is Kind.ESTIMATE for c in used)


def test_at_a_maximum_there_is_nothing_to_reach():
    loss = Diagonal(np.array([-3.0, 2.0]), 1.0)
    found = _method().to_accuracy(BilevelProblem(loss, loss, 0.5), np.array([1.0, 1.0]), 1e-3)
    assert not found.ok


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p, t: _method().to_accuracy(p, t, 0.0), "rtol"),
        (lambda p, t: _method().to_accuracy(p, t, 2.0), "rtol"),
        (lambda p, t: MetaGradient(Newton(), FirstOrderGradient()).to_accuracy(p, t), "estimator"),
        (lambda p, t: _method(GradientDescent(None, 5, proximal=False)).to_accuracy(p, t), "inner_solver"),
    ],
)
def test_bad_input(call, name):
    scene = scenes.ridge(0.37)
    with pytest.raises(ArgumentError, match=name):
        call(scene.problem, scene.theta)
