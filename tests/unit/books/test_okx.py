"""OKX: the captured book against the venue's own checksum; chains, keep-alives and resets."""

from __future__ import annotations

import json
import zlib
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from app.books import okx
from app.books.book import Book
from app.books.rebuild import Continuity, Rebuild, Verdict
from tests.support import books
from tests.support.books import applied, captured, okx_snapshot, row, shown, texts

BEST = ([("100", "1")], [("101", "1")])


def checksum(book: Book) -> int:
    """CRC32 over the best 25 levels, bid and ask by turns, in the venue's own digits. Source: okx.com/docs-v5 (2022)."""
    sides = (texts(side.top(25)) for side in (book.bids, book.asks))
    parts = chain.from_iterable(chain.from_iterable(filter(None, pair)) for pair in zip_longest(*sides))
    crc = zlib.crc32(":".join(parts).encode())
    return crc - 2**32 if crc >= 2**31 else crc


def test_after_every_captured_frame_the_book_has_the_checksum_that_the_venue_sent(frames: Path) -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    rows = captured(frames / "okx/books_2022_noseq.jsonl", lambda line: True)
    for one in rows:
        assert rebuild.apply(one).verdict in (Verdict.SNAPSHOT, Verdict.DELTA)
        assert rebuild.book is not None
        assert checksum(rebuild.book) == json.loads(one.data)["data"][0]["checksum"]
    assert len(rows) == 98


def test_without_a_frame_of_2022_the_checksum_does_not_hold(frames: Path) -> None:
    rows = captured(frames / "okx/books_2022_noseq.jsonl", lambda line: True)
    rebuild = Rebuild("okx", "BTC-USDT")
    applied(rebuild, rows[:10] + rows[11:20])
    assert rebuild.book is not None
    assert checksum(rebuild.book) != json.loads(rows[19].data)["data"][0]["checksum"]


def test_captured_frames_of_today_are_chained(frames: Path) -> None:
    rows = captured(frames / "okx/public_2025_spot_frames.jsonl", lambda line: "NEAR-USDT" in line)
    rebuild = Rebuild("okx", "NEAR-USDT")
    assert [one.verdict.value for one in applied(rebuild, rows)] == ["snapshot", "delta"]
    assert shown(rebuild.book)[0][:3] == [
        ("1.782", "2173.46443964"), ("1.781", "14694.07509503"), ("1.78", "12102.991384"),
    ]  # fmt: skip
    swap = captured(frames / "okx/public_2026_swap_slice.jsonl", lambda line: '"channel":"books"' in line)
    found = applied(Rebuild("okx", "BTC-USDT-SWAP"), swap)
    assert [one.continuity for one in found] == [Continuity.START, Continuity.PROVED, Continuity.PROVED]
    assert applied(Rebuild("okx", "BTC-USDT-SWAP"), swap[::2])[1].continuity is Continuity.BROKEN


def test_a_keep_alive_and_a_reset_break_no_chain() -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    frames = [okx_snapshot(90, *BEST), books.okx(90, 90), books.okx(90, 15, [("100", "2")]), books.okx(15, 20)]
    found = applied(rebuild, [row(text, n) for n, text in enumerate(frames)])
    assert [one.verdict.value for one in found] == ["snapshot", "delta", "delta", "delta"]
    assert shown(rebuild.book) == ([("100", "2")], [("101", "1")])


def test_updates_without_a_snapshot_join_the_answer_of_a_question() -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    rebuild.apply(row(books.okx(10, 20, [("99", "1")]), 0))
    rebuild.begin_with(okx.rest(json.dumps({"code": "0", "data": [_book(20)]}).encode()))
    assert shown(rebuild.book) == BEST


def test_channels_that_show_the_whole_book_have_no_chain(frames: Path) -> None:
    (one,) = captured(frames / "okx/books5_2022.jsonl", lambda line: True)
    rebuild = Rebuild("okx", "BTC-USDT-SWAP")
    assert rebuild.apply(one)[:2] == (Verdict.SNAPSHOT, Continuity.UNKNOWABLE)
    assert shown(rebuild.book)[0][0] == ("31806.5", "54")


@pytest.mark.parametrize(
    "change",
    [{"action": "other"}, {"data": []}, {"arg": {"channel": "books", "instId": "X"}}, {"data": [{"seqId": 1}]}],
)
def test_what_is_no_book_of_the_market_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        okx.read(json.dumps({**json.loads(books.okx(1, 2)), **change}), "BTC-USDT")


def test_an_error_under_http_200_is_no_answer() -> None:
    with pytest.raises(ValueError, match="50011"):
        okx.rest(b'{"code":"50011","msg":"Too Many Requests","data":[]}')


def _book(seq: int) -> dict[str, object]:
    bids, asks = ([[p, s, "0", "1"] for p, s in side] for side in BEST)
    return {"bids": bids, "asks": asks, "ts": "1", "seqId": seq}
