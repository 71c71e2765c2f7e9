"""Sweeps: what is there is used, what is missing is computed, and the result does not depend on how."""

import os
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from benchmarks.engine_cells import DEADLY, LOG, systems
from implicit_grad import ArgumentError
from implicit_grad.engine import Cell, Local, Store, sweep, work
from implicit_grad.engine.cell import job
from implicit_grad.engine.provenance import source_digest
from implicit_grad.errors import CellFailed, SourceChanged, WorkerLost

TEN = systems(10, kilobytes=1)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return a function that says which cells ran since it was asked last."""
    log = tmp_path / "runs.log"
    monkeypatch.setenv(LOG, str(log))

    def since():
        found = sorted(map(int, log.read_text().split())) if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    return since


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def failing(number):
    if number % 2:
        raise ValueError(f"odd: {number}")
    return {"x": np.array(number)}


def unstorable(number):
    return {"x": np.array([object()])}


def interrupted(number):
    if number == 2:
        raise KeyboardInterrupt
    return {"x": np.array(number)}


def blas_threads(number):
    return {"threads": np.array([each["num_threads"] for each in threadpoolctl.threadpool_info()])}


def where(number):
    return {"process": np.array(os.getpid())}


def test_a_sweep_computes_everything_once(tmp_path, runs):
    results = sweep(TEN, tmp_path / "a")
    assert runs() == list(range(10))
    assert (results.tally.total, results.tally.computed, results.tally.reused) == (10, 10, 0)
    again = sweep(TEN, tmp_path / "a")
    assert runs() == []
    assert (again.tally.computed, again.tally.reused, again.tally.done) == (0, 10, 10)
    assert len(again) == 10
    for result, cell in zip(again, TEN, strict=True):
        np.testing.assert_array_equal(result["solution"], cell.function(**cell.config)["solution"])
    assert [each["bulk"].tobytes() for each in again[2:4]] == [
        results[2]["bulk"].tobytes(),
        again[3]["bulk"].tobytes(),
    ]


def test_what_is_missing_or_new_is_computed_and_nothing_else(tmp_path, runs):
    sweep(TEN, tmp_path / "a")
    Store(tmp_path / "a").path(job(TEN[4]).key).unlink()
    runs()
    results = sweep([*TEN[2:], *systems(12, kilobytes=1)], tmp_path / "a")
    assert runs() == [4, 10, 11]
    assert (results.tally.total, results.tally.computed) == (12, 3)  # equal cells count once
    assert len(results) == 8 + 12
    assert results.keys[0] == results.keys[8 + 2]


def test_without_resume_everything_is_computed_anew(tmp_path, runs):
    sweep(TEN, tmp_path / "a")
    before = tree(tmp_path / "a")
    runs()
    assert sweep(TEN, tmp_path / "a", resume=False).tally.computed == 10
    assert runs() == list(range(10))
    assert tree(tmp_path / "a") == before


def test_damaged_cells_are_set_aside_and_computed_again(tmp_path, runs):
    sweep(TEN, tmp_path / "a")
    before, store = tree(tmp_path / "a"), Store(tmp_path / "a")
    paths = [store.path(job(TEN[n]).key) for n in (1, 3, 7)]
    paths[0].write_bytes(paths[0].read_bytes()[:-7])
    data = bytearray(paths[1].read_bytes())
    data[len(data) // 2] ^= 16
    paths[1].write_bytes(data)
    paths[2].write_bytes(store.path(job(TEN[0]).key).read_bytes())
    runs()
    results = sweep(TEN, tmp_path / "a")
    assert runs() == [1, 3, 7]
    assert len(results.tally.quarantined) == 3
    after = tree(tmp_path / "a")
    assert {name: data for name, data in after.items() if name.startswith("cells")} == before
    assert sum(name.startswith("quarantine") for name in after) == 6


def test_a_failed_cell_stops_no_other_and_is_tried_again(tmp_path):
    cells = [Cell(failing, {"number": n}) for n in range(6)]
    for _ in range(2):
        with pytest.raises(
            CellFailed, match=r"3 of 6 cells failed; the first: failing\(number=1\): ValueError: odd: 1"
        ) as e:
            sweep(cells, tmp_path)
        assert "Traceback" in e.value.__notes__[0]
        assert len(sweep(cells[::2], tmp_path)) == 3
    assert sweep(cells[::2], tmp_path).tally.reused == 3


def test_a_result_that_would_be_a_pickle_fails_its_cell(tmp_path):
    with pytest.raises(CellFailed, match="pickle"):
        sweep([Cell(unstorable, {"number": 1})], tmp_path)


def test_an_interrupt_keeps_what_is_finished(tmp_path):
    cells = [Cell(interrupted, {"number": n}) for n in range(5)]
    with pytest.raises(KeyboardInterrupt):
        sweep(cells, tmp_path)
    assert len(tree(tmp_path)) == 2
    assert sweep(cells[:2], tmp_path).tally.reused == 2


def test_progress_is_told_of_each_cell(tmp_path):
    told = []
    sweep(TEN[:3], tmp_path, progress=lambda tally, label: told.append((tally.done, label)))
    assert told == [(0, ""), (1, "0"), (2, "1"), (3, "2")]
    sweep(TEN[:3], tmp_path, progress=lambda tally, label: told.append(tally.reused))
    assert told[4:] == [3]


def test_an_unwritable_folder_is_refused_before_anything_is_computed(tmp_path, runs):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot write"):
        sweep(TEN, tmp_path / "file")
    assert runs() == []


def test_other_sources_than_those_that_named_the_cell_are_refused(monkeypatch):
    named = job(TEN[0])
    monkeypatch.setattr(work, "source_digest", lambda modules: "0" * 64)
    with pytest.raises(SourceChanged, match="install the same code"):
        work.make(named)


def test_every_cell_has_one_blas_thread(tmp_path):
    with threadpoolctl.threadpool_limits(2):
        assert set(sweep([Cell(blas_threads, {"number": 1})], tmp_path)[0]["threads"]) == {1}


def test_what_another_holds_is_waited_for(tmp_path, runs):
    """The claim of somebody else ends without a result: the sweep has waited, and computes the cell itself."""
    store, done = Store(tmp_path / "a").open(), []
    with store.claim(job(TEN[5]).key):
        thread = threading.Thread(
            target=sweep,
            args=(TEN, tmp_path / "a"),
            kwargs={"progress": lambda tally, label: done.append(tally.done)},
        )
        thread.start()
        deadline = time.monotonic() + 30
        while (not done or done[-1] < 9) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert done[-1] == 9
        assert thread.is_alive()
    thread.join(timeout=30)
    assert done[-1] == 10
    assert runs() == list(range(10))


@pytest.fixture(scope="module")
def fresh_workers():
    """Workers of an earlier test, or this process, may remember sources that were edited since."""
    loky = pytest.importorskip("joblib.externals.loky", reason="the extra `sweep` is not installed")
    loky.get_reusable_executor().shutdown(wait=True)
    source_digest.cache_clear()


@pytest.mark.usefixtures("fresh_workers")
class TestLocal:
    @pytest.fixture
    def deadly(self, tmp_path, monkeypatch):
        """Return a folder of names of cells that kill their worker; workers keep the environment of their birth."""
        from joblib.externals import loky

        loky.get_reusable_executor().shutdown(wait=True)
        (tmp_path / "deadly").mkdir()
        monkeypatch.setenv(DEADLY, str(tmp_path / "deadly"))
        return tmp_path / "deadly"

    def test_processes_give_the_same_files(self, tmp_path):
        sweep(TEN, tmp_path / "a")
        assert sweep(TEN, tmp_path / "b", runner=Local(2)).tally.computed == 10
        assert tree(tmp_path / "a") == tree(tmp_path / "b")

    def test_cells_that_measure_run_alone_in_this_process(self, tmp_path):
        cells = [Cell(where, {"number": n}, alone=n == 0) for n in range(3)]
        found = [int(each["process"]) for each in sweep(cells, tmp_path, runner=Local(2))]
        assert found[0] == os.getpid()
        assert os.getpid() not in found[1:]

    def test_a_worker_that_dies_costs_its_cell_only(self, tmp_path, runs, deadly):
        (deadly / "4").write_text("")
        sweep(TEN, tmp_path / "a", runner=Local(2))
        assert not (deadly / "4").exists()
        ran = runs()
        assert ran.count(4) == 2
        assert sorted(set(ran)) == list(range(10))
        assert len(ran) <= 10 + 2  # its neighbour may have been stopped with it

    def test_workers_that_die_again_and_again_end_the_sweep(self, tmp_path, deadly, monkeypatch):
        monkeypatch.setattr("implicit_grad.engine.runners.DEATHS", 1)
        (deadly / "0").write_text("")
        with pytest.raises(WorkerLost, match="enough memory"):
            sweep(TEN[:1], tmp_path / "a", runner=Local(2))

    def test_failures_travel_back(self, tmp_path):
        with pytest.raises(CellFailed, match="odd: 1"):
            sweep([Cell(failing, {"number": n}) for n in range(2)], tmp_path, runner=Local(2))

    @pytest.mark.parametrize("jobs", [0, -2, 1.5, "2"])
    def test_bad_numbers_of_jobs_are_refused(self, jobs):
        with pytest.raises((ArgumentError, TypeError), match="jobs"):
            Local(jobs)
