"""Reads what a segment or the ledger says, as of one moment: in one transaction, which keeps no writer waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.store.engine import readonly
from app.store.ledger import OPEN, SEALED, SEALING, Ledger
from app.store.schema import ROWS

Row = dict[str, Any]
#: exchange, symbol, feed
Market = tuple[str, str, str]
#: Connections whose end is not on record; what was found out or fetched later has none.
_ENDLESS = "ended_us IS NULL AND kind = 'stream'"


@dataclass
class Told:
    """Rows of the record tables as the file's version has them, and what was counted now."""

    epochs: list[Row] = field(default_factory=list)
    #: Later epochs of the streams of those that were asked for: who came after them. Nothing else is read of these.
    neighbours: list[Row] = field(default_factory=list)
    ranges: list[Row] = field(default_factory=list)
    losses: list[Row] = field(default_factory=list)
    replays: list[Row] = field(default_factory=list)
    #: Rows of `orderbooks` and `trades`, where they were to be counted.
    rows: dict[Market, int] = field(default_factory=dict)
    #: Rows in quarantine.
    quarantined: dict[Market, int] = field(default_factory=dict)
    #: Segments by number, in their state; of the ledger only.
    states: dict[int, str] = field(default_factory=dict)


def read_segment(path: Path, *, settled: bool, count: bool) -> Told:
    """A segment in any state; empty where it is still being made. Raises: SQLAlchemy's errors where it cannot be read."""
    with readonly(path, immutable=settled).connect() as connection:
        connection.exec_driver_sql("BEGIN")
        if not connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'replays'").first():
            return Told()
        told = _records(connection, None, count=count)
        if count:
            for data_type, table in ROWS.items():
                counted = connection.exec_driver_sql(
                    f"SELECT exchange, symbol, count(*) FROM {table.name} GROUP BY exchange, symbol"
                )
                told.rows |= {(exchange, symbol, data_type): rows for exchange, symbol, rows in counted}
        return told


def read_ledger(path: Path, *, epochs: Iterable[str] | None = None, count: bool = False) -> Told:
    """What the ledger keeps of removed segments; of `epochs` and of those without an end where they are given."""
    with readonly(path).connect() as connection:
        connection.exec_driver_sql("BEGIN")
        chosen = None
        if epochs is not None:
            endless = connection.exec_driver_sql(f"SELECT epoch FROM epochs WHERE {_ENDLESS}")
            chosen = sorted({*epochs, *(epoch for (epoch,) in endless)})
        told = _records(connection, chosen, count=count)
        if chosen is not None:
            # Who came after them, and nobody who was there before: the ledger may know years of connections.
            query = (
                "SELECT e.* FROM (SELECT stream, min(opened_us) AS since_us FROM epochs"
                " WHERE epoch IN (SELECT value FROM json_each(?)) GROUP BY stream) AS c CROSS JOIN epochs AS e"
                " WHERE e.stream = c.stream AND e.opened_us > c.since_us"
            )
            named = (msgspec.json.encode(chosen).decode(),)
            others = [dict(row._mapping) for row in connection.exec_driver_sql(query, named)]
            told.neighbours = [{**row, "last_numbers": None} for row in others if row["epoch"] not in set(chosen)]
        told.states = {
            number: state for number, state in connection.exec_driver_sql("SELECT number, state FROM segments")
        }
        return told


def epochs_of_rows(path: Path, *, settled: bool) -> dict[tuple[str, str, str, str], int]:
    """(exchange, symbol, feed, epoch) -> rows of a segment, every row looked at."""
    found = {}
    with readonly(path, immutable=settled).connect() as connection:
        for data_type, table in ROWS.items():
            query = f"SELECT exchange, symbol, epoch, count(*) FROM {table.name} GROUP BY exchange, symbol, epoch"
            for exchange, symbol, epoch, rows in connection.exec_driver_sql(query):
                found[exchange, symbol, data_type, epoch] = rows
    return found


def gaps_and_quarantined(
    paths: Sequence[tuple[Path, bool]],
) -> list[tuple[str, str, str, int, int, int | None, str]]:
    """(exchange, symbol, feed, from, to, how many, name) of every gap and quarantined frame in segments (path, settled)
    and the ledger; times are microseconds since the Unix epoch, how many None where nobody knows."""
    found: list[tuple[str, str, str, int, int, int | None, str]] = []
    name = "epoch || ' ' || symbol || ' ' || feed || ' ' || number"
    for path, settled in paths:
        with readonly(path, immutable=settled).connect() as connection:
            for query in (
                f"SELECT exchange, symbol, feed, before_us, after_us, size, {name} || ' gap' FROM gaps",
                f"SELECT exchange, symbol, feed, received_us, received_us, NULL, {name} || ' quarantined' FROM quarantine",
            ):
                for e, s, f, start_us, end_us, size, named in connection.exec_driver_sql(query):
                    found.append((e, s, f, start_us, end_us, size, named))
    return found


def _records(connection: Connection, epochs: list[str] | None, *, count: bool) -> Told:
    def rows(table: str) -> list[Row]:
        query, parameters = f"SELECT * FROM {table}", None
        if epochs is not None:
            query += " WHERE epoch IN (SELECT value FROM json_each(?))"
            parameters = (msgspec.json.encode(epochs).decode(),)
        found = connection.exec_driver_sql(query, parameters)
        return [dict(row._mapping) for row in found]

    told = Told(rows("epochs"), [], rows("ranges"), rows("losses"), rows("replays"))
    if count:
        counted = connection.exec_driver_sql(
            "SELECT exchange, symbol, feed, count(*) FROM quarantine GROUP BY exchange, symbol, feed"
        )
        told.quarantined = {(exchange, symbol, feed): n for exchange, symbol, feed, n in counted}
    return told


def newest_received_us(ledger: Ledger, root: Path) -> dict[str, int]:
    """exchange -> when the newest event was received that the last three segments hold. Raises: DBAPIError."""
    found: dict[str, int] = {}
    for entry in ledger.segments(OPEN, SEALING, SEALED)[-3:]:
        try:
            newest = _newest_received_us(root / entry.path, settled=entry.state == SEALED)
        except DBAPIError:
            if entry in ledger.segments(entry.state):
                raise
            continue  # sealed or removed while it was looked at
        for exchange, us in newest.items():
            found[exchange] = max(us, found.get(exchange, 0))
    return found


def _newest_received_us(path: Path, *, settled: bool) -> dict[str, int]:
    """Of one segment; empty where it is still being made or gone."""
    if not path.exists():
        return {}
    with readonly(path, immutable=settled).connect() as connection:
        if not connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'replays'").first():
            return {}
        found = connection.exec_driver_sql("SELECT exchange, max(last_us) FROM ranges GROUP BY exchange")
        return {exchange: us for exchange, us in found if us is not None}
