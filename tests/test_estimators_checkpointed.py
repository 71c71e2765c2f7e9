"""The unrolled gradient in less memory: the same numbers from few states, or forwards."""

import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import scenes
from oracles.losses import Counting

from implicit_grad import (
    ArgumentError,
    BilevelProblem,
    CheckpointedGradient,
    ForwardModeGradient,
    GradientDescent,
    Newton,
    UnrolledGradient,
)
from implicit_grad.estimators.checkpointed import reverse_binomially
from implicit_grad.tasks import Sinusoid
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.strategies import ridge_specs


@cache
def fewest_recomputed(length, slots):
    """The least number of recomputed steps, by trying every place for the next checkpoint."""
    if length <= 1:
        return 0
    if slots == 0:
        return length * (length - 1) // 2
    return min(m + fewest_recomputed(length - m, slots - 1) + fewest_recomputed(m, slots) for m in range(1, length))


@given(st.integers(0, 70), st.integers(0, 7))
def test_the_schedule_is_optimal_and_keeps_its_word(length, slots):
    recomputed, visited, alive = [0], [], []

    class State(int):
        """Counts how many states are alive at once."""

        def __new__(cls, k):
            state = super().__new__(cls, k)
            alive.append(k)
            return state

        def __del__(self):
            alive.remove(int(self))

    most = [0]

    def advance(state, steps):
        recomputed[0] += steps
        return State(int(state) + steps)

    def pull(state):
        visited.append(int(state))
        most[0] = max(most[0], len(alive))

    reverse_binomially(State(0), length, slots, advance, pull)
    assert visited == list(range(length - 1, -1, -1))
    assert recomputed[0] == fewest_recomputed(length, slots)
    # Beside the start and the slots there is, with no slot left, the state just being pulled.
    assert most[0] <= slots + 2


@pytest.mark.parametrize("steps", [16, 64, 256, 1024])
def test_the_default_keeps_root_k_states_and_costs_little(steps):
    recomputed = [0]

    def advance(state, count):
        recomputed[0] += count
        return state + count

    reverse_binomially(0, steps, int(np.ceil(np.sqrt(steps))), advance, lambda state: None)
    assert recomputed[0] <= 2.5 * steps


@pytest.mark.parametrize("proximal", [True, False], ids=["regularised", "plain"])
@pytest.mark.parametrize("checkpoints", [None, 0, 1, 3, 50])
@pytest.mark.parametrize("steps", [0, 1, 2, 23])
def test_equals_the_recorded_reverse_pass_bit_for_bit(steps, checkpoints, proximal):
    scene = scenes.softmax(0.37)
    solver = GradientDescent(None, steps, record=True, proximal=proximal)
    inner = solver(scene.problem, scene.theta)
    recorded = UnrolledGradient()(scene.problem, scene.theta, inner)
    fewer = CheckpointedGradient(checkpoints)(scene.problem, scene.theta, inner)
    assert np.array_equal(recorded.gradient, fewer.gradient)


@given(ridge_specs(), st.integers(0, 12), st.booleans())
def test_forward_mode_equals_reverse_mode(spec, steps, proximal):
    case = spec.build()
    inner = GradientDescent(None, steps, record=True, proximal=proximal)(case.problem, case.theta)
    reverse = UnrolledGradient()(case.problem, case.theta, inner).gradient
    forward = ForwardModeGradient()(case.problem, case.theta, inner).gradient
    # Every step multiplies by I − αA with norm ≤ 1 and rounds d-term products.
    b = case.test.gradient_abs(inner.value)
    assert np.linalg.norm(forward - reverse) <= 64 * case.size * (steps + 1) * UNIT * b


def test_both_take_batches():
    rng = np.random.default_rng(41)
    source = Sinusoid(shots=5, queries=5, hidden=(3,))
    problem = source.sample(rng, tasks=3, lam=np.array([[4.0], [30.0]]))
    theta = source.initial_parameters(rng)
    inner = GradientDescent(0.02, 9, record=True)(problem, theta)
    reverse = UnrolledGradient()(problem, theta, inner).gradient
    assert np.array_equal(CheckpointedGradient(2)(problem, theta, inner).gradient, reverse)
    forward = ForwardModeGradient()(problem, theta, inner).gradient
    assert np.abs(forward - reverse).max() <= 1e4 * UNIT * np.abs(reverse).max()


@pytest.mark.parametrize("estimator", [CheckpointedGradient(2), ForwardModeGradient()], ids=repr)
def test_costs_are_exact(estimator):
    scene = scenes.ridge(0.37)
    train, test = Counting(scene.problem.inner), Counting(scene.problem.outer)
    problem = BilevelProblem(train, test, scene.problem.lam)
    inner = GradientDescent(None, 11)(problem, scene.theta)
    train.calls.clear()
    estimate = estimator(problem, scene.theta, inner)
    assert train.calls["hvps"] == estimate.cost.hvps - inner.cost.hvps
    assert train.calls["gradients"] + 1 == estimate.cost.gradients - inner.cost.gradients


def test_a_warm_start_is_refused():
    """Running again from θ would differentiate another run."""
    scene = scenes.ridge(0.37)
    inner = GradientDescent(None, 5)(scene.problem, scene.theta, start=scene.theta + 1)
    with pytest.raises(ArgumentError, match="another start"):
        CheckpointedGradient()(scene.problem, scene.theta, inner)


def test_a_warm_start_does_not_move_with_theta():
    """With its own start, dφ₀/dθ = 0: after no step at all the gradient is zero."""
    scene = scenes.ridge(0.37)
    inner = GradientDescent(None, 0, record=True)(scene.problem, scene.theta, start=scene.theta + 1)
    assert not UnrolledGradient()(scene.problem, scene.theta, inner).gradient.any()


@pytest.mark.parametrize("estimator", [CheckpointedGradient(), ForwardModeGradient()], ids=repr)
def test_other_solvers_are_refused(estimator):
    scene = scenes.ridge(0.37)
    with pytest.raises(ArgumentError, match="GradientDescent"):
        estimator(scene.problem, scene.theta, Newton()(scene.problem, scene.theta))


def test_memory_grows_like_the_root_of_the_steps():
    rng = np.random.default_rng(43)
    source = Sinusoid(hidden=(64, 64))
    problem, theta = source.sample(rng, tasks=1, lam=30.0), source.initial_parameters(rng)
    one = theta.nbytes

    def peak(steps):
        inner = GradientDescent(0.01, steps)(problem, theta)
        tracemalloc.start()
        CheckpointedGradient()(problem, theta, inner)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = peak(4), peak(400)
    assert (many - few) / one <= 2.5 * np.sqrt(400)
