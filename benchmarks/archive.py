"""How close is the archive to a bare select -> ParquetWriter, and how much memory does it take? See benchmarks/README.md.

Each measurement is a process of its own, so that its peak memory is its own. The segment is sealed and settled, as the archive
finds it; the subject goes from there to a proved object in the local store and the segment's removal, the floor to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rig.lean  # noqa: F401 - first of all
from rig.venue import FIRST_ID, books, trade

from app.codec import BatchCodec
from app.config import load
from app.launch import redis_server
from app.logs import configure
from app.model import Batch, Event, runs
from app.pipeline import periodic
from app.store.ledger import SEALED
from app.wiring import Wiring

BATCH, ROUND = 500, 20_000
EPOCH = "ab" * 16
STREAM = "binance-0-orderbook.trade"
NEVER = threading.Event()
TABLES = {"orderbook": "orderbooks", "trade": "trades"}


def wired(directory: Path) -> Wiring:
    """The installation in `directory`."""
    return Wiring(load(directory / "settings.toml", {}).settings)


def events(feed: str, rows: int) -> Iterator[list[Event]]:
    """Rounds of events with texts as the benchmarks' venue makes them."""
    made = [(head[4:].decode(), tail.decode()) for head, tail in books("btcusdt", "1")]
    first, between, middle, last = trade("btcusdt")
    opening, a, b, closing = first[4:].decode(), between.decode(), middle.decode(), last.decode()
    found: list[Event] = []
    for n in range(1, rows + 1):
        us, id_ = 1_700_000_000_000_000 + n * 1000, FIRST_ID + n
        if feed == "orderbook":
            head, tail = made[n % len(made)]
            found.append(Event("btcusdt", feed, n, f"depth20@100ms-{id_}", us, None, f"{head}{id_}{tail}"))
        else:
            text = f"{opening}{us // 1000}{a}{id_}{b}{us // 1000}{closing}"
            found.append(Event("btcusdt", feed, n, str(id_), us, us - 5000, text))
        if len(found) == ROUND or n == rows:
            yield found
            found = []


def fill(wiring: Wiring, feed: str, rows: int) -> None:
    """A sealed segment of so many rows, by way of Redis and the flush."""
    codec, number = BatchCodec(), 0
    for found in events(feed, rows):
        for start in range(0, len(found), BATCH):
            part = tuple(found[start : start + BATCH])
            number += 1
            ranges = tuple(runs((e.symbol, e.feed, e.number) for e in part))
            batch = Batch(STREAM, "binance", EPOCH, number, 1, ranges, part)
            wiring.buffer.push(STREAM, codec.encode(batch))
        periodic.flush(wiring, NEVER, deadline_s=None)
    periodic.flush(wiring, NEVER, deadline_s=None, seal=True)


def subject(directory: Path) -> None:
    """The archive, as its task runs it; says rows, seconds and the peak of memory. What is imported once is not measured,
    here and there."""
    import app.pipeline.archive  # noqa: F401, I001 - before Arrow: says which allocator it takes
    import pyarrow.parquet  # noqa: F401

    wiring = wired(directory)
    (entry,) = wiring.ledger.segments(SEALED)
    began_s = time.perf_counter()
    report = periodic.archive(wiring, NEVER, final=True)
    took_s = time.perf_counter() - began_s
    if report.get("failed") or wiring.ledger.segments(SEALED):
        raise SystemExit(f"not archived: {report}")
    print(json.dumps({"rows": entry.rows, "seconds": took_s, "peak_mib": _peak_mib()}))


