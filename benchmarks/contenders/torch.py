"""PyTorch: torch.func over a vmapped loss, and double backward over a batched one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.func import grad, jvp, linearize, vmap

from benchmarks.cases import Data, MetaCase, Model, ProductCase
from benchmarks.contenders import Form, Forms


def tensors(data: Data, *names: str) -> list[Any]:
    """Arrays as tensors on the same memory."""
    return [torch.from_numpy(data[name]) for name in names]


def losses_of(model: Model, x: Any, X: Any, y: Any) -> Any:
    """Losses `(...)` of parameters (..., d), features (..., n, in) and targets (..., n)."""
    start, a, batch = 0, X, x.shape[:-1]
    for n_in, n_out in pairwise(model.widths):
        W = x[..., start : start + n_in * n_out].reshape(*batch, n_in, n_out)
        start += n_in * n_out
        if model.bias:
            b = x[..., start : start + n_out].reshape(*batch, 1, n_out)
            # baddbmm is one kernel where bmm and + are two; under vmap there is no batch axis to see.
            z = torch.baddbmm(b, a, W) if batch else torch.addmm(b, a, W)
            start += n_out
        else:
            z = a @ W
        a = torch.tanh(z)
    if model.n_classes is None:
        return 0.5 * ((z[..., 0] - y) ** 2).mean(-1)
    indicator = torch.nn.functional.one_hot(y, model.n_classes).to(z.dtype) if y.dtype == torch.int64 else y
    return -(indicator * torch.log_softmax(z, -1)).sum(-1).mean(-1)


def _targets(model: Model, y: Any) -> Any:
    """Labels as indicator rows once and for all: part of the data."""
    return y if model.n_classes is None else torch.nn.functional.one_hot(y, model.n_classes).to(torch.float64)


def _host(result: Any) -> Any:
    return result.detach().numpy()


def products(case: ProductCase, data: Data) -> Forms:
    """HVPs and gradients."""
    x, v, X, y = tensors(data, "x", "v", "X", "y")
    y = _targets(case.model, y)
    loss = partial(losses_of, case.model)
    gradients = vmap(grad(loss))
    leaf, first = _kept_graph(case.model, x, X, y)
    _, tangent = linearize(lambda at: gradients(at, X, y), x)

    def forward(x: Any, v: Any, X: Any, y: Any) -> Any:
        return jvp(lambda at: grad(loss)(at, X, y), (x,), (v,))[1]

    product = vmap(forward)
    total = x.clone().requires_grad_()
    return {
        "HVP": {
            "vmap, jvp of grad": Form(lambda: product(x, v, X, y), _host),
            "double backward, graph kept": Form(lambda: _pull(first, leaf, v), _host),
            "torch.func.linearize of grad": Form(lambda: tangent(v), _host),
        },
        "gradient": {
            "vmap, grad": Form(lambda: gradients(x, X, y), _host),
            "backward of the sum": Form(lambda: torch.autograd.grad(loss(total, X, y).sum(), total)[0], _host),
        },
    }


def _kept_graph(model: Model, x: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Leaf and gradient with its graph; tasks do not interact, so the gradient of the sum is all gradients."""
    leaf = x.clone().requires_grad_()
    return leaf, torch.autograd.grad(losses_of(model, leaf, X, y).sum(), leaf, create_graph=True)[0]


def _pull(first: Any, leaf: Any, v: Any) -> Any:
    return torch.autograd.grad(first, leaf, v, retain_graph=True)[0]


def conjugate_gradient(apply: Callable[[Any], Any], b: Any, steps: int) -> Any:
    """Batched conjugate gradient, in place."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rs = torch.linalg.vecdot(r, r)
    for _ in range(steps):
        Ap = apply(p)
        alpha = (rs / torch.linalg.vecdot(p, Ap)).unsqueeze(-1)
        x.addcmul_(alpha, p)
        r.addcmul_(alpha, Ap, value=-1)
        new = torch.linalg.vecdot(r, r)
        p.mul_((new / rs).unsqueeze(-1)).add_(r)
        rs = new
    return x


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """λ q by a hand-written CG on double backward, and on forward over reverse."""
    phi, X, y, X_test, y_test = tensors(data, "phi", "X", "y", "X_test", "y_test")
    y, y_test = _targets(case.model, y), _targets(case.model, y_test)
    gradients = vmap(grad(partial(losses_of, case.model)))

    def test_gradient() -> Any:
        leaf = phi.clone().requires_grad_()
        return torch.autograd.grad(losses_of(case.model, leaf, X_test, y_test).sum(), leaf)[0]

    def backward() -> Any:
        leaf, first = _kept_graph(case.model, phi, X, y)
        q = conjugate_gradient(lambda v: _pull(first, leaf, v) + case.lam * v, test_gradient(), case.cg_steps)
        return case.lam * q

    def forward() -> Any:
        def apply(v: Any) -> Any:
            return jvp(lambda at: gradients(at, X, y), (phi,), (v,))[1] + case.lam * v

        return case.lam * conjugate_gradient(apply, test_gradient(), case.cg_steps)

    return {
        "meta-gradient": {
            "CG, double backward": Form(backward, _host),
            "CG, jvp of vmapped grad": Form(forward, _host),
        }
    }
