"""Right gradients are never called wrong; all of them by `python -m benchmarks.diagnosis`."""

import pytest

from benchmarks.diagnosis.right import METHODS, Right, right_outcome, right_trials
from implicit_grad import EXACT


@pytest.mark.parametrize("right", [*right_trials(40), *(Right(m, "scaled ridge", 4) for m in METHODS)], ids=str)
def test_no_false_alarm(right):
    assert right_outcome(right)[1] != "FAIL"


def test_the_false_alarm_check_can_fail(monkeypatch):
    monkeypatch.setitem(METHODS, "EXACT", lambda problem, theta: EXACT(problem, theta).gradient * (1 + 1e-4))
    assert right_outcome(Right("EXACT", "ridge", 1000))[1] == "FAIL"
