"""Coinbase, both feeds: changes within one epoch, in either spelling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.books import coinbase
from app.books.rebuild import Rebuild, Verdict
from tests.support.books import applied, captured, naive, row, shown

PRODUCTS = ["SKL-USD", "DASH-BTC", "NMR-EUR", "BAND-GBP", "NU-GBP"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_captured_changes_make_the_book_that_plain_dictionaries_make_and_it_is_never_crossed(
    frames: Path, product: str
) -> None:
    rows = captured(frames / "coinbase/exchange_level2.jsonl", lambda line: f'"{product}"' in line)
    rebuild, plain = Rebuild("coinbase", product), []
    for one in rows:
        assert rebuild.apply(one).verdict in (Verdict.SNAPSHOT, Verdict.DELTA)
        assert rebuild.book is not None and not rebuild.book.crossed()
        frame = json.loads(one.data)
        if frame["type"] == "snapshot":
            plain.append((True, frame["bids"], frame["asks"]))
        else:
            sides = ([(p, s) for side, p, s in frame["changes"] if side == name] for name in ("buy", "sell"))
            plain.append((False, *sides))
    assert shown(rebuild.book, 10_000) == naive(plain)


def test_a_change_that_is_lost_cannot_be_seen_from_the_rows(frames: Path) -> None:
    rows = captured(frames / "coinbase/exchange_level2.jsonl", lambda line: '"NU-GBP"' in line)
    found = applied(Rebuild("coinbase", "NU-GBP"), rows[:5] + rows[6:])
    assert {one.continuity.value for one in found} == {"unknowable"}


def advanced(*events: tuple[str, str, list[tuple[str, str, str]]], number: int = 1) -> str:
    made = [
        {
            "type": kind,
            "product_id": product,
            "updates": [
                {"side": side, "event_time": "x", "price_level": price, "new_quantity": size}
                for side, price, size in updates
            ],
        }
        for kind, product, updates in events
    ]
    return json.dumps({"channel": "l2_data", "timestamp": "x", "sequence_num": number, "events": made})


def test_a_frame_of_several_products_speaks_for_each_of_them() -> None:
    frames = [
        advanced(("snapshot", "BTC-USD", [("bid", "1", "5"), ("offer", "2", "6")]), ("snapshot", "ETH-USD", [])),
        advanced(("update", "ETH-USD", [("bid", "9", "9")]), ("update", "BTC-USD", [("offer", "2", "0.00")])),
        advanced(
            ("snapshot", "BTC-USD", [("bid", "3", "1")]), ("update", "BTC-USD", [("bid", "3", "0"), ("bid", "4", "1")])
        ),
    ]
    rebuild = Rebuild("coinbase", "BTC-USD")
    shows = []
    for n, text in enumerate(frames):
        rebuild.apply(row(text, n))
        shows.append(shown(rebuild.book))
    assert shows == [([("1", "5")], [("2", "6")]), ([("1", "5")], []), ([("4", "1")], [])]


def test_captured_frames_of_the_advanced_feed_are_read(frames: Path) -> None:
    rows = captured(
        frames / "coinbase/advanced_2026_slice.jsonl", lambda line: '"l2_data"' in line and "BTC-USD" in line
    )
    change = coinbase.read(rows[0].data, "BTC-USD")
    updates = json.loads(rows[0].data)["events"][0]["updates"]
    assert [(f"{p:f}", f"{s:f}") for p, s in change.bids] == [
        (u["price_level"], u["new_quantity"]) for u in updates if u["side"] == "bid"
    ]
    assert applied(Rebuild("coinbase", "BTC-USD"), rows)[0].verdict is Verdict.REFUSED
    assert coinbase.read(rows[0].data, "BTC-USDC") == change
    with pytest.raises(ValueError, match="without SOL-USD"):
        coinbase.read(rows[0].data, "SOL-USD")


@pytest.mark.parametrize(
    "text", ['{"type":"match","product_id":"BTC-USD"}', '{"type":"snapshot","product_id":"ETH-USD"}', "{}", "1"]
)
def test_what_is_no_book_of_the_market_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        coinbase.read(text, "BTC-USD")
