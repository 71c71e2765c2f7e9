"""Statuses as codes: kept where the arrays are, decoded once by whoever looks, and sent elsewhere as found."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from device_double import DOUBLE, Traffic

from implicit_grad import ArgumentTypeError, Cholesky, Solution, Status
from implicit_grad._deferred import Deferred, replaced
from implicit_grad.results import Path
from implicit_grad.status import marked, status_codes, statuses, worst_status

CODES = np.array([[0, 3, 1], [2, 0, 7]], dtype=np.int8)
MEMBERS = statuses(CODES)


def _on_device():
    return statuses(DOUBLE.asarray(CODES))


def _solution(status, **more):
    return Solution(np.zeros((2, 3, 1)), np.zeros((2, 3)), np.ones((2, 3), dtype=int), status, Cholesky(), **more)


def test_codes_on_a_device_are_fetched_once_and_only_when_asked_for():
    Traffic.reset()
    solution = _solution(_on_device())
    again = replaced(solution, value=np.ones((2, 3, 1)))
    assert (solution.codes == DOUBLE.asarray(CODES)).shape == (2, 3)
    assert Traffic.reads == 0
    assert np.array_equal(solution.status, MEMBERS)
    assert solution.status is again.status
    assert Traffic.reads == 1
    assert np.array_equal(solution.ok, [[True, False, True], [False, True, False]])


def test_what_was_found_lets_go_of_how():
    big = np.ones(9)
    value = Deferred(lambda: big.sum())
    assert value.value == value.value == 9
    assert value._find is None


@pytest.mark.parametrize("change", [copy.copy, copy.deepcopy, dataclasses.replace], ids=lambda f: f.__name__)
def test_copies_have_the_statuses(change):
    solution = _solution(_on_device(), smallest_eigenvalue=Deferred(lambda: np.full((2, 3), -1.5)))
    other = change(solution)
    assert np.array_equal(other.status, MEMBERS)
    assert (other.smallest_eigenvalue == -1.5).all()


def test_what_is_sent_elsewhere_is_sent_as_found():
    """A device's arrays stay with it: the other side gets the statuses, and needs no device to read them."""
    solution = _solution(_on_device(), smallest_eigenvalue=Deferred(lambda: np.full((2, 3), -1.5)))
    other = pickle.loads(pickle.dumps(solution))
    assert np.array_equal(other.status, MEMBERS)
    assert np.array_equal(other.codes, CODES)
    assert (other.smallest_eigenvalue == -1.5).all()
    assert not isinstance(other.codes, type(DOUBLE.asarray(CODES)))


def test_the_first_failure_counts_wherever_the_stages_were():
    good, last = Status.CONVERGED, statuses(np.array([[1, 1, 1], [0, 6, 0]]))
    wanted = [[1, 3, 1], [2, 6, 7]]
    assert np.array_equal(status_codes(worst_status(good, MEMBERS, last)), wanted)
    for stages in (
        (good, _on_device(), last),
        (MEMBERS, statuses(DOUBLE.asarray(status_codes(last)))),
        (_solution(_on_device()), last),
    ):
        found = worst_status(*stages)
        assert np.array_equal(status_codes(found).get(), wanted)
        assert np.array_equal(_solution(found).status, statuses(np.array(wanted)))


def test_marking_is_in_place_on_the_host_and_nowhere_else():
    host, device = CODES.copy(), DOUBLE.asarray(CODES.copy())
    mask = CODES == 0
    assert marked(host, mask, Status.NONFINITE) is host
    there = marked(device, DOUBLE.asarray(mask), Status.NONFINITE)
    assert np.array_equal(there.get(), host)
    assert np.array_equal(device.get(), CODES)


def test_a_recorded_step_has_its_own_statuses():
    """Of a path on a device nothing is fetched by picking a step."""
    codes = np.stack([CODES, CODES[::-1]])
    path = Path((0, 4), np.zeros((2, 2, 3, 1)), np.zeros((2, 2, 3)), codes=DOUBLE.asarray(codes))
    solution = _solution(_on_device(), path=path)
    Traffic.reset()
    early = solution.at(0), solution.at(4)
    assert Traffic.reads == 0
    for one, wanted in zip(early, codes, strict=True):
        assert np.array_equal(one.status, statuses(wanted))
    bare = _solution(_on_device(), path=dataclasses.replace(path, codes=None))
    Traffic.reset()
    assert bare.at(0).codes is bare.codes
    assert Traffic.reads == 0


def test_a_foreign_status_is_refused_by_name():
    for foreign in ("converged", np.array(["converged"] * 2, dtype=object), None, 3):
        with pytest.raises(ArgumentTypeError, match=r"status: expected members of Status, got"):
            _ = _solution(foreign).ok
