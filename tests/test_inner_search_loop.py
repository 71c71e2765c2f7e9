"""The loop that methods of search share, with directions made to order; and the judgement of one length."""

from dataclasses import replace

import numpy as np
import pytest
from oracles.losses import Diagonal
from oracles.scenes import EPS

from implicit_grad import LBFGS, BilevelProblem, Newton, Status
from implicit_grad.inner._line_search import iterate_at
from implicit_grad.inner._search import Search
from implicit_grad.inner.lbfgs import _Pairs
from implicit_grad.inner.stopping import Stop
from implicit_grad.results import Cost

LAM = 0.5


class Scripted:
    """Directions from a list of multiples of the way to the minimum; after a failure there may be a next one."""

    def __init__(self, star, factors, restarts=0):
        self.star, self.factors, self.restarts, self.asked = star, list(factors), restarts, []

    def __call__(self, here, fresh):
        self.asked.append(np.array(fresh))
        factor = self.factors.pop(0) if len(self.factors) > 1 else self.factors[0]
        return factor * (self.star - here.phi), Cost(hvps=1)

    def restart(self, failed):
        if not self.restarts:
            return np.zeros_like(failed)
        self.restarts -= 1
        return failed


def _quadratic(batch=()):
    """G = ½(a + λ)‖φ − φ*‖² + constant, θ = 0."""
    curvature, pull = np.full((*batch, 2), 1.5), np.ones((*batch, 2))
    problem = BilevelProblem(Diagonal(curvature, pull), Diagonal(np.ones(2), np.zeros(2)), LAM)
    theta = np.zeros((*batch, 2))
    star = Newton()(problem, theta).value
    return problem, theta, star


def _search(problem, theta, steps, start=None, **options):
    return Search(problem, theta, start, Stop(problem, theta, 0.0, None), steps=steps, record=True, **options)


def _lengths(run, theta, star):
    """How far along the way from θ to φ* the iterates are."""
    way = star - theta
    return np.sum((run.path.points - theta) * way, axis=-1) / np.sum(way * way, axis=-1)


def test_a_direction_too_long_is_cut_to_the_minimum_of_its_parabola():
    """40 times too long: a tenth first, and from there a quarter, exactly; 1.5 times: a half, not two thirds."""
    problem, theta, star = _quadratic()
    run = _search(problem, theta, 3).run(None, Scripted(star, [40.0]))
    assert np.abs(_lengths(run, theta, star) - [0, 0, 0, 1]).max() <= 64 * EPS
    almost = _search(problem, theta, 2).run(None, Scripted(star, [2.1, 1.0]))
    assert np.abs(_lengths(almost, theta, star) - [0, 0, 2.1 / 2.1]).max() <= 0.06
    long = _search(problem, theta, 2).run(None, Scripted(star, [2.0 + 1e-9, 1.0]))
    assert np.abs(_lengths(long, theta, star) - [0, 0, 1]).max() <= 1e-8


def test_a_good_direction_is_asked_for_anew_after_every_step_and_only_then():
    problem, theta, star = _quadratic()
    asked = Scripted(star, [40.0, 0.5])
    _search(problem, theta, 5).run(None, asked)
    # Three lengths of the first direction, which ends at φ*: nothing is left to ask for.
    assert len(asked.asked) == 1
    asked = Scripted(star, [0.5])
    run = _search(problem, theta, 5).run(None, asked)
    assert len(asked.asked) == 5
    assert np.abs(_lengths(run, theta, star) - (1 - 0.5 ** np.arange(6))).max() <= 64 * EPS


def test_without_a_tolerance_the_last_step_is_a_spent_budget_and_a_step_less_is_an_early_end():
    problem, theta, star = _quadratic()
    one, two = (_search(problem, theta, steps).run(None, Scripted(star, [1.0])) for steps in (1, 2))
    assert (one.status, two.status) == (Status.BUDGET_SPENT, Status.CONVERGED)
    assert one.steps == two.steps == 1


