"""Regularisers, maps, roots and certificates on the device double: the host's numbers, or an error that says why not.

What there is to cover is found in the public names, not listed.
"""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from device_double import DOUBLE, DeviceArray, Traffic
from device_scenes import EPS, OBJECTIVES, close, pair

import implicit_grad
from implicit_grad import (
    CG,
    ArgumentTypeError,
    AutodiffMap,
    BackendError,
    DiagonalQuadratic,
    FixedPoint,
    ImplicitFunction,
    ImplicitGradient,
    LogCosh,
    LossError,
    MetaGradient,
    Newton,
    NewtonRoot,
    PseudoHuber,
    Quadratic,
    RegularizedProblem,
    RelativeEntropy,
    agree,
    certify,
    implicit_function,
    outer_loss,
)

WEIGHTS = np.array([0.7, 1.5, 2.0])
REGULARIZERS = {
    Quadratic: 0.7,
    DiagonalQuadratic: WEIGHTS,
    LogCosh: 1.3,
    PseudoHuber: 0.6,
    RelativeEntropy: 0.9,
}
COVERED = {"RegularizedProblem", "AutodiffMap", "FixedPoint", "BilevelProblem", "Stretched"}
"""Problems and maps of this file and of the scenes; `Stretched` is in `test_a_whitened_problem`."""


def _public(*methods):
    """Public classes, protocols aside, that have these methods."""
    found = {name: getattr(implicit_grad, name) for name in vars(implicit_grad)}
    return {
        name
        for name, cls in found.items()
        if isinstance(cls, type) and not getattr(cls, "_is_protocol", False) and all(hasattr(cls, m) for m in methods)
    }


def test_every_public_objective_problem_and_regulariser_is_covered():
    scenes = {type(build(_data(), np.asarray)).__name__ for build in OBJECTIVES.values()}
    assert _public("linearize") | _public("stationarity") == scenes | COVERED
    assert _public("by_strength") == {cls.__name__ for cls in REGULARIZERS}


def _data():
    from device_scenes import data_of

    return data_of(31)


def _scene(cls):
    """The same regularised problem on both sides, with positive φ and θ."""
    plain, theta, device, _ = pair("least squares")
    rng = np.random.default_rng(53)
    theta = np.abs(theta) + 0.3
    phi, q = np.abs(rng.standard_normal(theta.shape)) + 0.2, rng.standard_normal(theta.shape)
    host = RegularizedProblem(plain.inner, plain.outer, cls(REGULARIZERS[cls]))
    there = RegularizedProblem(device.inner, device.outer, cls(DOUBLE.asarray(REGULARIZERS[cls])))
    return host, there, phi, theta, q


EVERY_REGULARIZER = pytest.mark.parametrize("cls", REGULARIZERS, ids=lambda cls: cls.__name__)


@EVERY_REGULARIZER
def test_regularisers(cls):
    """Within four roundings of the host, and nothing is read or sent."""
    host, there, phi, theta, q = _scene(cls)
    at = [DOUBLE.asarray(each) for each in (phi, theta, q)]
    methods = {"value": 2, "gradient": 2, "curvature": 2, "coupling": 2, "by_strength": 3}
    Traffic.reset()
    got = [getattr(there.regularizer, name)(*at[:n]) for name, n in methods.items()]
    assert (Traffic.reads, Traffic.uploads) == (0, 0)
    for one, (name, n) in zip(got, methods.items(), strict=True):
        close(one, getattr(host.regularizer, name)(*(phi, theta, q)[:n]), 4 * EPS)


@EVERY_REGULARIZER
def test_roots_and_implicit_gradients(cls):
    """`NewtonRoot`, then `ImplicitFunction` there; within 10³·d·eps·κ of the host."""
    host, there, phi, theta, _ = _scene(cls)
    at = DOUBLE.asarray(theta)
    solver = CG(40, 1e-13)
    close(there.linearize(DOUBLE.asarray(phi), at).value, host.linearize(phi, theta).value, 4 * EPS)
    root = NewtonRoot(linear_solver=solver)
    wanted, got = root(host, theta, theta), root(there, at, at)
    assert list(got.status.flat) == list(wanted.status.flat)
    products = host.linearize(wanted.value, theta).phi_product
    J = np.stack([products(np.broadcast_to(e, theta.shape)) for e in np.eye(3)], axis=-1)
    bound = 1e3 * 3 * EPS * np.linalg.cond(J).max()
    close(got.value, wanted.value, bound)
    one = ImplicitFunction(host, solver).gradient(wanted, theta, host.outer)
    close(ImplicitFunction(there, solver).gradient(got, at, there.outer).gradient, one.gradient, bound)


@pytest.mark.parametrize("cls", [Quadratic, DiagonalQuadratic])
def test_a_whitened_problem(cls):
    host, there, phi, _, q = _scene(cls)
    (plain, root), (device, root_there) = host.whitened(), there.whitened()
    at = root_there * DOUBLE.asarray(phi)
    assert isinstance(at, DeviceArray)
    one, two = plain.inner.linearize(root * phi), device.inner.linearize(at)
    close(two.gradient, one.gradient, 4 * EPS)
    close(two.hvp(DOUBLE.asarray(q)), one.hvp(q), 8 * EPS)


def _coupled(put):
    """A map whose Jacobian in φ is not symmetric, for φ and θ of three entries."""
    W = put(np.array([[0.9, -0.4, 0.2], [0.3, 1.1, -0.5], [-0.1, 0.6, 0.8]]))
    return lambda p, t: p + anp.tanh(anp.einsum("ij,...j->...i", W, p)) * t**2 - anp.sin(t)


