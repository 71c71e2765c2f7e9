"""Find, verify and load Omniglot."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from implicit_grad.data.fetching import fetch_omniglot
from implicit_grad.data.lookup import DATA_VARIABLE, locate
from implicit_grad.data.packed import FILE_NAME, FILE_SHA256, FOLDER, PackedImages, read_packed, verify
from implicit_grad.errors import DataNotFound

_HINT = (
    f"Set {DATA_VARIABLE} to the folder that has it, or download it (16 MB) with "
    'python -c "from implicit_grad.data import fetch_omniglot; fetch_omniglot()"'
)


def load_omniglot(path: str | os.PathLike[str] | None = None, *, download: bool = False) -> PackedImages:
    """Load all 1,623 characters × 20 drawers of Omniglot.

    The file is looked for at `path` (a file, or a folder that has it) and nowhere else; without a path, in the
    folder `IMPLICIT_GRAD_DATA`, in `shared/data` in or beside the checkout and the current folder, and in the
    download cache. Its content is verified once per process.

    Parameters
    ----------
    path : path, optional
    download : bool
        Fetch the file if it is nowhere; never done otherwise.

    Raises
    ------
    DataNotFound
        Listing every place tried, and the hash wanted.
    CorruptData
        If the file found is not Omniglot, whole and unchanged.
    """
    try:
        found = locate(FILE_NAME, FOLDER, sha256=FILE_SHA256, hint=_HINT, path=path)
    except DataNotFound:
        if not download or path is not None:
            raise
        found = fetch_omniglot()
    state = found.stat()
    return _load(found.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _load(path: Path, modified: int, size: int) -> PackedImages:
    # Time and size are part of the key: a file replaced under a running process is read and verified anew.
    images = read_packed(path)
    verify(path, images)
    return images