def test_uphill_fails_after_forty_lengths_and_a_restart_is_the_next_step():
    problem, theta, star = _quadratic()
    scripted = Scripted(star, [-1.0, 1.0], restarts=1)
    run = _search(problem, theta, 60).run(None, scripted)
    lengths = _lengths(run, theta, star)
    assert np.abs(lengths[:41]).max() == 0
    assert abs(lengths[41] - 1) <= 64 * EPS
    assert len(scripted.asked) == 2
    assert run.status.ok
    stuck = _search(problem, theta, 60).run(None, Scripted(star, [-1.0]))
    assert stuck.status is Status.STAGNATED
    assert stuck.steps == 40
    # The budget ends before the search does: no verdict on the direction.
    assert _search(problem, theta, 40).run(None, Scripted(star, [-1.0])).status is Status.BUDGET_SPENT
    assert _search(problem, theta, 40, tolerant=True).run(None, Scripted(star, [-1.0])).status is Status.MAX_STEPS


def test_a_step_that_moves_nothing_is_the_last_of_its_direction():
    """From a start of size one, lengths under eps change no entry: half of the forty are not tried."""
    problem, theta, star = _quadratic()
    start = 2 * star
    run = _search(problem, theta, 60, start).run(None, Scripted(star, [-1.0]))
    assert run.status is Status.STAGNATED
    assert 14 <= run.steps <= 24


def test_one_problem_restarts_while_the_other_goes_on():
    """What one does is in its own row: the script's factor −1 is for the first problem, which then gets another."""
    problem, theta, star = _quadratic((2,))

    class Mixed(Scripted):
        def __call__(self, here, fresh):
            _, cost = super().__call__(here, fresh)
            sign = np.where(np.array([len(self.asked) == 1, False]), -1.0, 0.5)
            return sign[:, None] * (self.star - here.phi), cost

    scripted = Mixed(star, [1.0], restarts=1)
    run = _search(problem, theta, 50).run(None, scripted)
    lengths = np.stack([_lengths_of(run.path.points[:, i], theta[i], star[i]) for i in range(2)], axis=-1)
    assert np.abs(lengths[:41, 0]).max() == 0
    assert np.abs(lengths[41:, 0] - (1 - 0.5 ** np.arange(1, 11))).max() <= 64 * EPS
    assert np.abs(lengths[:30, 1] - (1 - 0.5 ** np.arange(30))).max() <= 64 * EPS
    # The first is asked for at the start and after its restart; the second at each step until it is there.
    first, second = np.array(scripted.asked).T
    assert first[0]
    assert not first[1:40].any()
    assert second[:30].all()


def _lengths_of(points, theta, star):
    way = star - theta
    return (points - theta) @ way / (way @ way)


def test_polishing_takes_a_whole_step_or_none():
    """A unit in the last place from the minimum one more step is tried; a search would try many lengths."""
    problem, theta, star = _quadratic()
    start = np.nextafter(star, 1.0)
    search = _search(problem, theta, 60, start, tolerant=True, polish=True)
    run = search.run(None, Scripted(star + 1.0, [1.0]))
    assert run.steps == 1
    assert run.cost.gradients == 2
    assert np.array_equal(run.value, start)
    assert run.status is Status.CONVERGED
    better = _search(problem, theta, 60, start, tolerant=True, polish=True).run(None, Scripted(star, [1.0]))
    assert np.array_equal(better.value, star)


# One length.


def _attempt(step, *, whole=False, phi=None, searching=True):
    """Try a step on a quadratic with curvatures 1 and 9 (λ = 0.5 in them)."""
    problem = BilevelProblem(Diagonal(np.array([0.5, 8.5]), np.zeros(2)), Diagonal(np.ones(2), np.zeros(2)), LAM)
    theta = np.zeros(2)
    here = iterate_at(problem, theta, np.array([1.0, 1.0]) if phi is None else phi)
    step = np.asarray(step)
    moved, after, shorter = here.attempt(step, here.gradient @ step, np.asarray(searching), np.asarray(whole))
    return bool(moved), after, float(shorter), here


def test_the_value_decides_and_for_whole_steps_the_gradient():
    """To (0.1, 1.05): G falls and ‖∇G‖ rises. To (−2.5, 0.1): G rises above the second digit, ‖∇G‖ falls."""
    falls, rises = np.array([-0.9, 0.05]), np.array([4.0, -0.9])
    moved, after, _, here = _attempt(falls)
    assert moved
    assert after.value < here.value
    assert after.residual > here.residual
    assert not _attempt(falls, whole=True)[0]
    moved, after, _, here = _attempt(rises)
    assert not moved
    assert np.array_equal(after.phi, here.phi)
    assert after.value == here.value
    tried = iterate_at(here.problem, here.theta, here.phi + rises)
    assert tried.value > here.value
    assert tried.residual < here.residual
    assert _attempt(rises, whole=True)[0]
    assert not _attempt(falls, searching=False)[0]


