"""The unrolled gradient against autograd through a loop written by hand."""

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.losses import Counting
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    CG,
    ArgumentError,
    BilevelProblem,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    Newton,
    UnrolledGradient,
)

STEPS = 12
TOLERANCE = 1e-13  # 37·K·eps: K steps, each a few roundings, none of which cancel


def _network(lam):
    return scenes.network(lam, (3,), "tanh", 0)


def _alpha(scene):
    """A step size that descends, from the bound of the convex losses or near it."""
    curvature = scene.curvature if np.isfinite(scene.curvature) else 4.0
    return 1 / (scene.lam + curvature)


@pytest.mark.parametrize("window", [None, 0, 1, 5, STEPS, STEPS + 3])
@pytest.mark.parametrize("proximal", [True, False], ids=["regularised", "plain"])
@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax, _network], ids=["ridge", "softmax", "network"])
def test_equals_autograd_through_the_loop(make, lam, proximal, window):
    scene, alpha = make(lam), _alpha(make(lam))
    solver = GradientDescent(alpha, STEPS, record=True, proximal=proximal)
    estimate = MetaGradient(solver, UnrolledGradient(window))(scene.problem, scene.theta)
    wanted = traced.unrolled(*scene.traced, lam, alpha, STEPS, scene.theta, proximal=proximal, window=window)
    assert np.linalg.norm(estimate.gradient - wanted) <= TOLERANCE * np.linalg.norm(wanted)
    phi = traced.descend(scene.traced[0], lam, alpha, STEPS, scene.theta, scene.theta, proximal=proximal)
    assert np.linalg.norm(estimate.inner.value - phi) <= TOLERANCE * np.linalg.norm(phi)


def test_a_window_of_the_plain_path_sees_no_theta():
    """Without the proximal term θ enters only at the start, which a window holds constant: the gradient is 0."""
    scene = scenes.ridge(0.37)
    solver = GradientDescent(0.1, STEPS, record=True, proximal=False)
    assert not MetaGradient(solver, UnrolledGradient(3))(scene.problem, scene.theta).gradient.any()


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("proximal", [True, False], ids=["regularised", "plain"])
def test_one_path_serves_runs_of_every_length(proximal, window):
    """Bitwise: the products of several end points share one linearisation, nothing else."""
    scene = scenes.softmax(0.37)
    steps = (0, 1, 3, 4, 5, STEPS)
    solver = GradientDescent(None, STEPS, record=True, proximal=proximal)
    run = solver(scene.problem, scene.theta)
    gradients, _ = UnrolledGradient(window).at_steps(scene.problem, run, steps)
    for k, gradient in zip(steps, gradients, strict=True):
        alone = GradientDescent(None, k, record=True, proximal=proximal)(scene.problem, scene.theta)
        assert np.array_equal(gradient, UnrolledGradient(window)(scene.problem, scene.theta, alone).gradient)
        assert np.array_equal(gradient, UnrolledGradient(window)(scene.problem, scene.theta, run.at(k)).gradient)


@pytest.mark.parametrize("proximal", [True, False], ids=["regularised", "plain"])
@pytest.mark.parametrize("window", [0, 1, 4, STEPS])
def test_a_window_needs_its_own_steps_only(proximal, window):
    scene = scenes.softmax(0.37)
    whole, few = (
        GradientDescent(None, STEPS, record=record, proximal=proximal)
        for record in (True, tuple(range(STEPS - window, STEPS + 1)))
    )
    one, other = (MetaGradient(each, UnrolledGradient(window))(scene.problem, scene.theta) for each in (whole, few))
    assert np.array_equal(one.gradient, other.gradient)
    assert other.inner.path.points.shape[0] == window + 1


def test_a_batch_is_its_problems():
    """Bitwise on NumPy: the rows of a batch do not touch each other."""
    lams = np.array([0.02, 1.7, 90.0])
    scene = scenes.softmax(1.7)
    batch = BilevelProblem(scene.problem.inner, scene.problem.outer, lams)
    method = MetaGradient(GradientDescent(None, STEPS, record=True), UnrolledGradient())
    together = method(batch, scene.theta).gradient
    for row, lam in zip(together, lams, strict=True):
        assert np.array_equal(row, method(scene.problem.with_lam(lam), scene.theta).gradient)


def test_tends_to_the_implicit_gradient():
    """‖g_K − g‖ falls like q^K, q = 1 − αλ, until rounding: 400 steps at κ̄ = 8.7 leave nothing else."""
    scene = scenes.ridge(1.3)
    g = MetaGradient(Newton(), ImplicitGradient(CG(40)))(scene.problem, scene.theta).gradient
    errors = []
    for steps in (20, 60, 400):
        method = MetaGradient(GradientDescent(None, steps, record=True), UnrolledGradient())
        errors.append(np.linalg.norm(method(scene.problem, scene.theta).gradient - g) / np.linalg.norm(g))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] <= 64 * scene.theta.size * scene.condition * EPS


def test_costs_of_several_end_points():
    """Each end point has its own products; the linearisations are shared."""
    scene = scenes.ridge(0.37)
    steps = (1, 4, 6)
    run = GradientDescent(0.1, 6, record=True)(scene.problem, scene.theta)
    train, test = Counting(scene.problem.inner), Counting(scene.problem.outer)
    _, cost = UnrolledGradient().at_steps(BilevelProblem(train, test, 0.37), run, steps)
    assert train.calls == {"gradients": 6, "hvps": sum(steps)}
    assert (cost.gradients, cost.hvps) == (6 + len(steps), sum(steps))
    assert test.calls == {"gradients": len(steps)}


def test_refuses_what_has_no_complete_path():
    scene = scenes.ridge(0.37)
    with pytest.raises(ArgumentError, match=r"inner: .*record=True"):
        MetaGradient(GradientDescent(None, 4), UnrolledGradient())(scene.problem, scene.theta)
    with pytest.raises(ArgumentError, match=r"path: step 3 .*record=True"):
        MetaGradient(GradientDescent(None, 4, record=(1, 4)), UnrolledGradient())(scene.problem, scene.theta)
    with pytest.raises(ArgumentError, match=r"path: step 2 .*range\(K - 2, K \+ 1\)"):
        MetaGradient(GradientDescent(None, 4, record=(3, 4)), UnrolledGradient(2))(scene.problem, scene.theta)
    with pytest.raises(ArgumentError, match=r"inner: Newton has no reverse pass"):
        MetaGradient(Newton(), UnrolledGradient())(scene.problem, scene.theta)
    run = GradientDescent(None, 4, record=True)(scene.problem, scene.theta)
    for steps in ((3, 1), ()):
        with pytest.raises(ArgumentError, match="steps"):
            UnrolledGradient().at_steps(scene.problem, run, steps)
    with pytest.raises(ArgumentError, match="step: 5"):
        UnrolledGradient().at_steps(scene.problem, run, (5,))
