"""Typed errors: what was expected, what came, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from implicit_grad.results import Solution


class ImplicitGradError(Exception):
    """Base of every error this package raises on purpose."""


class ArgumentError(ImplicitGradError, ValueError):
    """An argument has an illegal value; the message names the argument."""


class ArgumentTypeError(ImplicitGradError, TypeError):
    """An argument has an illegal type or dtype; the message names the argument."""


class NonFiniteError(ArgumentError):
    """An argument holds NaN or infinity; the message names the first place."""


class LossError(ImplicitGradError, TypeError):
    """A user's loss returned something that is not one real number per problem."""


class NondeterministicLossError(LossError):
    """A user's loss gives different numbers for the same parameters; the message says which, and by how much."""


class BackendError(ImplicitGradError, TypeError):
    """Arrays of two backends met in one call."""


class BackendUnavailable(ImplicitGradError, RuntimeError):
    """The array backend asked for cannot compute on this machine."""


class MissingDependency(ImplicitGradError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class DataNotFound(ImplicitGradError, FileNotFoundError):
    """A data set was not found; the message lists the places tried and the hash wanted."""


class CorruptData(ImplicitGradError, OSError):
    """A file is present but its content is not what its hash or format promises."""


class StorageError(ImplicitGradError, OSError):
    """A result cannot be written or read: a full disk, a lost folder. What was stored before is untouched."""


class CellFailed(ImplicitGradError, RuntimeError):
    """A cell of a sweep raised an error; the message names the first, a note holds its traceback."""


class WorkerLost(ImplicitGradError, RuntimeError):
    """Worker processes were killed again and again, so that a sweep could not go on."""


class ClusterError(ImplicitGradError, ConnectionError):
    """A cluster cannot be reached, or not be used."""


class SourceChanged(ImplicitGradError, RuntimeError):
    """A worker has other sources than the process that started the sweep."""


class CandidateError(ImplicitGradError, RuntimeError):
    """A gradient under test was not returned in a form that can be read; the message says what came."""


class CommandError(CandidateError):
    """A command under test could not be started or ended with an error; the message ends with its stderr."""


class CommandTimeout(CommandError, TimeoutError):
    """A command under test did not end in time and was stopped; the message ends with its stderr."""


class CommandOutputError(CommandError):
    """A command under test ended well, but left no gradient; the message says what is missing, and its stderr."""


class ConvergenceError(ImplicitGradError, ArithmeticError):
    """A solve did not succeed.

    Attributes
    ----------
    solution : Solution
        What the solver had when it stopped: nothing computed is lost.
    """

    def __init__(self, message: str, solution: Solution[Any]) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from `args`, which hold the message only: a worker process needs both.
        return type(self), (str(self), self.solution)


class IndefiniteError(ConvergenceError):
    """The curvature A = H + λI is not positive definite, so φ is no strict minimum."""
