"""Hypothesis profiles: `ci` repeats the same examples everywhere, `nightly` looks for new ones.

Choose with the environment variable HYPOTHESIS_PROFILE.
"""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Doctest collection imports every module here; this one is made of real CuPy arrays.
collect_ignore = [] if importlib.util.find_spec("cupy") else ["device_cupy_host.py"]

# Machines are shared: how long an example takes says nothing about the law.
_CALM = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("ci", derandomize=True, max_examples=30, **_CALM)
settings.register_profile("nightly", derandomize=False, max_examples=500, **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of the test's own: one that tests share makes their data depend on which ran before."""
    return np.random.default_rng(20190910)
