"""Statuses, costs, paths and labels."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import scenes

from implicit_grad import (
    CG,
    ArgumentError,
    Cholesky,
    ConvergenceError,
    Cost,
    GradientDescent,
    ImplicitGradient,
    IndefiniteError,
    MetaGradient,
    Newton,
    Path,
    Solution,
    Status,
    describe,
)
from implicit_grad.status import STATUSES, status_codes, statuses, worst_status

EACH = st.sampled_from(STATUSES)


def test_two_endings_are_successes():
    assert {s for s in Status if s.ok} == {Status.CONVERGED, Status.BUDGET_SPENT}
    assert all(len(s.value) > 20 for s in Status)
    assert [repr(s) for s in Status] == [f"Status.{s.name}" for s in Status]


def test_stored_codes_keep_their_meaning():
    """Tables hold positions: new members go to the end."""
    names = [
        "CONVERGED",
        "BUDGET_SPENT",
        "MAX_STEPS",
        "INDEFINITE",
        "STAGNATED",
        "DIVERGED",
        "NONFINITE",
        "ILL_CONDITIONED",
    ]
    assert [s.name for s in Status][: len(names)] == names


def test_the_message_of_an_ill_conditioned_problem_says_kappa():
    codes = statuses(np.array([Status.CONVERGED.code, Status.ILL_CONDITIONED.code]))
    solution = Solution(np.ones((2, 3)), np.zeros(2), 1, codes, "solver", condition=np.array([1.0, 2.5e11]))
    with pytest.raises(ConvergenceError, match=r"problem \(1,\).*ILL_CONDITIONED: κ > 1/√eps.*κ is about 2\.5e\+11"):
        solution.unwrap()


@given(st.lists(EACH, min_size=1, max_size=6))
def test_codes_and_members_are_one_to_one(each):
    codes = np.array([s.code for s in each])
    assert list(statuses(codes)) == each
    assert np.array_equal(status_codes(statuses(codes)), codes)
    assert statuses(codes[0]) is each[0]
    assert status_codes(each[0]) == codes[0]
    assert np.array_equal(statuses(codes.reshape(1, -1)), np.array([each], dtype=object))


@given(EACH, EACH, EACH)
def test_the_first_failure_of_a_chain_is_kept(one, two, three):
    wanted = next((s for s in (one, two, three) if not s.ok), three)
    assert worst_status(one, two, three) is wanted
    batch = statuses(np.full((2, 1), two.code))
    assert worst_status(one, batch, three).shape == (2, 1)
    assert (worst_status(one, batch, three) == wanted).all()


@given(*[st.builds(Cost, *[st.integers(0, 9)] * 3, peak_bytes=st.none() | st.integers(0, 99))] * 3)
def test_costs_add_up_and_peaks_do_not(a, b, c):
    assert a + Cost() == a == Cost() + a
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert (a + b).hvps == a.hvps + b.hvps
    peaks = [x.peak_bytes for x in (a, b) if x.peak_bytes is not None]
    assert (a + b).peak_bytes == (max(peaks) if peaks else None)


def _solution(codes, **extra):
    shape = np.shape(codes)
    return Solution(
        np.ones((*shape, 2)), np.full(shape, 0.125), np.full(shape, 3), statuses(codes), Newton(), **extra
    )


def test_a_solution_gives_its_value_only_if_every_problem_succeeded():
    good = _solution(np.array([Status.CONVERGED.code, Status.BUDGET_SPENT.code]))
    assert good.ok.tolist() == [True, True]
    assert good.unwrap() is good.value
    bad = _solution(np.array([[Status.CONVERGED.code, Status.MAX_STEPS.code]]))
    assert bad.ok.tolist() == [[True, False]]
    with pytest.raises(ConvergenceError, match=r"problem \(0, 1\) of the batch \(1, 2\): MAX_STEPS.* 0\.125"):
        bad.unwrap()


@pytest.mark.parametrize("smallest", [None, np.array(-0.75)])
def test_indefinite_solutions_name_the_eigenvalue_they_saw(smallest):
    solution = _solution(np.array(Status.INDEFINITE.code), smallest_eigenvalue=smallest)
    with pytest.raises(IndefiniteError, match="INDEFINITE" if smallest is None else "-0.75"):
        solution.unwrap()


def test_results_are_frozen():
    for value, name in ((_solution(np.array(0)), "value"), (Cost(), "hvps"), (CG(3), "max_steps")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_an_estimate_unwraps_both_stages():
    scene = scenes.ridge(0.37)
    inner = MetaGradient(Newton(max_steps=0), ImplicitGradient(CG(99, 1e-9)))(scene.problem, scene.theta)
    with pytest.raises(ConvergenceError, match=r"Newton.*MAX_STEPS"):
        inner.unwrap()
    linear = MetaGradient(Newton(), ImplicitGradient(CG(1, 1e-9)))(scene.problem, scene.theta)
    with pytest.raises(ConvergenceError, match=r"CG.*MAX_STEPS"):
        linear.unwrap()
    assert not inner.ok
    assert not linear.ok


def test_paths_know_their_steps():
    path = Path((0, 2, 5), np.zeros((3, 2)), np.zeros(3))
    assert path.index(2) == 1
    assert not path.is_complete()
    assert Path((0, 1), np.zeros((2, 2)), np.zeros(2)).is_complete()
    with pytest.raises(ArgumentError, match="step: 3 was not recorded"):
        path.index(3)


def test_a_solution_without_a_path_has_no_earlier_self():
    scene = scenes.ridge(0.37)
    with pytest.raises(ArgumentError, match=r"path: .*record="):
        GradientDescent(None, 3)(scene.problem, scene.theta).at(2)


def test_a_path_of_a_solver_from_elsewhere_keeps_status_and_cost():
    """A user's solver may record points only."""
    path = Path((0, 1), np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([2.0, 1.0]))
    solution = Solution(np.ones(2), 1.0, 1, Status.CONVERGED, "mine", path, Cost(gradients=9))
    early = solution.at(0)
    assert early.value.tolist() == [0, 0]
    assert early.residual_norm == 2
    assert early.steps == 0
    assert early.cost == solution.cost
    assert early.status is Status.CONVERGED
    assert early.path.steps == (0,)


def test_labels_keep_the_class_names():
    method = MetaGradient(GradientDescent(0.1, 7), ImplicitGradient(Cholesky(refinements=2)))
    columns = describe(method, "method")
    assert columns["method"] == "MetaGradient"
    assert columns["method.inner_solver"] == "GradientDescent"
    assert columns["method.inner_solver.steps"] == 7
    assert columns["method.estimator.linear_solver"] == "Cholesky"
    assert columns["method.estimator.linear_solver.refinements"] == 2
    other = replace(method, inner_solver=replace(method.inner_solver, steps=8))
    assert [k for k in columns if describe(other, "method")[k] != columns[k]] == ["method.inner_solver.steps"]
    assert describe(3.5, "lam") == {"lam": 3.5}
