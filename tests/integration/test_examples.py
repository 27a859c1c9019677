"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
import threading

from app.codec import BatchCodec
from app.model import Batch, Event, runs
from app.pipeline import periodic
from tests.support.rig import CHECKOUT, Rig


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
