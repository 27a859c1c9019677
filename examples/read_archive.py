"""Read a local archive with pyarrow alone: check every object against its manifest, then print the last trades.

python examples/read_archive.py data/demo-20261121-100612/objects binance btcusdt
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.dataset


def main(root: Path, exchange: str, symbol: str) -> int:
    """Prints what is wrong and the newest five trades; returns 1 when an object is not what its manifest says."""
    faults = 0
    objects = sorted((root / exchange / symbol).rglob("*.parquet"))
    for path in objects:
        manifest = json.loads(path.with_name(f"_{path.stem}.json").read_text())
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["sha256"]:
            faults += 1
            print(f"{path}: not the bytes that its manifest describes")
    print(f"{len(objects)} objects, {faults} faults")

    trades = pyarrow.dataset.dataset(root / exchange / symbol / "trade", format="parquet")
    table = trades.to_table(columns=["exchange_sequence_id", "timestamp_collector", "data"])
    for row in table.sort_by("timestamp_collector").slice(max(0, table.num_rows - 5)).to_pylist():
        received = datetime.fromtimestamp(row["timestamp_collector"] / 1e6, UTC)
        print(received.isoformat(), row["exchange_sequence_id"], row["data"])
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
