"""Three verdicts, what is seen on the way, and the pages that say so."""

import subprocess
import sys
import textwrap

import autograd.numpy as anp
import numpy as np
import pytest

from benchmarks.diagnosis import METHODS, Right, right_outcome, right_trials
from implicit_grad import (
    EXACT,
    SGD,
    Adam,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    DiagonalQuadratic,
    Fault,
    ImplicitGradient,
    LeastSquares,
    LogCosh,
    MetaGradient,
    MultilayerPerceptron,
    Newton,
    RegularizedProblem,
    Report,
    Verdict,
    assert_meta_gradient,
    cli,
    verify,
)

QUICK = ("unrolled limit", "finite difference")
THETA = np.array([0.3, -1.2, 0.8])


@pytest.fixture
def problem(rng):
    X, y = rng.standard_normal((16, 3)), rng.standard_normal(16)
    return BilevelProblem(LeastSquares(X[:8], y[:8]), LeastSquares(X[8:], y[8:]), 0.6)


def look(candidate, problem, thetas=THETA, **settings):
    return verify(candidate, problem, thetas, **{"without": QUICK, "diagnosis": False, **settings})


def test_a_right_gradient_passes_with_numbers(problem):
    report = verify(EXACT, problem)
    assert report.verdict is Verdict.PASS
    assert len(report.points) == 3
    assert report.error <= 1e-13
    assert report.resolution <= 1e-15
    for point in report.points:
        assert point.cosine == pytest.approx(1)
        assert point.norm_ratio == pytest.approx(1)
        assert {"exact", "contrastive", "finite difference", "unrolled limit"} <= set(point.right.agreement.oracles)
        assert bool(point.right.agreement.agrees)


def test_errors_are_measured_along_entries_and_eigenvectors(problem):
    off = np.array([0.0, 1e-3, 0.0])
    report = look(lambda theta: EXACT(problem, theta).gradient + off, problem)
    (point,) = report.points
    size = np.linalg.norm(EXACT(problem, THETA).gradient)
    assert report.verdict is Verdict.FAIL
    assert point.error == pytest.approx(1e-3, rel=1e-9)
    assert point.coordinates == pytest.approx(off / size, rel=1e-9, abs=1e-14)
    assert np.linalg.norm(point.directions) == pytest.approx(1e-3 / size, rel=1e-9)
    assert point.relative_error == report.error


@pytest.mark.parametrize("off", [1e-9, 1e-5, 0.3])
def test_the_tolerance_is_the_users_where_there_is_one(problem, off):
    def candidate(theta):
        return EXACT(problem, theta).gradient * (1 + off)

    assert look(candidate, problem).verdict is Verdict.FAIL
    assert look(candidate, problem, rtol=min(2 * off, 0.9)).verdict is Verdict.PASS
    assert look(candidate, problem, rtol=off / 2).verdict is Verdict.FAIL


def test_what_the_oracles_cannot_resolve_is_neither_right_nor_wrong(problem):
    """The difference between the tolerance and the error is less than the blunt oracles can see."""

    def candidate(theta):
        return EXACT(problem, theta).gradient * (1 + 1e-9)

    blunt = ("reference", "exact", "complex step", "unrolled limit")
    report = verify(candidate, problem, THETA, rtol=1e-9, without=blunt, diagnosis=False)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "cannot tell" in Verdict.INCONCLUSIVE.value


def test_one_oracle_is_no_oracle(problem):
    others = ("reference", "contrastive", "finite difference", "complex step", "unrolled limit")
    report = look(EXACT, problem, without=others)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "fewer than two" in str(report)


class Wrong(LeastSquares):
    """Whose products are not of its Hessian."""

    def linearize(self, x):
        at = super().linearize(x)
        return type(at)(at.value, at.gradient, lambda v: 1.3 * at.hvp(v))


def test_wrong_products_of_the_problem_are_named(problem):
    """What is computed with them is wrong, and the report says that the problem is to blame."""
    wrong = BilevelProblem(Wrong(problem.inner.X, problem.inner.y), problem.outer, 0.6)
    report = verify(EXACT, wrong, THETA, without=("reference", "complex step"))
    assert report.verdict is not Verdict.PASS
    assert "HVP" in str(report)


