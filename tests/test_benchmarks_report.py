"""What the benchmarks write: exponents, verdicts, tables, and what is said of a missing peer."""

import json
import math
import re

import numpy as np
import pytest
from benchmark_scenes import TINY
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import jobs
from benchmarks.contenders import CONTENDERS, JAX, JAX_SPLIT, LIBRARY
from benchmarks.jobs import Results, Series
from benchmarks.pairing import Ratio, Row
from benchmarks.report import Report, race_table, ratio_text, table
from benchmarks.startup import Startup
from benchmarks.targets import Verdict, path_states, verdicts

EPS = np.finfo(float).eps


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
