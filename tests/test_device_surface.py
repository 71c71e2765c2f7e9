"""The whole public surface on the strict device double: the host's numbers, no silent transfer, none in a loop.

Solvers and estimators are found, not listed: a new one is covered, or must be named as one for the host only.
"""

import dataclasses
import inspect

import numpy as np
import pytest
from device_double import DOUBLE, Traffic
from device_scenes import EPS, OBJECTIVES, close, condition, pair, same_status

import implicit_grad
from implicit_grad import (
    CG,
    EXACT,
    LU,
    ArgumentTypeError,
    CheckpointedGradient,
    Cholesky,
    ContrastiveGradient,
    Eigh,
    FiniteDifferenceGradient,
    ForwardModeGradient,
    GeneralLU,
    GradientDescent,
    ImplicitGradient,
    LambdaPath,
    MetaGradient,
    Newton,
    NewtonStep,
    OneStepGradient,
    Status,
    UnrolledGradient,
    extreme_eigenvalues,
)

HOST_ONLY = {
    *("BiCGSTAB", "GMRES", "GeneralGMRES", "LSMR", "MINRES", "ScipyCG"),
    "ScipyMinimize",
    "ComplexStepGradient",
}
"""SciPy's routines, factorisations with LAPACK, complex steps: they must say so when they meet a device array."""

_POLISHED = Newton(rtol=1e-13, linear_solver=CG(80, 1e-14))

FIELDS = {
    "max_steps": 30,
    "steps": 7,
    "step_size": 0.04,
    "lams": (0.4, 3.0),
    "strength": None,
    "inner_solver": _POLISHED,
    "linear_solver": CG(30),
    "rank": 3,
    "batch_size": 4,
    "seed": 11,
    "curvature": 1.5,
    "coarse": ContrastiveGradient(0.02, _POLISHED),
    "fine": ContrastiveGradient(0.01, _POLISHED),
    "order": 2,
}
"""What required fields of solvers and estimators are set to."""

OTHERS = {
    "linear": [CG(4), CG(80, 1e-13), CG(5, record=True)],
    "inner": [
        GradientDescent(None, 7),
        GradientDescent(0.04, 7, proximal=False),
        Newton(linear_solver=CG(80, 1e-14)),
    ],
    "estimator": [
        ImplicitGradient(Cholesky()),
        UnrolledGradient(window=3),
        CheckpointedGradient(2),
        OneStepGradient(NewtonStep()),
        LambdaPath((0.4, 3.0), 4),
        FiniteDifferenceGradient(FIELDS["inner_solver"], step=1e-4),
        ContrastiveGradient(None, FIELDS["inner_solver"], two_sided=False),
    ],
}
"""Further settings that take another way through the code."""

SIGNATURES = {"A, b": "linear", "problem, theta, start": "inner", "problem, theta, inner": "estimator"}


def required(cls):
    return [
        f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING and f.init
    ]


def _instance(cls):
    return cls(**{name: FIELDS[name] for name in required(cls)})


def _found(kind):
    """Instances of every public strategy of a kind, by its call signature."""
    classes = {}
    for name in vars(implicit_grad):
        cls = getattr(implicit_grad, name)
        if dataclasses.is_dataclass(cls) and "__call__" in vars(cls):
            arguments = ", ".join(list(inspect.signature(vars(cls)["__call__"]).parameters)[1:])
            if SIGNATURES.get(arguments) == kind:
                classes[name] = cls
    return classes


STRATEGIES = {kind: _found(kind) for kind in SIGNATURES.values()}
DEVICE = {
    kind: [_instance(c) for name, c in classes.items() if name not in HOST_ONLY and set(required(c)) <= set(FIELDS)]
    + OTHERS[kind]
    for kind, classes in STRATEGIES.items()
}


def test_the_surface_is_what_it_seems():
    """The search finds the ones everybody knows, and nothing is excused that does not exist."""
    found = {name for classes in STRATEGIES.values() for name in classes}
    assert {"CG", "Cholesky", "Woodbury", "GradientDescent", "Newton", "UnrolledGradient", "LambdaPath"} <= found
    assert found >= HOST_ONLY
    unknown = {name: set(required(cls)) - set(FIELDS) for c in STRATEGIES.values() for name, cls in c.items()}
    assert {name: fields for name, fields in unknown.items() if fields} == {}, "say in FIELDS how to make these"


EVERY_OBJECTIVE = pytest.mark.parametrize("name", OBJECTIVES)


