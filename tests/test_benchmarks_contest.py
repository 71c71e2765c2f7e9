"""Contests between scripted workers, so that every number is known beforehand; no timing is asserted."""

import re

import numpy as np
import pytest

from benchmarks.cases import Model, ProductCase
from benchmarks.contenders import CONTENDERS, LIBRARY, Contender, Setting, library
from benchmarks.pairing import TOLERANCE, Contest, Disagreement, Effort, Ratio, disagreement
from benchmarks.workers import ContenderError, Reading, Worker

EPS = np.finfo(float).eps


class Scripted:
    """A worker with prepared answers that writes down what it was asked."""

    def __init__(self, contender, setting, forms, log, *, value=2.0, fails=None):
        self.contender, self.setting, self.forms = contender, setting, forms
        self.log, self.value, self.fails = log, value, fails

    def ask(self, verb, *arguments):
        if verb == "load":
            if arguments[0] != "products":
                return {}
            if self.fails:
                raise ContenderError(self.fails)
            return {"HVP": list(self.forms)}
        if verb == "function":
            return None
        form = arguments[1]
        self.log.append((verb, self.contender.name, form))
        if verb == "first":
            return 10 * self.forms[form]
        if verb == "result":
            return np.full((3, 2), self.value)
        reading = Reading(self.forms[form], 1.0)
        return (1, reading) if verb == "calls_for" else reading


PEER = Contender("Peer", "nowhere", ("numpy",))
CASE = ProductCase(Model((1, 3, 1)), 3, 4)


def contest(*workers, absent=None, effort=Effort(screening=1, rounds=3, block=0.01)):  # noqa: B008
    made = Contest(effort, lambda text: None, [worker.contender for worker in workers])
    made.workers, made.absent = list(workers), absent or {}
    return made


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("benchmarks.pairing.SETTLE", 0.0)


class TestContest:
    def test_compares_results_before_any_timing_and_alternates_after(self):
        log = []
        ours = Scripted(LIBRARY, Setting("one"), {"a": 1.0}, log)
        theirs = Scripted(PEER, Setting("one"), {"b": 2.0}, log)
        rows = contest(ours, theirs).compare("products", CASE, ("HVP",), ())
        verbs = [verb for verb, *_ in log]
        assert max(i for i, verb in enumerate(verbs) if verb == "result") < verbs.index("calls_for")
        blocks = [name for verb, name, _ in log if verb == "block"]
        assert blocks[-6:] == [LIBRARY.name, PEER.name] * 3
        assert {row.contender: row.ratio for row in rows} == {
            LIBRARY.name: Ratio(1, 1, 1),
            PEER.name: Ratio(0.5, 0.5, 0.5),
        }

    def test_reports_the_fastest_form_under_the_fastest_setting(self):
        log = []
        ours = [Scripted(LIBRARY, Setting(name), {"a": t}, log) for name, t in (("one", 3.0), ("two", 1.5))]
        theirs = [Scripted(PEER, Setting(name), {"b": t, "c": 2 * t}, log) for name, t in (("x", 5.0), ("y", 6.0))]
        rows = {row.contender: row for row in contest(*ours, *theirs).compare("products", CASE, ("HVP",), ())}
        assert (rows[LIBRARY.name].setting, rows[LIBRARY.name].seconds) == ("two", 1.5)
        assert (rows["Peer"].setting, rows["Peer"].form, rows["Peer"].first_call) == ("x", "b", 50.0)
        assert {(each.setting, each.form) for each in rows["Peer"].forms} == {(s, f) for s in "xy" for f in "bc"}

    def test_stops_at_a_result_that_differs(self):
        log = []
        ours = Scripted(LIBRARY, Setting("one"), {"a": 1.0}, log)
        theirs = Scripted(PEER, Setting("one"), {"b": 2.0}, log, value=2.0 * (1 + 2 * TOLERANCE))
        with pytest.raises(Disagreement, match=r"HVP: Peer \(one: b\)"):
            contest(ours, theirs).compare("products", CASE, ("HVP",), ())
        assert not any(verb == "block" for verb, *_ in log)

    def test_takes_rounding_for_agreement(self):
        log = []
        ours = Scripted(LIBRARY, Setting("one"), {"a": 1.0}, log)
        theirs = Scripted(PEER, Setting("one"), {"b": 2.0}, log, value=2.0 * (1 + 0.5 * TOLERANCE))
        rows = contest(ours, theirs).compare("products", CASE, ("HVP",), ())
        assert rows[1].disagreement == pytest.approx(0.5 * TOLERANCE, rel=4 * EPS / TOLERANCE)

    def test_reports_who_is_missing_and_who_failed(self):
        ours = Scripted(LIBRARY, Setting("one"), {"a": 1.0}, [])
        broken = Scripted(PEER, Setting("one"), {}, [], fails="ValueError: no")
        made = contest(ours, broken, absent={"JAX": "not installed: jax", "TorchOpt": "not installed: torchopt"})
        rows = made.compare("products", CASE, ("HVP",), ("JAX",))
        notes = {row.contender: row.note for row in rows if row.note}
        assert notes == {"JAX": "not installed: jax", "Peer": "failed: ValueError: no"}

    def test_a_missing_package_is_named_without_starting_anything(self):
        absent = Contender("Nobody", "benchmarks.contenders.nobody", ("numpy", "no_such_package_anywhere"))
        said = []
        with Contest(Effort(), said.append, [absent]) as made:
            assert not made.workers
            assert made.absent == {"Nobody": "not installed: no_such_package_anywhere"}
        assert said == ["Nobody: not installed: no_such_package_anywhere"]

    def test_a_module_that_does_not_import_is_reported(self):
        broken = Contender("Broken", "benchmarks.contenders.nobody", ("numpy",))
        with Contest(Effort(), lambda text: None, [broken]) as made:
            assert not made.workers
            assert re.match("could not be imported: ModuleNotFoundError", made.absent["Broken"])

    def test_limits_a_slow_comparison_to_a_few_rounds(self):
        log = []
        ours = Scripted(LIBRARY, Setting("one"), {"a": 1.0}, log)
        contest(ours, effort=Effort(screening=1, rounds=50, limit=0.0)).compare("products", CASE, ("HVP",), ())
        assert sum(verb == "block" for verb, *_ in log) == 3  # and none for the screening of what takes a second


def test_a_worker_times_the_library_in_its_own_process():
    setting = LIBRARY.settings[0]
    worker = Worker(LIBRARY, setting)
    try:
        data = CASE.data()
        assert worker.ask("load", "products", CASE, data)["HVP"] == ["linearize, hvp"]
        assert worker.ask("first", "HVP", "linearize, hvp") > 0
        expected = library.products(CASE, data)["HVP"]["linearize, hvp"].call()
        assert disagreement(worker.ask("result", "HVP", "linearize, hvp"), expected) <= 8 * EPS
        calls, reading = worker.ask("calls_for", "HVP", "linearize, hvp", 1e-3)
        assert calls >= 1
        assert reading.seconds > 0
        assert worker.ask("block", "HVP", "linearize, hvp", calls).seconds > 0
        with pytest.raises(ContenderError, match="KeyError"):
            worker.ask("block", "HVP", "nothing of that name", 1)
    finally:
        worker.close()


def test_every_contender_has_a_module_that_offers_a_job():
    import importlib.util

    for contender in CONTENDERS:
        spec = importlib.util.find_spec(contender.module)
        assert spec is not None
        source = spec.loader.get_source(contender.module)
        assert re.search(r"^def (products|meta_gradient|sweep)\(", source, re.MULTILINE), contender.name
