"""The bilevel problem: its pieces fit together, broadcast together, and refuse what does not fit."""

import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    ContrastiveGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    SoftmaxCrossEntropy,
    UnrolledGradient,
    agree,
)


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_the_pieces_are_those_of_the_definition(make, lam):
    """G, ∇_φG and A(φ) from the losses' own value, gradient and product: 8·d·eps of the sizes of their terms."""
    scene = make(lam)
    problem, theta = scene.problem, scene.theta
    phi, v = theta + np.linspace(-1, 1, theta.size), np.cos(np.arange(theta.size))
    at, step = problem.inner.linearize(phi), phi - theta
    unit = 8 * theta.size * EPS
    assert abs(problem.value(phi, theta) - (at.value + lam / 2 * (step @ step))) <= unit * problem.value(phi, theta)
    gradient = at.gradient + lam * step
    assert np.linalg.norm(problem.stationarity(phi, theta) - gradient) <= unit * np.linalg.norm(gradient)
    A = problem.curvature(phi)
    assert np.linalg.norm(A(v) - (at.hvp(v) + lam * v)) <= unit * (scene.curvature + lam) * np.linalg.norm(v)
    H = at.hvp(np.eye(v.size))
    assert np.linalg.norm(A.dense() - H - lam * np.eye(v.size)) <= unit * (scene.curvature + lam)


def test_stationarity_is_the_slope_of_G():
    """(G(φ + hv) − G(φ − hv))/2h of a quadratic has no truncation error: eps·G/h is all there is, h = 1."""
    problem, phi = scenes.ridge(0.37).problem, np.linspace(-1, 2, 6)
    theta, v = np.zeros(6), np.sin(np.arange(1.0, 7.0))
    slope = (problem.value(phi + v, theta) - problem.value(phi - v, theta)) / 2
    scale = problem.value(phi + v, theta) + problem.value(phi - v, theta)
    assert abs(slope - problem.stationarity(phi, theta) @ v) <= 16 * 6 * EPS * scale


def test_the_train_loss_makes_A_and_the_test_loss_does_not():
    scene = scenes.ridge(0.37)
    swapped = BilevelProblem(scene.problem.outer, scene.problem.inner, 0.37)
    assert not np.array_equal(swapped.curvature(scene.theta).dense(), scene.problem.curvature(scene.theta).dense())
    other = BilevelProblem(scene.problem.inner, scene.problem.inner, 0.37)
    assert np.array_equal(other.curvature(scene.theta).dense(), scene.problem.curvature(scene.theta).dense())


def test_axes_broadcast():
    """λ (L, 1) and data (T, n, d) make a batch (L, T); θ may be one vector, or one for each task."""
    rng = np.random.default_rng(71)
    losses = [LeastSquares(rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 5))) for _ in range(2)]
    problem = BilevelProblem(*losses, np.array([[0.02], [0.5], [3.0], [70.0]]))
    assert problem.batch_shape == (4, 3)
    for theta in (np.ones(2), np.ones((3, 2)), np.ones((4, 1, 2))):
        assert problem.parameters(theta).shape == (4, 3, 2)
        assert EXACT(problem, theta).gradient.shape == (4, 3, 2)
    assert problem.parameters(np.ones((6, 1, 1, 2))).shape == (6, 4, 3, 2)


def test_parameters_are_a_fresh_array():
    problem, theta = scenes.ridge(0.37).problem, np.ones(6)
    problem.parameters(theta)[0] = 7.0
    assert theta[0] == 1


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_rows_of_a_batch(lam):
    rng = np.random.default_rng(72)
    X, labels = rng.standard_normal((3, 5, 2)), rng.integers(3, size=(3, 5))
    losses = [SoftmaxCrossEntropy(X, labels, 3), SoftmaxCrossEntropy(X[:1], labels[:1], 3)]
    problem = BilevelProblem(*losses, lam * np.array([[1.0], [2.0]]))
    phi, theta = rng.standard_normal((2, 2, 3, 6))
    for i, j in np.ndindex(2, 3):
        row = problem.select((i, j), (2, 3))
        assert row.batch_shape == ()
        assert float(row.lam) == lam * (i + 1)
        assert row.value(phi[i, j], theta[i, j]) == problem.value(phi, theta)[i, j]
        assert np.array_equal(row.stationarity(phi[i, j], theta[i, j]), problem.stationarity(phi, theta)[i, j])
        assert np.array_equal(row.outer.gradient(phi[i, j]), losses[1].gradient(phi)[i, j])


def test_rows_of_a_loss_that_only_knows_its_batch():
    """A broadcasting `Autodiff` has no rows of its own: the whole batch is evaluated, and one row kept."""
    import autograd.numpy as anp

    X = np.random.default_rng(73).standard_normal((3, 5, 2))
    f = Autodiff(lambda w: anp.mean(anp.tanh(anp.einsum("tnp,...tp->...tn", X, w)) ** 2, axis=-1), broadcasts=True)
    problem = BilevelProblem(f, f, np.array([0.5, 1.5, 4.0]))
    theta = np.random.default_rng(74).standard_normal((3, 2))
    estimate = EXACT(problem, theta)
    for i in range(3):
        g = Autodiff(lambda w, i=i: anp.mean(anp.tanh(anp.dot(X[i], w)) ** 2))
        alone = EXACT(BilevelProblem(g, g, problem.lam[i]), theta[i])
        assert np.linalg.norm(estimate.gradient[i] - alone.gradient) <= 64 * 2 * 10 * EPS * np.linalg.norm(
            alone.gradient
        )


