"""First-order MAML: no second derivatives at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from implicit_grad.backend import Array
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import statuses


@dataclass(frozen=True)
class FirstOrderGradient:
    r"""First-order MAML: the Jacobian of φ(θ) replaced by the identity.

    .. math:: g = \nabla L_{\mathrm{test}}(\varphi)

    Its distance from the meta-gradient is at most M/(λ + M) ‖∇L_test‖ for a convex train loss with curvature at
    most M: small for λ ≫ M only, and no inner accuracy repairs it. It asks for no curvature, and so it cannot tell a
    minimum from a saddle.

    References
    ----------
    Finn, Abbeel, Levine 2017, arXiv:1703.03400, section 5.2.
    """

    card: ClassVar[Card] = Card(
        "1 gradient",
        "1 vector",
        "up to M/(λ + M)",
        "λ is not much larger than the curvature M",
        saddle="does not look",
    )

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "first-order"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return ∇L_test at `inner.value`."""
        expect_solution(inner)
        return Estimate(
            problem.outer.gradient(inner.value), inner, None, inner.cost + Cost(gradients=1), statuses(inner.codes)
        )