MAPS = {
    "one by one": lambda put: AutodiffMap(_coupled(put)),
    "broadcasting": lambda put: AutodiffMap(_coupled(put), broadcasts=True),
    "fixed point": lambda put: FixedPoint(AutodiffMap(lambda p, t: 0.3 * anp.tanh(p) * t + t)),
}
PHI = np.cos(np.arange(6.0)).reshape(2, 3)
THETA = 0.5 + 0.3 * np.sin(np.arange(6.0)).reshape(2, 3)


@pytest.mark.parametrize("make", MAPS.values(), ids=MAPS)
def test_maps_of_autograd(make):
    """Value and all four products, to 64 roundings of the largest entry; once sent, nothing moves."""
    plain, device = make(np.asarray).linearize(PHI, THETA), make(DOUBLE.asarray)
    at, u, put = (DOUBLE.asarray(PHI), DOUBLE.asarray(THETA)), np.sin(PHI), DOUBLE.asarray
    on = put(u)
    Traffic.reset()
    there = device.linearize(*at)
    names = ("phi_product", "phi_adjoint", "theta_product", "theta_adjoint")
    got = [there.value, device.value(*at), *(getattr(there, name)(on) for name in names)]
    assert (Traffic.reads, Traffic.uploads) == (0, 0)
    wanted = [plain.value, plain.value, *(getattr(plain, name)(u) for name in names)]
    for one, two in zip(got, wanted, strict=True):
        close(one, two, 64 * EPS)


@pytest.mark.parametrize("make", MAPS.values(), ids=MAPS)
def test_their_roots_and_derivatives(make):
    """By LU of a matrix that is not symmetric; κ < 2 here."""
    plain, device = make(np.asarray), make(DOUBLE.asarray)
    phi, theta = DOUBLE.asarray(PHI), DOUBLE.asarray(THETA)
    wanted, got = NewtonRoot()(plain, THETA, PHI), NewtonRoot()(device, theta, phi)
    assert list(got.status.flat) == list(wanted.status.flat)
    assert wanted.ok.all()
    close(got.value, wanted.value, 1e3 * 2 * EPS)
    here, there = ImplicitFunction(plain), ImplicitFunction(device)
    for name in ("vjp", "jvp"):
        one = getattr(here, name)(wanted, THETA, PHI)
        two = getattr(there, name)(got, theta, phi)
        assert list(two.status.flat) == list(one.status.flat)
        close(two.value, one.value, 1e3 * 2 * EPS)
    one = here.gradient(wanted, THETA, lambda p, t: anp.sum(p**2) + anp.sum(p * t))
    two = there.gradient(got, theta, lambda p, t: anp.sum(p**2) + anp.sum(p * t))
    close(two.gradient, one.gradient, 1e3 * 2 * EPS)


def test_roots_ask_once_a_step_and_without_a_tolerance_never():
    F, at = AutodiffMap(_coupled(DOUBLE.asarray), broadcasts=True), (DOUBLE.asarray(THETA), DOUBLE.asarray(PHI))
    for rtol, looks in ((0.0, 0), (1e-10, 1)):
        counts = []
        for steps in (2, 6):
            Traffic.reset()
            NewtonRoot(rtol, steps)(F, *at)
            counts.append((Traffic.reads, Traffic.uploads))
        assert counts[1][0] - counts[0][0] <= 4 * looks
        assert counts[1][1] == counts[0][1]


def test_a_map_that_holds_a_host_array_is_told_so():
    """The function is named, and the place where its arguments must live."""
    F, phi = AutodiffMap(_coupled(np.asarray)), DOUBLE.asarray(PHI)
    with pytest.raises(LossError, match=r"F: `einsum` cannot do this on device_double arrays"):
        F.value(phi, DOUBLE.asarray(THETA))
    with pytest.raises(BackendError, match=r"\['device_double', 'numpy'\]"):
        AutodiffMap(_coupled(DOUBLE.asarray)).value(phi, THETA)
    with pytest.raises(LossError, match="expected a real array of the shape of phi"):
        AutodiffMap(lambda p, t: np.ones(3)).value(phi, phi)


def test_what_is_for_the_host_only_says_so():
    """Differentiable solvers, certificates and comparisons."""
    _, _, device, there = pair("least squares")
    F = _coupled(DOUBLE.asarray)
    for call in (
        lambda: implicit_function(lambda t: t, F)(there[0]),
        lambda: implicit_function(lambda t: t, F)({"a": [there[0]]}),
    ):
        with pytest.raises(ArgumentTypeError, match="NumPy arrays"):
            call()
    estimate = MetaGradient(Newton(), ImplicitGradient(CG(9)))(device, there)
    for call in (lambda: certify(device, there, estimate), lambda: agree(device, there)):
        with pytest.raises(ArgumentTypeError, match="on the host; move"):
            call()


def test_the_outer_loss_of_an_autograd_program():
    """Its value and its gradient live on the device, where θ does; the estimator's numbers are the host's."""
    plain, theta, device, there = pair("softmax")
    method = MetaGradient(Newton(linear_solver=CG(80, 1e-14)), ImplicitGradient(CG(80, 1e-14)))
    wanted = outer_loss(plain, method)(theta)
    close(outer_loss(device, method)(there), wanted, 1e3 * theta.shape[-1] * EPS)
    slope = grad(lambda x: anp.sum(outer_loss(plain, method)(x)))(theta)
    close(grad(lambda x: anp.sum(outer_loss(device, method)(x)))(there), slope, 1e4 * theta.shape[-1] * EPS)
