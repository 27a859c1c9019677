"""What a naive key would have dropped or doubled: (exchange, symbol, the number that looks like a sequence).

Each case goes through the real session, codec and segment: one row for each distinct event, the others counted, no false
gap. And it is shown that the naive key collides there. Facts: docs/exchanges.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.codec import BatchCodec
from app.model import TRADE
from app.pipeline import periodic
from app.pipeline.flush import Flush, FlushReport
from app.pipeline.late import LateTwins
from app.pipeline.supervise import drain_spools
from app.store.insert import conflict_id
from app.store.tallies import Counts
from app.wiring import Wiring
from tests.support.path import NEVER, archived
from tests.support.rig import Rig
from tests.support.segments import balance, opened, query, sealed, stored
from tests.support.written import (
    MS,
    NOW_US,
    TIME,
    advanced_book,
    advanced_trades,
    binance,
    binance_trade,
    bybit,
    bybit_trades,
    coinbase,
    l2update,
    okx,
    okx_trades,
    received,
    upbit,
)  # fmt: skip

HOUR_US = 3_600_000_000


def texts(path: Path, table: str) -> list[str]:
    """The text of every row, in the order of receipt."""
    return [text for (text,) in query(path, f"SELECT data FROM {table} ORDER BY timestamp_collector, id")]


# books


class Books(NamedTuple):
    exchange: str
    #: By connection, its frames.
    connections: list[list[str]]
    #: The number of a frame that looks like its sequence.
    naive: Callable[[dict[str, Any]], object]
    #: How many of the distinct frames a key of that number would have kept.
    naive_keeps: int
    duplicates: int = 0
    conflicts: int = 0
    channel: str = ""
    source: str | None = None


SNAPSHOT = coinbase("snapshot", '"bids":[["1","1"]],"asks":[]')
BOOKS = {
    "Coinbase: a time is shared, within a connection and over two, even by the same bytes": Books(
        "coinbase",
        [[SNAPSHOT, l2update("1"), l2update("2")], [SNAPSHOT, l2update("2"), l2update("3")]],
        lambda frame: frame.get("time", "0"),
        2,
    ),
    "Coinbase Advanced: the frames of each connection are counted from 0": Books(
        "coinbase",
        [[advanced_book(n, "update" if n else "snapshot", f"{c}{n}") for n in range(3)] for c in (1, 2)],
        lambda frame: frame["sequence_num"],
        3,
        source="advanced",
    ),
    "Upbit: several updates in a millisecond; a snapshot repeats the time of the last": Books(
        "upbit",
        [
            [upbit("1.0", MS), upbit("2.0", MS), upbit("3.0", MS), upbit("4.0", MS + 1)],
            [upbit("4.0", MS + 1, "SNAPSHOT"), upbit("4.0", MS + 1)],
        ],
        lambda frame: frame["tms"],
        2,
        duplicates=1,
    ),
    "OKX: the snapshot of a new connection has the seqId of a stored update": Books(
        "okx",
        [
            [okx("snapshot", -1, 100), okx("update", 100, 110), okx("update", 110, 120)],
            [okx("snapshot", -1, 120), okx("update", 120, 131)],
        ],
        lambda frame: frame["data"][0]["seqId"],
        4,
    ),
    "OKX: keep-alives repeat the seqId and are no gap": Books(
        "okx",
        [
            [
                okx("snapshot", -1, 100),
                okx("update", 100, 110),
                *[okx("update", 110, 110, MS + n * 60_000, "") for n in (1, 2)],
                okx("update", 110, 125),
            ]
        ],
        lambda frame: frame["data"][0]["seqId"],
        3,
    ),
    "OKX: after maintenance ids go back, the chain unbroken, and meet stored ones": Books(
        "okx",
        [
            [
                okx("snapshot", -1, 100),
                okx("update", 100, 110),
                okx("update", 110, 120),
                okx("update", 120, 3),
                okx("update", 3, 100, MS + 1),
                okx("update", 100, 110, MS + 2),  # the whole pair once more, with other content
                okx("update", 110, 121, MS + 3),
            ]
        ],
        lambda frame: frame["data"][0]["seqId"],
        5,
        conflicts=1,
    ),
    "Bybit: u starts over at 1, whatever the type says": Books(
        "bybit",
        [
            [
                bybit("snapshot", 1, 10),
                bybit("delta", 2, 11),
                bybit("delta", 3, 12),
                bybit("delta", 1, 50, MS + 9),
                bybit("delta", 2, 51, MS + 9),
                bybit("snapshot", 1, 70, MS + 10),
            ]
        ],
        lambda frame: frame["data"]["u"],
        3,
    ),
    "Bybit: the best bid and offer repeats itself with the same u, or u and seq": Books(
        "bybit",
        [
            [
                bybit("snapshot", 7, 157, depth=1),
                bybit("snapshot", 7, 157, ts=MS + 3000, depth=1),
                bybit("snapshot", 7, 166, MS + 6000, MS + 6000, depth=1),
            ]
        ],
        lambda frame: frame["data"]["u"],
        1,
        channel="orderbook.1",
    ),
}


@pytest.mark.parametrize("case", BOOKS.values(), ids=BOOKS)
def test_every_distinct_book_is_one_row_where_a_naive_key_collides(case: Books, tmp_path: Path) -> None:
    batches = received(case.exchange, case.connections, channel=case.channel, source=case.source)
    frames = [frame for connection in case.connections for frame in connection]
    distinct = frames if case.exchange == "coinbase" else list(dict.fromkeys(frames))
    segment = opened(tmp_path)
    assert stored(segment, *batches) == Counts(
        stored=len(distinct), duplicates=case.duplicates, conflicts=case.conflicts
    )
    assert texts(segment.path, "orderbooks") == distinct
    assert query(segment.path, "SELECT * FROM gaps") == []
    balance(segment.path)
    assert len({case.naive(json.loads(frame)) for frame in distinct}) == case.naive_keeps < len(distinct)


def test_a_pair_of_ids_that_comes_again_with_other_content_is_kept_beside_the_first(tmp_path: Path) -> None:
    first, again = okx("update", 100, 110), okx("update", 100, 110, MS + 2)
    (batch,) = received("okx", [[first, okx("update", 110, 100), again]])
    segment = opened(tmp_path)
    stored(segment, batch)
    held = query(segment.path, "SELECT exchange_sequence_id, data FROM orderbooks ORDER BY timestamp_collector")
    assert [held[0], held[2]] == [("books-update-100-110", first), (conflict_id(batch.events[2]), again)]


# trades

#: (frames of one connection, frames of the other), the trades cut differently, by what makes a frame of ids.
CUT = ([(1, 2), (3,)], [(1, 2, 3, 4), (5, 6)])


@pytest.mark.parametrize(
    ("exchange", "source", "frame"),
    [
        ("bybit", None, lambda n, ids: bybit_trades(*ids)),
        ("okx", None, lambda n, ids: okx_trades(*((id, 1) for id in ids))),
        ("coinbase", "advanced", lambda n, ids: advanced_trades(n, *ids)),
    ],
    ids=["bybit", "okx", "coinbase advanced"],
)
def test_trades_that_two_connections_cut_into_other_frames_are_stored_once(
    exchange: str, source: str | None, frame: Callable[[int, tuple[int, ...]], str], tmp_path: Path
) -> None:
    connections = [[frame(n, ids) for n, ids in enumerate(cut)] for cut in CUT]
    segment = opened(tmp_path)
    counts = stored(segment, *received(exchange, connections, source=source))
    assert counts == Counts(stored=6, duplicates=3)
    assert query(segment.path, "SELECT exchange_sequence_id FROM trades ORDER BY id") == [
        (str(n),) for n in range(1, 7)
    ]
    assert texts(segment.path, "trades") == [
        text for n in range(1, 7) for text in alone(exchange, source, frame(0, (n,)))
    ]
    assert query(segment.path, "SELECT * FROM gaps") == []
    balance(segment.path)

    by_first_id: dict[int, tuple[int, ...]] = {}
    for ids in (*CUT[0], *CUT[1]):
        by_first_id.setdefault(ids[0], ids)
    assert {id for ids in by_first_id.values() for id in ids} == {1, 2, 3, 5, 6}, (
        "a row a frame would have lost trade 4"
    )


def alone(exchange: str, source: str | None, frame: str) -> list[str]:
    return [event.data for batch in received(exchange, [[frame]], source=source) for event in batch.events]


def test_a_row_of_okx_stands_for_a_range_of_trades_so_there_is_no_gap_but_a_real_one(tmp_path: Path) -> None:
    frames = [okx_trades((10, 1), (13, 3)), okx_trades((14, 1)), okx_trades((20, 2))]
    segment = opened(tmp_path)
    assert stored(segment, *received("okx", [frames[:2], frames[2:]])) == Counts(stored=4)
    ids = [int(id) for (id,) in query(segment.path, "SELECT exchange_sequence_id FROM trades ORDER BY id")]
    assert ids == [10, 13, 14, 20]
    assert query(segment.path, "SELECT feed, from_id, to_id, size, cause FROM gaps") == [
        (TRADE, "15", "18", 4, "missing_ids")
    ]
    balance(segment.path)
    one_by_one = [(last + 1, id - 1) for last, id in pairwise(ids) if id != last + 1]
    assert one_by_one == [(11, 12), (15, 19)], "a count by one sees a hole that is none, and the other too large"
    assert {json.loads(text)["seqId"] for text in texts(segment.path, "trades")} == {77}, "seqId is shared by them all"


def test_a_trade_is_the_same_over_either_feed_of_coinbase_whatever_its_words(tmp_path: Path) -> None:
    match = coinbase("match", f'"trade_id":4,"sequence":9000,"time":"{TIME}","size":"2","price":"1","side":"buy"')
    last_match = match.replace('"match"', '"last_match"')
    segment = opened(tmp_path)
    batches = received("coinbase", [[match], [last_match]])
    batches += received("coinbase", [[advanced_trades(0, 4, 5)]], source="advanced", epoch=2)
    assert stored(segment, *batches) == Counts(stored=2, duplicates=2)
    assert texts(segment.path, "trades") == [match, *alone("coinbase", "advanced", advanced_trades(0, 5))]
    naive = {json.loads(text).get("sequence") for text in (match, last_match)}
    assert naive == {9000} and '"sequence":' not in advanced_trades(0, 4), "the number of one feed is none of the other"


# over the edge of a segment


def test_an_event_on_both_sides_of_a_segments_edge_is_one_row(tmp_path: Path) -> None:
    frames = [binance_trade(1), binance_trade(2), binance(160, "1.0"), binance(161, "1.0")]
    again = [binance_trade(2), binance_trade(3), binance(161, "1.0"), binance(161, "2.0"), binance(162, "1.0")]
    before, after = received("binance", [frames, again])
    first, second = opened(tmp_path, 1), opened(tmp_path, 2)
    assert stored(first, before) == Counts(stored=4)
    held = sealed(first)
    assert stored(second, after, twins=held.twins) == Counts(stored=3, duplicates=2, conflicts=1)
    trades = [json.loads(text)["t"] for path in (first.path, second.path) for text in texts(path, "trades")]
    books = [text for path in (first.path, second.path) for text in texts(path, "orderbooks")]
    assert trades == [1, 2, 3]
    assert books == [*frames[2:], again[3], again[4]]
    balance(second.path)
    unaware = opened(tmp_path, 3)
    assert stored(unaware, after).stored == 5, "the index of one file alone would have stored two of them twice"


def test_two_connections_to_coinbase_stay_two_series_over_the_edge_of_a_segment(tmp_path: Path) -> None:
    frames = [SNAPSHOT, l2update("1"), l2update("2")]
    before, after = received("coinbase", [frames, frames])
    first, second = opened(tmp_path, 1), opened(tmp_path, 2)
    stored(first, before)
    assert stored(second, after, twins=sealed(first).twins) == Counts(stored=3)
    assert texts(second.path, "orderbooks") == frames
    assert {epoch for (epoch,) in query(second.path, "SELECT epoch FROM orderbooks")} == {after.epoch}


def flush(wiring: Wiring, now_us: int) -> FlushReport:
    root = wiring.settings.storage.segments_path
    return Flush(
        wiring.buffer, wiring.ledger, root, segment_secs=3600, wall_us=lambda: now_us, monotonic_s=lambda: 0.0,
        late=LateTwins(wiring.ledger, root, lambda: wiring.store),
    ).run()  # fmt: skip


@pytest.mark.parametrize("removed", [True, False], ids=["its twins are in objects", "its twins are in a kept segment"])
def test_a_spool_that_comes_back_hours_late_adds_what_is_new_and_nothing_twice(rig: Rig, removed: bool) -> None:
    wiring, codec = rig.wiring(), BatchCodec()
    frames = [binance_trade(1), binance_trade(2), binance(160, "1.0"), binance(161, "1.0")]
    again = [binance_trade(2), binance_trade(3), binance(160, "1.0"), binance(161, "2.0"), binance(162, "1.0")]
    in_time, late = received("binance", [frames, again])
    spool = wiring.spool("binance-0")
    assert spool.lock()
    spool.append(codec.encode(late))
    spool.close()

    wiring.buffer.push("binance-0", codec.encode(in_time))
    assert flush(wiring, NOW_US + 1_000_000).counts == Counts(stored=4)
    for hour in (1, 2):
        flush(wiring, NOW_US + hour * HOUR_US)
    if removed:
        assert periodic.archive(wiring, NEVER)["removed_segments"] == [1]

    assert drain_spools(wiring)
    assert flush(wiring, NOW_US + 2 * HOUR_US + 60_000_000).counts == Counts(stored=3, duplicates=2, conflicts=1)
    flush(wiring, NOW_US + 3 * HOUR_US)
    assert periodic.archive(wiring, NEVER, final=True)["failed"] == {}
    rows = archived(wiring)
    assert rows == {
        ("binance", "btcusdt", "trade"): [(e.sequence_id, e.data) for e in (*in_time.events[:2], late.events[1])],
        ("binance", "btcusdt", "orderbook"): [
            ("depth20@100ms-160", frames[2]), ("depth20@100ms-161", frames[3]),
            (conflict_id(late.events[3]), again[3]), ("depth20@100ms-162", again[4]),
        ],
    }  # fmt: skip
    ids = [json.loads(data)["data"]["lastUpdateId"] for _, data in rows["binance", "btcusdt", "orderbook"]]
    assert ids == [160, 161, 161, 162], "a key of the id alone would have taken one of two books for the other"
