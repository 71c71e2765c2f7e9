"""The benchmark runner: what it computes from timings, what it writes, and what it does when a peer is missing.

No timing is asserted. Contenders here are played by scripted workers, so that every number is known beforehand.
"""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cases, jobs
from benchmarks.cases import MetaCase, Model, ProductCase, SweepCase
from benchmarks.contenders import CONTENDERS, JAX, JAX_SPLIT, LIBRARY, Contender, Setting, library
from benchmarks.jobs import Plan, Results, Series
from benchmarks.pairing import TOLERANCE, Contest, Disagreement, Effort, Ratio, Row, disagreement, ratio
from benchmarks.report import Report, race_table, ratio_text, table
from benchmarks.startup import Startup
from benchmarks.targets import Verdict, path_states, verdicts
from benchmarks.workers import ContenderError, Reading, Worker
from implicit_grad.tasks import Sinusoid

EPS = np.finfo(float).eps
seconds = st.floats(1e-6, 1e3)
turns = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=15)


class TestRatio:
    @given(turns)
    def test_lies_between_its_ends_and_inverts(self, pairs):
        ours, theirs = zip(*pairs, strict=True)
        there, back = ratio(ours, theirs), ratio(theirs, ours)
        assert there.low <= there.median <= there.high
        assert there.low * back.high == pytest.approx(1, rel=4 * EPS)
        assert there.high * back.low == pytest.approx(1, rel=4 * EPS)

    @given(turns, st.sampled_from([0.25, 2.0, 8.0]))
    def test_scales_with_our_time(self, pairs, factor):
        ours, theirs = zip(*pairs, strict=True)
        once, scaled = ratio(ours, theirs), ratio([factor * each for each in ours], theirs)
        assert scaled == Ratio(factor * once.median, factor * once.low, factor * once.high)

    def test_pairs_turns_of_the_same_round(self):
        # A machine that slows down threefold in the second round leaves the ratios alone; medians of times would not.
        assert ratio([1.0, 3.0, 1.0], [2.0, 6.0, 2.0]) == Ratio(0.5, 0.5, 0.5)

    @pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
    def test_refuses_turns_that_are_not_paired(self, ours, theirs):
        with pytest.raises(ValueError, match="paired"):
            ratio(ours, theirs)


class TestDisagreement:
    @given(st.integers(0, 2**32 - 1), st.floats(1e-14, 1e3))
    def test_is_the_relative_distance_of_the_worst_problem(self, seed, size):
        rng = np.random.default_rng(seed)
        reference = rng.standard_normal((4, 7)) * np.array([1e-8, 1.0, 30.0, 1e8])[:, None]
        moved = reference.copy()
        step = rng.standard_normal(7)
        moved[0] += size * np.linalg.norm(reference[0]) * step / np.linalg.norm(step)
        # Adding and taking away rounds at the size of the larger of the two.
        assert disagreement(moved, reference) == pytest.approx(size, rel=8 * EPS * (1 + 1 / size))

    def test_is_nan_for_another_shape_dtype_or_name(self):
        x = np.ones((2, 3))
        for other in (np.ones((3, 2)), x.astype(np.float32), {"x": x}):
            assert math.isnan(disagreement(other, {"x": x} if isinstance(other, np.ndarray) else x) or math.nan)
        assert math.isnan(disagreement(np.ones((1, 3)), x))
        assert math.isnan(disagreement({"y": x}, {"x": x}))

    def test_sees_nan_in_one_of_several_arrays(self):
        x = np.ones((2, 3))
        bad = x.copy()
        bad[1, 2] = np.nan
        for result in ({"x": x, "y": bad}, {"x": bad, "y": x}):
            assert not disagreement(result, {"x": x, "y": x}) <= TOLERANCE


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


TINY = Plan(
    Effort(screening=1, rounds=1, block=0.001),
    products=(
        ProductCase(Model((1, 3, 1)), 2, 4),
        ProductCase(Model((6, 4, 3), 3), 2, 5),
        ProductCase(Model((6, 3), 3, bias=False), 2, 5),
    ),
    sweep=SweepCase(tasks=2, lams=(40.0, 80.0), last=4, cg_steps=3, model=Model((1, 3, 1)), shots=4),
    memory_steps=(1, 4, 16, 64, 256),
)


def tiny_meta(cg_steps):
    return MetaCase("tiny", Sinusoid(6, 6, (3,)), Model((1, 3, 1)), 2, 40.0, cg_steps, inner_steps=5)


