"""How the C library treats memory that is freed."""
import contextlib
import ctypes

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed() -> None:
    """Keeps memory that is freed instead of giving it back to the system; elsewhere than under glibc nothing happens.

    On a CPU XLA asks for all its temporaries anew each step, gigabytes that the system would hand out page by page.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
