"""`collector status`: every feed, and exit code 1 while one needs a look."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, until
from tests.support.rig import Rig


def test_a_stream_that_nobody_runs_is_down(rig: Rig) -> None:
    rig.write(markets={"okx": ["BTC-USDT"]})
    answer = rig.collector("status", "--json")
    assert answer.returncode == 1
    told = json.loads(answer.stdout)
    assert [(row["symbol"], row["feed"], row["connection"], row["why"]) for row in told["feeds"]] == [
        ("BTC-USDT", "orderbook", "down", "no stream worker has it"),
        ("BTC-USDT", "trade", "down", "no stream worker has it"),
    ]


def test_the_stream_workers_are_shown_with_their_streams(rig: Rig) -> None:
    rig.write(markets={"okx": ["BTC-USDT"]})
    told = {"process": "a:1", "streams": ["okx-0-orderbook.trade", "x"], "threads": 8, "since_us": 1_790_000_000_000_000,
            "up_s": 9.0, "failing": False}  # fmt: skip
    idle = {**told, "streams": [], "failing": True}
    board = rig.wiring().board
    board.join("stream-1@a", told, 60)
    board.join("stream-2@b", idle, 60)
    assert json.loads(rig.collector("status", "--json").stdout)["workers"] == {"stream-1@a": told, "stream-2@b": idle}
    lines = rig.collector("status").stdout.splitlines()
    assert [line.split() for line in lines[-4:-1]] == [
        ["WORKER", "SINCE", "(UTC)", "FREE", "STREAMS"],
        ["stream-1@a", "09-21", "14:13:20", "6", "2:", "okx-0-orderbook.trade,", "x"],
        ["stream-2@b", "09-21", "14:13:20", "8", "a", "stream", "failed", "here", "lately;", "0"],
    ]
    board.leave("stream-2@b")
    board.join("stream-1@a", {**told, "threads": 2}, 60)
    feeds = json.loads(rig.collector("status", "--json").stdout)["feeds"]
    assert {row["why"] for row in feeds} == {"no stream worker has a free thread"}


def test_what_keeps_a_station_from_its_work_is_shown_and_needs_a_person(rig: Rig) -> None:
    rig.write({"okx": ["BTC-USDT"]})
    board = rig.wiring().board
    feeds = [{"symbol": "BTC-USDT", "feed": "trade", "state": "live", "since_us": 1, "age_s": 0.1, "why": ""}]
    state = {"connection": "open", "why": "", "feeds": feeds, "spool_refusal": ""}
    board.publish("okx-0-orderbook.trade", state, 60)
    board.trouble("flush", {"level": "warning", "detail": "disk: 83 %", "since_us": 1_790_000_000_000_000}, 60)
    answer = rig.collector("status")
    assert (answer.returncode, answer.stdout.splitlines()[-2:]) == (
        0, ["warning since 09-21 14:13:20 UTC: flush: disk: 83 %", "1 feeds, 0 need a look"],
    )  # fmt: skip
    board.publish("okx-0-orderbook.trade", {**state, "spool_refusal": "No space left on device"}, 60)
    answer = rig.collector("status", "--json")
    troubles = json.loads(answer.stdout)["troubles"]
    assert (answer.returncode, sorted(troubles)) == (1, ["flush", "spool of okx-0-orderbook.trade"])


def test_live_feeds_are_fine_and_a_refused_one_needs_a_look(
    rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    venues = exchange_server().venues
    rig.write(markets={"okx": ["BTC-USDT"]}, venues=venues)
    wiring = rig.wiring()
    with Collecting(wiring):
        until(lambda: rig.collector("status").returncode == 0, "both feeds live", 30)
        lines = rig.collector("status").stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["okx", "BTC-USDT", "orderbook", "live"],
        ["okx", "BTC-USDT", "trade", "live"],
    ]
    assert lines[-1] == "2 feeds, 0 need a look"

    rig.write(markets={"okx": ["BTC-USDT", "NONE-USDT"]}, venues=venues)
    with Collecting(rig.wiring()):

        def refused() -> bool:
            told = json.loads(rig.collector("status", "--json").stdout)
            return {row["state"] for row in told["feeds"] if row["symbol"] == "NONE-USDT"} == {"rejected"}

        until(refused, "the unknown symbol is rejected", 30)
        assert rig.collector("status").returncode == 1
