"""Every benchmark, one after the other; their results in benchmarks/results.json. `soak` takes half an hour and is left out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ORDER = ("flush", "buffer", "archive", "footprint", "latency", "scale", "ingest")


def main() -> int:
    """The number of benchmarks that failed. Each prints its table as it ends."""
    found: dict[str, object] = {}
    failed = 0
    for name in ORDER:
        print(f"\n{name}", file=sys.stderr, flush=True)
        began_s = time.monotonic()
        run = subprocess.run([sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True)
        if run.returncode:
            failed += 1
            continue
        found |= json.loads(run.stdout.splitlines()[-1])
        print(f"({time.monotonic() - began_s:.0f} s)", file=sys.stderr)
    found["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
