"""Regularisers R(φ, θ) beside the one number λ: one weight a parameter, and penalties that are not quadratic.

All of them are sums over parameters, so their second derivatives are diagonals: D = ∂²R/∂φ² and C = −∂²R/∂φ∂θ. The
two differ as soon as R is no function of φ − θ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from implicit_grad import border
from implicit_grad.backend import Array, namespace


@runtime_checkable
class Regularizer(Protocol):
    """A separable penalty R(φ, θ) = Σ_j r_j(φ_j, θ_j), least at φ = θ; linear in its strength λ.

    The optional attribute `batch_shape` names the leading axes of λ.
    """

    def value(self, phi: Array, theta: Array) -> Array:
        """Return R(φ, θ): `(...)`."""
        ...

    def gradient(self, phi: Array, theta: Array) -> Array:
        """Return ∂R/∂φ: `(..., d)`."""
        ...

    def curvature(self, phi: Array, theta: Array) -> Array:
        """Return D, the diagonal of ∂²R/∂φ²: `(..., d)`."""
        ...

    def coupling(self, phi: Array, theta: Array) -> Array:
        """Return C, the diagonal of −∂²R/∂φ∂θ: `(..., d)`."""
        ...

    def by_strength(self, phi: Array, theta: Array, q: Array) -> Array:
        """Return qᵀ ∂²R/∂φ∂λ: `(...)` for one λ a problem, `(..., d)` for one a parameter."""
        ...


@dataclass(frozen=True, eq=False)
class Quadratic:
    r"""The proximal term of iMAML.

    .. math:: R = \tfrac\lambda2\lVert\varphi-\theta\rVert^2, \qquad D = C = \lambda

    Parameters
    ----------
    lam : float or (...) array
        λ > 0, one number or one per problem.
    """

    lam: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", border.positive("lam", self.lam))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of λ."""
        return tuple(self.lam.shape)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return λ/2 ‖φ − θ‖²: `(...)`."""
        return _sum(0.5 * _each(self.lam, phi) * (phi - theta) ** 2)

    def gradient(self, phi: Array, theta: Array) -> Array:
        """Return λ(φ − θ): `(..., d)`."""
        return _each(self.lam, phi) * (phi - theta)

    def curvature(self, phi: Array, theta: Array) -> Array:
        """Return λ: `(..., d)`."""
        return _each(self.lam, phi) + namespace(phi).zeros_like(phi - theta)

    def coupling(self, phi: Array, theta: Array) -> Array:
        """Return λ: `(..., d)`."""
        return self.curvature(phi, theta)

    def by_strength(self, phi: Array, theta: Array, q: Array) -> Array:
        """Return qᵀ(φ − θ): `(...)`."""
        return _sum(q * (phi - theta))


@dataclass(frozen=True, eq=False)
class DiagonalQuadratic:
    r"""One λ a parameter.

    .. math:: R = \tfrac12 (\varphi-\theta)^\top \Lambda\, (\varphi-\theta), \qquad D = C = \Lambda

    With :math:`J = (H + \Lambda)^{-1}\Lambda` the meta-gradient is :math:`J^\top v = \Lambda (H + \Lambda)^{-1} v`.
    J is not symmetric: J v = (I + Λ⁻¹H)⁻¹ v is another vector.

    Parameters
    ----------
    weights : (..., d) array
        The diagonal of Λ, all > 0.
    """

    weights: Any

    def __post_init__(self) -> None:
        border.vector("weights", self.weights)
        object.__setattr__(self, "weights", border.positive("weights", self.weights))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of Λ."""
        return tuple(self.weights.shape[:-1])

    def _weights(self, x: Array) -> Array:
        return namespace(x).asarray(self.weights, dtype=x.dtype)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return ½ Σ Λ_j (φ_j − θ_j)²: `(...)`."""
        return _sum(0.5 * self._weights(phi) * (phi - theta) ** 2)

    def gradient(self, phi: Array, theta: Array) -> Array:
        """Return Λ(φ − θ): `(..., d)`."""
        return self._weights(phi) * (phi - theta)

    def curvature(self, phi: Array, theta: Array) -> Array:
        """Return Λ: `(..., d)`."""
        return self._weights(phi) + namespace(phi).zeros_like(phi - theta)

    def coupling(self, phi: Array, theta: Array) -> Array:
        """Return Λ: `(..., d)`."""
        return self.curvature(phi, theta)

    def by_strength(self, phi: Array, theta: Array, q: Array) -> Array:
        """Return q ∘ (φ − θ), one entry for each Λ_j: `(..., d)`."""
        return q * (phi - theta)


@dataclass(frozen=True, eq=False)
class LogCosh:
    r"""Quadratic near θ, with the force bounded by λs far from it.

    .. math:: R = \lambda s^2 \sum_j \log\cosh z_j, \quad z = (\varphi-\theta)/s, \qquad
              D = C = \lambda\,\mathrm{sech}^2 z

    Parameters
    ----------
    lam : float or (...) array
        λ > 0: the curvature at φ = θ.
    scale : float
        s > 0: the distance from which the force saturates.

    Notes
    -----
    D falls like e^{−2|z|}: far from θ the inner problem is as curved as its train loss, and no more.
    """

    lam: Any
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", border.positive("lam", self.lam))
        border.positive_float("scale", self.scale)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of λ."""
        return tuple(self.lam.shape)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return λ s² Σ log cosh z: `(...)`."""
        xp, z = namespace(phi), (phi - theta) / self.scale
        size = xp.abs(z)
        # log cosh z = |z| + log(1 + e^−2|z|) − log 2; near 0 these cancel, and ½ log(1 + sinh²z) does not.
        small = xp.where(size < 1, z, xp.zeros_like(z))
        near = 0.5 * xp.log1p(xp.sinh(small) ** 2)
        far = size + xp.log1p(xp.exp(-2 * size)) - 0.6931471805599453
        return _sum(_each(self.lam, phi) * self.scale**2 * xp.where(size < 1, near, far))

    def gradient(self, phi: Array, theta: Array) -> Array:
        """Return λ s tanh z: `(..., d)`."""
        return _each(self.lam, phi) * self.scale * namespace(phi).tanh((phi - theta) / self.scale)

    def curvature(self, phi: Array, theta: Array) -> Array:
        """Return λ sech² z: `(..., d)`."""
        xp = namespace(phi)
        # 1 − tanh² would lose every digit of a small sech².
        decay = xp.exp(-2 * xp.abs(phi - theta) / self.scale)
        return _each(self.lam, phi) * 4 * decay / (1 + decay) ** 2

    def coupling(self, phi: Array, theta: Array) -> Array:
        """Return λ sech² z: `(..., d)`."""
        return self.curvature(phi, theta)

    def by_strength(self, phi: Array, theta: Array, q: Array) -> Array:
        """Return s qᵀ tanh z: `(...)`."""
        return _sum(q * self.gradient(phi, theta) / _each(self.lam, phi))


@dataclass(frozen=True, eq=False)
class PseudoHuber:
    r"""The smooth Huber penalty: quadratic near θ, linear far from it.

    .. math:: R = \lambda s^2 \sum_j \bigl(\sqrt{1 + z_j^2} - 1\bigr), \quad z = (\varphi-\theta)/s, \qquad
              D = C = \lambda (1 + z^2)^{-3/2}

    Parameters
    ----------
    lam : float or (...) array
        λ > 0: the curvature at φ = θ.
    scale : float
        s > 0: the distance at which the penalty turns linear, with slope λs.

    References
    ----------
    Charbonnier et al., Deterministic edge-preserving regularization in computed imaging, IEEE TIP 6, 1997.
    """

    lam: Any
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", border.positive("lam", self.lam))
        border.positive_float("scale", self.scale)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of λ."""
        return tuple(self.lam.shape)

    def _root(self, phi: Array, theta: Array) -> tuple[Array, Array]:
        z = (phi - theta) / self.scale
        return z, namespace(phi).sqrt(1 + z**2)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return λ s² Σ (√(1 + z²) − 1), without the cancellation: `(...)`."""
        z, root = self._root(phi, theta)
        return _sum(_each(self.lam, phi) * self.scale**2 * z**2 / (root + 1))

    def gradient(self, phi: Array, theta: Array) -> Array:
        """Return λ s z/√(1 + z²): `(..., d)`."""
        z, root = self._root(phi, theta)
        return _each(self.lam, phi) * self.scale * z / root

    def curvature(self, phi: Array, theta: Array) -> Array:
        """Return λ (1 + z²)^(−3/2): `(..., d)`."""
        return _each(self.lam, phi) / self._root(phi, theta)[1] ** 3

    def coupling(self, phi: Array, theta: Array) -> Array:
        """Return λ (1 + z²)^(−3/2): `(..., d)`."""
        return self.curvature(phi, theta)

    def by_strength(self, phi: Array, theta: Array, q: Array) -> Array:
        """Return s qᵀ z/√(1 + z²): `(...)`."""
        return _sum(q * self.gradient(phi, theta) / _each(self.lam, phi))


@dataclass(frozen=True, eq=False)
class RelativeEntropy:
    r"""The Bregman divergence of the negative entropy, for positive parameters.

    .. math:: R = \lambda \sum_j \varphi_j \log\frac{\varphi_j}{\theta_j} - \varphi_j + \theta_j, \qquad
              D = \lambda/\varphi, \quad C = \lambda/\theta

    No function of φ − θ: D and C differ, and the meta-gradient is C (H + D)⁻¹ v. Outside φ, θ > 0 all of it is NaN.

    Parameters
    ----------
    lam : float or (...) array
        λ > 0, one number or one per problem.

    References
    ----------
    Bregman, The relaxation method of finding the common point of convex sets, 1967.
    """

    lam: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", border.positive("lam", self.lam))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of λ."""
        return tuple(self.lam.shape)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return λ Σ φ log(φ/θ) − φ + θ: `(...)`."""
        phi, theta = _inside(phi), _inside(theta)
        return _sum(_each(self.lam, phi) * (phi * _log_ratio(phi, theta) - (phi - theta)))

    def gradient(self, phi: Array, theta: Array) -> Array:
        """Return λ log(φ/θ): `(..., d)`."""
        return _each(self.lam, phi) * _log_ratio(_inside(phi), _inside(theta))

    def curvature(self, phi: Array, theta: Array) -> Array:
        """Return λ/φ: `(..., d)`."""
        return _each(self.lam, phi) / _inside(phi) + namespace(phi).zeros_like(theta)

    def coupling(self, phi: Array, theta: Array) -> Array:
        """Return λ/θ: `(..., d)`."""
        return _each(self.lam, phi) / _inside(theta) + namespace(phi).zeros_like(phi)

    def by_strength(self, phi: Array, theta: Array, q: Array) -> Array:
        """Return qᵀ log(φ/θ): `(...)`."""
        return _sum(q * _log_ratio(_inside(phi), _inside(theta)))


def _each(lam: Array, x: Array) -> Array:
    """λ in the namespace and dtype of x, with a vector axis: `(..., 1)`."""
    return namespace(x).asarray(lam, dtype=x.dtype)[..., None]


def _sum(terms: Array) -> Array:
    return namespace(terms).sum(terms, axis=-1)


def _inside(x: Array) -> Array:
    xp = namespace(x)
    return xp.where(x > 0, x, xp.full_like(x, float("nan")))


def _log_ratio(phi: Array, theta: Array) -> Array:
    """log(φ/θ), by log1p where they are close."""
    xp = namespace(phi)
    change = (phi - theta) / theta
    close = xp.abs(change) < 0.5
    return xp.where(close, xp.log1p(xp.where(close, change, xp.zeros_like(change))), xp.log(phi) - xp.log(theta))
