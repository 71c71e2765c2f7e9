"""On a real GPU: the numbers of the host, silence inside the loops, and errors that are noticed.

The tolerances are those of the double times 16: cuBLAS and cuSOLVER sum in other orders.
"""

from dataclasses import replace

import device_programs as programs
import device_scenes as scenes
import numpy as np
import pytest

from implicit_grad import (
    CG,
    EXACT,
    LBFGS,
    Autodiff,
    BilevelProblem,
    CheckpointedGradient,
    Cholesky,
    FirstOrderGradient,
    ForwardModeGradient,
    GradientDescent,
    ImplicitGradient,
    LambdaPath,
    MetaGradient,
    Newton,
    NewtonCG,
    Status,
    UnrolledGradient,
    Woodbury,
)
from implicit_grad.tasks import RandomRidge

pytestmark = [
    pytest.mark.gpu,
    # It finds the reads that CuPy makes itself, and those are the ones that a loop here could make.
    pytest.mark.filterwarnings("ignore:cupyx.allow_synchronize will be removed"),
]
EPS = float(np.finfo(np.float64).eps)

METHODS = [
    MetaGradient(GradientDescent(0.04, 6), ImplicitGradient(CG(3))),
    MetaGradient(GradientDescent(None, 6), ImplicitGradient(CG(60, 1e-12))),
    MetaGradient(GradientDescent(None, 6), ImplicitGradient(Cholesky())),
    MetaGradient(GradientDescent(0.04, 6, record=True), UnrolledGradient()),
    MetaGradient(GradientDescent(0.04, 6), CheckpointedGradient()),
    MetaGradient(GradientDescent(0.04, 6), ForwardModeGradient()),
    MetaGradient(GradientDescent(0.04, 6), LambdaPath((0.4, 3.0), 3)),
    MetaGradient(GradientDescent(0.04, 6), FirstOrderGradient()),
    EXACT,
]


def _problems(gpu, name, dtype=np.float64):
    plain, theta, _, _ = scenes.pair(name, dtype)
    build = scenes.OBJECTIVES[name]
    halves = (build(scenes.data_of(seed, dtype), gpu.asarray) for seed in (31, 37))
    return plain, theta, BilevelProblem(*halves, scenes.LAM), gpu.asarray(theta)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m.inner_solver).__name__}, {m.label}")
@pytest.mark.parametrize("name", scenes.OBJECTIVES)
def test_meta_gradients(gpu, name, method, dtype):
    plain, theta, device, there = _problems(gpu, name, dtype)
    wanted, got = method(plain, theta), method(device, there)
    assert isinstance(got.gradient, gpu.array_type)
    assert got.gradient.dtype == dtype
    if dtype == np.float64:  # in single precision the rounding floor decides about more statuses
        scenes.same_status(got.status, wanted.status)
    host, good = gpu.to_host(got.gradient), np.isfinite(wanted.gradient)
    kappa = scenes.condition(*scenes.pair(name)[:2])
    bound = 16e3 * theta.shape[-1] * float(np.finfo(dtype).eps) * kappa
    assert np.abs(host - wanted.gradient)[good].max() <= bound * np.abs(wanted.gradient[good]).max()


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_autodiff(gpu, name):
    program = programs.PROGRAMS[name]
    one = Autodiff(programs.loss_of(program, programs.C)).linearize(programs.X)
    two = Autodiff(programs.loss_of(program, gpu.asarray(programs.C))).linearize(gpu.asarray(programs.X))
    product = two.hvp(gpu.asarray(programs.V))
    for got, wanted in ((two.value, one.value), (two.gradient, one.gradient), (product, one.hvp(programs.V))):
        assert np.abs(gpu.to_host(got) - wanted).max() <= 16 * 64 * EPS * (1e-3 + np.abs(wanted).max())


def test_woodbury(gpu):
    plain, theta, device, there = _problems(gpu, "least squares")
    method = MetaGradient(GradientDescent(0.04, 6), ImplicitGradient(Woodbury()))
    wanted, got = method(plain, theta), method(device, there)
    scenes.same_status(got.status, wanted.status)
    bound = 16e3 * theta.shape[-1] * EPS * scenes.condition(plain, theta)
    assert np.abs(gpu.to_host(got.gradient) - wanted.gradient).max() <= bound * np.abs(wanted.gradient).max()


