"""The array namespace of the arguments, and the few reductions every floor needs.

Compute functions are driven by the type of their arguments: NumPy arrays in, NumPy arrays out. Numbers are
neutral, and a mixture of two kinds of array is one clear error. Where new data is made, `get_backend` chooses the
device they are moved to. This is the only module that may import a device library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad._memory import settle_allocator
from implicit_grad.errors import ArgumentError, BackendError, BackendUnavailable

settle_allocator()

Array = Any
"""An array of any supported namespace. Shapes are given in the docstrings: `(..., d)`."""

_READ_EVERY = 8

ENVIRONMENT = "IMPLICIT_GRAD_BACKEND"
"""Environment variable with the name of the backend that new data goes to where nobody names one."""


@dataclass(frozen=True, eq=False)
class Backend:
    """A place where arrays live, with the few things that its namespace does not do as NumPy's does.

    Attributes
    ----------
    name : str
    xp : module
        Array namespace.
    array_type : type
    asarray : callable
        Moves a host or device array to this place; the explicit way in.
    to_host : callable
        Copies a device array to NumPy; the explicit way out. It waits for the device.
    synchronize : callable
        Waits until the device has done all work given to it: for timing.
    cholesky : callable
        `(..., d, d)` → lower factors, without waiting; on a device, whatever its library leaves where there is none.
    solve_triangular : callable
        `(L, b, transpose)` → L⁻¹b or L⁻ᵀb for `(..., d, d)` and `(..., d)` of equal batch.
    """

    name: str
    xp: Any
    array_type: type
    asarray: Callable[[Any], Array]
    to_host: Callable[[Array], np.ndarray[Any, Any]]
    synchronize: Callable[[], None]
    cholesky: Callable[[Array], Array]
    solve_triangular: Callable[[Array, Array, bool], Array]

    def __repr__(self) -> str:
        return f"<backend {self.name}>"


def _numpy_triangular(L: Array, b: Array, transposed: bool) -> Array:
    return np.linalg.solve(transpose(L) if transposed else L, b[..., None])[..., 0]


NUMPY = Backend("numpy", np, np.ndarray, np.asarray, np.asarray, lambda: None, np.linalg.cholesky, _numpy_triangular)

_REGISTERED: dict[str, Backend] = {"numpy": NUMPY}
_KINDS: dict[type, Backend | None] = {}
"""Array type → its device backend, None for NumPy and for what is no device array; filled as types are met."""


def register(backend: Backend) -> Backend:
    """Make a device known by the type of its arrays and by its name.

    Raises
    ------
    ArgumentError
        If the name is taken by another array type.
    """
    known = _REGISTERED.get(backend.name)
    if known is not None and known.array_type is not backend.array_type:
        raise ArgumentError(f"backend: the name {backend.name!r} is taken by {known.array_type.__name__}")
    _REGISTERED[backend.name] = backend
    _KINDS.clear()
    return backend


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend that new data shall live on, ready to compute.

    Parameters
    ----------
    name : str or Backend, optional
        "numpy", "cupy" or a registered name; default: the environment variable IMPLICIT_GRAD_BACKEND, else "numpy".

    Raises
    ------
    ArgumentError
        For an unknown name.
    BackendUnavailable
        If it cannot compute on this machine, with what exactly is missing. There is no fallback.

    Examples
    --------
    >>> get_backend("numpy").asarray([1.0, 2.0])
    array([1., 2.])
    """
    if isinstance(name, Backend):
        return name
    source = "backend"
    if name is None:
        name, source = os.environ.get(ENVIRONMENT) or "numpy", ENVIRONMENT
    if name == "cupy":
        found = _cupy()
        _probe(found)
        return found
    if name not in _REGISTERED:
        raise ArgumentError(f"{source}: {name!r} is none of {sorted({*_REGISTERED, 'cupy'})}")
    return _REGISTERED[name]


def device_of(array: Any) -> Backend | None:
    """Return the backend of a device array; None for NumPy arrays, for numbers and for array-API namespaces."""
    kind = type(array)
    try:
        return _KINDS[kind]
    except KeyError:
        _KINDS[kind] = found = _recognise(kind)
        return found


def _recognise(kind: type) -> Backend | None:
    for backend in _REGISTERED.values():
        if backend is not NUMPY and issubclass(kind, backend.array_type):
            return backend
    # An array is at hand, so there is a device: nothing to probe.
    if kind.__module__.partition(".")[0] == "cupy" and kind.__name__ == "ndarray":
        return _cupy()
    return None


