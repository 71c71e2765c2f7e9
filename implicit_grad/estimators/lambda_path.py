"""Implicit gradients for many λ at one φ, for the price of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, namespace, norm, power_of_two_scale
from implicit_grad.errors import ArgumentError
from implicit_grad.linear.krylov import shifted_solutions
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import Status, all_codes, marked, statuses, worst_status


@dataclass(frozen=True)
class LambdaPath:
    r"""CG-k meta-gradients at one φ for every λ of a list, from one Krylov space.

    .. math:: K_k(H + \lambda I, b) = K_k(H, b) \quad\Rightarrow\quad
              g_\lambda = \lambda\, V_k (T_k + \lambda I)^{-1} \lVert b \rVert e_1, \qquad
              b = \nabla L_{\mathrm{test}}(\varphi)

    Equal to `ImplicitGradient(CG(k))` at each λ. φ stays the inner solution that was given: this is the dependence of
    the *linear* part on λ, not that of φ*(λ).

    Parameters
    ----------
    lams : tuple of float
        Values of λ > 0. They replace the problem's own.
    max_steps : int
        k.

    Notes
    -----
    k Hessian-vector products, and one more for each λ to recompute its residual. Keeps k vectors.
    The gradient has shape `(len(lams), ..., d)`. It is NaN, and the status `INDEFINITE`, at each λ for which a Ritz
    value of H + λI is not positive by more than rounding.
    """

    lams: tuple[float, ...]
    max_steps: int
    card: ClassVar[Card] = Card(
        "k HVPs for all λ, 1 for each, 2 gradients",
        "k vectors",
        "as CG-k at each λ",
        "κ is large",
        saddle="NaN for the λ at which CG-k refuses it",
    )

    def __post_init__(self) -> None:
        lams = tuple(border.positive_float("lams", lam) for lam in self.lams)
        if not lams:
            raise ArgumentError("lams: at least one value of λ is needed")
        object.__setattr__(self, "lams", lams)
        border.count("max_steps", self.max_steps)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"λ path, CG-{self.max_steps}"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimates at `inner.value`, λ along the first axis."""
        expect_solution(inner)
        phi = inner.value
        xp = namespace(phi)
        H = problem.operator(problem.inner.linearize(phi), phi, proximal=False)
        b = problem.outer.gradient(phi)
        b = xp.zeros((*H.batch_shape, H.size), dtype=b.dtype) + b
        scale = power_of_two_scale(b)
        b = b / scale[..., None]
        lams = xp.asarray(self.lams, dtype=phi.dtype)
        q, smallest = shifted_solutions(H, b, lams, self.max_steps)
        shift = xp.reshape(lams, (-1, *(1,) * (b.ndim - 1)))
        with np.errstate(over="ignore", invalid="ignore"):
            residual = norm(b - H(q) - shift[..., None] * q)
            curvature = smallest + shift
            size = 10 * H.size * epsilon(phi) * ((xp.abs(smallest) + shift) * norm(q) + norm(b))
        codes = marked(all_codes(residual, Status.BUDGET_SPENT), residual <= size, Status.CONVERGED)
        # Where −λ is an eigenvalue of H the sum is rounding, of either sign.
        met = xp.where(xp.isfinite(smallest), xp.abs(smallest), xp.zeros_like(smallest))  # inf without a step
        refused = curvature <= H.size * epsilon(phi) * (met + shift)
        codes = marked(codes, refused, Status.INDEFINITE)
        codes = marked(codes, ~xp.isfinite(residual) & ~refused, Status.NONFINITE)
        taken = min(self.max_steps, H.size)
        linear = Solution(
            value=q * scale[..., None],
            residual_norm=residual * scale,
            steps=xp.full(residual.shape, taken, dtype=xp.int64),
            status=statuses(codes),
            solver=self,
            cost=Cost(hvps=taken + len(self.lams)),
            smallest_eigenvalue=curvature,
        )
        gradient = shift[..., None] * linear.value
        return Estimate(
            gradient=xp.where(refused[..., None], xp.full_like(gradient, float("nan")), gradient),
            inner=inner,
            linear=linear,
            cost=inner.cost + linear.cost + Cost(gradients=2),
            status=worst_status(inner, linear),
        )
