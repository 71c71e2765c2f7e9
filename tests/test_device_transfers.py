"""Where the double counts: no loop makes the host wait for the device, and nothing is moved without being asked."""

import dataclasses

import numpy as np
import pytest
from device_double import DOUBLE, Traffic
from device_scenes import EPS, LAM, OBJECTIVES, close, condition, pair
from test_device_surface import FIELDS, HOST_ONLY, STRATEGIES, required

import implicit_grad
from implicit_grad import (
    CG,
    ArgumentTypeError,
    BackendError,
    CheckpointedGradient,
    ForwardModeGradient,
    GradientDescent,
    ImplicitGradient,
    LambdaPath,
    MetaGradient,
    UnrolledGradient,
)

EVERY_OBJECTIVE = pytest.mark.parametrize("name", OBJECTIVES)


def _traffic(run):
    Traffic.reset()
    run()
    return Traffic.reads, Traffic.uploads


@EVERY_OBJECTIVE
@pytest.mark.parametrize(
    "method",
    [
        lambda k: MetaGradient(GradientDescent(0.01, k), ImplicitGradient(CG(3))),
        lambda k: MetaGradient(GradientDescent(None, k, record=True), ImplicitGradient(CG(3))),
        lambda k: MetaGradient(GradientDescent(0.01, 3), ImplicitGradient(CG(k))),
        lambda k: MetaGradient(GradientDescent(0.01, 3), ImplicitGradient(CG(k, record=True))),
        lambda k: MetaGradient(GradientDescent(0.01, k, record=True), UnrolledGradient()),
        lambda k: MetaGradient(GradientDescent(0.01, k, record=True, proximal=False), UnrolledGradient(3)),
        lambda k: MetaGradient(GradientDescent(0.01, k), CheckpointedGradient()),
        lambda k: MetaGradient(GradientDescent(0.01, k), ForwardModeGradient()),
        lambda k: MetaGradient(GradientDescent(0.01, 3), LambdaPath((0.5, 2.0), k)),
    ],
)
def test_no_loop_transfers_anything(name, method):
    """Nine times the steps: the same few reads and uploads before and after the loops."""
    _, _, device, there = pair(name)
    device.lam_like(there)  # sent once, by whoever asks first
    counts = [_traffic(lambda k=k: method(k)(device, there)) for k in (3, 27)]
    assert counts[0] == counts[1]


def _counted(kind):
    """Public strategies of a kind that have a number of steps, with the name of that field."""
    for name, cls in STRATEGIES[kind].items():
        fields = {f.name for f in dataclasses.fields(cls)}
        count = next((each for each in ("steps", "max_steps") if each in fields), None)
        if count is not None and name not in HOST_ONLY:
            settings = {each: FIELDS[each] for each in required(cls)} | ({"rtol": 0.0} if "rtol" in fields else {})
            yield name, lambda k, cls=cls, settings=settings, count=count: cls(**settings | {count: k})


COUNTED = [(kind, name, make) for kind in STRATEGIES for name, make in _counted(kind)]


@EVERY_OBJECTIVE
@pytest.mark.parametrize(("kind", "method", "make"), COUNTED, ids=lambda x: x if isinstance(x, str) else "")
def test_without_a_tolerance_no_loop_transfers_anything(name, kind, method, make):
    """Found, not listed: every public method with a number of steps, on every objective."""
    _, _, device, there = pair(name)
    device.lam_like(there)
    start = GradientDescent(0.01, 2)(device, there)
    run = {
        "inner": lambda k: make(k)(device, there),
        "linear": lambda k: ImplicitGradient(make(k))(device, there, start),
        "estimator": lambda k: make(k)(device, there, start),
    }[kind]
    if method == "SGD" and not hasattr(device.inner, "minibatch"):
        with pytest.raises(ArgumentTypeError, match="minibatch"):
            run(3)
        return
    few, many = (_traffic(lambda k=k: run(k)) for k in (3, 12))
    assert few == many


def test_every_method_with_steps_is_found():
    names = {name for _, name, _ in COUNTED}
    assert names >= {"Newton", "MixedPrecision", "LBFGS", "NewtonCG", "CG", "SGD", "LambdaPath", "BlockCG"}


