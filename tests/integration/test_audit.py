"""`collector audit` against real Redis, files and objects: what agrees is balanced, and each thing that does not is named."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from app.cli import collector
from app.codec import BatchCodec
from app.model import Batch, EpochEnd, Loss, Market, Range
from app.objects import layout, manifest, parquet
from app.pipeline import periodic
from app.pipeline.audit import Audit, audit
from app.pipeline.survey import survey
from app.wiring import Wiring
from tests.support.batches import OPENED_US, STREAM, batch, event, undecoded
from tests.support.path import NEVER, finish, until
from tests.support.rig import Rig

A, B = "0a" * 16, "0b" * 16


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"binance": ["btcusdt"]})
    made = rig.wiring()
    made.board.publish(STREAM, {"epoch": A}, 60)
    return made


def push(wiring: Wiring, *batches: Batch) -> None:
    codec = BatchCodec()
    for one in batches:
        assert wiring.buffer.push(one.stream, codec.encode(one)) is not None


def trades(number: int, first: int, last: int, **more: Any) -> Batch:
    return batch(number, [event(n) for n in range(first, last + 1)], **{"epoch": A, **more})


def flush(wiring: Wiring, **more: Any) -> None:
    assert periodic.flush(wiring, NEVER, **more)["failed"] == {}


def spool(wiring: Wiring, one: Batch) -> None:
    held = wiring.spool(one.stream)
    assert held.lock()
    held.append(BatchCodec().encode(one))
    held.close()


def archived(wiring: Wiring, last: int = 6) -> Path:
    """One object with the trades 1..last of an epoch that ended; its path."""
    end = EpochEnd(OPENED_US + last + 1, "stop", (Range("btcusdt", "trade", 1, last),))
    push(wiring, trades(1, 1, last, end=end))
    finish(wiring)
    (key,) = (key for key in wiring.store.keys("") if key.endswith(".parquet"))
    assert audit(wiring, deep=True).differences == []
    return wiring.settings.storage.local_path / key


def only(found: Audit) -> tuple[str, str, str]:
    (difference,) = found.differences
    return difference.what, difference.where, difference.why


def test_every_place_of_the_path_is_counted_once_and_the_command_says_it_is_balanced(rig: Rig, wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 5))
    finish(wiring)
    lost = Loss("btcusdt", "trade", 10, 11, 2, OPENED_US, OPENED_US, "queue_full")
    push(wiring, trades(2, 5 + 1, 7), batch(3, [event(8, "6"), event(9, "6"), undecoded(1)], epoch=A, losses=[lost]))
    push(wiring, trades(2, 6, 7))
    flush(wiring)
    push(wiring, trades(4, 12, 14))
    spool(wiring, trades(5, 15, 15))
    found = audit(wiring, deep=True)
    assert found.differences == []
    (undecodable, balance) = found.balances
    assert (undecodable.feed, undecodable.received, undecodable.quarantined) == ("?", 1, 1)
    assert (balance.received, balance.archived, balance.segments, balance.redis, balance.spool) == (15, 5, 2, 3, 1)
    assert (balance.duplicates, balance.lost, balance.replays, balance.holes) == (2, 2, 2, 0)
    assert (found.epochs_open, found.manifests, found.rows) == ([A], 1, 5)

    done = CliRunner().invoke(collector, ["audit", "--deep"], env={"CONFIG_PATH": str(rig.path)})
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "balanced: each of 16 received events is accounted for"
    told = json.loads(CliRunner().invoke(collector, ["audit", "--json"], env={"CONFIG_PATH": str(rig.path)}).stdout)
    assert (told["balanced"], told["totals"]["received"], told["differences"]) == (True, 16, [])
    assert {feed["feed"]: feed["received"] for feed in told["feeds"]} == {"?": 1, "trade": 15}


def test_numbers_that_nothing_explains_are_named_with_exit_code_1(rig: Rig, wiring: Wiring) -> None:
    """While the later ones wait in Redis; the flush that stores these declares them."""
    push(wiring, trades(1, 1, 3))
    flush(wiring)
    push(wiring, trades(3, 6, 9))
    done = CliRunner().invoke(collector, ["audit", "--json"], env={"CONFIG_PATH": str(rig.path)})
    told = json.loads(done.stdout)
    assert (done.exit_code, told["balanced"], told["totals"]["holes"]) == (1, False, 2)
    assert told["differences"] == [
        {
            "what": "numbers 4..5",
            "where": f"binance/btcusdt trade, epoch {A}",
            "why": "received, and neither stored, waiting, a duplicate, quarantined nor declared lost",
        }
    ]
    flush(wiring)
    found = audit(wiring)
    assert (found.differences, found.totals()["lost"]) == ([], 2)


def test_a_redis_that_cannot_be_asked_is_exit_code_2_and_no_verdict(rig: Rig, wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 3))
    flush(wiring)
    nobody = {"CONFIG_PATH": str(rig.path), "COLLECTOR_REDIS__URL": "redis://127.0.0.1:1/0"}
    done = CliRunner().invoke(collector, ["audit", "--json"], env=nobody)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    unknown = CliRunner().invoke(collector, ["audit", "--market", "btcusdt"], env={"CONFIG_PATH": str(rig.path)})
    assert (unknown.exit_code, "EXCHANGE/SYMBOL" in unknown.stderr) == (2, True)


def test_an_epoch_that_nobody_has_is_named_until_it_is_declared(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 3))
    push(wiring, msgspec.structs.replace(batch(1, [event(1, "77")], epoch=B), opened_us=OPENED_US + 9_000_000))
    flush(wiring)
    wiring.board.publish(STREAM, {"epoch": B}, 60)
    found = audit(wiring)
    assert only(found)[:2] == (f"stream {STREAM}", f"binance, epoch {A}")
    periodic.reckon(wiring, NEVER, look_again_s=0)
    flush(wiring)
    found = audit(wiring)
    assert (found.differences, found.totals()["unknown_losses"], found.epochs_open) == ([], 2, [B])


def test_a_row_deleted_from_a_segment_by_hand_is_named(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 4))
    flush(wiring)
    (entry,) = wiring.ledger.segments()
    path = wiring.settings.storage.segments_path / entry.path
    with sqlite3.connect(path) as by_hand:
        by_hand.execute("DELETE FROM trades WHERE exchange_sequence_id = '3'")
    by_hand.close()
    expected = ("segment 1, binance/btcusdt trade", str(path), "it holds 3 rows, and its ranges say 4")
    assert only(audit(wiring)) == expected
    with sqlite3.connect(path) as by_hand:
        by_hand.execute(
            "INSERT INTO trades SELECT 99, exchange, symbol, 'x', timestamp_collector, timestamp_exchange, data, ?"
            " FROM trades LIMIT 1", (B,),
        )  # fmt: skip
    by_hand.close()
    assert audit(wiring).differences == [], "as many rows as there should be"
    assert only(audit(wiring, deep=True))[2] == f"3 rows of epoch {A}, and its ranges say 4"


def test_a_manifest_with_fewer_rows_is_named(wiring: Wiring) -> None:
    path = archived(wiring)
    beside = path.parent / f"_{path.stem}.json"
    told = manifest.decode(beside.read_bytes())
    beside.chmod(0o644)
    beside.write_bytes(manifest.encode(msgspec.structs.replace(told, rows=5)))
    found = audit(wiring)
    assert found.differences[0].what == f"manifest of {told.key}"
    assert found.differences[0].why.startswith("it describes 5 rows ")
    assert found.differences[1].what == "numbers 1..6"
    beside.unlink()
    assert audit(wiring).differences[0].what == f"manifest of {told.key}"


def test_an_object_with_another_row_is_found_by_deep_alone(wiring: Wiring, tmp_path: Path) -> None:
    path = archived(wiring)
    with path.open("rb") as file:
        (rows,) = list(parquet.read(file))
    identity, *rest = rows[2]
    changed = [*rows[:2], (identity, *rest[:-1], B), *rows[3:]]
    path.chmod(0o644)
    path.unlink()
    written = parquet.write(path, [changed], exchange="binance", symbol="btcusdt", data_type="trade", metadata={})
    assert audit(wiring).differences == []
    key = str(path.relative_to(wiring.settings.storage.local_path))
    what, _, why = only(audit(wiring, deep=True))
    assert (what, why.split(",")[0]) == (f"object {key}", f"its bytes have sha256 {written.sha256}")
    # And where manifest and ledger are made to agree with it, too: its rows are of another connection.
    beside = wiring.settings.storage.local_path / layout.manifest_key(key)
    told = manifest.decode(beside.read_bytes())
    beside.chmod(0o644)
    beside.write_bytes(manifest.encode(msgspec.structs.replace(told, sha256=written.sha256)))
    with sqlite3.connect(wiring.ledger.path) as by_hand:
        by_hand.execute("UPDATE objects SET sha256 = ?", (written.sha256,))
    by_hand.close()
    assert audit(wiring).differences == []
    assert sorted(d.why for d in audit(wiring, deep=True).differences) == [
        f"1 rows of epoch {B}, and its manifest says 0", f"5 rows of epoch {A}, and its manifest says 6",
    ]  # fmt: skip


def test_a_segment_that_is_gone_or_unreadable_is_named(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 4))
    flush(wiring, seal=True)
    (entry,) = wiring.ledger.segments()
    path = wiring.settings.storage.segments_path / entry.path
    path.rename(path.with_suffix(".away"))
    assert audit(wiring).differences[0].why == "it cannot be read: the file is not there"
    path.write_bytes(b"no database at all" * 1000)
    assert audit(wiring).differences[0].why.startswith("it cannot be read: ")


def test_a_market_is_looked_at_alone(wiring: Wiring) -> None:
    other = [event(n, symbol="ethusdt") for n in (1, 2, 4)]
    push(wiring, trades(1, 1, 3), batch(2, other, epoch=A))
    assert audit(wiring, market=Market("binance", "btcusdt")).differences == []
    eth = audit(wiring, market=Market("binance", "ethusdt"))
    assert ([b.symbol for b in eth.balances], only(eth)[0]) == (["ethusdt"], "numbers 3..3")


def test_a_segment_that_is_archived_while_the_audit_reads_is_no_difference(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(wiring, trades(1, 1, 3))
    flush(wiring)

    def survey_and_then(*args: Any, **more: Any) -> Any:
        read = survey(*args, **more)
        push(wiring, trades(2, 4, 6))
        flush(wiring, seal=True)
        periodic.archive(wiring, NEVER)
        return read

    monkeypatch.setattr("app.pipeline.audit.survey", survey_and_then)
    assert audit(wiring).differences == []


@pytest.mark.timeout(60)
def test_an_audit_beside_a_running_flush_and_archive_never_sees_a_hole(wiring: Wiring) -> None:
    """Batches are pushed, spooled, drained, flushed, sealed, archived and removed while audits are made."""
    done = threading.Event()
    faults: list[BaseException] = []
    codec = BatchCodec()

    def threaded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                while not done.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001 - told to the test
                faults.append(error)
                done.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    number = 0
    held = wiring.spool(STREAM)
    assert held.lock()

    def produce() -> None:
        nonlocal number
        for _ in range(20):
            number += 1
            element = codec.encode(trades(number, 3 * number - 2, 3 * number))
            if number // 10 % 3 == 2 or held:
                held.append(element)
            else:
                assert wiring.buffer.push(STREAM, element) is not None
        if number // 10 % 3 != 2:
            held.drain(lambda element: wiring.buffer.push(STREAM, element) is not None)
        done.wait(0.005)

    def move_on() -> None:
        periodic.flush(wiring, NEVER, seal=number % 3 == 0)
        periodic.archive(wiring, NEVER)

    threads = [threaded(produce), threaded(move_on)]
    audits = []
    try:
        until(lambda: wiring.ledger.segments("removed"), "a segment is removed", 30)
        for _ in range(12):
            if done.is_set():
                break
            audits.append(audit(rig_again(wiring)))
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
        held.close()
    assert faults == []
    assert [found.differences for found in audits] == [[]] * 12
    received = [found.totals()["received"] for found in audits]
    assert received == sorted(received) and received[-1] > received[0]
    finish(wiring)
    assert audit(wiring, deep=True).totals()["archived"] == 3 * number


def rig_again(wiring: Wiring) -> Wiring:
    """Parts of its own, as another process has them."""
    return Wiring(wiring.settings)
