"""What a service does with memory that it has freed.

The C library gives large pieces back to the host as soon as they are free, and the host clears each page when it is
touched again. A service that makes an answer of half a mebibyte, many times a second, would spend more time on that
than on the answer. The library adapts itself to the largest piece that was freed; this is where that ends after the
largest read of 16 MiB.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
KEPT: Final = 32 << 20  # free bytes at the end of a heap; a piece that is larger is not taken from a heap


def keep_freed() -> None:
    """Let this process keep what it frees, up to a bound; without effect where the C library has no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, KEPT)
