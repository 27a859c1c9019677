"""What a session wants done: send, ask, end. Records to keep (`Event`, `Gap`, `Quarantined`) come out beside these."""

from __future__ import annotations

import msgspec

from app.model import Event, Gap, Quarantined


class Send(msgspec.Struct, frozen=True):
    """Send this text; None is a protocol PING. `sign`: where there is a key, a token goes into it first."""

    frame: str | None
    sign: bool = False


class Fetch(msgspec.Struct, frozen=True):
    """Ask the venue over REST for `what`, and feed the answer back in: "symbols" by `unlisted`, "book" by `asked_book`."""

    what: str
    symbol: str = ""


class Close(msgspec.Struct, frozen=True):
    """End this connection; `reason` is a constant, `detail` the venue's words or figures."""

    reason: str
    detail: str = ""


class Rotate(msgspec.Struct, frozen=True):
    """Open another connection, and end this one with `reason` once the other has its data. Said again while it lasts."""

    reason: str
    detail: str = ""


Output = Event | Gap | Quarantined | Send | Fetch | Close | Rotate
