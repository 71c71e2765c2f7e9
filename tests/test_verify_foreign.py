"""Candidates from other worlds: PyTorch and JAX in this process, any language as a program."""

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from implicit_grad import EXACT, BilevelProblem, LeastSquares, errors
from implicit_grad.objectives.autodiff import flatten
from implicit_grad.verify import Fault, Verdict, command_candidate, jax_candidate, torch_candidate, verify
from implicit_grad.verify._foreign import ForeignGradient, received

EPS = np.finfo(float).eps
TREE = {"w": np.array([[1.0, -2.0], [0.5, 3.0]]), "b": np.array(0.25), "a": [np.array([4.0, 5.0]), np.array([-1.0])]}


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed; it is no dependency, not even for tests")


@pytest.fixture
def torch():
    return library("torch")


@pytest.fixture
def jax():
    """JAX as it is where nobody has set anything: in 32 bits."""
    jax = library("jax")
    assert not jax.config.jax_enable_x64
    return jax


def ridge(rng, lam):
    X, y = rng.normal(size=(24, 4)), rng.normal(size=24)
    return BilevelProblem(LeastSquares(X[:12], y[:12]), LeastSquares(X[12:], y[12:]), lam)


class Proxy:
    """Something that only speaks DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **keywords):
        return self._array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def native(f, like=None):
    """A foreign candidate whose library is NumPy itself: the rules of trees need no other."""
    return ForeignGradient(f, "numpy", lambda array: array, like)


class TestTrees:
    """Structure and order, with no library at all."""

    def test_a_flat_theta_is_unflattened_in_the_order_of_the_library(self):
        vector, _ = flatten(TREE)
        seen = []
        candidate = native(lambda tree: (seen.append(tree), {k: tree[k] for k in reversed(list(tree))})[1], TREE)
        assert np.array_equal(candidate(vector), vector)
        assert set(seen[0]) == set(TREE)
        assert np.array_equal(seen[0]["w"], TREE["w"])
        assert isinstance(seen[0]["a"], list)

    def test_a_tree_comes_back_as_a_tree(self):
        gradient = native(lambda tree: {"w": 2 * tree["w"], "b": 3 * tree["b"], "a": tuple(tree["a"])})(TREE)
        assert np.array_equal(gradient["w"], 2 * TREE["w"])
        assert gradient["b"] == 0.75
        assert isinstance(gradient["a"], list)

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ({"w": 1.0}, r"gradient: expected the keys \['a', 'b', 'w'\], got \['w'\]"),
            ((1, 2, 3), "gradient: theta is a dict, got tuple"),
            ({**TREE, "a": [np.ones(2)]}, r"gradient\['a'\]: expected 2 arrays, as theta has, got 1"),
            ({**TREE, "w": TREE["w"].ravel()}, r"gradient\['w'\]: expected shape \(2, 2\), as theta has, got \(4,\)"),
            ({**TREE, "b": None}, r"gradient\['b'\]: got None: theta is not reached"),
            ({**TREE, "b": "x"}, r"gradient\['b'\]: expected real numbers"),
            ({**TREE, "b": 1j}, r"gradient\['b'\]: expected real numbers .*complex"),
        ],
    )
    def test_another_structure_is_named(self, result, message):
        with pytest.raises(errors.CandidateError, match=message):
            native(lambda tree: result)(TREE)

    def test_the_coarsest_leaf_says_what_the_whole_is_worth(self):
        vector, _ = flatten(TREE)
        candidate = native(lambda tree: {**tree, "b": np.float32(tree["b"])}, TREE)
        assert candidate(vector).dtype == np.float32

    def test_nan_and_other_shapes_are_left_to_the_judge(self):
        assert np.isnan(native(lambda x: x * np.nan)(np.ones(3))).all()
        assert native(lambda x: x[:2])(np.ones(3)).shape == (2,)

    def test_a_batch_goes_through(self, rng):
        theta = rng.normal(size=(2, 5, 3))
        assert np.array_equal(native(lambda x: 2 * x)(theta), 2 * theta)

    def test_writing_into_theta_is_named_and_hurts_nobody(self):
        def wicked(theta):
            theta += 1
            return theta

        theta = np.zeros(3)
        with pytest.raises(errors.CandidateError, match="theta: the candidate writes into its argument"):
            native(wicked)(theta)
        assert not theta.any()

    def test_the_result_is_nobody_elses(self):
        kept = np.ones(3)
        candidate = native(lambda theta: kept)
        candidate(np.zeros(3))[0] = 7
        assert kept[0] == 1

    def test_arguments_are_checked(self):
        with pytest.raises(errors.ArgumentTypeError, match="like: expected a dict"):
            native(lambda t: t, np.ones(3))
        with pytest.raises(errors.ArgumentTypeError, match="f: expected"):
            native(3)
        with pytest.raises(errors.ArgumentError, match="`like` holds 8 numbers"):
            native(lambda t: t, TREE)(np.ones(3))


class TestReceived:
    def test_dlpack_alone_is_enough(self, rng):
        array = rng.normal(size=(3, 4))
        assert np.array_equal(received("g", Proxy(array.T)), array.T)

    @pytest.mark.parametrize("value", [None, "no", object(), np.array([1j]), np.array([True]), {"w": 1.0}])
    def test_what_is_no_array_is_named(self, value):
        with pytest.raises(errors.CandidateError, match=r"^g: "):
            received("g", value)


class TestTorch:
    def test_the_answer_is_the_librarys(self, torch, rng):
        problem = ridge(rng, 0.3)
        X, y = torch.from_numpy(problem.inner.X), torch.from_numpy(problem.inner.y)
        Xt, yt = torch.from_numpy(problem.outer.X), torch.from_numpy(problem.outer.y)

        def meta_loss(theta):
            A = X.T @ X / 12 + 0.3 * torch.eye(4, dtype=X.dtype)
            phi = torch.linalg.solve(A, X.T @ y / 12 + 0.3 * theta)
            return 0.5 * ((Xt @ phi - yt) ** 2).mean()

        theta = rng.normal(size=4)
        exact = EXACT(problem, theta).gradient
        leaf = torch_candidate(lambda theta: torch.autograd.grad(meta_loss(theta), theta)[0])
        functional = torch_candidate(torch.func.grad(meta_loss), requires_grad=False)
        allowed = 64 * EPS * np.linalg.cond(np.linalg.qr(problem.inner.X)[1]) ** 2 * np.linalg.norm(exact)
        for candidate in (leaf, functional):
            assert np.linalg.norm(candidate(theta) - exact) <= allowed
        assert torch_candidate(lambda t: torch.func.grad(meta_loss)(t))(theta).dtype == np.float64

    def test_a_function_of_problem_and_theta_is_asked_at_any_lambda(self, torch, rng):
        problem = ridge(rng, 0.3)
        candidate = torch_candidate(lambda problem, theta: float(problem.lam) * theta)
        theta = rng.normal(size=4)
        assert np.array_equal(candidate(problem, theta), 0.3 * theta)
        assert np.array_equal(candidate(problem.with_lam(7.0), theta), 7 * theta)
        assert "lambda" in repr(candidate)
        assert torch_candidate(lambda theta, steps=3: steps * theta)(theta)[0] == 3 * theta[0]

    def test_read_only_and_strided_theta(self, torch, rng):
        theta = rng.normal(size=(4, 6))[:, ::-2]
        theta.flags.writeable = False
        assert np.array_equal(torch_candidate(lambda t: 2 * t)(theta), 2 * theta)

    def test_outputs_may_require_gradients_and_have_any_strides(self, torch, rng):
        theta = rng.normal(size=(3, 4))
        transposed = torch_candidate(lambda t: (2 * t).T)
        assert np.array_equal(transposed(theta), 2 * theta.T)
        negated = torch_candidate(lambda t: torch._neg_view(t.detach()))
        assert np.array_equal(negated(theta), -theta)
        expanded = torch_candidate(lambda t: t.sum().expand(3, 4))
        assert expanded(theta).flags.writeable
        parameter = torch_candidate(lambda t: torch.nn.Parameter(t.detach()))
        assert np.array_equal(parameter(theta), theta)

    def test_precision_is_kept_and_asked_for(self, torch):
        theta = np.array([1.0, 1.0 + 1e-12])
        assert torch_candidate(lambda t: t)(theta)[1] == theta[1]
        single = torch_candidate(lambda t: t, dtype=torch.float32)(theta)
        assert single.dtype == np.float32
        assert torch_candidate(lambda t: t, dtype="float32")(theta).dtype == np.float32
        for wrong in ("single", np.float32, torch.int64, "tensor"):
            with pytest.raises(errors.ArgumentTypeError, match=r"dtype: expected torch\.float64"):
                torch_candidate(lambda t: t, dtype=wrong)

    def test_half_precision_is_refused(self, torch):
        for half in (torch.float16, torch.bfloat16):
            with pytest.raises(errors.CandidateError, match="gradient: expected real numbers"):
                torch_candidate(lambda t, half=half: t.to(half))(np.ones(2))

    def test_trees_of_tensors(self, torch):
        vector, _ = flatten(TREE)
        seen = {}

        def gradient(tree):
            seen.update(tree)
            loss = (tree["w"] ** 2).sum() + tree["b"] * 3 + sum((each**3).sum() for each in tree["a"])
            w, b, *a = torch.autograd.grad(loss, [tree["w"], tree["b"], *tree["a"]])
            return {"w": w, "b": b, "a": a}

        wanted = np.concatenate([3 * TREE["a"][0] ** 2, 3 * TREE["a"][1] ** 2, [3.0], 2 * TREE["w"].ravel()])
        assert np.allclose(torch_candidate(gradient, like=TREE)(vector), wanted, rtol=8 * EPS, atol=0)
        assert seen["w"].shape == (2, 2)
        assert seen["b"].requires_grad
        assert seen["b"].shape == ()

        def unused(t):
            x, y = torch.autograd.grad(t["x"].sum(), [t["x"], t["y"]], allow_unused=True)
            return {"x": x, "y": y}

        with pytest.raises(errors.CandidateError, match=r"gradient\['y'\]: got None"):
            torch_candidate(unused)({"x": np.ones(2), "y": np.ones(2)})

    def test_writing_into_theta_is_named(self, torch):
        def wicked(theta):
            with torch.no_grad():
                theta -= 0.1
            return theta

        with pytest.raises(errors.CandidateError, match="theta: the candidate writes into its argument"):
            torch_candidate(wicked)(np.zeros(3))


class TestJax:
    def test_without_64_bits_the_answer_is_single_and_says_so(self, jax, rng):
        theta = rng.normal(size=5)
        assert jax_candidate(jax.jit(lambda t: 2 * t))(theta).dtype == np.float32
        with pytest.raises(errors.ArgumentTypeError, match="jax_enable_x64"):
            jax_candidate(lambda t: t, dtype=np.float64)(theta)
        with pytest.raises(errors.ArgumentTypeError, match="dtype: expected float64 or float32"):
            jax_candidate(lambda t: t, dtype=int)

    def test_with_64_bits_the_answer_is_the_librarys(self, jax, rng):
        problem = ridge(rng, 2.5)
        theta = rng.normal(size=4)
        theta.flags.writeable = False
        with jax.enable_x64(True):
            jnp = jax.numpy

            def meta_loss(theta):
                X, y, Xt, yt = problem.inner.X, problem.inner.y, problem.outer.X, problem.outer.y
                phi = jnp.linalg.solve(X.T @ X / 12 + 2.5 * jnp.eye(4), X.T @ y / 12 + 2.5 * theta)
                return 0.5 * jnp.mean((Xt @ phi - yt) ** 2)

            candidate = jax_candidate(jax.jit(jax.grad(meta_loss)))
            gradient = candidate(theta)
            single = jax_candidate(jax.grad(meta_loss), dtype="float32")(theta)
            reached = jax_candidate(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree), like=TREE)
            vector, _ = flatten(TREE)
            assert np.array_equal(reached(vector), 2 * vector)
        exact = EXACT(problem, theta).gradient
        allowed = 64 * EPS * np.linalg.cond(problem.inner.X) ** 2 * np.linalg.norm(exact)
        assert np.linalg.norm(gradient - exact) <= allowed
        assert gradient.flags.writeable
        assert gradient.dtype == np.float64
        assert single.dtype == np.float32

    def test_verify_judges_float32_as_float32(self, jax, rng):
        problem, jnp = ridge(rng, 0.6), jax.numpy
        X, y = problem.inner.X, problem.inner.y
        Xt, yt = problem.outer.X, problem.outer.y

        def meta_gradient(theta, scale=1.0):
            A = X.T @ X / 12 + 0.6 * jnp.eye(4)
            phi = jnp.linalg.solve(A, X.T @ y / 12 + 0.6 * theta)
            return scale * 0.6 * jnp.linalg.solve(A, Xt.T @ (Xt @ phi - yt) / 12)

        theta = rng.normal(size=4)
        right = verify(jax_candidate(meta_gradient), problem, theta)
        assert right.verdict is Verdict.PASS
        assert Fault.COARSE in right
        assert right.error > 1e-9
        off = verify(jax_candidate(lambda theta: meta_gradient(theta, 1.001)), problem, theta)
        assert off.verdict is Verdict.FAIL

    def test_traced_values_cannot_escape(self, jax):
        leaked = []

        def leaky(theta):
            jax.jit(lambda t: leaked.append(t))(theta)
            return leaked[0]

        with pytest.raises(errors.CandidateError, match="gradient: expected real numbers"):
            jax_candidate(leaky)(np.ones(2))


@pytest.mark.parametrize(
    ("make", "name", "hint"), [(torch_candidate, "torch", "PyTorch"), (jax_candidate, "jax", "JAX")]
)
def test_a_missing_library_is_named(make, name, hint, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.MissingDependency, match=f"needs {hint} .*pip install {name}"):
        make(lambda theta: theta)


def test_the_room_loads_neither_library():
    code = "import sys, implicit_grad.verify; print({'torch', 'jax'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "set()"


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
