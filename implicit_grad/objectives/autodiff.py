"""Derivatives of any loss by HIPS autograd, on the host and on devices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from autograd import make_vjp
from autograd.misc import flatten as flatten_with_autograd
from autograd.tracer import getval, isbox

from implicit_grad import border
from implicit_grad.backend import Array, device_of, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError, ImplicitGradError, LossError
from implicit_grad.objectives._protocol import Linearization


@dataclass(frozen=True, eq=False)
class Autodiff:
    """A loss differentiated by tracing: value, gradient and Hessian-vector products of any `autograd.numpy` code.

    The Hessian-vector product is reverse over reverse: ∇²f(x) v is the vjp of ∇f at x, traced once per
    linearisation and replayed for every v.

    Parameters
    ----------
    f : callable
        The loss, written with `autograd.numpy`. It gets parameters of one problem, a `(d,)` vector (or the
        parameter tree that `MetaGradient` was given), and returns one real number of shape ().
    broadcasts : bool
        With True, `f` maps `(..., d) → (...)` for any leading axes and is called once for the whole batch;
        row i of the result must depend on row i of the argument only. With False a batch is a loop over
        problems.

    Raises
    ------
    LossError
        When evaluated, if `f` returns anything but one real number per problem: None, text, a Python float
        made with `float()`, an array.

    Warns
    -----
    UserWarning
        If the loss does not depend on the parameters: its gradient is zero.

    Notes
    -----
    `f` is given read-only arrays (copies on a device, which has none); a loss that mutates its argument fails.
    Device arrays go through the same `autograd.numpy` code if what the loss closes over lives on that device, too;
    what cannot be done there is a `LossError` that names the function. At kinks autograd takes one-sided or
    averaged slopes (abs'(0) = 0, max(x, 0)' = ½ at 0): implicit gradients need a twice differentiable loss.

    Examples
    --------
    >>> import autograd.numpy as anp
    >>> f = Autodiff(lambda w: anp.sum(w**4))
    >>> f.linearize(np.array([1.0, 2.0])).hvp(np.array([1.0, 1.0]))
    array([12., 48.])
    """

    f: Callable[[Any], Any]
    broadcasts: bool = False
    _unflatten: Callable[[Any], Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise ArgumentTypeError(f"f: expected a callable loss, got {type(self.f).__name__}")
        border.flag("broadcasts", self.broadcasts)

    def on_tree(self, unflatten: Callable[[Any], Any]) -> Autodiff:
        """Return the loss of the flat vector whose tree `f` expects."""
        if self.broadcasts:
            raise ArgumentTypeError("broadcasts: a loss of a parameter tree cannot broadcast; use broadcasts=False")
        return Autodiff(self.f, False, unflatten)

    def _call(self, x: Any) -> Any:
        return self.f(x if self._unflatten is None else self._unflatten(x))

    def _checked(self, x: Any) -> Any:
        try:
            value = self._call(x)
        except TypeError as error:
            text = str(error)
            if "Box" in text and text.startswith(("float()", "int()", "complex()")):
                raise LossError(
                    "f: the loss converts a traced value with float() or int(); keep it an autograd.numpy value"
                ) from error
            raise
        wanted = np.shape(getval(x))[:-1]
        raw = getval(value)
        if device_of(getval(x)) is not None:
            return self._checked_on_device(value, raw, wanted)
        if not isinstance(raw, np.ndarray | np.generic | float | int) or isinstance(raw, bool):
            raise LossError(f"f: the loss must return one real number, got {type(raw).__name__}")
        if np.iscomplexobj(raw) or np.asarray(raw).dtype.kind not in "fiu":
            raise LossError(f"f: the loss must return a real number, got dtype {np.asarray(raw).dtype}")
        if np.shape(raw) != wanted:
            hint = (
                "row i of the value belongs to row i of the parameters"
                if self.broadcasts
                else "reduce it with a sum or a mean"
            )
            raise LossError(f"f: the loss returned shape {np.shape(raw)} where {wanted} was expected; {hint}")
        return value

    @staticmethod
    def _checked_on_device(value: Any, raw: Any, wanted: tuple[int, ...]) -> Any:
        if device_of(raw) is None or raw.dtype.kind not in "fiu":
            kind = type(raw).__name__ if device_of(raw) is None else f"dtype {raw.dtype}"
            raise LossError(f"f: the loss must return one real number that stays on the device, got {kind}")
        if raw.shape != wanted:
            raise LossError(f"f: the loss returned shape {raw.shape} where {wanted} was expected")
        return value

    def _rows(self, x: Array) -> list[Array]:
        """Read-only arguments for `f`: the batch itself, or one vector per problem."""
        make_known(x)
        if (device := device_of(x)) is not None:
            x = device.xp.array(x, copy=True)
            return [x] if self.broadcasts else list(x.reshape(-1, x.shape[-1]))
        if not isinstance(x, np.ndarray):
            raise ArgumentTypeError(f"parameters: Autodiff differentiates NumPy arrays, got {type(x).__name__}")
        view = x.view() if self.broadcasts else x.reshape(-1, x.shape[-1])
        view.flags.writeable = False
        return [view] if self.broadcasts else list(view)

    def _join(self, parts: list[Any], shape: tuple[int, ...], like: Array) -> Array:
        if device_of(like) is not None:
            # The cotangent of a loss in another precision has that precision, here as on the host.
            xp = namespace(like)
            whole = parts[0] if self.broadcasts else xp.stack(parts, axis=0)
            return xp.reshape(xp.astype(whole, like.dtype), shape)
        if self.broadcasts:
            return np.asarray(parts[0], dtype=like.dtype).reshape(shape)
        return np.stack([np.asarray(part, dtype=like.dtype) for part in parts]).reshape(shape)

    def value(self, x: Array) -> Array:
        """Return f(x): `(...)`."""
        with naming_the_function("f", x):
            return self._join([self._checked(row) for row in self._rows(x)], x.shape[:-1], x)[()]

    def gradient(self, x: Array) -> Array:
        """Return ∇f(x): `(..., d)`."""
        with naming_the_function("f", x):
            return self._join([self._value_and_gradient(row)[1] for row in self._rows(x)], x.shape, x)

    def _value_and_gradient(self, row: Any) -> tuple[Any, Any]:
        vjp, value = make_vjp(self._checked)(row)
        # A cotangent of ones sums over problems; rows are independent, so it returns every row's gradient.
        point = getval(getval(row))
        gradient = vjp(namespace(point).ones(np.shape(getval(value)), dtype=point.dtype))
        if np.shape(getval(gradient)) != np.shape(getval(row)):
            # autograd's rule of `where` does not sum over broadcast axes.
            raise LossError(
                f"f: autograd returned a gradient of shape {np.shape(getval(gradient))} for parameters of shape "
                f"{np.shape(getval(row))}; broadcast the arguments of `where` before calling it"
            )
        return value, gradient

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and HVP; `f` and its gradient are traced once."""
        values: list[Any] = []
        independent = False

        def traced(row: Any) -> Any:
            nonlocal independent
            value, gradient = self._value_and_gradient(row)
            independent |= not isbox(value)
            values.append(getval(getval(value)))
            return gradient

        pulls, gradients = [], []
        for row in self._rows(x):
            with warnings.catch_warnings(), naming_the_function("f", x):
                # A gradient that does not depend on x is a linear loss, not a mistake: its Hessian is 0.
                warnings.filterwarnings("ignore", "Output seems independent of input", UserWarning)
                pull, gradient = make_vjp(traced)(row)
            pulls.append(pull)
            gradients.append(gradient)
        if independent:
            warnings.warn("Output seems independent of input.", UserWarning, stacklevel=2)

        def hvp(v: Array) -> Array:
            if v.ndim > x.ndim:
                return np.stack([hvp(each) for each in v])
            v = np.broadcast_to(v, x.shape)
            rows = [v] if self.broadcasts else list(v.reshape(-1, x.shape[-1]))
            with warnings.catch_warnings(), naming_the_function("f", x):
                warnings.filterwarnings("ignore", "Output seems independent of input", UserWarning)
                return self._join([pull(row) for pull, row in zip(pulls, rows, strict=True)], x.shape, x)

        return Linearization(self._join(values, x.shape[:-1], x)[()], self._join(gradients, x.shape, x), hvp)

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> Any:
        """Return one problem's loss: itself, where `f` is the same function for every problem."""
        return self if not self.broadcasts else NotImplemented


