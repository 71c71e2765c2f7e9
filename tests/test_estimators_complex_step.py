"""Complex steps: all digits, from code of their own; refused where the continuation is not known."""

from dataclasses import dataclass

import array_api_strict as strict
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
    ComplexStepGradient,
    GradientDescent,
    IndefiniteError,
    LeastSquares,
    MetaGradient,
    MultilayerPerceptron,
    Newton,
    SoftmaxCrossEntropy,
    Softplus,
    Solution,
    Status,
    Tanh,
)
from implicit_grad.estimators._complex_losses import complex_loss

NETWORKS = [(hidden, act, classes) for hidden in ((4,), (3, 2)) for act in ("tanh", "softplus") for classes in (0, 3)]


def _at(phi):
    return Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, None)


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_agrees_with_fifty_digits(make, lam):
    """Relative error ≤ 4·N·κ̄·eps, from an inner solution of ten descent steps."""
    scene = make(lam)
    estimate = MetaGradient(GradientDescent(None, 10), ComplexStepGradient())(scene.problem, scene.theta)
    assert estimate.ok
    assert scene.error(estimate.gradient) <= 4 * scene.theta.size * scene.condition * EPS


@pytest.mark.parametrize("lam", LAMS[1::2], ids="{:.3g}".format)
@pytest.mark.parametrize(("hidden", "activation", "classes"), NETWORKS)
def test_agrees_with_fifty_digits_on_networks(hidden, activation, classes, lam):
    scene = scenes.network(lam, hidden, activation, classes)
    estimate = MetaGradient(Newton(), ComplexStepGradient())(scene.problem, scene.theta)
    phi = estimate.inner.unwrap()
    condition = np.linalg.cond(scene.problem.curvature(phi).dense())
    assert scene.error(estimate.unwrap(), start=phi) <= 4 * scene.theta.size * condition * EPS


def _losses():
    rng = np.random.default_rng(20190910)
    X, y, labels = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 5)), rng.integers(3, size=(2, 5))
    two = rng.standard_normal((2, 5, 2))
    yield "least squares", LeastSquares(X, y)
    yield "softmax", SoftmaxCrossEntropy(X, labels, 3)
    yield "linear", MultilayerPerceptron(X, y, ())
    yield "tanh", MultilayerPerceptron(X, y, (4, 2))
    yield "two outputs", MultilayerPerceptron(X, two, (4,), n_outputs=2)
    yield "softplus", MultilayerPerceptron(X, labels, (2, 3), Softplus(), 3)


LOSSES = dict(_losses())


@pytest.mark.parametrize("name", list(LOSSES))
def test_on_real_parameters_it_is_the_loss(name, rng):
    """Value and gradient of the second implementation, in a batch with further leading axes."""
    loss = LOSSES[name]
    again, x = complex_loss("inner", loss), rng.standard_normal((3, 2, loss.size))
    for what in ("value", "gradient"):
        one, other = getattr(again, what)(x), getattr(loss, what)(x)
        assert one.shape == other.shape
        assert np.linalg.norm(one - other) <= 64 * loss.size * EPS * (1 + np.linalg.norm(other))


@pytest.mark.parametrize("name", list(LOSSES))
def test_is_analytic(name, rng):
    """Im f(x + ihv)/h = ⟨∇f, v⟩ and Im ∇f(x + ihv)/h = ∇²f v; a step along iv turns by i: Cauchy and Riemann."""
    loss = LOSSES[name]
    again, (x, v), h = complex_loss("inner", loss), rng.standard_normal((2, 2, loss.size)), 1e-30
    slope = again.value(x + 1j * h * v).imag / h
    assert np.abs(slope - (loss.gradient(x) * v).sum(-1)).max() <= 256 * loss.size * EPS * np.linalg.norm(v)
    turn = again.gradient(x + 1j * h * v).imag / h
    wanted = loss.linearize(x).hvp(v)
    assert np.linalg.norm(turn - wanted) <= 256 * loss.size * EPS * (1 + np.linalg.norm(wanted))
    e = 1e-4  # central differences along the real and the imaginary axis, at a complex point
    z = x + 0.1j * v
    real, imaginary = ((again.value(z + e * d * v) - again.value(z - e * d * v)) / (2 * e) for d in (1, 1j))
    assert np.abs(imaginary - 1j * real).max() <= 1e-6 * (1 + np.abs(real).max())


def test_saturated_outputs_stay_finite(rng):
    X = 1e3 * rng.standard_normal((5, 3))
    loss = SoftmaxCrossEntropy(X, rng.integers(3, size=5), 3)
    x = rng.standard_normal(9)
    again = complex_loss("inner", loss)
    assert np.isfinite(again.gradient(x + 1e-30j * x)).all()
    assert abs(again.value(x + 0j).real - loss.value(x)) <= 64 * EPS * abs(loss.value(x))


