"""Adam: its averages written out as sums, its units, and the distance it keeps."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.losses import Scaled
from oracles.scenes import EPS, LAMS

from implicit_grad import Adam, ArgumentError, BilevelProblem, Newton, Status


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_equals_the_averages_written_out(lam):
    """m̂ and v̂ as weighted sums over all gradients so far, which is what bias correction makes of them."""
    scene, alpha, b1, b2, eps = scenes.softmax(lam), 0.03, 0.8, 0.95, 1e-3
    slope, phi, seen = traced.grad(scene.traced[0]), scene.theta, []
    for k in range(1, 13):
        seen.append(slope(phi) + lam * (phi - scene.theta))
        w1, w2 = (b ** np.arange(k - 1, -1, -1.0) for b in (b1, b2))
        mean = np.average(seen, axis=0, weights=w1)
        square = np.average(np.square(seen), axis=0, weights=w2)
        phi = phi - alpha * mean / (np.sqrt(square) + eps)
    run = Adam(alpha, 12, beta1=b1, beta2=b2, epsilon=eps)(scene.problem, scene.theta)
    assert np.linalg.norm(run.value - phi) <= 1e4 * EPS * np.linalg.norm(phi)


def test_the_first_step_has_length_alpha_in_every_entry():
    scene = scenes.ridge(0.37)
    g = scene.problem.stationarity(scene.theta, scene.theta)
    moved = Adam(0.01, 1, epsilon=1e-300)(scene.problem, scene.theta).value - scene.theta
    assert np.abs(moved + 0.01 * np.sign(g)).max() <= 8 * EPS * np.abs(scene.theta).max()


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**30])
def test_only_epsilon_knows_the_size_of_the_gradient(factor):
    """(L, λ, ε) → (cL, cλ, cε): the same run, bit by bit."""
    scene, solver = scenes.ridge(0.37), Adam(0.05, 20, epsilon=1e-4)
    scaled = BilevelProblem(Scaled(scene.problem.inner, factor), scene.problem.outer, 0.37 * factor)
    one = solver(scene.problem, scene.theta).value
    other = replace(solver, epsilon=1e-4 * factor)(scaled, scene.theta).value
    assert np.array_equal(one, other)


def test_does_not_stay():
    """The failure mode: ten digits after 400 steps are three a while later: v fades, and the steps grow again."""
    scene = scenes.ridge(40.0)
    star = Newton()(scene.problem, scene.theta).value
    run = Adam(0.1, 3000, record=tuple(range(400, 3001, 10)))(scene.problem, scene.theta)
    early, *late = np.linalg.norm(run.path.points - star, axis=-1)
    assert early < 1e-8
    # When it jumps is up to the last bits; that it jumps is not.
    assert max(late) > 1e-3
    # With a tolerance it stops while it is there.
    assert Adam(0.1, 3000, rtol=1e-9)(scene.problem, scene.theta).status is Status.CONVERGED


def test_leaves_a_minimum():
    """Its steps do not shrink with the gradient: from φ*, where only rounding is left, a tiny ε sends it off by α."""
    scene = scenes.ridge(0.37)
    star = Newton()(scene.problem, scene.theta).value
    run = Adam(0.1, 1, epsilon=1e-300)(scene.problem, scene.theta, start=star)
    assert np.linalg.norm(run.value - star) > 0.05
    assert run.residual_norm > 1e6 * np.linalg.norm(scene.problem.stationarity(star, scene.theta))


def test_a_coordinate_without_gradient_stands_still():
    """0/(√0 + ε) is 0, not NaN."""
    scene = scenes.ridge(0.37)
    X = scene.problem.inner.X.copy()
    X[:, 2] = 0
    problem = BilevelProblem(type(scene.problem.inner)(X, scene.problem.inner.y), scene.problem.outer, 0.37)
    assert Adam(0.1, 50)(problem, scene.theta).value[2] == scene.theta[2]


def test_settings_are_checked():
    for name in ("beta1", "beta2"):
        for value in (-0.1, 1.0, np.nan):
            with pytest.raises(ArgumentError, match=name):
                Adam(0.1, 3, **{name: value})
    for value in (0.0, np.inf):
        with pytest.raises(ArgumentError, match="epsilon"):
            Adam(0.1, 3, epsilon=value)
