"""Autodiff on device arrays: every rule and every proven function, to second order, against autograd on the host."""

import inspect
import re
import subprocess
import sys

import autograd.numpy as anp
import autograd.scipy.special as special
import numpy as np
import pytest
from autograd import hessian, jacobian, make_jvp
from autograd.core import primitive_jvps, primitive_vjps
from autograd.numpy import linalg, numpy_wrapper
from autograd.tracer import trace_primitives_map
from device_double import DOUBLE, DeviceArray, Traffic
from device_programs import PROGRAMS, C, V, X, loss_of

from implicit_grad import (
    CG,
    ArgumentTypeError,
    Autodiff,
    BackendError,
    BilevelProblem,
    GradientDescent,
    ImplicitGradient,
    LossError,
    MetaGradient,
    UnrolledGradient,
)
from implicit_grad.objectives._device_rules import PROVEN, RULES, TANGENTS, install
from implicit_grad.objectives._device_space import BUILDERS

EPS = float(np.finfo(np.float64).eps)

install(DeviceArray, DOUBLE.xp)


def both(program):
    return Autodiff(loss_of(program, C)), Autodiff(loss_of(program, DOUBLE.asarray(C)))


def differences(program):
    """Relative differences of value, gradient and Hessian-vector product between device and host."""
    host, device = both(program)
    x, v = DOUBLE.asarray(X), DOUBLE.asarray(V)
    one = host.linearize(X)
    Traffic.reset()
    two = device.linearize(x)
    product = two.hvp(v)
    assert (Traffic.reads, Traffic.uploads) == (0, 0)
    pairs = ((one.value, two.value), (one.gradient, two.gradient), (one.hvp(V), product))
    for _, got in pairs:
        assert type(got) is DeviceArray
    return [float(np.max(np.abs(got.get() - wanted)) / (1e-3 + np.max(np.abs(wanted)))) for wanted, got in pairs]


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_derivatives_are_those_of_the_host(name):
    """Equal to 64 roundings of the largest entry; no transfer in either direction."""
    assert max(differences(PROGRAMS[name])) <= 64 * EPS


def _traced(program, monkeypatch):
    """Functions of autograd whose vjp a program on the device makes, to second order."""
    seen = set()
    for function, own in list(primitive_vjps.items()):
        monkeypatch.setitem(primitive_vjps, function, lambda *args, f=function, own=own: (seen.add(f), own(*args))[1])
    _, device = both(program)
    device.linearize(DOUBLE.asarray(X)).hvp(DOUBLE.asarray(V))
    return seen


def test_every_proven_function_is_proven(monkeypatch):
    """Each name on the list is differentiated by the program of that name."""
    for space, names in PROVEN.items():
        for name in names.split():
            with monkeypatch.context() as patch:
                assert trace_primitives_map[getattr(space, name)] in _traced(PROGRAMS[name], patch), name


@pytest.mark.parametrize("function", RULES, ids=lambda f: f.__name__)
def test_no_rule_can_be_spared(function, monkeypatch):
    """With autograd's own rule in place of ours some program fails or is wrong."""
    own = inspect.getclosurevars(primitive_vjps[function]).nonlocals["own"]
    monkeypatch.setitem(primitive_vjps, function, own)
    assert any(_broken(name) for name in PROGRAMS)


@pytest.mark.parametrize("name", BUILDERS)
def test_no_builder_can_be_spared(name, monkeypatch):
    host = inspect.getclosurevars(getattr(numpy_wrapper, name)).nonlocals["host"]
    monkeypatch.setattr(numpy_wrapper, name, host)
    assert any(_broken(name) for name in PROGRAMS)


def _broken(name):
    try:
        return max(differences(PROGRAMS[name])) > 64 * EPS
    except (LossError, TypeError, ValueError, AssertionError):
        return True


FORWARD = ["where", "concatenate", "array", "stack", "slices", "sum", "max", "array, more axes", "dot", "ravel"]


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(name):
    """jvp, and jvp of vjp (forward over reverse), through the same rules."""
    host, device = loss_of(PROGRAMS[name], C), loss_of(PROGRAMS[name], DOUBLE.asarray(C))
    x, v = DOUBLE.asarray(X), DOUBLE.asarray(V)
    wanted, got = make_jvp(host)(X)(V)[1], make_jvp(device)(x)(v)[1]
    assert abs(float(got) - wanted) <= 64 * EPS * (1 + abs(wanted))
    wanted = make_jvp(lambda p: gradient_of(host, p))(X)(V)[1]
    got = make_jvp(lambda p: gradient_of(device, p))(x)(v)[1]
    assert np.abs(got.get() - wanted).max() <= 64 * EPS * (1 + np.abs(wanted).max())


def gradient_of(f, x):
    from autograd import grad

    return grad(f)(x)