def test_a_hopeless_condition_is_no_crash(problem):
    hopeless = BilevelProblem(LeastSquares(problem.inner.X[:2], 1e9 * problem.inner.y[:2]), problem.outer, 1e-17)
    assert verify(EXACT, hopeless, THETA, diagnosis=False).verdict is not Verdict.PASS


def test_a_saddle_has_no_gradient():
    saddle = BilevelProblem(Autodiff(lambda p: p[0] ** 2 - p[1] ** 2), Autodiff(anp.sum), 0.5)
    assert look(lambda theta: theta, saddle, np.zeros(2)).verdict is Verdict.INCONCLUSIVE


# What a candidate can do beside being wrong.


def mutates(problem):
    def candidate(theta):
        g = EXACT(problem, theta).gradient
        theta += 1
        return g

    return candidate


def mutates_the_data(problem):
    def candidate(given, theta):
        g = EXACT(given, theta).gradient
        given.outer.y[0] += 1e-3
        return g

    return candidate


def shares(problem):
    kept = np.zeros(3)

    def candidate(theta):
        kept[:] = EXACT(problem, theta).gradient
        return kept

    return candidate


def raises(problem):
    def candidate(theta):
        raise RuntimeError("out of memory")

    return candidate


def noisy(problem):
    rng = np.random.default_rng(3)
    return lambda theta: EXACT(problem, theta).gradient + 1e-3 * rng.standard_normal(3)


def constant(problem):
    g = EXACT(problem, np.ones(3)).gradient
    return lambda theta: g.copy()


def through_single(problem):
    return lambda theta: EXACT(problem, theta).gradient.astype(np.float32).astype(np.float64)


MISBEHAVED = {
    Fault.RAISES: raises,
    Fault.SHAPE: lambda problem: lambda theta: EXACT(problem, theta).gradient[:, None],
    Fault.DTYPE: lambda problem: lambda theta: EXACT(problem, theta).gradient + 0j,
    Fault.NONFINITE: lambda problem: lambda theta: np.array([1.0, np.nan, 2.0]),
    Fault.MUTATION: mutates,
    Fault.SHARED: shares,
    Fault.NONDETERMINISTIC: noisy,
    Fault.ZERO: lambda problem: np.zeros_like,
    Fault.PARTLY_ZERO: lambda problem: lambda theta: EXACT(problem, theta).gradient * [1.0, 0.0, 1.0],
    Fault.CONSTANT: constant,
}


@pytest.mark.parametrize("fault", MISBEHAVED, ids=lambda fault: fault.name)
def test_each_fault_is_seen_and_named(problem, fault):
    report = look(MISBEHAVED[fault](problem), problem, [THETA, THETA + 1])
    assert report.verdict is Verdict.FAIL
    assert fault in report
    assert fault.name in str(report)
    others = {each.fault for each in report.observations} - {fault}
    assert not others, others


def test_where_it_is_off_is_shown_only_where_it_is(problem):
    right = verify(EXACT, problem, [THETA]).points[0].right.gradient
    column, halved = (look(lambda t, g=g: g.copy(), problem, [THETA]) for g in (right[:, None], 0.5 * right))
    assert column.verdict is halved.verdict is Verdict.FAIL
    assert "where it is off" not in str(column)
    assert "where it is off" in str(halved)


def test_a_candidate_that_writes_into_the_data_is_seen(problem):
    assert Fault.MUTATION in look(mutates_the_data(problem), problem)


@pytest.mark.parametrize("result", [None, "g", [1.0], {"g": np.ones(2)}, object()], ids=lambda r: type(r).__name__)
def test_what_is_no_gradient_is_a_failure_not_a_crash(problem, result):
    report = look(lambda theta: result, problem)
    assert report.verdict is Verdict.FAIL
    assert Fault.DTYPE in report or Fault.SHAPE in report


def test_its_own_status_is_heard(problem):
    gives_up = MetaGradient(Newton(rtol=1e-13, max_steps=1), ImplicitGradient(Cholesky()))
    softly = BilevelProblem(Autodiff(lambda p: anp.sum(p**4)), Autodiff(lambda p: anp.sum(p**2)), 0.6)
    assert Fault.REFUSED in look(gives_up, softly)


