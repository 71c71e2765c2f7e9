"""Gradients of PyTorch and JAX as NumPy callables: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentError, ArgumentTypeError, CandidateError, MissingDependency
from implicit_grad.objectives.autodiff import flatten, is_tree

Send = Callable[[Array], Any]
"""A NumPy array that nobody else holds → the library's own."""


@dataclass(frozen=True, eq=False)
class ForeignGradient:
    """A gradient function of another library as a NumPy callable; built by `torch_candidate` and `jax_candidate`.

    Attributes
    ----------
    f : callable
        θ → gradient, in the library's own arrays.
    library : str
    send : callable
        NumPy array → the library's array.
    like : tree of arrays or None
        What f expects where θ itself is a flat vector.
    """

    f: Callable[[Any], Any]
    library: str
    send: Send
    like: Any = None

    def __post_init__(self) -> None:
        border.strategy("f", self.f, "a function from theta to its gradient")
        if self.like is not None:
            if not is_tree(self.like):
                raise ArgumentTypeError(f"like: expected a dict, list or tuple of arrays, got {self.like!r}")
            flatten(self.like)

    def __repr__(self) -> str:
        name = getattr(self.f, "__qualname__", type(self.f).__name__)
        return f"{self.library}_candidate({name})"

    def __call__(self, theta: Any) -> Any:
        """Return the gradient at θ.

        Parameters
        ----------
        theta : (..., d) array, or a dict, list or tuple of arrays
            With `like`, a (d,) vector, in the order of `MetaGradient`: keys sorted, arrays row-major.

        Returns
        -------
        (..., d) array, or a tree like θ
            Fresh NumPy arrays in the precision that the library computed in. NaN and other shapes are passed on.

        Raises
        ------
        CandidateError
            Where what comes back is not made of real arrays, or not built like θ; and where θ was written into.
        """
        if self.like is not None:
            vector, unflatten = flatten(self.like)
            theta = border.vector("theta", theta)
            if theta.shape != vector.shape:
                raise ArgumentError(
                    f"theta: `like` holds {vector.size} numbers, got an array of shape {tuple(theta.shape)}"
                )
            return _joined(self._on_tree(unflatten(theta)))
        if is_tree(theta):
            return self._on_tree(theta)
        return self._on_tree(border.real_array("theta", theta))

    def _on_tree(self, theta: Any) -> Any:
        sent: list[tuple[str, Any, Array]] = []

        def send(name: str, leaf: Any) -> Any:
            theirs = self.send(np.array(border.real_array(name, leaf)))
            sent.append((name, theirs, received(name, theirs)))
            return theirs

        gradient = _read(self.f(_mapped(theta, "theta", send)), theta, "gradient")
        for name, theirs, before in sent:
            # JAX's arrays cannot change. A tensor that did is a candidate that gives its caller another θ.
            if not np.array_equal(received(name, theirs), before, equal_nan=True):
                raise CandidateError(f"{name}: the candidate writes into its argument; let it work on a clone")
        return gradient


@dataclass(frozen=True, eq=False)
class ForeignProblemGradient:
    """The same for a function `(problem, theta) → gradient`: it can be asked at other λ, which tells causes apart.

    Attributes
    ----------
    f, library, send, like
        As for `ForeignGradient`; the problem goes to f as it is.
    """

    f: Callable[[Any, Any], Any]
    library: str
    send: Send
    like: Any = None

    def __post_init__(self) -> None:
        self._at(None)

    def __repr__(self) -> str:
        return repr(self._at(None))

    def __call__(self, problem: Any, theta: Any) -> Any:
        """Return the gradient of a problem at θ."""
        return self._at(problem)(theta)

    def _at(self, problem: Any) -> ForeignGradient:
        at = partial(self.f, problem)
        update_wrapper(at, self.f)
        return ForeignGradient(at, self.library, self.send, self.like)


def _candidate(f: Any, library: str, send: Send, like: Any) -> ForeignGradient | ForeignProblemGradient:
    """Tell by the signature what f takes."""
    border.strategy("f", f, "a function from theta to its gradient")
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(each.kind in kinds and each.default is each.empty for each in parameters)
    return (ForeignProblemGradient if required == 2 else ForeignGradient)(f, library, send, like)


def _mapped(tree: Any, name: str, act: Callable[[str, Any], Any]) -> Any:
    """Return the tree with `act(name, leaf)` for every leaf."""
    if isinstance(tree, dict):
        return {key: _mapped(leaf, f"{name}[{key!r}]", act) for key, leaf in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(leaf, f"{name}[{i}]", act) for i, leaf in enumerate(tree))
    return act(name, tree)


def _read(result: Any, theta: Any, name: str) -> Any:
    """Return the result as NumPy arrays in the structure of θ."""
    if isinstance(theta, dict):
        if not isinstance(result, Mapping):
            raise CandidateError(f"{name}: theta is a dict, got {type(result).__name__}; return a dict of its keys")
        if set(result) != set(theta):
            raise CandidateError(f"{name}: expected the keys {sorted(theta)}, got {sorted(map(str, result))}")
        return {key: _leaf_like(result[key], leaf, f"{name}[{key!r}]") for key, leaf in theta.items()}
    if isinstance(theta, list | tuple):
        if not isinstance(result, list | tuple) or len(result) != len(theta):
            got = f"{len(result)}" if isinstance(result, list | tuple) else type(result).__name__
            raise CandidateError(f"{name}: expected {len(theta)} arrays, as theta has, got {got}")
        pairs = enumerate(zip(result, theta, strict=True))
        return type(theta)(_leaf_like(mine, leaf, f"{name}[{i}]") for i, (mine, leaf) in pairs)
    return received(name, result)


