"""Minibatches: which samples, in which order, how unbiased, how noisy, and whose optimum is reported."""

from itertools import combinations

import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    SGD,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    GradientDescent,
    LeastSquares,
    MultilayerPerceptron,
    Newton,
    SoftmaxCrossEntropy,
    Status,
)


def _samples():
    rng = np.random.default_rng(20190910)
    return rng.standard_normal((5, 3)), rng.standard_normal(5), rng.integers(3, size=5)


X, Y, LABELS = _samples()
LOSSES = {
    "least squares": LeastSquares(X, Y),
    "softmax": SoftmaxCrossEntropy(X, LABELS, 3),
    "network": MultilayerPerceptron(X, Y, (2,)),
    "two outputs": MultilayerPerceptron(X, np.stack([Y, Y**2], axis=1), (2,), n_outputs=2),
    "classifier": MultilayerPerceptron(X, LABELS, (2,), n_classes=3),
}
EVERY_LOSS = pytest.mark.parametrize("name", list(LOSSES))


@EVERY_LOSS
def test_minibatches_are_unbiased(name, rng):
    """Over all minibatches of m samples value and gradient average to those of the whole."""
    loss = LOSSES[name]
    x = rng.standard_normal(loss.size)
    for m in (1, 2, 5):
        parts = [loss.minibatch(list(rows)) for rows in combinations(range(5), m)]
        value, gradient = (
            np.mean([getattr(part, what)(x) for part in parts], axis=0) for what in ("value", "gradient")
        )
        assert abs(value - loss.value(x)) <= 64 * EPS * (1 + abs(loss.value(x)))
        assert np.linalg.norm(gradient - loss.gradient(x)) <= 64 * EPS * (1 + np.linalg.norm(loss.gradient(x)))


@EVERY_LOSS
def test_all_samples_are_the_loss_itself(name, rng):
    loss = LOSSES[name]
    x = rng.standard_normal(loss.size)
    assert loss.n_samples == 5
    assert np.array_equal(loss.minibatch(np.arange(5)).gradient(x), loss.gradient(x))


@pytest.mark.parametrize("name", ["least squares", "softmax"])
def test_no_minibatch_is_steeper_than_its_share_allows(name):
    """λ_max(∇²L_B) ≤ (n/m)·bound: what the default step size rests on."""
    loss = LOSSES[name]
    for m in (1, 2, 4):
        for rows in combinations(range(5), m):
            assert loss.minibatch(list(rows)).curvature_bound() <= 5 / m * loss.curvature_bound() * (1 + 64 * EPS)


@EVERY_LOSS
def test_positions_are_checked(name):
    loss = LOSSES[name]
    for rows in ([-1], [5], [], [[0, 1]]):
        with pytest.raises(ArgumentError, match="indices"):
            loss.minibatch(np.array(rows, dtype=int))
    with pytest.raises(ArgumentTypeError, match="indices"):
        loss.minibatch([0.5])


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_equals_a_loop_over_the_documented_draws(lam, decay):
    scene, alpha, m = scenes.ridge(lam), 0.02, 4
    X, y = np.asarray(scene.problem.inner.X), np.asarray(scene.problem.inner.y)
    rng, phi = np.random.default_rng(987654321), scene.theta
    for k in range(15):
        rows = rng.choice(len(y), m, replace=False)
        gradient = X[rows].T @ (X[rows] @ phi - y[rows]) / m + lam * (phi - scene.theta)
        phi = phi - alpha / (1 + decay * k) * gradient
    run = SGD(alpha, 15, m, 987654321, decay=decay)(scene.problem, scene.theta)
    assert np.linalg.norm(run.value - phi) <= 1e4 * EPS * np.linalg.norm(phi)


@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_whole_batches_are_gradient_descent(make):
    """Bitwise, with the default step size, too."""
    scene = make(0.37)
    n = scene.problem.inner.n_samples
    for alpha in (None, 0.03):
        run = SGD(alpha, 7, n, 5)(scene.problem, scene.theta)
        assert np.array_equal(run.value, GradientDescent(alpha, 7)(scene.problem, scene.theta).value)