def is_array(x: Any) -> bool:
    """Whether x is an array of a supported namespace."""
    return isinstance(x, np.ndarray) or device_of(x) is not None or hasattr(x, "__array_namespace__")


def _cupy() -> Backend:
    """Import CuPy and register it, without touching a device."""
    if "cupy" in _REGISTERED:
        return _REGISTERED["cupy"]
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailable(f"backend: CuPy is installed but does not load: {error}") from error
        raise BackendUnavailable(
            "backend: CuPy is not installed: pip install 'implicit-grad[gpu]' (CUDA 13), or the cupy package that "
            "fits your CUDA version"
        ) from error
    except ImportError as error:
        raise BackendUnavailable(f"backend: CuPy is installed but does not load: {error}") from error

    def cholesky(A: Array) -> Array:
        from cupyx import errstate

        # Asking cuSOLVER how it went would make the host wait; `factors_of` sees it from the factor.
        with errstate(linalg="ignore"):
            return cupy.linalg.cholesky(A)

    def solve_triangular(L: Array, b: Array, transposed: bool) -> Array:
        # Needs cuBLAS at import: only once it is used.
        from cupyx.scipy.linalg import solve_triangular

        return solve_triangular(L, b, trans="T" if transposed else "N", lower=True)

    return register(
        Backend(
            "cupy",
            cupy,
            cupy.ndarray,
            cupy.asarray,
            cupy.asnumpy,
            lambda: cupy.cuda.Device().synchronize(),
            cholesky,
            solve_triangular,
        )
    )


def _probe(backend: Backend) -> None:
    """Compute something that needs driver, compiler and BLAS, and read it back.

    Raises
    ------
    BackendUnavailable
        Naming the part that is missing, with the library's own words.
    """
    try:
        x = backend.asarray(np.eye(2))
        ready = bool((backend.to_host(x @ x + x) == 2 * np.eye(2)).all())
        backend.synchronize()
    except Exception as error:  # whatever a broken installation raises: the user gets one error with the cause
        raise BackendUnavailable(f"backend: {_cause(backend)}: {type(error).__name__}: {error}") from error
    if not ready:
        raise BackendUnavailable(f"backend: {backend.name} computes I·I + I wrongly on this machine")


def _cause(backend: Backend) -> str:
    version = getattr(backend.xp, "__version__", "")
    installed = f"CuPy {version} is installed, but "
    try:
        runtime = backend.xp.cuda.runtime
        driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception:
        return f"{installed}the CUDA driver cannot be asked"
    if driver == 0:
        return f"{installed}this machine has no NVIDIA driver"
    if driver // 1000 < built // 1000:
        return f"{installed}the NVIDIA driver is too old: it serves CUDA {_dotted(driver)}, not {_dotted(built)}"
    try:
        count = runtime.getDeviceCount()
    except Exception:
        count = 0
    if count == 0:
        return f"{installed}the NVIDIA driver finds no device"
    return f"{installed}it cannot compute on {count} device(s)"


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def namespace(*arrays: Any) -> Any:
    """Return the array namespace shared by the arguments; numbers and None are neutral.

    Raises
    ------
    BackendError
        If arrays of two namespaces meet.
    """
    if len(arrays) == 1 and type(arrays[0]) is np.ndarray:
        return np  # what loops ask for all the time
    found: dict[str, Any] = {}
    for array in arrays:
        if isinstance(array, np.ndarray | np.generic):
            found.setdefault("numpy", np)
        elif (device := device_of(array)) is not None:
            found.setdefault(device.name, device.xp)
        elif hasattr(array, "__array_namespace__"):
            xp = array.__array_namespace__()
            found.setdefault(xp.__name__.split(".")[0], xp)
    if len(found) > 1:
        raise BackendError(
            f"arrays of different backends in one call: {sorted(found)}; move them to one backend first"
        )
    return next(iter(found.values())) if found else np


def to_numpy(x: Any) -> np.ndarray[Any, Any]:
    """Copy an array of any supported namespace to the host."""
    if isinstance(x, np.ndarray):
        return x
    if (device := device_of(x)) is not None:
        return device.to_host(x)
    if hasattr(x, "get"):  # CuPy's explicit transfer
        return np.asarray(x.get())
    return np.asarray(x)


def dot(x: Array, y: Array) -> Array:
    """Inner product over the last axis, one per problem: `(..., d), (..., d) -> (...)`."""
    if type(x) is np.ndarray and type(y) is np.ndarray:
        return np.vecdot(x, y)  # one BLAS dot a problem: twice as fast as einsum
    return namespace(x, y).sum(x * y, axis=-1)


