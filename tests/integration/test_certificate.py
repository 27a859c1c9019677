"""`collector certificate`: what the archive says of an hour, at sealing and with everything found out later."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from app.codec import BatchCodec
from app.commands.certificate import certificate as command
from app.model import Check, Gap, Loss, Repair
from app.pipeline import periodic
from app.wiring import Wiring
from tests.support.batches import OPENED_US, batch, event
from tests.support.path import NEVER, flush_at
from tests.support.rig import Rig

HOUR_US = 3_600_000_000
GAP = Gap("btcusdt", "trade", 3, "3", "5", 3, OPENED_US + 2, OPENED_US + 6, "missing_ids")
#: Beginning of the hour of `OPENED_US`, as the command takes it.
HOUR = f"{datetime.fromtimestamp(OPENED_US / 1e6, UTC):%Y-%m-%dT%H}"
MARKET = "binance/btcusdt"


def put(wiring: Wiring, made: Any, at_us: int) -> None:
    """Store a batch in the segment that is open at `at_us`."""
    wiring.buffer.push(made.stream, BatchCodec().encode(made))
    assert flush_at(wiring, at_us).failed == {}


def certificate(rig: Rig, market: str = MARKET, hour: str = HOUR) -> tuple[int, list[dict[str, Any]]]:
    arguments = ["--market", market, "--hour", hour, "--json"]
    answer = CliRunner(env={"CONFIG_PATH": str(rig.path)}).invoke(command, arguments)
    assert isinstance(answer.exception, SystemExit) or answer.exception is None
    return answer.exit_code, json.loads(answer.stdout)["objects"]


def finding(number: int, *, epoch: str, events: Any = (), **records: Any) -> Any:
    return batch(number, events, epoch=epoch, stream="binance-findings", kind="finding", **records)


@pytest.fixture
def holed(rig: Rig) -> Wiring:
    """An hour with trades 1, 2, 6 and 7 and the gap between, archived; nothing was found out yet."""
    rig.write({"binance": ["btcusdt"]})
    wiring = rig.wiring()
    trades = [event(n, str(identity)) for n, identity in enumerate((1, 2, 6, 7), 1)]
    put(wiring, batch(1, trades, gaps=[GAP]), OPENED_US)
    flush_at(wiring, OPENED_US + HOUR_US)
    assert periodic.archive(wiring, NEVER)["failed"] == {}
    return wiring


def test_an_hour_says_what_is_missing_and_what_was_found_since(rig: Rig, holed: Wiring) -> None:
    code, (before,) = certificate(rig)
    assert (code, before["completeness"], before["completeness_at_sealing"]) == (1, 4 / 7, 4 / 7)
    assert before["ids"] == {"first": 1, "last": 7, "holes": [[3, 5]]}
    assert (before["gaps"][0]["repair"], before["findings_from"]) == (None, "ledger")

    found = Repair("btcusdt", "trade", batch(1, []).epoch, 3, OPENED_US + HOUR_US, "repaired", 3)
    later = [event(n, str(n + 2)) for n in (1, 2, 3)]
    put(holed, finding(1, epoch="1d" * 16, events=later, repairs=(found,)), OPENED_US + HOUR_US)
    code, (now,) = certificate(rig)
    assert (code, now["completeness"], now["completeness_at_sealing"]) == (0, 1.0, 4 / 7)
    assert (now["gaps"][0]["repair"], now["gaps"][0]["found"]) == ("repaired", 3)

    periodic.flush(holed, NEVER, seal=True)
    assert periodic.archive(holed, NEVER, final=True)["failed"] == {}
    assert certificate(rig)[1][0] == now, "from the ledger, the segments being gone"

    words = rig.collector("certificate", "--market", MARKET, "--hour", HOUR)
    assert words.stdout.splitlines()[0].split() == [
        "trade", "1.0", "4", "rows,", "0", "duplicates,", "0", "open", "of", "1", "gaps,", "0", "losses,", "0", "checks",
        now["key"],
    ]  # fmt: skip
    assert "when it was archived: 0.571428571" in words.stdout


def test_without_the_ledger_later_manifests_say_it(rig: Rig, holed: Wiring) -> None:
    found = Repair("btcusdt", "trade", batch(1, []).epoch, 3, OPENED_US + HOUR_US, "repaired", 3)
    later = [event(n, str(n + 2)) for n in (1, 2, 3)]
    put(holed, finding(1, epoch="1d" * 16, events=later, repairs=(found,)), OPENED_US + HOUR_US)
    periodic.flush(holed, NEVER, seal=True)
    assert periodic.archive(holed, NEVER, final=True)["failed"] == {}
    for path in rig.settings.database.path.parent.glob("collector.db*"):
        path.unlink()
    code, (now,) = certificate(rig)
    assert (code, now["completeness"], now["findings_from"]) == (0, 1.0, "later manifests")


def test_a_loss_found_later_takes_the_certainty_away(rig: Rig) -> None:
    rig.write({"binance": ["btcusdt"]})
    wiring = rig.wiring()
    put(wiring, batch(1, [event(1), event(2)]), OPENED_US)
    flush_at(wiring, OPENED_US + HOUR_US)
    periodic.archive(wiring, NEVER)
    assert certificate(rig)[0] == 0
    dead = Loss("btcusdt", "trade", 3, 3, None, OPENED_US + 2, OPENED_US + HOUR_US, "process_died")
    put(wiring, finding(2, epoch=batch(1, []).epoch, losses=[dead]), OPENED_US + HOUR_US)
    code, (now,) = certificate(rig)
    assert (code, now["completeness"], now["completeness_at_sealing"]) == (1, None, 1.0)
    assert "process_died" in now["completeness_reasons"][0]


def test_a_book_is_complete_once_its_checks_cover_it(rig: Rig) -> None:
    rig.write({"binance": ["btcusdt"]})
    wiring = rig.wiring()
    rows = [event(n, f"d-{n}", feed="orderbook") for n in (1, 2)]
    first, last = rows[0].received_us, rows[1].received_us
    put(wiring, batch(1, rows), OPENED_US)
    flush_at(wiring, OPENED_US + HOUR_US)
    periodic.archive(wiring, NEVER)
    code, (before,) = certificate(rig)
    assert (code, before["completeness"]) == (1, None)
    proof = Check("btcusdt", "orderbook", "continuity", first, last, "proved", OPENED_US + HOUR_US)
    put(wiring, finding(1, epoch="1d" * 16, checks=(proof,)), OPENED_US + HOUR_US)
    assert [one["completeness"] for one in certificate(rig)[1]] == [1.0]


def test_an_hour_without_objects_and_a_market_that_is_none_are_told(rig: Rig) -> None:
    rig.wiring().store.prepare()
    runner = CliRunner(env={"CONFIG_PATH": str(rig.path)})
    answer = runner.invoke(command, ["--market", MARKET, "--hour", HOUR])
    assert answer.exit_code == 1
    words = f"no object of {MARKET} in that hour: not recorded, or not archived yet (collector archive)\n"
    assert answer.stdout == words
    wrong = runner.invoke(command, ["--market", "btcusdt", "--hour", HOUR])
    assert wrong.exit_code == 2
    assert "write EXCHANGE/SYMBOL, such as binance/btcusdt" in wrong.stderr
