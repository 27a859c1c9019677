"""Each way in which a venue or the network lets a stream down: real sockets, real Redis, and afterwards the account of
every event that the exchanges say they sent."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from app.pipeline import periodic
from tests.chaos.content import held
from tests.support.accounted import Account
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, Scripted, bybit_trade, until
from tests.support.recording import QUICK, Recording, between, gaps, missed_trades
from tests.support.redis_process import RedisProcess
from tests.support.rig import MARKETS, Rig
from tests.support.segments import query

FEEDS = ("orderbook", "trade")
#: Silence after which a connection is given up, where silence is what is tested.
SILENT_S = 3
SILENCED = ("binance", "okx", "coinbase")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeProcess]:
    started = ExchangeProcess(tmp_path_factory.mktemp("faults") / "exchange", rate=20, seed=3)
    yield started
    started.stop()


@pytest.fixture
def exchange(process: ExchangeProcess) -> Iterator[ExchangeProcess]:
    process.heal()
    process.resume()
    yield process
    process.heal()


Record = Callable[[str, object], None]
Recorder = Callable[..., Recording]


@pytest.fixture
def record(exchange: ExchangeProcess, rig: Rig) -> Iterator[Recorder]:
    """`record("okx", "bybit")` begins a recording of these venues."""
    begun: list[Recording] = []

    def begin(*names: str, **websocket: float) -> Recording:
        begun.append(Recording(exchange, rig, *names, **websocket))
        return begun[-1]

    yield begin
    for recording in begun:
        recording.close()


@pytest.mark.row("X1")
def test_after_a_clean_close_the_stream_is_back_and_the_trades_missed_meanwhile_are_a_gap(
    exchange: ExchangeProcess, record: Recorder, record_property: Record
) -> None:
    recording = record("binance", "okx", initial_retry_delay_secs=1)  # the default
    recording.live()
    exchange.do("close,venue=binance,code=1000")
    exchange.do("close,venue=okx,code=1001")
    for venue in ("binance", "okx"):
        recording.again(venue)
    account = recording.account()
    for venue in ("binance", "okx"):
        record_property(f"{venue}_back_s", away_s := between(recording, venue))
        assert away_s < 5
        assert account.reasons(venue) == ["close_frame", "stop"]
    assert (account.unread, account.lost) == ({}, 0)
    missed = missed_trades(recording, "binance")
    assert {symbol: gaps(account, "trade").get(symbol) for symbol in missed} == missed != {}


@pytest.fixture(scope="module")
def silenced(
    process: ExchangeProcess, redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recording, Account]:
    """Three venues fall silent, each in its way, while a fourth goes on."""
    process.resume()
    rig = Rig(tmp_path_factory.mktemp("silenced"), redis_server.url)
    recording = Recording(process, rig, *SILENCED, "bybit", message_timeout_secs=SILENT_S)
    try:
        recording.live()
        process.do("half-open,venue=binance")
        process.let("slow,venue=okx,byte_s=1", "silence,venue=coinbase")
        mine = {("coinbase", symbol, feed) for symbol in MARKETS["coinbase"] for feed in ("orderbook", "trade")}
        until(lambda: {recording.collecting.feeds()[key][0] for key in mine} == {"stale"}, "its feeds are stale")
        until(lambda: recording.stream("coinbase").progress.closes, "its connection is given up")
        process.heal()
        for venue in SILENCED:
            recording.again(venue)
        return recording, recording.account()
    finally:
        process.heal()
        recording.close()


def test_a_venue_that_goes_on_is_not_touched_by_others_that_fall_silent(silenced: tuple[Recording, Account]) -> None:
    recording, account = silenced
    assert (account.reasons("bybit"), account.lost) == (["stop"], 0)
    assert set(account.unread) <= {(v, s, f) for v in ("binance", "okx") for s in MARKETS[v] for f in FEEDS}
    assert recording.collecting.reasons == dict.fromkeys(recording.wiring.streams, "stop")


@pytest.mark.row("X2")
def test_a_half_open_connection_is_noticed_and_replaced(
    silenced: tuple[Recording, Account], record_property: Record
) -> None:
    recording, account = silenced
    (fault,) = recording.struck("half-open")
    opened = [x["opened"] for x in recording.lines() if x.get("venue") == "binance" and "opened" in x]
    record_property("replaced_s", replaced_s := (opened[-1] - fault["at_us"]) / 1e6)
    assert replaced_s < 30
    assert account.reasons("binance") == ["dead_timeout", "stop"]
    missed = missed_trades(recording, "binance")
    assert {symbol: gaps(account, "trade")[symbol] for symbol in missed} == missed != {}


@pytest.mark.row("X3")
def test_a_connection_that_beats_and_brings_no_data_is_stale_then_replaced(silenced: tuple[Recording, Account]) -> None:
    recording, account = silenced
    assert account.reasons("coinbase") == ["data_timeout", "stop"]
    missed = missed_trades(recording, "coinbase")
    assert {symbol: gaps(account, "trade")[symbol] for symbol in missed} == missed
    withheld = recording.withheld("coinbase")
    assert withheld.keys() == missed.keys() == set(MARKETS["coinbase"])
    for symbol, ids in withheld.items():
        ((first, last),) = missed[symbol]
        assert first <= min(ids) and max(ids) <= last


@pytest.mark.row("X7")
def test_a_frame_that_comes_byte_by_byte_is_a_connection_that_is_silent(silenced: tuple[Recording, Account]) -> None:
    assert silenced[1].reasons("okx") == ["dead_timeout", "stop"]


@pytest.mark.row("X5")
def test_spoiled_frames_of_every_kind_are_kept_byte_for_byte_and_the_stream_goes_on(
    exchange: ExchangeProcess, record: Recorder
) -> None:
    recording = record("bybit")
    recording.live()
    kinds = ("bytes", "text", "utf8", "truncated", "nesting", "renamed", "empty", "nan")
    exchange.let(*(f"garbage,venue=bybit,feed=trade,kind={kind}" for kind in kinds))
    until(lambda: {x["kind"] for x in recording.struck("garbage")} == set(kinds), "each kind was sent")
    recording.collecting.more(20)
    account = recording.account()
    sent = sorted(x["sha256"] for x in recording.struck("garbage"))
    kept = sorted(hashlib.sha256(frame).hexdigest() for *_, frame in account.held.quarantine)
    assert kept == sent
    assert account.reasons("bybit") == ["stop"]


@pytest.mark.row("X5")
def test_a_connection_of_which_most_cannot_be_read_starts_anew_and_nothing_of_it_is_lost(rig: Rig) -> None:
    sent = []

    def script(connection: ServerConnection, number: int) -> None:
        connection.send(bybit_trade("BTCUSDT", number))
        for n in range(120 if number == 1 else 0):  # the last ones only where it is faster than our goodbye
            frame = b'{"topic":"publicTrade.BTCUSDT","ts":%d,"data":[' % n
            connection.send(frame, text=True)
            sent.append(frame)

    with Scripted(script) as venue:
        rig.write({"bybit": ["BTCUSDT"]}, {"bybit": venue.venue}, collector={"feeds": ["trades"]}, websocket=QUICK)
        wiring = rig.wiring()
        with Collecting(wiring) as collecting:
            until(lambda: collecting.runners and next(iter(collecting.runners.values())).progress.events == 2, "both")
    periodic.flush(wiring, NEVER, deadline_s=None)
    found = held(rig)
    assert len(sent) >= 100
    assert sorted(frame for *_, frame in found.quarantine) == sorted(sent)
    assert sorted(str(told[3]) for told in found.epochs.values()) == ["circuit_breaker", "stop"]
    assert sorted(row[3] for row in found.rows) == ["1", "2"]


@pytest.mark.row("X6")
def test_a_frame_of_64_megabytes_and_a_compressed_bomb_end_their_connection_and_are_not_read(
    exchange: ExchangeProcess, record: Recorder, record_property: Record
) -> None:
    recording = record("upbit", "okx")
    recording.live()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exchange.do("oversized,venue=upbit,bytes=67108864")
    exchange.do("bomb,venue=okx,bytes=67108864")
    for venue in ("upbit", "okx"):
        recording.again(venue)
    record_property("grown_kib", grown_kib := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib)
    assert grown_kib < 32 * 1024
    account = recording.account()
    assert account.reasons("upbit") == ["oversized_frame", "stop"]
    assert account.reasons("okx") == ["stream_ended", "stop"]
    (((*_, feed, number, head), _),) = account.held.quarantine.items()
    assert (feed, number, len(head), head[:12]) == ("?", 1, 64 * 1024, b'{"padding":"')


@pytest.mark.row("X7")
def test_a_handshake_that_never_ends_is_given_up(
    exchange: ExchangeProcess, record: Recorder, record_property: Record
) -> None:
    exchange.let("slow-handshake,venue=okx,byte_s=0", "slow-handshake,venue=bybit,byte_s=0.2")
    recording = record("okx", "bybit")
    until(lambda: len(recording.struck("slow-handshake")) == 2, "both are slow")
    recording.live()
    for fault in recording.struck("slow-handshake"):
        opened_us = next(x["opened"] for x in recording.lines() if x["venue"] == fault["venue"] and "opened" in x)
        record_property(f"{fault['venue']}_s", connected_s := (opened_us - fault["at_us"]) / 1e6)
        assert connected_s < QUICK["connect_timeout_secs"] + 10  # its bytes alone would take 25 s
    account = recording.account()
    assert [account.reasons(venue) for venue in ("okx", "bybit")] == [["stop"], ["stop"]]


@pytest.mark.row("X8")
def test_repeats_are_counted_numbers_that_start_over_are_no_gap_and_what_comes_late_is_stored(
    exchange: ExchangeProcess, record: Recorder
) -> None:
    recording = record("binance", "okx", "bybit")
    recording.live()
    exchange.let(
        "duplicate,feed=trade,venue=binance,symbol=ethusdt,count=3,times=3",
        "duplicate,feed=orderbook,venue=okx,count=2",
        "reorder,feed=trade,venue=binance,symbol=btcusdt,by=2",
    )
    exchange.do("reset,venue=bybit")
    exchange.do("reset,venue=okx")
    until(lambda: len(recording.struck("duplicate")) == 5, "frames were sent again")
    recording.struck("reorder")
    recording.collecting.more(60)
    account = recording.account()
    assert (account.duplicates, account.lost) == (3 * 2 + 2, 0)
    assert len(recording.struck("reset")) == 4
    # The one gap is that of the trade that had not come yet: its row names the id, which is stored.
    ((symbol, ((late, last),)),) = gaps(account, "trade").items()
    assert (symbol, late) == ("btcusdt", last)
    assert str(late) in {row[3] for row in account.held.rows if row[:3] == ("trades", "binance", "btcusdt")}
    assert gaps(account, "orderbook") == missed_trades(recording, "binance") == {}
    assert [account.reasons(name) for name in ("binance", "okx", "bybit")] == [["stop"]] * 3


@pytest.mark.row("X9")
def test_a_hole_is_on_record_at_the_next_flush_and_a_book_begins_anew(
    exchange: ExchangeProcess, record: Recorder, record_property: Record
) -> None:
    recording = record("binance", "okx", "bybit")
    recording.live()
    exchange.let(
        "lose,venue=binance,symbol=btcusdt,feed=trade",
        "lose,venue=okx,symbol=BTC-USDT,feed=orderbook",
        "lose,venue=bybit,symbol=BTCUSDT,feed=orderbook",
    )
    until(lambda: len(recording.struck("lose")) == 3, "each lost a frame")

    def on_record() -> list[tuple[Any, ...]]:
        recording.flush()
        (segment,) = recording.wiring.ledger.segments("open")
        path = recording.wiring.settings.storage.segments_path / segment.path
        return query(path, "SELECT exchange, after_us, cause FROM gaps")

    rows = until(lambda: rows if len(rows := on_record()) == 3 else [], "three gaps in the segment", 5)
    lost_us = {x["venue"]: x["at_us"] for x in recording.struck("lose")}
    for venue, after_us, cause in rows:
        record_property(f"{venue}_s", noticed_s := (after_us - lost_us[venue]) / 1e6)
        assert noticed_s < 1
        assert cause == ("missing_ids" if venue == "binance" else "sequence")

    def snapshots(venue: str) -> int:
        texts = [x["data"] for x in recording.lines() if x.get("venue") == venue and x.get("feed") == "orderbook"
                 and x["symbol"] in ("BTC-USDT", "BTCUSDT") and "data" in x]  # fmt: skip
        return sum('"snapshot"' in text for text in texts)

    until(lambda: (snapshots("okx"), snapshots("bybit")) == (2, 2), "a second snapshot on the same connection")
    account = recording.account()
    assert gaps(account, "trade") == {"btcusdt": [(i, i) for i in recording.withheld("binance")["btcusdt"]]}
    assert gaps(account, "orderbook").keys() == {"BTC-USDT", "BTCUSDT"}
    assert [account.reasons(venue) for venue in ("binance", "okx", "bybit")] == [["stop"]] * 3


@pytest.mark.row("X10")
def test_frames_whose_fields_were_renamed_are_kept_and_counted_and_the_others_go_on(
    exchange: ExchangeProcess, record: Recorder
) -> None:
    recording = record(*MARKETS)
    recording.live()
    exchange.let(
        *(f"garbage,venue={name},feed={feed},kind=renamed" for name in MARKETS for feed in ("orderbook", "trade"))
    )
    until(lambda: len(recording.struck("garbage")) == 10, "a book and a trade of each venue were renamed")
    recording.collecting.more(50)
    account = recording.account()
    sent = sorted(x["sha256"] for x in recording.struck("garbage"))
    assert sorted(hashlib.sha256(frame).hexdigest() for *_, frame in account.held.quarantine) == sent
    assert {name: account.reasons(name) for name in MARKETS} == {name: ["stop"] for name in MARKETS}
