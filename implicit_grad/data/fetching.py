"""Download the official Omniglot archives, when asked."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from implicit_grad.data.lookup import CACHE_VARIABLE, cache_folder
from implicit_grad.data.packed import CONTENT_SHA256, FILE_NAME, read_packed, verify
from implicit_grad.data.packing import pack_omniglot
from implicit_grad.errors import CorruptData, DataNotFound, MissingDependency


@dataclass(frozen=True)
class Archive:
    """A file on a server, and its hash."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]


_REPOSITORY = "https://github.com/brendenlake/omniglot/raw/master/python"
OFFICIAL_ARCHIVES: tuple[Archive, ...] = (
    Archive(
        f"{_REPOSITORY}/images_background.zip",
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    Archive(
        f"{_REPOSITORY}/images_evaluation.zip",
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
)
"""Lake's archives with the hashes that TensorFlow Datasets publishes (9,464,212 and 6,462,886 bytes)."""


def fetch_omniglot(
    folder: str | os.PathLike[str] | None = None,
    *,
    archives: tuple[Archive, ...] = OFFICIAL_ARCHIVES,
    content_sha256: str = CONTENT_SHA256,
) -> Path:
    """Download Omniglot and pack it; return the packed file, which `load_omniglot` then finds.

    Archives that are already there are not downloaded again; a packed file that is there and right is kept.

    Parameters
    ----------
    folder : path, optional
        Where to; default: the environment variable `IMPLICIT_GRAD_CACHE`, else the system's cache folder.
    archives : tuple of Archive
        What to download.
    content_sha256 : str
        Hash of the content that the packed file must have (`PackedImages.sha256`).

    Raises
    ------
    MissingDependency
        Without pooch.
    DataNotFound
        If a download fails.
    CorruptData
        If a download is not what its hash promises.

    References
    ----------
    Lake, Salakhutdinov, Tenenbaum, Human-level concept learning through probabilistic program induction, Science
    350 (2015) 1332. The data are under the MIT licence.
    """
    chosen = cache_folder() if folder is None else Path(folder).expanduser()
    if chosen is None:
        raise MissingDependency(
            f"no cache folder without pooch: pip install 'implicit-grad[data]' or set {CACHE_VARIABLE}"
        )
    target = chosen / FILE_NAME
    if not _is_right(target, content_sha256):
        pack_omniglot([_download(archive, chosen) for archive in archives], target)
        verify(target, read_packed(target), content_sha256)
    return target


def _is_right(target: Path, content_sha256: str) -> bool:
    try:
        verify(target, read_packed(target), content_sha256)
    except (FileNotFoundError, CorruptData):
        return False
    return True


def _download(archive: Archive, folder: Path) -> Path:
    try:
        import pooch
        import requests
    except ImportError as error:
        raise MissingDependency(f"a download needs pooch ({error}): pip install 'implicit-grad[data]'") from error
    try:
        with _quiet(pooch.get_logger()):
            return Path(pooch.retrieve(archive.url, f"sha256:{archive.sha256}", fname=archive.name, path=folder))
    except requests.exceptions.RequestException as error:
        raise DataNotFound(
            f"{archive.url} could not be downloaded: {error}; wanted sha256 {archive.sha256}"
        ) from error
    except ValueError as error:  # pooch has removed the file already
        raise CorruptData(f"{archive.url}: wanted sha256 {archive.sha256}: {error}") from error


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Keep pooch's progress notes off the terminal: a library does not print.

    A filter, not a level: pooch's logger stands outside the tree of loggers, where what a level once decided is
    cached for good.
    """

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)
