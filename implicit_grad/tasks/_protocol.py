"""What every task source promises."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from implicit_grad.backend import Array, Backend
from implicit_grad.problem import BilevelProblem


@runtime_checkable
class TaskSource(Protocol):
    """A family of tasks to draw bilevel problems from.

    Everything random comes from the generator passed in. Each task has its own stream, spawned from that
    generator, so a task depends on the seed and on its own number alone: task 3 of 5 is bit for bit task 3 of
    500, in any process, whatever else was drawn from `rng` before. Spawning moves the generator on: the next
    call of `sample` with the same generator draws fresh tasks.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad.tasks import RandomRidge
    >>> source = RandomRidge(dim=4, train_samples=9, condition=1e3)
    >>> isinstance(source, TaskSource)
    True
    >>> rng = np.random.default_rng(7)
    >>> problem = source.sample(rng, tasks=5, lam=np.array([[0.1], [1.0], [10.0]]))
    >>> problem.batch_shape, problem.inner.X.shape, source.initial_parameters(rng).shape
    ((3, 5), (5, 9, 4), (4,))
    """

    @property
    def size(self) -> int:
        """Number of parameters d."""
        ...

    @property
    def label(self) -> str:
        """Short name for legends and titles."""
        ...

    def sample(
        self, rng: np.random.Generator, *, tasks: int, lam: Any, backend: str | Backend | None = None
    ) -> BilevelProblem:
        """Draw tasks as one problem with batch axis `(tasks,)`.

        Parameters
        ----------
        rng : numpy.random.Generator
        tasks : int
            Number of tasks, at least one.
        lam : float or (...) array
            λ > 0, broadcast against `(tasks,)`: a `(L, 1)` array gives the batch `(L, tasks)`.
        backend : str or Backend, optional
            Where the tasks shall live, as in `get_backend`. They are drawn on the host and then moved: the same
            numbers bit for bit.

        Raises
        ------
        BackendUnavailable
            Before anything is drawn.
        """
        ...

    def initial_parameters(self, rng: np.random.Generator, *, backend: str | Backend | None = None) -> Array:
        """Draw a starting θ of shape `(d,)`, on the host, and move it to the backend."""
        ...
