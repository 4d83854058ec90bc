"""What makes a step on the CPU cheaper without changing a number."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


def keep_memory() -> bool:
    """Let memory that was freed stay with the process, for the next step to use.

    glibc maps every block of 32 MB or more anew and gives it back when it is freed, so that each
    step waits for the system to clear the pages of the embedding table's gradient (47 MB in
    MiniLM) and of the larger activations again. Kept, they cost a tenth of that. The peak stays;
    what is resident no longer falls between steps.

    Returns:
        Whether it could be said; False where the C library is another than glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