@pytest.mark.parametrize("function", TANGENTS, ids=lambda f: f.__name__)
def test_no_forward_rule_can_be_spared(function, monkeypatch):
    own = inspect.getclosurevars(primitive_jvps[function]).nonlocals["own"]
    monkeypatch.setitem(primitive_jvps, function, own)
    with pytest.raises((TypeError, ValueError)):
        test_forward_mode("where")


def test_jacobians_and_hessians_of_autograd_work():
    host, device = loss_of(PROGRAMS["einsum"], C), loss_of(PROGRAMS["einsum"], DOUBLE.asarray(C))
    for operator, f, g in (
        (hessian, host, device),
        (jacobian, lambda x: x[1:] * x[:-1], lambda x: x[1:] * x[:-1]),
    ):
        wanted, got = operator(f)(X), operator(g)(DOUBLE.asarray(X))
        assert np.abs(got.get() - wanted).max() <= 64 * EPS * np.abs(wanted).max()


def test_equal_indices_add_up():
    """Fancy indices that repeat an entry, on the device as index arrays."""
    index = np.array([0, 3, 3, 5])
    there = DOUBLE.asarray(index)
    host = Autodiff(lambda x: anp.sum(x[index] ** 3))
    device = Autodiff(lambda x: anp.sum(x[there] ** 3))
    assert np.array_equal(device.gradient(DOUBLE.asarray(X)).get(), host.gradient(X))
    assert np.array_equal(device.linearize(DOUBLE.asarray(X)).hvp(DOUBLE.asarray(V)).get(), host.linearize(X).hvp(V))


@pytest.mark.parametrize("name", ["sum", "where", "max", "var", "softmax"])
def test_single_precision_stays_single(name):
    def softmax(x, c):
        return anp.mean(x - anp.log(anp.sum(anp.exp(x - anp.max(x)))))

    program = {**PROGRAMS, "softmax": softmax}[name]
    c, x = DOUBLE.asarray(C.astype(np.float32)), DOUBLE.asarray(X.astype(np.float32))
    linearized = Autodiff(loss_of(program, c)).linearize(x)
    exact = Autodiff(loss_of(program, C)).linearize(X)
    for got, wanted in (
        (linearized.gradient, exact.gradient),
        (linearized.hvp(DOUBLE.asarray(V.astype(np.float32))), exact.hvp(V)),
    ):
        assert got.dtype == np.float32
        assert np.abs(got.get() - wanted).max() <= 256 * np.finfo(np.float32).eps * (1 + np.abs(wanted).max())


HOST_BYTES = """
import sys
import autograd.numpy as np
import numpy as onp
from autograd import grad, hessian, make_jvp
sys.path.insert(0, {tests!r})
x, c = onp.linspace(0.2, 0.9, 6), onp.cos(onp.arange(6.0))
def loss(p):
    g = p.reshape(2, 3)
    a = np.sum(np.where(c > 0, p**2, p)) + np.max(g, axis=0)[1] + np.var(p) + np.std(p * c) + np.prod(p) + np.mean(p)
    b = np.dot(g, g.T)[0, 1] + np.einsum("ij,j->i", g, p[:3])[0] + np.concatenate([p, p * c])[7] * p[2] + p.min()
    return a * b + np.sum(np.stack([p, p**3])) + np.array([p[0], p[1]])[0] * np.array(p)[3] + np.ravel(g)[1] ** 2
def everything():
    tangent = make_jvp(loss)(x)(c)[1]
    return b"".join(onp.asarray(each).tobytes() for each in (loss(x), grad(loss)(x), hessian(loss)(x), tangent))
before = everything()
from device_double import DOUBLE, DeviceArray
from implicit_grad.objectives._device_rules import install
install(DeviceArray, DOUBLE.xp)
assert type(grad(lambda p: np.sum(p**2))(DOUBLE.asarray(x))) is DeviceArray
print(before == everything(), len(before))
"""


def test_the_host_gets_the_same_bits_with_the_rules_installed():
    """Value, gradient, Hessian and a jvp of a loss that uses every function with a rule."""
    from pathlib import Path

    code = HOST_BYTES.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", str(8 * (1 + 6 + 36 + 1))]


