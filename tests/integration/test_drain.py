"""What a stop does: sockets say goodbye, everything received is on record, nothing hangs, and what hangs is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from app.codec import BatchCodec
from app.model import TRADE
from app.pipeline import periodic
from tests.support import batches as made
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, archived, compare, connections, figures, finish, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, MARKETS, Rig
from tests.support.strict_s3 import Fault, strict_s3

SYMBOLS = {
    "binance": "test{:04d}usdt", "coinbase": "TEST{:04d}-USD", "upbit": "KRW-TEST{:04d}", "okx": "TEST{:04d}-USDT",
    "bybit": "TEST{:04d}USDT",
}  # fmt: skip
#: Fifty in all, as many of each venue as its budget lets open within two seconds.
CONNECTIONS = {"binance": 13, "coinbase": 12, "upbit": 12, "okx": 3, "bybit": 10}
#: Promised on a machine of its own; tests share theirs.
DRAINED_S = 5.0
NOISE = 2.0


class Worker:
    """`celery -A app worker ARGUMENTS`, or a script that ends up as one, with its log."""

    def __init__(self, rig: Rig, *arguments: str, command: tuple[str, ...] = ("-m", "celery", "-A", "app")) -> None:
        self.log = rig.directory / f"worker-{time.monotonic_ns()}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command, "worker", "-n", f"{rig.prefix}@%h", *arguments],
                cwd=CHECKOUT, env=rig.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, event: str) -> list[dict[str, object]]:
        """Lines of the log that tell of `event`."""
        lines = [line for line in self.output.splitlines() if line.startswith("{") and line.endswith("}")]
        return [entry for entry in map(msgspec.json.decode, lines) if entry.get("event") == event]

    def ended(self, within_s: float) -> tuple[int, float]:
        """Exit code, and seconds from now until it came."""
        begun_s = time.monotonic()
        try:
            return self.process.wait(within_s), time.monotonic() - begun_s
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {within_s} s\n{self.output[-5000:]}") from None

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    """Starts workers, and sees to it that none outlives the test."""
    started: list[Worker] = []

    def start(*arguments: object, **options: object) -> Worker:
        started.append(Worker(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.kill()


def spread(form: str, connections: int) -> list[str]:
    """Symbols of which each has a connection of its own."""
    slots = {zlib.crc32(symbol.encode()) % connections: symbol for symbol in (form.format(n) for n in range(1, 200))}
    assert len(slots) == connections
    return sorted(slots.values())


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
def test_fifty_streams_under_load_end_in_time_on_either_signal_and_lose_nothing(
    rig: Rig, worker: Callable[..., Worker], exchange_server: Callable[..., ExchangeProcess]
) -> None:
    server = exchange_server(rate=2)
    venues = {name: {**urls, "connections": CONNECTIONS[name]} for name, urls in server.venues.items()}
    rig.write({name: spread(SYMBOLS[name], count) for name, count in CONNECTIONS.items()}, venues)
    wiring = rig.wiring()
    names = list(wiring.streams)
    assert len(names) == 50

    def busy() -> bool:
        return sum(state["events"] > 3 for state in wiring.board.states(names).values()) == len(names)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Without repairs: trades between the two connections were never sent over either.
        running = worker(rig, "--without-mingle", "-B", "-s", str(rig.directory / "schedule"), "-X", "gaps")
        until(busy, "every stream has events", 60)
        running.process.send_signal(number)
        code, seconds = running.ended(40)
        print(f"{number.name}: {len(names)} streams ended within {seconds:.2f} s")
        assert (code, running.says("stop.overdue")) == (0, []), running.output[-5000:]
        assert seconds < DRAINED_S * NOISE
        assert "Traceback" not in running.output
        assert wiring.board.leased(names) == set()
        # The next worker need not wait until what the board says runs out.
        wiring.redis.delete(*(f"{rig.prefix}:{key}:{name}" for name in names for key in ("state", "dispatched")))
    server.halt()
    flushed = rig.collector("flush", "--final")
    assert flushed.returncode == 0, flushed.stdout + flushed.stderr
    assert wiring.buffer.depths() == []
    finish(wiring)
    epochs = connections(wiring)
    assert Counter((row["stream"], row["reason"]) for row in epochs) == dict.fromkeys(((n, "stop") for n in names), 2)
    assert figures(wiring, server.sent_file).figures["lost"] == 0
    texts = {data for found in archived(wiring).values() for _, data in found}
    # What the venue had under way when a connection ended may or may not have been received.
    assert compare(wiring, [e for e in server.sent() if not e.get("maybe") or e["data"] in texts]) == {}


def left(running: Worker) -> bool:
    """Whether anything of the worker's session is still there."""
    try:
        os.killpg(running.process.pid, 0)
    except ProcessLookupError:
        return False
    return True


HANGING = """
import runpy, sys, threading
import app.pipeline.stream, tasks.stopping

class Hanging(app.pipeline.stream.StreamRunner):
    def run(self):
        super().run()
        threading.Event().wait()

app.pipeline.stream.StreamRunner = Hanging
tasks.stopping.ABORT_S, tasks.stopping.WATCHDOG_S = 0.5, 3.0
runpy.run_module("celery", run_name="__main__")
"""


