"""How long until an event is in Redis, and until it is in a segment? See benchmarks/README.md.

Both ends are read from outside: a subscriber of the lists' taps sees each batch when Redis has it, and a reader of the open
segment sees rows when they are committed; what they see bears the time at which it was received.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rig.stack import Cpu, Stack

from app.codec import BatchCodec
from app.store.ledger import OPEN


def quantiles(us: list[int]) -> dict[str, float]:
    """p50, p99 and p99.9 in milliseconds."""
    found = sorted(us)
    return {
        name: round(found[min(len(found) - 1, int(len(found) * part))] / 1000, 1)
        for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))
    }


class Seen:
    """Ages of events when they were seen, microseconds."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._over = threading.Event()
        self.in_redis: list[int] = []
        self.in_segment: list[int] = []
        self._threads = [threading.Thread(target=run) for run in (self._tap, self._segment)]
        for thread in self._threads:
            thread.start()

    def _tap(self) -> None:
        prefix, codec = self._stack.wiring.settings.redis.prefix, BatchCodec()
        pubsub = self._stack.wiring.redis.pubsub(ignore_subscribe_messages=True)
        pubsub.psubscribe(f"{prefix}:tap:*")
        while not self._over.is_set():
            message = pubsub.get_message(timeout=0.2)
            if message is not None:
                now_us = time.time_ns() // 1000
                self.in_redis += [now_us - event.received_us for event in codec.decode(message["data"]).events]
        pubsub.close()

    def _segment(self) -> None:
        last: dict[tuple[int, str], int] = {}
        while not self._over.wait(0.02):
            for entry in self._stack.wiring.ledger.segments(OPEN):
                path = self._stack.wiring.settings.storage.segments_path / entry.path
                connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
                now_us = time.time_ns() // 1000
                for table in ("orderbooks", "trades"):
                    key = entry.number, table
                    try:
                        rows = connection.execute(
                            f"SELECT id, timestamp_collector FROM {table} WHERE id > ?", (last.get(key, 0),)
                        ).fetchall()
                    except sqlite3.OperationalError:  # it is being made
                        continue
                    if rows:
                        self.in_segment += [now_us - us for _, us in rows] if key in last else []
                        last[key] = max(id_ for id_, _ in rows)
                    last.setdefault(key, 0)
                connection.close()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def measure(rates: list[float], connections: int, seconds: float) -> list[dict[str, Any]]:
    """Both latencies at each rate."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), connections=connections)
        try:
            stack.wait_open()
            for rate in rates:
                stack.load.rate(rate)
                time.sleep(5)
                cpu, sent, began_s = Cpu(stack.pids()), stack.load.last["sent"], time.monotonic()
                seen = Seen(stack)
                time.sleep(seconds)
                seen.close()
                sent_per_s = (stack.load.last["sent"] - sent) / (time.monotonic() - began_s)
                found.append({
                    "rate": rate, "sent_per_s": round(sent_per_s), "cores": cpu.cores(), "redis": quantiles(seen.in_redis),
                    "segment": quantiles(seen.in_segment), "events": len(seen.in_redis),
                })  # fmt: skip
        finally:
            stack.close()
    return found


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rates", type=float, nargs="*", default=[1_000, 5_000, 10_000])
    words.add_argument("--connections", type=int, default=20)
    words.add_argument("--secs", type=float, default=10)
    given = words.parse_args()
    found = measure(given.rates, given.connections, given.secs)
    print("    rate  socket -> Redis p50 / p99 / p99.9 ms  socket -> segment p50 / p99 / p99.9 ms", file=sys.stderr)
    for one in found:
        redis, segment = (" / ".join(str(value) for value in one[name].values()) for name in ("redis", "segment"))
        print(f"{one['rate']:>8,.0f}  {redis:>37}  {segment:>37}", file=sys.stderr)
    print(json.dumps({"latency": found}))


if __name__ == "__main__":
    main()
