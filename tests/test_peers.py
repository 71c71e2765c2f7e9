"""The peers suite: its problems, its bookkeeping and its page; with `make peers`, the libraries themselves."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.cases import CASES
from benchmarks.peers.libraries import LIBRARIES, candidate
from benchmarks.peers.report import cause, page
from benchmarks.peers.runs import RTOL, STRICT, USUAL, Record, Run, explain, judge
from implicit_grad import EXACT
from implicit_grad.objectives.autodiff import flatten
from implicit_grad.verify import Fault, Verdict, verify, wrong_formula

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "peers" / "peers.json"
OPTED_IN = os.environ.get("IMPLICIT_GRAD_PEERS") == "1"
opt_in = pytest.mark.skipif(not OPTED_IN, reason="runs other libraries: `make peers` sets IMPLICIT_GRAD_PEERS=1")
EPS = np.finfo(float).eps


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestCases:
    def test_the_tree_is_the_flat_vector(self, case):
        for theta, tree in zip(case.thetas, case.trees, strict=True):
            assert np.array_equal(flatten(tree)[0], theta)

    def test_the_problem_is_well_posed_and_its_lambda_is_not_one(self, case):
        estimate = EXACT(case.problem, case.thetas)
        assert all(status.ok for status in estimate.status)
        assert case.lam != 1
        assert 0 < case.step_size < 2 / case.curvature

    def test_losses_are_those_that_the_recipes_write(self, case):
        """Half the mean squared error, or the mean cross-entropy, of a tanh network, in plain NumPy."""
        params, data = case.trees[0], case.arrays
        for loss, side in ((case.problem.inner, ""), (case.problem.outer, "_test")):
            a = data[f"X{side}"]
            for i in range(len(params) // 2):
                a = (np.tanh(a) if i else a) @ params[f"{i}.W"] + params[f"{i}.b"]
            y = data[f"y{side}"]
            if case.n_classes is None:
                value = 0.5 * np.mean((a[:, 0] - y) ** 2)
            else:
                value = np.mean(np.log(np.exp(a).sum(axis=1)) - a[np.arange(len(y)), y])
            assert loss.value(case.thetas[0]) == pytest.approx(value, rel=64 * EPS)


def run(settings=USUAL, precision="float64", verdict="PASS", error=1e-9, case=CASES[0].name, recipe="r", **more):
    return Run(
        "L", recipe, case, precision, settings, verdict, error, 1e-12, *(more.get(k, "") for k in ("why", "seen"))
    )


ONE = {"knobs": [["steps", "16", "1000"]], "remark": ""}
TWO = {"knobs": [["inner", "1e-3", "1e-12"], ["linear", "1e-5", "1e-14"]], "remark": "so it is"}


class TestCause:
    def test_what_passes_has_none(self):
        assert cause(ONE, [run(precision="float32"), run(), run(STRICT)]) == []

    def test_float32_alone(self):
        assert cause(ONE, [run(precision="float32", verdict="FAIL"), run(), run(STRICT)]) == ["float32"]

    def test_the_only_knob(self):
        assert cause(ONE, [run(verdict="FAIL"), run(STRICT)]) == ["steps: 16"]

    def test_the_knob_that_fails_alone(self):
        runs = [run(verdict="FAIL"), run(STRICT), run("only inner", verdict="FAIL"), run("only linear")]
        assert cause(TWO, runs) == ["inner: 1e-3"]
        assert cause(TWO, [*runs[:2], run("only inner"), run("only linear")]) == [
            "several together: inner: 1e-3, linear: 1e-5"
        ]

    def test_no_setting(self):
        runs = [run(verdict="FAIL"), run(STRICT, verdict="FAIL", why="block-diagonal inverse")]
        assert cause(TWO, runs) == ["no setting: block-diagonal inverse"]


class TestRecord:
    def test_rows_of_a_recipe_and_a_case_replace_older_ones(self, tmp_path):
        record = Record(recipes={"L: r": ONE, "L: s": TWO})
        record = record.with_runs((run(recipe="s"),)).with_runs((run(), run(STRICT), run(case=CASES[1].name)))
        assert [(r.recipe, r.case, r.settings) for r in record.runs] == [
            ("r", CASES[0].name, USUAL),
            ("r", CASES[0].name, STRICT),
            ("r", CASES[1].name, USUAL),
            ("s", CASES[0].name, USUAL),
        ]
        record = record.with_runs((run(error=0.5, verdict="FAIL"),))
        assert [r.error for r in record.runs] == [0.5, 1e-9, 1e-9]
        record.write(tmp_path / "peers.json")
        assert Record.read(tmp_path / "peers.json") == record
        assert Record.read(tmp_path / "none.json") == Record()

    def test_the_page_counts_and_blames(self):
        record = Record(
            recipes={"L: r": TWO},
            versions={"numpy": "2"},
            missing={"higher": "ImportError: gone"},
        ).with_runs(
            (
                run(verdict="FAIL", error=0.03),
                run(STRICT),
                run("only inner", verdict="FAIL", error=0.02),
                run("only linear"),
                run(case=CASES[1].name, error=None, verdict="FAIL", seen="RAISES: no|thing"),
            )
        )
        text = page(record)
        assert "| L: r | – | **2 of 2 fail** (no number) | pass (1e-09) |" in text
        assert "inner: 1e-3 (1 of 2)" in text
        assert "no setting: RAISES: no\\|thing (1 of 2); so it is" in text
        assert "inner: **fail** 2e-02; linear: pass 1e-09" in text
        assert "Not run: higher: ImportError: gone." in text

    def test_the_committed_page_is_that_of_the_committed_runs(self):
        record = Record.read(STORED)
        assert record.runs
        assert (ROOT / "docs" / "peers.md").read_text(encoding="utf-8") == page(record)

    def test_the_readme_says_what_the_runs_say(self):
        record = Record.read(STORED)
        strict = [r for r in record.runs if r.settings == STRICT]
        usual = [r for r in record.runs if (r.settings, r.precision) == (USUAL, "float64")]
        inverse = [100 * r.error for r in usual if r.recipe.endswith("`solve_inv`")]
        assert all(r.verdict == "PASS" for r in strict)
        text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
        assert f"all {len(strict)} runs of {len({r.label for r in strict})} recipes pass" in text
        assert f"the usual ones {sum(r.verdict == 'PASS' for r in usual)} of {len(usual)} (float64, to 1e-4)" in text
        assert f"{min(inverse):.0f} to {max(inverse):.0f} % off" in text

    def test_the_committed_runs_are_complete(self):
        """Every library that was not left out has all its recipes on all cases in both precisions."""
        record = Record.read(STORED)
        done = {run.key for run in record.runs}
        for label, recipe in record.recipes.items():
            library, name = label.split(": ", 1)
            cases = {run.case for run in record.runs if run.label == label}
            assert cases, label
            for case in cases:
                wanted = [("float32", USUAL), ("float64", USUAL)] + [("float64", STRICT)] * bool(recipe["knobs"])
                for precision, settings in wanted:
                    assert (library, name, case, precision, settings) in done, (label, case)


class TestExplain:
    @pytest.mark.parametrize("name", ["train-loss right-hand side", "no adaptation"])
    def test_a_cause_is_named(self, name):
        formula, case = wrong_formula(name), CASES[0]
        report = verify(lambda problem, theta: formula(problem, theta), case.problem, case.thetas, rtol=RTOL)
        assert report.verdict is Verdict.FAIL
        assert name in explain(report)

    def test_a_pass_needs_no_cause(self):
        case = CASES[1]
        assert explain(verify(EXACT, case.problem, case.thetas, rtol=RTOL)) == ""

    def test_what_comes_from_nowhere_is_said_to(self, rng):
        case, noise = CASES[0], rng.normal(size=(6, 6))
        report = verify(lambda theta: noise @ np.cos(theta), case.problem, case.thetas, rtol=RTOL)
        assert "no formula of the catalogue" in explain(report)


@opt_in
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", LIBRARIES)
class TestLibraries:
    @pytest.fixture
    def library(self, name):
        library = LIBRARIES[name]
        if library.missing:
            pytest.skip(f"{name}: {library.missing}")
        return library

    def test_some_recipe_passes_where_nothing_is_loose(self, library):
        recipe, case = library.recipes[0], CASES[0]
        found = judge(library, recipe, case, recipe.strict, "float64", STRICT)
        if recipe.label.endswith("MAML"):
            pytest.skip("another quantity")
        assert found.verdict == "PASS", found

    def test_precision_is_what_it_says(self, library):
        recipe, case = library.recipes[-1], CASES[0]
        for precision in ("float32", "float64"):
            gradient = candidate(library, recipe, case, frozenset(), precision)(case.trees[0])
            assert {leaf.dtype.name for leaf in gradient.values()} == {precision}

    def test_a_spoilt_recipe_fails(self, library):
        recipe, case = library.recipes[0], CASES[0]
        sound = candidate(library, recipe, case, recipe.strict, "float64")

        def spoilt(theta):
            return {key: 1.001 * leaf for key, leaf in sound(theta).items()}

        report = verify(spoilt, case.problem, case.trees, rtol=RTOL)
        assert report.verdict is Verdict.FAIL
        assert Fault.RAISES not in report


@opt_in
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax", "torch"))), reason="JAX and PyTorch are not both installed"
)
def test_the_page_for_jax_and_torch_runs():
    """In a process of its own: it sets JAX to 64 bits."""
    page_ = ROOT / "docs" / "verify_jax_torch.md"
    run = subprocess.run([sys.executable, "-m", "doctest", str(page_)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
