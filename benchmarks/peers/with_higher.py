"""higher: differentiable inner loops of `torch.optim` optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import higher
import torch

from benchmarks.peers.cases import Setup
from benchmarks.peers.recipes import Recipe
from benchmarks.peers.with_torch import STEPS, Tensors, loss, named, objectives, tensors


class _Net(torch.nn.Module):
    """A network of given tensors; its output is the value of a loss of them."""

    def __init__(self, theta: Tensors) -> None:
        super().__init__()
        self.params = torch.nn.ParameterList([torch.nn.Parameter(t.detach().clone()) for t in theta])

    def forward(self, of: Callable[..., Any]) -> Any:
        """Return the value of a function of the parameters."""
        return of(tuple(self.params))


def _loop(proximal: bool) -> Callable[[Setup], Callable[[Any], Any]]:
    def build(setup: Setup) -> Callable[[Any], Any]:
        inner, outer = objectives(setup)

        def meta_gradient(theta_tree: Any) -> Any:
            net = _Net(tensors(theta_tree))
            theta = tuple(net.parameters())
            sgd = torch.optim.SGD(net.parameters(), lr=setup.step_size)
            with higher.innerloop_ctx(net, sgd, copy_initial_weights=False) as (functional, optimizer):
                for _ in range(setup.pick("inner steps", 16, 800) if proximal else 5):
                    optimizer.step(functional(lambda phi: inner(phi, theta) if proximal else plain(phi)))
                return named(torch.autograd.grad(functional(outer), theta))

        def plain(phi: Tensors) -> Any:
            return loss(phi, setup.X, setup.y, setup.n_classes)

        return meta_gradient

    return build


RECIPES = (
    Recipe("higher", "`innerloop_ctx`, SGD, with the proximal term", _loop(True), (STEPS,)),
    Recipe(
        "higher",
        "`innerloop_ctx`, five steps of SGD without it: MAML",
        _loop(False),
        remark="the gradient of another quantity: λ is not in it",
    ),
)