class TestLibrarySide:
    @pytest.mark.parametrize("case", TINY.products, ids=lambda case: case.model.label)
    def test_products_are_the_dense_hessians(self, case):
        data = case.data()
        found = {quantity: next(iter(forms.values())) for quantity, forms in library.products(case, data).items()}
        assert set(found) == {"HVP", "gradient", "linearisation"}
        hvp = case.model.loss(data["X"], data["y"]).linearize(data["x"]).hvp
        dense = np.stack([hvp(np.broadcast_to(e, data["x"].shape)) for e in np.eye(case.model.size)], axis=-1)
        expected = (dense @ data["v"][..., None])[..., 0]
        condition = np.linalg.norm(dense, axis=(-2, -1)) * np.linalg.norm(data["v"], axis=-1)
        error = np.linalg.norm(found["HVP"].host(found["HVP"].call()) - expected, axis=-1)
        assert np.all(error <= 8 * case.model.size * EPS * condition)
        gradient, linearized = (found[name].host(found[name].call()) for name in ("gradient", "linearisation"))
        assert disagreement(gradient, linearized) <= 8 * case.model.size * EPS

    def test_meta_gradient_in_d_steps_is_the_dense_solve(self):
        case = tiny_meta(cg_steps=3 * Model((1, 3, 1)).size)
        data = case.data()
        form = library.meta_gradient(case, data)["meta-gradient"]["ImplicitGradient(CG)"]
        problem = cases.bilevel_problem(case.model, data)
        A = problem.curvature(data["phi"]).dense()
        q = np.linalg.solve(A, problem.outer.gradient(data["phi"])[..., None])[..., 0]
        assert disagreement(form.host(form.call()), case.lam * q) <= 64 * EPS * np.linalg.cond(A).max()

    def test_sweep_holds_every_count_and_starts_at_theta(self):
        case, data = TINY.sweep, TINY.sweep.data()
        (form,) = library.sweep(case, data)["sweep"].values()
        found = form.host(form.call())
        cells = (len(case.inner_steps), len(case.lams), case.tasks, case.model.size)
        assert found["inner"].shape == found["unrolled"].shape == cells
        assert found["implicit"].shape == (case.cg_steps, *cells)
        assert np.array_equal(found["inner"][0], np.broadcast_to(data["theta"], cells[1:]))
        # A run of no steps is the identity: its derivative leaves the test gradient as it is.
        problem = cases.bilevel_problem(case.model, data)
        test_gradient = problem.outer.gradient(found["inner"][0])
        assert disagreement(found["unrolled"][0], test_gradient) <= 8 * case.model.size * EPS

    def test_descent_and_memory_run(self):
        case = tiny_meta(cg_steps=3)
        data = case.data()
        (form,) = library.descent(case, data)["descent"].values()
        assert disagreement(form.host(form.call()), data["phi"]) <= 8 * case.model.size * EPS
        peaks = library.memory(case, data, TINY.memory_steps)
        assert {"implicit, CG-3", "unrolled", "checkpointed"} <= set(peaks)
        assert all(tuple(each) == TINY.memory_steps for each in peaks.values())
        assert peaks["unrolled"][256] > peaks["unrolled"][1]

    def test_cases_are_the_same_whenever_they_are_made(self):
        for case in (*TINY.products, tiny_meta(3), TINY.sweep):
            first, second = case.data(), case.data()
            assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_the_sweeps_curvature_is_positive_definite_everywhere(self):
        # Otherwise conjugate gradients stop here and go on elsewhere, and there is nothing to compare.
        case = SweepCase(tasks=2, last=8)
        data = case.data()
        (form,) = library.sweep(case, data)["sweep"].values()
        problem = cases.bilevel_problem(case.model, data)
        A = problem.curvature(form.host(form.call())["inner"][0]).select((0, 0)).dense()
        assert np.linalg.eigvalsh(A)[0] > 0


class TestSeries:
    @given(st.floats(-2, 3), st.floats(1e-3, 1e3))
    def test_exponent_of_a_power(self, power, factor):
        x = tuple(float(2**i) for i in range(8))
        series = Series("growth", "time", "n", "seconds", x, tuple(factor * each**power for each in x))
        # Rounding of y moves its logarithm by eps, over a range of log 2 at least.
        assert series.exponent == pytest.approx(power, abs=1e3 * EPS * (1 + abs(power)))
        assert series.last_exponent == pytest.approx(power, abs=1e3 * EPS * (1 + abs(power)))

    def test_path_states_count_from_the_shortest_run(self):
        state = jobs.state_bytes(TINY)
        series = Series("memory", "checkpointed", "K", "bytes", (1.0, 4.0), (7.0 * state, 9.0 * state))
        assert path_states(series, TINY) == [0.0, 2.0]