def test_an_indefinite_matrix_is_noticed_by_cholesky(gpu):
    """cuSOLVER's info is ignored by default: then the factor is garbage, and nobody is told."""
    A = np.stack([np.eye(2), np.diag([1.0, -1.0]), 2 * np.eye(2)])
    solution = Cholesky()(gpu.asarray(A), gpu.asarray(np.ones((3, 2))))
    assert list(solution.status) == [Status.CONVERGED, Status.INDEFINITE, Status.CONVERGED]
    assert float(solution.smallest_eigenvalue[1]) == pytest.approx(-1.0, rel=64 * EPS)


class Fenced:
    """A loss after whose second call of one kind, and until its last, nothing may wait for the device."""

    def __init__(self, loss, kind, calls):
        from cupyx import allow_synchronize

        self.loss, self.kind, self.calls, self.count = loss, kind, calls, 0
        self.fence = allow_synchronize(False)

    def __getattr__(self, name):
        return getattr(self.loss, name)

    def _called(self, kind):
        self.count += kind == self.kind
        if kind == self.kind and self.count == 2:
            self.fence.__enter__()
        if kind == self.kind and self.count == self.calls:
            self.fence.__exit__(None, None, None)

    def value(self, x):
        return self.loss.value(x)

    def gradient(self, x):
        self._called("gradient")
        return self.loss.gradient(x)

    def linearize(self, x):
        self._called("linearize")
        linearization = self.loss.linearize(x)

        def hvp(v):
            self._called("hvp")
            return linearization.hvp(v)

        return replace(linearization, hvp=hvp)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("gradient", MetaGradient(GradientDescent(0.01, 20), FirstOrderGradient())),
        ("gradient", MetaGradient(GradientDescent(0.01, 20, record=True), FirstOrderGradient())),
        ("hvp", MetaGradient(GradientDescent(0.01, 3), ImplicitGradient(CG(20)))),
        ("linearize", MetaGradient(GradientDescent(0.01, 20, record=True), UnrolledGradient())),
        ("linearize", MetaGradient(LBFGS(20), FirstOrderGradient())),
        ("linearize", MetaGradient(NewtonCG(20), FirstOrderGradient())),
        ("linearize", MetaGradient(Newton(0.0, 20, CG(4)), FirstOrderGradient())),
        ("linearize", MetaGradient(Newton(0.0, 20), FirstOrderGradient())),
    ],
    ids=[
        "descent",
        "recorded descent",
        "conjugate gradient",
        "unrolling",
        "L-BFGS",
        "Newton-CG",
        "Newton by CG",
        "Newton by Cholesky",
    ],
)
@pytest.mark.parametrize("name", ["least squares", "tanh network", "autodiff, broadcasting"])
def test_the_loops_do_not_wait(gpu, name, kind, method):
    """CuPy itself raises `DeviceSynchronized` where something would be read inside the fence."""
    _, _, device, there = _problems(gpu, name)
    fenced = Fenced(device.inner, kind, 20)
    method(replace(device, inner=fenced), there)
    assert fenced.count >= 20


def test_the_fence_can_fail(gpu):
    from cupyx import DeviceSynchronized, allow_synchronize

    x = gpu.asarray(np.ones(2))
    with pytest.raises(DeviceSynchronized), allow_synchronize(False):
        float(x[0])


def test_tasks_are_the_same_bits(gpu):
    source = RandomRidge(5, 7)
    here = source.sample(np.random.default_rng(7), tasks=3, lam=1.0)
    there = source.sample(np.random.default_rng(7), tasks=3, lam=1.0, backend=gpu)
    assert gpu.to_host(there.inner.X).tobytes() == here.inner.X.tobytes()


def test_a_large_batch_is_each_of_its_problems(gpu):
    """4096 problems at once equal the host's, all of them."""
    source, rng = RandomRidge(8, 10), np.random.default_rng(7)
    problem = source.sample(rng, tasks=64, lam=0.3)
    theta = source.initial_parameters(rng)

    def repeated(loss, put):
        return replace(loss, X=put(np.tile(loss.X, (64, 1, 1))), y=put(np.tile(loss.y, (64, 1))))

    big = BilevelProblem(repeated(problem.inner, gpu.asarray), repeated(problem.outer, gpu.asarray), 0.3)
    wanted = np.tile(METHODS[0](problem, theta).gradient, (64, 1))
    got = gpu.to_host(METHODS[0](big, gpu.asarray(theta)).gradient)
    assert np.abs(got - wanted).max() <= 16e3 * 8 * EPS * np.abs(wanted).max()
