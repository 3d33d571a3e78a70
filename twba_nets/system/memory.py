"""Settings of glibc's allocator for programs that allocate large arrays repeatedly."""
import contextlib
import ctypes

# of malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX, M_TOP_PAD
MALLOC = {-4: 0, -1: -1, -8: 1, -2: 1 << 28}


def keep_freed() -> None:
    """Make glibc keep freed memory for the next step: getting it from the system, zeroed, costs a third of a step."""
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOC.items():
            mallopt(parameter, value)