def floor(directory: Path) -> None:
    """Select, arrays, ParquetWriter with the archive's own options; nothing else."""
    from app.objects.parquet import CHUNK_ROWS, COLUMNS, schema  # noqa: I001 - before Arrow, as above
    import pyarrow as pa
    import pyarrow.parquet as pq

    wiring = wired(directory)
    (entry,) = wiring.ledger.segments(SEALED)
    path = wiring.settings.storage.segments_path / entry.path
    began_s = time.perf_counter()
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as connection:
        for data_type, table in TABLES.items():
            if not connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
                continue
            names = [name for name, *_ in COLUMNS if name != "data_type"]
            cursor = connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY id")
            options: dict[str, Any] = {
                "compression": "zstd", "compression_level": 1, "use_dictionary": ["exchange", "symbol", "data_type", "epoch"],
                "write_statistics": [name for name, *_ in COLUMNS if name != "data"], "data_page_size": 8 << 20,
            }  # fmt: skip
            with pq.ParquetWriter(directory / f"floor-{table}.parquet", schema(), **options) as writer:
                while rows := cursor.fetchmany(CHUNK_ROWS):
                    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
                    columns["data_type"] = (data_type,) * len(rows)
                    arrays = [pa.array(columns[name], schema().field(name).type) for name, *_ in COLUMNS]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema()))
    took_s = time.perf_counter() - began_s
    print(json.dumps({"rows": entry.rows, "seconds": took_s, "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    """Of this process alone: what getrusage tells is inherited from whoever started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024, 1)


def installed(directory: Path, redis_url: str) -> None:
    """Its settings; data as it is there. A prefix of its own: to Redis copies are two hosts with the same data."""
    (directory / "settings.toml").write_text(
        f'[database]\npath = "{directory}/data/collector.db"\n[archive]\ndeadline_secs = 3600\n'
        f'[redis]\nurl = "{redis_url}"\nprefix = "{directory.name}"\ntimeout_secs = 10\n'
        '[[markets]]\nexchange = "binance"\nsymbols = ["btcusdt"]\n'
    )


def measure(feed: str, rows: int, rounds: int) -> dict[str, Any]:
    """Floor and subject of the same segment, in turns, on a copy each time: medians, and the highest peaks."""
    told: dict[str, list[dict[str, float]]] = {"floor": [], "subject": []}
    with tempfile.TemporaryDirectory() as name:
        filled = Path(name, "filled")
        filled.mkdir()
        redis = redis_server.RedisServer(
            redis_server.find(os.environ), Path(name, "redis"), redis_server.free_port(), Path(name, "redis.log")
        )
        try:
            installed(filled, redis.url)
            fill(wired(filled), feed, rows)
            for left in reversed(range(rounds)):
                directory = Path(name, f"round-{left}")
                if left:
                    directory.mkdir()
                    shutil.copytree(filled / "data", directory / "data")
                else:
                    filled.rename(directory)
                installed(directory, redis.url)
                os.sync()  # what was written until now is not to be waited for there
                for part, found in told.items():
                    command = [sys.executable, __file__, "--part", part, str(directory)]
                    found.append(
                        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                    )
                shutil.rmtree(directory)
        finally:
            redis.stop()
    bare, mine = ([rows / one["seconds"] for one in told[part]] for part in ("floor", "subject"))
    peak, floor_peak = (max(one["peak_mib"] for one in told[part]) for part in ("subject", "floor"))
    return {
        "feed": feed, "rows": rows, "rounds": rounds, "floor_rows_per_s": round(statistics.median(bare)),
        "rows_per_s": round(statistics.median(mine)),
        "ratio": round(statistics.median(m / b for b, m in zip(bare, mine, strict=True)), 2),
        "peak_mib": peak, "floor_peak_mib": floor_peak,
    }  # fmt: skip


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--part", choices=["floor", "subject"], help=argparse.SUPPRESS)
    words.add_argument("directory", nargs="?", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    words.add_argument(
        "--rounds", type=int, default=3, help="floor and subject so many times in turns; the median is told"
    )
    words.add_argument("--feeds", nargs="*", default=["orderbook", "trade"])
    given = words.parse_args()
    configure("ERROR")
    if given.part:
        {"floor": floor, "subject": subject}[given.part](given.directory)
        return
    found = [measure(feed, rows, given.rounds) for feed in given.feeds for rows in given.rows]
    print("feed            rows  floor rows/s  archive rows/s  ratio  peak MiB  floor's", file=sys.stderr)
    for one in found:
        print(
            f"{one['feed']:<9} {one['rows']:>10,}  {one['floor_rows_per_s']:>12,}  {one['rows_per_s']:>14,}"
            f"  {one['ratio']:>5}  {one['peak_mib']:>8}  {one['floor_peak_mib']:>7}",
            file=sys.stderr,
        )
    print(json.dumps({"archive": found}))


if __name__ == "__main__":
    main()
