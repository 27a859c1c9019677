"""What do more markets and more stream processes cost? See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ingest import settle, sustained
from rig.stack import Cpu, Stack, rss_mib

#: Markets -> connections they are spread over.
MARKETS = {5: 5, 50: 5, 500: 10}


def resting(markets: int, connections: int, seconds: float) -> dict[str, Any]:
    """Cores and memory of the stream worker while nothing but one frame a second comes."""
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), connections=connections, markets=markets // connections)
        try:
            stack.wait_open()
            stack.load.rate(1)
            time.sleep(5)
            cpu = Cpu(stack.pids())
            time.sleep(seconds)
            return {
                "markets": markets,
                "cores": cpu.cores()["stream"],
                "mib": round(rss_mib(stack.pids()["stream"]), 1),
            }
        finally:
            stack.close()


def processes(count: int, rates: list[float], seconds: float) -> dict[str, Any]:
    """The largest of `rates` that so many stream processes keep, 20 connections in all."""
    best: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), connections=20, stream_processes=count)
        try:
            stack.wait_open()
            time.sleep(10)  # the workers share the streams
            for rate in rates:
                tried = sustained(stack, rate, seconds)
                if not tried["kept"]:
                    break
                best = tried
            settle(stack)
        finally:
            stack.close()
    return {"stream_processes": count, "frames_per_s": best.get("sent_per_s", 0), "cores": best.get("cores", {})}


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--secs", type=float, default=6)
    words.add_argument("--rates", type=float, nargs="*", default=[30_000, 45_000])
    given = words.parse_args()
    rest = [resting(markets, connections, given.secs) for markets, connections in MARKETS.items()]
    print("markets at rest  stream cores  stream MiB", file=sys.stderr)
    for one in rest:
        print(f"{one['markets']:>15}  {one['cores']:>12}  {one['mib']:>10}", file=sys.stderr)
    more = [processes(count, given.rates, given.secs) for count in (1, 2)]
    print("stream processes  frames/s", file=sys.stderr)
    for one in more:
        print(f"{one['stream_processes']:>16}  {one['frames_per_s']:>8,}", file=sys.stderr)
    print(json.dumps({"scale": {"rest": rest, "processes": more}}))


if __name__ == "__main__":
    main()
