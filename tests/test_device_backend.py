"""The switch: where new data goes, what is said when it cannot go there, and that it is the same data."""

import os
import sys
import types

import numpy as np
import pytest
from device_double import DOUBLE, DeviceArray, Traffic
from device_tables import NOT_IN_CUPY

from analysis import figure as figures
from analysis.panels import PANELS, Panel
from implicit_grad import (
    CG,
    ArgumentError,
    BackendError,
    BackendUnavailable,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    UnrolledGradient,
    backend,
    cli,
)
from implicit_grad.backend import NUMPY, Backend, device_of, get_backend, namespace, register, to_numpy
from implicit_grad.sweep import ErrorSweep
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid, TaskSource

EPS = float(np.finfo(np.float64).eps)
NAME = "device_double"


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.delenv(backend.ENVIRONMENT, raising=False)
    monkeypatch.setattr(backend, "_REGISTERED", dict(backend._REGISTERED))
    monkeypatch.setattr(backend, "_KINDS", {})


def test_the_host_is_the_default():
    assert get_backend() is get_backend("numpy") is get_backend(NUMPY) is NUMPY
    x = np.arange(3.0)
    assert NUMPY.asarray(x) is x
    assert NUMPY.to_host(x) is x
    assert NUMPY.synchronize() is None
    A = np.array([[4.0, 2.0], [2.0, 3.0]])
    L = NUMPY.cholesky(A)
    b = np.array([1.0, 2.0])
    solved = NUMPY.solve_triangular(L, NUMPY.solve_triangular(L, b, False), True)
    assert np.abs(A @ solved - b).max() <= 16 * EPS


def test_the_environment_sets_the_default_and_nothing_else(monkeypatch):
    monkeypatch.setenv(backend.ENVIRONMENT, NAME)
    assert get_backend() is DOUBLE
    assert get_backend("numpy") is NUMPY
    assert namespace(np.ones(2), 1.0) is np
    assert type(RandomRidge(3).initial_parameters(np.random.default_rng(7))) is DeviceArray
    monkeypatch.setenv(backend.ENVIRONMENT, "")
    assert get_backend() is NUMPY
    monkeypatch.setenv(backend.ENVIRONMENT, "tpu")
    with pytest.raises(ArgumentError, match=r"^IMPLICIT_GRAD_BACKEND: 'tpu' is none of"):
        get_backend()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match=r"^backend: 'cuda' is none of \['cupy', 'device_double', 'numpy'\]"):
        get_backend("cuda")


def test_a_name_is_taken_once():
    assert register(DOUBLE) is DOUBLE
    with pytest.raises(ArgumentError, match="device_double"):
        register(Backend(NAME, np, dict, *[None] * 5))


def test_arrays_decide():
    x = DOUBLE.asarray(np.ones(3))
    assert device_of(x) is DOUBLE
    assert namespace(x, 2.0, None, 3) is DOUBLE.xp
    assert all(device_of(other) is None for other in (np.ones(2), 1.0, None, [x]))
    assert np.array_equal(to_numpy(x), np.ones(3))
    with pytest.raises(BackendError, match=r"\['device_double', 'numpy'\]"):
        namespace(x, np.ones(3))

    class Derived(DeviceArray):
        pass

    assert device_of(Derived(np.ones(2))) is DOUBLE


def test_numbers_are_the_same_functions_of_device_arrays():
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((2, 4, 5))
    there = DOUBLE.asarray(x)
    Traffic.reset()
    results = {
        "norm": backend.norm(there),
        "dot": backend.dot(there, there),
        "power_of_two_scale": backend.power_of_two_scale(there),
        "transpose": backend.transpose(there),
        "expand": backend.expand(there, (2, 4, 5)),
        "concatenate": backend.concatenate([there, there]),
    }
    assert (Traffic.reads, Traffic.uploads) == (0, 0)
    assert backend.epsilon(there) == EPS
    arguments = {"dot": (x, x), "expand": (x, (2, 4, 5)), "concatenate": ([x, x],)}
    for name, got in results.items():
        wanted = getattr(backend, name)(*arguments.get(name, (x,)))
        assert np.abs(got.get() - wanted).max() <= 4 * EPS * np.abs(wanted).max()
    there += DOUBLE.asarray(y)
    assert np.array_equal(there.get(), x + y)


SOURCES = [RandomRidge(dim=4, train_samples=6), Sinusoid(3, 4, (3,)), Digits(3, 2, 4), Digits(3, 2, 4, hidden=(2,))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: f"{s.label}, {s.size}")
@pytest.mark.parametrize("place", [NAME, DOUBLE], ids=["by name", "by value"])
def test_tasks_are_the_same_bits_wherever_they_live(source, place):
    assert isinstance(source, TaskSource)
    lam = np.array([[0.3], [4.0]])
    here = source.sample(np.random.default_rng(11), tasks=3, lam=lam)
    rng = np.random.default_rng(11)
    there = source.sample(rng, tasks=3, lam=lam, backend=place)
    for half in ("inner", "outer"):
        one, two = getattr(here, half), getattr(there, half)
        for data in {"X", "y", "labels"} & set(vars(one)):
            assert type(getattr(two, data)) is DeviceArray
            assert getattr(two, data).get().tobytes() == getattr(one, data).tobytes()
    theta = source.initial_parameters(np.random.default_rng(13))
    moved = source.initial_parameters(np.random.default_rng(13), backend=place)
    assert type(moved) is DeviceArray
    assert moved.get().tobytes() == theta.tobytes()


