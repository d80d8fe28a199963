"""How the C library keeps the memory that tensors on a CPU have freed."""

from __future__ import annotations

import ctypes
import os

# mallopt(3); 32 MB is the largest threshold that glibc takes.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
OF_THE_SYSTEM, KEPT, AT_ONCE = 32 << 20, 1 << 30, 16 << 20
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_",
          "GLIBC_TUNABLES", "LD_PRELOAD")  # fmt: skip
"""Variables by which a user says it otherwise, or takes another allocator."""


def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GB that was freed, and map only blocks of over 32 MB by themselves.

    It takes 16 MB of the system at a time.

    A step allocates the same activations again. Memory that went back to the system is zeroed and
    mapped page by page when it is touched again: with this, ResNet18 steps on a CPU take a tenth
    less time (benchmarks/allocator.py). Nothing is changed where a variable in CHOSEN is set, or
    the C library is another; then the result is False.
    """
    if any(name in os.environ for name in CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    options = {M_MMAP_THRESHOLD: OF_THE_SYSTEM, M_TRIM_THRESHOLD: KEPT, M_TOP_PAD: AT_ONCE}
    return all([mallopt(option, value) for option, value in options.items()])
