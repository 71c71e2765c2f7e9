"""Pack the official Omniglot archives into one file."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.data.packed import DRAWERS, SIDE, PackedImages, write_packed
from implicit_grad.errors import ArgumentError, CorruptData

_IMAGE = re.compile(r"(?P<set>[^/]+)/(?P<alphabet>[^/]+)/character\d+/(?P<character>\d{4})_(?P<drawer>\d{2})\.png")

Key = tuple[bool, int]
"""Whether a character belongs to the evaluation set, and its number: the order of the packed file."""


def pack_omniglot(archives: Iterable[str | os.PathLike[str]], target: str | os.PathLike[str]) -> Path:
    """Pack the images of official zip archives, one bit per pixel.

    Characters are ordered by set and by their official number, which the images' names carry; an archive whose
    images lie in a folder `images_evaluation` holds the evaluation set, any other the background set.

    Parameters
    ----------
    archives : paths
        `images_background.zip` and `images_evaluation.zip`, or the small background archives.
    target : path
        Written whole or not at all.

    Raises
    ------
    CorruptData
        If an archive is damaged, or a character lacks one of its 20 drawings.
    """
    paths = [Path(archive) for archive in archives]
    if not paths:
        raise ArgumentError("archives: at least one zip archive is needed")
    drawings: dict[Key, dict[int, Array]] = {}
    names: dict[Key, str] = {}
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                _read(path, archive, drawings, names)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise CorruptData(f"{path}: not a readable zip archive: {error}") from error
    return write_packed(_packed(drawings, names, paths), Path(target))


def _read(path: Path, archive: zipfile.ZipFile, drawings: dict[Key, dict[int, Array]], names: dict[Key, str]) -> None:
    for entry in archive.namelist():
        match = _IMAGE.fullmatch(entry)
        if match is None:
            continue
        key = (match["set"] == "images_evaluation", int(match["character"]))
        drawer = int(match["drawer"])
        if drawer in drawings.setdefault(key, {}) or names.setdefault(key, match["alphabet"]) != match["alphabet"]:
            raise CorruptData(f"{path}: {entry}: this drawing was already there")
        drawings[key][drawer] = _pack_image(path, archive, entry)


def _pack_image(path: Path, archive: zipfile.ZipFile, entry: str) -> Array:
    from PIL import Image  # comes with matplotlib

    with archive.open(entry) as stream:
        try:
            with Image.open(stream, formats=["PNG"]) as image:
                if image.mode != "1" or image.size != (SIDE, SIDE):
                    raise CorruptData(f"{path}: {entry}: expected 105 × 105 pixels of 1 bit, got {image!r}")
                paper = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, CorruptData):
                raise
            raise CorruptData(f"{path}: {entry}: not a readable image: {error}") from error
    return np.packbits(~paper)


def _packed(drawings: dict[Key, dict[int, Array]], names: dict[Key, str], paths: list[Path]) -> PackedImages:
    where = ", ".join(map(str, paths))
    if not drawings:
        raise CorruptData(f"{where}: no image named as in the official archives")
    keys = sorted(drawings)
    for key in keys:
        if set(drawings[key]) != set(range(1, DRAWERS + 1)):
            raise CorruptData(
                f"{where}: character {key[1]:04d} ({names[key]}): expected drawings 01 to {DRAWERS}, "
                f"got {len(drawings[key])}"
            )
    # One alphabet of the same name may be in both sets; a number belongs to a set and a name.
    alphabets = list(dict.fromkeys((key[0], names[key]) for key in keys))
    if len(alphabets) > 256:
        raise CorruptData(f"{where}: {len(alphabets)} alphabets, more than one byte can number")
    return PackedImages(
        ink=np.array([[drawings[key][d] for d in range(1, DRAWERS + 1)] for key in keys]),
        alphabet=np.array([alphabets.index((key[0], names[key])) for key in keys], dtype=np.uint8),
        alphabet_names=np.array([name for _, name in alphabets]),
        n_background=sum(not evaluation for evaluation, _ in keys),
    )
