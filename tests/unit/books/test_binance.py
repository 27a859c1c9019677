"""Binance: changes upon a REST snapshot, as the venue's procedure has it, compared with its own best prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.books import binance
from app.books.rebuild import Continuity, Rebuild, Verdict
from tests.support.books import Levels, applied, binance_diff, binance_partial, captured, naive, row, shown

DIFFS, BEST, REST = (
    "binance/spot_depth_diff_combined.jsonl",
    "binance/spot_bookTicker_combined.jsonl",
    "binance/rest.jsonl",
)


def snapshot(frames: Path, symbol: str) -> str:
    lines = map(json.loads, (frames / REST).read_text().splitlines())
    return next(str(line["body_raw"]) for line in lines if f"/depth?symbol={symbol.upper()}&" in line["request"])


@pytest.mark.parametrize("symbol", ["nknusdt", "blzeth", "lrcbtc", "runeeur"])
def test_captured_changes_upon_a_captured_snapshot_give_the_best_prices_the_venue_told(
    frames: Path, symbol: str
) -> None:
    told = {
        ticker["u"]: (ticker["b"], ticker["B"], ticker["a"], ticker["A"])
        for ticker in (json.loads(line)["data"] for line in (frames / BEST).read_text().splitlines())
        if ticker["s"] == symbol.upper()
    }
    rebuild = Rebuild("binance", symbol)
    assert rebuild.apply(row(snapshot(frames, symbol), epoch="ee" * 16)).verdict is Verdict.SNAPSHOT
    compared = 0
    for one in captured(frames / DIFFS, lambda line: f'"{symbol}@' in line):
        assert rebuild.apply(one).verdict in (Verdict.DELTA, Verdict.OLDER)
        (bid, *_), (ask, *_) = shown(rebuild.book)
        if rebuild.number in told:
            assert (*bid, *ask) == told[rebuild.number]
            compared += 1
    assert compared or symbol != "nknusdt"


def test_captured_changes_make_the_book_that_plain_dictionaries_make(frames: Path) -> None:
    base = json.loads(snapshot(frames, "nknusdt"))
    rows = captured(frames / DIFFS, lambda line: '"nknusdt@' in line)
    diffs = [json.loads(one.data)["data"] for one in rows]
    later = [(False, d["b"], d["a"]) for d in diffs if d["u"] > base["lastUpdateId"]]
    rebuild = Rebuild("binance", "nknusdt")
    applied(rebuild, [row(json.dumps(base), epoch="ee" * 16), *rows])
    assert shown(rebuild.book, 5000) == naive([(True, base["bids"], base["asks"]), *later])


@pytest.mark.parametrize("removed", [5, 60, 140])
def test_a_captured_change_that_is_removed_is_missed_at_exactly_the_next_row(frames: Path, removed: int) -> None:
    rows = captured(frames / DIFFS, lambda line: '"nknusdt@' in line)
    del rows[removed]
    rebuild = Rebuild("binance", "nknusdt")
    found = applied(rebuild, [row(snapshot(frames, "nknusdt"), epoch="ee" * 16), *rows])
    refused = [n for n, one in enumerate(found[1:]) if one.verdict is Verdict.REFUSED]
    assert refused == list(range(removed, len(rows)))
    assert "nothing between" in found[1 + removed].detail


def test_partial_depth_is_the_whole_book_each_time(frames: Path) -> None:
    rebuild = Rebuild("binance", "ethusdt")
    (one,) = captured(frames / "binance/spot_partial_depth20_combined.jsonl", lambda line: True)
    assert rebuild.apply(one).verdict is Verdict.SNAPSHOT
    assert shown(rebuild.book) == (
        [("1782.00000000", "6.48300000"), ("1781.95000000", "0.03000000")],
        [("1782.01000000", "15.46080000"), ("1782.02000000", "0.00780000")],
    )
    assert rebuild.number == 17044571457


@pytest.mark.parametrize(
    "text",
    [binance_diff(1, 2, [], []), binance_partial(1, [], []), '{"stream":"ethusdt@depth","data":{}}', "{}", "[]", "?"],
)
def test_what_is_no_book_of_the_market_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        binance.read(text, "ethusdt")


def test_a_rest_answer_names_its_number() -> None:
    book = binance.rest(b'{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}')
    assert (book.number, len(book.bids), len(book.asks)) == (160, 1, 1)
    with pytest.raises(ValueError):
        binance.rest(b'{"code":-1121,"msg":"Invalid symbol."}')


def test_a_snapshot_that_was_asked_for_joins_the_changes_that_came_before_it(frames: Path) -> None:
    """Wherever it is stored among the changes: the book is the one that it makes before all of them."""
    base = snapshot(frames, "nknusdt")
    rows = captured(frames / DIFFS, lambda line: '"nknusdt@' in line)
    number = json.loads(base)["lastUpdateId"]
    joins = [n for n, one in enumerate(rows) if json.loads(one.data)["data"]["U"] <= number + 1]
    assert joins, "the capture reaches over its snapshot"
    wanted = Rebuild("binance", "nknusdt")
    applied(wanted, [row(base), *rows])
    for place in (joins[-1] + 1, joins[-1] + 2, len(rows)):
        rebuild = Rebuild("binance", "nknusdt")
        found = applied(rebuild, [*rows[:place], row(base, place), *rows[place:]])
        assert (found[place].verdict, found[place].continuity) == (Verdict.SNAPSHOT, Continuity.PROVED)
        assert {one.verdict for one in found[place + 1 :]} <= {Verdict.DELTA}
        assert shown(rebuild.book, 5000) == shown(wanted.book, 5000)


def rest_book(number: int, bids: Levels) -> str:
    return json.dumps({"lastUpdateId": number, "bids": bids, "asks": [("9", "1")]})


def test_a_snapshot_that_was_asked_for_after_a_hole_gives_the_book_back() -> None:
    rebuild = Rebuild("binance", "btcusdt")
    rows = [
        binance_diff(101, 110, [("1", "1")], []),
        rest_book(105, [("1", "1"), ("2", "2")]),
        binance_diff(121, 130, [("2", "0")], []),
        binance_diff(131, 140, [("3", "3")], []),
        rest_book(133, [("1", "1"), ("3", "9")]),
        binance_diff(141, 150, [("4", "4")], []),
    ]
    found = applied(rebuild, [row(text, n) for n, text in enumerate(rows)])
    assert [one.verdict.value for one in found] == ["refused", "snapshot", "refused", "refused", "snapshot", "delta"]
    assert [one.continuity.value for one in found] == ["start", "proved", "broken", "proved", "proved", "proved"]
    assert shown(rebuild.book) == ([("4", "4"), ("3", "3"), ("1", "1")], [("9", "1")])


@pytest.mark.parametrize(("number", "verdict"), [(100, "older"), (104, "older"), (110, "older")])
def test_a_snapshot_that_the_book_has_already_takes_nothing_back(number: int, verdict: str) -> None:
    rebuild = Rebuild("binance", "btcusdt")
    rows = [rest_book(100, [("1", "1")]), binance_diff(99, 105, [("2", "2")], []), binance_diff(106, 110, [], [])]
    applied(rebuild, [row(text, n) for n, text in enumerate(rows)])
    book = shown(rebuild.book)
    assert rebuild.apply(row(rest_book(number, []), 3, epoch="cd" * 16)).verdict.value == verdict
    assert shown(rebuild.book) == book


def test_a_snapshot_older_than_its_epochs_changes_makes_no_book() -> None:
    rebuild = Rebuild("binance", "btcusdt")
    rebuild.apply(row(binance_diff(101, 110, [], [])))
    assert rebuild.apply(row(rest_book(99, []), 1)).verdict is Verdict.REFUSED
    assert rebuild.book is None
