r"""The bounds themselves: from residuals at a point and premises about the losses to an error in g.

Notation: hats are at the point φ, stars at φ*; D = φ − φ*, G = A/λ = I + H/λ. Adding and subtracting gives, for any
ĝ,

.. math:: G^*(\hat g - g^*) = -r_{\mathrm{lin}} + (\hat b - b^*) + (H^* - \hat H)\,\hat g/\lambda.

**Global constants (B1).** ‖G*⁻¹‖ ≤ λ/m, ‖b̂ − b*‖ ≤ β‖D‖ and ‖H* − Ĥ‖ ≤ ρ‖D‖.

**Self-concordance (B2).** |D³L[u, u, v]| ≤ R‖v‖D²L[u, u] integrates to e^{−w}Ĥ ⪯ H* ⪯ e^{w}Ĥ with w = R‖D‖, that is
H* = Ĥ^{1/2}FĤ^{1/2} with e^{−w} ⪯ F ⪯ e^{w}. With Q = Ĥ^{1/2}F^{1/2}, A* = QQᵀ + λI and

.. math:: A^{*-1}(H^* - \hat H)\hat g = (QQ^\top + \lambda I)^{-1} Q\,(F^{1/2} - F^{-1/2})\,\hat H^{1/2}\hat g,

where the first factor is at most max √h/(h + λ) over eigenvalues h of H*, and the second at most 2 sinh(w/2). The
mean Hessian M on the way from φ* to φ has the same form with (1 − e^{−w})/w ⪯ F ⪯ (e^{w} − 1)/w, which bounds
D = (M + λI)⁻¹r_in: see `_distance`.

**Contraction (B0).** The spectrum of G*⁻¹ lies in [λ/M̄, λ/m], so g* = G*⁻¹b* lies in a ball whatever the Hessian is:
with c and s the middle and half the width of that interval, ‖ĝ − g*‖ ≤ ‖ĝ − c b̂‖ + s‖b̂‖ + (λ/m)‖b̂ − b*‖. No linear
solve is needed for it; it is what remains where φ is far from φ*.

Each is proven, so the smallest is, too. ‖b̂ − b*‖ is also bounded by the test loss itself where it can: see
`SoftmaxCrossEntropy.gradient_change`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from implicit_grad.backend import Array, dot, norm
from implicit_grad.certificates._point import Point, Residual


@dataclass(frozen=True, eq=False)
class Premises:
    """What is known of the losses, per problem.

    Attributes
    ----------
    m : (...) array
        λ_min(H + λI) ≥ m at every φ; −∞ where nothing is known.
    here : (...) array
        The same at the point alone; −∞ where nothing is known.
    beta, rho : (...) arrays
    concordance : (...) array or None
        R.
    """

    m: Array
    here: Array
    beta: Array
    rho: Array
    concordance: Array | None


@dataclass(frozen=True, eq=False)
class Bound:
    """An upper bound of ‖ĝ − g*‖ and what it is made of: inner + linear + rounding = total."""

    total: Array
    inner: Array
    linear: Array
    rounding: Array


class Bounds:
    """All bounds at one point; a gradient costs one product with H, a sharpened distance from φ* another.

    Attributes
    ----------
    seen : (...) array
        Smallest Rayleigh quotient of A that these products met.
    """

    def __init__(self, point: Point, premises: Premises, *, sharpen: bool = True) -> None:
        self.point, self.premises = point, premises
        self.along: Residual | None = None
        self.seen = np.full(point.lam.shape, np.inf)
        if sharpen and premises.concordance is not None:
            self.along = point.product(point.inner.vector)
            self._look(point.inner.vector, self.along)

    def of(self, g: Array) -> Bound:
        """Return the smallest of the bounds of ĝ."""
        Hg = self.point.product(g)
        self._look(g, Hg)
        r_lin = self.point.linear(g, Hg)
        with np.errstate(all="ignore"):
            total, _ = self._smallest(g, Hg, r_lin, 1.0)
            without, linear = self._smallest(g, Hg, r_lin, 0.0)
            return Bound(total, without - linear, linear, total - without)

    def _look(self, v: Array, Hv: Residual) -> None:
        """Keep the smallest Rayleigh quotient of A, on the safe side: λ_min(A) is no larger."""
        with np.errstate(all="ignore"):
            length = norm(v)
            unit = v / length[..., None]
            quotient = dot(unit, Hv.vector / length[..., None]) + Hv.rounding / length + self.point.lam
            self.seen = np.fmin(self.seen, quotient)

    def _smallest(self, g: Array, Hg: Residual, r_lin: Residual, share: float) -> tuple[Array, Array]:
        """Return the bound and its linear part, with this share of every rounding allowance."""
        point, premises, lam = self.point, self.premises, self.point.lam
        m, delta = self._distance(share)
        factor = lam / m
        moved = premises.beta * delta
        change = getattr(point.problem.outer, "gradient_change", None)
        if change is not None:
            moved = np.fmin(moved, change(point.phi, np.where(np.isnan(delta), np.inf, delta)))
        curved = factor * premises.rho * delta * norm(g) / lam
        if premises.concordance is not None:
            energy = np.maximum(dot(g, Hg.vector), 0) + share * norm(g) * Hg.rounding
            local = _peak(m, lam) * 2 * np.sinh(0.5 * premises.concordance * delta) * np.sqrt(energy)
            curved = np.fmin(curved, local)
        linear = factor * (r_lin.norm + share * r_lin.rounding)
        total = linear + factor * moved + curved
        b, largest = point.outer, self._largest()
        middle, width = 0.5 * (factor + lam / largest), 0.5 * (factor - lam / largest)
        loose = norm(g - middle[..., None] * b.vector) + width * b.norm + factor * share * b.rounding
        contracted = loose + factor * moved
        closer = contracted < total
        return np.where(closer, contracted, total), np.where(closer, loose, linear)

    def _largest(self) -> Array:
        """M̄ with λ_max(A) ≤ M̄ everywhere; infinite where the loss cannot say."""
        known = getattr(self.point.problem.inner, "curvature_bound", None)
        if known is None:
            return np.full(self.point.lam.shape, np.inf)
        return (1 + 100 * self.point.unit) * known() + self.point.lam

    def _distance(self, share: float) -> tuple[Array, Array]:
        """Return m on the way from φ to φ*, and a bound of ‖D‖.

        With s = Â⁻¹r_in, whose norms √(r_inᵀÂ⁻ʲr_in) are bounded by quadrature from one product:

        - D ⪯ the length on which the curvature holds: ‖D‖ ≤ ‖r_in‖/m;
        - Dᵀr_in ≥ DᵀÂD·(1 − e^{−w})/w gives 1 − e^{−R‖D‖} ≤ Rν with ν = √(r_inᵀÂ⁻¹r_in)/√m;
        - D = s + (M + λI)⁻¹(Ĥ − M)s gives ‖D‖ ≤ ‖s‖ + max√h/(h + λ)·(F^{1/2} − F^{−1/2})·√(sᵀĤs), F = (e^{w} − 1)/w.
        """
        point, R, lam = self.point, self.premises.concordance, self.point.lam
        slack = share * point.inner.rounding
        m, delta = _way(self.premises, point.inner.norm + slack, lam)
        if R is None or self.along is None:
            return m, delta
        first, second = _quadrature(point.inner, self.along, m, lam, share)
        energy = np.sqrt(first) + slack / np.sqrt(m)
        nu = energy / np.sqrt(m)
        delta = np.fmin(delta, np.where(R > 0, -np.log1p(-R * nu) / R, nu))
        for _ in range(2):
            w = R * delta
            growth = np.sqrt(np.where(w > 1e-8, np.expm1(w) / w, 1 + w))
            bent = _peak(m, lam) * (growth - 1 / growth) * np.sqrt(first)
            delta = np.fmin(delta, np.sqrt(second) + bent + slack / m)
        return m, delta


def _way(premises: Premises, r: Array, lam: Array) -> tuple[Array, Array]:
    """Return m on the whole way from φ to φ*, and ‖φ − φ*‖ ≤ δ, for a residual of norm r; NaN if unknown.

    A bound m̂ at φ alone falls by ρ with the distance. By Newton and Kantorovich there is one stationary point within
    δ = (m̂ − √(m̂² − 2ρr))/ρ if the root is real, and m = √(m̂² − 2ρr) up to there. Where strong convexity limits the
    distance beforehand, m̂ − ρδ and, for a self-concordant loss, λ + e^{−Rδ}(m̂ − λ) hold as well.
    """
    m, here, rho, R = premises.m, premises.here, premises.rho, premises.concordance
    known = np.where(m > 0, r / m, np.inf)
    inside = here**2 - 2 * rho * r
    root = np.sqrt(np.where((here > 0) & (inside > 0), inside, np.nan))
    delta = np.fmin(known, 2 * r / (here + root))
    near = np.where(known < np.inf, here - rho * known, -np.inf)
    if R is not None:
        near = np.fmax(near, np.where(known < np.inf, lam + np.exp(-R * known) * np.maximum(here - lam, 0), -np.inf))
    best = np.fmax(np.fmax(m, root), near)
    best = np.where(best > 0, best, np.nan)
    return best, np.fmin(np.where(np.isnan(best), np.nan, delta), r / best)


def _peak(m: Array, lam: Array) -> Array:
    """Largest √h/(h + λ) over h ≥ m − λ, h ≥ 0: 1/(2√λ), taken at h = λ, unless all h lie above."""
    return np.where(m > 2 * lam, np.sqrt(np.maximum(m - lam, 0)) / m, 0.5 / np.sqrt(lam))


def _quadrature(r: Residual, Hr: Residual, m: Array, lam: Array, share: float) -> tuple[Array, Array]:
    """Upper bounds of rᵀA⁻¹r and rᵀA⁻²r from H r: Gauss–Radau quadrature with its node at m ≤ λ_min(A).

    The odd derivatives of x⁻¹ and x⁻² are negative, so the rule with one node at the left end errs upwards (Golub and
    Meurant 1994). With one Lanczos step, a = rᵀAr/rᵀr and t = ‖Ar − ar‖/‖r‖ the rule is in closed form:
    its other node is a + q with q = t²/(a − m). Rounding moves a down and t up, which is the safe side.
    """
    vector, length = r.vector, np.where(r.norm > 0, r.norm, 1.0)
    slope = dot(vector, Hr.vector) / length**2
    off = norm(Hr.vector - slope[..., None] * vector) / length
    rounding = share * 2 * Hr.rounding / length
    a = np.maximum(slope - rounding + lam, m)
    t = off + rounding
    q = np.where(t > 0, t**2 / (a - m), 0.0)
    far = ~(q < 1e8 * a)  # all weight goes to the node m
    first, second = (m + q) / (m * (a + q)), ((m + q) ** 2 + t**2) / (m * (a + q)) ** 2
    return length**2 * np.where(far, 1 / m, first), length**2 * np.where(far, 1 / m**2, second)
