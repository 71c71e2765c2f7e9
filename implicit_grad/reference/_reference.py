"""The entry: which arithmetic, which precision, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError, ConvergenceError, IndefiniteError
from implicit_grad.inner import Newton
from implicit_grad.problem import BilevelProblem, expect_problem
from implicit_grad.reference._arithmetic import Verified, verified_arithmetic
from implicit_grad.reference._enclosure import Enclosure, NoMinimum, NotProven, enclose
from implicit_grad.reference._losses import ReferenceLoss
from implicit_grad.reference._refinement import refine
from implicit_grad.results import Solution

LARGEST = 100
"""Size d up to which a reference is computed in verified arithmetic."""

_BITS = float(np.log2(10))
_ATTEMPTS = 5
_MOST_DIGITS = 200


@dataclass(frozen=True, eq=False)
class Reference:
    """∇F(θ) of the branch that was found, with a bound of its own error.

    Attributes
    ----------
    gradient : (..., d) array
        `values`, rounded to float64.
    values : (..., d) object array of fractions.Fraction
        Exact numbers: differences from them lose nothing.
    radius : (...) array
        Bound of ‖values − ∇F(θ)‖.
    digits : (...) int array
        Decimal digits of ‖∇F‖ that the radius leaves.
    phi : (..., d) array
        φ*, rounded to float64.
    proven : bool
        Whether the radius is a theorem about the data given, down to the last rounding; otherwise it rests on
        the model of a certificate.
    arithmetic : str
        What computed it.
    """

    gradient: Array
    values: Array
    radius: Array
    digits: Array
    phi: Array
    proven: bool
    arithmetic: str

    def error(self, gradient: Any) -> Array:
        """‖gradient − ∇F‖/‖∇F‖, the difference taken exactly: `(...)`."""
        g = border.real_array("gradient", gradient, min_ndim=1)
        try:
            g = np.broadcast_to(g, self.gradient.shape)
        except ValueError:
            raise ArgumentError(
                f"gradient: shape {g.shape} does not fit the reference, {self.gradient.shape}"
            ) from None
        found = np.empty(self.gradient.shape[:-1])
        for index in np.ndindex(found.shape):
            size = _length(list(self.values[index]))
            if not np.isfinite(g[index]).all():
                found[index] = np.nan
                continue
            off = _length([Fraction(float(a)) - b for a, b in zip(g[index], self.values[index], strict=True)])
            found[index] = off / size if size > 0 else (np.inf if off > 0 else 0.0)
        return found[()]


def reference(problem: BilevelProblem, theta: Array, digits: int = 50, *, start: Array | None = None) -> Reference:
    r"""Compute ∇F(θ) to many digits with a proven radius.

    Up to d = 100 the losses are evaluated from their definitions in ball arithmetic (Arb), or in interval arithmetic
    (mpmath) where python-flint is not installed: Newton in many digits from the minimum that is found in float64,
    Krawczyk's test for the existence and uniqueness of φ* in a box around its end, positive pivots for its being a
    minimum, and an enclosure of :math:`\lambda A^{-1}\nabla L_{\mathrm{test}}` over the whole box. Above, φ and g are
    refined in float64 with residuals in long doubles, and the radius is that of a certificate with their rounding;
    `digits` is then what these reach, about 17 less log₁₀ κ.

    Parameters
    ----------
    problem : BilevelProblem
        With losses `LeastSquares`, `SoftmaxCrossEntropy` or `MultilayerPerceptron` with `Tanh` or `Softplus`.
    theta : (..., d) array
        Problems of a batch are computed one by one.
    digits : int
        Relative to ‖∇F‖; the data are taken as the exact numbers they are in binary.
    start : (..., d) array, optional
        A point in the basin of the minimum wanted; default: what Newton finds from θ.

    Returns
    -------
    Reference

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For other losses, and for arrays that do not live on the host.
    MissingDependency
        Without python-flint and mpmath, naming the extra.
    IndefiniteError
        If the point found is no strict minimum.
    ConvergenceError
        If no minimum was found, or none could be proven.

    Examples
    --------
    >>> from implicit_grad import LeastSquares
    >>> problem = BilevelProblem(LeastSquares(np.eye(1), np.ones(1)), LeastSquares(np.eye(1), np.zeros(1)), lam=0.5)
    >>> found = reference(problem, np.zeros(1))  # φ* = 2/3, g = 2/9
    >>> abs(found.values[0] - Fraction(2, 9)) <= found.radius, float(found.radius) < 1e-50
    (True, True)
    """
    expect_problem(problem)
    theta = problem.parameters(theta)
    if namespace(theta) is not np:
        raise ArgumentTypeError("theta: references are computed on the host; move the problem with to_numpy")
    border.count("digits", digits, minimum=1)
    if digits > _MOST_DIGITS:
        raise ArgumentError(f"digits: at most {_MOST_DIGITS}, got {digits}")
    inner = Newton(1e-13)(problem, theta, start=start)
    inner.unwrap()
    shape, d = theta.shape[:-1], int(theta.shape[-1])
    R = verified_arithmetic() if d <= LARGEST else None
    values = np.empty(theta.shape, dtype=object)
    phi, radius, got = np.empty(theta.shape), np.empty(shape), np.empty(shape, dtype=int)
    proven, off = True, None
    for index in np.ndindex(shape):
        row = problem.select(index, shape)
        if R is not None:
            found = _verified(R, row, theta[index], inner, index, digits)
            values[index], phi[index] = found.gradient, _floats(found.phi)
            off, size = found.radius, found.size
        else:
            refined = refine(row, theta[index], inner.value[index])
            values[index] = [_exactly(each) for each in refined.gradient]
            phi[index] = refined.phi.astype(np.float64)
            off = Fraction(refined.radius) if np.isfinite(refined.radius) else None
            size, proven = max(map(abs, values[index])), False
        radius[index] = np.inf if off is None else np.nextafter(float(off), np.inf)
        got[index] = 0 if off is None else _digits(off, size)
    name = R.name if R is not None else "float64 refined with long double residuals"
    return Reference(_floats(values), values, radius[()], got[()], phi, proven, name)


def _verified(
    R: Verified, row: BilevelProblem, theta: Array, inner: Solution[Any], index: tuple[int, ...], digits: int
) -> Enclosure:
    """Raise the precision until the radius is as small as asked for."""
    bits, reason = int((digits + 20) * _BITS) + 64, ""
    best: Enclosure | None = None
    for _ in range(_ATTEMPTS):
        with R.precision(bits):
            train, test = ReferenceLoss("inner", row.inner, R), ReferenceLoss("outer", row.outer, R)
            try:
                best = enclose(R, train, test, float(row.lam), theta, inner.value[index], digits)
            except NoMinimum as error:
                raise IndefiniteError(f"reference: the stationary point of problem {index} {error}", inner) from None
            except (NotProven, OverflowError) as error:
                reason, bits = str(error), 2 * bits
                continue
        short = digits - _digits(best.radius, best.size)
        if short <= 0:
            return best
        bits += int(min(short, digits) * _BITS) + 32
    if best is None:
        raise ConvergenceError(f"reference: no minimum could be proven for problem {index}: {reason}", inner)
    return best


def _digits(radius: Fraction, size: Fraction) -> int:
    """Decimal digits between a radius and a size."""
    if radius == 0:
        return _MOST_DIGITS
    ratio = size / radius
    return max(0, len(str(ratio.numerator // ratio.denominator)) - 1)


def _exactly(x: Any) -> Fraction:
    """A long double as the exact number it is."""
    mantissa, exponent = np.frexp(x)
    high = float(mantissa)
    return (Fraction(high) + Fraction(float(mantissa - high))) * Fraction(2) ** int(exponent)


def _floats(values: Array) -> Array:
    return np.vectorize(float, otypes=[np.float64])(values)


def _length(values: list[Fraction]) -> float:
    """Euclidean norm, scaled so that nothing is lost to the range of floats."""
    largest = max(map(abs, values))
    if largest == 0:
        return 0.0
    return float(largest) * float(sum((v / largest) ** 2 for v in values)) ** 0.5
