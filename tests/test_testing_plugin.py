"""The plug-in: a fixture with the suites, options for examples and seed, and nothing where it is not used."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester):
    """Run pytest in a process of its own, with the plug-in and without the repository's settings."""

    def call(source, *arguments):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess("-p", "pytest_implicit_grad", "-p", "no:cacheprovider", *arguments)

    return call


def test_the_fixture(run):
    result = run(
        """
        import numpy as np

        def test_sound(implicit_grad_laws):
            findings = implicit_grad_laws.check_linear_solver(np.linalg.solve)
            assert max(finding.examples for finding in findings) <= 3 + 4

        def test_broken(implicit_grad_laws):
            implicit_grad_laws.check_linear_solver(lambda A, b: b)
        """,
        "--law-examples=3",
        "--law-seed=7",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*law 13 backward error*", "*spectrum of A*"])


def test_unused_it_imports_nothing(run):
    result = run(
        """
        import sys

        def test_nothing_loaded():
            assert not {"implicit_grad", "autograd"} & set(sys.modules)
        """
    )
    result.assert_outcomes(passed=1)


def test_importing_it_is_cheap():
    code = "import sys, pytest_implicit_grad; print('numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "False"
