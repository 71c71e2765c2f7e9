"""The audit of `make certificates`, reduced to seconds: no bound is crossed, and wrong constants are seen."""

import numpy as np
import pytest

from benchmarks import certificates as audit


@pytest.fixture(scope="module")
def tallies():
    return audit.audit({"ridge": 6, "logistic": 6, "softmax": 6, "digits": 3}, seed=20191211)


def test_no_bound_is_crossed(tallies):
    assert len(tallies) == 12
    assert sum(t.pairs for t in tallies.values()) == 3 * 21 * 42
    assert all(t.crossed == 0 for t in tallies.values())


def test_bounds_are_close(tallies):
    """The page gives medians of thousands of pairs; these are of a few problems: not out of all reason."""
    for (family, name), tally in tallies.items():
        median = np.median(np.concatenate(tally.ratios))
        if name.startswith("enclosure"):
            assert median < 1.01
        elif "Newton" in name:
            assert median < 6
        else:
            assert median < (60 if family == "digits" else 12)


def test_wrong_constants_are_seen():
    found = audit.power(30)
    seen = {name for (_, name), (crossed, _) in found.items() if crossed}
    assert seen == set(audit.SHRUNK)
    bound, shrunk = audit.sharp_instance()
    assert 1 <= bound < 1.01
    assert shrunk < 1


def test_no_bound_is_crossed_at_fifty_digits():
    crossed, total = audit.fifty_digits(1, seed=20191212)
    assert crossed == 0
    assert total == 3 * 3 * 42


def test_the_page_is_written_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(audit, "QUICK", {"ridge": 1})
    monkeypatch.setattr(audit, "power", lambda count: {("logistic", "β/2"): (1, 2)})
    monkeypatch.setattr(audit, "fifty_digits", lambda count: (0, 0))
    page = tmp_path / "page.md"
    assert audit.main(["--quick", "--out", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == capsys.readouterr().out
    monkeypatch.setattr(audit, "fifty_digits", lambda count: (1, 1))
    assert audit.main(["--quick"]) == 1, "a crossed bound must fail the command"
