"""A pytest plug-in with one fixture, `implicit_grad_laws`; unused, it imports nothing and changes nothing.

    def test_my_solver(implicit_grad_laws):
        implicit_grad_laws.check_linear_solver(my_solver)

`--law-examples` and `--law-seed` set how many examples each law is tried on, and which.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

_SUITES = ("check_linear_solver", "check_inner_solver", "check_hvp", "check_meta_gradient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("implicit_grad")
    group.addoption("--law-examples", type=int, default=None, help="examples for each law of implicit_grad_laws")
    group.addoption("--law-seed", type=int, default=None, help="seed of these examples; without it always the same")


@pytest.fixture
def implicit_grad_laws(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The suites of `implicit_grad.testing`, with the examples and the seed of the command line."""
    from implicit_grad import testing

    chosen = {"examples": request.config.getoption("--law-examples"), "seed": request.config.getoption("--law-seed")}
    given = {name: value for name, value in chosen.items() if value is not None}
    suites: dict[str, Callable[..., Any]] = {name: partial(getattr(testing, name), **given) for name in _SUITES}
    return SimpleNamespace(**suites)
