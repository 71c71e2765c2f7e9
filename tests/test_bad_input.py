"""Bad input, row by row: a typed error that names the argument, or a status that tells the truth; never silent NaN.

The numbers in the ids are those of the table of bad input in the project's reference notes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from oracles.losses import Diagonal
from oracles.scenes import EPS
from scipy.sparse import csr_array

from implicit_grad import (
    CG,
    EXACT,
    LBFGS,
    LU,
    MINRES,
    Adam,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    ConvergenceError,
    FiniteDifferenceGradient,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradError,
    ImplicitGradient,
    IndefiniteError,
    LeastSquares,
    LossError,
    MetaGradient,
    MultilayerPerceptron,
    Neumann,
    Newton,
    NewtonCG,
    NonFiniteError,
    Nystrom,
    ScipyCG,
    ScipyMinimize,
    SoftmaxCrossEntropy,
    Status,
    UnrolledGradient,
    certify,
)

N, D, C = 6, 3, 3


@dataclass(eq=False)
class Data:
    """Good data, made afresh for each case."""

    X: Any
    y: Any
    labels: Any
    theta: Any

    def ridge(self, X: Any = None, y: Any = None) -> LeastSquares:
        return LeastSquares(self.X if X is None else X, self.y if y is None else y)

    def softmax(self, X: Any = None, labels: Any = None, n_classes: Any = C) -> SoftmaxCrossEntropy:
        return SoftmaxCrossEntropy(self.X if X is None else X, self.labels if labels is None else labels, n_classes)

    def network(self, **changes: Any) -> MultilayerPerceptron:
        return MultilayerPerceptron(**{"X": self.X, "y": self.y, "hidden": (2,), **changes})

    def problem(self, lam: Any = 0.7) -> BilevelProblem:
        return BilevelProblem(self.ridge(), self.ridge(), lam)

    def exact(self, theta: Any, lam: Any = 0.7) -> Any:
        return EXACT(self.problem(lam), theta)


def _data() -> Data:
    rng = np.random.default_rng(20190910)
    X, y = rng.standard_normal((N, D)), rng.standard_normal(N)
    return Data(X, y, rng.integers(C, size=N), rng.standard_normal(D))


def _with(array: Any, place: Any, value: Any) -> Any:
    array[place] = value
    return array


Call = Callable[[Data], Any]

# (row, what, call, error, name in the message)
ERRORS: list[tuple[int, str, Call, type[ImplicitGradError], str]] = [
    *(
        (row, f"lam={lam!r}", lambda d, lam=lam: d.problem(lam), error, "lam")
        for row, error, lams in (
            (1, ArgumentError, (0, 0.0, -0.0, -1, -1e-300, np.array([1.0, -2.0]))),
            (2, ArgumentError, (np.nan, np.inf, -np.inf, np.array([0.5, np.nan]))),
            (
                3,
                ArgumentTypeError,
                (1j, True, np.True_, "0.5", b"0.5", None, [True], np.array(["1"]), np.array([1j]), ..., {}),
            ),
            (13, ArgumentTypeError, (np.float16(1), np.ones(2, np.float16))),
            (17, ArgumentTypeError, (np.ma.masked_array([0.5, 1.0], mask=[0, 1]), csr_array(np.eye(2)))),
        )
        for lam in lams
    ),
    *(
        (12, f"rank {rank!r}", lambda d, rank=rank: Nystrom(rank), error, "rank")
        for rank, error in ((0, ArgumentError), (-1, ArgumentError), (2.0, ArgumentTypeError))
    ),
    (
        12,
        "rank above d",
        lambda d: ImplicitGradient(Nystrom(D + 1))(*_at(d.problem(), d.theta)),
        ArgumentError,
        "rank",
    ),
    *(
        (12, f"step {step!r}", lambda d, step=step: Neumann(step, 5), ArgumentError, "step_size")
        for step in (0.0, -0.1, np.nan, np.inf)
    ),
    (13, "float16 X", lambda d: d.ridge(d.X.astype(np.float16)), ArgumentTypeError, "X"),
    (13, "float16 theta", lambda d: d.exact(d.theta.astype(np.float16)), ArgumentTypeError, "theta"),
    (13, "float32 y", lambda d: d.ridge(y=d.y.astype(np.float32)), ArgumentTypeError, "y"),
    (13, "float32 theta", lambda d: d.exact(d.theta.astype(np.float32)), ArgumentTypeError, "theta"),
    (15, "complex X", lambda d: d.ridge(d.X + 0j), ArgumentTypeError, "X"),
    (15, "complex y", lambda d: d.ridge(y=d.y * 1j), ArgumentTypeError, "y"),
    (15, "complex theta", lambda d: d.exact(d.theta + 0j), ArgumentTypeError, "theta"),
    (15, "complex b", lambda d: CG(2)(np.eye(2), np.ones(2) + 0j), ArgumentTypeError, "b"),
    (15, "complex A", lambda d: CG(2)(np.eye(2) + 0j, np.ones(2)), ArgumentTypeError, "A"),
    (16, "object X", lambda d: d.softmax(d.X.astype(object)), ArgumentTypeError, "X"),
    (16, "object theta", lambda d: d.exact(d.theta.astype(object)), ArgumentTypeError, "theta"),
    (16, "object labels", lambda d: d.softmax(labels=d.labels.astype(object)), ArgumentTypeError, "labels"),
    (16, "ragged X", lambda d: d.ridge([[1.0], [1.0, 2.0]]), ArgumentTypeError, "X"),
    (16, "words", lambda d: d.ridge(y=["a"] * N), ArgumentTypeError, "y"),
    (17, "masked X", lambda d: d.ridge(np.ma.masked_array(d.X)), ArgumentTypeError, "X"),
    (17, "masked y", lambda d: d.network(y=np.ma.masked_array(d.y)), ArgumentTypeError, "y"),
    (17, "masked labels", lambda d: d.softmax(labels=np.ma.masked_array(d.labels)), ArgumentTypeError, "labels"),
    (17, "masked theta", lambda d: d.exact(np.ma.masked_array(d.theta)), ArgumentTypeError, "theta"),
    (17, "sparse X", lambda d: d.ridge(csr_array(d.X)), ArgumentTypeError, "X"),
    (17, "sparse A", lambda d: Cholesky()(csr_array(np.eye(2)), np.ones(2)), ArgumentTypeError, "A"),
    (18, "no samples", lambda d: d.ridge(d.X[:0], d.y[:0]), ArgumentError, "X"),
    (18, "no samples, softmax", lambda d: d.softmax(d.X[:0], d.labels[:0]), ArgumentError, "X"),
    (18, "no labels", lambda d: d.softmax(labels=d.labels[:0]), ArgumentError, "labels"),
    (18, "no features", lambda d: d.ridge(d.X[:, :0]), ArgumentError, "X"),
    (18, "no parameters", lambda d: d.exact(d.theta[:0]), ArgumentError, "theta"),
    (18, "no problems", lambda d: d.ridge(d.X[None][:0], d.y[None][:0]), ArgumentError, "X"),
    *(
        (20, what, lambda d, labels=labels: d.softmax(labels=labels(d)), error, "labels")
        for what, labels, error in (
            ("label C", lambda d: _with(d.labels.copy(), 0, C), ArgumentError),
            ("label -1", lambda d: _with(d.labels.copy(), 0, -1), ArgumentError),
            ("float labels", lambda d: d.labels.astype(float), ArgumentTypeError),
            ("bool labels", lambda d: d.labels > 0, ArgumentTypeError),
            ("one-hot labels", lambda d: np.eye(C, dtype=int)[d.labels], ArgumentError),
            ("one-hot floats", lambda d: np.eye(C)[d.labels], ArgumentTypeError),
            ("one label", lambda d: d.labels[0], ArgumentError),
        )
    ),
    # n = C: the shape of one-hot rows is that of a batch of tasks.
    (20, "one-hot labels, n = C", lambda d: d.softmax(d.X[:C], np.eye(C, dtype=int)), ArgumentError, "labels"),
    (
        20,
        "one-hot labels, n = C, in a batch",
        lambda d: d.softmax(np.stack([d.X[:C]] * C), np.stack([np.eye(C, dtype=int)[[1, 0, 2]]] * C)),
        ArgumentError,
        "labels",
    ),
    (
        20,
        "network one-hot labels, n = C",
        lambda d: d.network(X=d.X[:C], y=np.eye(C, dtype=int), n_classes=C),
        ArgumentError,
        "y",
    ),
    (20, "network label", lambda d: d.network(y=d.labels + 1, n_classes=C), ArgumentError, "y"),
    (20, "network float labels", lambda d: d.network(n_classes=C), ArgumentTypeError, "y"),
    *(
        (20, f"n_classes={n!r}", lambda d, n=n: d.softmax(n_classes=n), error, "n_classes")
        for n, error in ((1, ArgumentError), (-3, ArgumentError), (3.0, ArgumentTypeError), (True, ArgumentTypeError))
    ),
    (21, "y (n, 1)", lambda d: d.ridge(y=d.y[:, None]), ArgumentError, "y"),
    (21, "y (n - 1,)", lambda d: d.ridge(y=d.y[1:]), ArgumentError, "y"),
    (21, "y ()", lambda d: d.ridge(y=d.y[0]), ArgumentError, "y"),
    (21, "X (n,)", lambda d: d.ridge(X=d.X[:, 0]), ArgumentError, "X"),
    (21, "labels (n, 1)", lambda d: d.softmax(labels=d.labels[:, None]), ArgumentError, "labels"),
    (21, "labels (n - 1,)", lambda d: d.softmax(labels=d.labels[1:]), ArgumentError, "labels"),
    (21, "network y (n, 1)", lambda d: d.network(y=d.y[:, None]), ArgumentError, "y"),
    (21, "network y (n,), 2 outputs", lambda d: d.network(n_outputs=2), ArgumentError, "y"),
    (21, "batches", lambda d: d.ridge(np.stack([d.X] * 2), np.stack([d.y] * 3)), ArgumentError, "y"),
    (21, "A (2, 3)", lambda d: CG(2)(np.ones((2, 3)), np.ones(3)), ArgumentError, "A"),
    (21, "A too large", lambda d: CG(2)(np.eye(3), np.ones(2)), ArgumentError, "A"),
    (21, "b ()", lambda d: CG(2)(np.eye(3), 1.0), ArgumentError, "b"),
    *(
        (22, f"{bad} in {name}", call, NonFiniteError, name)
        for bad in (np.nan, np.inf, -np.inf)
        for name, call in (
            ("X", lambda d, bad=bad: d.ridge(_with(d.X.copy(), (2, 1), bad))),
            ("y", lambda d, bad=bad: d.ridge(y=_with(d.y.copy(), 4, bad))),
            ("theta", lambda d, bad=bad: d.exact(_with(d.theta.copy(), 1, bad))),
        )
    ),
    (24, "loss (1,)", lambda d: Autodiff(lambda w: anp.sum(w, keepdims=True)).gradient(d.theta), LossError, "f"),
    (24, "loss (d,)", lambda d: Autodiff(lambda w: w).value(d.theta), LossError, "f"),
    (25, "loss None", lambda d: Autodiff(lambda w: None).value(d.theta), LossError, "f"),
    (25, "loss str", lambda d: Autodiff(str).value(d.theta), LossError, "f"),
    (25, "float()", lambda d: Autodiff(lambda w: float(anp.sum(w))).gradient(d.theta), LossError, "f"),
    (35, "lam·theta infinite", lambda d: d.exact(1e10 * d.theta, 1e300), ArgumentError, "lam"),
    *(
        (38, f"{name}={value!r}", lambda d, b=build, v=value: b(v), error, name)
        for name, build in (
            ("steps", lambda v: GradientDescent(0.1, v)),
            ("max_steps", CG),
            ("max_steps", ScipyCG),
            ("max_steps", lambda v: Newton(max_steps=v)),
            ("max_steps", lambda v: ScipyMinimize(max_steps=v)),
            ("refinements", Cholesky),
            ("window", UnrolledGradient),
        )
        for value, error in (
            (-1, ArgumentError),
            (10**8, ArgumentError),
            (2.0, ArgumentTypeError),
            (True, ArgumentTypeError),
            ("5", ArgumentTypeError),
        )
    ),
    *(
        (38, f"rtol={rtol!r}", lambda d, b=build, r=rtol: b(r), error, "rtol")
        for build in (lambda r: CG(5, r), lambda r: ScipyCG(5, r), Newton, lambda r: ScipyMinimize(rtol=r))
        for rtol, error in (
            (-1e-9, ArgumentError),
            (1.0, ArgumentError),
            (np.nan, ArgumentError),
            (np.inf, ArgumentError),
            (None, ArgumentTypeError),
            (True, ArgumentTypeError),
            ("1e-3", ArgumentTypeError),
        )
    ),
    *(
        (38, f"hidden={hidden!r}", lambda d, h=hidden: d.network(hidden=h), error, "hidden")
        for hidden, error in (
            (4, ArgumentTypeError),
            ((0,), ArgumentError),
            ((3, -1), ArgumentError),
            ((2.0,), ArgumentTypeError),
            ("33", ArgumentTypeError),
        )
    ),
    (
        38,
        "activation class",
        lambda d: d.network(activation=type(d.network().activation)),
        ArgumentTypeError,
        "activation",
    ),
    (38, "activation name", lambda d: d.network(activation="tanh"), ArgumentTypeError, "activation"),
    (
        38,
        "n_outputs and n_classes",
        lambda d: d.network(y=d.labels, n_classes=C, n_outputs=2),
        ArgumentTypeError,
        "n_outputs",
    ),
    (38, "n_outputs=0", lambda d: d.network(n_outputs=0), ArgumentError, "n_outputs"),
    (
        38,
        "unroll 10⁷",
        lambda d: GradientDescent(0.1, 10**7, record=True)(_wide(), np.ones(10**5)),
        ArgumentError,
        "record",
    ),
    (39, "theta too long", lambda d: d.exact(np.ones(D + 1)), ArgumentError, "theta"),
    (39, "theta (d, 1)", lambda d: d.exact(d.theta[:, None]), ArgumentError, "theta"),
    (39, "theta ()", lambda d: d.exact(3.0), ArgumentError, "theta"),
    (39, "theta None", lambda d: d.exact(None), ArgumentTypeError, "theta"),
    (39, "start too long", lambda d: Newton()(d.problem(), d.theta, start=np.ones(D + 1)), ArgumentError, "start"),
    (39, "start NaN", lambda d: Newton()(d.problem(), d.theta, start=d.theta * np.nan), NonFiniteError, "start"),
    (39, "list of starts", lambda d: Newton()(d.problem(), d.theta, start=[[1.0] * D] * 2), ArgumentError, "start"),
    *(
        (
            39,
            f"tree of theta, lam {lam.shape}",
            lambda d, lam=lam: EXACT(_of_a_tree(lam), {"w": d.theta}),
            ArgumentError,
            "theta",
        )
        for lam in (np.ones(1), np.ones(2))
    ),
    (39, "batch of theta", lambda d: EXACT(d.problem(np.ones(2)), np.ones((3, D))), ArgumentError, "theta"),
]


def _at(problem: BilevelProblem, theta: Any) -> tuple[BilevelProblem, Any, Any]:
    return problem, theta, GradientDescent(None, 0)(problem, theta)


def _of_a_tree(lam: Any) -> BilevelProblem:
    f = Autodiff(lambda t: anp.sum((t["w"] - 1) ** 2))
    return BilevelProblem(f, f, lam)


def _wide() -> BilevelProblem:
    f = Autodiff(lambda w: anp.sum(w**2))
    return BilevelProblem(f, f, 0.7)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [case[2:] for case in ERRORS],
    ids=[f"{row}: {what}" for row, what, *_ in ERRORS],
)
def test_a_typed_error_names_the_argument(call, error, name):
    data = _data()
    before = {key: value.copy() for key, value in vars(data).items()}
    for array in vars(data).values():
        array.flags.writeable = False
    with pytest.raises(error, match=rf"^{name}: ") as caught:
        call(data)
    assert isinstance(caught.value, ImplicitGradError)
    assert isinstance(caught.value, ValueError | TypeError)
    assert len(str(caught.value)) > len(name) + 15
    for key, value in before.items():
        assert np.array_equal(getattr(data, key), value)


def _theta(loss: Any) -> Any:
    return 0.3 * np.cos(np.arange(float(loss.size)))


WORKS: list[tuple[int, str, Callable[[Data], tuple[Any, Any]]]] = [
    (3, "lam is a NumPy scalar", lambda d: (d.problem(np.float64(0.7)), d.theta)),
    (3, "lam is a 0-d array", lambda d: (d.problem(np.array(0.7)), d.theta)),
    (3, "lam is an integer", lambda d: (d.problem(2), d.theta)),
    (14, "theta is integer", lambda d: (d.problem(), np.arange(D))),
    (
        14,
        "data is integer",
        lambda d: (BilevelProblem(LeastSquares(np.eye(D, dtype=int), np.arange(D)), d.ridge(), 0.7), d.theta),
    ),
    (
        17,
        "lists",
        lambda d: (BilevelProblem(LeastSquares(d.X.tolist(), d.y.tolist()), d.ridge(), 0.7), d.theta.tolist()),
    ),
    (17, "np.matrix", lambda d: (BilevelProblem(LeastSquares(np.matrix(d.X), d.y), d.ridge(), 0.7), d.theta)),
    (
        17,
        "Fortran order",
        lambda d: (BilevelProblem(LeastSquares(np.asfortranarray(d.X), d.y), d.ridge(), 0.7), d.theta),
    ),
    (19, "one sample", lambda d: (BilevelProblem(d.ridge(d.X[:1], d.y[:1]), d.ridge(), 0.7), d.theta)),
    (19, "one class seen", lambda d: _pair(d.softmax(labels=np.zeros(N, dtype=int)))),
    (19, "one parameter", lambda d: (BilevelProblem(*[d.ridge(d.X[:, :1])] * 2, 0.7), d.theta[:1])),
    (
        19,
        "more parameters than samples",
        lambda d: (BilevelProblem(d.ridge(d.X[:2], d.y[:2]), d.ridge(), 0.7), d.theta),
    ),
    (23, "zero features", lambda d: (BilevelProblem(d.ridge(0 * d.X), d.ridge(), 0.7), d.theta)),
    (23, "constant features", lambda d: (BilevelProblem(d.ridge(0 * d.X + 3), d.ridge(), 0.7), d.theta)),
    (23, "equal features", lambda d: (BilevelProblem(d.ridge(d.X[:, [0, 0, 0]]), d.ridge(), 0.7), d.theta)),
    (23, "equal samples", lambda d: (BilevelProblem(d.ridge(d.X[[1] * N]), d.ridge(), 0.7), d.theta)),
    (23, "zero features, softmax", lambda d: _pair(d.softmax(0 * d.X))),
    (23, "zero inputs, network", lambda d: _pair(d.network(X=0 * d.X), 50.0)),
    (35, "lam = 1e-12", lambda d: (d.problem(1e-12), d.theta)),
    (35, "lam = 1e-300", lambda d: (d.problem(1e-300), d.theta)),
    (35, "lam = 1e155", lambda d: (d.problem(1e155), d.theta)),
    (35, "lam = 1e307", lambda d: (d.problem(1e307), d.theta)),
    (36, "tiny test loss", lambda d: (BilevelProblem(d.ridge(), d.ridge(1e-90 * d.X, 1e-90 * d.y), 0.7), d.theta)),
    (36, "huge test loss", lambda d: (BilevelProblem(d.ridge(), d.ridge(1e90 * d.X, 1e90 * d.y), 0.7), d.theta)),
    (
        37,
        "subnormal test loss",
        lambda d: (BilevelProblem(d.ridge(), d.ridge(1e-160 * d.X, 1e-155 * d.y), 0.7), d.theta),
    ),
]


def _pair(loss: Any, lam: float = 0.7) -> tuple[BilevelProblem, Any]:
    return BilevelProblem(loss, loss, lam), _theta(loss)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("case", WORKS, ids=[f"{row}: {what}" for row, what, _ in WORKS])
def test_degenerate_input_works(case):
    """Exact, by conjugate gradient and by 4d + 4 of its steps: finite, successful, and the same vector.

    Both solve A q = b to a residual of 1e-12‖b‖, so they differ by 2e-12·κ(A) relative; κ comes from A at φ*.
    """
    problem, theta = case[2](_data())
    exact = EXACT(problem, theta)
    g = exact.unwrap()
    assert g.dtype == np.float64
    assert np.isfinite(g).all()
    d = g.shape[-1]
    A = problem.curvature(exact.inner.value).divided(np.maximum(problem.lam, 1.0)).dense()
    condition = float(np.linalg.cond(A))
    for solver in (CG(20 * d + 20, 1e-12), ScipyCG(20 * d + 20, 1e-12)):
        estimate = ImplicitGradient(solver)(problem, theta, exact.inner)
        assert estimate.ok
        scale = 2e-12 * condition + 64 * d * condition * EPS
        smallest = float(np.finfo(float).smallest_subnormal)
        assert np.abs(estimate.gradient - g).max() <= scale * np.abs(g).max() + 4 * smallest


def _diagonal(*h: float, lam: float = 0.7) -> BilevelProblem:
    h = np.array(h)
    return BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones(h.size), 2.0), lam)


def _autodiff(f: Any, lam: float = 0.7) -> BilevelProblem:
    return BilevelProblem(Autodiff(f), Autodiff(f), lam)


PLAIN = MetaGradient(GradientDescent(0.05, 40), ImplicitGradient(CG(20, 1e-10)))
AT_THETA = MetaGradient(GradientDescent(0.05, 0), ImplicitGradient(Cholesky()))
STATUSES: list[tuple[int, str, Callable[[], Any], set[Status]]] = [
    (4, "saddle, exact", lambda: AT_THETA(_diagonal(1, -2), np.ones(2)), {Status.INDEFINITE}),
    (
        4,
        "saddle, CG",
        lambda: MetaGradient(GradientDescent(0.05, 0), ImplicitGradient(CG(9)))(_diagonal(1, -2), np.ones(2)),
        {Status.INDEFINITE},
    ),
    (5, "lam = -mu_min", lambda: AT_THETA(_diagonal(1, -0.7), np.ones(2)), {Status.INDEFINITE}),
    (
        5,
        "lam = -mu_min + 1e-12, exact",
        lambda: AT_THETA(_diagonal(1, -0.7 + 1e-12), np.ones(2)),
        {Status.ILL_CONDITIONED},
    ),
    (5, "kappa = 1e9", lambda: Cholesky()(np.diag([1.0, 1e-9]), np.array([1.0, 0.0])), {Status.ILL_CONDITIONED}),
    (
        7,
        "inner step limit",
        lambda: MetaGradient(Newton(max_steps=0), FirstOrderGradient())(_diagonal(1, 2), np.ones(2)),
        {Status.MAX_STEPS},
    ),
    (
        7,
        "inner step limit, SciPy",
        lambda: MetaGradient(ScipyMinimize("Nelder-Mead", max_steps=2), FirstOrderGradient())(
            _diagonal(1, 2), np.ones(2)
        ),
        {Status.MAX_STEPS},
    ),
    (8, "step too long", lambda: PLAIN(_diagonal(1, 1e3), np.ones(2)), {Status.DIVERGED}),
    (9, "too few steps for the tolerance", lambda: CG(3, 1e-9)(_hilbert(9), np.ones(9)), {Status.MAX_STEPS}),
    (
        10,
        "budget",
        lambda: MetaGradient(GradientDescent(0.05, 3), ImplicitGradient(CG(1)))(_diagonal(1, 2), np.ones(2)),
        {Status.BUDGET_SPENT},
    ),
    (
        12,
        "step at 2/lambda_max and beyond",
        lambda: Neumann(2.1, 9)(np.diag([1.0, 0.1]), np.ones(2)),
        {Status.DIVERGED},
    ),
    (12, "step of 2/lambda_max", lambda: Neumann(2.0, 9)(np.eye(2), np.ones(2)), {Status.STAGNATED}),
    (11, "singular", lambda: CG(50, 1e-8)(np.ones((3, 3)), np.array([1.0, 2.0, 4.0])), {Status.INDEFINITE}),
    (
        11,
        "singular, exact",
        lambda: Cholesky()(np.ones((3, 3)), np.array([1.0, 2.0, 4.0])),
        {Status.INDEFINITE, Status.STAGNATED},
    ),
    (27, "NaN loss", lambda: PLAIN(_autodiff(lambda w: anp.sum(anp.sqrt(w - 9))), np.ones(2)), {Status.NONFINITE}),
    (
        29,
        "log(0) behind where",
        lambda: PLAIN(_autodiff(lambda w: anp.sum(anp.where(w > 0, anp.log(w), 0.0))), np.array([0.0, 1.0])),
        {Status.NONFINITE},
    ),
    (
        30,
        "overflow in a naive softmax",
        lambda: PLAIN(_autodiff(lambda w: anp.log(anp.sum(anp.exp(w)))), np.array([800.0, 0.0])),
        {Status.NONFINITE, Status.DIVERGED},
    ),
    (
        36,
        "infinite test gradient",
        lambda: AT_THETA(BilevelProblem(Diagonal(np.ones(2)), Diagonal(np.full(2, 1e308)), 0.7), np.full(2, 1e10)),
        {Status.NONFINITE},
    ),
]


def _hilbert(d: int) -> Any:
    return 1 / (np.arange(d)[:, None] + np.arange(d) + 1.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the losses of these cases over- and underflow themselves
@pytest.mark.parametrize("case", STATUSES, ids=[f"{row}: {what}" for row, what, *_ in STATUSES])
def test_numerical_failure_is_a_status_and_an_error_on_demand(case):
    _, _, call, wanted = case
    result = call()
    assert result.status in wanted
    if result.ok:
        result.unwrap()
        return
    with pytest.raises(IndefiniteError if result.status is Status.INDEFINITE else ConvergenceError):
        result.unwrap()


def test_row_06_a_phi_that_is_not_stationary():
    """The residual is reported and true, the error bar covers the error and blames φ, and strict mode goes on."""
    data = _data()
    problem, theta = BilevelProblem(data.softmax(), data.softmax(labels=(data.labels + 1) % C), 0.3), np.ones(D * C)
    exact = EXACT(problem, theta).unwrap()
    for steps in (0, 2):
        inner = GradientDescent(None, steps)(problem, theta)
        estimate = ImplicitGradient(Cholesky())(problem, theta, inner)
        residual = np.linalg.norm(problem.stationarity(inner.value, theta))
        assert abs(estimate.inner.residual_norm - residual) <= 16 * EPS * residual
        assert residual > 1e-3
        bar = certify(problem, theta, estimate)
        assert np.linalg.norm(estimate.gradient - exact) <= bar.bound
        assert bar.inner_share > 0.5 * bar.bound
    strict = MetaGradient(GradientDescent(None, 2), ImplicitGradient(CG(2))).to_accuracy(problem, theta, 1e-6)
    assert strict.status is Status.CONVERGED
    assert np.linalg.norm(strict.unwrap() - exact) <= 1e-6 * np.linalg.norm(strict.gradient)


class Mine(Exception):
    pass


@pytest.mark.parametrize("signal", [Mine, KeyboardInterrupt, StopIteration, MemoryError])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_rows_33_and_34_what_the_user_raises_comes_out_as_it_is(signal, after):
    """From a loss, at the first call or in the middle of a solve; no method here takes a callback."""
    thrown = signal("own")
    calls = []

    class Raising(Diagonal):
        def _call(self):
            calls.append(None)
            if len(calls) > after:
                raise thrown

        def value(self, x):
            self._call()
            return super().value(x)

        def gradient(self, x):
            self._call()
            return super().gradient(x)

        def linearize(self, x):
            self._call()
            return super().linearize(x)

    def traced(w):
        calls.append(None)
        if len(calls) > after:
            raise thrown
        return anp.sum(w**4)

    inner_solvers = (
        GradientDescent(0.01, 9),
        Newton(),
        ScipyMinimize("L-BFGS-B"),
        LBFGS(9),
        NewtonCG(9),
        Adam(0.1, 9),
    )
    for loss in (Raising(np.array([1.0, 3.0]), 1.0), Autodiff(traced)):
        for solver in inner_solvers:
            calls.clear()
            method = MetaGradient(solver, FiniteDifferenceGradient(solver))
            with pytest.raises(signal) as caught:
                method(BilevelProblem(loss, loss, 0.7), np.array([0.3, -0.8]))
            assert caught.value is thrown

    def operator(v):
        raise thrown

    for solver in (CG(3), ScipyCG(3), MINRES(3), LU(), Neumann(0.1, 3)):
        with pytest.raises(signal) as caught:
            solver(operator, np.ones(2))
        assert caught.value is thrown


def test_row_20_tasks_whose_labels_look_one_hot():
    """Two classes, one sample of each: tasks that bring their own X, or whose labels differ, are what they say."""
    X, labels = np.random.default_rng(3).standard_normal((2, 2, D)), np.array([[0, 1], [1, 0]])
    assert SoftmaxCrossEntropy(X, labels, 2).batch_shape == (2,)
    assert SoftmaxCrossEntropy(np.broadcast_to(X[0], (2, 2, D)), labels, 2).batch_shape == (2,)
    assert SoftmaxCrossEntropy(X[0], np.array([[0, 0], [1, 0]]), 2).batch_shape == (2,)
    with pytest.raises(ArgumentError, match=r"one-hot.*argmax.*np\.broadcast_to\(X, \(2, 2, 3\)\)"):
        SoftmaxCrossEntropy(X[0], labels, 2)


def test_row_36_what_scipy_gets_wrong():
    """‖b‖ ~ 1e-200 and 1e200: bitwise the scaled answer."""
    A, b = np.diag([1.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0])
    for solver in (CG(3), ScipyCG(3), Cholesky()):
        x = solver(A, b).value
        for exponent in (-664, 664):
            assert np.array_equal(solver(A, np.ldexp(b, exponent)).value, np.ldexp(x, exponent))


def test_row_32_a_loss_that_writes_into_theta():
    def vandal(w):
        w[0] = 0.0
        return anp.sum(w)

    theta = np.ones(2)
    with pytest.raises((ValueError, TypeError)):
        EXACT(_autodiff(vandal), theta)
    assert theta.tolist() == [1, 1]
