"""From 105 × 105 binary drawings to 28 × 28 features, as the two papers' codes do it."""

from __future__ import annotations

from enum import Enum

import numpy as np

from implicit_grad.backend import Array

SIDE = 28


class Downsampling(Enum):
    """How drawings shrink to 28 × 28; the value is the help text."""

    NEAREST = "MAML's: rows and columns ⌊(k + ½)·105/28⌋, so binary, and ink = 1"
    LANCZOS = "iMAML's: grey by Pillow's Lanczos filter, and paper = 1"

    def __call__(self, ink: Array) -> Array:
        """Shrink drawings: boolean `(..., H, W)`, True = ink, to `(..., 28, 28)` in [0, 1]."""
        return _nearest(ink) if self is Downsampling.NEAREST else _lanczos(ink)

    def __repr__(self) -> str:
        return f"Downsampling.{self.name}"


def _nearest(ink: Array) -> Array:
    """Pick pixels: what Pillow does to a one-bit image whatever filter it is asked for, as MAML's code asks it."""
    rows, columns = ((2 * np.arange(SIDE) + 1) * side // (2 * SIDE) for side in ink.shape[-2:])
    return ink[..., rows[:, None], columns].astype(np.float64)


def _lanczos(ink: Array) -> Array:
    """Convert to grey first, then filter: 8 bits per pixel, rounded by Pillow as for the paper."""
    from PIL import Image  # comes with matplotlib

    paper = np.where(ink, 0, 255).astype(np.uint8).reshape(-1, *ink.shape[-2:])
    small = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for each in paper]
    return np.array(small).reshape(*ink.shape[:-2], SIDE, SIDE) / 255
