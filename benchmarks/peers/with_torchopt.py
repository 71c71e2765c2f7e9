"""TorchOpt: `custom_root` with each of its linear solvers, the implicit module, and its differentiable optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchopt
from torchopt.diff.implicit import custom_root
from torchopt.linear_solve import solve_cg, solve_inv, solve_normal_cg

from benchmarks.peers.cases import Setup
from benchmarks.peers.recipes import Knob, Recipe
from benchmarks.peers.with_torch import STEPS, Tensors, named, objectives, tensors

_INNER = Knob("inner solve", "100 steps of SGD", "L-BFGS, tolerance_grad=1e-13")


def _solve(setup: Setup, inner: Callable[..., Any], start: Tensors, theta: Tensors) -> Tensors:
    """Plain SGD of the regularised loss, as in its iMAML example; strictly, L-BFGS until it stalls."""
    phi = tuple(p.detach().clone().requires_grad_() for p in start)
    fixed = tuple(t.detach() for t in theta)

    def closure() -> Any:
        optimizer.zero_grad()
        value = inner(phi, fixed)
        value.backward()
        return value

    with torch.enable_grad():
        if "inner solve" in setup.strict:
            optimizer: Any = torch.optim.LBFGS(
                phi, max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
            )
            optimizer.step(closure)
            return phi
        optimizer = torch.optim.SGD(phi, lr=setup.step_size)
        for _ in range(100):
            optimizer.step(closure)
    return phi


def _root(loose: Callable[[Setup], Any], strict: Callable[[Setup], Any]) -> Callable[[Setup], Callable[[Any], Any]]:
    """`custom_root` around SGD with a linear solver."""

    def build(setup: Setup) -> Callable[[Any], Any]:
        inner, outer = objectives(setup)
        solve = setup.pick("linear solve", loose, strict)(setup)

        def stationarity(phi: Tensors, theta: Tensors) -> Any:
            return torch.func.grad(inner, argnums=0)(phi, theta)

        @custom_root(stationarity, argnums=1, **({} if solve is None else {"solve": solve}))
        def minimum(phi: Tensors, theta: Tensors) -> Tensors:
            return _solve(setup, inner, phi, theta)

        def meta_gradient(theta_tree: Any) -> Any:
            theta = tensors(theta_tree)
            return named(torch.autograd.grad(outer(minimum(theta, theta)), theta))

        return meta_gradient

    return build


def _inverse(setup: Setup) -> Callable[[Any], Any]:
    """`custom_root` with `solve_inv`, on weights and biases as they are, or on one vector of all of them."""
    inner, outer = objectives(setup)
    one_vector = setup.pick("parameters", False, True)

    def meta_gradient(theta_tree: Any) -> Any:
        theta = tensors(theta_tree)
        shapes = [t.shape for t in theta]

        def apart(params: Tensors) -> Tensors:
            if not one_vector:
                return params
            pieces = torch.split(params[0], [shape.numel() for shape in shapes])
            return tuple(piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True))

        def objective(phi: Tensors, around: Tensors) -> Any:
            return inner(apart(phi), apart(around))

        def stationarity(phi: Tensors, around: Tensors) -> Any:
            return torch.func.grad(objective, argnums=0)(phi, around)

        @custom_root(stationarity, argnums=1, solve=solve_inv())
        def minimum(phi: Tensors, around: Tensors) -> Tensors:
            return _solve(setup, objective, phi, around)

        given = (torch.cat([t.reshape(-1) for t in theta]),) if one_vector else theta
        return named(torch.autograd.grad(outer(apart(minimum(given, given))), theta))

    return meta_gradient


def _module(setup: Setup) -> Callable[[Any], Any]:
    """`ImplicitMetaGradientModule`: θ is the module's meta-parameter, φ its parameters."""
    inner, outer = objectives(setup)
    solve = setup.pick("linear solve", solve_normal_cg(maxiter=5, atol=0), solve_normal_cg(rtol=1e-14))

    class Adapted(torchopt.nn.ImplicitMetaGradientModule, linear_solve=solve):  # type: ignore[misc, call-arg]
        def __init__(self, theta: Tensors) -> None:
            super().__init__()
            self.names = [f"t{i}" for i in range(len(theta))]
            for name, t in zip(self.names, theta, strict=True):
                self.register_meta_parameter(f"meta_{name}", t)
                self.register_parameter(name, torch.nn.Parameter(t.detach().clone()))

        def pairs(self) -> tuple[Tensors, Tensors]:
            return tuple(getattr(self, n) for n in self.names), tuple(getattr(self, f"meta_{n}") for n in self.names)

        def objective(self) -> Any:
            return inner(*self.pairs())

        def solve(self) -> Any:
            phi, theta = self.pairs()
            for mine, found in zip(phi, _solve(setup, inner, phi, theta), strict=True):
                mine.data.copy_(found.data)
            return self

    def meta_gradient(theta_tree: Any) -> Any:
        theta = tensors(theta_tree)
        adapted = Adapted(theta)
        adapted.solve()
        return named(torch.autograd.grad(outer(adapted.pairs()[0]), theta))

    return meta_gradient


