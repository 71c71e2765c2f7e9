"""What `check_problem` finds in bad losses, and that it finds nothing in good ones."""

from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import defvjp, primitive
from oracles import scenes
from oracles.losses import Counting, Diagonal, Scaled

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Defect,
    LeastSquares,
    Linearization,
    LossError,
    NondeterministicLossError,
    NonFiniteError,
    check_problem,
)

THETA = np.array([0.7, -1.3, 0.4])


def _report(loss, theta=THETA, lam=0.7, **settings):
    """Of a bad inner loss beside a good outer one."""
    return check_problem(BilevelProblem(loss, Diagonal(np.ones(np.shape(theta)[-1])), lam), theta, **settings)


def _defects(report):
    assert {finding.loss for finding in report.findings} <= {"inner"}
    return {finding.defect for finding in report.findings}


@pytest.mark.parametrize("lam", scenes.LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
@pytest.mark.parametrize(
    "make",
    [scenes.ridge, scenes.softmax, *(lambda lam, a=a: scenes.network(lam, (3,), a, 0) for a in ("tanh", "softplus"))],
    ids=["ridge", "softmax", "tanh", "softplus"],
)
def test_good_problems_pass(make, scale, lam):
    """Closed forms and traced losses, at parameters of every size, for many directions."""
    scene = make(lam)
    # autograd's rule of tanh divides by cosh², which overflows where the closed form is 0: that is a finding.
    overflows = scale > 1 and make.__defaults__ == ("tanh",)
    for inner in (scene.problem.inner, *(() if overflows else (Autodiff(scene.traced[0]),))):
        for seed in range(2, 8):
            problem = BilevelProblem(inner, scene.problem.outer, lam)
            assert not check_problem(problem, scale * scene.theta, seed=seed).findings
    if overflows:
        assert Defect.NONFINITE in check_problem(
            BilevelProblem(Autodiff(scene.traced[0]), scene.problem.outer, lam), scale * scene.theta
        )
    batch = BilevelProblem(scene.problem.inner, scene.problem.outer, np.array([lam, 2 * lam]))
    assert check_problem(batch, np.stack([scene.theta, 0 * scene.theta])).ok
    assert check_problem(batch, scene.theta).unwrap() is None


@pytest.mark.parametrize("directions", [1, 3, 4])
def test_its_cost_is_what_the_readme_says(directions):
    """17 evaluations of each loss, and 32 for every direction: 13 values, 16 gradients and 3 products."""
    for scene in (scenes.ridge(2.3), scenes.network(2.3, (3,), "tanh", 0)):
        losses = Counting(scene.problem.inner), Counting(scene.problem.outer)
        assert check_problem(BilevelProblem(*losses, 2.3), scene.theta, directions=directions).ok
        for loss in losses:
            k = directions
            assert loss.calls == {"values": 4 + 13 * k, "gradients": 9 + 16 * k, "hvps": 4 + 3 * k}
            assert loss.calls.total() == 17 + 32 * k
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "17 evaluations and 32 for every direction" in readme
    assert str(17 + 32 * 3) in readme


def _noisy(size):
    rng = np.random.default_rng(7)
    return Autodiff(lambda w: anp.sum(w**2) * (1 + size * rng.standard_normal()))


class _Stateful:
    """Its Hessian grows with every call; value and gradient do not."""

    calls = 0

    def value(self, x):
        return (x**2).sum(-1)

    def gradient(self, x):
        return 2 * x

    def linearize(self, x):
        self.calls += 1
        factor = 2 + 1e-12 * self.calls
        return Linearization(self.value(x), self.gradient(x), lambda v: factor * v)


def test_row_31_random_and_stateful_losses():
    for loss, what in ((_noisy(1e-9), "value"), (_Stateful(), "Hessian-vector product")):
        report = _report(loss)
        assert _defects(report) == {Defect.NONDETERMINISTIC}
        with pytest.raises(NondeterministicLossError, match=f"inner: NONDETERMINISTIC.*{what}"):
            report.unwrap()
    assert _report(_noisy(1e-9), nondeterminism=1e-6).ok
    assert Defect.NONDETERMINISTIC in _report(_noisy(1e-3), nondeterminism=1e-6)


@pytest.mark.parametrize(
    ("f", "theta", "wanted"),
    [
        (lambda w: anp.sum(anp.abs(w)), [0.0, 2.0], Defect.KINK),
        (lambda w: anp.sum(anp.maximum(w, 0.0) * 3.0) + anp.sum(w**2), [1.0, 0.0], Defect.KINK),
        (lambda w: anp.sum(anp.maximum(w, 0.0) * 3.0) + anp.sum(w**2), [1.0, 1e-9], Defect.KINK),
        (lambda w: anp.max(w), [1.0, 1.0], Defect.KINK),
        (lambda w: anp.sum(anp.maximum(w, 0.0) ** 2), [0.0, 1.0], Defect.CURVATURE_KINK),
        (lambda w: anp.sqrt(anp.sum(w**2)), [0.0, 0.0], Defect.NONFINITE),
        (lambda w: anp.sum(anp.sqrt(w)), [0.0, 1.0], Defect.NONFINITE),
        (lambda w: anp.sum(anp.where(w > 0, anp.log(w), 0.0)), [0.0, 1.0], Defect.NONFINITE),
        (lambda w: anp.log(anp.sum(anp.exp(w))), [1000.0, 0.0], Defect.NONFINITE),
    ],
    ids=["abs", "ReLU", "beside ReLU", "max", "ReLU²", "norm", "sqrt", "where(log)", "naive softmax"],
)
def test_rows_28_to_30_kinks_and_what_is_not_finite(f, theta, wanted):
    report = _report(Autodiff(f), np.array(theta))
    assert _defects(report) == {wanted}
    assert report.ok is wanted.advisory
    if not wanted.advisory:
        with pytest.raises(NonFiniteError if wanted is Defect.NONFINITE else LossError, match="inner: "):
            report.unwrap()


def test_kinks_elsewhere_are_no_finding():
    """Where θ is far from every kink nothing is wrong at θ."""
    f = Autodiff(lambda w: anp.sum(anp.abs(w)) + anp.sum(anp.maximum(w, 0.0) ** 2))
    assert not _report(f, np.array([0.3, -2.0])).findings


@pytest.mark.filterwarnings("ignore:Output seems independent:UserWarning")
def test_row_26_a_loss_without_parameters():
    report = _report(Autodiff(lambda w: anp.array(3.0)))
    assert _defects(report) == {Defect.CONSTANT}
    assert report.ok


@pytest.mark.filterwarnings("ignore:Output seems independent:UserWarning")
def test_row_27_numpy_in_a_traced_loss():
    """Where it raises that is said; where it silently drops a derivative the differences tell."""
    # A function of its own: autograd would take a primitive of np.tanh for its tanh from then on.
    dropped = primitive(lambda w: np.tanh(w))
    defvjp(dropped, lambda ans, x: lambda g: 0.0 * g)
    assert _defects(_report(Autodiff(lambda w: np.linalg.cholesky(np.outer(w, w))[0, 0]))) == {Defect.RAISES}
    report = _report(Autodiff(lambda w: anp.sum(w**2) + anp.sum(dropped(w))))
    assert Defect.GRADIENT in report
    assert not report.ok


class _Vandal:
    """Writes into its own data, or into its argument, and is a quadratic otherwise."""

    def __init__(self, target):
        self.data, self.target = np.ones(3), target

    def value(self, x):
        result = (x**2).sum(-1)
        if self.target == "the parameters":
            x *= 1.0000001
        else:
            self.data[1] += 1
        return result

    def gradient(self, x):
        return 2 * x

    def linearize(self, x):
        return Linearization((x**2).sum(-1), 2 * x, lambda v: 2 * v)


def test_row_32_losses_that_write():
    seen = np.ones(3)

    def scribble(w):
        seen[0] += 1
        return anp.sum(w**2)

    for loss, what in (
        (_Vandal("the parameters"), "the parameters"),
        (_Vandal("data"), "data"),
        (Autodiff(scribble), "seen"),
    ):
        theta = THETA.copy()
        report = _report(loss, theta)
        assert _defects(report) == {Defect.MUTATION}
        assert what in report.findings[0].detail
        assert np.array_equal(theta, THETA)


class _Wrong:
    """¼Σx⁴ with one thing changed."""

    def __init__(self, gradient=lambda x: x**3, hvp=lambda x, v: 3 * x**2 * v):
        self.gradient, self.hvp = gradient, hvp

    def value(self, x):
        return 0.25 * (x**4).sum(-1)

    def linearize(self, x):
        return Linearization(self.value(x), self.gradient(x), lambda v: self.hvp(x, v))


@pytest.mark.parametrize("error", [1e-5, 1e-2, 1.0])
def test_wrong_derivatives_are_found(error):
    assert not _report(_Wrong()).findings
    wrong = _Wrong(lambda x: x**3 * (1 + error), lambda x, v: 3 * x**2 * v * (1 + error))
    assert _defects(_report(wrong)) == {Defect.GRADIENT}
    assert _defects(_report(_Wrong(hvp=lambda x, v: 3 * x**2 * v * (1 + error)))) == {Defect.HVP}
    skew = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    turned = _Wrong(hvp=lambda x, v: 3 * x**2 * v + error * v @ skew)
    assert _defects(_report(turned)) == {Defect.HVP, Defect.ASYMMETRY}


def test_scales():
    assert _defects(_report(Scaled(_Wrong(), 1e-200))) == {Defect.SCALE}
    assert _defects(_report(Scaled(_Wrong(), 1e-9))) == set()
    assert _defects(_report(_Wrong(), lam=1e-18)) == {Defect.LOST_LAMBDA}


def test_the_problem_of_a_batch_is_named():
    h = np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, 1.0]])
    (finding,) = _report(Diagonal(h), np.ones((3, 2))).findings[:1]
    assert finding.defect is Defect.NONFINITE
    assert finding.index == (1,)
    assert "problem (1,)" in str(finding)


def test_settings_are_checked():
    ridge = LeastSquares(np.eye(3), np.ones(3))
    problem = BilevelProblem(ridge, ridge, 0.7)
    for settings, error, name in (
        ({"directions": 0}, ArgumentError, "directions"),
        ({"nondeterminism": -1.0}, ArgumentError, "nondeterminism"),
        ({"seed": 1.5}, ArgumentTypeError, "seed"),
    ):
        with pytest.raises(error, match=name):
            check_problem(problem, THETA, **settings)
    with pytest.raises(ArgumentError, match="theta"):
        check_problem(problem, np.ones(2))
    assert str(check_problem(problem, THETA)) == "nothing found"
