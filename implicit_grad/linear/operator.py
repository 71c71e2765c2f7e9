"""Symmetric linear operators on batches of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, join, namespace, transpose
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.objectives import LowRank
from implicit_grad.results import Cost

_DENSE_CHUNK = 2**22
"""Numbers of right-hand side pushed through the operator at once when it is made dense (32 MB in float64)."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric map v ↦ A v, one per problem of the batch.

    Attributes
    ----------
    apply : callable
        `(..., d) → (..., d)`.
    batch_shape : tuple of int
        Leading axes of A.
    size : int
        d.
    like : array
        Any array of the namespace and dtype that A works in.
    stacks : bool
        Whether `apply` takes further leading axes before those of the batch, all at once.
    selector : callable, optional
        `index → Operator` of one problem.
    selection : Cost
        What selecting a problem costs it: a fresh linearisation where A is a Hessian.
    shift : (...) array, optional
        σ, where A is known to be H + σI with a meaningful H.
    assemble : callable, optional
        Returns A as an array from its structure, cheaper than d products.
    factor : LowRank, optional
        F with A = FᵀF + σI.
    bound : callable, optional
        Returns an upper bound of λ_max(A), one per problem.
    curvature : bool
        Whether A is the curvature of what is minimised: symmetric, and positive definite unless the point is no
        strict minimum. Solvers of any matrix look for negative curvature then, as the others always do.
    """

    apply: Callable[[Array], Array]
    batch_shape: tuple[int, ...]
    size: int
    like: Array
    stacks: bool = False
    selector: Callable[[tuple[int, ...]], Operator] | None = None
    selection: Cost = field(default_factory=Cost)
    shift: Array | None = None
    assemble: Callable[[], Array] | None = None
    factor: LowRank | None = None
    bound: Callable[[], Array] | None = None
    curvature: bool = False

    def __call__(self, v: Array) -> Array:
        """Return A v."""
        return self.apply(v)

    @property
    def dense_cost(self) -> Cost:
        """What `dense` costs."""
        return Cost(hvps=self.size) if self.assemble is None else Cost(hessians=1)

    def dense(self) -> Array:
        """Return A as an array `(..., d, d)`, symmetrised: assembled, or by d products in chunks."""
        if self.assemble is not None:
            matrix = self.assemble()
            return namespace(matrix).broadcast_to(matrix, (*self.batch_shape, self.size, self.size))
        matrix = self.columns()
        return 0.5 * (matrix + transpose(matrix))

    def columns(self) -> Array:
        """Return the matrix `(..., d, d)` by d products, in chunks, as it is: `dense` would make it symmetric."""
        xp, d = namespace(self.like), self.size
        eye = xp.eye(d, dtype=self.like.dtype)
        ones = (1,) * len(self.batch_shape)
        per_column = d * max(1, int(np.prod(self.batch_shape)))
        chunk = max(1, _DENSE_CHUNK // per_column) if self.stacks else 1
        columns = []
        for start in range(0, d, chunk):
            basis = xp.reshape(eye[start : min(start + chunk, d), :], (-1, *ones, d))
            if self.stacks:
                columns.append(xp.broadcast_to(self.apply(basis), (basis.shape[0], *self.batch_shape, d)))
            else:
                v = xp.zeros((*self.batch_shape, d), dtype=self.like.dtype) + basis[0]
                columns.append(self.apply(v)[None])
        return xp.moveaxis(join(columns), 0, -1)

    def select(self, index: tuple[int, ...]) -> Operator:
        """Return the operator of one problem of the batch.

        Without a selector the whole batch is applied and one row kept: right, but as dear as the batch.
        """
        if not self.batch_shape:
            return self
        if self.selector is not None:
            return replace(self.selector(index), curvature=self.curvature)

        def apply(v: Array) -> Array:
            xp = namespace(v)
            return self.apply(xp.broadcast_to(v, (*self.batch_shape, self.size)))[index]

        return Operator(apply, (), self.size, self.like, curvature=self.curvature)

    def shifted(self, shift: Array) -> Operator:
        """Return A + diag(shift)·I for one shift per problem."""
        own = 0.0 if self.shift is None else self.shift
        wrapped = self._wrap(lambda Av, v, s: Av + s[..., None] * v, shift, Operator.shifted)
        bound = self.bound
        return replace(wrapped, shift=own + shift, bound=None if bound is None else lambda: bound() + shift)

    def divided(self, by: Array) -> Operator:
        """Return A / by for one divisor per problem."""
        own, bound = self.shift, self.bound
        wrapped = self._wrap(lambda Av, v, s: Av / s[..., None], by, Operator.divided)
        return replace(
            wrapped,
            shift=None if own is None else own / by,
            bound=None if bound is None else lambda: bound() / by,
        )

    def _wrap(
        self,
        action: Callable[[Array, Array, Array], Array],
        number: Array,
        again: Callable[[Operator, Array], Operator],
    ) -> Operator:
        shape = broadcast_shapes(self.batch_shape, number.shape)

        def selector(index: tuple[int, ...]) -> Operator:
            own = index[len(index) - len(self.batch_shape) :]
            one = self.select(tuple(0 if n == 1 else i for i, n in zip(own, self.batch_shape, strict=True)))
            return again(one, namespace(number).broadcast_to(number, shape)[index])

        return Operator(
            lambda v: action(self.apply(v), v, number),
            shape,
            self.size,
            self.like,
            self.stacks,
            selector if shape else None,
            self.selection,
            curvature=self.curvature,
        )


def as_operator(A: Any, b: Array) -> Operator:
    """Accept an `Operator`, a symmetric array `(..., d, d)`, a SciPy `LinearOperator` or any callable.

    Raises
    ------
    ArgumentError
        If A and b do not fit together.
    ArgumentTypeError
        If A is none of these.
    """
    d = b.shape[-1]
    if isinstance(A, Operator):
        operator = A
    elif hasattr(A, "matvec") and hasattr(A, "shape"):
        if tuple(A.shape) != (d, d):
            raise ArgumentError(f"A: shape {tuple(A.shape)} does not fit b {tuple(b.shape)}")
        operator = Operator(lambda v: _matvec_rows(A, v), (), d, b, stacks=True)
    elif hasattr(A, "ndim") and hasattr(A, "shape"):
        operator = matrix_operator(A)
        namespace(operator.like, b)
        if operator.like.dtype != b.dtype:
            raise ArgumentTypeError(
                f"A: dtype {operator.like.dtype} mixed with dtype {b.dtype} of b; cast one of them"
            )
    elif callable(A):
        operator = Operator(A, tuple(b.shape[:-1]), d, b)
    else:
        raise ArgumentTypeError(
            f"A: expected an operator, an array (..., d, d) or a callable, got {type(A).__name__}"
        )
    if operator.size != d:
        raise ArgumentError(f"A: works on vectors of length {operator.size}, but b has shape {tuple(b.shape)}")
    try:
        broadcast_shapes(operator.batch_shape, tuple(b.shape[:-1]))
    except ValueError:
        raise ArgumentError(
            f"A: batch axes {operator.batch_shape} do not broadcast with b {tuple(b.shape)}"
        ) from None
    return operator


def matrix_operator(A: Array) -> Operator:
    """Wrap an array `(..., d, d)`; it must be symmetric.

    Raises
    ------
    ArgumentError
        If it is not square, or not symmetric to rounding.
    ArgumentTypeError
        If it is sparse, masked, or not real.
    """
    A = border.real_array("A", A)
    xp = namespace(A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ArgumentError(f"A: expected a square array (..., d, d), got shape {tuple(A.shape)}")
    d = A.shape[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        skew = xp.max(xp.abs(A - transpose(A)), axis=(-2, -1))
        allowed = 8 * d * xp.finfo(A.dtype).eps * xp.max(xp.abs(A), axis=(-2, -1))
    # Each problem by its own scale; one with NaN is left to the solver, which sets it aside.
    if bool(xp.any(skew > allowed)):
        worst = float(xp.max(xp.where(skew > allowed, skew, xp.zeros_like(skew))))
        raise ArgumentError(f"A: must be symmetric; |A - Aᵀ| reaches {worst:.3g}")
    return Operator(
        lambda v: (A @ v[..., None])[..., 0],
        tuple(A.shape[:-2]),
        d,
        A,
        stacks=True,
        selector=lambda index: matrix_operator(A[index]),
    )


def _matvec_rows(A: Any, v: Array) -> Array:
    if v.ndim == 1:
        return A.matvec(v)
    return np.stack([A.matvec(row) for row in v.reshape(-1, v.shape[-1])]).reshape(v.shape)