def test_single_precision_is_allowed_for_and_said(problem):
    single = look(lambda theta: EXACT(problem, theta).gradient.astype(np.float32), problem)
    assert single.verdict is Verdict.PASS
    assert Fault.COARSE in single
    hidden = look(through_single(problem), problem, [THETA, THETA + 1], diagnosis=True)
    assert hidden.verdict is Verdict.FAIL
    assert Fault.SINGLE_PRECISION in hidden


def test_an_unconverged_inner_solve_is_named_whatever_solves(problem):
    unconverged = MetaGradient(Adam(1e-2, 60), ImplicitGradient(Cholesky()))
    report = look(unconverged, problem, diagnosis=True)
    assert report.verdict is Verdict.FAIL
    assert Fault.UNCONVERGED in report
    assert not report.diagnosis.confident
    halved = look(lambda p, theta: unconverged(p, theta).gradient / 2, problem, diagnosis=True)
    assert Fault.UNCONVERGED not in halved


def test_another_minimum_is_no_error():
    wells = Autodiff(lambda p: anp.sum((p**2 - 1) ** 2))
    outer = Autodiff(lambda p: anp.sum((p - 3.0) ** 2))
    two = BilevelProblem(wells, outer, 0.2)

    class Right:
        """Finds the right-hand well from anywhere."""

        def __call__(self, problem, theta, *, start=None):
            return Newton(1e-13)(problem, theta, start=np.ones(1) if start is None else start)

    theta = np.array([-0.4])
    here, there = EXACT(two, theta), MetaGradient(Right(), ImplicitGradient(Cholesky()))(two, theta)
    assert here.inner.value[0] < 0 < there.inner.value[0]
    assert look(EXACT, two, theta).verdict is Verdict.PASS
    anchored = MetaGradient(Right(), ImplicitGradient(Cholesky()))
    assert look(anchored, two, theta).verdict is Verdict.FAIL
    assert look(anchored, two, theta, solver=Right()).verdict is Verdict.PASS


# Forms of candidates, problems and θ.


def test_the_signature_says_how_it_is_called(problem):
    assert look(lambda theta: EXACT(problem, theta).gradient, problem).verdict is Verdict.PASS
    assert look(lambda p, theta: EXACT(p, theta).gradient, problem).verdict is Verdict.PASS
    assert look(lambda theta, steps=5: EXACT(problem, theta).gradient, problem).verdict is Verdict.PASS
    for wrong in (lambda: 0, lambda a, b, c: 0, 3.0, MetaGradient):
        with pytest.raises(ArgumentTypeError, match="candidate"):
            look(wrong, problem)


def test_parameter_trees(rng):
    x, y = rng.standard_normal(12), rng.standard_normal(12)

    def loss(rows):
        return Autodiff(lambda p: anp.mean((anp.tanh(p["w"] * x[rows] + p["b"]) - y[rows]) ** 2))

    tree = BilevelProblem(loss(slice(0, 6)), loss(slice(6, 12)), 1.7)
    theta = {"w": np.array([1.0]), "b": np.array([0.2])}
    assert look(EXACT, tree, theta).verdict is Verdict.PASS
    assert look(EXACT, tree, [theta, {"w": np.array([0.5]), "b": np.array([0.1])}]).verdict is Verdict.PASS
    assert look(lambda p, t: {"w": t["w"], "b": t["b"]}, tree, theta).verdict is Verdict.FAIL


def test_float32_data(problem):
    losses = [LeastSquares(a.X.astype(np.float32), a.y.astype(np.float32)) for a in (problem.inner, problem.outer)]
    single = BilevelProblem(*losses, 0.6)
    assert look(EXACT, single, None).verdict is Verdict.PASS
    assert look(lambda p, t: 1.1 * EXACT(p, t).gradient, single, None).verdict is Verdict.FAIL