def test_the_seed_is_the_run():
    scene = scenes.softmax(0.37)
    one, again, other = (SGD(None, 20, 2, seed)(scene.problem, scene.theta) for seed in (5, 5, 6))
    assert np.array_equal(one.value, again.value)
    assert not np.array_equal(one.value, other.value)


def test_the_mean_run_is_gradient_descent():
    """On ridge the mean over seeds is the run of the whole loss, within four standard errors in every entry."""
    scene = scenes.ridge(2.3)
    runs = np.array([SGD(0.01, 10, 3, seed)(scene.problem, scene.theta).value for seed in range(1000, 1200)])
    plain = GradientDescent(0.01, 10)(scene.problem, scene.theta).value
    error = runs.std(axis=0, ddof=1) / len(runs) ** 0.5
    assert (np.abs(runs.mean(axis=0) - plain) <= 4 * error).all()
    assert (error > 0).all()


def test_the_whole_loss_is_what_is_reported():
    """Residual and value speak of L, not of the last minibatch: an outside look finds the same number."""
    scene = scenes.softmax(0.37)
    run = SGD(None, 30, 2, 11)(scene.problem, scene.theta)
    assert run.status is Status.BUDGET_SPENT
    residual = np.linalg.norm(scene.problem.stationarity(run.value, scene.theta))
    assert abs(run.residual_norm - residual) <= 8 * EPS * residual


def test_noise_stays_with_a_constant_step_and_fades_with_decay():
    """The failure mode: 8 times the steps gain nothing; with α_k = 1/(1/α + λk) they do."""
    scene = scenes.ridge(0.37)
    star = Newton()(scene.problem, scene.theta).value
    alpha = 1 / (3 * scene.curvature + 0.37)

    def distance(steps, decay):
        runs = [SGD(alpha, steps, 3, seed, decay=decay)(scene.problem, scene.theta).value for seed in range(20, 25)]
        return float(np.mean([np.linalg.norm(phi - star) for phi in runs]))

    assert distance(800, 0.0) > 0.5 * distance(100, 0.0)
    assert distance(800, 0.37 * alpha) < 0.5 * distance(800, 0.0)


def test_seeds_may_find_different_minima():
    """A network has several: the solution reported is of the one found, and solving on from it stays there."""
    scene = scenes.network(0.003, (3,), "tanh", 0)
    ends = []
    for seed in range(60, 64):
        run = SGD(0.5, 200, 1, seed)(scene.problem, scene.theta)
        ends.append(Newton()(scene.problem, scene.theta, start=run.value).value)
    gaps = [np.linalg.norm(ends[0] - end) for end in ends[1:]]
    assert max(gaps) > 0.1


def test_a_loss_without_samples_is_refused():
    scene = scenes.softmax(0.37)
    problem = BilevelProblem(Autodiff(scene.traced[0]), scene.problem.outer, 0.37)
    with pytest.raises(ArgumentTypeError, match=r"problem: SGD needs .*Autodiff"):
        SGD(0.1, 3, 2, 5)(problem, scene.theta)
    with pytest.raises(ArgumentError, match="batch_size: 99"):
        SGD(0.1, 3, 99, 5)(scene.problem, scene.theta)


def test_settings_are_checked():
    for size, error in ((0, ArgumentError), (2.0, ArgumentTypeError)):
        with pytest.raises(error, match="batch_size"):
            SGD(0.1, 3, size, 5)
    for seed, error in (
        (-1, ArgumentError),
        (1.5, ArgumentTypeError),
        (True, ArgumentTypeError),
        (None, ArgumentTypeError),
    ):
        with pytest.raises(error, match="seed"):
            SGD(0.1, 3, 2, seed)
    for decay in (-0.1, np.inf, np.nan):
        with pytest.raises(ArgumentError, match="decay"):
            SGD(0.1, 3, 2, 5, decay=decay)
