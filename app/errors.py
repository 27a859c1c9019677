"""Every exception of Collector. Each stores facts and answers what to do next.

CollectorError
├── SettingsError          the operator must change something; commands exit 2
│   └── InvalidSymbol      a symbol that cannot be one on this exchange
├── FrameRejected          quarantine the frame, go on
├── VenueUnavailable       a venue's REST did not answer, or may not be asked now: ask again later
├── BufferUnavailable      Redis did not answer: spool, retry later
│   └── BufferFull         Redis is at its maxmemory: as above, but it can be read and emptied
├── SpoolFull              the local spool is at its bound: keep in memory, drop the newest beyond that
├── StoreError             an object store did not do what was asked; the local copy stays
│   ├── StoreUnavailable   retry later
│   ├── StoreRefused       credentials, bucket or region: the operator must act
│   ├── VerifyFailed       the store holds other bytes than ours, or none
│   └── KeyTaken           other bytes are under the key and are never overwritten
├── SegmentSealed          insert into the next segment instead
├── VenueNotAsked          a venue's list of symbols is not known now: say so, or go on without it
├── LedgerElsewhere        no ledger on this host, and a process that only reads makes none
├── OwnedElsewhere         another data directory or host owns this Redis or prefix
└── RemovalRefused         a segment is not proved to be archived; it stays
"""

from __future__ import annotations


class CollectorError(Exception):
    """Root of the tree."""


class SettingsError(CollectorError):
    """All faults of the settings at once. `faults` are complete sentences: key, value, remedy."""

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(self.faults)


class InvalidSymbol(SettingsError):
    """`symbol` cannot be a symbol of `exchange`; `remedy` says how one looks."""

    def __init__(self, exchange: str, symbol: str, remedy: str) -> None:
        super().__init__(f"{exchange}: symbol {symbol!r} is not one: {remedy}")
        self.exchange, self.symbol, self.remedy = exchange, symbol, remedy


class FrameRejected(CollectorError):
    """A frame that cannot be decoded. `reason` is a short constant such as `not_json` or `unexpected_symbol`.

    `number` is the frame's among all of its connection, where the venue counts them and this one needs no other notice.
    """

    def __init__(self, reason: str, detail: str = "", number: int | None = None) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail, self.number = reason, detail, number

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class VenueUnavailable(CollectorError):
    """`venue` gave no answer over REST, because of `words`; asking before `wait_s` seconds is of no use."""

    def __init__(self, venue: str, words: str, wait_s: float = 0.0) -> None:
        super().__init__(venue, words, wait_s)
        self.venue, self.words, self.wait_s = venue, words, wait_s

    def __str__(self) -> str:
        return f"{self.venue}: {self.words}"


class BufferUnavailable(CollectorError):
    """Redis could not answer in time; nothing is known to have moved."""


class BufferSilent(BufferUnavailable):
    """Redis did not answer at all: whatever else it is asked now, it will not either."""


class BufferFull(BufferUnavailable):
    """Redis is at its `maxmemory`: it takes no write, and can be read and emptied."""


class SpoolFull(CollectorError):
    """The spool directory holds `size_bytes` of at most `max_bytes`."""

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(size_bytes, max_bytes)
        self.size_bytes, self.max_bytes = size_bytes, max_bytes

    def __str__(self) -> str:
        return f"spool holds {self.size_bytes} of at most {self.max_bytes} bytes ([spool] max_bytes)"


class StoreError(CollectorError):
    """A store (`store`), the key, and what it said."""

    def __init__(self, store: str, key: str, detail: str) -> None:
        super().__init__(store, key, detail)
        self.store, self.key, self.detail = store, key, detail

    def __str__(self) -> str:
        return f"store {self.store}: {self.key or '(whole store)'}: {self.detail}"


class StoreUnavailable(StoreError):
    """Worth a retry: timeouts, 5xx, SlowDown, no connection."""


class StoreRefused(StoreError):
    """Not worth a retry before the operator acts: 403, missing bucket, wrong region, read-only directory."""


class VerifyFailed(StoreError):
    """The object under the key is absent or has other bytes than ours; `about`: what showed it, head, size or sha256."""

    def __init__(self, store: str, key: str, detail: str, about: str = "head") -> None:
        super().__init__(store, key, detail)
        self.about = about


class KeyTaken(StoreError):
    """Other bytes stand under the key."""


class SegmentSealed(CollectorError):
    """The segment no longer takes rows."""


class VenueNotAsked(CollectorError):
    """`venue` gave no list of its symbols, because of `why`.

    `lasting`: it will not before somebody follows `remedy`. `stay_away`: it told us to leave it alone for a while.
    """

    def __init__(self, venue: str, why: str, remedy: str, *, lasting: bool = False, stay_away: bool = False) -> None:
        super().__init__(venue, why, remedy)
        self.venue, self.why, self.remedy, self.lasting, self.stay_away = venue, why, remedy, lasting, stay_away

    def __str__(self) -> str:
        return f"{self.venue} could not be asked for its symbols: {self.why}; {self.remedy}"


class LedgerElsewhere(CollectorError):
    """There is no ledger at `path`, which is asked for by a process that only reads."""

    def __init__(self, path: object) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is not there: nothing was stored yet, or the data directory is on another host"


class OwnedElsewhere(CollectorError):
    """`what` is owned by `owner`; a second owner would make two truths."""

    def __init__(self, what: str, owner: str) -> None:
        super().__init__(what, owner)
        self.what, self.owner = what, owner

    def __str__(self) -> str:
        return f"{self.what} is owned by {self.owner}; stop that one first, or use another Redis database or prefix"


class RemovalRefused(CollectorError):
    """Segment `segment` stays, because of `why`."""

    def __init__(self, segment: int, why: str) -> None:
        super().__init__(segment, why)
        self.segment, self.why = segment, why

    def __str__(self) -> str:
        return f"segment {self.segment} is not removed: {self.why}"


class Interrupted(CollectorError):
    """`what` was given up unfinished, because this process stops or its time was over."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} was given up unfinished"
