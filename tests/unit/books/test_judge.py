"""Verdicts on the rows of one market: each where it holds, united while it stays the same, said once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.books.change import RestBook
from app.books.judge import PATIENCE_US, UNITED_US, Judge, Verdicts
from app.model import Check
from tests.support.books import START_US, binance_diff, binance_partial, bybit, okx, okx_snapshot, row

BEST = ([("100", "1")], [("101", "1")])
LATER_US = START_US + 10 * UNITED_US
TENTH_US = 100_000


def judged(exchange: str, symbol: str, frames: list[str], **more: dict[str, int]) -> Judge:
    judge = Judge(exchange, symbol, more.get("known"))
    for n, text in enumerate(frames):
        judge.row(row(text, n))
    return judge


def brief(checks: list[Check], kind: str) -> list[tuple[str, int, int, str]]:
    """verdict, start and end in rows of a tenth of a second, detail."""
    return [
        (c.verdict, (c.start_us - START_US) // TENTH_US, (c.end_us - START_US) // TENTH_US, c.detail)
        for c in checks
        if c.kind == kind
    ]


def test_a_feed_without_a_hole_is_proved_from_its_first_row_to_its_last() -> None:
    checks = judged("okx", "BTC-USDT", [okx_snapshot(1, *BEST), okx(1, 2), okx(2, 3), okx(3, 4)]).take(LATER_US)
    assert brief(checks, "continuity") == [("proved", 0, 3, "")]
    assert brief(checks, "crossed") == [("proved", 0, 3, "")]
    assert {(c.symbol, c.feed, c.checked_us) for c in checks} == {("BTC-USDT", "orderbook", LATER_US)}


def test_a_hole_is_broken_exactly_where_it_is_and_the_rest_stays_proved() -> None:
    frames = [okx_snapshot(1, *BEST), okx(1, 2), okx(5, 6), okx(6, 7), okx_snapshot(7, *BEST), okx(7, 8)]
    checks = judged("okx", "BTC-USDT", frames).take(LATER_US)
    hole = "okx/BTC-USDT: nothing between 2 and 5 was stored"
    assert brief(checks, "continuity") == [("proved", 0, 1, ""), ("broken", 1, 2, hole), ("proved", 2, 5, "")]
    assert brief(checks, "crossed") == [
        ("proved", 0, 1, ""),
        ("unknowable", 1, 3, hole),
        ("proved", 3, 5, ""),
    ]


def test_verdicts_that_begin_at_the_same_moment_are_records_of_their_own() -> None:
    """A hole right after the first row: what is proved there is one point, and the hole begins at it."""
    checks = judged("okx", "BTC-USDT", [okx_snapshot(1, *BEST), okx(5, 6)]).take(LATER_US)
    assert [c[:3] for c in brief(checks, "continuity")] == [("proved", 0, 0), ("broken", 0, 1)]
    assert len({(c.kind, c.start_us, c.checked_us) for c in checks}) == len(checks)


def test_an_older_snapshot_of_a_new_connection_proves_nothing_less() -> None:
    judge = judged("okx", "BTC-USDT", [okx_snapshot(1, *BEST), okx(1, 2), okx(2, 3)])
    judge.row(row(okx_snapshot(2, *BEST), 3, epoch="bb" * 16))
    assert brief(judge.take(LATER_US), "continuity") == [("proved", 0, 3, "")]


def test_a_crossed_book_is_broken_while_it_is_crossed() -> None:
    frames = [bybit(1, *BEST, kind="snapshot"), bybit(2, [("101", "5")], []), bybit(3, [("101", "0")], [])]
    checks = judged("bybit", "BTCUSDT", frames).take(LATER_US)
    assert brief(checks, "crossed") == [
        ("proved", 0, 0, ""),
        ("broken", 0, 1, "bid 101, ask 101"),
        ("proved", 1, 2, ""),
    ]


def test_what_the_venue_does_not_number_is_unknowable() -> None:
    checks = judged("binance", "btcusdt", [binance_partial(n, *BEST) for n in (4, 9, 30)]).take(LATER_US)
    assert brief(checks, "continuity") == [("unknowable", 0, 2, "the venue numbers nothing here")]


def test_changes_without_a_snapshot_are_proved_continuous_though_there_is_no_book() -> None:
    checks = judged("binance", "btcusdt", [binance_diff(1, 3, *BEST), binance_diff(4, 9, [], [])]).take(LATER_US)
    assert brief(checks, "continuity") == [("proved", 0, 1, "")]
    assert [c[0] for c in brief(checks, "crossed")] == ["unknowable"]


def test_a_recorded_gap_breaks_what_has_no_numbers_until_the_next_snapshot() -> None:
    snapshot = '{"type":"snapshot","product_id":"BTC-USD","bids":[["1","1"]],"asks":[["2","1"]]}'
    change = '{"type":"l2update","product_id":"BTC-USD","changes":[],"time":"x"}'
    judge = Judge("coinbase", "BTC-USD")
    judge.row(row(snapshot, 0))
    judge.row(row(change, 1))
    judge.missing(row("").epoch, START_US + TENTH_US, START_US + 2 * TENTH_US, "gap: connection_sequence")
    for n, text in ((2, change), (3, change), (4, snapshot)):
        judge.row(row(text, n))
    checks = judge.take(LATER_US)
    assert [c[:3] for c in brief(checks, "continuity")] == [
        ("unknowable", 0, 1),
        ("broken", 1, 2),
        ("unknowable", 2, 4),
    ]
    assert [c[:3] for c in brief(checks, "crossed")] == [("proved", 0, 1), ("unknowable", 1, 3), ("proved", 3, 4)]


def test_a_verdict_that_stays_the_same_is_said_once_for_each_stretch_of_time() -> None:
    judge = Judge("okx", "BTC-USDT")
    judge.row(row(okx_snapshot(0, *BEST), us=START_US))
    said: list[Check] = []
    for n in range(1, 200):
        us = START_US + n * 10_000_000
        judge.row(row(okx(n - 1, n), us=us))
        said += judge.take(us)
    said += judge.take(LATER_US)
    proved = [c for c in said if c.kind == "continuity"]
    assert len(proved) == (START_US + 1_990_000_000) // UNITED_US - START_US // UNITED_US + 1
    assert proved[0].start_us == START_US
    assert [c.end_us for c in proved[:-1]] == [c.start_us for c in proved[1:]]


def test_what_is_on_record_is_not_said_again() -> None:
    frames = [okx_snapshot(1, *BEST), okx(1, 2), okx(2, 3), okx(3, 4)]
    known = {"continuity": START_US + 2 * TENTH_US, "crossed": START_US + 3 * TENTH_US}
    checks = judged("okx", "BTC-USDT", frames, known=known).take(LATER_US)
    assert brief(checks, "continuity") == [("proved", 2, 3, "")]
    assert brief(checks, "crossed") == []


def answer(number: int | None, bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> RestBook:
    return RestBook(number, *([(Decimal(p), Decimal(s)) for p, s in side] for side in (bids, asks)))


@pytest.mark.parametrize(
    ("size", "verdict", "words"),
    [("1", "proved", "best 20 levels"), ("2", "broken", "1 levels differ at 20: bid 100: 1 here, 2 at the venue")],
)
def test_an_answer_is_compared_when_the_rows_have_come_to_its_number(size: str, verdict: str, words: str) -> None:
    judge = judged("okx", "BTC-USDT", [okx_snapshot(10, *BEST)])
    judge.answered(answer(20, [("100", size)], BEST[1]), START_US)
    judge.row(row(okx(10, 15, [("99", "1")]), 1))
    assert brief(judge.take(START_US), "rest") == []
    judge.row(row(okx(15, 20, [("99", "0")]), 2))
    assert brief(judge.take(LATER_US), "rest") == [(verdict, 0, 0, words)]


def test_an_answer_between_two_changes_is_compared_where_the_later_one_touches_nothing() -> None:
    judge = judged("binance", "btcusdt", [])
    base = '{"lastUpdateId":10,"bids":[["100","1"]],"asks":[["101","1"]]}'
    judge.row(row(base, 0))
    judge.answered(answer(13, [("100", "7")], BEST[1]), START_US)
    judge.row(row(binance_diff(11, 15, [("100", "9")], []), 1))
    assert brief(judge.take(LATER_US), "rest") == [("proved", 0, 0, "best 20 levels")]


def test_an_answer_gives_a_book_to_changes_that_had_none() -> None:
    judge = judged("binance", "btcusdt", [binance_diff(1, 10, [], [])])
    judge.answered(answer(12, *BEST), START_US)
    judge.row(row(binance_diff(11, 15, [("99", "3")], []), 1))
    judge.answered(answer(15, [*BEST[0], ("99", "3")], BEST[1]), START_US + 1)
    assert [c[0] for c in brief(judge.take(LATER_US), "rest")] == ["unknowable", "proved"]


def test_an_answer_that_cannot_be_matched_is_unknowable() -> None:
    behind = judged("okx", "BTC-USDT", [okx_snapshot(10, *BEST)])
    behind.answered(answer(5, *BEST), START_US)
    unnumbered = judged("coinbase", "BTC-USD", [])
    unnumbered.answered(answer(None, [], []), START_US)
    early = judged("okx", "BTC-USDT", [okx_snapshot(10, *BEST)])
    early.answered(answer(50, *BEST), START_US)
    assert brief(early.take(START_US + PATIENCE_US), "rest") == []
    for judge, words in ((behind, "no row with its number 5"), (unnumbered, "does not say"), (early, "no row came")):
        ((verdict, _, _, detail),) = brief(judge.take(LATER_US), "rest")
        assert verdict == "unknowable" and words in detail


def test_states_that_share_a_number_are_not_called_different() -> None:
    def frame(size: int) -> str:
        return f'{{"ty":"orderbook","cd":"KRW-BTC","tms":5,"obu":[{{"ap":2,"bp":1,"as":1,"bs":{size}}}]}}'

    judge = judged("upbit", "KRW-BTC", [frame(1)])
    judge.answered(answer(5, [("1", "2")], [("2", "1")]), START_US)
    assert brief(judge.take(START_US), "rest") == []
    judge.row(row(frame(2), 1))
    assert [c[0] for c in brief(judge.take(LATER_US), "rest")] == ["proved"]


@given(st.lists(st.tuples(st.sampled_from(["proved", "broken", "unknowable"]), st.integers(1, 300)), min_size=1))
def test_verdicts_in_a_row_cover_the_whole_time_and_none_is_said_of_another_ones(steps: list[tuple[str, int]]) -> None:
    verdicts, at, said = Verdicts("S", "continuity"), 0, []
    for verdict, seconds in steps:
        verdicts.see(verdict, at, at + seconds * 1_000_000)
        said += [verdict] * seconds
        at += seconds * 1_000_000
    checks = verdicts.take(at + 2 * UNITED_US)
    assert [c.verdict for c in checks for _ in range(c.start_us, c.end_us, 1_000_000)] == said
    assert [c.end_us for c in checks[:-1]] == [c.start_us for c in checks[1:]]
