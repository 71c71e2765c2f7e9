"""Richardson extrapolation: two orders gained with the right order, none with a wrong one."""

import numpy as np
import pytest
from oracles import fifty_digits, scenes
from oracles.scenes import EPS
from slopes import exact, slope

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Cholesky,
    ContrastiveGradient,
    FiniteDifferenceGradient,
    FirstOrderGradient,
    ImplicitGradient,
    Newton,
    RichardsonGradient,
    Status,
)

FLOOR = Newton(rtol=1e-15)


def _pair(s, two_sided, ratio, order):
    coarse, fine = (ContrastiveGradient(t, FLOOR, two_sided) for t in (s, s / ratio))
    return RichardsonGradient(coarse, fine, order, ratio)


@pytest.mark.parametrize(
    ("two_sided", "assumed", "seen"),
    [(True, 2, 4), (False, 1, 2), (True, 1, 2), (False, 2, 1)],
    ids=["two-sided", "one-sided", "two-sided, wrong order", "one-sided, wrong order"],
)
@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_orders(two_sided, assumed, seen, ratio):
    """s⁴ from two nudges and s² from one; with a wrong order the leading error stays. ±0.15."""
    scene = scenes.softmax(2.3)
    inner = FLOOR(scene.problem, scene.theta)
    g = exact(scene)
    strengths = 2.3 * 10.0 ** np.arange(-4, -0.5, 0.25)
    errors = [
        fifty_digits.relative_error(
            _pair(s, two_sided, ratio, assumed)(scene.problem, scene.theta, inner).gradient, g
        )
        for s in strengths
    ]
    noise = 300 * 9 * scene.condition * EPS / strengths
    assert abs(slope(strengths, errors, noise, 1e-3) - seen) <= 0.15


def test_finite_differences_gain_two_orders():
    scene = scenes.softmax(2.3)
    inner, g = FLOOR(scene.problem, scene.theta), exact(scene)
    h = 3e-2 * np.linalg.norm(scene.theta)
    coarse, fine = (FiniteDifferenceGradient(FLOOR, t) for t in (h, h / 2))
    both = RichardsonGradient(coarse, fine, order=2)(scene.problem, scene.theta, inner)
    alone = fine(scene.problem, scene.theta, inner)
    assert both.status is Status.CONVERGED
    one, other = (fifty_digits.relative_error(e.gradient, g) for e in (both, alone))
    assert one < 1e-2 * other


def test_estimates_without_error_stay_as_they_are():
    scene = scenes.softmax(0.37)
    inner = FLOOR(scene.problem, scene.theta)
    same = FirstOrderGradient()
    estimate = RichardsonGradient(same, same, order=3)(scene.problem, scene.theta, inner)
    assert np.array_equal(estimate.gradient, same(scene.problem, scene.theta, inner).gradient)


def test_the_inner_solve_is_charged_once():
    scene = scenes.softmax(0.37)
    inner = FLOOR(scene.problem, scene.theta)
    estimators = ImplicitGradient(Cholesky()), FirstOrderGradient()
    each = [e(scene.problem, scene.theta, inner).cost + inner.cost.times(-1) for e in estimators]
    both = RichardsonGradient(*estimators, order=1)(scene.problem, scene.theta, inner).cost
    assert both == inner.cost + each[0] + each[1]


def test_noise_is_the_failure_mode():
    """Below the noise the combination is worse than its better half: noise is multiplied, nothing cancels."""
    scene = scenes.softmax(0.37)
    inner, g = FLOOR(scene.problem, scene.theta), exact(scene)
    worse = 0
    for s in 1e-7 * 0.37 * 2.0 ** np.arange(8):
        pair = _pair(s, True, 1.01, 2)
        both, alone = (e(scene.problem, scene.theta, inner).gradient for e in (pair, pair.fine))
        worse += fifty_digits.relative_error(both, g) > 5 * fifty_digits.relative_error(alone, g)
    assert worse >= 6


def test_a_failure_of_either_is_the_status():
    scene = scenes.softmax(0.37)
    inner = FLOOR(scene.problem, scene.theta)
    lost = ContrastiveGradient(1e-17, FLOOR)
    for pair in ((ContrastiveGradient(1e-2, FLOOR), lost), (lost, ContrastiveGradient(1e-2, FLOOR))):
        assert RichardsonGradient(*pair, order=2)(scene.problem, scene.theta, inner).status is Status.STAGNATED


def test_arguments_are_checked():
    pair = FirstOrderGradient(), FirstOrderGradient()
    for ratio in (1.0, 0.5, 0.0, np.nan):
        with pytest.raises(ArgumentError, match="ratio"):
            RichardsonGradient(*pair, order=2, ratio=ratio)
    with pytest.raises(ArgumentError, match="order"):
        RichardsonGradient(*pair, order=0)
    with pytest.raises(ArgumentTypeError, match="coarse"):
        RichardsonGradient(FirstOrderGradient, FirstOrderGradient(), order=1)
    with pytest.raises(ArgumentTypeError, match="fine"):
        RichardsonGradient(FirstOrderGradient(), "fine", order=1)
