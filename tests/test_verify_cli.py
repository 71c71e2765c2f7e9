"""`implicit-grad verify` on the command line: its exit code is the verdict."""

import subprocess
import sys
import textwrap

import pytest

from implicit_grad import cli

MODULE = """
    import numpy as np
    from implicit_grad import EXACT, Autodiff, BilevelProblem, LeastSquares
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    problem = BilevelProblem(LeastSquares(X[:6], y[:6]), LeastSquares(X[6:], y[6:]), lam=0.7)
    theta = np.array([0.5, -1.0])
    def make():
        return problem
    def good(theta):
        return EXACT(problem, theta).gradient
    def bad(theta):
        return good(theta)[::-1].copy()
    saddle = BilevelProblem(Autodiff(lambda p: p[0] ** 2 - p[1] ** 2), Autodiff(lambda p: p[0]), lam=0.5)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    name = f"verified_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["verify", *arguments])
    return exit_.value.code


def test_the_exit_code_is_the_verdict(folder, tmp_path, capsys):
    assert run(f"{folder}:good", "--problem", f"{folder}:make", "--theta", f"{folder}:theta", "--html", "r.html") == 0
    assert capsys.readouterr().out.startswith("PASS")
    assert "PASS" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert run(f"{folder}:bad", "--problem", f"{folder}:problem", "--theta", f"{folder}:theta") == 1
    assert capsys.readouterr().out.startswith("FAIL")
    assert run(f"{folder}:good", "--problem", f"{folder}:saddle", "--theta", f"{folder}:theta") == 2
    assert capsys.readouterr().out.startswith("INCONCLUSIVE")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{m}:gone", "--problem", "{m}:problem"], "has no 'gone'"),
        (["{m}", "--problem", "{m}:problem"], "expected module:name"),
        (["no_such_module:f", "--problem", "{m}:problem"], "cannot be imported"),
        (["{m}:good", "--problem", "{m}:theta"], "expected a BilevelProblem"),
        (["--problem", "{m}:problem"], "--command"),
        (["{m}:good", "--problem", "{m}:problem", "--rtol", "7"], "rtol"),
    ],
)
def test_bad_usage_is_told_from_a_verdict(folder, arguments, message, capsys):
    assert run(*(each.format(m=folder) for each in arguments)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


def test_an_exit_of_the_users_code_is_no_pass(folder, tmp_path, capsys):
    (tmp_path / f"{folder}.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    assert run(f"{folder}:good", "--problem", f"{folder}:problem") == 2
    assert "SystemExit" in capsys.readouterr().err


def test_any_program_can_be_verified(folder, tmp_path):
    program = """
        import sys, numpy as np
        f = np.load(sys.argv[1])
        X, y, theta, lam = f["inner_X"], f["inner_y"], f["theta"], f["lam"]
        A = X.T @ X / len(y) + lam * np.eye(theta.size)
        phi = np.linalg.solve(A, X.T @ y / len(y) + lam * theta)
        b = f["outer_X"].T @ (f["outer_X"] @ phi - f["outer_y"]) / len(f["outer_y"])
        np.savez(sys.argv[2], gradient=lam * np.linalg.solve(A, b))
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program), encoding="utf-8")
    command = f"{sys.executable} program.py"
    assert run("--command", command, "--problem", f"{folder}:problem", "--theta", f"{folder}:theta") == 0


def test_the_installed_command_knows_verify():
    shown = subprocess.run(
        [sys.executable, "-m", "implicit_grad.cli", "verify", "--help"], capture_output=True, text=True, check=True
    )
    assert "--problem" in shown.stdout
