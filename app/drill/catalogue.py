"""The fault list as data: every row, what is promised, and what a drill may find afterwards. Pure.

The rows are those of docs/reliability.md, which names the tests of each. Here stands what can be struck on any machine,
without root, with nothing but processes, signals, a Redis and the built-in exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What of the events sent may be missing after a fault, where its promise says so: declared lost (with market, time and
#: cause), unread at the end of a connection that broke, quarantined.
LOST, UNREAD, QUARANTINED = "lost", "unread", "quarantined"

#: Whose events tell of a row: everybody's, a venue's, or nobody's: what the archive holds is looked at alone.
ALL, ARCHIVE = "all", "archive"


@dataclass(frozen=True)
class Row:
    """One fault and its promise."""

    id: str
    promise: str
    #: Why no drill strikes it; empty where one does.
    test_only: str = ""
    #: Back at work so many seconds after the fault (or its end) at the latest; None where no time is promised.
    within_s: float | None = None
    allows: frozenset[str] = frozenset()
    scope: str = ALL

    @property
    def drilled(self) -> bool:
        return not self.test_only


#: The lease of a drill's streams: what `[buffer] lease_secs` is for a user.
LEASE_S = 5.0

_S3 = "needs an S3 that misbehaves"
_HOLE = frozenset({LOST, UNREAD})
_CONNECTION = frozenset({UNREAD})


def _venue(row: str, venue: str, promise: str, within_s: float | None = None, *more: str) -> Row:
    return Row(row, promise, "", within_s, _CONNECTION | set(more), venue)


ROWS: tuple[Row, ...] = (
    Row("K1", "kill -9 of a stream process: at most the batch in its hands is lost, and declared; another process takes its"
        " streams within the lease and 5 s", within_s=LEASE_S + 5, allows=_HOLE),
    Row("K2", "kill -9 of the flush before its commit: nothing is lost"),
    Row("K3", "kill -9 of the flush between commit and acknowledgement: nothing is lost or stored twice"),
    Row("K4", "kill -9 while Parquet is written: no half object is ever seen", scope=ARCHIVE),
    Row("K5", "kill -9 before the upload: the same key at the next cycle", scope=ARCHIVE),
    Row("K6", "kill -9 during the upload: the same key again", scope=ARCHIVE),
    Row("K7", "kill -9 before the proof: proved, then removed", scope=ARCHIVE),
    Row("K8", "kill -9 around the removal: nothing is lost, no second object", scope=ARCHIVE),
    Row("K9", "SIGTERM of a stream process: everything it received is delivered, exit code 0", within_s=30, allows=_CONNECTION),
    Row("K10", "out of memory: no more than K1, memory under a ceiling", "needs a machine without memory"),
    Row("K11", "power loss of the host: at most a second, on record", "needs a power switch"),
    Row("R1", "Redis is killed and starts again with its append-only file: at work again within 30 s, at most 1 s lost and"
        " declared", within_s=30, allows=frozenset({LOST})),
    Row("R2", "Redis starts again with nothing: what it forgot is declared lost", within_s=30, allows=frozenset({LOST})),
    Row("R3", "Redis is away: batches wait in the spool, in order, and nothing is lost"),
    Row("R4", "Redis at its maxmemory: as R3"),
    Row("R5", "Redis is emptied under way: what it forgot is declared lost", allows=frozenset({LOST})),
    Row("R6", "the link to the broker flaps: the workers consume again within 60 s", within_s=60),
    Row("D1", "the database is locked: claims stay in Redis and are stored later, none dropped"),
    Row("D2", "the disk is full: nothing is damaged, data waits, and it goes on by itself", "needs a full disk"),
    Row("D3", "a damaged database is set aside and recording goes on", "needs a damaged disk"),
    Row("D4", "a read-only file system or I/O errors: degraded, no crash loop", "needs root, to mount a file system"),
    Row("D5", "a schema of an older version: migrated, or refused with the command to run", "needs an older version"),
    Row("S1", "S3 answers 500 or 503: tried again, nothing is lost", _S3),
    Row("S2", "S3 times out after it stored: the same key, the same bytes", _S3),
    Row("S3", "S3 refuses the key: data stays, the cause is named", _S3),
    Row("S4", "S3 is slow or stuck: a deadline, and the other markets go on", _S3),
    Row("S5", "the object is of another size: not removed", _S3),
    Row("S6", "a flipped bit, the size the same: caught, not removed", _S3),
    Row("S7", "404 after 200: not removed", _S3),
    Row("S8", "the bucket is missing: a clear error, data stays", _S3),
    Row("S9", "the store is away: segments wait, and are caught up in order when it is back", scope=ARCHIVE),
    Row("S10", "other bytes stand under the key: never overwritten, on record", scope=ARCHIVE),
    Row("T1", "the clock steps: order and removal never depend on it", "needs root, to set the clock"),
    Row("T2", "midnight, the turn of the hour, summer time: each row is in exactly one object", "needs a midnight"),
    _venue("X1", "binance", "a clean close: back within 5 s; an announced one: the next connection is opened first", 5),
    _venue("X2", "okx", "a half-open connection is noticed within 30 s", 30),
    _venue("X3", "coinbase", "connected, heartbeats, no data: stale, then a new connection"),
    _venue("X4", "okx", "an unknown symbol: that market alone, with the venue's words, no storm of reconnects"),
    _venue("X5", "bybit", "what cannot be read is kept byte for byte with the reason, and the stream goes on", None,
           QUARANTINED),
    _venue("X6", "bybit", "a frame of 64 MB or a compressed bomb: not read, the connection ends", 30, QUARANTINED),
    _venue("X7", "upbit", "a handshake that never ends is given up after the connect timeout of 10 s", 30),
    _venue("X8", "bybit", "repeats are counted, numbers that start over are no gap", None, QUARANTINED),
    _venue("X9", "binance", "a hole is on record within 1 s and at the next flush"),
    _venue("X10", "bybit", "fields renamed: the bytes are kept, counted, and the others go on", None, QUARANTINED),
    _venue("X11", "upbit", "429: Retry-After is obeyed"),
    _venue("X12", "bybit", "a burst of 50 times the rate: nothing is lost, the lists are short again", None, QUARANTINED),
    Row("X13", "a name that does not resolve, a certificate that proves nothing: refused, asked ever more seldom",
        "needs names and certificates"),
    Row("C1", "two beats: one object for each market and segment", scope=ARCHIVE),
    Row("C2", "an archive longer than its interval: the next one skips", scope=ARCHIVE),
    Row("C3", "two workers on one market: one keeps it, both are kept, nothing stands twice", allows=_HOLE),
    Row("C4", "a process that sleeps past its lease finds it taken within the lease and 5 s, delivers what it has, lets go",
        within_s=LEASE_S + 5, allows=_HOLE),
    Row("C5", "beat was away: the next runs take everything"),
    Row("C6", "a poisoned message is refused, the worker goes on"),
    Row("C7", "versions mixed: rows of the version before can be read", "needs another version"),
    Row("O1", "metrics, Flower and web down: recording goes on"),
    Row("O2", "a flood of logs: limited, nothing stalls", "needs a full disk"),
)  # fmt: skip

BY_ID = {row.id: row for row in ROWS}
