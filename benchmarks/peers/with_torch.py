"""PyTorch by hand: losses for the libraries on PyTorch, and unrolling with `create_graph`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers.cases import Setup
from benchmarks.peers.recipes import Knob, Recipe

STEPS = Knob("inner steps", "16", "800")

Tensors = tuple[Any, ...]


def tensors(tree: dict[str, Any]) -> Tensors:
    """Weights and biases of all layers as one tuple, as optimisers take them."""
    return tuple(tree[name] for name in sorted(tree))


def named(params: Tensors) -> dict[str, Any]:
    """The tree of a tuple of tensors."""
    return {f"{i // 2}.{'Wb'[i % 2]}": each for i, each in enumerate(params)}


def loss(params: Tensors, X: Any, y: Any, n_classes: int | None) -> Any:
    """Half the mean squared error, or the mean cross-entropy, of a tanh network."""
    for W, b in zip(params[:-2:2], params[1:-2:2], strict=True):
        X = torch.tanh(X @ W + b)
    out = X @ params[-2] + params[-1]
    if n_classes is None:
        return 0.5 * ((out[:, 0] - y) ** 2).mean()
    return torch.nn.functional.cross_entropy(out, y)


def pull(params: Tensors, theta: Tensors, lam: float) -> Any:
    """½λ‖φ − θ‖² over all tensors."""
    return 0.5 * lam * sum(((a - b) ** 2).sum() for a, b in zip(params, theta, strict=True))


def objectives(setup: Setup) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return G(φ, θ) and L_test(φ)."""

    def inner(params: Tensors, theta: Tensors) -> Any:
        return loss(params, setup.X, setup.y, setup.n_classes) + pull(params, theta, setup.lam)

    def outer(params: Tensors) -> Any:
        return loss(params, setup.X_test, setup.y_test, setup.n_classes)

    return inner, outer


def unrolled(setup: Setup) -> Callable[[Any], Any]:
    """Gradient descent with `create_graph=True`."""
    inner, outer = objectives(setup)

    def meta_gradient(theta_tree: Any) -> Any:
        theta = tensors(theta_tree)
        phi = theta
        for _ in range(setup.pick("inner steps", 16, 800)):
            slopes = torch.autograd.grad(inner(phi, theta), phi, create_graph=True)
            phi = tuple(p - setup.step_size * g for p, g in zip(phi, slopes, strict=True))
        return named(torch.autograd.grad(outer(phi), theta))

    return meta_gradient


RECIPES = (Recipe("PyTorch", "gradient descent with `create_graph=True`, unrolled", unrolled, (STEPS,)),)
