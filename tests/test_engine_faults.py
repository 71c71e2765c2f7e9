"""Kills, full disks, damage and rivals, a few of each; `make faults` does it for minutes."""

import os

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, file limits and mounts of POSIX")
if os.name == "posix":
    from benchmarks.faults import __main__ as command
    from benchmarks.faults import damage, disks, processes
    from benchmarks.faults.bench import Bench, LostError

CELLS = 16


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"), CELLS)


def test_kills_of_a_single_process(bench, rng):
    assert processes.kills(bench, rng, 3, jobs=1).times >= 3


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_kill_of_a_sweep_with_workers(bench, rng, whole_group):
    """Workers left alone end too: else the output that they inherited would not."""
    pytest.importorskip("joblib", reason="the extra `sweep` is not installed")
    assert processes.kills(bench, rng, 1, jobs=2, whole_group=whole_group).times >= 1


def test_interrupts_exit_with_130(bench, rng):
    assert processes.interrupts(bench, rng, 1).times == 1


def test_two_sweeps_on_one_folder_compute_each_cell_once(bench):
    assert f"{CELLS} runs" in processes.concurrent(bench, 1, writers=2).detail


def test_damaged_files_are_found_and_computed_again(bench, rng):
    assert "6 quarantined" in damage.damage(bench, rng, 6).detail


def test_a_disk_that_is_full(bench):
    """A real one where this user may mount it; a limit on the size of files is tested everywhere."""
    assert disks.full_disk(bench).times


def test_files_that_may_not_grow(bench):
    assert disks.limited_files(bench).times == 1


def test_what_is_lost_damaged_or_left_behind_is_seen(bench):
    """These tests can fail."""
    bench.clear()
    bench.finish()
    first, second, third = sorted((bench.folder / "cells").glob("*/*.npz"))[:3]
    (first.parent / ".half-written.npz").write_bytes(b"half")
    with pytest.raises(LostError, match="left behind"):
        bench.compare()
    second.write_bytes(damage.spoil(second.read_bytes(), np.random.default_rng(9), 0, b""))
    with pytest.raises(LostError, match="checksum"):
        bench.check_promises([])
    third.unlink()
    with pytest.raises(LostError, match="differs"):
        bench.compare()
    with pytest.raises(LostError, match="reported done and is lost"):
        bench.check_promises([str(bench.keys.index(third.stem))])
    bench.clear()


def test_the_command_reports(monkeypatch, capsys):
    monkeypatch.setattr(command, "inject", lambda home, seed, quick, say: say("counts"))
    assert command.main(["--quick"]) == 0
    assert "nothing lost" in capsys.readouterr().out

    def losing(home, seed, quick, say):
        raise LostError("cell 3")

    monkeypatch.setattr(command, "inject", losing)
    assert command.main([]) == 1
    assert "LOST: cell 3" in capsys.readouterr().out
