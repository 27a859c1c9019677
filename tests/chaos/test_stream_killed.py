"""A stream's process dies: another one takes over, what waited on the disk is delivered, and of what was received only the
end that had not left the process is missing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.buffer.spool import read_records
from app.clock import wall_us
from app.config import Settings
from app.objects import parquet
from app.pipeline import periodic
from app.pipeline.audit import audit
from app.pipeline.supervise import dispatch
from app.wiring import Wiring
from tests.chaos.content import Held, NumberRange, held, numbers
from tests.support.crash import Nursery, celery_workers, dispatcher, messenger
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, finish, records, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import MARKETS, Rig

STREAM = "binance-0-orderbook.trade"
ONE_MARKET = {"binance": ["btcusdt", "ethusdt"]}
LEASE_SECS = 3
#: Promised of a stream whose process was killed: it is collected again so long after its lease has run out.
TAKEOVER_S = 5
#: On a machine that other tests share it may take so many times as long; `collector drill` judges the promise by itself.
SHARED = 3
#: symbol, data type
Feed = tuple[str, str]


def _settings(rig: Rig, exchange: ExchangeProcess, markets: dict[str, list[str]]) -> Settings:
    return rig.write(markets, exchange.venues, buffer={"lease_secs": LEASE_SECS})


def _events(wiring: Wiring) -> int:
    return sum(depth.events for depth in wiring.buffer.depths())


def _archived_by_epoch(wiring: Wiring) -> dict[str, dict[Feed, list[str]]]:
    """epoch -> feed -> texts in the order they were stored."""
    found: dict[str, dict[Feed, list[str]]] = {}
    for entry in wiring.ledger.objects():
        with wiring.store.open(entry.key) as file:
            for chunk in parquet.read(file):
                for *_, data, epoch in chunk:
                    found.setdefault(epoch, {}).setdefault((entry.symbol, entry.data_type), []).append(data)
    return found


def _sent_by_connection(exchange: ExchangeProcess, venue: str) -> list[dict[Feed, list[str]]]:
    """Of each connection in turn: feed -> texts in the order they were sent."""
    connections: dict[int, dict[Feed, list[str]]] = {}
    for line in exchange.sent():
        if line["venue"] == venue:
            feeds = connections.setdefault(line["connection"], {})
            feeds.setdefault((line["symbol"], line["feed"]), []).append(line["data"])
    return [connections[number] for number in sorted(connections)]


def _epochs(found: Held, stream: str = STREAM) -> list[tuple[str, Any]]:
    """(epoch, reason of its end) of a stream, oldest first."""
    return [(epoch, told[3]) for epoch, told in found.epochs.items() if told[0] == stream]


def _assert_only_the_end_is_missing(wiring: Wiring, exchange: ExchangeProcess, first: str, second: str) -> None:
    """Of the killed connection a beginning of each feed is archived; of the next one everything."""
    archived = _archived_by_epoch(wiring)
    before, after = _sent_by_connection(exchange, "binance")
    assert archived.keys() == {first, second}
    for feed, texts in archived[first].items():
        assert texts == before[feed][: len(texts)]
    assert archived[second] == after


def _finished(nursery: Nursery, rig: Rig, exchange: ExchangeProcess, wanted: int) -> None:
    """Another process takes the stream, reads `wanted` more events, and is stopped when nothing more is sent."""
    wiring = rig.wiring()
    until(lambda: not wiring.board.states([STREAM]), "nothing is left of the dead on the board")
    taken = nursery.start("collect", rig.path, stream=STREAM)
    until(lambda: wiring.board.states([STREAM]).get(STREAM, {}).get("events", 0) >= wanted, "the next process reads")
    exchange.halt()
    taken.signal(signal.SIGTERM)
    assert taken.wait().result == "stop"


@pytest.mark.row("K1")
def test_a_process_killed_before_a_push_loses_what_was_in_its_hand_and_the_next_waits_for_the_lease(
    nursery: Nursery, rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    exchange = exchange_server(rate=20)
    _settings(rig, exchange, ONE_MARKET)
    killed = nursery.start("collect", rig.path, stream=STREAM, effects=True, prefix="effect.push", kill_at=8)
    assert killed.wait().was_killed
    wiring = rig.wiring()
    pushed = _numbers_in_redis(wiring)
    assert nursery.run("collect", rig.path, stream=STREAM).result == "leased elsewhere"
    until(lambda: not wiring.board.leased([STREAM]), "the lease of the dead runs out", 2 * LEASE_SECS)
    _finished(nursery, rig, exchange, 20)
    finish(wiring)
    found = held(rig)
    (first, no_reason), (second, reason) = sorted(_epochs(found), key=lambda e: e[1] or "")
    assert (no_reason, reason) == (None, "stop")
    assert _numbers_of(found, first) == pushed
    _assert_only_the_end_is_missing(wiring, exchange, first, second)
    assert found.replays == 0
    assert _assert_the_unclean_end_is_declared(wiring, exchange, first) > 0


def _assert_the_unclean_end_is_declared(wiring: Wiring, exchange: ExchangeProcess, killed: str) -> int:
    """Once, from the last stored event until the next connection; and then everything sent is held or explained.

    Returns how many sent events that explains.
    """
    assert [d.where for d in audit(wiring).differences] == [f"binance, epoch {killed}"]
    declared = periodic.reckon(wiring, NEVER, look_again_s=0)
    assert declared["unclean_ends"] == 1
    finish(wiring)
    assert periodic.reckon(wiring, NEVER, look_again_s=0) == {"unclean_ends": 0, "losses": 0}
    epochs = {row["epoch"]: row for row in records(wiring, "epochs") if row["kind"] == "stream"}
    (successor,) = (row for row in epochs.values() if row["epoch"] != killed)
    last = {
        (r["symbol"], r["feed"]): (r["last"], r["last_us"]) for r in records(wiring, "ranges") if r["epoch"] == killed
    }
    losses = {
        (x["symbol"], x["feed"]): (x["first"] - 1, x["start_us"], x["end_us"], x["count"], x["cause"])
        for x in records(wiring, "losses")
    }
    assert losses == {
        key: (number, us, successor["opened_us"], None, "unclean_end") for key, (number, us) in last.items()
    }
    found = audit(wiring, deep=True, sent=[exchange.sent_file])
    assert found.differences == []
    assert found.totals()["unknown_losses"] == len(losses) == declared["losses"]
    assert found.sent is not None and found.sent.missing == found.sent.unread == 0
    return found.sent.explained


def _numbers_in_redis(wiring: Wiring) -> dict[tuple[str, str, str], set[int]]:
    return _united(r for e in wiring.buffer.head(STREAM, 10**6, 2**30) for r in numbers(e))


def _united(ranges: Any) -> dict[tuple[str, str, str], set[int]]:
    found: dict[tuple[str, str, str], set[int]] = {}
    r: NumberRange
    for r in ranges:
        found.setdefault(r[:3], set()).update(range(r[3], r[4] + 1))
    return found


def _numbers_of(found: Held, epoch: str) -> dict[tuple[str, str, str], set[int]]:
    return {key: fate.numbers for key, fate in found.fates.items() if key[0] == epoch}


@pytest.mark.row("K1")
@pytest.mark.row("R3")
def test_the_spool_of_a_killed_process_is_delivered_by_the_next_one(
    nursery: Nursery, own_redis: RedisProcess, tmp_path: Path, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    directory = tmp_path / "rig"
    directory.mkdir()
    rig = Rig(directory, own_redis.url)
    exchange = exchange_server(rate=20)
    settings = _settings(rig, exchange, ONE_MARKET)
    wiring = rig.wiring()
    killed = nursery.start("collect", rig.path, stream=STREAM)
    until(lambda: _events(wiring) >= 10, "events in Redis")
    own_redis.freeze()
    spool = settings.spool.dir / STREAM
    until(lambda: len(_spooled(spool)) >= 3, "batches in the spool")
    killed.signal(signal.SIGKILL)
    assert killed.wait().was_killed
    spooled = _spooled(spool)
    own_redis.thaw()
    until(lambda: not wiring.board.leased([STREAM]), "the lease of the dead has run out", 2 * LEASE_SECS)
    received = _united(r for e in [*spooled, *wiring.buffer.head(STREAM, 10**6, 2**30)] for r in numbers(e))
    _finished(nursery, rig, exchange, 20)
    assert _spooled(spool) == []
    finish(wiring)
    found = held(rig)
    (first, no_reason), (second, reason) = sorted(_epochs(found), key=lambda e: e[1] or "")
    assert (no_reason, reason) == (None, "stop")
    assert _numbers_of(found, first) == received
    _assert_only_the_end_is_missing(wiring, exchange, first, second)
    _assert_the_unclean_end_is_declared(wiring, exchange, first)


def _spooled(directory: Path) -> list[bytes]:
    """Elements that stand whole in a spool; a file may go while it is looked at."""
    found = []
    for path in sorted(directory.glob("*.spool")):
        try:
            found += [element for element, _ in read_records(path)]
        except FileNotFoundError:
            continue
    return found


@pytest.mark.row("K9")
@pytest.mark.row("R3")
def test_a_process_stopped_while_redis_does_not_answer_leaves_everything_it_received_in_its_spool(
    nursery: Nursery, own_redis: RedisProcess, tmp_path: Path, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    directory = tmp_path / "rig"
    directory.mkdir()
    rig = Rig(directory, own_redis.url)
    exchange = exchange_server(rate=20)
    settings = _settings(rig, exchange, ONE_MARKET)
    wiring = rig.wiring()
    stopped = nursery.start("collect", rig.path, stream=STREAM)
    until(lambda: _events(wiring) >= 10, "events in Redis")
    own_redis.freeze()
    until(lambda: _spooled(settings.spool.dir / STREAM), "a batch in the spool")
    exchange.halt()
    stopped.signal(signal.SIGTERM)
    assert stopped.wait().result == "stop"
    own_redis.thaw()
    finish(wiring)
    ((epoch, reason),) = _epochs(held(rig))
    assert reason == "stop"
    assert _archived_by_epoch(wiring) == {epoch: _sent_by_connection(exchange, "binance")[0]}


def test_a_process_that_stood_still_for_longer_than_its_lease_brings_what_it_received_and_leaves_the_stream_to_the_next(
    nursery: Nursery, rig: Rig, tmp_path: Path, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    exchange = exchange_server(rate=20)
    _settings(rig, exchange, ONE_MARKET)
    elsewhere = tmp_path / "elsewhere.toml"  # as on another host: a spool of its own
    elsewhere.write_text(f'{rig.path.read_text()}\n[spool]\ndir = "{tmp_path / "spool-elsewhere"}"\n')
    wiring = rig.wiring()
    first = nursery.start("collect", rig.path, stream=STREAM)
    until(lambda: _events(wiring) >= 20, "events in Redis")
    first.signal(signal.SIGSTOP)
    until(lambda: not wiring.board.leased([STREAM]), "its lease runs out", 2 * LEASE_SECS)
    second = nursery.start("collect", elsewhere, stream=STREAM)
    taken = until(lambda: wiring.board.holders([STREAM]), "the next one has it")
    first.signal(signal.SIGCONT)
    assert first.wait().result == "lease_lost"
    assert wiring.board.holders([STREAM]) == taken
    until(lambda: len({line["connection"] for line in exchange.lines() if "data" in line}) == 2, "and is sent data")
    exchange.halt()
    second.signal(signal.SIGTERM)
    assert second.wait().result == "stop"
    finish(wiring)
    assert sorted(reason for _, reason in _epochs(held(rig))) == ["lease_lost", "stop"]
    texts = {text for feeds in _archived_by_epoch(wiring).values() for found in feeds.values() for text in found}
    # `maybe`: it was written to a connection that the other side was closing.
    sent = [line for line in exchange.sent() if line["venue"] == "binance" and not line.get("maybe")]
    assert {line["data"] for line in sent} <= texts


@pytest.mark.exhaustive
@pytest.mark.row("K1")
@pytest.mark.row("K9")
@pytest.mark.timeout(180)
def test_the_streams_of_a_killed_worker_go_to_another_one_which_ends_cleanly_with_all_it_received(
    rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    exchange = exchange_server(rate=10)
    _settings(rig, exchange, MARKETS)
    wiring = rig.wiring()
    names = list(wiring.streams)

    def holders() -> set[int]:
        tokens = (wiring.redis.get(f"{rig.prefix}:lease:stream:{name}") for name in names)
        return {int(token.split(b":")[1]) for token in tokens if token is not None}  # any may run out at any moment

    def leased() -> set[str]:
        return wiring.board.leased(names)

    def found_out() -> set[str]:
        return {depth.stream.split("-")[0] for depth in wiring.buffer.depths() if depth.stream.endswith("-findings")}

    def all_open() -> bool:
        states = wiring.board.states(names)
        return len(states) == len(names) and all(state["connection"] == "open" for state in states.values())

    with celery_workers(("one", "two"), "streams,default,flush", rig, threads=8) as workers:
        until(lambda: leased() == set(names) and all_open(), "every stream is collected", 40)
        until(lambda: len(_events_by_stream(wiring)) == len(names), "and delivers")
        first = next(worker for worker in workers.values() if worker.pid in holders())
        killed = {n for n, token in wiring.board.holders(names).items() if int(token.split(":")[1]) == first.pid}
        (second,) = (worker for worker in workers.values() if worker is not first)
        assert first.signal(signal.SIGKILL) == -signal.SIGKILL
        killed_us, send = wall_us(), dispatcher(rig)

        def taken_over() -> bool:
            dispatch(wiring, LEASE_SECS, send)
            return leased() == set(names) and holders() == {second.pid}

        until(taken_over, "the other one has them all")
        until(lambda: all_open() and _bring(wiring, names), "and delivers")
        exchange.halt()
        tell = messenger(rig)  # as beat does
        tell.send_task("flush.run", queue="flush")
        until(lambda: not wiring.buffer.depths(), "what came is stored")
        tell.send_task("epochs.reckon", queue="flush")
        until(lambda: found_out() == {name.split("-")[0] for name in killed}, "the killed connections are declared")
        assert second.signal(signal.SIGTERM) == 0, second.log
    took_s = [(us - killed_us) / 1e6 for us in (line.get("opened", 0) for line in exchange.lines()) if us > killed_us]
    assert len(took_s) > 0 and max(took_s) <= SHARED * (LEASE_SECS + TAKEOVER_S)
    finish(wiring)
    archived, found = _archived_by_epoch(wiring), held(rig)
    for name in names:
        venue = name.split("-")[0]
        ends = sorted(_epochs(found, name), key=lambda e: found.opened_us[e[0]])
        epochs, reasons = [epoch for epoch, _ in ends], [reason for _, reason in ends]
        assert reasons == (["unclean_end", "stop"] if name in killed else ["stop"])
        sent = _sent_by_connection(exchange, venue)
        assert len(epochs) == len(sent)
        last = archived[epochs[-1]]
        earlier = {feed: set(texts) for feed, texts in archived[epochs[0]].items()} if len(epochs) == 2 else {}
        for feed, texts in sent[-1].items():
            # An opening may repeat what the connection before had: that is stored with the epoch before.
            assert last.get(feed, []) == [text for text in texts if text not in earlier.get(feed, ())]
        for feed, texts in archived[epochs[0]].items():
            assert texts == sent[0][feed][: len(texts)]
    balanced = audit(wiring, deep=True, sent=[exchange.sent_file])
    assert (balanced.differences, balanced.epochs_open) == ([], [])
    assert balanced.totals()["unknown_losses"] == 2 * sum(len(wiring.streams[n].subscription.symbols) for n in killed)
    assert balanced.sent is not None and balanced.sent.missing == balanced.sent.unread == 0


def _events_by_stream(wiring: Wiring) -> dict[str, int]:
    return {depth.stream: depth.events for depth in wiring.buffer.depths() if depth.events}


def _bring(wiring: Wiring, names: list[str]) -> bool:
    """Every stream says that its present connection has brought something."""
    states = wiring.board.states(names)
    return len(states) == len(names) and all(state["events"] > 5 for state in states.values())


def test_what_redis_forgot_while_a_stream_went_on_is_declared_with_its_exact_numbers(
    rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    """FLUSHALL, under a stream that goes on: the hole is what was in the list and not yet in a segment."""
    exchange = exchange_server(rate=20)
    _settings(rig, exchange, ONE_MARKET)
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        periodic.flush(wiring, NEVER, deadline_s=1)
        collecting.more(20)
        until(lambda: _events(wiring) >= 10, "events in Redis")
        forgotten = _forget(wiring, rig.prefix)
        collecting.more(20)
        exchange.halt()
        assert collecting.finish() == {STREAM: "stop"}
    before = audit(wiring)
    assert before.totals()["holes"] == sum(map(len, forgotten.values())) > 0
    periodic.flush(wiring, NEVER)
    assert audit(wiring).differences == []
    assert periodic.reckon(wiring, NEVER, look_again_s=0) == {"unclean_ends": 0, "losses": 0}
    finish(wiring)
    lost = records(wiring, "losses")
    assert {x["cause"] for x in lost} == {"buffer_lost"}
    assert _united((x["epoch"], x["symbol"], x["feed"], x["first"], x["last"]) for x in lost) == forgotten
    found = audit(wiring, deep=True, sent=[exchange.sent_file])
    assert (found.differences, found.totals()["lost"]) == ([], sum(map(len, forgotten.values())))
    assert found.sent is not None
    assert (found.sent.explained, found.sent.missing, found.sent.unread) == (found.totals()["lost"], 0, 0)


def _forget(wiring: Wiring, prefix: str) -> dict[tuple[str, str, str], set[int]]:
    """All keys of this test go in one transaction, with the list read in it; what stood there."""
    with wiring.redis.pipeline(transaction=True) as pipe:
        pipe.lrange(f"{prefix}:buffer:{STREAM}", 0, -1)
        pipe.delete(*wiring.redis.keys(f"{prefix}:*"))
        elements, _ = pipe.execute()
    return _united(r for element in elements for r in numbers(element))
