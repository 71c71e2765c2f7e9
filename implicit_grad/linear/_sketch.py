"""A randomised low-rank model of H, where A = H + σI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from implicit_grad.backend import Array, epsilon, namespace, power_of_two_scale, transpose
from implicit_grad.errors import ArgumentError
from implicit_grad.linear.operator import Operator


@dataclass(frozen=True, eq=False)
class Sketch:
    """Ĥ = U diag(values) Uᵀ, one per problem.

    Attributes
    ----------
    U : (..., d, r) array
        Orthonormal columns.
    values : (..., r) array
        Eigenvalues of Ĥ, descending, ≥ 0.
    shift : (...) array
        σ.
    smallest, largest : (...) arrays
        Extreme Ritz values of A on the sketched space: λ_min(A) ≤ smallest, largest ≤ λ_max(A).
    finite : (...) bool array
        Whether every product was finite; where not, Ĥ = 0.
    """

    U: Array
    values: Array
    shift: Array
    smallest: Array
    largest: Array
    finite: Array

    def shrink(self, v: Array, factors: Array) -> Array:
        """Return U diag(factors) Uᵀ v and what is left of v beside U's space, twice orthogonalised."""
        first = _pull(self.U, v)
        rest = v - _push(self.U, first)
        rest = rest - _push(self.U, _pull(self.U, rest))
        return _push(self.U, factors * first), rest

    def inverse(self, b: Array) -> Array:
        """Return (Ĥ + σI)⁻¹ b, for σ > 0."""
        inside, outside = self.shrink(b, 1 / (self.values + self.shift[..., None]))
        return inside + outside / self.shift[..., None]


def check_rank(rank: int, size: int) -> None:
    """Refuse a rank above d.

    Raises
    ------
    ArgumentError
        Naming both.
    """
    if rank > size:
        raise ArgumentError(f"rank: {rank} exceeds the {size} parameters; rank = {size} is exact inversion already")


def sketch(A: Operator, rank: int, seed: int) -> Sketch:
    r"""Randomised Nyström approximation of H = A − σI from `rank` products.

    .. math:: \hat H = Y\,(\Omega^\top Y)^{+}\,Y^\top, \qquad Y = H\,\Omega

    with an orthonormalised Gaussian Ω, one for all problems, drawn on the host. For H ⪰ 0, 0 ⪯ Ĥ ⪯ H. As in
    Frangella, Tropp & Udell (Algorithm 2.1), H + νI with ν near rounding is factored and ν taken off again.
    Directions of negative curvature are left out: Ĥ ⪰ 0 always. σ = 0 where A's shift is not known.
    """
    xp, d = namespace(A.like), A.size
    check_rank(rank, d)
    shift = _shift(A)
    draw = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, rank)))[0]
    omega = xp.asarray(draw, dtype=A.like.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        Y = _products(A, omega)
        flat = xp.reshape(Y, (*Y.shape[:-2], d * rank))
        finite = xp.all(xp.isfinite(flat), axis=-1)
        # Divided by its size: no square of an entry under- or overflows on the way.
        scale = power_of_two_scale(flat)
        Y = xp.where(finite[..., None, None], Y / scale[..., None, None], xp.zeros_like(Y))
        sigma = xp.where(finite, shift / scale, xp.ones_like(scale))
    Y = Y - sigma[..., None, None] * omega
    core = transpose(omega) @ Y
    core = 0.5 * (core + transpose(core))
    noise = d**0.5 * epsilon(Y) * (xp.sqrt(xp.sum(Y * Y, axis=(-2, -1))) + sigma)
    values, W = xp.linalg.eigh(core)
    ends = [scale * (values[..., i] + sigma) for i in (0, -1)]
    lifted = values + noise[..., None]
    live = lifted > 0.5 * noise[..., None]
    weights = xp.where(live, 1 / xp.sqrt(xp.where(live, lifted, xp.ones_like(lifted))), xp.zeros_like(lifted))
    B = ((Y + noise[..., None, None] * omega) @ W) * weights[..., None, :]
    U, sizes, _ = xp.linalg.svd(B, full_matrices=False)
    found = sizes * sizes - noise[..., None]
    found = xp.where(found > 0, found, xp.zeros_like(found))
    return Sketch(U, found * scale[..., None], sigma * scale, ends[0], ends[1], finite)


def _shift(A: Operator) -> Array:
    xp = namespace(A.like)
    zero = xp.zeros(A.batch_shape, dtype=A.like.dtype)
    return zero if A.shift is None else zero + A.shift


def _products(A: Operator, omega: Array) -> Array:
    """A Ω as `(..., d, rank)`: all columns at once where A takes them."""
    xp, rank = namespace(omega), int(omega.shape[-1])
    ones = (1,) * len(A.batch_shape)
    rows = xp.reshape(transpose(omega), (rank, *ones, A.size))
    rows = rows + xp.zeros((rank, *A.batch_shape, A.size), dtype=omega.dtype)
    products = A(rows) if A.stacks else xp.stack([A(rows[i, ...]) for i in range(rank)], axis=0)
    return xp.moveaxis(products, 0, -1)


def _pull(U: Array, v: Array) -> Array:
    return (transpose(U) @ v[..., None])[..., 0]


def _push(U: Array, w: Array) -> Array:
    return (U @ w[..., None])[..., 0]