def test_a_saddle_is_refused_and_its_neighbour_is_not():
    scene = scenes.network(np.array([0.003, 40.0]), (3,), "tanh", 0)
    theta = np.stack([scene.theta, scene.theta])
    start = GradientDescent(None, 10)(scene.problem, theta)
    estimate = ComplexStepGradient()(scene.problem, theta, start)
    assert list(estimate.status) == [Status.INDEFINITE, Status.BUDGET_SPENT]
    assert np.isnan(estimate.gradient[0]).all()
    alone = ComplexStepGradient()(scene.problem.with_lam(40.0), scene.theta, _at(start.value[1])).gradient
    assert np.linalg.norm(estimate.gradient[1] - alone) <= 1e4 * EPS * np.linalg.norm(alone)
    with pytest.raises(IndefiniteError):
        estimate.unwrap()


def test_too_few_newton_steps_are_noticed():
    scene = scenes.softmax(1e-3)
    estimate = MetaGradient(GradientDescent(None, 1), ComplexStepGradient(1))(scene.problem, scene.theta)
    assert estimate.status is Status.STAGNATED


def test_float32_data_are_computed_in_double_and_returned_in_single():
    scene = scenes.ridge(0.37)
    inner, outer = (
        LeastSquares(loss.X.astype(np.float32), loss.y.astype(np.float32))
        for loss in (scene.problem.inner, scene.problem.outer)
    )
    estimate = MetaGradient(Newton(), ComplexStepGradient())(
        BilevelProblem(inner, outer, 0.37), scene.theta.astype(np.float32)
    )
    assert estimate.gradient.dtype == np.float32
    assert scene.error(estimate.gradient.astype(float)) <= 64 * scene.condition * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Custom(Tanh):
    """An activation of a user's own."""


def test_what_may_not_be_analytic_is_refused():
    scene = scenes.softmax(0.37)
    plain, bent = Autodiff(scene.traced[0]), MultilayerPerceptron(np.ones((3, 1)), np.ones(3), (2,), Custom())
    for problem, name in (
        (BilevelProblem(plain, scene.problem.outer, 0.37), "inner: .*Autodiff"),
        (BilevelProblem(scene.problem.inner, plain, 0.37), "outer: .*Autodiff"),
        (BilevelProblem(bent, bent, 0.37), "inner: .*Custom"),
    ):
        theta = np.ones(problem.inner.size if hasattr(problem.inner, "size") else 9)
        with pytest.raises(ArgumentTypeError, match=name):
            ComplexStepGradient()(problem, theta, _at(theta))


@pytest.mark.parametrize(("train", "test"), [(1e150, 1.0), (1e-150, 1e-150), (1.0, 1e-160)])
def test_steps_below_the_range_of_floats_are_no_gradient(rng, train, test):
    """λA⁻¹h is 1e-330 for H of size 1e300, h∇L_test for a test loss of size 1e-300: 0 in floats, ∇F is not."""
    X, y = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 4))
    scale = np.array([train, test])
    problem = BilevelProblem(*(LeastSquares(X[i] * scale[i], y[i] * scale[i]) for i in range(2)), 0.7)
    estimate = MetaGradient(Newton(), ComplexStepGradient())(problem, np.ones(3))
    assert EXACT(problem, np.ones(3)).unwrap().any()
    assert estimate.inner.ok
    assert estimate.status is Status.STAGNATED


def test_a_test_loss_without_a_slope_has_the_gradient_zero():
    flat = LeastSquares(np.zeros((2, 3)), np.ones(2))
    train = LeastSquares(np.eye(3), np.ones(3))
    estimate = MetaGradient(Newton(), ComplexStepGradient())(BilevelProblem(train, flat, 0.7), np.ones(3))
    assert not estimate.unwrap().any()


def test_a_batch_of_none():
    scene = scenes.ridge(0.37)
    theta = np.zeros((0, 6))
    assert MetaGradient(Newton(), ComplexStepGradient())(scene.problem, theta).gradient.shape == (0, 6)


def test_other_backends_are_refused(rng):
    X, y = strict.asarray(rng.standard_normal((5, 3))), strict.asarray(rng.standard_normal(5))
    problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X, y), 0.3)
    with pytest.raises(ArgumentTypeError, match=r"inner: .*NumPy"):
        ComplexStepGradient()(problem, strict.ones(3), _at(strict.ones(3)))


def test_settings_are_checked():
    with pytest.raises(ArgumentError, match="max_steps"):
        ComplexStepGradient(-1)
