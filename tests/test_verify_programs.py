"""Candidates in any language: a program that reads one file and writes another."""

import os
import re
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from foreign_scenes import EPS, TREE, ridge

from implicit_grad import EXACT, errors
from implicit_grad.objectives.autodiff import flatten
from implicit_grad.verify import Fault, Verdict, command_candidate, verify


def python(code):
    """A program in Python; `given` and `path` are its two files."""
    head = "import sys, numpy as np\ngiven, path = np.load(sys.argv[1]), sys.argv[2]\n"
    return [sys.executable, "-c", head + textwrap.dedent(code)]


class TestCommand:
    def test_a_program_gets_the_problem_and_gives_the_gradient(self, rng):
        problem = ridge(rng, 0.7)
        program = python("""
            X, y, Xt, yt, lam = (given[k] for k in ("inner_X", "inner_y", "outer_X", "outer_y", "lam"))
            A = X.T @ X / len(y) + lam * np.eye(X.shape[1])
            phi = np.linalg.solve(A, X.T @ y / len(y) + lam * given["theta"])
            np.savez(path, gradient=given["scale"] * lam * np.linalg.solve(A, Xt.T @ (Xt @ phi - yt) / len(yt)))
        """)
        theta = rng.normal(size=4)
        exact = EXACT(problem, theta).gradient
        found = command_candidate(program, problem, inputs={"scale": 2})(theta)
        allowed = 64 * EPS * np.linalg.cond(problem.inner.X) ** 2 * np.linalg.norm(exact)
        assert np.linalg.norm(found / 2 - exact) <= allowed
        again = command_candidate(program, inputs={"scale": 2})(problem, theta)
        assert np.array_equal(again, found)

    def test_the_files_hold_what_the_documentation_says(self, rng):
        problem = ridge(rng, np.array([0.7, 2.0]))
        program = python("np.savez(path, gradient=[len(given.files)], also=1)")
        keys = len({"theta", "lam", "inner_X", "inner_y", "outer_X", "outer_y", "more"})
        assert command_candidate(program, problem, inputs={"more": [1, 2]})(np.ones(4)) == [keys]
        assert command_candidate(program)(None, np.ones(4)) == [1]

    def test_trees_are_written_as_vectors(self):
        program = python("np.savez(path, gradient=np.arange(len(given['theta'])))")
        gradient = command_candidate(program)(None, TREE)
        assert np.array_equal(flatten(gradient)[0], np.arange(8))
        assert np.array_equal(gradient["b"], 3)
        with pytest.raises(errors.CommandOutputError, match=r"expected shape \(8,\), got \(2,\)"):
            command_candidate(python("np.savez(path, gradient=np.ones(2))"))(None, TREE)

    def test_single_precision_stays_single(self):
        program = python("np.savez(path, gradient=given['theta'].astype('float32'))")
        assert command_candidate(program)(None, np.ones((2, 3))).dtype == np.float32

    @pytest.mark.parametrize(
        ("code", "error", "message"),
        [
            ("sys.exit('out of cheese')", errors.CommandError, "exit code 1; stderr ends with:\nout of cheese"),
            ("import os; os._exit(3)", errors.CommandError, "exit code 3; nothing on stderr"),
            ("print('x' * 9000 + 'end', file=sys.stderr); sys.exit(2)", errors.CommandError, "with:\nx{1997}end$"),
            ("", errors.CommandOutputError, "wrote no file to its last argument"),
            ("print('hm', file=sys.stderr)", errors.CommandOutputError, "wrote no file .*with:\nhm"),
            ("np.savez(path, grad=1.0)", errors.CommandOutputError, r"holds \['grad'\], not `gradient`"),
            ("np.save(open(path, 'wb'), np.ones(2))", errors.CommandOutputError, r"wrote a \.npy file"),
            ("open(path, 'w').write('1 2')", errors.CommandOutputError, r"no \.npz file"),
            ("open(path, 'w')", errors.CommandOutputError, r"no \.npz file"),
            ("np.savez(path, gradient=np.array([None]))", errors.CommandOutputError, "cannot be used .*allow_pickle"),
            ("np.savez(path, gradient=np.array([1j]))", errors.CommandOutputError, "cannot be used .*complex"),
        ],
    )
    def test_failures_are_typed_and_show_the_end_of_stderr(self, code, error, message):
        with pytest.raises(error) as caught:
            command_candidate(python(code))(None, np.ones(2))
        assert type(caught.value) is error
        assert re.search(message, str(caught.value), re.DOTALL)

    def test_a_damaged_archive_is_named(self):
        program = python("""
            np.savez_compressed(path, gradient=np.arange(1000.0) ** 0.5)
            data = bytearray(open(path, "rb").read())
            data[200:240] = bytes(40)
            open(path, "wb").write(data)
        """)
        with pytest.raises(errors.CommandOutputError, match="cannot be used"):
            command_candidate(program)(None, np.ones(2))

    def test_a_program_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(errors.CommandError, match="cannot be started"):
            command_candidate([str(tmp_path / "no_such_program")])(None, np.ones(2))

    @pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
    def test_a_timeout_stops_the_program_and_its_children(self, tmp_path):
        note = tmp_path / "child"
        program = python(f"""
            import subprocess, time
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            open({str(note)!r}, "w").write(str(child.pid))
            print("still at it", file=sys.stderr, flush=True)
            time.sleep(60)
        """)
        before = time.monotonic()
        with pytest.raises(errors.CommandTimeout, match=r"did not end in 1\.5 s[^\0]*still at it") as caught:
            command_candidate(program, timeout=1.5)(None, np.ones(2))
        assert isinstance(caught.value, TimeoutError)
        assert time.monotonic() - before < 30
        child = int(note.read_text())
        deadline = time.monotonic() + 10
        while not _gone(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _gone(child)

    def test_verify_reports_what_the_program_said(self, rng):
        report = verify(command_candidate(python("sys.exit('out of cheese')")), ridge(rng, 0.3), np.ones(4))
        assert report.verdict is Verdict.FAIL
        assert Fault.RAISES in report
        assert "out of cheese" in str(report)

    def test_nothing_is_left_behind(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        command_candidate(python("np.savez(path, gradient=1.0)"))(None, np.ones(()))
        with pytest.raises(errors.CommandError):
            command_candidate(python("sys.exit(1)"))(None, np.ones(2))
        assert not list(tmp_path.iterdir())

    def test_arguments_are_checked(self, rng):
        for argv in ("julia meta.jl", [], [1], None):
            with pytest.raises(errors.ArgumentTypeError, match="argv: expected a list"):
                command_candidate(argv)
        with pytest.raises(errors.ArgumentError, match="timeout"):
            command_candidate(["x"], timeout=0.0)
        with pytest.raises(errors.ArgumentError, match="inputs: the name 'theta' is taken"):
            command_candidate(["x"], inputs={"theta": 1.0})
        with pytest.raises(errors.ArgumentError, match="inputs: the name 'lam' is taken"):
            command_candidate(["x"], inputs={"lam": 1.0})(ridge(rng, 0.3), np.ones(4))
        with pytest.raises(errors.ArgumentTypeError, match="expected numbers"):
            command_candidate(["x"], inputs={"name": "ridge"})


def _gone(pid):
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path("/proc/self").exists()
