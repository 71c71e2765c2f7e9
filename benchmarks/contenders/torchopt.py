"""TorchOpt: its conjugate gradient, task by task, since it takes a whole tensor for one vector."""

from __future__ import annotations

from typing import Any

import torch
from torchopt.linear_solve import solve_cg

from benchmarks.cases import Data, MetaCase
from benchmarks.contenders import Form, Forms
from benchmarks.contenders.torch import losses_of, tensors


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """λ q by `solve_cg(maxiter=k)` without tolerance, products by double backward on a kept graph."""
    phi, X, y, X_test, y_test = tensors(data, "phi", "X", "y", "X_test", "y_test")
    solve = solve_cg(maxiter=case.cg_steps, rtol=0.0, atol=0.0)

    def one(i: int) -> Any:
        leaf = phi[i].clone().requires_grad_()
        b = torch.autograd.grad(losses_of(case.model, leaf, X_test[i], y_test[i]), leaf)[0]
        first = torch.autograd.grad(losses_of(case.model, leaf, X[i], y[i]), leaf, create_graph=True)[0]

        def apply(v: Any) -> Any:
            return torch.autograd.grad(first, leaf, v, retain_graph=True)[0] + case.lam * v

        return case.lam * solve(apply, b)

    def call() -> Any:
        return torch.stack([one(i) for i in range(case.tasks)])

    return {"meta-gradient": {"solve_cg, double backward": Form(call, lambda result: result.detach().numpy())}}
