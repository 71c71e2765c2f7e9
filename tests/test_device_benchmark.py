"""The CPU-GPU benchmark runs: proven on the double, since its numbers need a GPU."""

import json

import numpy as np
import pytest
from device_double import DOUBLE

from benchmarks import gpu
from implicit_grad.tasks import RandomRidge, Sinusoid


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(gpu, "SOURCES", {"ridge": RandomRidge(3, 4), "network": Sinusoid(3, 3, (3,))})


def test_every_cell_is_measured_and_compared(small, tmp_path, capsys):
    file = tmp_path / "rows.json"
    gpu.main(["--backend", DOUBLE.name, "--most", "16", "--repeats", "1", "--json", str(file)])
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert len(rows) == 2 * 2 * 2 * 3
    assert all(row["cpu_seconds"] > 0 < row["device_seconds"] for row in rows)
    text = capsys.readouterr().out
    assert text.count("problems | CPU s") == 8
    assert text.count("\n| 16 |") == 8


def test_batches_repeat_what_was_drawn():
    problem, theta = gpu.problem_of(RandomRidge(3, 4), 130, np.float32, DOUBLE)
    X = problem.inner.X.get()
    assert X.shape == (130, 4, 3)
    assert X.dtype == theta.dtype == np.float32
    assert np.array_equal(X[:64], X[64:128])


def test_the_crossover_is_where_the_device_stays_faster():
    times = [(1, 1, 2), (4, 3, 2), (16, 1, 2), (64, 3, 2), (256, 9, 2)]
    rows = [{"problems": n, "cpu_seconds": c, "device_seconds": d} for n, c, d in times]
    assert gpu.crossover(rows) == 64
    assert gpu.crossover(rows[:1]) is None


def test_a_wrong_device_is_not_timed(small, monkeypatch):
    monkeypatch.setattr(gpu, "METHODS", {"one": gpu.METHODS["GD-16, CG-5"]})
    from dataclasses import replace

    lying = replace(DOUBLE, to_host=lambda x: 1.001 * x.get())
    with pytest.raises(AssertionError, match="differs by"):
        list(gpu.measure(lying, (1,), 1))


def test_without_a_device_it_says_why(monkeypatch):
    from implicit_grad import BackendUnavailable

    def nothing(name):
        raise BackendUnavailable("backend: no luck")

    monkeypatch.setattr(gpu, "get_backend", nothing)
    with pytest.raises(SystemExit, match="no luck"):
        gpu.main([])
