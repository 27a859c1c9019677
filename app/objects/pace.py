"""When a transfer is too slow to be waited for: no timeout of a socket ends one that moves a byte now and then. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

#: The rate is looked at over so long, so that a pause costs nothing.
WINDOW_S = 30.0
#: A transfer slower than this in a whole window is given up, in bytes per second.
SLOWEST_BYTES_PER_S = 8 * 1024


class TooSlow(Exception):
    """A transfer moved fewer than SLOWEST_BYTES_PER_S for a whole window."""


class Pace:
    """The rate of one transfer, its retries included."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._since_s, self._bytes = monotonic_s(), 0

    def moved(self, size_bytes: int) -> None:
        """So many bytes have gone on. Raises: TooSlow."""
        self._bytes += size_bytes
        elapsed_s = self._now_s() - self._since_s
        if elapsed_s < WINDOW_S:
            return
        if self._bytes < SLOWEST_BYTES_PER_S * elapsed_s:
            raise TooSlow(f"{self._bytes} bytes in {elapsed_s:.0f} s; given up below {SLOWEST_BYTES_PER_S} bytes/s")
        self._since_s, self._bytes = self._since_s + elapsed_s, 0


class PacedFile:
    """`file` as the body of a request. Whoever reads it has sent what he read before."""

    def __init__(self, file: BinaryIO, pace: Pace) -> None:
        self._file, self._pace, self._unsent = file, pace, 0

    def read(self, size: int = -1) -> bytes:
        """As of a file. Raises: TooSlow."""
        self._pace.moved(self._unsent)
        piece = self._file.read(size)
        self._unsent = len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file: a request that is tried again begins anew."""
        self._unsent = 0
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()