class _Net(torch.nn.Module):
    """A network that a differentiable optimiser rewrites in place of its tensors."""

    def __init__(self, theta: Tensors) -> None:
        super().__init__()
        self.count = len(theta)
        for i, t in enumerate(theta):
            self.register_parameter(f"p{i}", torch.nn.Parameter(t.detach().clone()))

    @property
    def tensors(self) -> Tensors:
        return tuple(getattr(self, f"p{i}") for i in range(self.count))


def _meta(make: Callable[[Any, Setup], Any], loose: int, strict: int) -> Callable[[Setup], Callable[[Any], Any]]:
    """A differentiable optimiser: θ are the module's own parameters, φ what the steps make of them."""

    def build(setup: Setup) -> Callable[[Any], Any]:
        inner, outer = objectives(setup)

        def meta_gradient(theta_tree: Any) -> Any:
            net = _Net(tensors(theta_tree))
            theta = net.tensors
            optimizer = make(net, setup)
            for _ in range(setup.pick("inner steps", loose, strict)):
                optimizer.step(inner(net.tensors, theta))
            return named(torch.autograd.grad(outer(net.tensors), theta))

        return meta_gradient

    return build


def _sgd(net: Any, setup: Setup) -> Any:
    return torchopt.MetaSGD(net, lr=setup.step_size)


def _adam(net: Any, setup: Setup) -> Any:
    del setup
    return torchopt.MetaAdam(net, lr=0.03)


def _given(solve: Any) -> Callable[[Setup], Any]:
    return lambda setup: solve


def _neumann(maxiter: int, scaled: bool) -> Callable[[Setup], Any]:
    return lambda setup: solve_inv(ns=True, maxiter=maxiter, **({"alpha": setup.step_size} if scaled else {}))


RECIPES = (
    Recipe(
        "TorchOpt",
        "`custom_root`, `solve_normal_cg(maxiter=5, atol=0)` of its iMAML example",
        _root(_given(solve_normal_cg(maxiter=5, atol=0)), _given(solve_normal_cg(rtol=1e-14))),
        (_INNER, Knob("linear solve", "normal CG, 5 steps", "normal CG, rtol=1e-14")),
    ),
    Recipe(
        "TorchOpt",
        "`custom_root`, its default solver",
        _root(_given(None), _given(solve_normal_cg(rtol=1e-14))),
        (_INNER, Knob("linear solve", "normal CG, rtol=1e-5", "normal CG, rtol=1e-14")),
    ),
    Recipe(
        "TorchOpt",
        "`custom_root`, `solve_cg`",
        _root(_given(solve_cg()), _given(solve_cg(rtol=1e-14))),
        (_INNER, Knob("linear solve", "CG, rtol=1e-5", "CG, rtol=1e-14")),
    ),
    Recipe(
        "TorchOpt",
        "`custom_root`, `solve_inv`",
        _inverse,
        (_INNER, Knob("parameters", "weights and bias apart", "one vector")),
        remark="it inverts the diagonal blocks of a parameter tree and drops the others",
    ),
    Recipe(
        "TorchOpt",
        "`custom_root`, `solve_inv(ns=True)`",
        _root(_neumann(10, False), _neumann(3000, True)),
        (_INNER, Knob("linear solve", "10 Neumann terms, α = 1", "3000 Neumann terms, α = the step size")),
    ),
    Recipe(
        "TorchOpt",
        "`ImplicitMetaGradientModule`",
        _module,
        (_INNER, Knob("linear solve", "normal CG, 5 steps", "normal CG, rtol=1e-14")),
    ),
    Recipe("TorchOpt", "`MetaSGD`, unrolled", _meta(_sgd, 16, 800), (STEPS,)),
    Recipe("TorchOpt", "`MetaAdam`, lr=0.03, unrolled", _meta(_adam, 16, 800), (STEPS,)),
    Recipe(
        "TorchOpt",
        "`MetaAdam`, lr=0.03, unrolled past convergence",
        _meta(_adam, 1600, 800),
        (Knob("inner steps", "1600", "800"),),
        ("ridge", "softmax"),
        remark="lr/√v̂ grows beyond 2/(L + λ) as v̂ forgets the first gradients, and Adam leaves the minimum again",
    ),
)
