"""Every benchmark, one after the other, `--runs` times; all figures in benchmarks/results.json, and a table of medians.

`soak` takes half an hour and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from table import lines

HERE = Path(__file__).resolve().parent
ORDER = ("flush", "buffer", "archive", "beside", "footprint", "latency", "scale", "ingest")


def once() -> tuple[dict[str, Any], int]:
    """The figures of all, and how many of them failed. Each prints its table as it ends."""
    found: dict[str, Any] = {}
    failed = 0
    for name in ORDER:
        print(f"\n{name}", file=sys.stderr, flush=True)
        began_s = time.monotonic()
        with subprocess.Popen([sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True) as process:
            try:
                told, _ = process.communicate()
            finally:
                process.terminate()  # where this one is told to end; it ends what it started
        if process.returncode:
            failed += 1
            continue
        found |= json.loads(told.splitlines()[-1])
        print(f"({time.monotonic() - began_s:.0f} s)", file=sys.stderr)
    return found, failed


def main() -> int:
    """The number of benchmarks that failed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--runs", type=int, default=1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs, failed = [], 0
    for _ in range(words.parse_args().runs):
        found, wrong = once()
        runs.append(found)
        failed += wrong
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
        (HERE / "results.json").write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")
    print("\n" + "\n".join(lines(runs)), file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
