"""Bybit: the captured 50 levels against the captured best prices of the same sequence; restarts and repetitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.books import bybit
from app.books.rebuild import Continuity, Rebuild, Verdict
from tests.support import books
from tests.support.books import applied, captured, naive, row, shown

SESSION = "bybit/spot_testnet_2026_session.jsonl"
BEST = ([("100", "1")], [("101", "1")])


def test_captured_deltas_agree_with_the_best_prices_that_came_beside_them(frames: Path) -> None:
    rows = captured(frames / SESSION, lambda line: '"topic":"orderbook.50' in line)
    told = {}
    for one in captured(frames / SESSION, lambda line: '"topic":"orderbook.1.' in line):
        book = json.loads(one.data)["data"]
        told[book["seq"]] = (*map(tuple, book["b"]), *map(tuple, book["a"]))
    rebuild, compared = Rebuild("bybit", "BTCUSDT"), 0
    for one in rows:
        assert rebuild.apply(one).verdict in (Verdict.SNAPSHOT, Verdict.DELTA)
        (bid, *_), (ask, *_) = shown(rebuild.book)
        if rebuild.number in told:
            assert (bid, ask) == told[rebuild.number]
            compared += 1
    assert compared >= 3
    frames_of = [json.loads(one.data) for one in rows]
    assert shown(rebuild.book) == naive((f["type"] == "snapshot", f["data"]["b"], f["data"]["a"]) for f in frames_of)


def test_captured_deltas_of_200_levels_follow_their_snapshot(frames: Path) -> None:
    rows = captured(frames / "bybit/spot_orderbook200.jsonl", lambda line: True)
    assert [one.verdict.value for one in applied(Rebuild("bybit", "BTCUSDT"), rows)] == ["snapshot", "delta"]


@pytest.mark.parametrize("removed", [1, 9, 17])
def test_a_captured_delta_that_is_removed_is_missed_at_exactly_the_next_row(frames: Path, removed: int) -> None:
    rows = captured(frames / SESSION, lambda line: '"topic":"orderbook.50' in line)
    del rows[removed]
    found = applied(Rebuild("bybit", "BTCUSDT"), rows)
    assert [n for n, one in enumerate(found) if one.verdict is Verdict.REFUSED] == list(range(removed, len(rows)))
    assert [n for n, one in enumerate(found) if one.continuity is Continuity.BROKEN] == [removed]


def test_a_restart_of_the_service_replaces_the_book_and_tells_nothing_of_what_went_before() -> None:
    rebuild = Rebuild("bybit", "BTCUSDT")
    restarted = books.bybit(1, [("99", "1")], [("102", "1")])
    rows = [row(books.bybit(70, *BEST, kind="snapshot"), 0), row(restarted, 1), row(books.bybit(2, [], []), 2)]
    found = applied(rebuild, rows)
    assert [one[:2] for one in found[1:]] == [
        (Verdict.SNAPSHOT, Continuity.UNKNOWABLE), (Verdict.DELTA, Continuity.PROVED),
    ]  # fmt: skip
    assert shown(rebuild.book) == ([("99", "1")], [("102", "1")])


def test_a_later_snapshot_replaces_the_book() -> None:
    rebuild = Rebuild("bybit", "BTCUSDT")
    again = books.bybit(71, [("99", "1")], [("102", "1")], kind="snapshot")
    found = applied(rebuild, [row(books.bybit(70, *BEST, kind="snapshot"), 0), row(again, 1)])
    assert (found[1].continuity, shown(rebuild.book)[0]) == (Continuity.PROVED, [("99", "1")])


def test_numbers_that_go_back_within_a_connection_are_a_hole() -> None:
    rebuild = Rebuild("bybit", "BTCUSDT")
    applied(rebuild, [row(books.bybit(70, *BEST, kind="snapshot"), 0), row(books.bybit(5, [], []), 1)])
    assert rebuild.book is None


def test_best_prices_alone_are_the_whole_book_each_time() -> None:
    rebuild = Rebuild("bybit", "BTCUSDT")
    frames = [books.bybit(7, *BEST, kind="snapshot", depth=1, seq=n) for n in (1, 2)]
    found = applied(rebuild, [row(text, n) for n, text in enumerate(frames)])
    assert {one[:2] for one in found} == {(Verdict.SNAPSHOT, Continuity.UNKNOWABLE)}


def test_a_rest_answer_is_compared_by_seq() -> None:
    body = b'{"retCode":0,"result":{"s":"BTCUSDT","b":[["1","2"]],"a":[],"ts":1,"u":9,"seq":77,"cts":1}}'
    assert bybit.rest(body).number == 77
    with pytest.raises(ValueError, match="10006"):
        bybit.rest(b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}')


@pytest.mark.parametrize("text", ["{}", books.bybit(1, [], [], kind="other"), books.bybit(2, [], [])])
def test_what_is_no_book_of_the_market_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        bybit.read(text, "ETHUSDT")
