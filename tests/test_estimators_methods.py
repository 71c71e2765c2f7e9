"""What every further estimator owes: exact costs, batches that are their problems, read-only input, strict arrays."""

from dataclasses import fields

import array_api_strict as strict
import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Counting, Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    CG,
    LBFGS,
    Autodiff,
    BilevelProblem,
    Cholesky,
    ComplexStepGradient,
    ContrastiveGradient,
    Cost,
    DiagonalGradient,
    FiniteDifferenceGradient,
    GaussNewtonGradient,
    GradientDescent,
    GradientStep,
    IdentityGradient,
    LeastSquares,
    MetaGradient,
    Nesterov,
    Newton,
    NewtonStep,
    OneStepGradient,
    ReptileDirection,
    RichardsonGradient,
    SoftmaxCrossEntropy,
    Solution,
    Status,
    SuperEfficientGradient,
)

DESCENT = GradientDescent(None, 12)
FIRST_ORDER = [
    ContrastiveGradient(None, DESCENT),
    ContrastiveGradient(1e-2, Nesterov(None, 20), two_sided=False),
    ContrastiveGradient(1e-2, LBFGS(9)),
    FiniteDifferenceGradient(DESCENT),
    FiniteDifferenceGradient(LBFGS(9), 1e-3),
    OneStepGradient(),
    OneStepGradient(GradientStep(0.05)),
    SuperEfficientGradient(CG(5)),
    OneStepGradient(NewtonStep(CG(4, 1e-9))),
    DiagonalGradient(),
    IdentityGradient(1.5),
    ReptileDirection(0.7),
    RichardsonGradient(ContrastiveGradient(1e-1, DESCENT), ContrastiveGradient(5e-2, DESCENT), 2),
]
DENSE = [
    ContrastiveGradient(1e-2, Newton()),
    FiniteDifferenceGradient(Newton()),
    SuperEfficientGradient(),
    OneStepGradient(NewtonStep()),
]
CLOSED_FORMS = [GaussNewtonGradient(CG(4)), GaussNewtonGradient(Cholesky(2))]
EVERY = pytest.mark.parametrize("estimator", FIRST_ORDER + DENSE, ids=repr)
ALL = pytest.mark.parametrize("estimator", FIRST_ORDER + DENSE + CLOSED_FORMS, ids=repr)


def _counted(problem, theta, inner, estimator):
    """Run the estimator on counting losses and compare with what it claims."""
    train, test = Counting(problem.inner), Counting(problem.outer)
    estimate = estimator(BilevelProblem(train, test, problem.lam), theta, inner)
    batch = int(np.prod(theta.shape[:-1]))
    spent = estimate.cost + inner.cost.times(-1)
    for kind in (f.name for f in fields(Cost) if f.name != "peak_bytes"):
        assert getattr(spent, kind) == (train.calls[kind] + test.calls[kind]) / batch, kind
    return estimate


@ALL
@pytest.mark.parametrize(
    "make",
    [scenes.ridge, scenes.softmax, lambda lam: scenes.network(lam, (3,), "tanh", 0)],
    ids=["ridge", "softmax", "network"],
)
def test_costs_are_counted(make, estimator):
    scene = make(2.3)
    inner = GradientDescent(None, 20)(scene.problem, scene.theta)
    _counted(scene.problem, scene.theta, inner, estimator)


@EVERY
def test_costs_of_traced_losses(estimator):
    """Losses that know no bound of their curvature and cannot size their rounding."""
    scene = scenes.softmax(2.3)
    problem = BilevelProblem(*map(Autodiff, scene.traced), 2.3)
    inner = GradientDescent(None, 20)(problem, scene.theta)
    _counted(problem, scene.theta, inner, estimator)


@ALL
def test_costs_of_a_batch(estimator):
    scene = scenes.softmax(0.37)
    problem = scene.problem.with_lam(np.array([[0.5], [3.1]]))
    theta = problem.parameters(np.stack([scene.theta, -scene.theta, 0.1 * scene.theta]))
    inner = GradientDescent(None, 20)(problem, theta)
    estimate = _counted(problem, theta, inner, estimator)
    assert estimate.gradient.shape == (2, 3, 9)
    assert np.shape(estimate.status) == (2, 3)


@ALL
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_a_batch_is_its_problems(make, estimator):
    """λ (L, 1) against two tasks: every cell bitwise equals the problem solved alone."""
    one, two = make(0.4, seed=5), make(0.4, seed=6)
    losses = [_stack(getattr(one.problem, name), getattr(two.problem, name)) for name in ("inner", "outer")]
    lams, method = np.array(LAMS[:3])[:, None], MetaGradient(GradientDescent(None, 30), estimator)
    together = method(BilevelProblem(*losses, lams), np.stack([one.theta, two.theta]))
    for i, lam in enumerate(lams[:, 0]):
        for j, scene in enumerate((one, two)):
            alone = method(scene.problem.with_lam(lam), scene.theta)
            assert np.array_equal(together.gradient[i, j], alone.gradient, equal_nan=True)
            assert together.status[i, j] is alone.status


def _stack(one, two):
    if isinstance(one, LeastSquares):
        return LeastSquares(np.stack([one.X, two.X]), np.stack([one.y, two.y]))
    return SoftmaxCrossEntropy(np.stack([one.X, two.X]), np.stack([one.labels, two.labels]), one.n_classes)


