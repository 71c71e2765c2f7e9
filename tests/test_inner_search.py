"""A step is one length tried: what a run costs is known, and every problem searches at its own pace."""

import autograd.numpy as anp
import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS

from implicit_grad import CG, LBFGS, Autodiff, BilevelProblem, Newton, NewtonCG

METHODS = {
    "L-BFGS": lambda k: LBFGS(k, record=True),
    "L-BFGS, one pair": lambda k: LBFGS(k, 1, record=True),
    "L-BFGS, two pairs": lambda k: LBFGS(k, 2, record=True),
    "Newton-CG": lambda k: NewtonCG(k, 2, record=True),
    "Newton": lambda k: Newton(max_steps=k),
    "Newton by CG": lambda k: Newton(max_steps=k, linear_solver=CG(5)),
}
EVERY_METHOD = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


STEEP = np.linspace(3.0, 40.0, 4)
THETAS = np.array([[-1.2, 1.0], [1.5, -2.0], [-2.0, -3.0], [0.9, 0.8]])


def _valley(steep):
    """Rosenbrock's valley, one of its own for each problem: full steps are often too long."""

    def loss(x):
        return steep * (x[..., 1] - x[..., 0] ** 2) ** 2 + (1 - x[..., 0]) ** 2

    traced = Autodiff(loss, broadcasts=True)
    return BilevelProblem(traced, traced, 0.03)


@EVERY_METHOD
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_step_is_one_linearisation(make, steps):
    """Also where lengths are refused; and one to begin with. Cholesky takes the problems apart, one each a solve."""
    run = make(steps)(_valley(STEEP), THETAS)
    solves = run.cost.gradients - run.steps.max() - 1
    assert run.steps.max() == steps
    assert 0 < solves <= 2 * steps if make is METHODS["Newton"] else solves == 0


@EVERY_METHOD
def test_every_problem_goes_as_if_it_were_alone(make):
    """Some accept where others refuse, so that they choose directions at different steps; 1e5·eps relative."""
    for steps in (2, 5, 11):
        run = make(steps)(_valley(STEEP), THETAS)
        for i in range(4):
            one = make(steps)(_valley(STEEP[i]), THETAS[i])
            assert int(run.steps[i]) == int(one.steps)
            assert np.abs(run.value[i] - one.value).max() <= 1e5 * EPS * np.abs(one.value).max()
            assert run.status[i] is one.status


@pytest.mark.parametrize("make", [METHODS["L-BFGS"], METHODS["Newton-CG"]], ids=["L-BFGS", "Newton-CG"])
def test_a_refused_length_is_a_step_that_stands_still(make):
    """G never rises; where it stands still the iterate does, and a shorter length follows, from a tenth to a half."""
    problem, theta = _valley(40.0), THETAS[0]
    run = make(40)(problem, theta)
    points = run.path.points
    values = problem.value(points, theta)
    moved = np.any(np.diff(points, axis=0) != 0, axis=-1)
    assert (~moved).any()
    assert moved.any()
    assert (np.diff(values)[moved] < 0).all()
    for step in (0, 7, 19):
        assert np.array_equal(run.at(step).value, make(step)(problem, theta).value)
        assert run.at(step).cost.gradients == step + 1


def test_the_first_length_is_the_whole_direction():
    """On a quadratic Newton's one step is the answer: the second only shows that it was."""
    scene = scenes.ridge(0.37)
    run = Newton(max_steps=1)(scene.problem, scene.theta)
    star = Newton()(scene.problem, scene.theta).value
    assert np.linalg.norm(run.value - star) <= 64 * scene.condition * EPS * np.linalg.norm(star)


def test_an_infinite_trial_is_stepped_back_from():
    """exp overflows after a whole step: a tenth of it, and so on, until G is finite again."""
    loss = Autodiff(lambda x: anp.sum(anp.exp(x) - 900 * x))
    problem = BilevelProblem(loss, loss, 0.2)
    run = Newton()(problem, np.full(2, -4.0))
    assert run.status.ok
    assert np.abs(problem.stationarity(run.value, np.full(2, -4.0))).max() <= 1e-9 * 900
