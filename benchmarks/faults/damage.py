"""Files of cells that are damaged: flipped bits, cuts, swaps."""

from __future__ import annotations

import numpy as np

from benchmarks.faults.bench import Bench, Count, LostError
from implicit_grad.engine import Store, container


def damage(bench: Bench, rng: np.random.Generator, times: int) -> Count:
    """Flip one bit, cut the file, empty it, or put another cell's file in its place; the sweep finds every one."""
    bench.clear()
    bench.finish()
    bench.runs()
    keys, store, spoilt = bench.keys, Store(bench.folder), 0
    while spoilt < times:
        chosen = rng.choice(len(keys), size=min(times - spoilt, len(keys) // 2), replace=False)
        for n, i in enumerate(chosen):
            path = store.path(keys[i])
            path.write_bytes(spoil(path.read_bytes(), rng, n, bench.truth[keys[i - 1]]))
        bench.finish()
        runs = bench.runs()
        if runs != len(chosen):
            raise LostError(f"{len(chosen)} files were damaged and {runs} computed again")
        spoilt += len(chosen)
    aside = len(list((bench.folder / "quarantine").glob("*.npz")))
    if aside != spoilt:
        raise LostError(f"{spoilt} files were damaged and {aside} are in quarantine")
    return Count("bit flips, cuts, swaps of files", spoilt, spoilt, f"{aside} quarantined and computed again, 0 lost")


def spoil(data: bytes, rng: np.random.Generator, kind: int, other: bytes) -> bytes:
    """Damage a file: mostly one flipped bit, every fourth a cut, now and then nothing or another's content."""
    if kind % 16 == 5:
        return b""
    if kind % 16 == 13:
        return other
    if kind % 4 == 3:
        return data[: int(rng.integers(1, len(data)))]
    at, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def every_byte(bench: Bench) -> Count:
    """Damage every byte, and cut at every length, of one file."""
    key = bench.keys[0]
    data = container.pack({"x": np.arange(20.0)}, key)
    tried = 0
    for at in range(len(data)):
        for spoilt in (data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :], data[:at]):
            tried += 1
            if container.check(spoilt, key) is None:
                raise LostError(f"byte {at} can be damaged unseen")
    return Count("every byte, every length of a file", tried, 1, "all seen")
