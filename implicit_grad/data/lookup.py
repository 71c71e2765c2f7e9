"""Where a data file is looked for.

In this order: the path given; the folder in `IMPLICIT_GRAD_DATA`; `shared/data` in or beside the project's checkout
and the current folder; the download cache (`IMPLICIT_GRAD_CACHE`, else the system's cache folder).
"""

from __future__ import annotations

import os
from pathlib import Path

from implicit_grad.errors import DataNotFound

DATA_VARIABLE = "IMPLICIT_GRAD_DATA"
CACHE_VARIABLE = "IMPLICIT_GRAD_CACHE"


def cache_folder() -> Path | None:
    """Return the folder that downloads go to; None without pooch, which names it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    try:
        import pooch
    except ImportError:
        return None
    return Path(pooch.os_cache("implicit_grad"))


def candidates(name: str, subfolder: str, path: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the places to look at, in order, without duplicates.

    An explicit path is the only place: a wrong one is an error, not a reason to take another copy.
    """
    if path is not None:
        given = Path(path).expanduser()
        return [given / name, given / subfolder / name] if given.is_dir() else [given]
    folders: list[Path] = []
    if os.environ.get(DATA_VARIABLE):
        folders.append(Path(os.environ[DATA_VARIABLE]).expanduser())
    for base in (Path(__file__).parents[2], Path.cwd()):
        folders += [base / "shared" / "data", base.parent / "shared" / "data"]
    cache = cache_folder()
    if cache is not None:
        folders.append(cache)
    places = [folder / part / name for folder in folders for part in (subfolder, ".")]
    return list(dict.fromkeys(Path(os.path.normpath(place)) for place in places))


def locate(name: str, subfolder: str, *, sha256: str, hint: str, path: str | os.PathLike[str] | None = None) -> Path:
    """Return the first place that has the file.

    Raises
    ------
    DataNotFound
        Listing every place tried, the hash wanted and what to do.
    """
    places = candidates(name, subfolder, path)
    for place in places:
        if place.is_file():
            return place
    tried = "\n".join(f"  {place}" for place in places)
    variable = "" if path is not None or os.environ.get(DATA_VARIABLE) else f" ({DATA_VARIABLE} is not set)"
    raise DataNotFound(f"{name} was not found{variable}; tried\n{tried}\nwanted: sha256 {sha256}\n{hint}")