def test_nothing_is_installed_until_a_device_array_is_differentiated():
    code = (
        "import sys, numpy as np, autograd.numpy as anp\n"
        "from implicit_grad import Autodiff\n"
        "Autodiff(lambda x: anp.sum(x**2)).linearize(np.ones(2)).hvp(np.ones(2))\n"
        "print('implicit_grad.objectives._device_rules' in sys.modules, 'cupy' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_autograd_has_the_names_that_the_rules_rest_on():
    """None of these is public: a new autograd that lacks one must fail here, not on somebody's GPU."""
    import autograd.core
    import autograd.numpy.numpy_vjps as numpy_vjps

    for owner, names in (
        (autograd.core, ("primitive_vjps", "primitive_jvps")),
        (numpy_vjps, ("unbroadcast", "unbroadcast_f")),
        (numpy_wrapper, (*BUILDERS, "parse_einsum_input", "metadata")),
    ):
        assert [name for name in names if not hasattr(owner, name)] == []


UNSUPPORTED = {
    "sort": lambda x: anp.sum(anp.sort(x)),
    "trace": lambda x: anp.trace(anp.outer(x, x)),
    "diagonal": lambda x: anp.sum(anp.diagonal(anp.outer(x, x))),
    "cholesky": lambda x: anp.sum(linalg.cholesky(anp.outer(x, x) + anp.diag(x))),
    "eigh": lambda x: linalg.eigh(anp.outer(x, x))[0][0],
    "kron": lambda x: anp.sum(anp.kron(x, x)),
    "pad": lambda x: anp.sum(anp.pad(x, 1, "constant")),
    "einsum": lambda x: anp.einsum(x, [0], x, [0], []),
    "reshape": lambda x: anp.sum(anp.reshape(x, (2, 3), order="F")),
    "logsumexp": lambda x: special.logsumexp(x),
    "multiply": lambda x: anp.sum(x * C),
    "add": lambda x: anp.sum(x + anp.zeros(6)),
    "where": lambda x: anp.sum(anp.where(x > 0.5, anp.zeros(6), x)),
    "array": lambda x: anp.sum(anp.array(x, dtype=np.float32)),
    "gammaln": lambda x: anp.sum(special.gammaln(x)),
    "unwrap": lambda x: anp.sum(anp.unwrap(x)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_named(name):
    """One kind of error for all of it, at the first gradient, with the function's name."""
    with pytest.raises(LossError, match=rf"^f: .*{re.escape(name)}|^f: `{re.escape(name)}`|{re.escape(name)}"):
        Autodiff(UNSUPPORTED[name]).gradient(DOUBLE.asarray(X))


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: 1.0, "stays on the device"),
        (lambda x: x, "shape"),
        (lambda x: anp.sum(x) > 0, "bool"),
        (lambda x: float(x[0]), r"float\(\)"),
        (lambda x: None, "NoneType"),
    ],
)
def test_bad_losses_are_refused(f, words):
    with pytest.raises(LossError, match=words):
        Autodiff(f).gradient(DOUBLE.asarray(X))


def test_a_loss_cannot_change_its_argument():
    def loss(x):
        x[0] = 7.0
        return anp.sum(x)

    x = DOUBLE.asarray(X)
    Autodiff(loss).value(x)
    assert np.array_equal(x.get(), X)


def regression(Z, y):
    return lambda p: anp.mean((anp.dot(anp.tanh(anp.dot(Z, p["W"])), p["v"]) - y) ** 2)


def batched(Z, y):
    return lambda p: anp.mean((anp.einsum("nd,...d->...n", Z, p) - y) ** 2, axis=-1) + anp.sum(p**4, axis=-1)


METHODS = [
    MetaGradient(GradientDescent(0.1, 6), ImplicitGradient(CG(3))),
    MetaGradient(GradientDescent(None, 5), ImplicitGradient(CG(40, 1e-12))),
    MetaGradient(GradientDescent(0.1, 6, record=True), UnrolledGradient()),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.label)
@pytest.mark.parametrize("broadcasts", [False, True])
def test_meta_gradients_of_user_losses(method, broadcasts):
    rng = np.random.default_rng(23)
    Z, y = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 7))
    theta = rng.standard_normal((2, 3))

    def problem(asarray):
        train, test = (batched(asarray(Z[i]), asarray(y[i])) for i in range(2))
        return BilevelProblem(Autodiff(train, broadcasts), Autodiff(test, broadcasts), 0.7)

    plain, device = method(problem(np.asarray), theta), method(problem(DOUBLE.asarray), DOUBLE.asarray(theta))
    assert np.array_equal(device.status, plain.status)
    # κ(A) < 100 here.
    error = np.linalg.norm(device.gradient.get() - plain.gradient)
    assert error <= 100 * 64 * EPS * np.linalg.norm(plain.gradient)


def test_a_parameter_tree_on_the_device():
    rng = np.random.default_rng(29)
    Z, y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    theta = {"W": rng.standard_normal((2, 3)), "v": rng.standard_normal(3)}

    def problem(asarray):
        return BilevelProblem(
            *(Autodiff(regression(asarray(Z[s]), asarray(y[s]))) for s in (slice(4), slice(4, 8))), 0.7
        )

    plain = METHODS[0](problem(np.asarray), theta)
    device = METHODS[0](problem(DOUBLE.asarray), {key: DOUBLE.asarray(value) for key, value in theta.items()})
    for key, wanted in plain.gradient.items():
        assert type(device.gradient[key]) is DeviceArray
        assert np.abs(device.gradient[key].get() - wanted).max() <= 100 * 64 * EPS * np.abs(wanted).max()


def test_strange_arrays_are_refused():
    with pytest.raises((ArgumentTypeError, BackendError)):
        Autodiff(lambda x: anp.sum(x)).value([1.0, 2.0])
