"""The meta-gradient by complex steps in θ: a derivative without subtraction, and without any second derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, expand, namespace, norm
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.estimators._complex_losses import complex_loss
from implicit_grad.estimators._verdict import indefinite, refused
from implicit_grad.inner._protocol import attainable
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution

_SHARE = 1e-30
"""h in units of ‖θ‖ + ‖φ‖: h² is lost beside anything, h is not lost at all."""
_REFINEMENTS = 3
_FAINTEST = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
"""Of numbers below it rounding takes more than its share."""


@dataclass(frozen=True)
class ComplexStepGradient:
    r"""F(θ + ihe_j) by Newton's method on complex parameters; its imaginary part over h is the derivative.

    .. math:: \nabla L(\varphi) + \lambda(\varphi - \theta - i h e_j) = 0, \qquad
              g_j = \frac{\mathrm{Im}\,L_{\mathrm{test}}(\varphi)}{h} + O(h^2), \qquad h \sim 10^{-30}

    Nothing is subtracted, so that h may be as small as one likes and g has all digits that the condition of A leaves.
    The losses are evaluated by code of their own, from their definitions; the Hessian is a complex step of the
    gradient, too, and only steers Newton. What comes out shares with the other estimators the data and nothing else:
    it is a reference.

    Parameters
    ----------
    max_steps : int
        Newton steps, full ones, from the inner solution to φ*.

    Raises
    ------
    ArgumentTypeError
        When called on losses other than `LeastSquares`, `SoftmaxCrossEntropy` and `MultilayerPerceptron` with `Tanh`
        or `Softplus`, on arrays other than NumPy's. A traced loss (`Autodiff`) may hold abs, max or a norm, which no
        complex step survives, and does not say so.

    Notes
    -----
    Each Newton step takes d + 1 gradients and a spectrum of A, the end 4d gradients and d values, all in complex128
    whatever the dtype of the data, and counted as one each. `STAGNATED`: Newton did not reach the rounding floor from
    the inner solution. `INDEFINITE`: it reached a saddle.

    References
    ----------
    Squire, Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).
    """

    max_steps: int = 30
    card: ClassVar[Card] = Card(
        "d + 1 gradients and a spectrum of A a Newton step, 5d more",
        "d² numbers, d times the activations",
        "rounding, about eps·κ",
        "the loss is not one of the closed forms (refused), or d is more than a few hundred",
        saddle="NaN, by all eigenvalues",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "complex step"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the derivative at the minimum that Newton reaches from `inner.value`."""
        expect_solution(inner)
        if namespace(inner.value) is not np:
            raise ArgumentTypeError("inner: complex steps are taken on NumPy arrays only")
        run = _Run(problem, expand(theta, tuple(inner.value.shape)), inner.value)
        run.to_minimum(self.max_steps)
        g, saddle, met = run.gradient()
        g = np.where(saddle[..., None], np.nan, g).astype(inner.value.dtype)
        status = refused(indefinite(inner, saddle), ~met)
        return Estimate(g, inner, None, inner.cost + run.cost, status)


class _Run:
    """Real and complex stationary points of G, one per problem of the batch."""

    def __init__(self, problem: BilevelProblem, theta: Array, phi: Array) -> None:
        self.problem, self.train, self.test = (
            problem,
            complex_loss("inner", problem.inner),
            complex_loss("outer", problem.outer),
        )
        self.theta, self.phi = theta.astype(np.float64), phi.astype(np.float64)
        self.lam, self.size = np.asarray(problem.lam, dtype=np.float64)[..., None], int(phi.shape[-1])
        h = _SHARE * (norm(self.theta) + norm(self.phi))
        self.h = np.where(h > 0, h, _SHARE)[..., None]
        self.basis = np.eye(self.size).reshape(-1, *(1,) * (phi.ndim - 1), self.size)
        self.cost = Cost()

    def stationarity(self, phi: Array, theta: Array) -> Array:
        """∇L(φ) + λ(φ − θ), for real and for complex arguments `(k, ..., d)`."""
        self.cost += Cost(gradients=int(phi.shape[0]))
        return self.train.gradient(phi) + self.lam * (phi - theta)

    def spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues and eigenvectors of A(φ), whose Hessian is a complex step of the gradient."""
        ahead = self.phi + 1j * self.h * self.basis
        rows = self.stationarity(ahead, self.theta).imag / self.h
        A = np.moveaxis(np.broadcast_to(rows, ahead.shape), 0, -2)
        A = 0.5 * (A + np.swapaxes(A, -1, -2))
        usable = np.isfinite(A).all(axis=(-2, -1))[..., None, None]
        return np.linalg.eigh(np.where(usable, A, np.eye(self.size)))

    def to_minimum(self, max_steps: int) -> None:
        """Full Newton steps until every residual is down to rounding, and one more."""
        for step in range(max_steps):
            r = self.stationarity(self.phi[None, ...], self.theta)[0]
            met = self.met(r)
            moved = self.phi - _solve(self.spectrum(), r)
            self.phi = np.where(np.isfinite(moved), moved, self.phi)
            if met.all() and step:
                break

    def met(self, r: Array) -> Array:
        """Whether a residual is what rounding leaves."""
        return norm(r) <= attainable(self.problem, self.phi, self.theta)

    def gradient(self) -> tuple[Array, Array, Array]:
        """Im F(θ + ihe_j)/h for every j, whether A is no positive definite matrix, and whether φ is stationary."""
        spectrum = self.spectrum()
        turns = 1j * self.h * self.basis
        phi = self.phi + 1j * self.h * self.lam * _solve(spectrum, self.basis)
        for _ in range(_REFINEMENTS):
            r = self.stationarity(phi, self.theta + turns)
            phi = phi - 1j * _solve(spectrum, r.imag)
        self.cost += Cost(values=self.size)
        slopes = np.moveaxis(self.test.value(phi).imag, 0, -1)
        lost = _faint(np.abs(phi.imag).max(axis=0)) | self._lost(slopes)
        saddle = spectrum[0][..., 0] <= 0
        return slopes / self.h, saddle, self.met(r.real[0]) & ~lost

    def _lost(self, slopes: Array) -> Array:
        """Whether the slopes fell below the range of floats, and are not 0 because ∇L_test is."""
        faint = _faint(slopes)
        if faint.any():
            self.cost += Cost(gradients=1)
            faint &= self.test.gradient(self.phi[None, ...])[0].any(axis=-1)
        return faint


def _faint(x: Array) -> Array:
    """Whether all that is left of a vector is so small that digits have been lost."""
    return np.abs(x).max(axis=-1) < _FAINTEST


def _solve(spectrum: tuple[Array, Array], b: Array) -> Array:
    """A⁻¹ b for b `(..., d)`, from the eigenvalues and eigenvectors of A."""
    values, vectors = spectrum
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        turned = (np.swapaxes(vectors, -1, -2) @ b[..., None])[..., 0] / values
        return (vectors @ turned[..., None])[..., 0]
