"""The audit of `make certificates`, reduced to seconds: no bound is crossed, and wrong constants are seen."""

import numpy as np
import pytest

from benchmarks import certificates as audit


@pytest.fixture(scope="module")
def tallies():
    return audit.audit({"ridge": 4, "logistic": 4, "softmax": 4, "digits": 2}, seed=20191211)


def test_no_bound_is_crossed(tallies):
    assert len(tallies) == 16
    assert sum(t.pairs for t in tallies.values()) == 4 * 14 * 42
    assert all(t.crossed == 0 for t in tallies.values())


def test_bounds_are_close(tallies):
    """The page gives medians of thousands of pairs; these are of a few problems, digits at φ left out."""
    for (family, name), tally in tallies.items():
        if name == audit.ENCLOSURE:
            assert tally.median < 1.01
            assert tally.sharp > 0.95
        elif (family, name) != ("digits", audit.AT_PHI):
            assert tally.median < 6


def test_a_certificate_makes_two_products(tallies):
    for (_, name), tally in tallies.items():
        if name in (audit.AT_PHI, audit.AHEAD):
            assert tally.hvps == 2
            assert tally.hessians == 0


def test_wrong_constants_are_seen():
    """At φ each of them; a few steps on β and m, ρ and R no longer matter much."""
    found = audit.power(15)
    for level, least in ((audit.AT_PHI, set(audit.SHRUNK)), (audit.AHEAD, {"β/2", "β/10", "10 m"})):
        seen = {name for (_, name, where), (crossed, _) in found.items() if crossed and where == level}
        assert seen >= least
    bound, shrunk = audit.sharp_instance()
    assert 1 <= bound < 1.01
    assert shrunk < 1


def test_a_target_that_is_missed_is_called_missed(tallies):
    lines = audit.targets(tallies)
    assert all(line.endswith(("| met |", "| **missed** |")) for line in lines)
    worse = {key: audit.Tally(1, 0, 0, [np.array([7.0])], [1], 3, 0) for key in tallies}
    assert all(line.endswith("| **missed** |") for line in audit.targets(worse))


def test_no_bound_is_crossed_at_fifty_digits():
    crossed, total = audit.fifty_digits(1, seed=20191212)
    assert crossed == 0
    assert total == 4 * 3 * 42


def test_the_page_is_written_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(audit, "QUICK", {"ridge": 1})
    monkeypatch.setattr(audit, "power", lambda count: {("logistic", "β/2", audit.AT_PHI): (1, 2)})
    monkeypatch.setattr(audit, "fifty_digits", lambda count: (0, 0))
    page = tmp_path / "page.md"
    assert audit.main(["--quick", "--out", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == capsys.readouterr().out
    monkeypatch.setattr(audit, "fifty_digits", lambda count: (1, 1))
    assert audit.main(["--quick"]) == 1, "a crossed bound must fail the command"
