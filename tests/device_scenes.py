"""The same bilevel problems on the host and on the device double, and what it means to be equal there."""

import autograd.numpy as anp
import numpy as np
from device_double import DOUBLE, DeviceArray

from implicit_grad import (
    Autodiff,
    BilevelProblem,
    LeastSquares,
    MultilayerPerceptron,
    SoftmaxCrossEntropy,
    Softplus,
    Status,
    Tanh,
)

EPS = float(np.finfo(np.float64).eps)
N, P, C = 6, 3, 3
LAM = np.array([[0.7], [2.5]])


def _quartic(Z, y):
    return lambda x: anp.mean((anp.einsum("nd,...d->...n", Z, x) - y) ** 2, axis=-1) + anp.sum(x**4, axis=-1) / 9


OBJECTIVES = {
    "least squares": lambda data, put: LeastSquares(put(data["X"]), put(data["y"])),
    "softmax": lambda data, put: SoftmaxCrossEntropy(put(data["X"]), put(data["labels"]), C),
    "tanh network": lambda data, put: MultilayerPerceptron(put(data["X"]), put(data["y"]), (3, 2), Tanh()),
    "softplus classifier": lambda data, put: MultilayerPerceptron(
        put(data["X"]), put(data["labels"]), (2,), Softplus(), C
    ),
    "two outputs": lambda data, put: MultilayerPerceptron(put(data["X"]), put(data["Y"]), (), n_outputs=2),
    "autodiff": lambda data, put: Autodiff(_quartic(put(data["X"][0]), put(data["y"][0]))),
    "autodiff, broadcasting": lambda data, put: Autodiff(_quartic(put(data["X"][0]), put(data["y"][0])), True),
}


def data_of(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    numbers = {"X": (2, N, P), "y": (2, N), "Y": (2, N, 2)}
    data = {key: rng.standard_normal(shape).astype(dtype) for key, shape in numbers.items()}
    return {**data, "labels": rng.integers(C, size=(2, N))}


def pair(name, dtype=np.float64):
    """The same problem and θ on both sides, a batch of two λ and two tasks."""
    train, test = data_of(31, dtype), data_of(37, dtype)
    build = OBJECTIVES[name]
    size = getattr(build(train, np.asarray), "size", P)
    theta = (0.4 * np.cos(np.arange(2 * size))).reshape(2, size).astype(dtype)
    plain = BilevelProblem(build(train, np.asarray), build(test, np.asarray), LAM)
    device = BilevelProblem(build(train, DOUBLE.asarray), build(test, DOUBLE.asarray), LAM)
    return plain, theta, device, DOUBLE.asarray(theta)


def condition(problem, theta):
    values = np.linalg.eigvalsh(problem.curvature(problem.parameters(theta)).dense())
    return float((np.abs(values[..., -1]) / np.min(np.abs(values), axis=-1)).max())


def close(device, plain, bound):
    """An array of the double with the host's shape and dtype, equal to `bound` relative to its largest entry."""
    if not isinstance(plain, np.ndarray | np.generic):
        assert device is plain is None or device == plain
        return
    assert type(device) is DeviceArray
    assert (device.shape, device.dtype) == (np.shape(plain), np.asarray(plain).dtype)
    host = device.get()
    assert np.array_equal(np.isfinite(host), np.isfinite(plain))
    good = np.isfinite(plain)
    if good.any():
        largest = np.abs(np.asarray(plain)[good]).max()
        assert np.abs(host[good] - np.asarray(plain)[good]).max() <= bound * largest


def same_status(device, plain):
    """Equal, but for one thing: whether a spent budget also met the rounding floor is a matter of the last digit."""
    device, plain = np.asarray(device), np.asarray(plain)
    assert device.shape == plain.shape
    good = (Status.CONVERGED, Status.BUDGET_SPENT)
    assert all(a is b or (a in good and b in good) for a, b in zip(device.flat, plain.flat, strict=True))