def add_scaled(y: Array, alpha: Array, x: Array, scratch: Array) -> None:
    """Add in place, y ← y + α x, one α per problem, through a work array like y."""
    if isinstance(y, np.ndarray):
        # Fresh temporaries of this size cost more in page faults than the arithmetic does.
        np.multiply(alpha[..., None], x, out=scratch)
        np.add(y, scratch, out=y)
    else:
        y += alpha[..., None] * x


def norm(x: Array) -> Array:
    """Euclidean norm over the last axis, safe from underflow and overflow: `(..., d) -> (...)`."""
    if not isinstance(x, np.ndarray):
        return _scaled_norm(x)
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = np.vecdot(x, x)
        length = np.sqrt(square)
    # Within these bounds no term that matters was lost to under- or overflow; the few others are scaled first.
    rare = ~((square > info.tiny / info.eps**2) & (square < info.max * info.eps))
    if not np.any(rare):
        return length
    length = np.asarray(length)
    length[rare] = _scaled_norm(x[rare])
    return length[()]


def _scaled_norm(x: Array) -> Array:
    xp = namespace(x)
    scale = xp.max(xp.abs(x), axis=-1)
    safe = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    scaled = x / safe[..., None]
    return safe * xp.sqrt(xp.sum(scaled * scaled, axis=-1))


def power_of_two_scale(x: Array) -> Array:
    """Power of two near max|x| over the last axis (1 where x = 0): `(..., d) -> (...)`.

    Dividing by it is exact, so a solver that scales its right-hand side this way returns the very same
    iterates, and neither ‖b‖ ~ 1e-200 nor ‖b‖ ~ 1e200 under- or overflows.
    """
    xp = namespace(x)
    largest = xp.max(xp.abs(x), axis=-1)
    usable = (largest > 0) & xp.isfinite(largest)
    exponent = xp.floor(xp.log2(xp.where(usable, largest, xp.ones_like(largest))))
    two = xp.full_like(exponent, 2.0)
    # 2**-1074 is the smallest subnormal and 2**1023 the largest power: both are representable.
    return xp.where(usable, two**exponent, xp.ones_like(largest))


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Broadcast batch shapes."""
    return tuple(np.broadcast_shapes(*shapes))


def expand(x: Array, shape: tuple[int, ...]) -> Array:
    """Fresh, writable array of `shape` holding x broadcast to it."""
    xp = namespace(x)
    return xp.zeros(shape, dtype=x.dtype) + x if x.shape != shape else xp.asarray(x, copy=True)


def transpose(x: Array) -> Array:
    """Swap the last two axes."""
    return x.mT if hasattr(x, "mT") else namespace(x).swapaxes(x, -1, -2)


def concatenate(parts: list[Array]) -> Array:
    """Join along the last axis, broadcasting the leading axes first."""
    xp = namespace(*parts)
    batch = broadcast_shapes(*(part.shape[:-1] for part in parts))
    full = [xp.broadcast_to(part, (*batch, part.shape[-1])) for part in parts]
    return join(full, axis=-1)


def join(parts: list[Array], axis: int = 0) -> Array:
    """Join arrays along one axis; the standard's `concat` has another name in older libraries."""
    xp = namespace(*parts)
    return (xp.concat if hasattr(xp, "concat") else xp.concatenate)(parts, axis=axis)


def cholesky(A: Array) -> Array:
    """Lower Cholesky factors `(..., d, d)`; a device leaves whatever it has where there are none, and says nothing.

    Raises
    ------
    numpy.linalg.LinAlgError
        On the host, where there are none.
    """
    device = device_of(A)
    return namespace(A).linalg.cholesky(A) if device is None else device.cholesky(A)


def look_again(active: Array, step: int, *, tolerance: bool, every: int = _READ_EVERY) -> bool:
    """Whether a loop goes on: on the host while a problem is active; a device is asked once in `every` steps.

    Reading a mask makes the host wait for the device. Without a tolerance it is never read: the budget ends the
    loop. Callers must freeze problems that are done, so that the steps too many change nothing.
    """
    return (step % every != 0 and device_of(active) is not None) or any_of(active, ask=tolerance)


def any_of(mask: Array, *, ask: bool = False) -> bool:
    """Whether there is anything to do under a mask: what a device does not tell unasked is taken for yes.

    Callers must do nothing to what is not under the mask.
    """
    return bool(namespace(mask).any(mask)) if ask or device_of(mask) is None else True


def epsilon(x: Array) -> float:
    """Spacing of the dtype of x at 1."""
    return float(namespace(x).finfo(x.dtype).eps)
