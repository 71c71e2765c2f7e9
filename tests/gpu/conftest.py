"""One fixture: the GPU, or a skip that says why there is none."""

import os

import pytest

from implicit_grad import BackendUnavailable
from implicit_grad.backend import get_backend

REQUIRED = "IMPLICIT_GRAD_REQUIRE_GPU"
"""With this variable set to 1 a missing GPU is a failure: a rented one must not be skipped over quietly."""

REHEARSAL = "IMPLICIT_GRAD_GPU_REHEARSAL"
"""With this variable set to 1 the suite runs on CuPy arrays over host memory: a test of the suite itself."""


@pytest.fixture(scope="session")
def gpu():
    """The CuPy backend, ready to compute."""
    if os.environ.get(REHEARSAL) == "1":
        import device_cupy_host

        with pytest.MonkeyPatch.context() as patch:
            yield device_cupy_host.patch(patch)
        return
    try:
        yield get_backend("cupy")
    except BackendUnavailable as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but {error}")
        pytest.skip(str(error))
