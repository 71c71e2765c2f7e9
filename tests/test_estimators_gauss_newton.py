"""The Gauss–Newton matrix for the Hessian: where they agree, where they do not, and where only one is of use."""

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    CG,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    GaussNewtonGradient,
    ImplicitGradient,
    MetaGradient,
    MultilayerPerceptron,
    Newton,
    Solution,
    Status,
)


def _at(phi):
    return Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, None)


@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_is_the_implicit_gradient_of_linear_models(make, lam):
    """Bitwise, at any φ."""
    scene = make(lam)
    inner = _at(scene.theta + np.cos(np.arange(scene.theta.size)))
    for solver in (Cholesky(), CG(4)):
        one = GaussNewtonGradient(solver)(scene.problem, scene.theta, inner)
        other = ImplicitGradient(solver)(scene.problem, scene.theta, inner)
        assert np.array_equal(one.gradient, other.gradient)
        assert one.cost == other.cost
        assert one.status is other.status


@pytest.mark.parametrize("hidden", [(3,), (3, 2)])
def test_is_the_implicit_gradient_where_every_sample_is_fitted(hidden, rng):
    """∂L/∂z = 0: what it leaves out is multiplied by zero."""
    X = rng.standard_normal((5, 2))
    blank = MultilayerPerceptron(X, np.zeros(5), hidden)
    theta = rng.standard_normal(blank.size)
    fitted = MultilayerPerceptron(X, blank.outputs(theta)[..., 0], hidden)
    test = MultilayerPerceptron(X, rng.standard_normal(5), hidden)
    problem = BilevelProblem(fitted, test, 0.3)
    one, other = (
        estimator(Cholesky(2))(problem, theta, _at(theta)).gradient
        for estimator in (GaussNewtonGradient, ImplicitGradient)
    )
    condition = np.linalg.cond(problem.curvature(theta).dense())
    assert np.linalg.norm(one - other) <= 64 * theta.size * condition * EPS * np.linalg.norm(other)


def test_exists_at_a_saddle():
    """Where the Hessian is refused, B + λI is positive definite all the same."""
    scene = scenes.network(0.003, (3,), "tanh", 0)
    inner = _at(scene.theta)
    assert ImplicitGradient(Cholesky())(scene.problem, scene.theta, inner).status is Status.INDEFINITE
    estimate = GaussNewtonGradient(Cholesky())(scene.problem, scene.theta, inner)
    assert estimate.status is Status.CONVERGED
    b = scene.problem.outer.gradient(scene.theta)
    assert 0 < estimate.gradient @ b <= b @ b


def test_a_bent_network_with_large_errors_is_the_failure_mode():
    """Even at φ* it is off by tens of percent, and no solver helps."""
    scene = scenes.network(0.37, (3, 2), "tanh", 0)
    inner = Newton()(scene.problem, scene.theta)
    g = GaussNewtonGradient(Cholesky())(scene.problem, scene.theta, inner).gradient
    assert scene.error(g, inner.value) > 0.1


def test_products_of_stacks_and_batches(rng):
    """Extra leading axes before those of the batch go through at once."""
    X, y = rng.standard_normal((2, 5, 2)), rng.standard_normal((2, 5))
    loss = MultilayerPerceptron(X, y, (3, 2))
    x, V = rng.standard_normal((2, loss.size)), rng.standard_normal((4, 2, loss.size))
    product = loss.linearize_gauss_newton(x).hvp
    stacked = product(V)
    for i in range(4):
        for j in range(2):
            alone = MultilayerPerceptron(X[j], y[j], (3, 2)).linearize_gauss_newton(x[j]).hvp(V[i, j])
            assert np.linalg.norm(stacked[i, j] - alone) <= 64 * loss.size * EPS * np.linalg.norm(alone)


def test_value_and_gradient_are_the_losss_own(rng):
    loss = scenes.network(0.37, (3,), "softplus", 3).problem.inner
    x = rng.standard_normal(loss.size)
    at = loss.linearize_gauss_newton(x)
    assert at.value == loss.value(x)
    assert np.array_equal(at.gradient, loss.gradient(x))


def test_other_losses_are_refused():
    scene = scenes.softmax(0.37)
    for loss, name in ((Autodiff(scene.traced[0]), "Autodiff"), (Diagonal(np.ones(9)), "Diagonal")):
        problem = BilevelProblem(loss, scene.problem.outer, 0.37)
        with pytest.raises(ArgumentTypeError, match=f"problem: .*{name}"):
            MetaGradient(Newton(), GaussNewtonGradient())(problem, scene.theta)
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        GaussNewtonGradient(CG)
