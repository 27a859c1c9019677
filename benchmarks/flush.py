"""How close is the flush to bare SQLite? See benchmarks/README.md."""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from app.model import Batch, Event, runs
from app.store.known import KnownRanges
from app.store.segment import PAGE_SIZE, Segment

EVENTS, CLAIM, BATCH, ROUNDS = 100_000, 5_000, 500, 7
EPOCH = "ab" * 16


def events(feed: str, size: int) -> list[Event]:
    """Events of one market with texts of `size` bytes."""
    text = "x" * size
    return [Event("btcusdt", feed, n, f"depth20@100ms-{10**10 + n}", n, n, text) for n in range(1, EVENTS + 1)]


def batches(found: list[Event]) -> list[Batch]:
    """The events as a stream pushes them."""
    made = []
    for start in range(0, len(found), BATCH):
        part = tuple(found[start : start + BATCH])
        ranges = tuple(runs((e.symbol, e.feed, e.number) for e in part))
        made.append(Batch("binance-0", "binance", EPOCH, start // BATCH + 1, 1, ranges, part))
    return made


def subject(path: Path, pushed: list[Batch]) -> float:
    """Rows a second of the real insert."""
    segment = Segment.create(path, 1, "0" * 32, 1)
    started_s = time.perf_counter()
    with segment.held():
        for start in range(0, len(pushed), CLAIM // BATCH):
            segment.store(pushed[start : start + CLAIM // BATCH], KnownRanges(), None)
    return EVENTS / (time.perf_counter() - started_s)


def floor(path: Path, found: list[Event], table: str) -> float:
    """Rows a second of executemany, nothing else."""
    Segment.create(path, 1, "0" * 32, 1)
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in (f"page_size={PAGE_SIZE}", "synchronous=FULL", "cache_size=-32768", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    rows = [("binance", e.symbol, e.sequence_id, e.received_us, e.exchange_us, e.data, EPOCH) for e in found]
    started_s = time.perf_counter()
    for start in range(0, len(rows), CLAIM):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            f"INSERT INTO {table} (exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data,"
            " epoch) VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows[start : start + CLAIM],
        )
        connection.execute("COMMIT")
    rate = EVENTS / (time.perf_counter() - started_s)
    connection.close()
    return rate


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    results = {}
    for table, feed, size in (("orderbooks", "orderbook", 1400), ("trades", "trade", 180)):
        found = events(feed, size)
        pushed = batches(found)
        pairs = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as directory:
                pairs.append(
                    (floor(Path(directory, "floor.db"), found, table), subject(Path(directory, "s.db"), pushed))
                )
        ratio = statistics.median(mine / bare for bare, mine in pairs)
        bare, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
        results[table] = {"floor_rows_per_s": round(bare), "flush_rows_per_s": round(mine), "ratio": round(ratio, 2)}
        line = f"{table:<11} floor {bare:>8,.0f} rows/s   flush {mine:>8,.0f} rows/s   ratio {ratio:.2f}"
        print(line, file=sys.stderr)
    print(json.dumps({"flush": results}))


if __name__ == "__main__":
    main()
