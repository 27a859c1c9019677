"""Tables. `orderbooks` and `trades` are the customer's, plus `epoch`; the others make a segment true by itself."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

from app.model import ORDERBOOK, TRADE

#: Written into every file. A file of an older version is migrated when it is written to (app/store/migrate.py), and read
#: as it is where it is sealed; a newer one is refused with the command to run.
SCHEMA_VERSION = 3

segment = MetaData()
ledger = MetaData()


def _rows(name: str) -> Table:
    return Table(
        name,
        segment,
        Column("id", Integer, primary_key=True),
        Column("exchange", Text, nullable=False),
        Column("symbol", Text, nullable=False),
        Column("exchange_sequence_id", Text, nullable=False),
        Column("timestamp_collector", BigInteger, nullable=False),
        Column("timestamp_exchange", BigInteger),
        Column("data", Text, nullable=False),
        Column("epoch", Text, nullable=False),
        UniqueConstraint("exchange", "symbol", "exchange_sequence_id"),
        sqlite_autoincrement=True,
    )


orderbooks = _rows("orderbooks")
trades = _rows("trades")

#: The table of each data type.
ROWS = {ORDERBOOK: orderbooks, TRADE: trades}


def _records(metadata: MetaData) -> dict[str, Table]:
    """The tables that a segment has and the ledger keeps after the segment is gone."""

    def numbered(name: str, *columns: Column[object], key: str) -> Table:
        return Table(
            name,
            metadata,
            Column("epoch", Text, primary_key=True),
            Column("exchange", Text, nullable=False),
            Column("symbol", Text, primary_key=True),
            Column("feed", Text, primary_key=True),
            Column(key, BigInteger, primary_key=True),
            *columns,
            sqlite_with_rowid=False,
        )

    epochs = Table(
        "epochs",
        metadata,
        Column("epoch", Text, primary_key=True),
        Column("stream", Text, nullable=False),
        Column("exchange", Text, nullable=False),
        Column("opened_us", BigInteger, nullable=False),
        Column("ended_us", BigInteger),
        Column("reason", Text),
        # JSON: [[symbol, feed, last number], ...], known at the end
        Column("last_numbers", Text),
        # stream, rest or finding
        Column("kind", Text, nullable=False, server_default="stream"),
        # JSON: [epoch, ...] that were going on when this one began
        Column("overlaps", Text, nullable=False, server_default="[]"),
        # the epoch before, of the same stream and process
        Column("after", Text, nullable=False, server_default=""),
        sqlite_with_rowid=False,
    )
    ranges = numbered(
        "ranges",
        Column("last", BigInteger, nullable=False),
        Column("stored", BigInteger, nullable=False),
        Column("duplicates", BigInteger, nullable=False),
        Column("conflicts", BigInteger, nullable=False),
        Column("quarantined", BigInteger, nullable=False),
        # identity and receive time of the events that bear its first and last number; null where these are no events
        Column("first_id", Text),
        Column("last_id", Text),
        Column("first_us", BigInteger),
        Column("last_us", BigInteger),
        key="first",
    )
    losses = numbered(
        "losses",
        Column("last", BigInteger, nullable=False),
        Column("count", BigInteger),
        Column("start_us", BigInteger, nullable=False),
        Column("end_us", BigInteger, nullable=False),
        Column("cause", Text, nullable=False),
        key="first",
    )
    gaps = numbered(
        "gaps",
        Column("from_id", Text, nullable=False),
        Column("to_id", Text, nullable=False),
        Column("size", BigInteger),
        Column("before_us", BigInteger, nullable=False),
        Column("after_us", BigInteger, nullable=False),
        Column("cause", Text, nullable=False),
        key="number",
    )
    quarantine = numbered(
        "quarantine",
        Column("received_us", BigInteger, nullable=False),
        Column("reason", Text, nullable=False),
        Column("frame", LargeBinary, nullable=False),
        key="number",
    )
    # epoch, symbol, feed and number are those of the gap
    repairs = numbered(
        "repairs",
        Column("found_us", BigInteger, primary_key=True),
        Column("state", Text, nullable=False),
        Column("found", BigInteger, nullable=False),
        Column("detail", Text, nullable=False),
        # the epoch of kind rest that brought what was found
        Column("by_epoch", Text, nullable=False),
        key="number",
    )
    checks = Table(
        "checks",
        metadata,
        Column("exchange", Text, primary_key=True),
        Column("symbol", Text, primary_key=True),
        Column("feed", Text, primary_key=True),
        Column("kind", Text, primary_key=True),
        Column("start_us", BigInteger, primary_key=True),
        Column("checked_us", BigInteger, primary_key=True),
        Column("end_us", BigInteger, nullable=False),
        Column("verdict", Text, nullable=False),
        Column("detail", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    replays = Table(
        "replays",
        metadata,
        Column("epoch", Text, primary_key=True),
        Column("symbol", Text, primary_key=True),
        Column("feed", Text, primary_key=True),
        Column("first", BigInteger, primary_key=True),
        Column("last", BigInteger, nullable=False),
        Column("times", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text), sqlite_with_rowid=False)
    # What is missing lately is found by its time.
    Index("gaps_by_time", gaps.c.after_us)
    Index("losses_by_time", losses.c.end_us)
    Index("repairs_by_time", repairs.c.found_us)
    return {t.name: t for t in (epochs, ranges, losses, gaps, quarantine, repairs, checks, replays)}


SEGMENT_RECORDS = _records(segment)
LEDGER_RECORDS = _records(ledger)

segments = Table(
    "segments",
    ledger,
    Column("number", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("opened_us", BigInteger, nullable=False),
    Column("sealed_us", BigInteger),
    # open -> sealing -> sealed -> removing -> removed
    Column("state", Text, nullable=False),
    Column("rows", BigInteger),
    sqlite_autoincrement=True,
)

objects = Table(
    "objects",
    ledger,
    Column("segment", Integer, primary_key=True),
    Column("exchange", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("data_type", Text, primary_key=True),
    Column("store", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    # written -> verified; the object itself is never removed
    Column("state", Text, nullable=False),
    Column("proved_by", Text),
    Column("manifest_key", Text),
    sqlite_with_rowid=False,
)

#: Another object was found under a key we wanted: kept for people to look at.
conflicts = Table(
    "conflicts",
    ledger,
    Column("store", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("segment", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_with_rowid=False,
)

#: The ledger grows for as long as Collector runs, and is asked every few seconds for what is new: found without reading
#: what is old. Made where they are not there yet; no part of the format.
LEDGER_INDEXES = (
    "CREATE INDEX IF NOT EXISTS checks_by_end ON checks (kind, end_us)",
    "CREATE INDEX IF NOT EXISTS epochs_by_begin ON epochs (opened_us)",
    "CREATE INDEX IF NOT EXISTS epochs_of_stream ON epochs (stream, opened_us)",
    "CREATE INDEX IF NOT EXISTS objects_by_state ON objects (store, state, size_bytes)",
    "CREATE INDEX IF NOT EXISTS epochs_without_end ON epochs (epoch) WHERE ended_us IS NULL",
)
