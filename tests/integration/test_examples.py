"""The examples do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.codec import BatchCodec
from app.launch.environment import clean
from app.model import Batch, Event, runs
from app.pipeline import periodic
from tests.support.batches import batch, event
from tests.support.books import okx, okx_snapshot
from tests.support.path import NEVER, flush_at
from tests.support.rig import CHECKOUT, Rig
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto


def test_read_archive_checks_every_object_and_prints_the_last_trades(rig: Rig) -> None:
    wiring = rig.wiring()
    events = tuple(
        Event("btcusdt", "trade", n, str(n), 1_790_000_000_000_000 + n, None, f'{{"t":{n}}}') for n in (1, 2)
    )
    ranges = tuple(runs((e.symbol, e.feed, e.number) for e in events))
    wiring.buffer.push("s", BatchCodec().encode(Batch("s", "binance", "ab" * 16, 1, 1, ranges, events)))
    periodic.flush(wiring, threading.Event(), seal=True)
    periodic.archive(wiring, threading.Event(), final=True)

    objects = rig.settings.storage.local_path
    command = [sys.executable, str(CHECKOUT / "examples" / "read_archive.py"), str(objects), "binance", "btcusdt"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [
        "1 objects, 0 faults",
        '2026-09-21T14:13:20.000001+00:00 1 {"t":1}',
        '2026-09-21T14:13:20.000002+00:00 2 {"t":2}',
    ]

    (path,) = objects.rglob("*.parquet")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"?")
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1


#: 2026-09-21T14:13:20Z; one row a second from then on.
START_US = 1_790_000_000_000_000
BEST = ([("100", "1.50"), ("99", "2")], [("101", "1"), ("102", "7")])


def seconds(count: int) -> str:
    return f"2026-09-21T14:13:{20 + count:02d}"


@pytest.fixture
def holed(rig: Rig) -> Path:
    """Objects of two segments: a snapshot and changes, a hole at 14:13:23, a new connection with a snapshot at 14:13:25."""
    rig.write({"okx": ["BTC-USDT"]}, storage={"segment_secs": 5})
    wiring = rig.wiring()
    frames = [
        okx_snapshot(1, *BEST), okx(1, 2, [("100", "0")]), okx(2, 3, [("98", "4")]), okx(5, 6), okx(6, 7),
        okx_snapshot(9, *BEST), okx(9, 10, [("100", "0.25")]),
    ]  # fmt: skip
    for first, last in ((0, 5), (5, 7)):
        opened_us = START_US + first * 1_000_000
        events = [
            event(
                n + 1,
                f"{first}-{n}",
                symbol="BTC-USDT",
                feed="orderbook",
                data=text,
                received_us=opened_us + n * 1_000_000,
            )
            for n, text in enumerate(frames[first:last])
        ]
        made = replace(batch(1, events, epoch=f"{first}a" * 16, stream="okx-0-orderbook"), opened_us=opened_us)
        flush_at(wiring, opened_us)
        wiring.buffer.push("okx-0-orderbook", BatchCodec().encode(made))
        flush_at(wiring, opened_us)
    periodic.flush(wiring, NEVER, seal=True)
    periodic.archive(wiring, NEVER, final=True)
    return rig.settings.storage.local_path


def rebuild_book(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "examples" / "rebuild_book.py"), *arguments]
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**clean(os.environ), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_rebuild_book_shows_the_book_at_a_time(holed: Path) -> None:
    answer = rebuild_book(str(holed), "okx", "BTC-USDT", "--at", f"{seconds(2)}.5", "--levels", "2")
    assert (answer.returncode, answer.stderr) == (0, "")
    head, *levels = answer.stdout.splitlines()
    assert head == f"okx/BTC-USDT after {seconds(2)}.000000+00:00; continuity is proved"
    assert [line.split() for line in levels] == [
        ["ask", "102", "7"], ["ask", "101", "1"], ["bid", "99", "2"], ["bid", "98", "4"],
    ]  # fmt: skip


def test_rebuild_book_refuses_to_cross_a_hole_and_says_where_it_is(holed: Path) -> None:
    answer = rebuild_book(str(holed), "okx", "BTC-USDT", "--at", f"{seconds(4)}+00:00")
    hole = "okx/BTC-USDT: nothing between 3 and 5 was stored"
    assert (answer.returncode, answer.stderr) == (1, "")
    assert answer.stdout.splitlines() == [
        f"continuity is broken from {seconds(2)}.000000+00:00 to {seconds(3)}.000000+00:00: {hole}",
        f"okx/BTC-USDT: no book, since {seconds(3)}.000000+00:00 {hole}",
    ]


@pytest.mark.exhaustive
def test_rebuild_book_reads_an_s3_bucket_and_no_more_objects_than_it_needs(holed: Path) -> None:
    with moto() as server:
        client = server.client()
        client.create_bucket(Bucket="archive")
        for path in sorted(holed.rglob("*.parquet")) + sorted(holed.rglob("_*.json")):
            client.upload_file(str(path), "archive", str(path.relative_to(holed)))
        first = min(path.relative_to(holed) for path in holed.rglob("*.parquet"))
        client.put_object(Bucket="archive", Key=str(first), Body=b"not needed")
        environ = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        answer = rebuild_book("s3://archive", "okx", "BTC-USDT", "--levels", "1", **environ)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line.split() for line in answer.stdout.splitlines()[1:]] == [["ask", "101", "1"], ["bid", "100", "0.25"]]


def test_rebuild_book_says_what_is_not_there(holed: Path) -> None:
    early = rebuild_book(str(holed), "okx", "BTC-USDT", "--at", "2026-09-21T00:00:00")
    assert (early.returncode, early.stdout) == (1, "")
    assert early.stderr == "okx/BTC-USDT: no object begins before 2026-09-21 00:00:00\n"
    other = rebuild_book(str(holed), "okx", "BTC-USDT", "--server", "tokyo")
    assert other.stderr == "okx/BTC-USDT: no order books of server tokyo here, but of ['None']\n"
