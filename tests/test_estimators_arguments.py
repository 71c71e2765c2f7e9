"""What is no solution is refused by every estimator, found in the public names."""

import numpy as np
import pytest
from oracles import scenes
from test_device_surface import DEVICE

from implicit_grad import EXACT, ArgumentTypeError, ComplexStepGradient, FirstOrderGradient, Newton

ESTIMATORS = [*DEVICE["estimator"], ComplexStepGradient()]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_what_did_not_come_from_an_inner_solver_is_refused(estimator):
    scene, words = scenes.ridge(0.37), r"inner: expected the Solution of an inner solver, got \w+; for a φ"
    for foreign in (scene.theta, None, EXACT(scene.problem, scene.theta), EXACT):
        with pytest.raises(ArgumentTypeError, match=words):
            estimator(scene.problem, scene.theta, foreign)


def test_the_advice_works():
    scene = scenes.ridge(2.5)
    phi = np.arange(scene.theta.size) / 7
    inner = Newton(max_steps=0)(scene.problem, scene.theta, start=phi)
    assert np.array_equal(inner.value, phi)
    estimate = FirstOrderGradient()(scene.problem, scene.theta, inner)
    assert np.array_equal(estimate.gradient, scene.problem.outer.gradient(phi))
