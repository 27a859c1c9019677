"""The record of what was sent: a JSON line for each event handed to the socket of an open connection.

With it a recording can be proved complete: after `POST /control/stop` every line is on disk, and whatever a collector
then holds must equal the lines of its connections.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from app.venues.dialect import Event

#: Lines held back at most before they are written, in bytes.
BUFFER_BYTES = 1 << 20


class Line(msgspec.Struct, omit_defaults=True):
    """One event sent. `maybe`: the connection broke while it was being sent, so the client may or may not have it."""

    venue: str
    connection: int
    symbol: str
    feed: str
    id: str | None = msgspec.field()
    data: str = msgspec.field()
    maybe: bool = False


class Opened(msgspec.Struct):
    """A connection opened, microseconds since the Unix epoch."""

    venue: str
    connection: int
    opened: int


class Closed(msgspec.Struct):
    """A connection ended, by a closing handshake of this code and reason; 1006: by none.

    `acknowledged`: the server began the closing and the client answered, so the client has read everything sent. Where
    False, the client closed or the link broke, and the last events sent may be unread.
    """

    venue: str
    connection: int
    closed: int
    code: int
    reason: str
    acknowledged: bool


class Withheld(msgspec.Struct):
    """One event that was made and not sent: the hole that a fault left. Its text is in `text`, so that no reader of the
    events sent, which have `data`, takes it for one."""

    venue: str
    connection: int
    symbol: str
    feed: str
    id: str | None
    text: str
    withheld: bool = True


class Sent:
    """Counts sent events and, given a path, writes their lines (the file is replaced). Memory is bounded."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("wb", buffering=0) if path else None
        self._encode = msgspec.json.Encoder().encode_into
        self._buffer = bytearray()
        self._line = bytearray()
        #: venue -> feed -> events.
        self.counts: dict[str, dict[str, int]] = {}

    def events(self, venue: str, connection: int, events: Iterable[Event], maybe: bool = False) -> None:
        """These events of one frame were handed over, in this order."""
        counts = self.counts.setdefault(venue, {})
        for event in events:
            counts[event.feed] = counts.get(event.feed, 0) + 1
            if self._file:
                self._write(Line(venue, connection, event.symbol, event.feed, event.id, event.data, maybe))

    def opened(self, venue: str, connection: int, time_us: int) -> None:
        """A client's opening handshake was answered."""
        if self._file:
            self._write(Opened(venue, connection, time_us))

    def closed(self, venue: str, connection: int, time_us: int, code: int, reason: str, acknowledged: bool) -> None:
        """A connection is gone; nothing more is written for it."""
        if self._file:
            self._write(Closed(venue, connection, time_us, code, reason, acknowledged))

    def withheld(self, venue: str, connection: int, events: Iterable[Event]) -> None:
        """These events of one frame were made, and a fault kept them back."""
        if self._file:
            for event in events:
                self._write(Withheld(venue, connection, event.symbol, event.feed, event.id, event.data))

    def fault(self, name: str, venue: str, connection: int | None, facts: dict[str, Any]) -> None:
        """A fault struck; `connection` None: no connection, or every one of the venue."""
        if self._file:
            self._write({"fault": name, "venue": venue, "connection": connection} | facts)

    def flush(self) -> None:
        """Every line so far is in the file. Raises: OSError."""
        if self._file and self._buffer:
            self._file.write(self._buffer)
            self._buffer.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, line: Line | Opened | Closed | Withheld | dict[str, Any]) -> None:
        self._encode(line, self._line)
        self._buffer += self._line
        self._buffer += b"\n"
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()
