"""Every law, every row of bad input and every known defect has a test, and every test named for one exists.

The lists are in `index_of_laws.py`, `index_of_bad_input.py` and `index_of_known_defects.py`; ids in them are relative
to this folder, and may end before the cases of a test.
"""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import index_of_bad_input as bad_input
import index_of_known_defects as defects
import index_of_laws as laws
import numpy as np
from oracles import scenes

from implicit_grad import CG, EXACT, Cholesky, GradientDescent, ImplicitGradient

HERE = Path(__file__).parent


def test_no_law_is_missing():
    assert sorted(laws.LAWS) == [*range(1, 59), *range(64, 70)]
    assert all(laws.LAWS.values())
    # Each is stated over drawn problems, not on one example only.
    for number, tests in laws.LAWS.items():
        assert any(test.startswith("properties/") for test in tests), number
    assert len(laws.NOT_LAWS) == 5
    assert all(laws.NOT_LAWS.values())


def test_no_row_of_bad_input_is_missing():
    assert sorted(bad_input.BAD_INPUT) == list(range(1, 40))
    assert all(bad_input.BAD_INPUT.values())
    assert bad_input.NOT_MET.keys() <= bad_input.BAD_INPUT.keys()
    assert all(len(reason) > 20 for reason in bad_input.NOT_MET.values())


def test_no_defect_is_missing():
    assert all(defects.DEFECTS.values())
    assert sorted(defects.IDENTITIES) == list(range(1, 20))
    assert all(len(reason) > 20 for reason in defects.OUT_OF_SCOPE.values())


def _named() -> list[str]:
    tables = (laws.LAWS, laws.NOT_LAWS, bad_input.BAD_INPUT, defects.DEFECTS, defects.IDENTITIES)
    return sorted({test for table in tables for tests in table.values() for test in tests})


def test_every_test_named_is_collected():
    """By pytest itself, in a process of its own."""
    named = _named()
    files = sorted({test.split("::")[0] for test in named})
    missing = [file for file in files if not (HERE / file).is_file()]
    assert not missing
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *files], cwd=HERE, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    collected = "\n".join(re.sub(r"^tests/", "", line) for line in run.stdout.splitlines() if "::" in line)
    vanished = [test for test in named if not re.search(rf"^{re.escape(test)}", collected, re.MULTILINE)]
    assert not vanished
    # An id that ends inside a name would be found in that of another test.
    whole = [test for test in named if "[" not in test]
    assert not [test for test in whole if not re.search(rf"^{re.escape(test)}(\[|$)", collected, re.MULTILINE)]


def test_false_the_residual_of_cg_never_rises():
    path = CG(3, record=True)(np.diag([1.0, 10.0, 100.0]), np.ones(3)).path
    assert path.residual_norms[1] > 1.2 * path.residual_norms[0]


def test_false_cg_is_linear_in_b():
    A, (one, two) = np.diag([1.0, 10.0, 100.0]), np.eye(3)[:2]
    for k, linear in ((1, False), (2, True)):  # two steps are exact here
        both, apart = CG(k)(A, one + 3 * two).value, CG(k)(A, one).value + 3 * CG(k)(A, two).value
        assert bool(np.linalg.norm(both - apart) < 1e-12) is linear


def _error(scene, phi, solver):
    exact = EXACT(scene.problem, scene.theta).gradient
    estimate = ImplicitGradient(solver)(scene.problem, scene.theta, phi)
    return np.linalg.norm(estimate.gradient - exact) / np.linalg.norm(exact)


def test_false_more_steps_are_better_at_any_point():
    """At a φ that is not stationary the system is another one, and solving it better need not help."""
    scene = scenes.ridge(0.02, seed=4)
    phi = GradientDescent(None, 1)(scene.problem, scene.theta)
    errors = [_error(scene, phi, CG(k)) for k in (3, 6)]
    assert errors[1] > 1.4 * errors[0]


def test_false_more_inner_steps_are_always_better():
    scene = scenes.ridge(0.02, seed=7)
    run = GradientDescent(None, 8, record=True)(scene.problem, scene.theta)
    errors = [_error(scene, run.at(k), Cholesky()) for k in range(1, 8)]
    assert all(later > before for before, later in pairwise(errors))
