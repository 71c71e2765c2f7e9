"""Minimise along λ, each solve starting where the last one ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentError
from implicit_grad.inner._protocol import InnerSolver
from implicit_grad.inner.newton import Newton
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import statuses, succeeded


@dataclass(frozen=True)
class Continuation:
    r"""φ*(λ) for a list of λ, from the largest down, with warm starts.

    .. math:: \lambda \to \infty:\ \varphi^* \to \theta, \qquad
              \varphi^*_{\lambda'} \text{ starts from } \varphi^*_{\lambda},\ \lambda' < \lambda

    For large λ the minimum is unique and next to θ, and going down follows that branch for as long as it exists. A
    network has other minima at small λ; cold starts may find any of them, each λ another.

    Parameters
    ----------
    lams : tuple of float
        Values of λ > 0; they replace the problem's own.
    solver : InnerSolver
        Must take `start=`.

    Notes
    -----
    The result has λ as its first axis, in the order given. Its cost is the sum over λ.
    """

    lams: tuple[float, ...]
    solver: InnerSolver = field(default_factory=Newton)

    card: ClassVar[Card] = Card(
        "a warm solve for each λ",
        "of the solver",
        "of the solver",
        "the branch ends before the smallest λ",
        saddle="as the solver",
    )

    def __post_init__(self) -> None:
        lams = tuple(border.positive_float("lams", lam) for lam in self.lams)
        if not lams:
            raise ArgumentError("lams: at least one value of λ is needed")
        object.__setattr__(self, "lams", lams)

    def __call__(
        self, problem: BilevelProblem, theta: Array, *, start: Array | None = None
    ) -> Solution[Continuation]:
        """Minimise for every λ; `start` is for the largest one."""
        found: dict[int, Solution[Any]] = {}
        cost = Cost()
        for i in sorted(range(len(self.lams)), key=lambda i: -self.lams[i]):
            found[i] = self.solver(problem.with_lam(self.lams[i]), theta, start=start)
            cost += found[i].cost
            # A failed solve is no start: the next λ begins where that problem's last good one ended.
            good = succeeded(found[i].codes)[..., None]
            start = namespace(good).where(good, found[i].value, theta if start is None else start)
        each = [found[i] for i in range(len(self.lams))]
        xp = namespace(each[0].value)
        return Solution(
            value=xp.stack([solution.value for solution in each], axis=0),
            residual_norm=xp.stack([solution.residual_norm for solution in each], axis=0),
            steps=xp.stack([xp.asarray(solution.steps) for solution in each], axis=0),
            status=statuses(xp.stack([solution.codes for solution in each], axis=0)),
            solver=self,
            cost=cost,
        )
