"""Newton's method on F(φ, θ) = 0: from afar, out of the domain and back, each problem as if alone."""

import autograd.numpy as anp
import numpy as np
import pytest
from stationarity_maps import EPS

from implicit_grad import AutodiffMap, ConvergenceError, NewtonRoot, Status


def test_newton_converges_from_afar_and_says_what_it_found():
    F = AutodiffMap(lambda p, t: anp.arctan(p) - t)
    root = NewtonRoot()(F, np.array([0.5]), np.array([30.0]))  # undamped, it diverges from 1.4 on
    assert root.status is Status.CONVERGED
    assert abs(root.unwrap()[0] - np.tan(0.5)) <= 16 * EPS
    assert NewtonRoot(max_steps=2)(F, np.array([0.5]), np.array([30.0])).status is Status.MAX_STEPS
    assert NewtonRoot(max_steps=0)(F, np.array([0.5]), np.tan([0.5])).status is Status.CONVERGED
    none = NewtonRoot()(AutodiffMap(lambda p, t: p**2 + t), np.array([1.0]), np.array([3.0]))
    assert none.status in (Status.STAGNATED, Status.MAX_STEPS)
    assert none.residual_norm >= 1
    with pytest.raises(ConvergenceError):
        none.unwrap()


def test_newton_steps_back_into_the_domain():
    F = AutodiffMap(lambda p, t: anp.log(p) - t)
    root = NewtonRoot()(F, np.array([-3.0]), np.array([5.0]))  # the full step lands at φ < 0
    assert abs(root.unwrap()[0] - np.exp(-3.0)) <= 16 * EPS * np.exp(-3.0)
    assert NewtonRoot()(F, np.array([-3.0]), np.array([-1.0])).status is Status.NONFINITE


def test_newton_tries_one_length_where_the_residual_is_rounding():
    """At twenty roots to rounding, where ‖F‖ is a unit in the last place or two, and seldom nothing."""
    F = AutodiffMap(lambda p, t: anp.sinh(p) - t)
    theta = np.linspace(0.3, 9.0, 20)[:, None]
    root = NewtonRoot()(F, theta, np.arcsinh(theta))
    assert root.ok.all()
    assert root.steps.max() in (1, 2, 3)
    assert root.cost.gradients == root.steps.max() + 1


def test_newton_solves_each_problem_as_if_it_were_alone():
    F = AutodiffMap(lambda p, t: anp.sinh(p) - t)
    theta = np.array([[0.1], [50.0], [-1e6], [0.0]])
    start = np.array([[3.0], [0.0], [1.0], [0.0]])
    many = NewtonRoot()(F, theta, start)
    assert (many.ok).all()
    for i in range(4):
        alone = NewtonRoot()(F, theta[i], start[i])
        assert np.array_equal(alone.value, many.value[i])
        assert alone.steps == many.steps[i]
    assert many.steps[3] == 0
