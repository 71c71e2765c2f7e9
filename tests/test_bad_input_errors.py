"""Bad input that cannot be solved for: a typed error that names the argument; never silent NaN.

The numbers in the ids are those of the table of bad input in the project's reference notes.
"""

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from bad_input_scenes import C, D, Data, N, good_data
from scipy.sparse import csr_array

from implicit_grad import (
    CG,
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    GradientDescent,
    ImplicitGradError,
    ImplicitGradient,
    LossError,
    Neumann,
    Newton,
    NonFiniteError,
    Nystrom,
    ScipyCG,
    ScipyMinimize,
    SoftmaxCrossEntropy,
    UnrolledGradient,
)


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
    data = good_data()
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


def test_row_20_tasks_whose_labels_look_one_hot():
    """Two classes, one sample of each: tasks that bring their own X, or whose labels differ, are what they say."""
    X, labels = np.random.default_rng(3).standard_normal((2, 2, D)), np.array([[0, 1], [1, 0]])
    assert SoftmaxCrossEntropy(X, labels, 2).batch_shape == (2,)
    assert SoftmaxCrossEntropy(np.broadcast_to(X[0], (2, 2, D)), labels, 2).batch_shape == (2,)
    assert SoftmaxCrossEntropy(X[0], np.array([[0, 0], [1, 0]]), 2).batch_shape == (2,)
    with pytest.raises(ArgumentError, match=r"one-hot.*argmax.*np\.broadcast_to\(X, \(2, 2, 3\)\)"):
        SoftmaxCrossEntropy(X[0], labels, 2)
