"""One real worker process with its own beat, recording two venues, while its Redis and its load do their worst.

Each test leaves the worker as it found it, alive and recording, and lays everything sent so far beside everything stored.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.content import held
from tests.support.accounted import Account, accounted
from tests.support.crash import CeleryWorker, Nursery, Run
from tests.support.exchanges import ExchangeProcess
from tests.support.flaky import Flaky
from tests.support.path import until
from tests.support.redis_process import RedisProcess, running
from tests.support.rig import MARKETS, Rig

VENUES = ("binance", "okx")
Record = Callable[[str, object], None]


class Day:
    """The worker, what it works with, and how it is doing."""

    def __init__(self, redis: RedisProcess, link: Flaky, exchange: ExchangeProcess, directory: Path) -> None:
        self.redis, self.link, self.exchange = redis, link, exchange
        self.rig = Rig(directory, f"redis://127.0.0.1:{link.port}/0")
        settings = self.rig.write({name: MARKETS[name] for name in VENUES}, exchange.venues)
        #: Past the link that flaps.
        self.wiring = self.rig.wiring(redis=replace(settings.redis, url=redis.url))
        self.names = sorted(self.wiring.streams)
        self.worker: CeleryWorker

    def start(self) -> None:
        """A worker for everything but the archive, and wait until it works."""
        self.worker = CeleryWorker("day", "streams,default,flush", 8, self.rig.directory, self.rig.environ, "-B")
        self.back(time.monotonic(), 60)

    def close(self) -> None:
        if hasattr(self, "worker"):
            self.worker.close()

    def works(self) -> bool:
        """Whether every feed is live, and what is flushed grows."""
        assert self.worker.alive, self.worker.log[-3000:]
        states = self.wiring.board.states(self.names)
        feeds = [feed["state"] for state in states.values() for feed in state["feeds"]]
        return len(feeds) == 4 * len(VENUES) and set(feeds) == {"live"} and self._stored() > self._seen

    def back(self, since_s: float, seconds: float) -> float:
        """Wait until it works again; returns the seconds since `since_s`."""
        self._seen = self._stored()
        until(self.works, "the worker works", seconds)
        return time.monotonic() - since_s

    def _stored(self) -> int:
        return sum(held(self.rig).rows.values())

    _seen = 0

    def account(self) -> Account:
        """Halt the data, wait for the worker to store it, compare, and go on."""
        self.exchange.halt()
        lines = self.exchange.lines()
        sent = sum("data" in line for line in lines)

        def whole() -> bool:
            found = held(self.rig)
            accounted_for = sum(len(fate.numbers) for fate in found.fates.values())
            return accounted_for + sum(count or 0 for *_, count, _ in found.losses) >= sent

        until(whole, "all that was sent is stored or declared lost", 30)
        until(lambda: not any(self.wiring.spool(name) for name in self.names), "no spool is left")
        found = accounted(self.rig, lines)
        assert found.unread == {}
        self.exchange.resume()
        return found


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    directory = tmp_path_factory.mktemp("day")
    exchange = ExchangeProcess(directory / "exchange", rate=5)
    try:
        with running(directory / "redis") as redis, Flaky(redis.port) as link:
            made = Day(redis, link, exchange, directory)
            try:
                made.start()
                yield made
            finally:
                made.close()
    finally:
        exchange.stop()


@pytest.fixture
def day(begun: Day) -> Day:
    """The worker at work; a new one where the test before has ended it."""
    if not begun.worker.alive:
        begun.start()
    return begun


@pytest.mark.row("R1")
@pytest.mark.row("R3")
def test_while_redis_is_down_batches_wait_in_the_spool_and_after_its_restart_nothing_is_missing(
    day: Day, record_property: Record
) -> None:
    lost = day.account().lost
    day.redis.kill()
    until(lambda: all(day.wiring.spool(name) for name in day.names), "each stream spools")
    until(lambda: day.exchange.status()["queued"] == 0, "the exchanges are read all the same")
    day.redis.start()
    record_property("working_again_s", again_s := day.back(time.monotonic(), 40))
    assert again_s < 30
    account = day.account()
    assert account.lost == lost
    assert account.reasons("binance")[-1] is account.reasons("okx")[-1] is None  # on the connections it had


@pytest.mark.row("R2")
def test_what_a_redis_without_persistence_forgot_is_declared_lost_to_the_number(
    day: Day, record_property: Record
) -> None:
    before = day.account().lost
    standing = day.wiring.lease("lock:flush", 60)
    until(standing.acquire, "the flush stands still")
    until(lambda: sum(depth.events for depth in day.wiring.buffer.depths()) > 40, "batches wait in Redis")
    day.redis.forget()
    day.redis.start()
    record_property("working_again_s", day.back(time.monotonic(), 60))
    account = day.account()
    record_property("lost", account.lost - before)
    assert account.lost - before > 40
    causes = {(feed, cause) for _, _, feed, _, _, _, cause in account.held.losses}
    assert causes == {("orderbook", "buffer_lost"), ("trade", "buffer_lost")}


@pytest.mark.row("R4")
def test_while_redis_is_at_its_maxmemory_batches_wait_in_the_spool_and_none_is_lost(
    day: Day, record_property: Record
) -> None:
    lost = day.account().lost
    day.redis.client().config_set("maxmemory", 1)
    try:
        until(lambda: all(day.wiring.spool(name) for name in day.names), "each stream spools")
    finally:
        day.redis.client().config_set("maxmemory", 0)
    record_property("working_again_s", day.back(time.monotonic(), 60))
    assert day.account().lost == lost


@pytest.mark.row("R6")
def test_after_the_link_to_the_broker_has_flapped_the_worker_consumes_again(day: Day, record_property: Record) -> None:
    lost = day.account().lost
    flaps = 0
    for _ in range(8):
        before, cut = day.link.opened, day.link.cut()
        flaps += cut
        until(lambda: day.link.opened >= before + 3, "it has connected again", 30)  # noqa: B023
    assert flaps > 8
    since_s = time.monotonic()
    day.wiring.redis.delete(f"{day.rig.prefix}:beat")
    until(lambda: day.wiring.board.last_beat_s(), "a task of the default queue was run", 60)
    record_property("consuming_again_s", again_s := day.back(since_s, 60))
    assert again_s < 60
    assert day.account().lost == lost


@pytest.mark.row("C6")
def test_poisoned_messages_are_refused_and_logged_and_the_worker_goes_on(day: Day, tmp_path: Path) -> None:
    from celery import Celery
    from kombu import Producer

    app = Celery("tests", broker=day.redis.url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": f"{day.rig.prefix}:celery:"}
    marker = tmp_path / "exploded"
    for arguments in ((), ("a", "b", "c"), ([1],), ({"stream": "x"},), (None,), ("../../etc",), ("x" * 1_000_000,)):
        app.send_task("streams.run", arguments, queue="streams")
    app.send_task("flush.run", (), {"nobody": 1}, queue="flush")
    app.send_task("os.system", ("true",), queue="default")
    with app.connection_for_write() as connection:
        publish = Producer(connection.default_channel).publish
        headers = {"task": "streams.supervise", "id": "1", "lang": "py", "argsrepr": "", "kwargsrepr": ""}
        for kind, encoding, body in (
            ("application/x-python-serialize", "binary", pickle.dumps((Bomb(marker), {}, {}))),
            ("application/json", "utf-8", b"[[[["),
            ("application/json", "utf-8", b'"a text"'),
            ("application/json", "utf-8", b"[1, 2, 3]"),
            ("application/json", "utf-8", b"{}"),
        ):
            publish(body, routing_key="default", content_type=kind, content_encoding=encoding, headers=headers)
    day.back(time.monotonic(), 30)
    log = until(
        lambda: day.worker.log if day.worker.log.count("invalid task message") == 4 else "", "the last is refused"
    )
    assert "Received unregistered task of type 'os.system'" in log
    assert "Refusing to deserialize untrusted content of type pickle" in log
    assert log.count("not a task's message") >= 3 and "Can't decode message body" in log
    for words in ("missing 1 required", "4 were given", "unhashable type: 'list'", "keyword argument 'nobody'"):
        assert log.count(words) >= 1, words
    assert not marker.exists()
    assert day.account().unread == {}


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


BURST_S = 10
#: What the worker may take at most, whatever the load: itself, and twice its bound of queued bytes.
CEILING_KIB = 320 * 1024


@pytest.mark.exhaustive
@pytest.mark.row("X12")
@pytest.mark.row("K10")
def test_a_burst_of_fifty_times_the_rate_is_stored_whole_within_the_memory_it_may_take(
    day: Day, record_property: Record
) -> None:
    before = day.account()
    day.exchange.let(f"burst,factor=50,for_s={BURST_S}")
    queued = 0
    end_s = time.monotonic() + BURST_S
    while time.monotonic() < end_s:
        states = day.wiring.board.states(day.names)
        queued = max([queued, *(state["queued"] for state in states.values())])
        time.sleep(0.2)
    day.exchange.heal()
    account = day.account()
    until(lambda: sum(depth.events for depth in day.wiring.buffer.depths()) < 200, "the lists are short again")
    status = Path(f"/proc/{day.worker.pid}/status").read_text()
    peak_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    record_property("events_a_second", (account.stored - before.stored) / BURST_S)
    record_property("peak_kib", peak_kib)
    record_property("queued", queued)
    assert account.stored - before.stored > 500 * BURST_S, "ten times the rate at least"
    assert account.lost == before.lost
    assert peak_kib < CEILING_KIB
    assert sum(state["refused"] for state in day.wiring.board.states(day.names).values()) == 0


@pytest.mark.exhaustive
@pytest.mark.row("C3")
@pytest.mark.row("C4")
def test_a_process_that_slept_longer_than_its_lease_finds_another_in_its_place_and_nothing_is_stored_twice(
    nursery: Nursery, rig: Rig, exchange_server: Callable[..., ExchangeProcess], record_property: Record
) -> None:
    exchange = exchange_server(rate=20)
    rig.write({"okx": MARKETS["okx"]}, exchange.venues, buffer={"lease_secs": 3})
    wiring = rig.wiring()
    (name,) = wiring.streams
    #: Connection -> whose it is: the board shows the one before for a while.
    epochs: dict[str, Run] = {}

    def holds(run: Run) -> bool:
        token = wiring.redis.get(f"{rig.prefix}:lease:stream:{name}")
        state = wiring.board.states([name]).get(name, {})
        if token is None or int(token.split(b":")[1]) != run.pid or state.get("events", 0) <= 20:
            return False
        return epochs.setdefault(state["epoch"], run) is run

    sleeper = nursery.start("collect", rig.path, stream=name)
    until(lambda: holds(sleeper), "the first records")
    sleeper.signal(signal.SIGSTOP)
    slept_s = time.monotonic()
    until(lambda: not wiring.board.leased([name]), "its lease runs out")
    there = elsewhere(rig)  # another host has a spool of its own
    other = nursery.start("collect", there, stream=name)
    until(lambda: holds(other), "the second records")
    record_property("taken_over_s", time.monotonic() - slept_s)
    assert exchange.status()["connections"] == 2
    sleeper.signal(signal.SIGCONT)
    assert sleeper.wait().result == "lease_lost"
    assert holds(other)
    exchange.halt()
    other.signal(signal.SIGTERM)
    assert other.wait().result == "stop"
    assert wiring.flush().run().failed == {}
    account = accounted(rig, exchange.lines())
    assert (account.reasons("okx"), account.unread, account.lost) == (["lease_lost", "stop"], {}, 0)
    assert account.duplicates > 0  # what both were sent


def elsewhere(rig: Rig) -> Path:
    """The settings of `rig` as another host has them: all the same but the spool."""
    path = rig.directory / "there.toml"
    path.write_text(rig.path.read_text() + f'\n[spool]\ndir = "{rig.directory / "spool-there"}"\n')
    return path


@pytest.mark.row("R6")
def test_a_worker_whose_consumer_breaks_ends_its_streams_and_exits_with_an_error(
    day: Day, record_property: Record
) -> None:
    before = day.account()
    day.wiring.redis.lpush(f"{day.rig.prefix}:celery:default", b"no message of any broker")
    broke_s = time.monotonic()
    assert day.worker.wait(60) != 0, day.worker.log[-3000:]
    record_property("exited_s", time.monotonic() - broke_s)
    assert "Unrecoverable error" in day.worker.log
    day.exchange.halt()
    assert day.wiring.flush().run().failed == {}
    account = accounted(day.rig, day.exchange.lines())
    day.exchange.resume()
    assert (account.unread, account.lost) == ({}, before.lost)
    assert [account.reasons(venue)[-1] for venue in VENUES] == ["stop", "stop"]
