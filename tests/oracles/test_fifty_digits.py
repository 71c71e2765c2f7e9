"""The oracle is its own first defendant: in 50 digits a difference quotient leaves no doubt."""

import pytest

from oracles import fifty_digits, scenes
from oracles.fifty_digits import MP

_SCENES = {
    "ridge": lambda lam: scenes.ridge(lam, seed=6),
    "softmax": lambda lam: scenes.softmax(lam, seed=6),
    "tanh": lambda lam: scenes.network(lam, (2,), "tanh", 0),
    "softplus, cross-entropy": lambda lam: scenes.network(lam, (2,), "softplus", 2),
}


@pytest.mark.parametrize("lam", [0.37, 41.0])
@pytest.mark.parametrize("name", list(_SCENES))
def test_meta_gradient_is_the_derivative_of_the_outer_loss(name, lam):
    """g·v equals (F(θ + hv) − F(θ − hv))/2h, whose error h² is near 1e-30: both inner problems are solved anew."""
    scene = _SCENES[name](lam)
    train, test = scene.exact
    theta, h = fifty_digits.exactly(scene.theta), MP.mpf(10) ** -15
    v = [MP.mpf(i % 3 - 1) + MP.mpf(i) / 7 for i in range(len(theta))]

    def outer(sign):
        moved = [t + sign * h * each for t, each in zip(theta, v, strict=True)]
        return test.value(fifty_digits.minimiser(train, lam, moved, moved)[0])

    g = fifty_digits.meta_gradient(train, test, lam, theta)
    directional = MP.fdot(g, v)
    scale = fifty_digits.norm(g) * fifty_digits.norm(v)
    assert abs((outer(+1) - outer(-1)) / (2 * h) - directional) <= MP.mpf(10) ** -25 * scale


@pytest.mark.parametrize("name", list(_SCENES))
def test_gradient_is_the_derivative_of_the_value(name):
    loss, x = _SCENES[name](0.37).exact[0], fifty_digits.exactly(_SCENES[name](0.37).theta)
    h, g = MP.mpf(10) ** -16, loss.gradient(x)
    for i in range(len(x)):
        up, down = list(x), list(x)
        up[i] += h
        down[i] -= h
        assert abs((loss.value(up) - loss.value(down)) / (2 * h) - g[i]) <= MP.mpf(10) ** -28 * (1 + abs(g[i]))