@EVERY
def test_one_bad_problem_leaves_its_neighbours_alone(estimator):
    """NaN in one, a saddle in another: the third is bitwise itself, and the bad ones are not called good."""
    h = np.array([[1.0, 2.0], [np.nan, 1.0], [-5.0, 1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((3, 2)), 0.5), 0.7)
    alone = BilevelProblem(Diagonal(h[0], 1.0), Diagonal(np.ones(2), 0.5), 0.7)
    theta, method = np.array([0.3, -0.8]), MetaGradient(GradientDescent(None, 12), estimator)
    together, single = method(problem, theta), method(alone, theta)
    assert np.array_equal(together.gradient[0], single.gradient)
    assert together.status[0] is single.status
    assert not together.ok[1]


@ALL
def test_any_point_will_do_as_inner_solution(estimator):
    """A bare φ with a single status, for the whole batch."""
    scene = scenes.softmax(2.3)
    phi = np.stack([scene.theta, 0.5 * scene.theta])
    inner = Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, "any φ")
    estimate = estimator(scene.problem, np.stack([scene.theta, scene.theta]), inner)
    assert estimate.gradient.shape == phi.shape
    again = estimator(scene.problem, scene.theta, inner)  # θ broadcasts
    assert np.array_equal(estimate.gradient, again.gradient)


@ALL
def test_read_only_input_is_respected(estimator):
    scene = scenes.softmax(2.3)
    inner = GradientDescent(None, 12)(scene.problem, scene.theta)
    theta = scene.theta.copy()
    for array in (theta, inner.value):
        array.flags.writeable = False
    before = theta.copy(), inner.value.copy()
    estimate = estimator(scene.problem, theta, inner)
    assert np.array_equal(theta, before[0])
    assert np.array_equal(inner.value, before[1])
    assert not np.shares_memory(estimate.gradient, theta)


@pytest.mark.parametrize("estimator", [*FIRST_ORDER, CLOSED_FORMS[0]], ids=repr)
def test_strict_arrays(estimator):
    """Nothing but the array API: the numbers of NumPy, to what a difference over s = 10⁻² or h makes of rounding."""
    rng = np.random.default_rng(20190910)
    data = [rng.standard_normal(shape) for shape in ((2, 6, 3), (2, 6), (2, 5, 3), (2, 5), (3,))]
    lam = np.array([0.7, 2.5])
    results = []
    for xp in (np, strict):
        X, y, X_test, y_test, theta = (xp.asarray(each) for each in data)
        problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), xp.asarray(lam))
        results.append(MetaGradient(GradientDescent(None, 12), estimator)(problem, theta))
    one, two = results
    assert two.gradient.__array_namespace__() is strict
    assert np.linalg.norm(np.asarray(two.gradient) - one.gradient) <= 1e-8 * np.linalg.norm(one.gradient)
    assert list(two.status) == list(one.status)
    assert two.cost == one.cost


@ALL
def test_float32_stays_float32(estimator):
    scene = scenes.ridge(2.3)
    single = [
        LeastSquares(loss.X.astype(np.float32), loss.y.astype(np.float32))
        for loss in (scene.problem.inner, scene.problem.outer)
    ]
    method = MetaGradient(GradientDescent(None, 12), estimator)
    assert method(BilevelProblem(*single, 2.3), scene.theta.astype(np.float32)).gradient.dtype == np.float32


@ALL
def test_a_failed_inner_solve_is_not_forgotten(estimator):
    scene = scenes.softmax(0.01)
    estimate = MetaGradient(Newton(max_steps=0), estimator)(scene.problem, scene.theta)
    assert estimate.status is Status.MAX_STEPS
    assert not estimate.ok


@pytest.mark.parametrize(
    "estimator", [ContrastiveGradient(1e-3, Newton()), SuperEfficientGradient(), FiniteDifferenceGradient(Newton())]
)
def test_parameter_trees(estimator):
    """Through `MetaGradient`, as for every estimator."""
    import autograd.numpy as anp

    x, y = np.linspace(-1, 1, 12), np.linspace(-1, 1, 12) ** 3

    def loss(rows):
        return lambda p: anp.mean((anp.tanh(p["w"] * x[rows] + p["b"]) - y[rows]) ** 2)

    problem = BilevelProblem(Autodiff(loss(slice(0, 6))), Autodiff(loss(slice(6, 12))), lam=0.5)
    theta = {"w": np.array([1.0]), "b": np.array([0.0])}
    tree = MetaGradient(Newton(), estimator)(problem, theta)
    assert sorted(tree.gradient) == ["b", "w"]
    reference = MetaGradient(Newton(rtol=1e-13), SuperEfficientGradient())(problem, theta)
    for key in theta:
        assert abs(tree.gradient[key] - reference.gradient[key]) <= 1e-6 * abs(reference.gradient[key]) + 64 * EPS


@pytest.mark.parametrize("estimator", FIRST_ORDER + DENSE + CLOSED_FORMS + [ComplexStepGradient()], ids=repr)
def test_labels_and_cards(estimator):
    assert isinstance(estimator.label, str)
    assert all(getattr(estimator.card, f.name) for f in fields(estimator.card))