def is_tree(theta: Any) -> bool:
    """Whether θ is a parameter tree: a dict, or a list or tuple with an array or a container of arrays in it.

    Nested lists of plain numbers are arrays written by hand, not trees.
    """
    if isinstance(theta, dict):
        return True
    if isinstance(theta, list | tuple):
        return any(is_tree(leaf) or (_is_leaf_array(leaf) and leaf.ndim > 0) for leaf in theta)
    return False


def _is_leaf_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or device_of(leaf) is not None


@contextmanager
def naming_the_function(what: str, x: Array) -> Iterator[None]:
    """Turn what a device library objects to into an error with the name of the function of the loss or map `what`."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        if isinstance(error, ImplicitGradError):
            raise
        name, arguments = _primitive_behind(error)
        devices = [device for each in (x, *arguments) if (device := device_of(getval(each))) is not None]
        if name is None or not devices:
            raise
        raise LossError(
            f"{what}: `{name}` cannot do this on {devices[0].name} arrays ({error}); the parameters and whatever "
            f"{what} closes over must live in one place"
        ) from error


def _primitive_behind(error: BaseException) -> tuple[str | None, tuple[Any, ...]]:
    """Name and arguments of the innermost function of autograd that an error passed through."""
    found: tuple[str | None, tuple[Any, ...]] = (None, ())
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == "f_wrapped":
            local = traceback.tb_frame.f_locals
            found = getattr(local.get("f_raw"), "__name__", found[0]), tuple(local.get("args", ()))
        traceback = traceback.tb_next
    return found


def flatten(theta: Any) -> tuple[Array, Callable[[Any], Any]]:
    """Flatten a parameter tree of dicts, lists and tuples to a vector, and return its inverse.

    Parameters
    ----------
    theta : dict, list or tuple of arrays
        Leaves must be real; integer leaves become float64.

    Returns
    -------
    vector : (d,) array
    unflatten : callable
        Rebuilds the tree, also inside a traced function.
    """
    cast = _cast_leaves(theta, "theta")
    if not _holds_array(cast):
        raise ArgumentError("theta: the parameter tree holds no array")
    vector, unflatten = flatten_with_autograd(cast)
    return border.vector("theta", vector), unflatten


def _holds_array(tree: Any) -> bool:
    if isinstance(tree, dict):
        return any(map(_holds_array, tree.values()))
    return any(map(_holds_array, tree)) if isinstance(tree, list | tuple) else True


def _cast_leaves(tree: Any, name: str) -> Any:
    if isinstance(tree, dict):
        return {key: _cast_leaves(leaf, f"{name}[{key!r}]") for key, leaf in tree.items()}
    if isinstance(tree, list | tuple):
        if type(tree) not in (list, tuple):
            raise ArgumentTypeError(
                f"{name}: {type(tree).__name__} is not supported in a parameter tree; use dict, list or tuple"
            )
        return type(tree)(_cast_leaves(leaf, f"{name}[{i}]") for i, leaf in enumerate(tree))
    leaf = border.finite(name, border.real_array(name, tree))
    make_known(leaf)
    return leaf


def make_known(x: Any) -> None:
    """Let autograd differentiate with respect to x, if that lives on a device."""
    if (device := device_of(x)) is not None:
        # Imported once there is a device array: the rules reach into autograd, and load SciPy.
        from implicit_grad.objectives._device_rules import install

        install(type(x), device.xp)
