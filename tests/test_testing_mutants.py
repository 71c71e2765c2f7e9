"""Every mutant dies, no sound control is accused, every law is of use, and the page says so."""

from pathlib import Path

import pytest

from implicit_grad.testing.law import Result, examine
from implicit_grad.testing.mutants.gradients import dense, right
from implicit_grad.testing.mutants.kill_table import Row, complaints, markdown
from implicit_grad.testing.mutants.registry import HVP_MUTANTS, LINEAR_MUTANTS, MUTANTS, Family
from implicit_grad.testing.problems import RidgeSpec

PAGE = Path(__file__).parents[1] / "docs" / "mutants.md"
FAST = [*LINEAR_MUTANTS, *HVP_MUTANTS]


@pytest.mark.parametrize("mutant", FAST, ids=lambda mutant: mutant.name)
def test_mutants_die_and_controls_live(mutant):
    findings = examine(mutant.family.laws, mutant.subject, examples=15, shrink=False)
    dead = any(finding.result is Result.VIOLATED for finding in findings)
    assert dead is not mutant.sound, [str(f) for f in findings if f.result is Result.VIOLATED]


def test_names_are_unique_and_many():
    assert sum(not mutant.sound for mutant in MUTANTS) >= 25
    for family in Family:
        names = [mutant.name for mutant in MUTANTS if mutant.family is family]
        assert len(set(names)) == len(names)
        assert any(mutant.sound for mutant in MUTANTS if mutant.family is family)


def test_the_page_lists_every_mutant_and_law():
    """A row without an x would be a survivor; a bold row with one, a false alarm."""
    text = PAGE.read_text(encoding="utf-8")
    for mutant in MUTANTS:
        (row,) = [
            line
            for line in _section(text, mutant.family).split("\n")
            if line.startswith((f"| {mutant.name} |", f"| **{mutant.name}** |"))
        ]
        assert ("| x " in row) is not mutant.sound, "run: make mutants"
    for family in Family:
        assert all(law.title in _section(text, family) for law in family.laws), "run: make mutants"


def _section(text, family):
    return text.split(f"## {family.value}\n")[1].split("\n## ")[0]


def test_complaints():
    titles = [law.title for law in Family.HVP.laws]
    all_hold, all_fail = (dict.fromkeys(titles, result) for result in (Result.HOLDS, Result.VIOLATED))
    rows = (Row("survivor", Family.HVP, False, all_hold), Row("control", Family.HVP, True, all_fail))
    found = complaints(rows)
    assert any("survives" in line for line in found)
    assert any("false alarm" in line for line in found)
    assert "kills nothing" in complaints(rows[:1])[1]
    other = tuple(Row("m", f, False, {law.title: Result.VIOLATED for law in f.laws}) for f in Family)
    assert not complaints(other)
    assert "| m | x |" in markdown(other)


def test_zero_inputs_see_nothing():
    """The mutant of a test: with X = 0 even the diagonal inverse is right, so inputs must never be all zero."""
    from implicit_grad.verify import wrong_formula

    wrong = wrong_formula("diagonal inverse")
    for blind in (True, False):
        spec = RidgeSpec(size=4, seed=6)
        X, y, X_test, y_test, theta = spec.data()
        case = spec.case(0 * X if blind else X, y, X_test, y_test, theta)
        error = abs(wrong(case.problem, theta) - dense(right)(case.problem, theta).gradient).max()
        assert bool(error <= case.tol_exact()) is blind
