"""The flush is killed at every boundary, raced by another one, kept from its disk and lied to by Redis: nothing is lost,
nothing stands twice, and every number has exactly one fate."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from app.errors import BufferUnavailable
from app.model import TRADE
from app.pipeline import flush as flushing
from app.store import engine
from tests.chaos.content import HOUR_US, T0_US, Content, Held, audited, first_hour, held, numbers, second_hour
from tests.support.crash import Nursery, Outcome, places
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

#: So many elements are claimed at once, so that a run has several claims.
CLAIM_BATCHES = 4


def _assert_complete(rig: Rig, content: Content) -> Held:
    found = held(rig)
    assert found.facts() == content.expected
    assert audited(rig) == []
    return found


def _replays_to_come(rig: Rig, found: Held) -> int:
    """Units that wait in the lists and are stored already, or wait there twice: the next run has to count them."""
    buffer, units = rig.wiring().buffer, 0
    seen: set[bytes] = set()
    for depth in buffer.depths():
        for element in buffer.head(depth.stream, 1000, 2**30):
            ranges = numbers(element)
            if element in seen or found.covers(ranges):
                units += sum(last - first + 1 for *_, first, last in ranges)
            seen.add(element)
    return units


def _killed_at_every_boundary(
    nursery: Nursery,
    attempts: Callable[[int], Rig],
    run: dict[str, Any],
    again: dict[str, Any],
    check: Callable[[Rig], None],
    *,
    effects: bool = True,
    prefix: str = "",
) -> list[str]:
    """Kill a run at one boundary after the other, each time afresh; run again; check. Returns the boundaries of a run."""

    def attempt(number: int, kill_at: int | None) -> tuple[Rig, Outcome]:
        rig = attempts(number)
        options = {"claim_batches": CLAIM_BATCHES, **run}
        return rig, nursery.run("flush", rig.path, kill_at=kill_at, effects=effects, prefix=prefix, **options)

    whole = attempt(0, None)[1].passed
    ours = [index for index, name in enumerate(whole, 1) if name.startswith(prefix)]
    for number in places(whole) if effects else range(1, len(ours) + 2):
        rig, outcome = attempt(number, number)
        assert outcome.was_killed == (number <= len(ours))
        assert outcome.passed == (whole[: ours[number - 1]] if outcome.was_killed else whole)
        if outcome.was_killed:
            _finish(nursery, rig, again)
        try:
            check(rig)
        except AssertionError as error:
            error.add_note(f"killed at boundary {number}: {outcome.passed[-3:]}")
            raise
    return whole


def _finish(nursery: Nursery, rig: Rig, again: dict[str, Any]) -> None:
    before = held(rig)
    expected = _replays_to_come(rig, before)
    outcome = nursery.run("flush", rig.path, claim_batches=CLAIM_BATCHES, **again)
    assert (outcome.result["failed"], outcome.result["replays"]) == ({}, expected)
    assert held(rig).replays == before.replays + expected
    assert rig.wiring().buffer.depths() == []


@pytest.mark.exhaustive
@pytest.mark.row("K2")
@pytest.mark.row("K3")
def test_a_first_run_killed_at_any_boundary_stores_everything_once_when_it_runs_again(
    nursery: Nursery, tmp_path: Path, redis_server: RedisProcess
) -> None:
    content = Content()
    first_hour(content)

    def attempt(number: int) -> Rig:
        rig = _rig(tmp_path / str(number), redis_server.url)
        content.push(rig.wiring().buffer)
        return rig

    now = {"now_us": T0_US}
    passed = _killed_at_every_boundary(nursery, attempt, now, now, lambda rig: _whole(rig, content))
    steps = {name for name in passed if not name.startswith("effect.")}
    assert steps == {"segment.before_create", "flush.before_commit", "flush.after_commit", "flush.after_acknowledge"}
    assert passed.count("flush.after_acknowledge") == 4


@pytest.mark.exhaustive
def test_a_run_that_turns_the_hour_killed_at_any_boundary_seals_once_and_stores_everything_once(
    nursery: Nursery, tmp_path: Path, redis_server: RedisProcess
) -> None:
    content = Content()
    first_hour(content)
    split = len(content.elements)
    before = _rig(tmp_path / "before", redis_server.url)
    content.push(before.wiring().buffer)
    nursery.run("flush", before.path, claim_batches=CLAIM_BATCHES, now_us=T0_US)
    second_hour(content)

    def attempt(number: int) -> Rig:
        rig = _rig(tmp_path / str(number), redis_server.url)
        shutil.copytree(before.directory / "data", rig.directory / "data")
        content.push(rig.wiring().buffer, content.elements[split:])
        return rig

    def check(rig: Rig) -> None:
        _whole(rig, content)
        sealed, filled = rig.wiring().ledger.segments()
        assert (sealed.state, sealed.rows, sealed.opened_us) == ("sealed", 18, T0_US)
        assert (filled.state, filled.opened_us) == ("open", T0_US + HOUR_US)
        file = rig.settings.storage.segments_path / sealed.path
        assert [path.name for path in file.parent.glob(f"{file.name}*")] == [file.name]  # its log is in the file

    now = {"now_us": T0_US + HOUR_US}
    passed = _killed_at_every_boundary(nursery, attempt, now, now, check)
    steps = ["seal.before_ledger", "seal.before_mark", "seal.after_mark", "seal.after_settle", "segment.before_create"]
    assert [name for name in passed if name in steps] == steps


def test_a_run_killed_before_the_hour_turns_is_finished_by_one_after_it(
    nursery: Nursery, tmp_path: Path, redis_server: RedisProcess
) -> None:
    content = Content()
    first_hour(content)

    def attempt(number: int) -> Rig:
        rig = _rig(tmp_path / str(number), redis_server.url)
        content.push(rig.wiring().buffer)
        return rig

    def check(rig: Rig) -> None:
        found = held(rig)
        # What is alone in its batch, a loss or a finding, has no numbers that could show the replay: each file names it,
        # the ledger once.
        assert found.losses.keys() == content.expected.losses.keys()
        assert found.findings.keys() == content.expected.findings.keys()
        found.losses, found.findings = content.expected.losses, content.expected.findings
        assert found.facts() == content.expected

    now, later = {"now_us": T0_US}, {"now_us": T0_US + HOUR_US}
    _killed_at_every_boundary(nursery, attempt, now, later, check, effects=False, prefix="flush.after_commit")


def _rig(directory: Path, url: str) -> Rig:
    directory.mkdir()
    return Rig(directory, url)


def _whole(rig: Rig, content: Content) -> None:
    assert _assert_complete(rig, content).replays >= content.replays


@pytest.mark.exhaustive
def test_two_flushers_at_once_lose_nothing_and_store_nothing_twice(nursery: Nursery, rig: Rig) -> None:
    content = Content()
    connections = [content.connection(f"okx-{n}-trade", 10 + n, T0_US) for n in range(2)]
    for number in range(250):
        for slot, c in enumerate(connections):
            first = 3 * number
            trades = [
                c.trade(f"COIN{slot}-USDT", first + i) for i in range(4)
            ]  # the last comes again in the next batch
            c.push(*trades)
    flushers = [
        nursery.start("flush_until_told", rig.path, claim_batches=claim, seal_every=every)
        for claim, every in ((3, 10**9), (5, 7))
    ]
    wiring = rig.wiring()
    for start in range(0, len(content.elements), 10):
        content.push(wiring.buffer, content.elements[start : start + 10])
        _until(lambda: sum(depth.batches for depth in wiring.buffer.depths()) < 60)
    wiring.redis.set(f"{rig.prefix}:enough", 1)
    done = [flusher.wait().result for flusher in flushers]
    found = _assert_complete(rig, content)
    assert sum(d["stored"] for d in done) == len(content.expected.rows)
    assert sum(d["replays"] for d in done) == found.replays
    assert [d["failed"] for d in done] == [[], []]
    assert wiring.ledger.segments("sealed"), (
        "each of them keeps the others from settling what it has open; not for ever"
    )


def _until(condition: Callable[[], bool], deadline_s: float = 60) -> None:
    tick = threading.Event()
    for _ in range(int(deadline_s / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError(f"not so within {deadline_s:g} s")


def test_what_another_flusher_stored_after_the_claim_was_read_is_a_replay(rig: Rig) -> None:
    """The other one goes further meanwhile, so that its range no longer ends where this claim begins."""
    content = Content()
    c = content.connection("okx-0-trade", 20, T0_US)
    for number in range(6):
        c.push(c.trade("BTC-USDT", 2 * number), c.trade("BTC-USDT", 2 * number + 1))
    content.push(rig.wiring().buffer)
    raced: list[int] = []

    def other_goes_first(name: str) -> None:
        claims.append(name)
        if claims.count("flush.before_commit") == 2 and not raced:
            raced.append(rig.wiring().flush().run().counts.stored)

    claims: list[str] = []
    with _claims_of(2):
        report = rig.wiring(step=other_goes_first).flush().run()
    assert raced == [8]
    assert (report.failed, report.counts.stored, report.counts.replays) == ({}, 4, 4)
    assert _assert_complete(rig, content).replays == 4


@contextmanager
def _claims_of(batches: int) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(flushing, "CLAIM_BATCHES", batches)
    try:
        yield
    finally:
        patch.undo()


@pytest.mark.exhaustive
def test_a_flusher_that_sleeps_at_any_step_while_its_segment_is_archived_and_removed_loses_nothing(
    tmp_path: Path, redis_server: RedisProcess
) -> None:
    """As on a paused machine: its locks have run out, another one did everything, and then it goes on.

    While it has the file open nobody settles that, and it waits to be archived; what is stored meanwhile goes elsewhere.
    """
    number = 0
    steps: list[str] = []
    while number <= len(steps):
        number += 1
        rig = _rig(tmp_path / str(number), redis_server.url)
        content = Content()
        steps, removed = _sleep_at(number, rig, content)
        final = rig.wiring().flush().run()
        assert (final.failed, rig.wiring().buffer.depths()) == ({}, [])
        try:
            assert held(rig).facts() == content.expected
        except AssertionError as error:
            error.add_note(f"slept at step {number}: {steps}")
            raise
        assert 1 in removed or number > len(steps) or steps[number - 1].startswith("flush.")
    assert {"segment.before_create", "flush.before_commit", "flush.after_commit", "seal.before_ledger"} <= {*steps}


def _sleep_at(number: int, rig: Rig, content: Content) -> tuple[list[str], list[int]]:
    """Fill a segment and go on filling it; at the n-th step another process stores, seals, archives and removes, and new
    batches come. Returns the steps and the segments that were removed."""
    c = content.connection("okx-0-trade", 21, T0_US)
    steps: list[str] = []
    removed: list[int] = []

    def push() -> None:
        split = len(content.elements)
        for _ in range(3):
            first = 2 * len(content.elements)
            c.push(c.trade("BTC-USDT", first), c.trade("BTC-USDT", first + 1))
        content.push(rig.wiring().buffer, content.elements[split:])

    def sleep(name: str) -> None:
        steps.append(name)
        if len(steps) == number:
            other = rig.wiring()
            flush = other.flush()
            flush.turn_over(flush.run(), now=True)
            removed.extend(other.archive().run(final=True).removed_segments)
            push()

    push()
    rig.wiring().flush().run()
    push()
    sleeper = rig.wiring(step=sleep).flush()
    # The file may have gone from under it: that run fails, and the next one goes on.
    with _claims_of(2), suppress(DBAPIError):
        sleeper.turn_over(sleeper.run(), now=True)
    return steps, removed


@pytest.mark.row("D1")
def test_a_claim_stays_in_redis_while_the_segment_is_locked_and_is_stored_afterwards(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content()
    first_hour(content)
    content.push(rig.wiring().buffer, content.elements[:1])
    report = rig.wiring().flush().run()
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    content.push(rig.wiring().buffer, content.elements[1:])
    waiting = rig.wiring().buffer.depths()
    path = rig.settings.storage.segments_path / rig.wiring().ledger.segments()[0].path
    locker = sqlite3.connect(path, isolation_level=None)
    stored = []

    def lock(name: str) -> None:
        stored.append(name)
        if name == "flush.before_commit" and not locker.in_transaction:
            locker.execute("BEGIN IMMEDIATE")

    report = rig.wiring(step=lock).flush().run()
    assert report.failed == {"binance-0-orderbook.trade": "locked", "coinbase-0-orderbook.trade": "locked"}
    assert "flush.after_commit" not in stored
    assert rig.wiring().buffer.depths() == waiting
    locker.execute("ROLLBACK")
    locker.close()
    assert rig.wiring().flush().run().failed == {}
    assert rig.wiring().buffer.depths() == []
    assert _assert_complete(rig, content).replays == content.replays


@pytest.mark.row("D2")
def test_a_claim_stays_in_redis_while_the_disk_is_full_and_is_stored_when_there_is_room(rig: Rig) -> None:
    content = Content()
    c = content.connection("okx-0-trade", 22, T0_US)
    c.push(c.trade("BTC-USDT", 1))
    content.push(rig.wiring().buffer)
    rig.wiring().flush().run()
    split = len(content.elements)
    d = content.connection("okx-1-trade", 23, T0_US)
    c.push(*(c.event("BTC-USDT", TRADE, str(n), f'"{n:2000d}"') for n in range(2, 40)))
    d.push(d.trade("ETH-USDT", 1))
    content.push(rig.wiring().buffer, content.elements[split:])
    waiting = rig.wiring().buffer.depths()
    # PRAGMA max_page_count is what a full disk looks like to SQLite: SQLITE_FULL at the page that has no room.
    with _every_connection("PRAGMA max_page_count = 1"):
        report = rig.wiring().flush().run()
    assert report.failed["okx-0-trade"] == "full"
    assert [depth for depth in rig.wiring().buffer.depths() if depth.stream == "okx-0-trade"] == waiting[:1]
    assert rig.wiring().flush().run().failed == {}
    assert rig.wiring().buffer.depths() == []
    assert _assert_complete(rig, content).replays == 0


@contextmanager
def _every_connection(pragma: str) -> Iterator[None]:
    def connected(connection: Any, _record: Any) -> None:
        connection.execute(pragma)

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


@pytest.mark.row("R5")
def test_what_a_restored_redis_hands_out_again_is_counted_and_not_stored_again(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    """The append-only file of before the acknowledgement is put back, as an old replica or backup would."""
    rig = _rig(tmp_path / "rig", own_redis.url)
    content = Content()
    first_hour(content)
    content.push(rig.wiring().buffer)
    units = sum(depth.events for depth in rig.wiring().buffer.depths())
    own_redis.kill()
    files, copy = tmp_path / "own-redis", tmp_path / "copy"
    shutil.copytree(files, copy)
    own_redis.start()
    assert rig.wiring().flush().run().counts.replays == content.replays
    assert rig.wiring().buffer.depths() == []
    before = _assert_complete(rig, content).replays
    own_redis.kill()
    shutil.rmtree(files)
    shutil.copytree(copy, files)
    own_redis.start()
    report = rig.wiring().flush().run()
    garbage = 2
    assert (report.counts.stored, report.counts.replays) == (0, units + garbage)
    assert _assert_complete(rig, content).replays == before + units + garbage
    assert rig.wiring().buffer.depths() == []


@pytest.mark.row("R1")
def test_everything_pushed_before_redis_was_killed_is_stored_after_its_restart(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    rig = _rig(tmp_path / "rig", own_redis.url)
    content = Content()
    first_hour(content)
    content.push(rig.wiring().buffer, content.elements[:6])
    # What is pushed is in its file after a second, unless the disk is slow: then Redis keeps it back for longer.
    assert rig.wiring().redis.execute_command("WAITAOF", 1, 0, 10_000)[0] == 1
    own_redis.kill()
    with pytest.raises(BufferUnavailable):
        rig.wiring().flush().run()
    own_redis.start()
    content.push(rig.wiring().buffer, content.elements[6:])
    assert rig.wiring().flush().run().failed == {}
    assert _assert_complete(rig, content).replays == content.replays


@pytest.mark.row("K3")
def test_redis_killed_between_commit_and_acknowledgement_gives_replays_and_no_loss(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    rig = _rig(tmp_path / "rig", own_redis.url)
    content = Content()
    first_hour(content)
    content.push(rig.wiring().buffer)

    def kill(name: str) -> None:
        if name == "flush.after_commit":
            own_redis.kill()

    with pytest.raises(BufferUnavailable):
        rig.wiring(step=kill).flush().run()
    own_redis.start()
    before = held(rig)
    expected = _replays_to_come(rig, before)
    assert expected > content.replays
    report = rig.wiring().flush().run()
    assert (report.failed, report.counts.replays) == ({}, expected)
    assert _assert_complete(rig, content).replays == before.replays + expected