@EVERY_OBJECTIVE
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_objectives(name, dtype):
    """Value, gradient, all products and bounds to four roundings of the largest entry, without any transfer."""
    plain, theta, device, there = pair(name, dtype)
    rng = np.random.default_rng(41)
    v, V = rng.standard_normal(theta.shape).astype(dtype), rng.standard_normal((4, *theta.shape)).astype(dtype)
    on = {key: DOUBLE.asarray(value) for key, value in {"v": v, "V": V}.items()}
    f, g = plain.inner, device.inner
    one = f.linearize(theta)
    Traffic.reset()
    two = g.linearize(there)
    results = [
        (two.value, one.value),
        (g.value(there), f.value(theta)),
        (two.gradient, one.gradient),
        (g.gradient(there), f.gradient(theta)),
        (two.hvp(on["v"]), one.hvp(v)),
        (two.hvp(on["V"]), one.hvp(V)),
    ]
    if one.hessian is not None:
        results.append((two.hessian(), one.hessian()))
    if one.factor is not None:
        results.append((two.factor.gram(), one.factor.gram()))
    for bound in ("gradient_terms", "curvature_bound"):
        if hasattr(f, bound):
            arguments = ((there,), (theta,)) if bound == "gradient_terms" else ((), ())
            results.append((getattr(g, bound)(*arguments[0]), getattr(f, bound)(*arguments[1])))
    assert (Traffic.reads, Traffic.uploads) == (0, 0)
    for got, wanted in results:
        close(got, wanted, 4 * float(np.finfo(dtype).eps))


NOISY = {
    "FiniteDifferenceGradient": EPS ** (2 / 3),
    "ContrastiveGradient": EPS ** (1 / 2),
    "RichardsonGradient": EPS ** (1 / 2),
}
"""Difference quotients amplify the last digits of their solves: η/h for noise η and step h."""


def _same_estimate(device, plain, bound):
    same_status(device.status, plain.status)
    close(device.gradient, plain.gradient, bound)
    if plain.linear is not None:
        same_status(device.linear.status, plain.linear.status)
    if plain.path is not None:
        close(device.path.points, plain.path.points, bound)


PAIRS = [
    pytest.param(name, solver, id=f"{name}, {type(solver).__name__} {i}")
    for name in OBJECTIVES
    for i, solver in enumerate(DEVICE["inner"])
]


@pytest.mark.parametrize(("name", "solver"), PAIRS)
def test_every_solver_and_estimator(name, solver):
    """Each inner solver, and from its solution each estimator and each linear solver; within 10³·d·eps·κ(A)."""
    plain, theta, device, there = pair(name)
    d = theta.shape[-1]
    try:
        wanted = solver(plain, theta)
    except (ValueError, TypeError) as error:
        with pytest.raises(type(error)):
            solver(device, there)
        return
    got = solver(device, there)
    bound = 1e3 * d * EPS * condition(plain, wanted.value if wanted.value.shape[:-1] == (2, 2) else theta)
    same_status(got.status, wanted.status)
    close(got.value, wanted.value, bound)
    if wanted.value.shape[:-1] != (2, 2):  # a path of λ of its own
        return
    estimators = [*DEVICE["estimator"], *(ImplicitGradient(linear) for linear in DEVICE["linear"])]
    for estimator in estimators:
        if type(estimator).__name__ in NOISY and solver is not DEVICE["inner"][-1]:
            continue  # they solve anew dozens of times, from any φ: once for each objective
        try:
            one = estimator(plain, theta, wanted)
        except (ValueError, TypeError) as error:
            # What the host refuses (unrolling what has no path, Woodbury without a factor) the device refuses alike.
            with pytest.raises(type(error)):
                estimator(device, there, got)
            continue
        noise = NOISY.get(type(estimator).__name__, 0.0)
        _same_estimate(estimator(device, there, got), one, bound + 1e3 * noise)


@pytest.mark.parametrize(
    "estimator", [UnrolledGradient(), UnrolledGradient(2), CheckpointedGradient(), ForwardModeGradient()], ids=repr
)
@pytest.mark.parametrize("proximal", [True, False])
@EVERY_OBJECTIVE
def test_unrolling(name, estimator, proximal):
    plain, theta, device, there = pair(name)
    method = MetaGradient(GradientDescent(0.04, 6, record=True, proximal=proximal), estimator)
    _same_estimate(method(device, there), method(plain, theta), 1e3 * theta.shape[-1] * EPS)


@EVERY_OBJECTIVE
def test_the_reference_itself(name):
    """Newton with Cholesky down to the rounding floor, and exact inversion there."""
    plain, theta, device, there = pair(name)
    wanted, got = EXACT(plain, theta), EXACT(device, there)
    assert (got.status == Status.CONVERGED).all()
    bound = 1e3 * theta.shape[-1] * EPS * condition(plain, wanted.inner.value)
    _same_estimate(got, wanted, bound)
    assert got.unwrap() is got.gradient


