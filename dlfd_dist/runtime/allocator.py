"""How the C library keeps the memory that tensors on a CPU have freed."""

from __future__ import annotations

import ctypes
import os

# mallopt(3); 32 MB is the largest threshold that glibc takes.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
OF_THE_SYSTEM, KEPT, AT_ONCE = 32 << 20, 1 << 30, 16 << 20
CHOSEN = ("GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables by which a user says it otherwise, or takes another allocator; so is every MALLOC_*."""


def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GB that was freed, and map only blocks of over 32 MB by themselves.

    It takes 16 MB of the system at a time. This is for a process of our own: it cannot be undone.

    A step allocates the same activations again. Memory that went back to the system is zeroed and
    mapped page by page when it is touched again: with this, ResNet18 steps on a CPU take a tenth
    less time (benchmarks/allocator.py). Nothing is changed, and the result is False, where a
    variable says otherwise or the C library does not take blocks of 32 MB.
    """
    if any(name in CHOSEN or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    if not mallopt(M_MMAP_THRESHOLD, OF_THE_SYSTEM):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_TOP_PAD, AT_ONCE))