def _leaf_like(result: Any, theta: Any, name: str) -> Any:
    """Return a part of the result; inside a tree a leaf of another shape would shift all that follow."""
    part = _read(result, theta, name)
    if isinstance(part, np.ndarray) and part.shape != np.shape(theta):
        raise CandidateError(f"{name}: expected shape {np.shape(theta)}, as theta has, got {part.shape}")
    return part


def _leaves(tree: Any) -> Iterator[Array]:
    """Leaves in the order of `flatten`."""
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from _leaves(tree[key])
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _leaves(each)
    else:
        yield tree


def _joined(tree: Any) -> Array:
    """Return one vector, in the coarsest precision of the leaves: no sum of parts is better than its worst."""
    parts = [leaf.ravel() for leaf in _leaves(tree)]
    coarsest = min((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    return np.concatenate(parts).astype(coarsest)


def received(name: str, leaf: Any) -> Array:
    """Return what a candidate returned as a fresh NumPy array, in its own precision.

    Tensors are detached and brought to the host; views, transposed, conjugated or negated ones are resolved; JAX's
    arrays are waited for; other libraries' arrays come by DLPack.

    Raises
    ------
    CandidateError
        For None and for what is no real array.
    """
    if leaf is None:
        raise CandidateError(f"{name}: got None: theta is not reached (detached, or unused by the outer loss)")
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(leaf, torch.Tensor):
            array = leaf.numpy(force=True)
        elif not isinstance(leaf, np.ndarray) and hasattr(leaf, "__dlpack__") and not hasattr(leaf, "__array__"):
            array = np.from_dlpack(leaf)
        else:
            array = np.asarray(leaf)
        return np.array(border.real_array(name, array))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise CandidateError(
            f"{name}: expected real numbers in an array, got {type(leaf).__name__} ({error})"
        ) from error


def _imported(library: str, install: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingDependency(
            f"{library}_candidate needs {install} ({error}): pip install {library}; this package does not bring it"
        ) from error


def torch_candidate(
    f: Callable[..., Any], *, dtype: Any = None, requires_grad: bool = True, like: Any = None
) -> ForeignGradient | ForeignProblemGradient:
    """Return a PyTorch meta-gradient as a NumPy callable, for `verify` and `assert_meta_gradient`.

    Parameters
    ----------
    f : callable
        θ → gradient: a CPU tensor, or a tree of them, in; the same out. What it returns may require gradients, live
        on a device and have any strides. With two required arguments it takes (problem, θ): read `problem.lam`, and
        `verify` can ask it at another λ.
    dtype : torch.dtype or str, optional
        θ is cast to it. The default is θ's own, float64 as a rule: PyTorch's own default, float32, has to be asked
        for, and the answer is judged at the precision that it has.
    requires_grad : bool
        Whether θ arrives as meta-parameters do, as leaves that require gradients.
    like : dict, list or tuple of arrays, optional
        A tree as f expects it, where the problem's θ is one flat vector: keys sorted, arrays row-major, the order
        of `MetaGradient`.

    Returns
    -------
    ForeignGradient or ForeignProblemGradient
        θ → gradient, or (problem, θ) → gradient, in NumPy arrays.

    Raises
    ------
    MissingDependency
        Without PyTorch.
    ArgumentTypeError
        For f, dtype or like of a wrong kind.

    Notes
    -----
    `docs/verify_jax_torch.md` shows both libraries, and runs in `make peers`.
    """
    torch = _imported("torch", "PyTorch")
    border.flag("requires_grad", requires_grad)
    wanted = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(wanted, torch.dtype) and wanted.is_floating_point):
        raise ArgumentTypeError(f"dtype: expected torch.float64 or torch.float32, got {dtype!r}")

    def send(array: Array) -> Any:
        tensor = torch.from_numpy(array)
        tensor = tensor if wanted is None else tensor.to(wanted)
        return tensor.requires_grad_(requires_grad)

    return _candidate(f, "torch", send, like)


def jax_candidate(
    f: Callable[..., Any], *, dtype: Any = None, like: Any = None
) -> ForeignGradient | ForeignProblemGradient:
    """Return a JAX meta-gradient as a NumPy callable, for `verify` and `assert_meta_gradient`.

    Parameters
    ----------
    f : callable
        θ → gradient: a JAX array, or a tree of them, in; the same out. It may be jitted. With two required arguments
        it takes (problem, θ), as in `torch_candidate`.
    dtype : data type, optional
        θ is cast to it. The default is the widest that JAX is set to: float32 unless
        `jax.config.update("jax_enable_x64", True)` was called. The answer is judged at the precision that it has.
    like : dict, list or tuple of arrays, optional
        As in `torch_candidate`.

    Returns
    -------
    ForeignGradient or ForeignProblemGradient
        θ → gradient, or (problem, θ) → gradient, in NumPy arrays.

    Raises
    ------
    MissingDependency
        Without JAX.
    ArgumentTypeError
        For f or like of a wrong kind; when called, for a float64 that JAX is not set to.

    Notes
    -----
    `docs/verify_jax_torch.md` shows both libraries, and runs in `make peers`.
    """
    jnp = _imported("jax", "JAX") and importlib.import_module("jax.numpy")
    if dtype is not None and not np.isdtype(np.dtype(dtype), "real floating"):
        raise ArgumentTypeError(f"dtype: expected float64 or float32, got {dtype!r}")

    def send(array: Array) -> Any:
        theirs = jnp.asarray(array if dtype is None else array.astype(dtype))
        if dtype is not None and theirs.dtype != np.dtype(dtype):
            raise ArgumentTypeError(
                f"dtype: JAX made {theirs.dtype} of {np.dtype(dtype)}: call "
                f"jax.config.update('jax_enable_x64', True) first, or leave dtype out to be judged in float32"
            )
        return theirs

    return _candidate(f, "jax", send, like)
