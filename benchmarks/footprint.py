"""What do the processes take at rest and at work, and how fast do they start? See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rig.stack import Cpu, Stack, rss_mib

EVERY = ("web", "stream", "worker", "archive", "beat", "flower", "exporter")


def imports(times: int) -> dict[str, float]:
    """Seconds to import the application, and Python alone, in fresh processes."""

    def took_s(code: str) -> float:
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began_s

    bare = statistics.median(took_s("pass") for _ in range(times))
    return {
        "app_s": round(statistics.median(took_s("import app") for _ in range(times)) - bare, 3),
        "celery_app_s": round(statistics.median(took_s("import app.celery") for _ in range(times)) - bare, 3),
        "cli_s": round(statistics.median(took_s("import app.cli") for _ in range(times)) - bare, 3),
    }


def measure(seconds: float, rate: float) -> dict[str, Any]:
    """Every process type: start, rest, work."""
    with tempfile.TemporaryDirectory() as directory:
        began_s = time.monotonic()
        stack = Stack(Path(directory), connections=5, markets=2, only=EVERY)
        try:
            stack.load.rate(100)
            stack.wait_open()
            open_s = time.monotonic() - began_s
            while not stack.stored():
                time.sleep(0.1)
            stored_s = time.monotonic() - began_s
            found: dict[str, Any] = {"first_connection_s": round(open_s, 1), "first_row_s": round(stored_s, 1)}
            for name, wanted in (("rest", 0.0), ("work", rate)):
                stack.load.rate(wanted)
                time.sleep(10)
                cpu = Cpu(stack.pids())
                time.sleep(seconds)
                cores = cpu.cores()
                found[name] = {
                    process: {"cores": cores[process], "mib": round(rss_mib(pid), 1)}
                    for process, pid in stack.pids().items()
                    if process != "venue"
                }
        finally:
            stack.close()
    return found


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--secs", type=float, default=10)
    words.add_argument("--rate", type=float, default=1_000)
    given = words.parse_args()
    found = {"imports": imports(5), **measure(given.secs, given.rate), "rate": given.rate}
    print(f"process    at rest: MiB, cores    at {given.rate:,.0f} events/s: MiB, cores", file=sys.stderr)
    for process, rest in found["rest"].items():
        work = found["work"][process]
        print(
            f"{process:<10} {rest['mib']:>12} {rest['cores']:>6} {work['mib']:>26} {work['cores']:>6}", file=sys.stderr
        )
    for name in ("rest", "work"):
        ours = [told for process, told in found[name].items() if process != "redis"]
        total = round(sum(told["mib"] for told in ours), 1), round(sum(told["cores"] for told in ours), 3)
        found[f"{name}_total_mib"], found[f"{name}_total_cores"] = total
        print(f"all ours at {name}: {total[0]} MiB, {total[1]} cores", file=sys.stderr)
    print(f"imports: {found['imports']}", file=sys.stderr)
    first = f"first connection {found['first_connection_s']} s, first row {found['first_row_s']} s after the start"
    print(first, file=sys.stderr)
    print(json.dumps({"footprint": found}))


if __name__ == "__main__":
    main()
