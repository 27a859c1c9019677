"""Do memory and lag stay flat? Half an hour at a steady rate, every process that moves data. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from rig.stack import Cpu, Stack, rss_mib


def main() -> None:
    """A line a minute for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=30)
    words.add_argument("--rate", type=float, default=3_000)
    given = words.parse_args()
    minutes = []
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(
            Path(directory), connections=20, only=("stream", "worker", "archive", "beat"),
            settings={"storage": {"segment_secs": 60}, "collector": {"archive_interval_secs": 60}},
        )  # fmt: skip
        try:
            stack.wait_open()
            stack.load.rate(given.rate)
            began_s, cpu = time.monotonic(), Cpu(stack.pids())
            while (passed_s := time.monotonic() - began_s) < given.minutes * 60:
                time.sleep(min(60.0, given.minutes * 60 - passed_s))
                told = {
                    "minute": round((time.monotonic() - began_s) / 60, 1), "in_redis": stack.in_redis(),
                    "queued": stack.queued(), "refused": stack.refused(), "owed": stack.load.last["owed"],
                    "cores": cpu.cores(), "mib": {name: round(rss_mib(pid), 1) for name, pid in stack.pids().items()},
                }  # fmt: skip
                minutes.append(told)
                print(json.dumps(told), file=sys.stderr)
        finally:
            stack.close()
    print(json.dumps({"soak": {"rate": given.rate, "minutes": minutes}}))


if __name__ == "__main__":
    main()