class TestReport:
    def results(self):
        rows = []
        for quantity, job, case in (
            ("HVP", "products", TINY.products[0].label),
            ("gradient", "products", TINY.products[0].label),
            ("meta-gradient", "meta_gradient", "tiny"),
            ("sweep", "sweep", TINY.sweep.label),
        ):
            rows += [
                Row(
                    job,
                    case,
                    quantity,
                    LIBRARY.name,
                    "",
                    "1 BLAS thread",
                    "a|b",
                    1e-5,
                    1.0,
                    1e-3,
                    0.0,
                    Ratio(1, 1, 1),
                ),
                Row(job, case, quantity, "JAX", "", "pool", "jit", 4e-5, 1.5, 2.0, 3e-16, Ratio(0.25, 0.2, 0.3)),
                Row(job, case, quantity, "PyTorch", "not installed: torch"),
            ]
        x = (1.0, 4.0, 16.0, 64.0)
        state = jobs.state_bytes(TINY)
        series = [
            Series("memory", "implicit, CG-10", "K", "bytes", x, (5e6,) * 4, "tracemalloc"),
            Series("memory", "checkpointed", "K", "bytes", x, tuple((3 + k**0.5) * state for k in x), "tracemalloc"),
            Series("memory", "JAX", "K", "bytes", note="not installed: jax"),
            Series("growth", "meta-gradient", "tasks", "seconds", x, tuple(1e-3 * n**0.5 for n in x), "tiny"),
        ]
        return Results(rows, series)

    def report(self):
        return Report(TINY, self.results(), {"processor": "abacus"}, Startup(0.2, ("sklearn",)))

    def test_names_the_missing_peer_in_every_table(self):
        text = self.report().markdown()
        assert text.count("| PyTorch | not installed: torch |") == 4
        assert "- JAX: not installed: jax" in text

    def test_tables_are_rectangular(self):
        for block in re.findall(r"(?:^\|.*\|\n)+", self.report().markdown(), re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1

    def test_json_holds_every_row_and_no_nan(self):
        def refuse(word):
            raise AssertionError(word)

        content = json.loads(self.report().json(), parse_constant=refuse)
        assert len(content["rows"]) == 12
        assert content["rows"][2]["seconds"] is None
        assert content["series"][1]["label"] == "checkpointed"

    def test_targets_follow_from_the_numbers(self):
        found = {verdict.what: verdict for verdict in verdicts(TINY, self.results(), Startup(0.2, ()))}
        assert found["meta-gradient against the fastest peer, JAX: tiny"].value == 0.25
        assert found["sweep against JAX"].met
        assert found["`import implicit_grad`"].met
        assert found["time per task, 64 tasks over 1 task"].value == pytest.approx(1 / 8, rel=4 * EPS)
        checkpointed = found["path states of the checkpointed gradient over √K, largest"]
        assert checkpointed.value == pytest.approx(7 / 8, rel=1e3 * EPS)
        # There is no bound against JAX for two tasks: neither one task nor a batch of 25.
        assert not any(what.startswith("HVP against JAX") for what in found)

    def test_a_split_batch_does_not_hide_the_fastest_on_one_device(self):
        results = self.results()
        split = Row(
            "meta_gradient", "tiny", "meta-gradient", JAX_SPLIT.name, "", "s", "f", 2e-5, ratio=Ratio(0.5, 0.4, 0.6)
        )
        results.rows.append(split)
        found = {verdict.what: verdict.value for verdict in verdicts(TINY, results, Startup(0.2, ()))}
        assert found[f"meta-gradient against the fastest peer, {JAX_SPLIT.name}: tiny"] == 0.5
        assert found["meta-gradient against the fastest on one device, JAX: tiny"] == 0.25

    def test_a_target_without_a_number_is_missed(self):
        assert not Verdict("nothing", 1.0, math.nan).met
        assert not Verdict("too low", 0.02, -0.5, low=-0.02).met

    def test_a_table_refuses_a_ragged_line(self):
        with pytest.raises(ValueError, match="2 columns"):
            table(("a", "b"), [("only one",)])

    def test_the_library_comes_first_and_then_the_fastest(self):
        rows = self.results().find(quantity="HVP")
        slow = Row("products", rows[0].case, "HVP", "Slow", "", "s", "f", 1.0, 1.0, 1.0, 0.0, Ratio(1e-5, 1e-5, 1e-5))
        names = re.findall(r"^\| (\w+) \|", race_table([slow, rows[2], rows[1], rows[0]]), re.MULTILINE)
        assert names == ["implicit_grad", "JAX", "Slow", "PyTorch"]

    def test_ratio_text(self):
        assert ratio_text(Ratio(0.257, 0.2, 12.4)) == "**0.26** [0.20, 12]"

    def test_figures_are_drawn_from_what_is_there(self, tmp_path):
        from benchmarks.figures import draw_figures

        files = draw_figures(TINY, self.results(), tmp_path)
        assert sorted(path.name for path in files) == [
            "memory_vs_inner_steps.pdf",
            "memory_vs_inner_steps.png",
            "performance_peers.pdf",
            "performance_peers.png",
        ]
        assert draw_figures(TINY, Results(), tmp_path) == []


def test_jobs_are_lettered_and_jax_is_the_reference_peer():
    assert list(jobs.JOBS) == list("abcde")
    assert JAX in CONTENDERS
