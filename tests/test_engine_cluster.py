"""The same sweep on the workers of a real Dask cluster: same bits, also when one of them is killed."""

import os
import signal
import sys

import numpy as np
import pytest

from analysis import panels
from analysis.cells import cells_of
from analysis.figure import figure
from analysis.panels import Panel
from benchmarks.engine_cells import system, systems
from implicit_grad import ArgumentError
from implicit_grad.engine import Cell, Cluster, Store, sweep
from implicit_grad.engine.cell import job
from implicit_grad.engine.provenance import source_digest
from implicit_grad.errors import CellFailed, ClusterError, SourceChanged
from implicit_grad.tasks import RandomRidge

dask = pytest.importorskip("dask", reason="the extra `dask` is not installed")
distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")

pytestmark = pytest.mark.xdist_group("cluster")

CELLS = systems(40, kilobytes=20, seconds=0.02)


def workers_of(cluster):
    """With the patience that a busy machine asks for: a killed worker may take long to come back."""
    return Cluster(cluster.scheduler_address, timeout=120)


def failing(number):
    raise ValueError(f"cell {number}")


def own_process(number):
    return {"process": np.array(os.getpid())}


def deadly(number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread each, on loopback."""  # no dashboard_address would take port 8787
    source_digest.cache_clear()  # a source may have been edited since this process read it; workers read it now
    # A result whose worker was just killed is asked for until this time is over; Dask's own is half a minute.
    quick = dask.config.set({"distributed.comm.timeouts.connect": "3s"})
    with (
        quick,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as found,
    ):
        found.wait_for_workers(2)
        yield found


@pytest.fixture(scope="module")
def serial(tmp_path_factory, cluster):
    folder = tmp_path_factory.mktemp("serial")
    sweep(CELLS, folder)
    return tree(folder)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_workers_give_the_same_bits(cluster, serial, tmp_path):
    results = sweep(CELLS, tmp_path, runner=workers_of(cluster))
    assert results.tally.computed == len(CELLS)
    assert tree(tmp_path) == serial
    assert sweep(CELLS, tmp_path, runner=workers_of(cluster)).tally.reused == len(CELLS)


def test_the_cells_run_on_the_workers(cluster, tmp_path):
    cells = [Cell(own_process, {"number": n}) for n in range(8)]
    processes = {int(each["process"]) for each in sweep(cells, tmp_path, runner=workers_of(cluster))}
    assert processes <= {each["pid"] for each in workers(cluster)}
    alone = sweep([Cell(own_process, {"number": 99}, alone=True)], tmp_path, runner=workers_of(cluster))
    assert int(alone[0]["process"]) == os.getpid()  # what measures stays here


def workers(cluster):
    """What the scheduler knows of its workers."""
    with distributed.Client(cluster, set_as_default=False) as client:
        return [{"pid": pid, "address": address} for address, pid in client.run(os.getpid).items()]


def test_a_worker_killed_in_the_middle_changes_nothing(cluster, serial, tmp_path):
    victim = workers(cluster)[0]["pid"]
    killed = []

    def kill(tally, label):
        if tally.computed == 6 and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    results = sweep(CELLS, tmp_path, runner=workers_of(cluster), progress=kill)
    assert killed
    assert results.tally.computed == len(CELLS)
    assert tree(tmp_path) == serial
    with pytest.raises(ProcessLookupError):
        os.kill(victim, 0)


def test_a_panel_of_a_figure_is_the_same_there(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(panels, "PANELS", {"ridge": Panel("ridge", RandomRidge(dim=4, train_samples=5), 0.1, 2, 32)})
    cell = cells_of(figure("super_efficiency"), quick=True, seed=3, backend="numpy")["ridge"]
    here = sweep([cell], tmp_path / "here")
    there = sweep([cell], tmp_path / "there", runner=workers_of(cluster))
    assert (here.tally.computed, there.tally.computed) == (1, 1)
    assert there[0].drop_attrs().identical(here[0].drop_attrs())  # attributes say how long it took


def test_damaged_and_missing_cells_are_made_good(cluster, serial, tmp_path):
    sweep(CELLS[:6], tmp_path)
    store = Store(tmp_path)
    store.path(job(CELLS[2]).key).write_bytes(b"damage")
    store.path(job(CELLS[4]).key).unlink()
    results = sweep(CELLS[:6], tmp_path, runner=workers_of(cluster))
    assert (results.tally.computed, results.tally.reused, len(results.tally.quarantined)) == (2, 4, 1)
    made = tree(tmp_path)
    assert {name: made[name] for name in made if name.startswith("cells")}.items() <= serial.items()


def test_a_cell_that_fails_there_is_an_error_here(cluster, tmp_path):
    with pytest.raises(CellFailed, match=r"2 of 2 cells failed.*ValueError: cell"):
        sweep([Cell(failing, {"number": n}) for n in range(2)], tmp_path, runner=workers_of(cluster))


def test_workers_with_other_sources_are_refused(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("implicit_grad.engine.cell.source_digest", lambda modules: "0" * 64)
    with pytest.raises(SourceChanged, match="same code on every worker"):
        sweep(CELLS[:2], tmp_path, runner=workers_of(cluster))


def test_functions_of_the_script_itself_are_refused(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "mine", system, raising=False)
    monkeypatch.setattr(system, "__module__", "__main__")
    monkeypatch.setattr(system, "__qualname__", "mine")
    with pytest.raises(ArgumentError, match="in a module that is installed there"):
        sweep([Cell(system, {"number": 1})], tmp_path, runner=workers_of(cluster))


def test_where_no_scheduler_answers(tmp_path):
    with pytest.raises(ClusterError, match=r"no scheduler answers at 'tcp://127.0.0.1:9'"):
        sweep(CELLS[:2], tmp_path, runner=Cluster("tcp://127.0.0.1:9", timeout=1))
    with pytest.raises(ClusterError, match="nonsense"):
        sweep(CELLS[:2], tmp_path, runner=Cluster("nonsense://", timeout=1))


def test_a_complete_sweep_needs_no_scheduler(tmp_path):
    sweep(CELLS[:2], tmp_path)
    assert sweep(CELLS[:2], tmp_path, runner=Cluster("tcp://127.0.0.1:9", timeout=1)).tally.reused == 2


def test_a_cell_that_kills_every_worker_is_given_up(cluster, tmp_path):
    """Near the end: it costs the cluster a few workers."""
    with pytest.raises(CellFailed, match="its workers died"):
        sweep([Cell(deadly, {"number": 1})], tmp_path, runner=workers_of(cluster))


def test_when_all_workers_go_away_the_sweep_ends_and_what_is_finished_is_kept(cluster, serial, tmp_path):
    """Last: it leaves no cluster."""

    def send_home(tally, label):
        if tally.computed == 3:
            cluster.scale(0)

    cluster.wait_for_workers(1, timeout=120)  # the test before has killed a few
    with pytest.raises(ClusterError, match="no worker is left"):
        sweep(CELLS, tmp_path, runner=Cluster(cluster.scheduler_address, timeout=4), progress=send_home)
    made = tree(tmp_path)
    assert len(made) >= 3
    assert made.items() <= serial.items()
    with pytest.raises(ClusterError, match="has no worker"):
        sweep(CELLS, tmp_path, runner=Cluster(cluster.scheduler_address, timeout=1))
