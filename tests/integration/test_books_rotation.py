"""A recording in which connections were replaced while data flowed: its books go on over every change of connection."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from app.books.agreement import differences
from app.books.book import Book
from app.books.change import RestBook, Row
from app.books.rebuild import Applied, Rebuild, Verdict
from app.books.venues import VENUES
from app.commands.certificate import certificate
from app.objects import parquet
from app.pipeline import periodic
from app.wiring import Wiring
from tests.support import redis_process
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, finish, until
from tests.support.rig import CHECKOUT, MARKETS, Rig

pytestmark = pytest.mark.exhaustive

ONE_EACH = {exchange: symbols[0] for exchange, symbols in MARKETS.items()}
ROTATIONS = 2
#: What can be proved of each venue here: Binance's changes and trades, OKX's and Bybit's books, trades whose ids count.
COMPLETE = {
    ("binance", "orderbook"), ("binance", "trade"), ("coinbase", "trade"), ("okx", "orderbook"), ("okx", "trade"),
    ("bybit", "orderbook"),
}  # fmt: skip


class Recorded(NamedTuple):
    rig: Rig
    wiring: Wiring
    #: The venues' own books after the last event.
    books: dict[str, RestBook]
    objects: list[dict[str, Any]]

    def rows(self, exchange: str) -> list[Row]:
        """The archived rows of the order book of one venue."""
        (key,) = [
            key for key in self.wiring.store.keys(f"{exchange}/") if "/orderbook/" in key and key.endswith(".parquet")
        ]
        with self.wiring.store.open(key) as file:
            return [Row(*row) for chunk in parquet.read(file) for row in chunk]


@pytest.fixture(scope="module")
def recorded(redis_server: redis_process.RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    directory = tmp_path_factory.mktemp("rotation")
    exchanges = ExchangeProcess(directory / "server", rate=50)
    try:
        yield _record(exchanges, directory, redis_server.url)
    finally:
        exchanges.stop()


def _record(exchanges: ExchangeProcess, directory: Path, redis_url: str) -> Recorded:
    rig = Rig(directory, redis_url)
    venues = exchanges.venues
    changes = {**venues, "binance": {**venues["binance"], "orderbook_channel": "depth@100ms"}}
    markets = {exchange: [symbol] for exchange, symbol in ONE_EACH.items()}
    rig.write(markets, changes, websocket={"rotate_secs": 1.5})
    wiring = rig.wiring()

    def rotated() -> int:
        states = wiring.board.states(list(wiring.streams))
        return min(
            (states.get(name, {}).get("closes", {}).get("planned_rotation", 0) for name in wiring.streams), default=0
        )

    with Collecting(wiring) as collecting:
        until(lambda: rotated() >= ROTATIONS, f"each stream renewed its connection {ROTATIONS} times", 60)
        exchanges.halt()
        collecting.finish()
    books = {}
    for exchange, venue in VENUES.items():
        if venue.rest_path is not None:
            url = venues[exchange]["rest_url"] + venue.rest_path(ONE_EACH[exchange])
            books[exchange] = venue.rest(httpx.get(url, trust_env=False, timeout=10).content)
    periodic.flush(wiring, NEVER)
    periodic.certify(wiring, NEVER, final=True)
    finish(wiring)
    return Recorded(rig, wiring, books, _certified(rig, wiring))


def _certified(rig: Rig, wiring: Wiring) -> list[dict[str, Any]]:
    """What `collector certificate` says of every object."""
    said = []
    (entry,) = {o.segment: o for o in wiring.ledger.objects() if o.rows}.values()
    opened_us = next(s.opened_us for s in wiring.ledger.segments() if s.number == entry.segment)
    hour = f"{datetime.fromtimestamp(opened_us / 1e6, UTC):%Y-%m-%dT%H}"
    for exchange, symbol in ONE_EACH.items():
        arguments = ["--market", f"{exchange}/{symbol}", "--hour", hour, "--json"]
        answer = CliRunner(env={"CONFIG_PATH": str(rig.path)}).invoke(certificate, arguments)
        said += msgspec.json.decode(answer.stdout)["objects"]
    return said


def applied(recorded: Recorded, exchange: str) -> tuple[Rebuild, list[tuple[Row, Applied]]]:
    rebuild = Rebuild(exchange, ONE_EACH[exchange])
    return rebuild, [(row, rebuild.apply(row)) for row in recorded.rows(exchange)]


@pytest.mark.parametrize("exchange", ["okx", "bybit"])
def test_a_book_goes_on_over_every_change_of_connection(recorded: Recorded, exchange: str) -> None:
    rebuild, found = applied(recorded, exchange)
    assert len({row.epoch for row, _ in found}) > ROTATIONS
    assert {one.verdict for _, one in found} <= {Verdict.SNAPSHOT, Verdict.DELTA, Verdict.OLDER}
    assert all(seam.joined for seam in rebuild.decided)
    assert rebuild.book is not None
    assert differences(rebuild.book, recorded.books[exchange]) == []


@pytest.mark.parametrize("exchange", ["okx", "bybit"])
def test_the_snapshot_of_a_new_connection_takes_nothing_back(recorded: Recorded, exchange: str) -> None:
    """Each is the book that stands, or an older one and left aside: the numbers of the book never fall."""
    rebuild = Rebuild(exchange, ONE_EACH[exchange])
    snapshots, at = 0, 0
    for row in recorded.rows(exchange):
        change = rebuild.read(row)
        before = rebuild.book
        verdict = rebuild.take(change, row).verdict
        assert rebuild.number is not None and rebuild.number >= at
        at = rebuild.number
        if change.whole:
            snapshots += 1
            assert change.number is not None
            assert verdict is (Verdict.SNAPSHOT if change.number == at else Verdict.OLDER)
            assert verdict is Verdict.SNAPSHOT or rebuild.book is before
    assert snapshots > ROTATIONS


def test_the_example_rebuilds_the_book_from_the_archive_alone(recorded: Recorded) -> None:
    objects = str(recorded.rig.settings.storage.local_path)
    for exchange in ("okx", "bybit", "upbit"):
        command = [
            sys.executable,
            str(CHECKOUT / "examples" / "rebuild_book.py"),
            objects,
            exchange,
            ONE_EACH[exchange],
        ]
        answer = subprocess.run(
            [*command, "--levels", "3"],
            env=recorded.rig.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (answer.returncode, answer.stderr) == (0, "")
        head, *levels = answer.stdout.splitlines()
        venue = recorded.books[exchange]
        theirs = Book(venue.bids, venue.asks)
        assert [(side, Decimal(price), Decimal(size)) for side, price, size in map(str.split, levels)] == [
            *(("ask", *level) for level in reversed(theirs.asks.top(3))),
            *(("bid", *level) for level in theirs.bids.top(3)),
        ]
        assert ("continuity is proved" in head) is (exchange != "upbit")


def test_connections_of_coinbase_are_series_of_their_own_and_each_is_a_book(recorded: Recorded) -> None:
    _, found = applied(recorded, "coinbase")
    begun: set[str] = set()
    for row, one in found:
        assert one.verdict is (Verdict.DELTA if row.epoch in begun else Verdict.SNAPSHOT)
        begun.add(row.epoch)
    assert len(begun) > ROTATIONS


def test_changes_of_binance_follow_one_another_over_all_connections_upon_a_book_that_was_asked_for(
    recorded: Recorded,
) -> None:
    rebuild, found = applied(recorded, "binance")
    assert len({row.epoch for row, _ in found}) > ROTATIONS
    assert {one.continuity.value for _, one in found} <= {"start", "proved", "pending"}
    assert all(seam.joined for seam in rebuild.decided)
    asked = [one.verdict for row, one in found if row.exchange_sequence_id.startswith("rest-")]
    assert asked[0] is Verdict.SNAPSHOT
    assert {*asked} <= {Verdict.SNAPSHOT, Verdict.OLDER}
    assert rebuild.book is not None
    assert rebuild.number == recorded.books["binance"].number
    assert differences(rebuild.book, recorded.books["binance"]) == []


def test_whole_books_of_upbit_never_go_back_in_time(recorded: Recorded) -> None:
    rebuild, at = Rebuild("upbit", ONE_EACH["upbit"]), 0
    for row in recorded.rows("upbit"):
        rebuild.apply(row)
        assert rebuild.number is not None and rebuild.number >= at
        at = rebuild.number


def test_what_the_venues_number_is_certified_complete_over_every_change_of_connection(recorded: Recorded) -> None:
    said = {(one["exchange"], one["data_type"]): one for one in recorded.objects}
    assert len(said) == 2 * len(MARKETS)
    whole = {key: one["completeness_reasons"] for key, one in said.items() if key in COMPLETE}
    assert whole == {key: [] for key in COMPLETE}
    assert {key for key, one in said.items() if one["completeness"] == 1.0} == COMPLETE
    assert {one["completeness"] for key, one in said.items() if key not in COMPLETE} == {None}
    assert all(len(one["epochs"]) > ROTATIONS and one["gaps"] == one["losses"] == [] for one in said.values())