SEARCHES = {
    "L-BFGS": (lambda k, rtol: implicit_grad.LBFGS(k, rtol=rtol), 1),
    "Newton-CG": (lambda k, rtol: implicit_grad.NewtonCG(k, rtol=rtol), 1),
    "Newton": (lambda k, rtol: implicit_grad.Newton(rtol, k), 16),
    "Newton by CG": (lambda k, rtol: implicit_grad.Newton(rtol, k, CG(4)), 16),
}
"""Methods that search, and how often they ask in eight steps: a step of Newton's may take a factorisation."""


@pytest.mark.parametrize("method", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("name", ["softmax", "tanh network", "autodiff"])
def test_searches_ask_whether_all_are_done_if_there_is_a_tolerance(name, method):
    make, asked = method
    _, _, device, there = pair(name)
    device.lam_like(there)
    for rtol in (0.0, 1e-15):
        few, many = (_traffic(lambda k=k, rtol=rtol: make(k, rtol)(device, there)) for k in (8, 24))
        assert many[1] == few[1]
        assert many[0] - few[0] <= (2 * asked if rtol else 0)


def test_refinement_asks_once_a_correction_if_there_is_a_tolerance():
    A, b = DOUBLE.asarray(np.diag([1.0, 40.0, 900.0])), DOUBLE.asarray(np.ones((2, 3)))
    for rtol, looks in ((0.0, 0), (1e-15, 1)):
        solvers = [implicit_grad.MixedPrecision(CG(1), k, rtol) for k in (2, 6)]
        few, many = (_traffic(lambda s=s: s(A, b)) for s in solvers)
        assert many[1] == few[1]
        assert many[0] - few[0] <= 4 * looks
    exact = implicit_grad.MixedPrecision(CG(3), 9, 1e-9)
    assert exact(A, b).cost == exact(A.get(), b.get()).cost  # it stops where the host does


@pytest.mark.parametrize(
    "method",
    [
        MetaGradient(GradientDescent(None, 5, record=True), ImplicitGradient(CG(3, record=True))),
        MetaGradient(GradientDescent(0.01, 5), ImplicitGradient(implicit_grad.Cholesky())),
        MetaGradient(implicit_grad.LBFGS(9), ImplicitGradient(CG(3))),
        MetaGradient(implicit_grad.Newton(0.0, 4), ImplicitGradient(implicit_grad.Cholesky())),
        MetaGradient(GradientDescent(0.01, 5, record=True), UnrolledGradient()),
        MetaGradient(implicit_grad.Continuation((3.0, 1.0, 0.5), GradientDescent(0.01, 5)), ImplicitGradient(CG(3))),
    ],
    ids=lambda m: f"{type(m.inner_solver).__name__}, {m.label}",
)
def test_nobody_waits_before_somebody_looks(method):
    """θ is checked at the border; after that the host only gives work to the device, until a status is asked for."""
    _, _, device, there = pair("softmax")
    device.lam_like(there)
    border, _ = _traffic(lambda: device.parameters(there))
    visits = len(getattr(method.inner_solver, "lams", (1,)))
    found = []
    reads, _ = _traffic(lambda: found.append(method(device, there)))
    assert reads <= 2 * visits * border
    assert _traffic(lambda: (found[0].codes, found[0].inner.codes)) == (0, 0)
    assert _traffic(lambda: found[0].status) == (1, 0)


def test_with_a_tolerance_conjugate_gradient_looks_every_eighth_step():
    rng = np.random.default_rng(43)
    Q, _ = np.linalg.qr(rng.standard_normal((60, 60)))
    A, b = DOUBLE.asarray(Q @ np.diag(np.linspace(1, 50, 60)) @ Q.T), DOUBLE.asarray(rng.standard_normal((5, 60)))
    A = DOUBLE.asarray(0.5 * (A.get() + A.get().T))
    few = _traffic(lambda: CG(8, 1e-14)(A, b))
    many = _traffic(lambda: CG(40, 1e-14)(A, b))
    assert many[0] - few[0] == 4
    assert many[1] == few[1]


FIRST_ORDER = {
    "descent": lambda k, rtol: GradientDescent(1e-3, k, rtol=rtol),
    "Nesterov": lambda k, rtol: implicit_grad.Nesterov(1e-3, k, rtol=rtol),
    "heavy ball": lambda k, rtol: implicit_grad.HeavyBall(1e-3, k, momentum=0.5, rtol=rtol),
    "Adam": lambda k, rtol: implicit_grad.Adam(1e-4, k, rtol=rtol),
}


@pytest.mark.parametrize("method", FIRST_ORDER.values(), ids=FIRST_ORDER)
@pytest.mark.parametrize("name", ["softmax", "tanh network", "autodiff"])
def test_first_order_methods_look_every_eighth_step_and_without_a_tolerance_never(name, method):
    _, _, device, there = pair(name)
    device.lam_like(there)
    for rtol, looks in ((0.0, 0), (1e-14, 4)):
        few, many = (_traffic(lambda k=k, rtol=rtol: method(k, rtol)(device, there)) for k in (8, 40))
        assert (many[0] - few[0], many[1] - few[1]) == (looks, 0)


@pytest.mark.parametrize("name", ["least squares", "softmax"])
def test_descent_past_its_tolerance_stands_still(name):
    """Steps, statuses and iterates of the host, although the device goes on until it is asked."""
    plain, theta, device, there = pair(name)
    solver = GradientDescent(None, 400, rtol=1e-3)
    wanted, got = solver(plain, theta), solver(device, there)
    assert wanted.steps.max() < 400
    assert np.array_equal(got.steps.get(), wanted.steps)
    assert list(got.status.flat) == list(wanted.status.flat)
    close(got.value, wanted.value, 1e3 * theta.shape[-1] * EPS)
    assert wanted.cost.gradients < got.cost.gradients <= wanted.cost.gradients + 7


def test_steps_too_many_are_counted_and_change_nothing():
    A, b = np.diag([1.0, 4.0, 9.0]), np.array([[1.0, 2.0, 3.0], [1.0, 0.0, 0.0]])
    plain, device = CG(30, 1e-10)(A, b), CG(30, 1e-10)(DOUBLE.asarray(A), DOUBLE.asarray(b))
    assert np.array_equal(device.steps.get(), plain.steps)
    close(device.value, plain.value, 4 * EPS)
    assert plain.cost.hvps < device.cost.hvps <= plain.cost.hvps + 7


def test_lambda_is_sent_once():
    _, _, device, there = pair("least squares")
    first = _traffic(lambda: device.lam_like(there))
    assert first == (0, 1)
    assert _traffic(lambda: device.lam_like(there)) == (0, 0)


# Mixtures.


@EVERY_OBJECTIVE
def test_host_and_device_do_not_mix(name):
    plain, theta, device, there = pair(name)
    method = MetaGradient(GradientDescent(0.04, 2), ImplicitGradient(CG(2)))
    for problem, point in ((plain, there), (device, theta)):
        with pytest.raises(
            (BackendError, implicit_grad.LossError), match=r"device_double|numpy\.ndarray|cannot do this"
        ):
            method(problem, point)


def test_one_clear_error_names_both():
    with pytest.raises(BackendError, match=r"\['device_double', 'numpy'\]; move them"):
        CG(2)(np.eye(2), DOUBLE.asarray(np.ones(2)))
    plain, theta, _, _ = pair("least squares")
    with pytest.raises(BackendError, match="device_double"):
        plain.with_lam(DOUBLE.asarray(LAM)).parameters(theta)


def test_memory_of_a_device_is_not_measured_on_the_host():
    _, _, device, there = pair("least squares")
    with pytest.raises(ArgumentTypeError, match="measure_memory"):
        MetaGradient(GradientDescent(0.1, 2), ImplicitGradient(CG(2)), measure_memory=True)(device, there)


def test_the_counts_can_fail(monkeypatch):
    """Descent that looks at its mask, and conjugate gradient that looks at its own, are seen at every step."""
    from implicit_grad.inner import _first_order
    from implicit_grad.linear import cg

    _, _, device, there = pair("least squares")
    method = MetaGradient(GradientDescent(0.01, 5), ImplicitGradient(CG(5)))
    few = _traffic(lambda: method(device, there))
    with monkeypatch.context() as patch:
        patch.setattr(_first_order, "device_of", lambda x: None)
        assert _traffic(lambda: method(device, there))[0] == few[0] + 5
    with monkeypatch.context() as patch:
        patch.setattr(cg, "look_again", lambda active, step, *, tolerance: bool(DOUBLE.xp.any(active)))
        assert _traffic(lambda: method(device, there))[0] > few[0]


def test_the_gradient_in_lambda():
    plain, theta, device, there = pair("tanh network")
    method = MetaGradient(GradientDescent(0.04, 6), ImplicitGradient(CG(60, 1e-13)))
    wanted = implicit_grad.lambda_gradient(plain, theta, method(plain, theta))
    got = implicit_grad.lambda_gradient(device, there, method(device, there))
    close(got, wanted, 1e3 * theta.shape[-1] * EPS * condition(plain, theta))
