"""A venue that does not let a stream in: refused with a status, not found, or not who it says it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from tests.support.authority import Authority
from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, Scripted, bybit_trade, until
from tests.support.recording import QUICK
from tests.support.rig import MARKETS, Rig

AWAY_S = 1


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeProcess]:
    started = ExchangeProcess(tmp_path_factory.mktemp("access") / "exchange", rate=20)
    yield started
    started.stop()


@pytest.fixture
def exchange(process: ExchangeProcess) -> Iterator[ExchangeProcess]:
    process.heal()
    yield process
    process.heal()


def doubled(waits: list[float]) -> bool:
    """Whether each wait is at least what the backoff asks for, its jitter at the shortest: load makes waits longer only."""
    first_s = QUICK["initial_retry_delay_secs"]
    return all(wait_s >= 0.75 * first_s * 2**n for n, wait_s in enumerate(waits))


def refusal(lines: list[dict[str, Any]]) -> int:
    """When the venue refused, microseconds."""
    (at_us,) = [x["at_us"] for x in lines if x.get("fault") == "http"]
    return int(at_us)


@pytest.mark.row("X11")
@pytest.mark.parametrize(("status", "on"), [(429, "handshake"), (418, "handshake"), (429, "rest")])
def test_who_is_told_to_stay_away_stays_away_with_all_other_workers(
    status: int, on: str, exchange: ExchangeProcess, rig: Rig
) -> None:
    before = len(exchange.lines())
    exchange.let(f"http,venue=okx,status={status},retry_after_s={AWAY_S},on={on},count=1")
    exchanges = {"okx": {**exchange.venues["okx"], "connections": 2}}
    rig.write({"okx": [f"{base}-USDT" for base in ("BTC", "DOGE", "AVAX", "DOT")]}, exchanges, websocket=QUICK)
    one, two = sorted(rig.wiring().streams)
    with Collecting(rig.wiring(), one) as first:
        until(lambda: [x for x in exchange.lines()[before:] if x.get("fault") == "http"], "the first is refused")
        state = until(lambda: first.runners[one].state(0.0)["why"], "it says why")
        with Collecting(rig.wiring(), two) as second:
            until(lambda: first.live() and second.live(), "both are let in in the end")
    lines = exchange.lines()[before:]
    opened = [x["opened"] for x in lines if "opened" in x]
    assert len(opened) == 2
    assert min(opened) >= refusal(lines) + AWAY_S * 1_000_000
    assert "stay away" in state or "budget" in state


@pytest.mark.row("X11")
def test_a_venue_that_does_not_serve_this_place_is_named_with_the_remedy_and_asked_ever_more_seldom(
    exchange: ExchangeProcess, rig: Rig
) -> None:
    before = len(exchange.lines())
    statuses = {"bybit": 403, "binance": 451}
    exchange.let(*(f"http,venue={name},status={status},on=handshake" for name, status in statuses.items()))
    rig.write({name: MARKETS[name] for name in statuses}, exchange.venues, websocket=QUICK)
    wiring = rig.wiring()

    def refused(venue: str) -> list[int]:
        """When the venue refused, microseconds; empty before the third time."""
        at = [x["at_us"] for x in exchange.lines()[before:] if x.get("fault") == "http" and x["venue"] == venue]
        return at if len(at) > 2 else []

    def shown(venue: str) -> str:
        """Why the venue's stream is refused, as the board has it."""
        states = wiring.board.states([f"{venue}-0-orderbook.trade"]).values()
        return next((state["why"] for state in states if state["connection"] == "refused"), "")

    with Collecting(wiring) as collecting:
        for venue, status in statuses.items():
            at_us = until(partial(refused, venue), "three refusals")
            waits = [(after - before) / 1e6 for before, after in pairwise(at_us)]
            assert doubled(waits)
            why = until(partial(shown, venue), "the board says so")
            assert f"HTTP {status}" in why and f"[exchanges.{venue}] ws_url, rest_url or proxy" in why
        exchange.heal()
        until(collecting.live, "both let it in")


def knocks(rig: Rig, url: str, wanted: str, at_least: int = 3) -> list[float]:
    """Seconds between the attempts of one stream to connect to `url`, each of which must fail with words like `wanted`."""
    rig.write({"bybit": ["BTCUSDT"]}, {"bybit": {"ws_url": url, "rest_url": "http://127.0.0.1:9"}}, websocket=QUICK)
    with Collecting(rig.wiring()) as collecting:
        runner = until(lambda: next(iter(collecting.runners.values()), None), "a runner")
        seen: list[tuple[float, str]] = []

        def failed() -> bool:
            state = runner.state(0.0)
            if state["connection"] == "failed" and (not seen or state["since_us"] != seen[-1][0]):
                seen.append((state["since_us"], state["why"]))
            return len(seen) >= at_least

        until(failed, f"{at_least} failures", 30)
        assert runner.progress.opened_count == 0
    assert [why for _, why in seen if wanted not in why] == []
    return [(after - before) / 1e6 for (before, _), (after, _) in pairwise(seen)]


@pytest.mark.row("X13")
def test_a_name_that_cannot_be_resolved_is_tried_ever_more_seldom(rig: Rig) -> None:
    waits = knocks(rig, "wss://no-such-venue.invalid", "WebSocketAddressException")
    assert doubled(waits)


def greets(connection: ServerConnection, number: int) -> None:
    connection.send(bybit_trade("BTCUSDT", number))


@pytest.mark.row("X13")
@pytest.mark.parametrize(
    ("names", "days", "trusted", "words"),
    [
        ("127.0.0.1", 30, False, "unable to get local issuer certificate"),
        ("127.0.0.1", -1, True, "certificate has expired"),
        ("127.0.0.2", 30, True, "certificate is not valid for '127.0.0.1'"),
    ],
    ids=["of an unknown authority", "expired", "of another host"],
)
def test_a_certificate_that_proves_nothing_is_refused_every_time(
    names: str, days: int, trusted: bool, words: str, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
    with Scripted(greets, authority.context(names, days=days)) as venue:
        waits = knocks(rig, venue.venue["ws_url"], words)
        assert venue.connections == 0
    assert doubled(waits)


@pytest.mark.row("X13")
def test_a_venue_that_proves_who_it_is_is_recorded(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
    with Scripted(greets, authority.context()) as venue:
        rig.write({"bybit": ["BTCUSDT"]}, {"bybit": venue.venue}, collector={"feeds": ["trades"]}, websocket=QUICK)
        with Collecting(rig.wiring()) as collecting:
            until(lambda: collecting.runners and next(iter(collecting.runners.values())).progress.events, "a trade")
