"""Reptile's direction: where the inner solution went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Estimate, Solution, expect_solution
from implicit_grad.status import statuses


@dataclass(frozen=True)
class ReptileDirection:
    r"""θ − φ, scaled: a step against it moves θ towards the inner solution. It is not a gradient of F.

    .. math:: g = \mathrm{scale}\cdot(\theta - \varphi)

    It knows nothing of the test loss, so that no accuracy and no λ make it the meta-gradient. It is the gradient of
    something else, with scale = λ and φ = φ*: of the Moreau envelope of the train loss,

    .. math:: \nabla_\theta \min_\varphi G(\varphi;\theta) = \lambda(\theta - \varphi^*)
              = \nabla L_{\mathrm{train}}(\varphi^*).

    Parameters
    ----------
    scale : float
        Reptile's own is 1, and its step size in θ does the rest; 1/(αK) makes it the mean of K gradients, for K
        steps of plain gradient descent.

    Notes
    -----
    No oracle call at all: nothing here can tell a minimum from a saddle.

    References
    ----------
    Nichol, Achiam, Schulman, On first-order meta-learning algorithms, 2018, arXiv:1803.02999.
    """

    scale: float = 1.0
    card: ClassVar[Card] = Card(
        "nothing",
        "O(d)",
        "not an estimate of ∇F",
        "always: it does not see the test loss",
        saddle="does not look",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", border.positive_float("scale", self.scale))

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "Reptile"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the direction to `inner.value`."""
        expect_solution(inner)
        return Estimate(self.scale * (theta - inner.value), inner, None, inner.cost, statuses(inner.codes))
