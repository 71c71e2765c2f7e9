"""Errors are of this package and of the built-in kind one would expect."""

import copy
import inspect
import pickle

import numpy as np
import pytest

from implicit_grad import CG, ConvergenceError, ImplicitGradError, IndefiniteError, Status, errors

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]
BUILT_IN = {
    "ArgumentError": ValueError,
    "ArgumentTypeError": TypeError,
    "NonFiniteError": ValueError,
    "LossError": TypeError,
    "BackendError": TypeError,
    "BackendUnavailable": RuntimeError,
    "MissingDependency": ImportError,
    "DataNotFound": FileNotFoundError,
    "CorruptData": OSError,
    "StorageError": OSError,
    "CellFailed": RuntimeError,
    "WorkerLost": RuntimeError,
    "ClusterError": ConnectionError,
    "SourceChanged": RuntimeError,
    "CandidateError": RuntimeError,
    "CommandError": RuntimeError,
    "CommandTimeout": TimeoutError,
    "CommandOutputError": RuntimeError,
    "NondeterministicLossError": TypeError,
    "ConvergenceError": ArithmeticError,
    "IndefiniteError": ArithmeticError,
}


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_every_error_has_one_root_and_one_built_in_kind(error):
    assert issubclass(error, ImplicitGradError)
    assert error.__doc__
    if error is not ImplicitGradError:
        assert issubclass(error, BUILT_IN[error.__name__])


def test_nothing_is_left_out():
    assert {c.__name__ for c in CLASSES} == {*BUILT_IN, "ImplicitGradError"}


def test_a_failed_solve_carries_all_it_had():
    """The error holds the solution, names solver, problem, status and residual, and can be caught either way."""
    solution = CG(4)(np.diag([1.0, -1.0]), np.array([[1.0, 0.1], [1.0, 2.0]]))
    with pytest.raises(ConvergenceError) as caught:
        solution.unwrap()
    assert isinstance(caught.value, IndefiniteError)
    assert caught.value.solution is solution
    text = str(caught.value)
    for part in (
        "CG(max_steps=4",
        "problem (0,) of the batch (2,)",
        "INDEFINITE",
        Status.INDEFINITE.value,
        "Residual",
    ):
        assert part in text


def test_a_single_problem_is_not_called_a_batch():
    with pytest.raises(ConvergenceError, match="the problem: MAX_STEPS"):
        CG(0, 1e-3)(np.eye(2), np.ones(2)).unwrap()


def test_convergence_errors_survive_a_process_boundary():
    """joblib pickles what a worker raises; an error that cannot be rebuilt would hang or hide itself."""
    error = ConvergenceError("text", CG(1)(np.eye(2), np.ones(2)))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is ConvergenceError
        assert str(again) == "text"
        assert np.array_equal(again.solution.value, error.solution.value)
