"""Compares what the built-in exchanges say they sent with what is held anywhere: identity, bytes, and how often.

Three rules: what is held was sent, byte for byte; nothing is stored twice; what was sent and is not held lies inside a
declared loss, a gap or a quarantined frame of its market and feed. The sets are kept in a temporary SQLite file: memory does
not grow with them.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError

from app.codec import BatchCodec, ElementRejected
from app.exchanges.base import ASKED
from app.model import ORDERBOOK, TRADE, Market
from app.objects import parquet
from app.pipeline.reasons import Reasons, kept_segments
from app.pipeline.survey import Survey, waiting
from app.quality.balance import Balance, Difference
from app.store.ledger import OPEN, SEALED, SEALING, VERIFIED
from app.store.segment import SealedSegment
from app.wiring import Wiring

#: What is done, how much of it, of how much (0: not known), in which unit.
Progress = Callable[[str, int, int, str], None]
#: Examples of one kind of difference that are named.
EXAMPLES = 5
FAR_US = 2**62

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
CREATE TABLE sent (market TEXT, item TEXT, text BLOB, times INT, PRIMARY KEY (market, item, text)) WITHOUT ROWID;
CREATE TABLE held (market TEXT, item TEXT, text BLOB, times INT, us INT, rest INT, PRIMARY KEY (market, item, text))
  WITHOUT ROWID;
CREATE TABLE ids (market TEXT, id TEXT, times INT, PRIMARY KEY (market, id)) WITHOUT ROWID;
"""
_SENT = "INSERT INTO sent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET times = times + excluded.times"
_HELD = (
    "INSERT INTO held VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET times = times + excluded.times,"
    " us = min(us, excluded.us), rest = min(rest, excluded.rest)"
)
_ID = "INSERT INTO ids VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET times = times + 1"


@dataclass
class SentReport:
    """Events sent (each time), held (each once), and why the others are not."""

    sent: int = 0
    held: int = 0
    #: Sent again, and stored once.
    repeated: int = 0
    #: Not held, and inside a declared loss, gap or quarantined frame.
    explained: int = 0
    #: Not held, at the end of a connection that the client left or that broke: perhaps never read.
    unread: int = 0
    #: Held although no connection brought them: asked for later.
    refetched: int = 0
    missing: int = 0


@dataclass
class _Silence:
    """Events of one feed of one connection in a row that are not held."""

    count: int = 0
    example: str = ""
    since_us: int = 0


def compare(
    wiring: Wiring,
    read: Survey,
    files: Sequence[Path],
    balances: Sequence[Balance],
    market: Market | None,
    progress: Progress,
) -> tuple[SentReport, list[Difference]]:
    """The report, and what breaks one of the three rules. Raises: OSError, BufferUnavailable, StoreError."""
    report = SentReport()
    with tempfile.TemporaryDirectory(prefix="collector-audit-") as directory:
        database = sqlite3.connect(Path(directory) / "sent.db", isolation_level=None)
        try:
            database.executescript(_TABLES)
            database.execute("BEGIN")
            _note_sent(database, files, report, market, progress)
            reasons = Reasons(wiring, read)
            while True:
                kept = kept_segments(wiring)
                try:
                    _note_held(database, wiring, read, reasons, market, progress)
                    break
                except DBAPIError:  # removed while it was read: its objects hold the rows
                    if kept <= kept_segments(wiring):
                        raise
                    database.execute("DELETE FROM held")
                    database.execute("DELETE FROM ids")
            differences = [*_wrong(database, report), *_absent(database, files, report, reasons, market)]
        finally:
            database.close()
    if not (report.missing or report.unread or report.explained or report.refetched):
        differences += _repeats(report, balances)
    return report, differences


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _item(feed: str, identity: str, text: bytes) -> str:
    """A trade is its id; a book frame its bytes, for not every venue numbers them."""
    return identity if feed == TRADE else text.hex()


