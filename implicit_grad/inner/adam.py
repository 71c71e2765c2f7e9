"""Adam on the full gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.inner._first_order import FullGradient, State, descend
from implicit_grad.inner._recording import checked_record
from implicit_grad.inner.stopping import Distance, checked_distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution


@dataclass(frozen=True)
class Adam:
    r"""Adam on G(·; θ), with bias-corrected averages of ∇G and of its squares, entry by entry.

    .. math:: m_{k+1} = \beta_1 m_k + (1-\beta_1)\nabla G_k, \quad
              v_{k+1} = \beta_2 v_k + (1-\beta_2)(\nabla G_k)^2, \qquad
              \varphi_{k+1} = \varphi_k - \alpha\,
              \frac{m_{k+1}/(1-\beta_1^{k+1})}{\sqrt{v_{k+1}/(1-\beta_2^{k+1})} + \varepsilon}

    Parameters
    ----------
    step_size : float
        α > 0, in the units of φ: the first step moves every entry by α. No curvature says how long it should be.
    steps : int
        Largest number of steps; without a tolerance their number.
    beta1, beta2 : float
        0 ≤ β < 1.
    epsilon : float
        ε > 0, in the units of ∇G.
    rtol : float
        A problem stops when ‖∇G‖ ≤ rtol · (‖∇L‖ + λ(‖φ‖ + ‖θ‖)).
    distance : Distance, float or None
        A problem stops when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`.

    Notes
    -----
    K + 1 gradients. The length of a step hardly depends on that of the gradient: while ∇G ≫ ε the iterates move by
    about α, whatever is left to go. They settle only where m averages to nothing, and a minimum once reached is left
    again as v fades: more steps are not always better, `rtol` stops in time, and the implicit gradient at the end is
    as wrong as φ is. Entry by entry means that the path depends on the coordinates: turning them does not turn it.

    References
    ----------
    Kingma, Ba, Adam: a method for stochastic optimization, 2015, arXiv:1412.6980, Algorithm 1.
    """

    step_size: float
    steps: int
    beta1: float = field(default=0.9, kw_only=True)
    beta2: float = field(default=0.999, kw_only=True)
    epsilon: float = field(default=1e-8, kw_only=True)
    rtol: float = field(default=0.0, kw_only=True)
    distance: Distance | float | None = field(default=None, kw_only=True)
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "1 gradient a step",
        "3 vectors",
        "about α from φ*, then less, then more",
        "many digits are wanted",
        saddle="stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        border.count("steps", self.steps)
        for name, check in (
            ("step_size", border.positive_float),
            ("beta1", border.tolerance),
            ("beta2", border.tolerance),
            ("epsilon", border.positive_float),
            ("rtol", border.tolerance),
            ("distance", lambda _, value: checked_distance(value)),
        ):
            object.__setattr__(self, name, check(name, getattr(self, name)))
        object.__setattr__(self, "record", checked_record(self.record, self.steps))

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Adam]:
        """Run from `start` (default θ)."""
        theta = problem.parameters(theta)
        alpha = namespace(theta).full_like(theta[..., 0], self.step_size)
        rule = _AdamRule(problem, theta, self)
        return descend(
            self, problem, theta, start, rule, alpha=alpha, extra=Cost(), rtol=self.rtol, distance=self.distance
        )


class _AdamRule(FullGradient):
    """The state is φ, m and v."""

    at_iterate = True

    def __init__(self, problem: BilevelProblem, theta: Array, settings: Adam) -> None:
        super().__init__(problem, theta)
        self.settings = settings

    def start(self, phi: Array) -> State:
        """Return φ with averages of nothing."""
        zero = namespace(phi).zeros_like(phi)
        return phi, zero, zero

    def point(self, state: State) -> Array:
        """Where the next gradient is taken."""
        return state[0]

    def update(self, state: State, gradient: Array, step: int) -> State:
        """Return the state after one step."""
        phi, m, v = state
        s, xp = self.settings, namespace(phi)
        m = s.beta1 * m + (1 - s.beta1) * gradient
        v = s.beta2 * v + (1 - s.beta2) * gradient**2
        length = xp.sqrt(v / (1 - s.beta2 ** (step + 1))) + s.epsilon
        return phi - (s.step_size / (1 - s.beta1 ** (step + 1))) * m / length, m, v
