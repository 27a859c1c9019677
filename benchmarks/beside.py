"""What does the archive cost the flush: while it runs, at the seal and at the removal? See benchmarks/README.md.

The same load twice: into one segment, and into segments that are sealed, archived and removed all the time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from latency import Seen, quantiles
from rig.stack import Stack

from app.store.ledger import REMOVED


def measure(rate: float, seconds: float, segment_secs: int, only: tuple[str, ...]) -> dict[str, Any]:
    """How long events take into a segment, and how many segments were removed meanwhile."""
    settings: dict[str, dict[str, object]] = {
        "collector": {"batch_interval_secs": 0.5, "archive_interval_secs": 60},
        "storage": {"segment_secs": segment_secs},
    }
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), connections=20, only=only, settings=settings)
        try:
            stack.wait_open()
            stack.load.rate(rate)
            time.sleep(5)
            before, seen = len(stack.wiring.ledger.segments(REMOVED)), Seen(stack)
            time.sleep(seconds)
            seen.close()
            removed = len(stack.wiring.ledger.segments(REMOVED)) - before
            return {**quantiles(seen.in_segment), "events": len(seen.in_segment), "removed": removed}
        finally:
            stack.close()


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rate", type=float, default=5_000)
    words.add_argument("--secs", type=float, default=25)
    words.add_argument("--segment-secs", type=int, default=10)
    given = words.parse_args()
    quiet = measure(given.rate, given.secs, 3600, ("stream", "worker", "beat"))
    beside = measure(given.rate, given.secs, given.segment_secs, ("stream", "worker", "archive", "beat"))
    ratio = round(beside["p99_ms"] / quiet["p99_ms"], 2)
    print("socket -> segment      p50 / p99 / p99.9 ms", file=sys.stderr)
    for name, one in (("no archive", quiet), ("beside the archive", beside)):
        print(f"{name:<20} {one['p50_ms']} / {one['p99_ms']} / {one['p999_ms']}", file=sys.stderr)
    print(f"ratio of p99 {ratio}; {beside['removed']} segments were archived and removed", file=sys.stderr)
    print(json.dumps({"beside": {"quiet": quiet, "beside": beside, "ratio": ratio, "rate": given.rate}}))


if __name__ == "__main__":
    main()