METHODS = (
    MetaGradient(GradientDescent(None, 0), ImplicitGradient(Cholesky())),
    MetaGradient(GradientDescent(None, 0), ImplicitGradient(CG(2), require_minimum=False)),
    MetaGradient(GradientDescent(None, 0), ImplicitGradient(CG(30, 1e-10))),
    MetaGradient(GradientDescent(None, 0), UnrolledGradient()),
    MetaGradient(GradientDescent(None, 0, proximal=False), UnrolledGradient()),
    MetaGradient(GradientDescent(None, 0), FirstOrderGradient()),
)


@pytest.mark.parametrize(
    ("source", "lams"), [(SOURCES[0], (0.1, 3.0)), (SOURCES[1], (8.0, 50.0)), (SOURCES[2], (0.1, 3.0))]
)
def test_a_sweep_on_the_device_is_the_sweep_on_the_host(source, lams):
    """Every variable lives on the host; errors agree to 10³·d·eps·κ, statuses and what was drawn exactly."""
    sweep = ErrorSweep(source, METHODS, lams, (0, 3, 9), tasks=2, seed=17, at_optimum=True)
    here, there = sweep.run(), sweep.run(backend=NAME)
    assert sorted(here.variables) == sorted(there.variables)
    bound = 1e3 * source.size * EPS * float(here.condition.max())
    for name in here.data_vars:
        one, two = here[name].values, there[name].values
        assert isinstance(two, np.ndarray)
        assert np.array_equal(np.isfinite(one), np.isfinite(two)), name
        if name != "status":
            good = np.isfinite(one)
            assert np.abs(one[good] - two[good]).max() <= bound * max(1.0, np.abs(one[good]).max()), name
    assert here.attrs["config"] == there.attrs["config"]


def test_the_command_line_computes_where_it_is_told(monkeypatch, tmp_path):
    stem, seen = figures.STEMS[0], []
    monkeypatch.setattr(
        figures.Figure, "reproduce", lambda self, out, **options: seen.append(options["backend"]) or []
    )
    for variable, arguments in (("", ["--backend", NAME]), ("", []), (NAME, []), (NAME, ["--backend", "numpy"])):
        monkeypatch.setenv(backend.ENVIRONMENT, variable)
        cli.main(["reproduce", stem, "--out", str(tmp_path), *arguments])
    assert seen == [DOUBLE, NUMPY, DOUBLE, NUMPY]


def test_a_figure_is_drawn_from_a_device(monkeypatch, tmp_path):
    for name in set(PANELS) - {"ridge"}:
        monkeypatch.delitem(PANELS, name)
    monkeypatch.setitem(PANELS, "ridge", Panel("ridge", RandomRidge(dim=3, train_samples=4), 0.2, 2, 8))
    stem = figures.STEMS[0]
    Traffic.reset()
    cli.main(["reproduce", stem, "--backend", NAME, "--out", str(tmp_path), "--seed", "7"])
    assert Traffic.reads > 0 < Traffic.uploads
    assert {path.suffix for path in tmp_path.glob(f"{stem}.*")} == {".pdf", ".png", ".md"}


# What is missing. Each cause is played by a library of that name; what a real CuPy says is in test_device_cupy.


class _Error(RuntimeError):
    pass


def _library(driver=13000, built=13020, devices=1, asarray=None, version="14.2.0"):
    """A `cupy` that does what broken installations do."""
    cupy = types.ModuleType("cupy")
    cupy.ndarray = type("ndarray", (), {"__module__": "cupy"})
    cupy.__version__ = version

    def count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built, getDeviceCount=count
        ),
        Device=lambda: types.SimpleNamespace(synchronize=lambda: None),
    )

    def fails(x):
        raise _Error("cudaErrorSomething: no luck")

    cupy.asarray, cupy.asnumpy = asarray or fails, np.asarray
    return cupy


