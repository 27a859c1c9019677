"""What a version of Collector leaves behind on disk and in Redis, as a fixture for the versions after it.

    python -m tests.support.old_version tests/fixtures/version-0.1 --commit 2515c56

checks the commit out into a temporary directory, lets *that version's own* commands record its built-in exchanges for a
few seconds (one market each, with a few faults, so that there are gaps, duplicates and quarantined frames), and stops it
in the middle of everything: one segment archived and removed, one sealed and not yet archived, one open with rows, batches
waiting in Redis lists and in spools. Only commands of the 0.1 command line are used. The result is read by
tests/integration/test_upgrade.py.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.launch.environment import clean
from tests.support import redis_process

CHECKOUT = Path(__file__).resolve().parents[2]
PREFIX = "old"
SETTINGS = f"""\
# As the old version was run; paths are relative to the directory it was started in, URLs came from the environment.
[collector]
feeds = ["orderbook", "trades"]

[database]
path = "data/collector.db"

[storage]
mode = "local"
local_path = "data/objects"

[redis]
prefix = "{PREFIX}"

[buffer]
batch_interval_ms = 300
"""
MARKETS = {"binance": "btcusdt", "coinbase": "BTC-USD", "upbit": "KRW-BTC", "okx": "BTC-USDT", "bybit": "BTCUSDT"}
for name, symbol in MARKETS.items():
    SETTINGS += f'\n[[markets]]\nexchange = "{name}"\nsymbols = ["{symbol}"]\n'
#: Coinbase's book begins with a snapshot that would be most of the fixture.
SETTINGS = SETTINGS.replace('"BTC-USD"]\n', '"BTC-USD"]\nfeeds = ["trades"]\n')
FAULTS = (
    "lose,venue=okx,feed=trade,probability=0.15",
    "lose,venue=binance,feed=trade,probability=0.1",
    "garbage,kind=truncated,venue=upbit,probability=0.1",
    "duplicate,venue=bybit,feed=trade,probability=0.1",
)
#: Events that wait in each list before the next phase.
EVENTS = 8


class Run:
    """One version at work: its code in `tree`, its directory `home`."""

    def __init__(self, tree: Path, home: Path, server: redis_process.RedisProcess, stack: ExitStack) -> None:
        self._tree, self._home, self._stack = tree, home, stack
        self.client = server.client()
        (home / "settings.toml").write_text(SETTINGS)
        self._environ = {
            **clean(os.environ),
            "PYTHONPATH": str(tree),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CONFIG_PATH": str(home / "settings.toml"),
            "COLLECTOR_REDIS__URL": server.url,
        }

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=self._home, env={**self._environ, **environ}, stdout=subprocess.PIPE
        )
        self._stack.callback(process.kill)
        return process

    def worker(self, **environ: str) -> subprocess.Popen[bytes]:
        """One that collects and does not flush."""
        return self.start(
            "celery", "-A", "app", "worker", "-P", "threads", "-Q", "default,streams", "-c", "16", **environ
        )

    def collector(self, *arguments: str) -> dict[str, Any]:
        """A command that prints JSON and ends with 0."""
        done = subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self._home,
            env=self._environ,
            check=True,
            capture_output=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def exchanges(self, sent: Path) -> str:
        """Start the built-in exchanges and point the settings at them; returns the URL of their control endpoint."""
        faults = [word for fault in FAULTS for word in ("--faults", fault)]
        server = self.start(
            "app", "exchange-server", "--port", "0", "--json", "--rate", "3", "--sent", str(sent), *faults
        )
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        for name, urls in told["venues"].items():
            self._environ[f"COLLECTOR_EXCHANGES__{name.upper()}__WS_URL"] = urls["ws_url"]
            self._environ[f"COLLECTOR_EXCHANGES__{name.upper()}__REST_URL"] = urls["rest_url"]
        return str(told["control"])

    def waiting(self) -> bool:
        """Whether every list has events enough."""
        held = self.client.hgetall(f"{PREFIX}:buffer-events")
        return len(held) == len(MARKETS) and all(int(count) >= EVENTS for count in held.values())  # type: ignore[union-attr, arg-type]

    def lists(self) -> dict[str, Any]:
        """What waits in Redis, key by key below the prefix: elements of lists in base64, hashes as they are."""
        found: dict[str, Any] = {"lists": {}, "hashes": {}}
        for key in sorted(self.client.scan_iter(f"{PREFIX}:buffer*")):
            name = key.decode().removeprefix(f"{PREFIX}:")
            if self.client.type(key) == b"list":
                elements = self.client.lrange(key, 0, -1)
                found["lists"][name] = [base64.b64encode(element).decode() for element in elements]  # type: ignore[union-attr]
            else:
                held = self.client.hgetall(key)
                found["hashes"][name] = {k.decode(): v.decode() for k, v in sorted(held.items())}  # type: ignore[union-attr]
        return found


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end_s:
            raise SystemExit(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def record(run: Run, home: Path) -> None:
    """The phases; what is left of them lies in `home/data` and in Redis."""
    control = run.exchanges(home / "sent.jsonl")
    worker = run.worker()
    until(run.waiting, "events for the segment that is archived and removed")
    run.collector("flush", "--final")
    until(run.waiting, "events for the segment that is archived and kept")
    run.collector("flush", "--final")
    run.collector("archive")
    until(run.waiting, "events for the segment that is sealed only")
    run.collector("flush", "--final")
    until(run.waiting, "events for the open segment")
    stop(worker)
    run.collector("flush")
    # Lists that are full soon, so that batches go to the spool; new connections, new epochs.
    worker = run.worker(COLLECTOR_BUFFER__LIST_MAX_BYTES="4000")
    until(lambda: len(list((home / "data" / "spool").rglob("*.spool"))) == len(MARKETS), "full lists and spools")
    urllib.request.urlopen(urllib.request.Request(f"{control}/stop", method="POST"), timeout=30).read()
    stop(worker)


def stop(worker: subprocess.Popen[bytes]) -> None:
    """What is under way arrives, then SIGTERM: every epoch has its end."""
    time.sleep(1)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)


def extracted(commit: str, directory: Path) -> Path:
    """The tree of `commit` below `directory`."""
    archive = subprocess.run(["git", "archive", commit], cwd=CHECKOUT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory)  # git's own; `filter` came with 3.11.4
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory to write; files of an earlier run are replaced")
    parser.add_argument("--commit", required=True, help="the version, as git names it")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", options.commit], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.strip()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="old-version-")))
        home = root / "home"
        home.mkdir()
        tree = extracted(commit, root / "tree")
        run = Run(tree, home, stack.enter_context(redis_process.running(root / "redis")), stack)
        record(run, home)
        options.out.mkdir(parents=True, exist_ok=True)
        with tarfile.open(options.out / "data.tar.xz", "w:xz") as tar:
            tar.add(home / "data", "data", filter=_plain)
        (options.out / "redis.json").write_text(json.dumps(run.lists(), indent=1) + "\n")
        shutil.copy(home / "settings.toml", options.out)
        with gzip.GzipFile(options.out / "sent.ndjson.gz", "wb", mtime=0) as packed:
            packed.write((home / "sent.jsonl").read_bytes())
    (options.out / "README.md").write_text(README.format(commit=commit, out=options.out.name))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files of the data directory, without their owner; nothing of Celery's, and no locks."""
    if Path(entry.name).name.startswith("celerybeat") or Path(entry.name).name == "lock":
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


README = """\
# What commit {commit} left behind

Made by `python -m tests.support.old_version tests/fixtures/{out} --commit {commit}` with that version's own code on its
built-in exchanges; nothing in it was captured from a venue. Never edited: `tests/integration/test_upgrade.py` proves that the
version of today goes on where this one stopped.

| file | |
| --- | --- |
| `data.tar.xz` | the data directory: ledger; segments removed, archived, sealed, open; objects, manifests, spools |
| `redis.json` | the elements that waited in the Redis lists, in base64, and the hashes that count them |
| `settings.toml` | the settings; URLs came from the environment |
| `sent.ndjson.gz` | every event that the exchanges sent, a line each |
"""

if __name__ == "__main__":
    main()
