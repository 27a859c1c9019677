"""Batches -> rows, in a real SQLite file: every event has exactly one outcome, and each outcome is counted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from app.model import ORDERBOOK, TRADE, UNDECODED, Batch, Check, EpochEnd, Event, Gap, Loss, Quarantined, Range, Repair
from app.store.insert import Outcomes
from app.store.known import KnownRanges
from app.store.segment import Segment
from app.store.tallies import Counts
from tests.support.batches import EPOCH, OPENED_US, STREAM, batch, event, undecoded
from tests.support.segments import balance, covered, identities, numbers, opened, query, ranges, sealed, stored

OTHER = "0b" * 16


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    return opened(tmp_path)


def book(number: int, identity: str, data: str, symbol: str = "btcusdt") -> Event:
    return event(number, identity, feed=ORDERBOOK, data=data, symbol=symbol)


def hash8(data: str) -> str:
    return hashlib.sha256(data.encode()).hexdigest()[:8]


# outcomes


def test_a_row_is_the_event_as_it_was_received(segment: Segment) -> None:
    units = [
        event(1, "388510", data='{"t":388510,"p":"0.10"}', exchange_us=1_772_323_199_999_000),
        book(1, "depth20@100ms-160", '{"stream":"btcusdt@depth20@100ms","data":{"sym":"₿"}}'),
    ]
    assert stored(segment, batch(1, units)) == Counts(stored=2)
    rows = {table: query(segment.path, f"SELECT * FROM {table}") for table in ("trades", "orderbooks")}
    assert rows == {
        "trades": [
            (1, "binance", "btcusdt", "388510", OPENED_US + 1, 1_772_323_199_999_000, '{"t":388510,"p":"0.10"}', EPOCH)
        ],
        "orderbooks": [
            (1, "binance", "btcusdt", "depth20@100ms-160", OPENED_US + 1, None,
             '{"stream":"btcusdt@depth20@100ms","data":{"sym":"₿"}}', EPOCH)
        ],
    }  # fmt: skip
    balance(segment.path)


def test_a_book_with_the_same_id_and_the_same_bytes_is_a_duplicate(segment: Segment) -> None:
    one = batch(1, [book(1, "7", "same"), book(2, "7", "same")])
    assert stored(segment, one) == Counts(stored=1, duplicates=1)
    assert stored(segment, batch(2, [book(1, "7", "same")], epoch=OTHER)) == Counts(duplicates=1)
    assert identities(segment.path, "orderbooks") == ["7"]
    assert ranges(segment.path) == [(1, 2, 1, 1, 0, 0), (1, 1, 0, 1, 0, 0)]


def test_a_book_with_the_same_id_and_other_bytes_is_stored_beside_it_and_counted_as_a_conflict(
    segment: Segment,
) -> None:
    assert stored(segment, batch(1, [book(1, "7", "one"), book(2, "7", "other")])) == Counts(stored=2, conflicts=1)
    later = batch(1, [book(1, "7", "third"), book(2, "7", "other"), book(3, "7", "one")], epoch=OTHER)
    assert stored(segment, later) == Counts(stored=1, conflicts=1, duplicates=2)
    assert query(segment.path, "SELECT exchange_sequence_id, data FROM orderbooks ORDER BY id") == [
        ("7", "one"),
        (f"7~{hash8('other')}", "other"),
        (f"7~{hash8('third')}", "third"),
    ]
    assert ranges(segment.path) == [(1, 2, 2, 0, 1, 0), (1, 3, 1, 2, 1, 0)]
    balance(segment.path)


def test_of_trades_the_id_alone_decides(segment: Segment) -> None:
    one = batch(1, [event(1, "7", data='{"t":7}'), event(2, "7", data='{"id":7,"from":"REST"}'), event(3, "8")])
    assert stored(segment, one) == Counts(stored=2, duplicates=1)
    assert query(segment.path, "SELECT data FROM trades ORDER BY id") == [('{"t":7}',), ('{"t":8}',)]


def test_an_id_is_one_only_within_its_exchange_symbol_and_feed(segment: Segment) -> None:
    units = [event(1, "7"), book(1, "7", "b"), event(1, "7", symbol="ethusdt"), book(1, "7", "b", symbol="ethusdt")]
    assert stored(segment, batch(1, units)) == Counts(stored=4)
    assert stored(segment, batch(1, [event(1, "7")], epoch=OTHER, stream="okx-0-trade")) == Counts(stored=1)
    assert query(segment.path, "SELECT exchange, symbol FROM trades ORDER BY id") == [
        ("binance", "btcusdt"),
        ("binance", "ethusdt"),
        ("okx", "btcusdt"),
    ]


def test_an_undecoded_frame_is_quarantined_with_its_bytes(segment: Segment) -> None:
    frame = b"\xff\x00{"
    assert stored(segment, batch(1, [event(1), undecoded(1, frame, "not_json: x")])) == Counts(stored=1, quarantined=1)
    assert query(segment.path, "SELECT * FROM quarantine") == [
        (EPOCH, "binance", UNDECODED, UNDECODED, 1, OPENED_US + 1, "not_json: x", frame)
    ]
    balance(segment.path)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        pytest.param(event(2, "refused", exchange_us=2**63), "too large", id="a time beyond 64 bits"),
        pytest.param(event(2, "refused", data="half \ud800"), "surrogates not allowed", id="half a surrogate pair"),
        pytest.param(Event("btcusdt", TRADE, 2, None, 5, None, "x"), "NOT NULL", id="no identity"),  # type: ignore[arg-type]
    ],
)
def test_a_row_that_sqlite_refuses_by_its_value_is_quarantined_and_the_rest_is_stored(
    segment: Segment, refused: Event, reason: str
) -> None:
    one = batch(1, [event(1), refused, event(3), event(4, "1"), book(1, "9", "fine")])
    assert stored(segment, one) == Counts(stored=3, duplicates=1, quarantined=1)
    assert identities(segment.path) == ["1", "3"]
    ((number, why, frame),) = query(segment.path, "SELECT number, reason, frame FROM quarantine")
    assert (number, frame) == (2, refused.data.encode("utf-8", "surrogatepass"))
    assert why.startswith("row_refused: ") and reason in why
    assert ranges(segment.path) == [(1, 1, 1, 0, 0, 0), (1, 4, 2, 1, 0, 1)]
    balance(segment.path)


# twins in the segment before


def test_what_the_previous_segment_holds_is_a_duplicate_here(tmp_path: Path) -> None:
    before = opened(tmp_path, 1)
    stored(before, batch(1, [event(1, "7"), book(1, "9", "same"), book(2, "10", "old")]))
    twins = sealed(before).twins
    now = opened(tmp_path, 2)
    units = [
        event(1, "7", data="by REST"),
        event(2, "8"),
        book(1, "9", "same"),
        book(2, "10", "new"),
        book(3, "11", "x"),
    ]
    assert stored(now, batch(1, units, epoch=OTHER), twins=twins) == Counts(stored=3, duplicates=2, conflicts=1)
    assert identities(now.path) == ["8"]
    assert sorted(identities(now.path, "orderbooks")) == [f"10~{hash8('new')}", "11"]
    balance(now.path)


def test_when_every_event_is_a_twin_nothing_is_stored_and_all_is_counted(tmp_path: Path) -> None:
    before = opened(tmp_path, 1)
    units = [event(n) for n in range(1, 1300)]
    stored(before, batch(1, units))
    now = opened(tmp_path, 2)
    assert stored(now, batch(1, units, epoch=OTHER), twins=sealed(before).twins) == Counts(duplicates=1299)
    assert ranges(now.path) == [(1, 1299, 0, 1299, 0, 0)]


# replays


def test_a_batch_that_was_pushed_twice_is_stored_once(segment: Segment) -> None:
    units = [event(1), event(2), undecoded(1), book(1, "9", "x")]
    one = batch(1, units, gaps=[Gap("btcusdt", TRADE, 2, "1", "1", 1, 5, 6, "missing_ids")])
    assert stored(segment, one, one) == Counts(stored=3, quarantined=1, replays=4)
    assert stored(segment, one) == Counts(replays=4)
    tables = ("trades", "orderbooks", "quarantine", "gaps", "epochs")
    assert {t: query(segment.path, f"SELECT count(*) FROM {t}")[0][0] for t in tables} == {
        "trades": 2, "orderbooks": 1, "quarantine": 1, "gaps": 1, "epochs": 1,
    }  # fmt: skip
    assert query(segment.path, "SELECT symbol, feed, first, last, times FROM replays ORDER BY symbol, feed") == [
        (UNDECODED, UNDECODED, 1, 1, 2),
        ("btcusdt", ORDERBOOK, 1, 1, 2),
        ("btcusdt", TRADE, 1, 2, 2),
    ]
    balance(segment.path)


def test_a_batch_that_another_file_holds_is_a_replay_and_leaves_nothing_but_its_mention(tmp_path: Path) -> None:
    before = opened(tmp_path, 1)
    one = batch(1, [event(1), event(2)], losses=[Loss("btcusdt", TRADE, 3, 3, 1, 5, 6, "queue_full")])
    stored(before, one)
    known = KnownRanges()
    sealed(before).load_known(known, known.missing({EPOCH}))
    now = opened(tmp_path, 2)
    assert stored(now, one, batch(2, [event(4)]), known=known) == Counts(stored=1, replays=2)
    assert identities(now.path) == ["4"]
    assert query(now.path, "SELECT count(*) FROM losses") == [(0,)]
    assert ranges(now.path) == [(4, 4, 1, 0, 0, 0)]


def test_the_same_numbers_of_another_epoch_are_no_replay(segment: Segment) -> None:
    assert stored(segment, batch(1, [event(1)]), batch(1, [event(1, "other")], epoch=OTHER)) == Counts(stored=2)


def test_a_batch_that_overlaps_what_is_stored_loses_nothing_and_counts_what_it_repeats(segment: Segment) -> None:
    stored(segment, batch(1, [event(n) for n in range(1, 11)]))
    assert stored(segment, batch(2, [event(n) for n in range(5, 16)])) == Counts(stored=5, duplicates=6)
    assert identities(segment.path) == [str(n) for n in range(1, 16)]
    assert ranges(segment.path) == [(1, 10, 10, 0, 0, 0), (5, 15, 5, 6, 0, 0)]


# ranges and records


def test_consecutive_batches_prolong_one_range_and_a_hole_begins_another(segment: Segment) -> None:
    stored(segment, batch(1, [event(1), event(2)]), batch(2, [event(3), event(4, "1")]))
    stored(segment, batch(3, [event(5)]))
    stored(segment, batch(4, [event(8), event(9)]))
    assert ranges(segment.path) == [(1, 5, 4, 1, 0, 0), (8, 9, 2, 0, 0, 0)]


def test_numbers_that_were_given_up_are_a_hole_in_the_ranges_and_a_loss_on_record(segment: Segment) -> None:
    lost = Loss("btcusdt", TRADE, 2, 4, 3, 50, 60, "queue_full")
    stored(segment, batch(1, [event(1), event(5)], losses=[lost]))
    assert ranges(segment.path) == [(1, 1, 1, 0, 0, 0), (5, 5, 1, 0, 0, 0)]
    assert query(segment.path, "SELECT * FROM losses") == [
        (EPOCH, "binance", "btcusdt", TRADE, 2, 4, 3, 50, 60, "queue_full")
    ]


def test_an_epoch_is_on_record_from_its_first_batch_and_closed_by_its_end(segment: Segment) -> None:
    stored(segment, batch(1, []))
    assert query(segment.path, "SELECT * FROM epochs") == [
        (EPOCH, STREAM, "binance", OPENED_US, None, None, None, "stream", "[]", "")
    ]
    end = EpochEnd(OPENED_US + 9, "stop", (Range("btcusdt", TRADE, 1, 7), Range(UNDECODED, UNDECODED, 1, 2)))
    stored(segment, batch(2, [], end=end))
    stored(segment, batch(1, []))
    assert query(segment.path, "SELECT ended_us, reason, last_numbers FROM epochs") == [
        (OPENED_US + 9, "stop", '[["btcusdt","trade",7],["?","?",2]]')
    ]


def test_a_gap_is_on_record_with_all_that_is_known_of_it(segment: Segment) -> None:
    stored(segment, batch(1, [event(2)], gaps=[Gap("btcusdt", TRADE, 2, "6", "8", None, 50, 60, "sequence")]))
    assert query(segment.path, "SELECT * FROM gaps") == [
        (EPOCH, "binance", "btcusdt", TRADE, 2, "6", "8", None, 50, 60, "sequence")
    ]


def test_a_range_names_its_first_and_last_event(segment: Segment) -> None:
    stored(segment, batch(1, [event(1, "a"), event(2, "b"), event(5, "e")]), batch(2, [event(6, "f"), event(7, "g")]))
    stored(segment, batch(3, [event(8, "h"), undecoded(1)]))
    assert query(segment.path, "SELECT feed, first, last, first_id, first_us, last_id, last_us FROM ranges") == [
        ("?", 1, 1, None, None, None, None),
        (TRADE, 1, 2, "a", OPENED_US + 1, "b", OPENED_US + 2),
        (TRADE, 5, 8, "e", OPENED_US + 5, "h", OPENED_US + 8),
    ]


def test_what_was_found_out_about_a_gap_and_what_was_checked_is_on_record_once(segment: Segment) -> None:
    repair = Repair("btcusdt", TRADE, "0b" * 16, 4, 70, "partly", 3, "ids 7 to 8 remain")
    check = Check("btcusdt", "orderbook", "continuity", 0, 60, "broken", 70, "crossed at id 9")
    finding = batch(1, [], kind="finding", repairs=(repair,), checks=(check,), overlaps=("0c" * 16,))
    stored(segment, finding)
    stored(segment, finding)
    assert query(segment.path, "SELECT * FROM repairs") == [
        ("0b" * 16, "binance", "btcusdt", TRADE, 4, 70, "partly", 3, "ids 7 to 8 remain", EPOCH)
    ]
    assert query(segment.path, "SELECT * FROM checks") == [
        ("binance", "btcusdt", "orderbook", "continuity", 0, 70, 60, "broken", "crossed at id 9")
    ]
    assert query(segment.path, "SELECT kind, overlaps FROM epochs") == [("finding", f'["{"0c" * 16}"]')]


def test_nothing_of_a_claim_is_stored_when_its_transaction_fails(segment: Segment, tmp_path: Path) -> None:
    def fails(exchange: str, feed: str, events: Any) -> dict[tuple[str, str], str]:
        raise OSError("the segment before cannot be read")

    units = [event(1), undecoded(1)]
    with pytest.raises(OSError):
        stored(segment, batch(1, units), twins=fails)
    for table in ("trades", "quarantine", "ranges", "epochs"):
        assert query(segment.path, f"SELECT count(*) FROM {table}") == [(0,)]
    assert stored(segment, batch(1, units)) == Counts(stored=1, quarantined=1)


def test_an_error_that_is_not_the_values_fault_is_raised_and_nothing_is_stored(segment: Segment) -> None:
    with segment.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE orderbooks")
    with pytest.raises(DBAPIError, match="no such table: orderbooks"):
        stored(segment, batch(1, [event(1), book(1, "9", "x")]))
    assert identities(segment.path) == []
    assert ranges(segment.path) == []


# whatever arrives


def claims() -> st.SearchStrategy[list[list[Batch]]]:
    """Claims of batches of three epochs: few identities and texts, so that all of it meets; batches come again."""

    @st.composite
    def build(draw: st.DrawFn) -> list[list[Batch]]:
        made: list[Batch] = []
        last: dict[tuple[str, str, str], int] = {}
        for at in range(draw(st.integers(1, 8))):
            epoch = draw(st.sampled_from([EPOCH, OTHER, "0c" * 16]))
            units: list[Event | Quarantined] = []
            for _ in range(draw(st.integers(0, 7))):
                kind = draw(st.sampled_from([ORDERBOOK, TRADE, TRADE, UNDECODED, "refused"]))
                symbol = UNDECODED if kind == UNDECODED else draw(st.sampled_from(["btcusdt", "ethusdt"]))
                feed = TRADE if kind == "refused" else kind
                key = epoch, symbol, feed
                last[key] = number = last.get(key, 0) + draw(st.sampled_from([1, 1, 1, 1, 3]))  # 3: two were refused
                identity, data = str(draw(st.integers(1, 4))), draw(st.sampled_from(["one", "other"]))
                if kind == UNDECODED:
                    units.append(undecoded(number))
                elif kind == "refused":
                    units.append(event(number, f"r{number}", symbol=symbol, exchange_us=2**63))
                else:
                    units.append(event(number, identity, symbol=symbol, feed=feed, data=data))
            made.append(batch(at + 1, units, epoch=epoch))
        arriving = list(made)
        for again in draw(st.lists(st.sampled_from(made), max_size=5)):
            arriving.insert(draw(st.integers(made.index(again) + 1, len(arriving))), again)
        cuts = sorted(draw(st.sets(st.integers(0, len(arriving)), max_size=4)))
        return [arriving[a:b] for a, b in zip([0, *cuts], [*cuts, len(arriving)], strict=True)]

    return build()


@given(claims())
@settings(deadline=None, max_examples=80)
def test_the_books_balance_whatever_arrives_and_however_often(
    tmp_path_factory: pytest.TempPathFactory, arriving: list[list[Batch]]
) -> None:
    segment = opened(tmp_path_factory.mktemp("insert"))
    total = Counts()
    seen: list[Batch] = []
    for claim in arriving:
        total.add(stored(segment, *claim))
        seen += claim
        balance(segment.path)
    distinct = list(dict.fromkeys(seen))
    units = [unit for one in distinct for unit in (*one.events, *one.quarantined)]
    assert covered(segment.path) == numbers(distinct)
    assert total.stored + total.duplicates + total.quarantined == len(units)
    assert total.replays == sum(len(one.events) + len(one.quarantined) for one in seen) - len(units)
    stored_once = {(e.symbol, e.sequence_id) for one in distinct for e in one.events if e.exchange_us is None}
    by_id = {(e.symbol, e.sequence_id) for one in distinct for e in one.events if e.feed == TRADE} & stored_once
    trades = query(segment.path, "SELECT symbol, exchange_sequence_id FROM trades")
    assert len(trades) == len(set(trades))
    assert set(trades) == {key for key in by_id if not key[1].startswith("r")}
    books = {(e.symbol, e.sequence_id, e.data) for one in distinct for e in one.events if e.feed == ORDERBOOK}
    rows = query(segment.path, "SELECT symbol, exchange_sequence_id, data FROM orderbooks")
    assert sorted((symbol, identity.partition("~")[0], data) for symbol, identity, data in rows) == sorted(books)
    replayed = query(segment.path, "SELECT coalesce(sum((last - first + 1) * times), 0) FROM replays")
    assert replayed == [(total.replays,)]


# outcomes by feed


def told(segment: Segment, *batches: Batch, known: KnownRanges | None = None) -> Outcomes:
    outcomes = Outcomes()
    segment.store(batches, known or KnownRanges(), None, outcomes)
    return outcomes


def test_outcomes_are_told_feed_by_feed_replays_too(segment: Segment) -> None:
    units = [event(1), event(2, "1"), event(1, "9", symbol="ethusdt"), book(1, "7", "x"), undecoded(1)]
    trade, other = ("binance", "btcusdt", TRADE), ("binance", "ethusdt", TRADE)
    first = {
        trade: Counts(stored=1, duplicates=1), other: Counts(stored=1), ("binance", "btcusdt", ORDERBOOK): Counts(stored=1),
        ("binance", UNDECODED, UNDECODED): Counts(quarantined=1),
    }  # fmt: skip
    assert told(segment, batch(1, units)).feeds == first
    again = told(segment, batch(1, units), batch(2, [event(3)]))
    assert again.feeds == {feed: Counts(replays=2 if feed == trade else 1, stored=feed == trade) for feed in first}
    assert (again.fetched, again.lost) == ({}, {})


def test_what_no_connection_brought_is_told_as_fetched(segment: Segment) -> None:
    asked = batch(1, [event(1), event(2)], stream="binance-rest", kind="rest")
    assert told(segment, asked).fetched == {("binance", "btcusdt", TRADE): 2}
    assert told(segment, asked).fetched == {}, "a replay brings nothing"
    assert told(segment, batch(1, [event(1, "5")], epoch=OTHER)).fetched == {}


def test_a_loss_is_told_once_however_often_and_wherever_its_batch_comes(segment: Segment, tmp_path: Path) -> None:
    loss = Loss("btcusdt", TRADE, 3, 7, 5, OPENED_US, OPENED_US + 1, "queue_full")
    unknown = Loss("btcusdt", ORDERBOOK, 1, 0, None, OPENED_US, OPENED_US + 1, "unclean_end")
    only = batch(2, [], losses=(loss, unknown))
    lost = {("binance", "btcusdt", TRADE, "queue_full"): 5}
    assert +told(segment, batch(1, [event(1), event(2)]), only).lost == lost
    assert +told(segment, only).lost == {}
    known = KnownRanges()
    sealed(segment).load_known(known, [EPOCH])
    assert +told(opened(tmp_path, 2), only, known=known).lost == {}, "nor in the next segment"


def test_a_hole_that_a_commit_shows_is_told_as_lost(segment: Segment) -> None:
    outcomes = told(segment, batch(1, [event(1)]), batch(3, [event(4)]))
    assert outcomes.lost == {("binance", "btcusdt", TRADE, "buffer_lost"): 2}