def test_a_row_of_a_loss_that_only_knows_its_batch_is_one_problem():
    """Several points at once, every estimator, and the row of a row: what losses with rows of their own can do."""
    import autograd.numpy as anp

    X = np.random.default_rng(76).standard_normal((3, 5, 2))
    f = Autodiff(
        lambda w: anp.mean(anp.tanh(anp.sum(X * w[..., None, :], axis=-1) - 1) ** 2, axis=-1), broadcasts=True
    )
    problem, theta = BilevelProblem(f, f, 1.5), np.random.default_rng(77).standard_normal((3, 2))
    row, i = problem.select((2,), (3,)), 2
    g = Autodiff(lambda w: anp.mean(anp.tanh(anp.dot(X[i], w) - 1) ** 2))
    alone = BilevelProblem(g, g, 1.5)
    assert row.batch_shape == ()
    # As many points as problems, too: they must not be taken for the batch.
    for shape in ((3, 2), (4, 2), (2, 3, 2)):
        x, v = np.random.default_rng(78).standard_normal((2, *shape))
        at, other = row.inner.linearize(x), g.linearize(x)
        for mine, its in (
            (row.inner.value(x), g.value(x)),
            (row.inner.gradient(x), g.gradient(x)),
            (at.value, other.value),
            (at.gradient, other.gradient),
            (at.hvp(v), other.hvp(v)),
            (at.hvp(np.stack([v, x])), other.hvp(np.stack([v, x]))),
        ):
            assert mine.shape == its.shape
            assert np.allclose(mine, its, rtol=0, atol=64 * EPS * (1 + np.abs(its).max()))
    descent = GradientDescent(0.3, 40, record=True)
    for estimator in (UnrolledGradient(), ContrastiveGradient(1e-2, Newton()), ImplicitGradient(Cholesky())):
        method = MetaGradient(descent, estimator)
        mine, its = method(row, theta[i]).gradient, method(alone, theta[i]).gradient
        assert mine.shape == its.shape == (2,)
        # Contrastive rules divide rounding by their strength, 1e-2.
        assert np.linalg.norm(mine - its) <= 1e2 * 256 * EPS * np.linalg.norm(its)
    assert agree(problem, theta, without=("finite difference",)).agrees.all()


def test_with_lam_changes_lam_alone():
    scene = scenes.ridge(0.37)
    other = scene.problem.with_lam(np.array([2.0, 5.0]))
    assert other.inner is scene.problem.inner
    assert other.batch_shape == (2,)
    with pytest.raises(ArgumentError, match="lam"):
        scene.problem.with_lam(-1.0)


def _least_squares(d, batch=(), dtype=float):
    rng = np.random.default_rng(75)
    return LeastSquares(rng.standard_normal((*batch, 4, d)).astype(dtype), np.ones((*batch, 4), dtype))


def test_losses_must_fit_each_other():
    with pytest.raises(ArgumentError, match="outer: size 3"):
        BilevelProblem(_least_squares(2), _least_squares(3), 0.5)
    with pytest.raises(ArgumentError, match="outer: dtype float32"):
        BilevelProblem(_least_squares(2), _least_squares(2, dtype=np.float32), 0.5)
    with pytest.raises(ArgumentError, match=r"lam: .*do not broadcast"):
        BilevelProblem(_least_squares(2, (3,)), _least_squares(2, (2,)), 0.5)
    with pytest.raises(ArgumentError, match=r"lam: .*do not broadcast"):
        BilevelProblem(_least_squares(2, (3,)), _least_squares(2, (3,)), np.ones(2))
    with pytest.raises(ArgumentTypeError, match=r"inner: .*Autodiff"):
        BilevelProblem(lambda w: w @ w, _least_squares(2), 0.5)
    with pytest.raises(ArgumentTypeError, match="outer: expected a loss"):
        BilevelProblem(_least_squares(2), np.ones(2), 0.5)


def test_theta_must_fit_the_losses():
    problem = BilevelProblem(_least_squares(2, (3,)), _least_squares(2), 0.5)
    for theta, error in (
        (np.ones(3), ArgumentError),
        (np.ones((2, 2)), ArgumentError),
        (np.ones(2, dtype=np.float32), ArgumentTypeError),
        (np.array([1.0, np.inf]), ArgumentError),
    ):
        with pytest.raises(error, match=r"^theta: "):
            problem.parameters(theta)
    with pytest.raises(ArgumentError, match=r"^start: "):
        problem.parameters(np.ones(3), "start")


def test_lam_must_fit_the_dtype():
    """1e-60 is 0 in float32, 1e60 infinite; and λ‖θ‖ may overflow where λ does not."""
    single = [_least_squares(2, dtype=np.float32)] * 2
    for lam in (1e-60, 1e60):
        with pytest.raises(ArgumentError, match=r"^lam: "):
            BilevelProblem(*single, lam).parameters(np.ones(2, dtype=np.float32))
    double = [_least_squares(2)] * 2
    with pytest.raises(ArgumentError, match=r"^lam: "):
        BilevelProblem(*double, 1e308).parameters(np.full(2, 10.0))
    assert EXACT(BilevelProblem(*double, 1e308), np.full(2, 0.3)).ok
