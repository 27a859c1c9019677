"""A stop in the middle of things that wait: handshakes, REST calls, a Redis that froze or is full, claims, objects."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection

from app.codec import BatchCodec
from app.errors import Interrupted
from app.model import TRADE
from app.objects.interruptible import InterruptibleStore
from app.pipeline import periodic
from app.pipeline.supervise import drain_spools
from tests.support import batches as made
from tests.support.path import NEVER, Collecting, Scripted, archived, bybit_trade, connections, finish, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

#: "Streams close and push or spool within 10 s."
STREAMS_S = 10.0
#: What waits on the network alone is given up at once; generous.
AT_ONCE_S = 4.0


@contextmanager
def silent(drip: bytes = b"") -> Iterator[tuple[int, threading.Event]]:
    """A server that accepts and never answers, or only says `drip` again and again; its port, set once asked."""
    asked, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            held = []
            listener.settimeout(0.05)
            while not over.is_set():
                try:
                    held.append(listener.accept()[0])
                    asked.set()
                except TimeoutError:
                    pass
                for connection in held if drip else ():
                    try:
                        connection.sendall(drip)
                    except OSError:
                        continue
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            over.set()
            thread.join()


def stopped_after(collecting: Collecting) -> float:
    """Seconds that a stop took."""
    begun_s = time.monotonic()
    collecting.finish()
    return time.monotonic() - begun_s


@pytest.mark.parametrize("drip", [b"", b"H"], ids=["never", "a byte at a time"])
def test_a_handshake_that_is_not_answered_is_given_up_at_a_stop(rig: Rig, drip: bytes) -> None:
    with silent(drip) as (port, asked):
        urls = {"ws_url": f"ws://127.0.0.1:{port}", "rest_url": "http://127.0.0.1:9/none"}
        rig.write({"bybit": ["BTCUSDT"]}, {"bybit": urls})
        with Collecting(rig.wiring()) as collecting:
            assert asked.wait(10)
            assert stopped_after(collecting) < AT_ONCE_S
    assert list(collecting.reasons.values()) == ["stop"]


def test_a_list_of_symbols_that_drips_in_is_given_up_at_a_stop(rig: Rig) -> None:
    with silent(b"HTTP/1.1 100 Continue\r\n\r\n") as (port, asked):
        urls = {"ws_url": "ws://127.0.0.1:9", "rest_url": f"http://127.0.0.1:{port}"}
        rig.write({"bybit": ["BTCUSDT"]}, {"bybit": urls})
        with Collecting(rig.wiring()) as collecting:
            assert asked.wait(10)
            assert stopped_after(collecting) < AT_ONCE_S
    assert list(collecting.reasons.values()) == ["stop"]


@pytest.mark.parametrize("trouble", ["frozen", "full"])
def test_a_stop_while_redis_takes_nothing_leaves_everything_in_the_spool_with_its_end(
    own_redis: RedisProcess, tmp_path: Path, trouble: str
) -> None:
    rig = Rig(tmp_path, own_redis.url)
    go = threading.Event()

    def script(connection: ServerConnection, number: int) -> None:
        go.wait(20)
        for trade in range(1, 201):
            connection.send(bybit_trade("BTCUSDT", trade))

    with Scripted(script) as venue:
        rig.write({"bybit": ["BTCUSDT"]}, {"bybit": venue.venue})
        wiring = rig.wiring()
        client = own_redis.client()
        with Collecting(wiring) as collecting:
            until(lambda: wiring.buffer.depths(), "the epoch is on record")
            if trouble == "frozen":
                own_redis.freeze()
            else:
                client.config_set("maxmemory", 1)
            go.set()
            collecting.more(200)
            seconds = stopped_after(collecting)
        own_redis.thaw()
        client.config_set("maxmemory", 0)
    print(f"{trouble}: stopped within {seconds:.2f} s")
    assert seconds < STREAMS_S
    assert drain_spools(wiring)
    finish(wiring)
    assert [row["reason"] for row in connections(wiring)] == ["stop"]
    held = archived(wiring)["bybit", "BTCUSDT", TRADE]
    assert [identity for identity, _ in held] == [str(trade) for trade in range(1, 201)]


def waiting(rig: Rig, streams: int, events: int = 10) -> None:
    """`streams` lists with `events` each."""
    wiring, codec = rig.wiring(), BatchCodec()
    for stream in range(streams):
        name, epoch = f"binance-{stream}-orderbook.trade", f"{stream:032x}"
        units = [made.event(number, f"{stream}-{number}") for number in range(1, events + 1)]
        assert wiring.buffer.push(name, codec.encode(made.batch(1, units, epoch=epoch, stream=name)))


def test_a_flush_ends_before_its_next_claim_and_not_after_a_round_of_all_lists(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pipeline.flush.CLAIM_BATCHES", 1)
    waiting(rig, 5)
    stop = threading.Event()
    wiring = rig.wiring(step=lambda name: stop.set() if name == "flush.after_commit" else None)
    report = periodic.flush(wiring, stop)
    assert (report["batches"], report["stored"], len(wiring.buffer.depths())) == (1, 10, 4)
    assert periodic.flush(rig.wiring(), NEVER)["stored"] == 40
    finish(rig.wiring())


def test_a_run_that_begins_after_the_stop_does_nothing(rig: Rig) -> None:
    waiting(rig, 1)
    stop = threading.Event()
    stop.set()
    assert "skipped" in periodic.flush(rig.wiring(), stop)
    assert "skipped" in periodic.archive(rig.wiring(), stop)
    assert rig.wiring().ledger.segments() == []
    finish(rig.wiring())


def test_an_archive_cycle_ends_within_an_object_and_leaves_no_half_file(rig: Rig) -> None:
    waiting(rig, 2)
    assert periodic.flush(rig.wiring(), NEVER, seal=True)["sealed"] == [1]
    stop = threading.Event()
    wiring = rig.wiring(step=lambda name: stop.set() if name == "archive.before_write" else None)
    report = periodic.archive(wiring, stop)
    assert (report["objects"], report["timed_out"], report["failed"]) == (0, True, {})
    assert [path for path in wiring.settings.archive.dir.rglob("*") if path.is_file()] == []
    assert wiring.ledger.objects() == []
    finish(rig.wiring())
    assert len(archived(rig.wiring())["binance", "btcusdt", TRADE]) == 20


def test_a_store_that_does_not_answer_is_not_waited_for_once_the_process_has_been_stopping(rig: Rig) -> None:
    waiting(rig, 1)
    wiring = rig.wiring()
    assert periodic.flush(wiring, NEVER, seal=True)["sealed"] == [1]
    over, aborted = threading.Event(), threading.Event()
    stop = threading.Event()
    put = wiring.store.put

    def slow(*arguments: object) -> bool:
        stop.set()
        aborted.set()
        over.wait(30)
        return put(*arguments)  # type: ignore[arg-type]

    wiring.store.put = slow  # type: ignore[method-assign]
    wiring._interrupted = aborted.is_set
    report = periodic.archive(wiring, stop)
    over.set()
    assert (report["objects"], report["timed_out"], report["failed"]) == (0, True, {})
    assert [entry.state for entry in wiring.ledger.objects()] == ["written"]
    finish(rig.wiring())
    assert len(archived(rig.wiring())["binance", "btcusdt", TRADE]) == 10


def test_an_interruptible_store_is_the_store_until_it_is_interrupted(rig: Rig) -> None:
    waiting(rig, 1)
    finish(rig.wiring())
    plain = rig.wiring().store
    aborted = threading.Event()
    store = InterruptibleStore(plain, aborted.is_set)
    store.prepare()
    keys = list(plain.keys())
    assert (store.name, list(store.keys()), store.capabilities()) == (plain.name, keys, plain.capabilities())
    with store.open(keys[0]) as ours, plain.open(keys[0]) as theirs:
        assert ours.read() == theirs.read()
    go = threading.Event()
    plain.prepare = go.wait  # type: ignore[method-assign, assignment]
    aborted.set()
    with pytest.raises(Interrupted, match="prepare"):
        store.prepare()
    go.set()


def test_a_stream_that_starts_leaves_others_spools_alone_once_it_is_to_stop(rig: Rig) -> None:
    rig.write({"bybit": ["BTCUSDT"]})
    wiring = rig.wiring()
    spool = wiring.spool("okx-0-orderbook.trade")
    assert spool.lock()
    elements = [BatchCodec().encode(made.batch(n, [made.event(n)])) for n in range(1, 4)]
    for element in elements:
        spool.append(element)
    spool.close()
    stop = threading.Event()
    push = wiring.buffer.push

    def pushed(stream: str, element: bytes) -> int | None:
        stop.set()
        return push(stream, element)

    wiring.buffer.push = pushed  # type: ignore[method-assign]
    assert not drain_spools(wiring, stop=stop)
    assert wiring.buffer.head("okx-0-orderbook.trade", 10, 10**6) == elements[:1]
    assert drain_spools(rig.wiring())
    assert wiring.buffer.head("okx-0-orderbook.trade", 10, 10**6) in (elements, [elements[0], *elements])
