"""How the C library treats memory that is freed."""
import contextlib
import ctypes
import os

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
HEAPS = max(2, (os.cpu_count() or 2) // 4)   # threads that decode images wait for each other where these are too few


def few_heaps() -> None:
    """Lets all threads share HEAPS heaps, where glibc would make up to eight a core; call it before threads allocate.

    Each save works in many threads, whose heaps keep what it freed, each a little more than the last time: over 14 saves of
    a tiny run memory grew by 11 MB, with two heaps by less than 1 MB.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


def keep_freed() -> None:
    """Keeps memory that is freed instead of giving it back to the system; elsewhere than under glibc nothing happens.

    On a CPU XLA asks for all its temporaries anew each step, gigabytes that the system would hand out page by page.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