def _lines(files: Sequence[Path], market: Market | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, path in enumerate(files):
        with path.open("rb") as lines:
            for line in lines:
                entry = msgspec.json.decode(line)
                name = entry.get("venue"), entry.get("symbol")
                if market is None or "symbol" not in entry or name == (market.exchange, market.symbol):
                    yield index, entry


def _market(entry: dict[str, Any]) -> str:
    return f"{entry['venue']}/{entry['symbol']} {entry['feed']}"


def _note_sent(
    database: sqlite3.Connection, files: Sequence[Path], report: SentReport, market: Market | None,
    progress: Progress,
) -> None:  # fmt: skip
    for _, entry in _lines(files, market):
        if "data" in entry or "withheld" in entry:
            text = _hash(entry["data"] if "data" in entry else entry["text"])
            times = int("data" in entry)
            item = _item(entry["feed"], entry["id"] or "", text)
            database.execute(_SENT, (_market(entry), item, text, times))
            report.sent += times
            if report.sent % 10_000 == 0:
                progress("events that were sent", report.sent, 0, "events")


def _note_held(
    database: sqlite3.Connection, wiring: Wiring, read: Survey, reasons: Reasons, market: Market | None,
    progress: Progress,
) -> None:  # fmt: skip
    """Everything held: what is under way (which may be stored a moment later, so it counts no times), then rows."""
    kinds = {epoch.id: epoch.kind for epoch in read.records.epochs.values()}

    def note(exchange: str, symbol: str, feed: str, identity: str, us: int, data: str, times: int, rest: bool) -> None:
        name, text = f"{exchange}/{symbol} {feed}", _hash(data)
        item = _item(feed, identity, text)
        database.execute(_HELD, (name, item, text, times, us, rest))
        if times:
            database.execute(_ID, (name, identity))

    codec = BatchCodec()
    for _, _, element in waiting(wiring):
        try:
            batch = codec.decode(element)
        except ElementRejected:
            continue
        reasons.add(batch)
        for e in batch.events:
            asked = e.feed == ORDERBOOK and e.sequence_id.startswith(ASKED)
            if not asked and (market is None or (batch.exchange, e.symbol) == (market.exchange, market.symbol)):
                rest = batch.kind == "rest"
                note(batch.exchange, e.symbol, e.feed, e.sequence_id, e.received_us, e.data, 0, rest)
    stored = 0
    for key, rows in _stored(wiring, market):
        for identity, us, _, data, epoch in rows:
            if key[2] == ORDERBOOK and identity.startswith(ASKED):
                continue  # a book that was asked for over REST: no connection brought it
            note(*key, identity, us, data, 1, kinds.get(epoch) == "rest")
        stored += len(rows)
        progress("rows that are stored", stored, 0, "rows")


def _stored(wiring: Wiring, market: Market | None) -> Iterator[tuple[tuple[str, str, str], list[Any]]]:
    """Rows of kept segments, newest first, then of the objects of those that are gone."""
    seen = set()
    for entry in reversed(wiring.ledger.segments(OPEN, SEALING, SEALED)):
        path = wiring.settings.storage.segments_path / entry.path
        segment = SealedSegment(path, settled=entry.state == SEALED)
        try:
            holdings = segment.holdings()
        except DBAPIError:
            continue  # still being made, or removed meanwhile; one that cannot be read was named before
        seen.add(entry.number)
        for holding in holdings:
            if market is None or holding[:2] == (market.exchange, market.symbol):
                for chunk in segment.rows(*holding[:3]):
                    yield holding[:3], chunk
    for done in wiring.ledger.objects():
        chosen = market is None or (done.exchange, done.symbol) == (market.exchange, market.symbol)
        if chosen and done.segment not in seen and done.state == VERIFIED and done.store == wiring.store.name:
            with wiring.store.open(done.key) as file:
                for rows in parquet.read(file):
                    yield (done.exchange, done.symbol, done.data_type), rows


def _wrong(database: sqlite3.Connection, report: SentReport) -> Iterator[Difference]:
    """What is held and was never sent, or differs, or stands twice."""
    report.held = database.execute("SELECT count(*) FROM held").fetchone()[0]
    report.refetched = database.execute("SELECT count(*) FROM held WHERE rest").fetchone()[0]
    known = "SELECT 1 FROM sent s WHERE s.market = h.market AND s.item = h.item"
    yield from _examples(
        database, f"SELECT market, item FROM held h WHERE NOT rest AND NOT EXISTS ({known})", "no exchange sent it"
    )
    yield from _examples(
        database,
        f"SELECT market, item FROM held h WHERE NOT rest AND EXISTS ({known}) AND NOT EXISTS ({known} AND s.text = h.text)",
        "it is not, byte for byte, what was sent",
    )  # fmt: skip
    yield from _examples(database, "SELECT market, id FROM ids WHERE times > 1", "it stands twice under one identity")
    yield from _examples(
        database,
        "SELECT market, item FROM (SELECT market, item, sum(times) n FROM held WHERE NOT rest GROUP BY 1, 2) h"
        " WHERE n > (SELECT total(times) FROM sent s WHERE s.market = h.market AND s.item = h.item)"
        f" AND EXISTS ({known})",
        "it is stored more often than it was sent",
    )
    report.repeated = database.execute(
        "SELECT coalesce(sum(s.n - max(h.n, 1)), 0) FROM (SELECT market, item, sum(times) n FROM sent GROUP BY 1, 2) s"
        " JOIN (SELECT market, item, sum(times) n FROM held GROUP BY 1, 2) h USING (market, item) WHERE s.n > max(h.n, 1)"
    ).fetchone()[0]


def _examples(database: sqlite3.Connection, query: str, why: str) -> Iterator[Difference]:
    count = database.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]
    for market, item in database.execute(f"{query} LIMIT {EXAMPLES}"):
        yield Difference(f"event {item}", market, f"{why} (one of {count})" if count > 1 else why)


