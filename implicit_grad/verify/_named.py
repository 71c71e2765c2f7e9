"""`module:name` on a command line: what it stands for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from implicit_grad.errors import ArgumentError
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem


def named(what: str, spec: str) -> Any:
    """Import what `module:name` names; the current folder is searched first.

    Raises
    ------
    ArgumentError
        For another form, a module that cannot be imported, and a name that is not in it.
    """
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise ArgumentError(f"{what}: expected module:name, as in my_module:{what}, got {spec!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ArgumentError(f"{what}: {module} has no {name!r}") from None
    except (Exception, SystemExit) as error:  # an exit of the user's module must not pass for a verdict
        raise ArgumentError(f"{what}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    return found


def named_problem(spec: str) -> Any:
    """Import a problem, or a function without arguments that makes one.

    Raises
    ------
    ArgumentError
        As `named`, and for what is no problem.
    """
    found = named("problem", spec)
    if callable(found) and not isinstance(found, BilevelProblem | RegularizedProblem):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise ArgumentError(f"problem: {spec}() raised {type(error).__name__}: {error}") from error
    if not isinstance(found, BilevelProblem | RegularizedProblem):
        raise ArgumentError(f"problem: {spec} is a {type(found).__name__}, expected a BilevelProblem")
    return found
