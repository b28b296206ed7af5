"""Memory that stays with the process from one step to the next.

A compiled step asks for all its temporary memory at once and frees it at the end. On Linux, glibc gives a freed block
of more than 32 MB back to the system, so the next step gets new pages, each of which the system first has to find and
clear. Told to keep such blocks, glibc hands the same pages out again.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h
_MOST = 2**31 - 1  # bytes; mallopt takes an int


def keep_memory() -> bool:
    """Let this process keep freed memory for its next steps, instead of giving it back to the system.

    It is for the whole process and for good, so it is for the program to call, once, before it trains: no other part
    of the library calls it but `handgrad train`. The process then holds as much memory as its largest moment took.
    Steps that take more than 32 MB of temporary memory gain, by what docs/algorithms.md has measured; numbers are the
    same. Blocks above 2 GB still go back.

    Returns:
        Whether it took effect: True on Linux with glibc, False elsewhere, where nothing changes.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.

    Example:
        >>> keep_memory() in (True, False)
        True
    """
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError: Windows wants a name
        return False
    if not (hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt")):
        return False
    return all(libc.mallopt(setting, _MOST) == 1 for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
