"""CuPy itself, as far as it goes without a GPU; skipped where it is not installed."""

import subprocess
import sys

import numpy as np
import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'implicit-grad[gpu]'")

import autograd.numpy as anp  # noqa: E402
import device_cupy_host  # noqa: E402
import device_programs as programs  # noqa: E402
import device_scenes as scenes  # noqa: E402
import device_tables  # noqa: E402
from device_double import Traffic  # noqa: E402

from implicit_grad import (  # noqa: E402
    CG,
    LU,
    Autodiff,
    BackendError,
    BackendUnavailable,
    Cholesky,
    Eigh,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    Newton,
    Status,
    UnrolledGradient,
)
from implicit_grad.backend import get_backend  # noqa: E402

EPS = float(np.finfo(np.float64).eps)


def _has_device():
    try:
        get_backend("cupy")
    except BackendUnavailable:
        return False
    return True


NO_DEVICE = pytest.mark.skipif(_has_device(), reason="there is a GPU: nothing is missing here")


@NO_DEVICE
def test_installed_but_no_device():
    """The whole message, from the library that is really there."""
    with pytest.raises(BackendUnavailable) as caught:
        get_backend("cupy")
    message = str(caught.value)
    assert message.startswith(f"backend: CuPy {cupy.__version__} is installed, but ")
    assert any(cause in message for cause in ("no NVIDIA driver", "too old", "finds no device", "cannot be asked"))
    assert type(caught.value.__cause__).__name__ in message


@NO_DEVICE
def test_the_command_line_says_so_and_writes_nothing(tmp_path):
    arguments = ["reproduce", "all", "--quick", "--backend", "cupy", "--out", str(tmp_path / "figures")]
    run = subprocess.run(
        [sys.executable, "-m", "implicit_grad.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "CuPy" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "figures").exists()


def test_the_double_lacks_what_cupy_lacks():
    """Every name that CuPy does not have is on the list; every name on the list is really missing."""
    for ours, theirs, missing in (
        (np, cupy, device_tables.NOT_IN_CUPY),
        (np.linalg, cupy.linalg, device_tables.NOT_IN_CUPY_LINALG),
    ):
        absent = {name for name in dir(ours) if not name.startswith("_") and not hasattr(theirs, name)}
        functions = {n for n in absent if callable(getattr(ours, n)) and not isinstance(getattr(ours, n), type)}
        assert missing <= absent
        assert functions <= missing


def test_the_double_takes_the_arguments_that_cupy_takes():
    import inspect

    for name, arguments in device_tables.ARGUMENTS.items():
        own = list(inspect.signature(getattr(cupy, name)).parameters)
        assert own == arguments.split(), name


@pytest.fixture
def place(monkeypatch):
    """Real CuPy arrays over host memory."""
    return device_cupy_host.patch(monkeypatch)


def test_these_are_cupy_arrays(place):
    x = place.asarray(np.arange(6.0).reshape(2, 3))
    assert isinstance(x, cupy.ndarray)
    assert type(x).__array_ufunc__ is cupy.ndarray.__array_ufunc__
    assert type(x).__array_function__ is cupy.ndarray.__array_function__
    assert np.array_equal(np.add(x.T[::-1], 1.0).get(), np.arange(6.0).reshape(2, 3).T[::-1] + 1)
    for f in (lambda: np.asarray(x), lambda: x + np.ones((2, 3)), lambda: np.concatenate([x, np.ones((1, 3))])):
        with pytest.raises(TypeError):
            f()
    with pytest.raises(BackendError, match=r"\['cupy', 'numpy'\]"):
        CG(2)(np.eye(3), x)


def _on(place, name):
    build = scenes.OBJECTIVES[name]
    from implicit_grad import BilevelProblem

    train, test = scenes.data_of(31), scenes.data_of(37)
    plain, theta, _, _ = scenes.pair(name)
    return plain, theta, BilevelProblem(build(train, place.asarray), build(test, place.asarray), scenes.LAM)


METHODS = [
    MetaGradient(GradientDescent(0.04, 6), ImplicitGradient(CG(3))),
    MetaGradient(GradientDescent(None, 6), ImplicitGradient(CG(60, 1e-12))),
    MetaGradient(GradientDescent(0.04, 6, record=True), UnrolledGradient()),
    MetaGradient(Newton(), ImplicitGradient(Cholesky())),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m.inner_solver).__name__}, {m.label}")
@pytest.mark.parametrize("name", scenes.OBJECTIVES)
def test_meta_gradients(place, name, method):
    """The numbers of the host; as many reads and uploads for three times the steps."""
    plain, theta, device = _on(place, name)
    there = place.asarray(theta)
    wanted, got = method(plain, theta), method(device, there)
    assert isinstance(got.gradient, cupy.ndarray)
    scenes.same_status(got.status, wanted.status)
    bound = 1e3 * theta.shape[-1] * EPS * scenes.condition(plain, wanted.inner.value)
    assert np.abs(got.gradient.get() - wanted.gradient).max() <= bound * np.abs(wanted.gradient).max()
    if isinstance(method.inner_solver, GradientDescent):
        from dataclasses import replace

        longer = replace(method, inner_solver=replace(method.inner_solver, steps=18))
        counts = []
        for each in (method, longer):
            Traffic.reset()
            each(device, there)
            counts.append((Traffic.reads, Traffic.uploads))
        if method.estimator != METHODS[1].estimator:  # a tolerance may take more or fewer looks
            assert counts[0] == counts[1]


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_autodiff(place, name):
    """The programs of the rules: value, gradient and product to 64 roundings, no transfers."""
    program = programs.PROGRAMS[name]
    c, x, v = (place.asarray(each) for each in (programs.C, programs.X, programs.V))
    one = Autodiff(programs.loss_of(program, programs.C)).linearize(programs.X)
    Traffic.reset()
    two = Autodiff(programs.loss_of(program, c)).linearize(x)
    product = two.hvp(v)
    assert (Traffic.reads, Traffic.uploads) == (0, 0)
    for got, wanted in ((two.value, one.value), (two.gradient, one.gradient), (product, one.hvp(programs.V))):
        assert isinstance(got, cupy.ndarray)
        assert np.abs(got.get() - wanted).max() <= 64 * EPS * (1e-3 + np.abs(wanted).max())


@pytest.mark.parametrize("solver", [Cholesky(), Eigh(), LU()], ids=repr)
def test_a_saddle_is_found(place, solver):
    A = place.asarray(np.stack([np.eye(2), np.diag([1.0, -1.0])]))
    solution = solver(A, place.asarray(np.ones((2, 2))))
    assert list(solution.status) == [Status.CONVERGED, Status.INDEFINITE]
    assert float(anp.sum(solution.value[0]).get()) == 2.0
