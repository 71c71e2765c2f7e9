"""Richardson extrapolation of any estimator with a known order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentError
from implicit_grad.estimators.meta_gradient import Estimator
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Estimate, Solution, expect_solution
from implicit_grad.status import worst_status


@dataclass(frozen=True)
class RichardsonGradient:
    r"""Two estimates of one method at two accuracies, combined so that the leading error cancels.

    .. math:: g = \frac{r^p g_{\mathrm{fine}} - g_{\mathrm{coarse}}}{r^p - 1}, \qquad
              g_{\mathrm{fine}} = g^* + C\,(h/r)^p + \dots, \quad g_{\mathrm{coarse}} = g^* + C\,h^p + \dots

    The order p is assumed, not checked: with the right one the error falls by the order of the next term (p + 1, or
    p + 2 for symmetric rules), with a wrong one the leading error stays, changed by a factor.

    Parameters
    ----------
    coarse, fine : Estimator
        One method, its accuracy parameter `ratio` times smaller in `fine`: `ContrastiveGradient(s, solver)` and
        `ContrastiveGradient(s / 2, solver)`, or `FiniteDifferenceGradient` with two steps.
    order : int
        p ≥ 1: 2 for two-sided, 1 for one-sided contrastive gradients, 2 for central differences.
    ratio : float
        r > 1.

    Notes
    -----
    Both estimates from one inner solution; the cost is theirs together. Noise of the fine one is multiplied by up to
    (rᵖ + 1)/(rᵖ − 1).

    References
    ----------
    Richardson, The approximate arithmetical solution by finite differences, 1911.
    """

    coarse: Estimator
    fine: Estimator
    order: int
    ratio: float = 2.0
    card: ClassVar[Card] = Card(
        "both estimators",
        "as the estimators",
        "the next order: s⁴ for two-sided contrastive",
        "the order assumed is not the order, or noise is all that is left",
        saddle="as its estimators",
    )

    def __post_init__(self) -> None:
        border.strategy("coarse", self.coarse, "ContrastiveGradient(1e-2, Newton())")
        border.strategy("fine", self.fine, "ContrastiveGradient(5e-3, Newton())")
        border.count("order", self.order, minimum=1)
        object.__setattr__(self, "ratio", border.positive_float("ratio", self.ratio))
        if self.ratio <= 1:
            raise ArgumentError(f"ratio: must be larger than 1, got {self.ratio}")

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"Richardson, {getattr(self.fine, 'label', repr(self.fine))}"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the extrapolated estimate from one inner solution."""
        expect_solution(inner)
        coarse, fine = (estimator(problem, theta, inner) for estimator in (self.coarse, self.fine))
        power = self.ratio**self.order
        # g_fine plus a correction: nothing is multiplied by rᵖ that cancels afterwards.
        gradient = fine.gradient + (fine.gradient - coarse.gradient) / (power - 1)
        once = coarse.cost + fine.cost + inner.cost.times(-1)  # the inner solve was paid once
        return Estimate(gradient, fine.inner, None, once, worst_status(coarse, fine))
