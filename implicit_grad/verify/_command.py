"""A gradient in any language: a program that reads one .npz file and writes another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import (
    ArgumentError,
    ArgumentTypeError,
    CommandError,
    CommandOutputError,
    CommandTimeout,
)
from implicit_grad.objectives.autodiff import flatten, is_tree
from implicit_grad.verify._foreign import received

_TAIL = 2000
"""Characters of stderr that an error shows."""

_SHOWN = 80
"""Characters of a command line that an error shows."""

_DATA = ("X", "y", "labels")
"""Arrays of a shipped loss that the program is given."""


@dataclass(frozen=True, eq=False)
class CommandGradient:
    """A program as a callable θ → gradient; built by `command_candidate`.

    Attributes
    ----------
    argv : tuple of str
    inputs : dict of arrays
        What the program is given beside `theta`.
    timeout : float
        Seconds.
    """

    argv: tuple[str, ...]
    inputs: Mapping[str, Array] = field(repr=False)
    timeout: float = 60.0

    def __call__(self, theta: Any) -> Any:
        """Run the program once and return the gradient it wrote.

        Parameters
        ----------
        theta : (..., d) array, or a dict, list or tuple of arrays
            A tree is written as one vector, in the order of `MetaGradient`, and comes back as a tree.

        Raises
        ------
        CommandError
            Where the program cannot be started, or ends with another exit code than 0.
        CommandTimeout
            Where it does not end in time; it is stopped, with the processes it started.
        CommandOutputError
            Where it wrote no file, no .npz, no `gradient`, or a `gradient` that is no real array.
        """
        if is_tree(theta):
            vector, unflatten = flatten(theta)
            gradient = self._run(vector)
            if gradient.shape != vector.shape:
                raise CommandOutputError(f"gradient: expected shape {vector.shape}, got {gradient.shape}")
            return unflatten(gradient)
        return self._run(border.real_array("theta", theta))

    def _run(self, theta: Array) -> Array:
        with tempfile.TemporaryDirectory(prefix="implicit_grad_") as folder:
            given, wanted, log = (Path(folder) / name for name in ("input.npz", "output.npz", "stderr"))
            np.savez(given, **{"theta": theta, **self.inputs})
            command = [*self.argv, str(given), str(wanted)]
            with log.open("wb") as stderr:
                code = self._wait(command, stderr, log)
            if code:
                raise CommandError(f"{self._name}: exit code {code}{_tail(log)}")
            return _gradient(wanted, self._name, log)

    @property
    def _name(self) -> str:
        return textwrap.shorten(" ".join(self.argv), _SHOWN, placeholder=" …")

    def _wait(self, command: list[str], stderr: Any, log: Path) -> int:
        try:
            # Files instead of pipes: a pipe stays open as long as any grandchild holds it.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"{self._name}: cannot be started ({error})") from error
        try:
            return process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            _stop(process)
            raise CommandTimeout(
                f"{self._name}: did not end in {self.timeout:g} s; raise timeout=, or make the problem smaller"
                f"{_tail(log)}"
            ) from None
        except BaseException:
            _stop(process)
            raise


@dataclass(frozen=True, eq=False)
class CommandProblemGradient:
    """A program as a callable `(problem, theta) → gradient`: it can be asked at other λ, which tells causes apart.

    Attributes
    ----------
    argv, inputs, timeout
        As for `CommandGradient`.
    """

    argv: tuple[str, ...]
    inputs: Mapping[str, Array] = field(repr=False)
    timeout: float = 60.0

    def __call__(self, problem: Any, theta: Any) -> Any:
        """Run the program once on a problem, and return the gradient it wrote."""
        return CommandGradient(self.argv, _together(_offered(problem), self.inputs), self.timeout)(theta)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the program, and on POSIX all that it started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4 * _TAIL))
        text = file.read().decode("utf-8", errors="replace").strip()[-_TAIL:]
    return f"; stderr ends with:\n{text}" if text else "; nothing on stderr"


def _gradient(path: Path, name: str, log: Path) -> Array:
    if not path.exists():
        raise CommandOutputError(f"{name}: wrote no file to its last argument{_tail(log)}")
    try:
        # Never pickles: a file that a program left must not run code here. What NumPy raises on a file that is
        # none of its own is not documented, and differs from file to file.
        stored = np.load(path, allow_pickle=False)
    except Exception as error:
        raise CommandOutputError(f"{name}: what it wrote is no .npz file ({error}){_tail(log)}") from error
    if isinstance(stored, np.ndarray):
        raise CommandOutputError(f"{name}: wrote a .npy file; write an .npz with the array `gradient`{_tail(log)}")
    with stored:
        if "gradient" not in stored:
            raise CommandOutputError(f"{name}: its .npz holds {sorted(stored)}, not `gradient`{_tail(log)}")
        try:
            return received("gradient", stored["gradient"])
        except Exception as error:
            raise CommandOutputError(f"{name}: its `gradient` cannot be used ({error}){_tail(log)}") from error


def command_candidate(
    argv: Sequence[str], problem: Any = None, *, inputs: Mapping[str, Any] | None = None, timeout: float = 60.0
) -> CommandGradient | CommandProblemGradient:
    """Return a program in any language as a callable (problem, θ) → gradient, for `verify`.

    The program is called with two more arguments, the paths of two .npz files (zip files of .npy arrays, without
    compression and without pickles): the first is there to be read, the second is to be written.

    ====================  ==========================================================================
    read                  what it is
    ====================  ==========================================================================
    `theta`               the point, (..., d)
    `lam`                 λ
    `inner_X`, `inner_y`  data of the train loss, where it has such; `inner_labels` for classes
    `outer_X`, `outer_y`  data of the test loss, likewise
    …                     whatever `inputs` holds
    ====================  ==========================================================================

    It writes one array `gradient` in the shape of `theta` and ends with exit code 0. It runs in the current folder,
    without a shell, once per call; what it prints is dropped, and errors show the end of its stderr.

    Parameters
    ----------
    argv : sequence of str
        Program and arguments: `["julia", "meta.jl"]`.
    problem : BilevelProblem, optional
        Makes it a callable θ → gradient of this problem.
    inputs : dict of arrays, optional
        More to write.
    timeout : float
        Seconds for one call.

    Returns
    -------
    CommandGradient or CommandProblemGradient

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For one string instead of a list, names that are taken, and inputs that are no arrays of numbers.

    Examples
    --------
    >>> import sys
    >>> from implicit_grad import BilevelProblem, LeastSquares
    >>> problem = BilevelProblem(LeastSquares(np.eye(2), np.ones(2)), LeastSquares(np.eye(2), np.ones(2)), lam=0.5)
    >>> program = "import sys, numpy as np; f = np.load(sys.argv[1])"
    >>> program += "; np.savez(sys.argv[2], gradient=f['lam'] * f['theta'])"
    >>> command_candidate([sys.executable, "-c", program])(problem, np.array([1.0, 2.0]))
    array([0.5, 1. ])
    """
    if isinstance(argv, str | bytes) or not argv or not all(isinstance(each, str) for each in argv):
        raise ArgumentTypeError(f"argv: expected a list of strings such as shlex.split(command), got {argv!r}")
    more = {}
    for name, value in (inputs or {}).items():
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ArgumentTypeError(f"inputs[{name!r}]: expected numbers, got dtype {array.dtype}")
        more[name] = array
    seconds = border.positive_float("timeout", timeout)
    if problem is None:
        return CommandProblemGradient(tuple(argv), _together({}, more), seconds)
    return CommandGradient(tuple(argv), _together(_offered(problem), more), seconds)


def _together(given: dict[str, Array], more: Mapping[str, Array]) -> dict[str, Array]:
    for name in more:
        if name == "theta" or name in given:
            raise ArgumentError(f"inputs: the name {name!r} is taken")
    return {**given, **more}


def _offered(problem: Any) -> dict[str, Array]:
    """What a problem can tell a program in numbers: λ, and the data of losses that hold any."""
    if problem is None:
        return {}
    given = {"lam": np.asarray(problem.lam)} if hasattr(problem, "lam") else {}
    for side in ("inner", "outer"):
        loss = getattr(problem, side, None)
        for name in _DATA:
            value = getattr(loss, name, None)
            if isinstance(value, np.ndarray):
                given[f"{side}_{name}"] = value
    return given