CAUSES = {
    "no driver": ({"driver": 0}, "CuPy 14.2.0 is installed, but this machine has no NVIDIA driver"),
    "old driver": ({"driver": 11040}, "the NVIDIA driver is too old: it serves CUDA 11.4, not 13.2"),
    "no device": ({"devices": 0}, "the NVIDIA driver finds no device"),
    "no device, raised": ({"devices": _Error("cudaErrorNoDevice")}, "the NVIDIA driver finds no device"),
    "broken": ({}, r"it cannot compute on 1 device\(s\)"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_what_is_missing_is_said(name, monkeypatch):
    """The cause first, then the library's own words."""
    options, words = CAUSES[name]
    monkeypatch.setitem(sys.modules, "cupy", _library(**options))
    backend._REGISTERED.pop("cupy", None)
    with pytest.raises(BackendUnavailable, match=f"^backend: .*{words}: _Error: cudaErrorSomething: no luck$"):
        get_backend("cupy")


def test_a_device_that_computes_wrongly_is_no_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", _library(asarray=lambda x: x + 1))
    backend._REGISTERED.pop("cupy", None)
    with pytest.raises(BackendUnavailable, match="wrongly"):
        get_backend("cupy")


def test_a_device_that_computes_is_returned(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", _library(asarray=np.asarray))
    backend._REGISTERED.pop("cupy", None)
    found = get_backend("cupy")
    assert found.name == "cupy"
    assert get_backend("cupy") is found


@pytest.mark.parametrize("missing", ["cupy", "numpy.missing"])
def test_a_library_that_does_not_load(missing, monkeypatch):
    """Not installed and installed but broken are two things."""
    backend._REGISTERED.pop("cupy", None)

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "cupy":
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    words = (
        r"CuPy is not installed: pip install 'implicit-grad\[gpu\]'"
        if missing == "cupy"
        else "does not load: No module"
    )
    with pytest.raises(BackendUnavailable, match=words):
        get_backend("cupy")


def test_the_command_line_ends_with_the_cause_and_writes_nothing(monkeypatch, tmp_path, capsys):
    """No fallback, neither by argument nor by environment."""
    monkeypatch.setitem(sys.modules, "cupy", _library(driver=0))
    backend._REGISTERED.pop("cupy", None)
    out = tmp_path / "figures"
    for arguments, variable in ((["--backend", "cupy"], ""), ([], "cupy")):
        monkeypatch.setenv(backend.ENVIRONMENT, variable)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["reproduce", "all", "--quick", "--out", str(out), *arguments])
        assert exit_.value.code == 2
        assert "no NVIDIA driver" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize("source", SOURCES[:2], ids=lambda s: s.label)
def test_a_source_without_its_device_draws_nothing(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", _library(driver=0))
    backend._REGISTERED.pop("cupy", None)
    rng = np.random.default_rng(19)
    before = rng.bit_generator.state
    with pytest.raises(BackendUnavailable):
        source.sample(rng, tasks=2, lam=1.0, backend="cupy")
    with pytest.raises(BackendUnavailable):
        source.initial_parameters(rng, backend="cupy")
    assert rng.bit_generator.state == before
    assert os.environ.get(backend.ENVIRONMENT) is None


# The double itself: it must be able to refuse.


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: np.asarray(x), "Implicit conversion"),
        (lambda x: x + np.ones(3), "Unsupported type"),
        (lambda x: np.ones(3) * x, "Unsupported type"),
        (lambda x: np.add(x, np.array(1.0)), "Unsupported type"),
        (lambda x: np.concatenate([x, np.ones(3)]), "Unsupported type"),
        (lambda x: x.__setitem__(slice(None), np.ones(3)), "Unsupported type"),
        (lambda x: x.__iadd__(np.ones(3)), "Unsupported type"),
        (lambda x: np.block([x, x]), "no implementation found"),
        (lambda x: np.vecdot(x, x), "returned NotImplemented"),
        (lambda x: np.reshape(x, (3, 1), order=None), "NoneType"),
        (lambda x: DOUBLE.xp.sort(x, 0, None, None), "takes"),
        (lambda x: DOUBLE.xp.sum(np.ones(3)), "Unsupported type"),
    ],
)
def test_the_double_refuses_what_cupy_refuses(f, words):
    with pytest.raises(TypeError, match=words):
        f(DOUBLE.asarray(np.ones(3)))


def test_the_double_counts():
    x = DOUBLE.asarray(np.arange(4.0))
    for reads, uploads, f in (
        (0, 0, lambda: x.sum() + x[0] * 2.0 + np.float64(3) - np.sum(x)),
        (1, 0, lambda: float(x[0])),
        (1, 0, lambda: bool(x.sum() > 1)),
        (1, 0, lambda: x[x > 1]),
        (1, 0, x.get),
        (0, 1, lambda: x[[0, 1]]),
        (0, 1, lambda: DOUBLE.asarray(np.ones(2))),
        (0, 0, lambda: DOUBLE.asarray(x)),
        (0, 0, lambda: DOUBLE.xp.linalg.cholesky(DOUBLE.xp.eye(2))),
    ):
        Traffic.reset()
        f()
        assert (Traffic.reads, Traffic.uploads) == (reads, uploads)
    assert type(x.sum()) is DeviceArray
    assert type(x[0]) is DeviceArray
    assert not any(hasattr(DOUBLE.xp, name) for name in NOT_IN_CUPY)
    one, other = DOUBLE.xp.linalg.cholesky(DOUBLE.asarray(np.stack([-np.eye(2), 4 * np.eye(2)]))).get()
    assert (one == 7).all()
    assert (other == 2 * np.eye(2)).all()
