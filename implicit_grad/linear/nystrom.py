"""The Nyström method: invert a low-rank model of H, shifted by λ itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.linear._sketch import check_rank, sketch
from implicit_grad.linear._system import prepare, verdict
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class Nystrom:
    r"""Solve (H + λI) x = b with a randomised Nyström approximation Ĥ of H, and with λ as it is: no damping.

    .. math:: x = (\hat H + \lambda I)^{-1} b
              = U(\hat\Lambda + \lambda I)^{-1}U^\top b + \tfrac1\lambda (I - UU^\top)\, b, \qquad
              \hat H = Y (\Omega^\top Y)^{+} Y^\top = U\hat\Lambda U^\top, \quad Y = H\Omega

    For H ⪰ 0 and E = ‖H − Ĥ‖ the error obeys

    .. math:: \bigl\lVert (I + \hat H/\lambda)^{-1} - (I + H/\lambda)^{-1} \bigr\rVert \le \frac{E}{\lambda + E}

    and it is exact once the rank reaches rank H. The method needs to know λ: A must be `problem.curvature(phi)`,
    `Operator.shifted`, or an `Operator` with its `shift` given.

    Parameters
    ----------
    rank : int
        Number of sketched directions, 1 ≤ rank ≤ d.
    seed : int
        Of Ω, an orthonormalised Gaussian, the same for all problems. Drawn on the host.

    Notes
    -----
    `rank` products at once, and one for the residual; rank·d numbers a problem. The status is that of a spent
    budget: what the answer is worth is in `residual_norm`. Negative curvature in H is left out of Ĥ, and
    `INDEFINITE` is said where A itself has a Ritz value ≤ 0 on the sketched space.
    `Solution.smallest_eigenvalue` is the smallest of these, an upper bound of λ_min(A).

    References
    ----------
    Hataya & Yamada, Nyström method for accurate and scalable implicit differentiation, AISTATS 2023;
    Frangella, Tropp & Udell, Randomized Nyström preconditioning, SIAM J. Matrix Anal. Appl. 44, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad.linear import as_operator
    >>> b = np.array([1.0, 1.0, 1.0])
    >>> A = as_operator(np.diag([3.0, 0.0, 0.0]), b).shifted(np.asarray(0.5))
    >>> Nystrom(rank=1, seed=5)(A, b).value.round(12)
    array([0.28571429, 2.        , 2.        ])
    """

    rank: int
    seed: int = 2019
    card: ClassVar[Card] = Card(
        "rank + 1 HVPs",
        "rank·d",
        "E/(λ + E), E = ‖H − Ĥ‖",
        "spectra that decay slowly",
        saddle="refused where the sketch meets it; else unseen, and left out of Ĥ",
    )

    def __post_init__(self) -> None:
        border.count("rank", self.rank, minimum=1)
        border.count("seed", self.seed)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"Nyström-{self.rank}"

    def __call__(self, A: Any, b: Array) -> Solution[Nystrom]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            If A does not know its shift.
        ArgumentError
            If the shift is not positive, or the rank exceeds d.
        """
        system = prepare(A, b)
        xp, shift = namespace(system.b), system.A.shift
        check_rank(self.rank, system.A.size)
        if shift is None:
            raise ArgumentTypeError(
                "A: Nystrom needs the shift λ in A = H + λI: pass problem.curvature(phi), "
                "as_operator(H, b).shifted(lam), or an Operator with shift="
            )
        if not bool(xp.all(shift > 0)):
            raise ArgumentError("A: Nystrom divides by the shift λ of A = H + λI, so it must be > 0")
        model = sketch(system.A, self.rank, self.seed)
        with np.errstate(over="ignore", invalid="ignore"):
            x = model.inverse(system.b)
        zero = xp.zeros_like(system.b[..., 0])
        saddle = model.finite & (model.smallest <= self.rank * epsilon(system.b) * model.largest)
        return verdict(
            system,
            x,
            solver=self,
            rtol=0.0,
            steps=self.rank * xp.astype(xp.any(system.b != 0, axis=-1), xp.int64),
            budget=self.rank,
            operator_norm=model.largest + zero,
            failed={
                Status.NONFINITE: ~model.finite & (zero == 0),
                Status.INDEFINITE: saddle & (zero == 0),
            },
            cost=Cost(hvps=self.rank + 1),
            smallest_eigenvalue=model.smallest + zero,
        )