def _absent(
    database: sqlite3.Connection, files: Sequence[Path], report: SentReport, reasons: Reasons, market: Market | None
) -> Iterator[Difference]:
    """What was sent and is not held: runs of a feed of a connection, between neighbours that are held."""
    silences: dict[tuple[int, int, str], _Silence] = {}
    opened: dict[tuple[int, int], int] = {}

    def ended(name: str, silence: _Silence, until_us: int, tail: bool) -> Iterator[Difference]:
        if not silence.count:
            return
        if reasons.explain(name, silence.since_us, until_us, silence.count):
            report.explained += silence.count
        elif tail:
            report.unread += silence.count
        else:
            report.missing += silence.count
            why = (
                f"{silence.count} events from here on were sent and are nowhere, and no loss, gap or quarantine says so"
            )
            yield Difference(f"event {silence.example}", name, why)

    for index, entry in _lines(files, market):
        if "opened" in entry:
            opened[index, entry["connection"]] = entry["opened"]
        elif "closed" in entry:
            for key in [key for key in silences if key[:2] == (index, entry["connection"])]:
                yield from ended(key[2], silences.pop(key), entry["closed"], not entry["acknowledged"])
        elif "data" in entry:
            name, text = _market(entry), _hash(entry["data"])
            key = index, entry["connection"], name
            silence = silences.setdefault(key, _Silence(since_us=opened.get(key[:2], 0)))
            item = _item(entry["feed"], entry["id"] or "", text)
            query = "SELECT min(us) FROM held WHERE market = ? AND item = ?"
            held_us = database.execute(query, (name, item)).fetchone()[0]
            if held_us is not None:
                yield from ended(name, silence, held_us, False)
                silences[key] = _Silence(since_us=held_us)
            elif not entry.get("maybe"):
                silence.count += 1
                silence.example = silence.example or item
    for key, silence in silences.items():
        yield from ended(key[2], silence, FAR_US, True)
    yield from reasons.exceeded()


def _repeats(report: SentReport, balances: Sequence[Balance]) -> list[Difference]:
    """Where nothing is missing, what was sent again is exactly what was counted as duplicates."""
    counted = sum(b.duplicates for b in balances if b.feed in (ORDERBOOK, TRADE))
    if counted == report.repeated or any(b.redis or b.spool for b in balances):
        return []
    why = f"{report.repeated} events were sent again, and {counted} counted as duplicates"
    return [Difference("duplicates", "all feeds", why)]