@pytest.mark.parametrize("name", sorted(HOST_ONLY))
def test_what_is_for_the_host_only_says_so(name):
    kind = next(kind for kind, classes in STRATEGIES.items() if name in classes)
    strategy = _instance(STRATEGIES[kind][name])
    _, _, device, there = pair("least squares")
    arguments = {
        "linear": (DOUBLE.asarray(np.eye(2)), DOUBLE.asarray(np.ones(2))),
        "inner": (device, there),
        "estimator": (device, there, GradientDescent(0.04, 2)(device, there)),
    }[kind]
    with pytest.raises(ArgumentTypeError, match="NumPy arrays only"):
        strategy(*arguments)


# Saddles, and one bad problem among good ones.

SYSTEMS = np.stack([np.diag([1.0, 4.0, 9.0]), np.diag([1.0, -1.0, 2.0]), np.eye(3), np.diag([2.0, 3.0, -5.0])])
SIDES = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [np.nan, 1.0, 1.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("solver", [CG(9), CG(9, 1e-10), Cholesky(), Cholesky(0), Eigh(), LU(), LU(0)], ids=repr)
def test_failures_are_per_problem(solver):
    """An indefinite matrix and a NaN beside good systems: statuses, values and curvatures of the host."""
    plain, device = solver(SYSTEMS, SIDES), solver(DOUBLE.asarray(SYSTEMS), DOUBLE.asarray(SIDES))
    assert list(device.status) == list(plain.status)
    close(device.value, plain.value, 64 * EPS)
    bad = np.array([1, 3])
    lowest = device.smallest_eigenvalue.get()[bad]
    assert np.abs(lowest - plain.smallest_eigenvalue[bad]).max() <= 64 * EPS * 5


@pytest.mark.parametrize("solver", [Eigh(), LU(), Cholesky(), GeneralLU(), GeneralLU(0)], ids=repr)
def test_singular_and_nearly_singular_matrices_are_told_apart(solver):
    """Beside a good one, one that is infinite and one whose scale is extreme; κ to 64·d·eps·κ."""
    Q, _ = np.linalg.qr(np.random.default_rng(59).standard_normal((3, 3)))
    spectra = [(1.0, 2.0, 3.0), (1e-12, 1.0, 2.0), (-1e-20, 1.0, 2.0), (-2.0, 1.0, 3.0), (1.0, 2.0, 3.0)]
    A = np.stack([(Q * np.array(each)) @ Q.T for each in spectra])
    A = 0.5 * (A + np.swapaxes(A, -1, -2))
    A[2], A[4] = np.diag([0.0, 1.0, 2.0]), np.inf
    A = np.concatenate([A, 1e250 * A[:1]])
    b = np.cos(np.arange(18.0)).reshape(6, 3)
    plain, device = solver(A, b), solver(DOUBLE.asarray(A), DOUBLE.asarray(b))
    assert list(device.status) == list(plain.status)
    saddles = set() if isinstance(solver, GeneralLU) else {"INDEFINITE"}  # which knows no saddle of a bare matrix
    assert {each.name for each in plain.status} == {"CONVERGED", "ILL_CONDITIONED", "NONFINITE"} | saddles
    for i in (0, 5):
        assert np.abs(device.value.get()[i] - plain.value[i]).max() <= 64 * EPS * np.abs(plain.value[i]).max()
    if not isinstance(solver, Cholesky):
        got, wanted = device.condition.get(), plain.condition
        assert np.array_equal(np.isnan(got), np.isnan(wanted))
        assert np.abs(got[[0, 3, 5]] - wanted[[0, 3, 5]]).max() <= 64 * 3 * EPS * 3


def test_cholesky_does_not_believe_a_silent_library():
    """The double returns garbage for an indefinite matrix, as CuPy does, unless told to raise."""
    indefinite = DOUBLE.asarray(np.diag([1.0, -1.0]))
    assert np.isfinite(DOUBLE.xp.linalg.cholesky(indefinite).get()).all()
    solution = Cholesky()(indefinite, DOUBLE.asarray(np.ones(2)))
    assert solution.status is Status.INDEFINITE or list(np.ravel(solution.status)) == [Status.INDEFINITE]
    assert np.isnan(solution.value.get()).all()


def test_a_matrix_that_is_not_finite_stays_alone():
    A = np.stack([np.eye(2), np.diag([np.inf, 1.0]), 2 * np.eye(2)])
    plain, device = Cholesky()(A, np.ones((3, 2))), Cholesky()(DOUBLE.asarray(A), DOUBLE.asarray(np.ones((3, 2))))
    assert list(device.status) == list(plain.status) == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    close(device.value, plain.value, 4 * EPS)


def test_lanczos_estimates():
    plain, theta, device, there = pair("tanh network")
    for one, two in zip(
        extreme_eigenvalues(plain.curvature(plain.parameters(theta)), 30),
        extreme_eigenvalues(device.curvature(device.parameters(there)), 30),
        strict=True,
    ):
        assert np.abs(one - two).max() <= 64 * theta.shape[-1] * EPS * np.abs(one).max()
