"""Upbit: the whole book in each frame, its numbers exact."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from app.books import upbit
from app.books.change import Row
from app.books.rebuild import LAG_US, Continuity, Rebuild, Verdict
from tests.support.books import START_US, captured, row


def test_each_captured_frame_is_the_book_to_the_last_digit(frames: Path) -> None:
    rebuild = Rebuild("upbit", "KRW-LAMB")
    for one in captured(frames / "upbit/orderbook_simple.jsonl", lambda line: True):
        assert rebuild.apply(one)[:2] == (Verdict.SNAPSHOT, Continuity.UNKNOWABLE)
        frame = json.loads(one.data, parse_float=Decimal)
        assert rebuild.book is not None
        assert rebuild.book.bids.top(15) == [(u["bp"], u["bs"]) for u in frame["obu"]]
        assert rebuild.book.asks.top(15) == [(u["ap"], u["as"]) for u in frame["obu"]]
        assert rebuild.number == frame["tms"]
        assert not rebuild.book.crossed()


def test_long_names_numbers_with_exponents_and_padding_are_read() -> None:
    unit = '{"ask_price":0,"bid_price":126.5,"ask_size":0.0,"bid_size":8.428e-05}'
    data = f'{{"type":"orderbook","code":"KRW-BTC","timestamp":5,"orderbook_units":[{unit}]}}'
    rebuild = Rebuild("upbit", "KRW-BTC")
    rebuild.apply(row(data))
    assert rebuild.book is not None
    assert rebuild.book.bids.top(5) == [(Decimal("126.5"), Decimal("0.00008428"))]
    assert rebuild.book.asks.top(5) == []


def test_a_rest_answer_has_one_book() -> None:
    unit = b'{"ask_price":2.0,"bid_price":1.0,"ask_size":3.0,"bid_size":4.0}'
    one = b'{"market":"KRW-BTC","timestamp":5,"orderbook_units":[' + unit + b"]}"
    assert upbit.rest(b"[" + one + b"]").number == 5
    for body in (b"[]", b"[" + one + b"," + one + b"]", b'{"error":{}}'):
        with pytest.raises(ValueError):
            upbit.rest(body)
    with pytest.raises(ValueError, match="KRW-X"):
        upbit.read('{"ty":"orderbook","cd":"KRW-X","tms":1,"obu":[]}', "KRW-BTC")


def test_a_book_that_one_connection_brings_after_the_other_brought_a_later_one_is_left_aside() -> None:
    def frame(tms: int, us: int, epoch: str) -> Row:
        return row(f'{{"ty":"orderbook","cd":"KRW-BTC","tms":{tms},"obu":[]}}', epoch=epoch, us=START_US + us)

    rebuild = Rebuild("upbit", "KRW-BTC")
    old, new = "aa" * 16, "bb" * 16
    frames = [frame(5, 0, old), frame(7, 20, old), frame(6, 30, new), frame(8, 40, new), frame(2, 40 + LAG_US + 1, old)]
    found = [(rebuild.apply(one).verdict.value, rebuild.number) for one in frames]
    assert found == [("snapshot", 5), ("snapshot", 7), ("older", 7), ("snapshot", 8), ("snapshot", 2)]
