"""glibc's allocator, set for programs that allocate large arrays again and again."""
import contextlib
import ctypes

# of malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX, M_TOP_PAD
MALLOC = {-4: 0, -1: -1, -8: 1, -2: 1 << 28}


def keep_freed() -> None:
    """Have glibc keep freed memory for the next step: fetching it anew, zeroed, costs a third of a step."""
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOC.items():
            mallopt(parameter, value)
