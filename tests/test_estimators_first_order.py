"""First-order MAML: the gradient of the test loss, and nothing else."""

import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS, LAMS

from implicit_grad import EXACT, FirstOrderGradient, GradientDescent, MetaGradient, Newton


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_is_the_test_gradient_at_the_inner_solution(lam):
    scene = scenes.softmax(lam)
    estimate = MetaGradient(GradientDescent(None, 7), FirstOrderGradient())(scene.problem, scene.theta)
    assert np.array_equal(estimate.gradient, scene.problem.outer.gradient(estimate.inner.value))
    assert estimate.linear is None
    assert estimate.cost.hvps == 0


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_its_gap_is_bounded_by_the_curvature(lam):
    """‖b − g‖ ≤ M/(λ + M)·‖b‖ for a convex train loss with curvature at most M."""
    scene = scenes.softmax(lam)
    b = MetaGradient(Newton(), FirstOrderGradient())(scene.problem, scene.theta).gradient
    g = EXACT(scene.problem, scene.theta).gradient
    share = scene.curvature / (lam + scene.curvature)
    rounding = 64 * g.size * scene.condition * EPS
    assert np.linalg.norm(b - g) <= (share + rounding) * np.linalg.norm(b)
