"""The packed Omniglot file: every image at full size, one bit per pixel.

An .npz file without objects, so that nothing is ever unpickled:

================  ==========================  ===========================================================
`ink`             (C, 20, 1379) uint8         `np.packbits` of the flattened 105 × 105 image, 1 = ink
`alphabet`        (C,) uint8                  index into `alphabet_names`
`alphabet_names`  (A,) text
`n_background`    () integer                  the first so many characters are the background set
================  ==========================  ===========================================================
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from implicit_grad import storage
from implicit_grad.backend import Array
from implicit_grad.errors import CorruptData

FILE_NAME = "omniglot105_packed.npz"
FOLDER = "omniglot"
SIDE, DRAWERS = 105, 20
BYTES_PER_IMAGE = -(-SIDE * SIDE // 8)
BACKGROUND, EVALUATION = 964, 659

FILE_SHA256 = "a50b45600b985cebeafccdd5ecae90dea46f418d47ad5d0ad631b8a70cdb2a94"
"""Of the file that the project's figures were made with."""
CONTENT_SHA256 = "6a8854e32c7ce2ce67a1a4d1029bb251e57c8a00f2dc5b028a4bf9515ff6099d"
"""Of its content (`PackedImages.sha256`): a file packed anew has the same, whatever its compression."""

_LARGEST_MEMBER = 1 << 26
"""Bytes: no array of the full set is larger, so a larger one is not unpacked."""


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Binary character images, packed.

    Attributes
    ----------
    ink : (C, 20, 1379) uint8 array
        Characters × drawers × bytes.
    alphabet : (C,) uint8 array
    alphabet_names : (A,) text array
    n_background : int
    """

    ink: Array
    alphabet: Array
    alphabet_names: Array
    n_background: int

    def images(self, characters: Array, drawers: Array) -> Array:
        """Unpack images, True = ink: index arrays that broadcast to `(...)` give `(..., 105, 105)`."""
        rows = self.ink[characters, drawers]
        bits = np.unpackbits(rows, axis=-1, count=SIDE * SIDE)
        return bits.reshape(*rows.shape[:-1], SIDE, SIDE).astype(bool)

    def sha256(self) -> str:
        """Hash of pixels, alphabet numbers and split: not of the spelling of names, nor of a file's compression."""
        digest = hashlib.sha256(f"{self.ink.shape}, {self.n_background}\n".encode())
        for array in (self.ink, self.alphabet):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def read_packed(path: Path) -> PackedImages:
    """Read a packed file; its format is checked, its content is not.

    Raises
    ------
    CorruptData
        If it is damaged, or no such file.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                images = PackedImages(
                    _member(archive, "ink"),
                    _member(archive, "alphabet"),
                    _member(archive, "alphabet_names"),
                    int(_member(archive, "n_background")),
                )
        except Exception as error:  # what zipfile and NumPy's header parser raise on damage has no common base
            raise CorruptData(f"{path}: not a readable Omniglot file: {type(error).__name__}: {error}") from error
    fault = _fault(images)
    if fault:
        raise CorruptData(f"{path}: not a packed Omniglot file: {fault}")
    for array in (images.ink, images.alphabet, images.alphabet_names):
        array.setflags(write=False)
    return images


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    """Read one array, to the end of its member.

    `np.load` stops after the last number it needs, and then the checksum may never be compared: a flipped byte
    passes. Nothing is unpickled.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > _LARGEST_MEMBER:
        raise ValueError(f"{name} would take {info.file_size} bytes")
    return np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)


def _fault(images: PackedImages) -> str:
    ink, alphabet, names = images.ink, images.alphabet, images.alphabet_names
    if ink.dtype != np.uint8 or ink.ndim != 3 or ink.shape[1:] != (DRAWERS, BYTES_PER_IMAGE):
        return f"ink must be uint8 (C, {DRAWERS}, {BYTES_PER_IMAGE}), got {ink.dtype} {ink.shape}"
    if alphabet.dtype != np.uint8 or alphabet.shape != ink.shape[:1]:
        return f"alphabet must be uint8 ({len(ink)},), got {alphabet.dtype} {alphabet.shape}"
    if names.dtype.kind != "U" or names.ndim != 1 or (alphabet.size and alphabet.max() >= names.size):
        return f"alphabet_names must be text, one per alphabet, got {names.dtype} {names.shape}"
    if not 0 <= images.n_background <= len(ink):
        return f"n_background must lie in [0, {len(ink)}], got {images.n_background}"
    return ""


def verify(path: Path, images: PackedImages, content_sha256: str = CONTENT_SHA256) -> None:
    """Check that a file that was read holds the right images.

    Raises
    ------
    CorruptData
        With the hash found and the hash wanted.
    """
    found = images.sha256()
    if found != content_sha256:
        raise CorruptData(f"{path}: the images have sha256 {found}, wanted {content_sha256}; delete it or replace it")


def write_packed(images: PackedImages, target: Path) -> Path:
    """Write a packed file as a whole or not at all; an old file stays until the new one is on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.atomic_target(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            ink=images.ink,
            alphabet=images.alphabet,
            alphabet_names=images.alphabet_names,
            n_background=np.int16(images.n_background),
        )
    return target
