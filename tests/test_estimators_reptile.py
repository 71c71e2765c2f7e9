"""Reptile's direction: what it is, and what it is not."""

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.scenes import EPS, LAMS

from implicit_grad import EXACT, ArgumentError, GradientDescent, MetaGradient, Newton, ReptileDirection


def test_is_the_way_back_to_theta():
    scene = scenes.softmax(0.37)
    inner = GradientDescent(None, 5)(scene.problem, scene.theta)
    for scale in (1.0, 0.25, 64.0):
        estimate = ReptileDirection(scale)(scene.problem, scene.theta, inner)
        assert np.array_equal(estimate.gradient, scale * (scene.theta - inner.value))
        assert estimate.cost == inner.cost
        assert estimate.status is inner.status


def test_is_the_mean_gradient_of_a_plain_run():
    """scale = 1/(αK) after K steps down the plain train loss: the mean of the gradients on the way."""
    scene, alpha, steps = scenes.softmax(0.37), 0.05, 6
    slope, phi, seen = traced.grad(scene.traced[0]), scene.theta, []
    for _ in range(steps):
        seen.append(slope(phi))
        phi = phi - alpha * seen[-1]
    inner = GradientDescent(alpha, steps, proximal=False)
    direction = MetaGradient(inner, ReptileDirection(1 / (alpha * steps)))(scene.problem, scene.theta).gradient
    assert np.linalg.norm(direction - np.mean(seen, axis=0)) <= 1e3 * EPS * np.linalg.norm(direction)


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_at_the_minimum_it_is_the_train_gradient_over_lam(lam):
    scene = scenes.ridge(lam)
    inner = Newton()(scene.problem, scene.theta)
    g = ReptileDirection(lam)(scene.problem, scene.theta, inner).gradient
    slope = traced.grad(scene.traced[0])(inner.value)
    terms = scene.curvature * (np.linalg.norm(inner.value) + np.linalg.norm(scene.theta)) + np.linalg.norm(slope)
    assert np.linalg.norm(g - slope) <= 64 * 6 * EPS * (terms + lam * np.linalg.norm(scene.theta))


def test_may_lead_uphill():
    """The failure mode: with the test targets turned around, the direction that was downhill for F is uphill."""
    scene = scenes.ridge(2.3)
    turned = type(scene.problem.outer)(scene.problem.outer.X, -scene.problem.outer.y)
    signs = []
    for outer in (scene.problem.outer, turned):
        problem = type(scene.problem)(scene.problem.inner, outer, 2.3)
        direction = MetaGradient(Newton(), ReptileDirection())(problem, scene.theta).gradient
        signs.append(np.sign(direction @ EXACT(problem, scene.theta).gradient))
    assert signs[0] != signs[1]


def test_scale_is_checked():
    for scale in (0.0, -1.0, np.nan):
        with pytest.raises(ArgumentError, match="scale"):
            ReptileDirection(scale)