@pytest.mark.exhaustive
def test_a_stream_that_hangs_is_named_and_the_process_ends_with_1_and_takes_its_beat_along(
    rig: Rig, worker: Callable[..., Worker], exchange_server: Callable[..., ExchangeProcess]
) -> None:
    rig.write({"bybit": ["BTCUSDT"]}, exchange_server().venues)
    wiring = rig.wiring()
    (name,) = wiring.streams
    running = worker(
        rig, "-B", "-s", str(rig.directory / "schedule"), command=("-c", HANGING, "-A", "app"),
    )  # fmt: skip
    until(lambda: wiring.board.states([name]).get(name, {}).get("events"), "the stream has events")
    running.process.send_signal(signal.SIGTERM)
    code, seconds = running.ended(20)
    (overdue,) = running.says("stop.overdue")
    assert (code, overdue["after_s"]) == (1, 3.0)
    assert seconds >= 3.0
    threads = overdue["threads"]
    assert isinstance(threads, dict)
    assert f"streams.run {name}" in threads
    assert threads[f"streams.run {name}"].endswith(" collect")
    until(lambda: not left(running), "beat, a process of the worker's own, is gone")


@pytest.mark.exhaustive
def test_an_upload_to_a_store_that_does_not_answer_is_given_up_and_taken_up_again(
    rig: Rig, worker: Callable[..., Worker]
) -> None:
    with strict_s3() as s3:
        aws = {"bucket": "bucket", "region": "us-east-1", "endpoint_url": s3.url, "access_key": "a", "secret_key": "s"}
        rig.write(MARKETS, storage={"mode": "s3"}, aws=aws)
        wiring = rig.wiring()
        sent = made.batch(1, [made.event(number) for number in range(1, 11)])
        assert wiring.buffer.push(sent.stream, BatchCodec().encode(sent))
        assert periodic.flush(wiring, NEVER, seal=True)["sealed"] == [1]
        s3.buckets["bucket"] = {}
        s3.faults.append(Fault("PUT", hangs=True))
        running = worker(rig, "-Q", "archive", "-c", "1")
        until(lambda: any(m == "PUT" and "parquet" in path for m, path, _ in s3.requests), "an upload is under way")
        running.process.send_signal(signal.SIGTERM)
        code, seconds = running.ended(20)
        print(f"an upload was given up within {seconds:.2f} s")
        assert (code, running.says("stop.overdue")) == (0, []), running.output[-5000:]
        assert seconds < 5.0 * NOISE
        s3.faults.clear()
        finish(wiring)
        held = archived(wiring)
        assert held == {("binance", "btcusdt", TRADE): [(event.sequence_id, event.data) for event in sent.events]}


def twice(number: signal.Signals) -> Callable[[Worker, Rig], None]:
    def end(running: Worker, rig: Rig) -> None:
        running.process.send_signal(number)
        until(lambda: "shutdown (MainProcess)" in running.output, "the first one is heard")
        running.process.send_signal(number)

    return end


def remotely(running: Worker, rig: Rig) -> None:
    command = [sys.executable, "-m", "celery", "-A", "app", "control", "shutdown"]
    subprocess.run(command, cwd=CHECKOUT, env=rig.environ, capture_output=True, timeout=60, check=False)


#: How a worker is ended, and its exit codes: a second SIGINT is a failure unless it comes when all is done.
ENDINGS: dict[str, tuple[Callable[[Worker, Rig], None], set[int]]] = {
    "SIGTERM twice": (twice(signal.SIGTERM), {0}),
    "SIGINT twice": (twice(signal.SIGINT), {0, 1}),
    "SIGQUIT": (lambda running, rig: running.process.send_signal(signal.SIGQUIT), {1}),
    "celery control shutdown": (remotely, {0}),
}


@pytest.mark.exhaustive
def test_however_a_worker_is_ended_its_streams_end_on_record_and_it_is_gone(
    redis_server: RedisProcess,
    tmp_path: Path,
    worker: Callable[..., Worker],
    exchange_server: Callable[..., ExchangeProcess],
) -> None:
    venues = exchange_server().venues
    rigs, workers = {}, {}
    for ending in ENDINGS:
        (tmp_path / ending).mkdir()
        rig = rigs[ending] = Rig(tmp_path / ending, redis_server.url)
        rig.write({"bybit": ["BTCUSDT"]}, venues)
        workers[ending] = worker(rig, "--without-mingle")
    for ending, (end, _) in ENDINGS.items():
        wiring = rigs[ending].wiring()
        (name,) = wiring.streams
        until(lambda: wiring.board.states([name]).get(name, {}).get("events"), f"events: {ending}", 40)  # noqa: B023
        end(workers[ending], rigs[ending])
    codes = {ending: running.ended(28)[0] for ending, running in workers.items()}
    assert {ending: running.says("stop.overdue") for ending, running in workers.items()} == {key: [] for key in ENDINGS}
    for rig in rigs.values():
        finish(rig.wiring())
        assert [row["reason"] for row in connections(rig.wiring())] == ["stop"]
    assert {ending: code for ending, code in codes.items() if code not in ENDINGS[ending][1]} == {}