def test_a_fall_within_rounding_is_no_fall():
    """At a minimum with a large constant in G: the values say nothing, and the gradient must shrink."""

    class Lifted(Diagonal):
        def linearize(self, x):

            at = super().linearize(x)
            # A fall of two units in the last place wherever φ is not the origin.
            lift = 1e6 * (1 - 2 * EPS * np.any(x != 0, axis=-1))
            return replace(at, value=at.value + lift)

    loss = Lifted(np.array([0.5, 8.5]), np.zeros(2))
    problem = BilevelProblem(loss, Diagonal(np.ones(2), np.zeros(2)), LAM)
    here = iterate_at(problem, np.zeros(2), np.zeros(2))
    step = np.array([1e-8, 1e-8])
    moved, _, _ = here.attempt(step, np.asarray(-1e-30), np.asarray(True), np.asarray(False))
    assert not moved


@pytest.mark.parametrize(("end", "factor"), [(np.inf, 0.1), (np.nan, 0.1), (0.0, 0.5)])
def test_how_much_shorter_the_next_length_is(end, factor):
    """A tenth where there is no G, a half at most."""

    problem, theta, _ = _quadratic()
    step = np.array([0.1, 0.1])

    class Ending(Diagonal):
        def linearize(self, x):
            at = super().linearize(x)
            return replace(at, value=np.where(np.any(x != 0, axis=-1), end - 0.5 * LAM * 0.02, at.value))

    odd = BilevelProblem(Ending(np.full(2, 1.5), np.ones(2)), problem.outer, LAM)
    here = iterate_at(odd, theta, theta)
    _, _, shorter = here.attempt(step, np.asarray(-1.0), np.asarray(True), np.asarray(False))
    assert shorter == factor


def test_a_restart_forgets_the_pairs_of_those_that_failed():
    """Steepest descent for them, and the direction of before for the others."""
    rng = np.random.default_rng(71)
    curvature = np.exp(rng.uniform(-2, 2, (2, 3)))
    problem = BilevelProblem(Diagonal(curvature, np.ones((2, 3))), Diagonal(np.ones(3), np.zeros(3)), LAM)
    theta, every = rng.standard_normal((2, 3)), np.ones(2, dtype=bool)
    pairs = _Pairs(problem, theta, 5)
    for shift in (0.0, 0.3, 0.7):
        here = iterate_at(problem, theta, theta + shift * np.array([1.0, -2.0, 0.5]))
        before, _ = pairs(here, every)
    failed = np.array([True, False])
    assert np.array_equal(pairs.restart(failed), failed)
    after, _ = pairs(here, failed)
    assert np.array_equal(after[1], before[1])
    assert not np.allclose(before[0] / here.gradient[0], before[0, 0] / here.gradient[0, 0])
    assert np.abs(after[0] / here.gradient[0] - after[0, 0] / here.gradient[0, 0]).max() <= 8 * EPS
    assert not pairs.restart(failed).any()  # nothing is left to forget


def test_pairs_are_those_of_each_problem():
    """L-BFGS with two pairs, problems that refuse at different steps."""
    rng = np.random.default_rng(67)
    curvature, pull = np.exp(rng.uniform(-3, 3, (5, 4))), rng.standard_normal((5, 4))
    problem = BilevelProblem(Diagonal(curvature, pull), Diagonal(np.ones(4), np.zeros(4)), LAM)
    theta = 3 * rng.standard_normal((5, 4))
    many = LBFGS(25, 2, record=True)(problem, theta)
    for i in range(5):
        alone = BilevelProblem(Diagonal(curvature[i], pull[i]), Diagonal(np.ones(4), np.zeros(4)), LAM)
        one = LBFGS(25, 2, record=True)(alone, theta[i])
        assert np.array_equal(many.path.points[:, i], one.path.points)
        assert many.steps[i] == one.steps
