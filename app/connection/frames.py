"""Cuts what was read from a socket into WebSocket frames.

The library asks the socket three times for each frame. Here it is asked once for all that is there, and whole frames of the
plain kind are cut out of that; everything else (control frames, fragments, errors) is the library's (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websocket._abnf import frame_buffer

#: Of a frame that is too large, this many leading bytes are kept for quarantine.
OVERSIZED_HEAD_BYTES = 64 * 1024
#: Asked of the socket at once: four records of TLS.
READ_BYTES = 64 * 1024
#: Of so many reads that brought all there was, one looks whether there is more.
LOOK_DEEPER = 16
#: First byte of a frame that is a whole message, text or binary.
_WHOLE = (0x81, 0x82)
#: First byte of pings and pongs.
_PINGS = (0x89, 0x8A)


class FrameTooLarge(Exception):
    """A frame of `size_bytes`, over the cap. `head` holds its first bytes; the connection cannot be read any further."""

    def __init__(self, size_bytes: int, head: bytes) -> None:
        super().__init__(size_bytes)
        self.size_bytes, self.head = size_bytes, head

    def __str__(self) -> str:
        return f"a frame of {self.size_bytes} bytes"


class Frames(frame_buffer):
    """The library's frame reader, which reads ahead, and with a bound: it would allocate whatever length the peer announces."""

    #: Bytes of the fragments of the current message read so far.
    fragments = 0
    #: Read from the socket; from `_at` on not yet taken.
    _ahead, _at = b"", 0
    #: Read after that, of a large frame: joined when it is there, not at each piece.
    _late_bytes = 0
    #: A read waits where there is nothing.
    waits = True
    #: So many reads until it is seen whether the socket has more than one read brings.
    _until_deep = 0
    #: What comes next, as far as it was read, is a frame that `whole` can take.
    plain = True

    def __init__(self, recv: Callable[[int], bytes], more: Callable[[int], bytes], max_bytes: int) -> None:
        """`recv` raises where nothing is there in time; `more` reads what else is there, b"" where nothing is."""
        super().__init__(recv, True)
        self.more, self.max_bytes = more, max_bytes
        self._late: list[bytes] = []

    def recv_strict(self, bufsize: int) -> bytes:
        """The next `bufsize` bytes. What was read before a timeout stays read."""
        while len(self._ahead) - self._at + self._late_bytes < bufsize:
            self._late.append(self.recv(READ_BYTES))
            self._late_bytes += len(self._late[-1])
        self._join()
        begin, self._at = self._at, self._at + bufsize
        return self._ahead[begin : self._at]

    def _join(self) -> None:
        if self._late:
            self._ahead, self._at = b"".join([self._ahead[self._at :], *self._late]), 0
            self._late.clear()
            self._late_bytes = 0

    def whole(self) -> list[bytes]:
        """Payloads of the messages that come next, each in one frame, as far as they were read.

        Where the first is not there to its end the socket is asked once. Empty where that did not bring enough, or where
        something else comes next: both are for the library to read.
        """
        found: list[bytes] = []
        if self.header is not None or self.fragments:
            return found
        self._join()
        if self._cut(found) and not found:
            self._ahead, self._at = self._ahead[self._at :] + self._read_ahead(), 0
            self._cut(found)
        return found

    def _read_ahead(self) -> bytes:
        """What the socket has. TLS gives one record at a time, often one frame: asked again where more was seen there."""
        read = self.recv(READ_BYTES)
        self._until_deep -= 1
        if self.waits or self._until_deep > 0:
            return read
        chunks, size = [read], len(read)
        while size < READ_BYTES and (chunk := self.more(READ_BYTES)):
            chunks.append(chunk)
            size += len(chunk)
        self._until_deep = 0 if len(chunks) > 1 else LOOK_DEEPER
        return b"".join(chunks)

    def _cut(self, found: list[bytes]) -> bool:
        """Take whole messages into `found`. True where what follows was not read to its end, False where it is none."""
        ahead, at, end = self._ahead, self._at, len(self._ahead)
        plain = True
        while end - at >= 2:
            size, start = ahead[at + 1], at + 2
            plain = ahead[at] in _WHOLE and size <= 127
            if not plain:
                break
            if size > 125:
                start = at + (4 if size == 126 else 10)
                if start > end:
                    break
                size = int.from_bytes(ahead[at + 2 : start])
                plain = size <= self.max_bytes
            if not plain or start + size > end:
                break
            at = start + size
            found.append(ahead[start:at])
        self._at, self.plain = at, plain
        return plain

    def rest(self) -> list[bytes]:
        """Whole messages that stand behind a frame at which reading failed, pings and pongs among them passed over."""
        found: list[bytes] = []
        if self.header is None and not self.fragments:
            self._join()
            while not self._cut(found) and self._ahead[self._at] in _PINGS:
                self._at += 2 + self._ahead[self._at + 1]
        return found

    def recv_mask(self) -> None:
        # The step between length and payload, which a timeout inside the head brings us to again.
        size = (self.length or 0) + self.fragments
        if size > self.max_bytes:
            head = self.recv_strict(min(self.length or 0, OVERSIZED_HEAD_BYTES))
            raise FrameTooLarge(size, head)
        super().recv_mask()

    def recv_frame(self) -> Any:
        frame = super().recv_frame()
        if frame.opcode < 8:  # control frames may stand between fragments
            self.fragments = 0 if frame.fin else self.fragments + len(frame.data)
        return frame
