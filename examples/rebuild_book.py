"""Rebuild one order book from the archive as it stood at a given time, and refuse to cross a hole.

    python examples/rebuild_book.py data/objects okx BTC-USDT
    python examples/rebuild_book.py s3://bucket bybit BTCUSDT --at 2026-11-21T14:05:00 --levels 5

S3 asks boto3's own sources (AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL). Exit code 0 with a book, 1 where
there is none that could be right: the last line says where and why.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from app.books.change import Row
from app.books.judge import BROKEN, Judge
from app.objects import layout, manifest, parquet
from app.objects.bucket import BucketStore
from app.objects.local import LocalStore
from app.objects.manifest import Manifest
from app.objects.store import Store

END_OF_TIME_US = 2**62


def store_of(place: str) -> Store:
    """The store at `s3://bucket` or in a local directory."""
    if place.startswith("s3://"):
        region, endpoint = os.environ.get("AWS_REGION", "us-east-1"), os.environ.get("AWS_ENDPOINT_URL")
        return BucketStore(place.removeprefix("s3://").rstrip("/"), region, endpoint)
    return LocalStore(Path(place))


def needed(store: Store, exchange: str, symbol: str, server: str | None, at_us: int) -> list[Manifest]:
    """Manifests of the objects that are needed, by time: from the opening of the oldest connection still seen at `at_us`.

    A connection begins with a snapshot of the book, so nothing before it is.
    """
    names = [layout.parse_key(key) for key in store.keys(f"{exchange}/{symbol}/orderbook/") if key.endswith(".parquet")]
    servers = {name.server for name in names}
    if server not in servers:
        sys.exit(f"{exchange}/{symbol}: no order books of server {server} here, but of {sorted(map(str, servers))}")
    before = [name for name in names if name.server == server and name.start_ms * 1000 <= at_us]
    found: list[Manifest] = []
    for name in sorted(before, key=lambda name: (name.start_ms, name.suffix), reverse=True):
        with store.open(layout.manifest_key(str(name))) as file:
            found.insert(0, manifest.decode(file.read()))
        if found[-1].epochs and min(e.opened_us or 0 for e in found[-1].epochs) >= found[0].opened_us:
            break
    return found


def rebuilt(store: Store, objects: list[Manifest], at_us: int) -> tuple[Judge, int, str]:
    """The book and its verdicts after the rows received up to `at_us`, the time of the last of these, and why it is none."""
    judge, last_us, why = Judge(objects[0].exchange, objects[0].symbol), 0, ""
    for described in objects:
        for gap in described.gaps:
            judge.missing(gap.epoch, gap.before_us, gap.after_us, f"gap: {gap.cause}")
        for loss in described.losses:
            judge.missing(loss.epoch, loss.start_us, loss.start_us, f"loss: {loss.cause}")
        with store.open(described.key) as file:
            for row in (Row(*values) for chunk in parquet.read(file) for values in chunk):
                if row.timestamp_collector > at_us:
                    continue
                applied, last_us = judge.row(row), max(last_us, row.timestamp_collector)
                if judge.rebuild.book is not None:
                    why = ""
                elif not why:
                    why = f"{clock(row.timestamp_collector)} {applied.detail}"
    return judge, last_us, why


def clock(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds")


def main() -> int:
    """Prints the holes, the verdict on what came before `--at`, and the top of the book; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", help="a local directory, or s3://bucket")
    parser.add_argument("exchange")
    parser.add_argument("symbol")
    parser.add_argument("--at", type=datetime.fromisoformat, help="UTC; the end of the archive if left out")
    parser.add_argument("--levels", type=int, default=10)
    parser.add_argument("--server", help="[aws] home_server_name of the collector whose record is meant")
    asked = parser.parse_args()
    at_us = int(asked.at.replace(tzinfo=asked.at.tzinfo or UTC).timestamp() * 1e6) if asked.at else END_OF_TIME_US

    store = store_of(asked.objects)
    objects = needed(store, asked.exchange, asked.symbol, asked.server, at_us)
    if not objects:
        sys.exit(f"{asked.exchange}/{asked.symbol}: no object begins before {asked.at}")
    judge, last_us, why = rebuilt(store, objects, at_us)
    checks = judge.take(END_OF_TIME_US)
    for check in checks:
        if check.verdict == BROKEN:
            print(f"{check.kind} is broken from {clock(check.start_us)} to {clock(check.end_us)}: {check.detail}")
    book = judge.rebuild.book
    if book is None:
        print(f"{asked.exchange}/{asked.symbol}: no book, since {why or 'nothing was received by then'}")
        return 1
    last = [check for check in checks if check.kind == "continuity"][-1]
    words = f"continuity is {last.verdict}" + (f": {last.detail}" if last.detail else "")
    print(f"{asked.exchange}/{asked.symbol} after {clock(last_us)}; {words}")
    for name, side in (("ask", book.asks), ("bid", book.bids)):
        levels = side.top(asked.levels)
        for price, size in reversed(levels) if name == "ask" else levels:
            print(f"{name} {price:>16f} {size:>20f}")
    return 1 if book.crossed() else 0


if __name__ == "__main__":
    sys.exit(main())
