"""References to many digits: not here yet."""
from typing import Any
from implicit_grad.errors import MissingDependency
def reference(problem: Any, theta: Any, digits: int = 50, *, start: Any = None) -> Any:
    raise MissingDependency("not yet")