def test_bad_arguments_are_refused(problem):
    batch = BilevelProblem(problem.inner, problem.outer, np.array([0.5, 0.6]))
    with pytest.raises(ArgumentTypeError, match="batch"):
        look(EXACT, batch)
    with pytest.raises(ArgumentTypeError, match="not quadratic"):
        look(EXACT, RegularizedProblem(problem.inner, problem.outer, LogCosh(0.6)))
    with pytest.raises(ArgumentError, match="thetas"):
        look(EXACT, BilevelProblem(Autodiff(anp.sum), Autodiff(anp.sum), 0.5), None)
    with pytest.raises(ArgumentError, match="one length"):
        look(EXACT, problem, [np.ones(3), np.ones(2)])
    with pytest.raises(ArgumentError, match="thetas: LeastSquares has 3"):
        look(EXACT, problem, np.ones(4))
    with pytest.raises(ArgumentTypeError, match="thetas: dtype float32"):
        look(EXACT, problem, np.ones(3, dtype=np.float32))
    with pytest.raises(ArgumentError, match="without"):
        look(EXACT, problem, without=("oracle of Delphi",))
    with pytest.raises(ArgumentError, match="rtol"):
        look(EXACT, problem, rtol=1.5)
    with pytest.raises(ArgumentTypeError, match="problem"):
        look(EXACT, "ridge")


def test_a_diagonal_weight(problem):
    stretched = RegularizedProblem(problem.inner, problem.outer, DiagonalQuadratic([0.2, 0.6, 1.9]))

    def candidate(theta, transposed=True):
        W = np.diag([0.2, 0.6, 1.9])
        X, y, n = problem.inner.X, problem.inner.y, 8
        A = X.T @ X / n + W
        b = problem.outer.gradient(np.linalg.solve(A, X.T @ y / n + W @ theta))
        return W @ np.linalg.solve(A, b) if transposed else np.linalg.solve(A, W @ b)

    assert look(candidate, stretched).verdict is Verdict.PASS
    wrong = look(lambda theta: candidate(theta, transposed=False), stretched, diagnosis=True)
    assert wrong.diagnosis.names == ("missing transpose",)
    assert wrong.diagnosis.confident


# Pages.


def test_there_is_no_boolean(problem):
    report = look(EXACT, problem)
    assert isinstance(report, Report)
    for each in (report, report.verdict):
        with pytest.raises(TypeError, match="three"):
            bool(each)


def test_the_html_page_stands_alone(problem):
    page = look(lambda theta: theta, problem).to_html()
    assert page.startswith("<!doctype html>")
    assert "FAIL" in page
    assert "&lt;lambda&gt;" in page
    for outside in ("<script", "http://", "https://", "src="):
        assert outside not in page
    assert page.count("<svg") == 2


def test_the_assertion_shows_the_page(problem):
    assert_meta_gradient(EXACT, problem, THETA, without=QUICK)
    with pytest.raises(AssertionError, match=r"FAIL: .*twice") as failure:
        assert_meta_gradient(twice(problem), problem, THETA, without=QUICK)
    assert "cause" in str(failure.value) or "cannot be told apart" in str(failure.value)
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        assert_meta_gradient(EXACT, problem, THETA, without=("reference", "contrastive", "complex step", *QUICK))


def twice(problem):
    def twice(theta):
        return 2 * EXACT(problem, theta).gradient

    return twice


# Right gradients are never called wrong; all of them by python -m benchmarks.diagnosis.


@pytest.mark.parametrize("right", [*right_trials(40), *(Right(m, "scaled ridge", 4) for m in METHODS)], ids=str)
def test_no_false_alarm(right):
    assert right_outcome(right)[1] != "FAIL"


def test_the_false_alarm_check_can_fail(monkeypatch):
    monkeypatch.setitem(METHODS, "EXACT", lambda problem, theta: EXACT(problem, theta).gradient * (1 + 1e-4))
    assert right_outcome(Right("EXACT", "ridge", 1000))[1] == "FAIL"


def test_minibatch_noise_is_told(rng):
    X, y = rng.standard_normal((24, 2)), rng.standard_normal(24)
    train = MultilayerPerceptron(X[:12], y[:12], (2,))
    two = BilevelProblem(train, MultilayerPerceptron(X[12:], y[12:], (2,)), 4.0)
    seeds = iter(range(100))

    def candidate(problem, theta):
        return MetaGradient(SGD(0.05, 20, batch_size=4, seed=next(seeds)), ImplicitGradient(Cholesky()))(
            problem, theta
        )

    assert Fault.NONDETERMINISTIC in look(candidate, two, None)


# The command line.

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


def test_a_candidate_that_exits_raises(problem):
    report = look(lambda theta: sys.exit(0), problem)
    assert report.verdict is Verdict.FAIL
    assert Fault.RAISES in report


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
