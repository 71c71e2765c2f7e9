"""The machine's memory: how much there is, and an allocator that does not give it back between two temporaries.

glibc returns freed blocks above its thresholds to the system at once, and every temporary of a few hundred kilobytes
then costs more in page faults than in arithmetic: measured on batched networks, a factor of 2.5 on a Hessian-vector
product. The thresholds follow the largest block ever freed, up to 32 MiB. One such block, freed without having been
touched, raises them for the life of the process; other allocators do not care.
"""

import os

import numpy as np

_JUST_BELOW_THE_LARGEST_THRESHOLD = (32 << 20) - (64 << 10)


def settle_allocator() -> None:
    """Allocate and free one untouched block: microseconds, and no memory is used."""
    np.empty(_JUST_BELOW_THE_LARGEST_THRESHOLD, dtype=np.uint8)


def physical_memory() -> int | None:
    """Bytes of memory of this machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
