"""/control: stop and start, count, and let things go wrong.

POST   /control/stop     generate nothing more; answers when every event sent is in the sent file
POST   /control/start    go on
GET    /control/status   connections, events sent by venue and feed, stopped
GET    /control/faults   the faults that stand, and what each has done
POST   /control/faults   add faults: JSON (an object or a list), or the text of --faults
DELETE /control/faults   none any more; ?rule=3: not that one
POST   /control/do       let one strike at once, on every connection it fits
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import msgspec

from app.venues.dialect import Answer, answer
from app.venues.faults import FaultError, faults
from app.venues.floor import Floor
from app.venues.mischief import Mischief
from app.venues.sent import Sent

METHODS = {
    "stop": ("POST",),
    "start": ("POST",),
    "status": ("GET",),
    "faults": ("GET", "POST", "DELETE"),
    "do": ("POST",),
}
#: A request that is larger is not held back, and then refused by the WebSocket library.
BODY_BYTES = 1 << 20
LENGTH = re.compile(rb"(?im)^(content-length:[ \t]*)(\d{1,9})(?=[ \t]*\r?$)")


class Status(msgspec.Struct):
    """The answer to `GET /control/status`. `queued`: connections that have not taken everything yet."""

    connections: int
    queued: int
    sent: dict[str, dict[str, int]]
    stopped: bool


class Control:
    """Answers requests below /control. `stop` is how the server stops the data."""

    def __init__(self, floor: Floor, sent: Sent, mischief: Mischief, stop: Callable[[], Awaitable[object]]) -> None:
        self.floor, self.sent, self.mischief, self.stop = floor, sent, mischief, stop

    async def answer(self, method: str, word: str, query: dict[str, str], body: bytes) -> Answer:
        """The answer to one request."""
        wanted = METHODS.get(word)
        if wanted is None:
            return answer({"error": "no such path", "paths": list(METHODS)}, 404)
        if method not in wanted:
            return answer({"error": f"use {' or '.join(wanted)}"}, 405)
        if word in ("faults", "do"):
            try:
                return self._faults(method, word, query, body.decode())
            except (FaultError, UnicodeDecodeError) as error:
                return answer({"error": str(error)}, 400)
        if word == "stop":
            await self.stop()
        elif word == "start":
            self.floor.start()
        connections = self.floor.connections
        queued = sum(not connection.idle for connection in connections)
        return answer(Status(len(connections), queued, self.sent.counts, self.floor.stopped))

    def _faults(self, method: str, word: str, query: dict[str, str], body: str) -> Answer:
        if method == "DELETE":
            number = query.get("rule")
            if number is not None and int(number if number.isdecimal() else 0) not in {
                r.number for r in self.mischief.rules
            }:
                raise FaultError(f"no rule {number}")
            self.mischief.remove(int(number) if number else None)
        elif method == "POST":
            asked = faults(body)
            if not asked:
                raise FaultError("send a fault: JSON, or name,key=value")
            if word == "do":
                done = [where for fault in asked for where in self.mischief.do(fault)]
                self.sent.flush()
                return answer({"done": done})
            self.mischief.add(asked)
        return answer({"seed": self.mischief.seed, "rules": self.mischief.listed()})


def split(data: bytes) -> tuple[bytes, bytes] | None:
    """A request's head, said to have no body, and its body; None while they are not all here.

    The WebSocket library refuses requests that have a body.
    """
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return (data, b"") if len(data) > BODY_BYTES else None
    length = LENGTH.search(head)
    size = int(length[2]) if length else 0
    if size > BODY_BYTES:
        return data, b""
    if len(body) < size:
        return None
    return LENGTH.sub(rb"\g<1>0", head) + blank + body[size:], body[:size]
