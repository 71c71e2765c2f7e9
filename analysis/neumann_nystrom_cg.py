"""At equal products, what conjugate gradients, the Neumann series and Nyström's method make of a spectrum.

Claim. In the norm ‖·‖_A conjugate gradients are never behind the Neumann series, whatever the spectrum. Nyström's
method obeys ‖g − g*‖ ≤ E/(E + λ)·‖v‖ with E = ‖H − Ĥ‖; once its rank reaches that of H it is exact, up to a rounding
larger than that of conjugate gradients, which need three or four products more. Where the spectrum decays slowly
Nyström's method is behind by orders of magnitude, and below full rank its error can be many times ‖g*‖.

Source. Hestenes and Stiefel 1952; Lorraine, Vicol, Duvenaud 2020; Hataya and Yamada 2023 with the resolvent bound of
Frangella, Tropp and Udell 2023, for H ⪰ 0 and with λ itself as the shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most
from analysis.figure import Figure
from analysis.study import Progress, Scene, Study, dataset, draw, host, silent, solved
from implicit_grad import CG, ImplicitGradient, Neumann, Nystrom, plot
from implicit_grad.backend import dot, norm
from implicit_grad.linear._sketch import sketch  # Ĥ itself, which the solver does not return
from implicit_grad.tasks import Digits, RandomRidge, TaskSource

STEM = "neumann_nystrom_cg"
EPS = float(np.finfo(float).eps)
STYLES = {
    "CG": plot.Style("#0072B2", "D"),
    "Neumann": plot.Style("#E69F00", "o"),
    "Nyström": plot.Style("#009E73", "^"),
}
LIVE = 10


@dataclass(frozen=True)
class ProductStudy:
    """Errors at φ* after 1, 2, … Hessian-vector products."""

    source: TaskSource
    lam: float
    products: tuple[int, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return errors over (solver, products, task), energy norms and Nyström's bound."""
        host(backend)
        scene = solved(*draw(self.source, self.lam, self.tasks, self.seed))
        longest = self.products[-1]
        gradients = []
        for solver in (CG(longest, record=True), Neumann(None, longest, record=True)):
            progress(solver.label)
            path = ImplicitGradient(solver)(scene.problem, scene.theta, scene.optimum).path
            assert path is not None  # record=True
            gradients.append(path.points[list(self.products)])
        progress("Nyström")
        nystrom, bounds = zip(*(self._nystrom(scene, rank) for rank in self.products), strict=True)
        gradients.append(np.stack(nystrom))
        A = scene.problem.curvature(scene.optimum.value)
        gaps = np.stack(gradients) - scene.gradient
        energy = np.sqrt(np.maximum(dot(gaps, A(gaps)), 0)) / np.sqrt(dot(scene.gradient, A(scene.gradient)))
        over = ("solver", "products", "task")
        return dataset(
            self,
            {
                "relative_error": (over, scene.error(np.stack(gradients))),
                "energy_error": (over, energy),
                "bound": (("products", "task"), np.stack(bounds)),
                "condition": ("task", scene.condition),
            },
            {"solver": list(STYLES), "products": list(self.products)},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {self.lam:g}, {self.tasks} tasks, "
            f"seed {self.seed}; at φ*; κ(A) from {scene.condition.min():.3g} to {scene.condition.max():.3g}",
        )

    def _nystrom(self, scene: Scene, rank: int) -> tuple[Any, Any]:
        """Return the gradient, and the bound relative to ‖g*‖."""
        solver = Nystrom(rank)
        estimate = ImplicitGradient(solver)(scene.problem, scene.theta, scene.optimum)
        phi = scene.optimum.value
        A = scene.problem.curvature(phi)
        model = sketch(A, rank, solver.seed)
        H = A.dense() - self.lam * np.eye(A.size)
        gap = np.linalg.norm(
            H - (model.U * model.values[..., None, :]) @ np.swapaxes(model.U, -1, -2), 2, axis=(-2, -1)
        )
        v = scene.problem.outer.gradient(phi)
        return estimate.gradient, gap / (gap + self.lam) * norm(v) / norm(scene.gradient)


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """A spectrum that decays slowly, one of rank ten, and softmax regression."""
    tasks = 3 if quick else 12
    every = tuple(range(1, 41, 3 if quick else 1))
    slow = RandomRidge(dim=50, train_samples=60, test_samples=60, condition=1e4)
    live = RandomRidge(dim=50, train_samples=60, test_samples=60, condition=1e3, rank=LIVE)
    digits = tuple(k for k in (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40) if k <= 16 or not quick)
    return {
        "slow decay": ProductStudy(slow, 1e-3, every, tasks, seed),
        "rank ten": ProductStudy(live, 1e-4, every, tasks, seed),
        "digits": ProductStudy(Digits(), 0.01, digits, 2 if quick else 6, seed),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over products, one panel a spectrum."""
    figure, axes = plot.grid(len(tables), height=2.3)
    titles = {"slow decay": "ridge, slow decay", "rank ten": "ridge, rank 10", "digits": "digits, softmax"}
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_errors(
            table, ax=ax, x="products", series="solver", styles=STYLES, markevery=1 + table.products.size // 15
        )
        plot.theory_line(
            ax,
            table.products.values,
            table.bound.median("task").values,
            "bound E/(E+λ)·‖v‖ of Nyström",
            linestyle="-.",
        )
        plot.floor_line(ax, EPS * float(table.condition.median()), "rounding, eps·κ")
        ax.set_xscale("linear")
        ax.set_ylim(1e-16, 1e3)
        ax.set_xlabel("Hessian-vector products")
        plot.panel_title(
            ax, column, f"{titles[name]}\nλ = {_lam(table):g}, κ = {float(table.condition.median()):.3g}"
        )
    axes[0, 0].set_ylabel("relative error at φ*")
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def _lam(table: Any) -> float:
    import json

    return float(json.loads(table.attrs["config"])["lam"])


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Optimality in the energy norm, Nyström's bound, and its exactness at full rank."""
    found = []
    for name, table in tables.items():
        floor = 1e3 * EPS * table.condition
        cg, neumann = (table.energy_error.sel(solver=each) for each in ("CG", "Neumann"))
        ratio = (cg / neumann).where(neumann > floor).max()
        found.append(
            at_most(f"{name}: A-norm error of CG over Neumann's at equal products, largest", ratio, 1 + 1e-6)
        )
        nystrom = table.relative_error.sel(solver="Nyström")
        crossed = (nystrom / table.bound).where(nystrom > floor).max()
        found.append(
            at_most(f"{name}: Nyström's error over E/(E+λ)·‖v‖, largest", crossed, 1, "Frangella, Tropp, Udell 2023")
        )
    rank = tables["rank ten"].relative_error.sel(products=LIVE).median("task")
    slow = tables["slow decay"].relative_error.median("task").isel(products=-1)
    limit = 1e3 * EPS * float(tables["rank ten"].condition.median())
    found += [
        at_most(
            "rank ten: Nyström's error with ten products", rank.sel(solver="Nyström"), limit, "Hataya, Yamada 2023"
        ),
        at_least(
            "rank ten: error of CG over Nyström's with ten products",
            rank.sel(solver="CG") / rank.sel(solver="Nyström"),
            1,
        ),
        at_least(
            "slow decay: error of Nyström over that of CG with the most products",
            slow.sel(solver="Nyström") / slow.sel(solver="CG"),
            1,
        ),
    ]
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton, g* by dense "
    "Cholesky with refinement.\nDash-dotted: Nyström's bound for the Ĥ that was drawn.",
)
