"""Markets of a collector that runs: real workers, the built-in exchanges, and the commands an operator types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.pipeline.supervise import drain_spools
from app.wiring import Wiring
from tests.integration.test_commands import call
from tests.support.exchanges import ExchangeProcess
from tests.support.path import archived, compare, connections, figures, finish, until
from tests.support.rig import CHECKOUT, Rig

StartExchanges = Callable[..., ExchangeProcess]
OKX, UPBIT, BYBIT = (f"{name}-0-orderbook.trade" for name in ("okx", "upbit", "bybit"))


class Worker:
    """`celery -A app worker -B`: every queue in one process."""

    def __init__(self, rig: Rig, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "celery", "-A", "app", "worker", "-B", "-s", str(log.with_name("schedule"))]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=CHECKOUT, env=rig.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def says(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text(errors="replace").splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [entry for entry in told if entry.get("event") == event]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@pytest.fixture
def worker(rig: Rig, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(rig, tmp_path / f"worker-{len(started)}.log"))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def live(wiring: Wiring, *streams: str) -> dict[str, str]:
    """Stream -> epoch, once each of them has all its feeds live; until then nothing."""
    states = wiring.board.states(list(streams))
    for name in streams:
        feeds = [feed["state"] for feed in states[name]["feeds"]] if name in states else []
        if feeds != ["live"] * (2 * len(wiring.streams[name].subscription.symbols)):
            return {}
    return {name: states[name]["epoch"] for name in streams}


@pytest.mark.exhaustive
def test_markets_come_and_go_while_the_worker_runs_and_the_streams_of_others_stay_connected(
    rig: Rig, exchange_server: StartExchanges, worker: Callable[[], Worker]
) -> None:
    server = exchange_server(rate=10)
    rig.write({"okx": ["BTC-USDT"], "upbit": ["KRW-BTC"]}, server.venues)
    running = worker()
    wiring = rig.wiring()
    first = until(lambda: live(wiring, OKX, UPBIT), "both streams are live", 40)

    told = call(rig, "markets", "add", "bybit", "BTCUSDT", "--check", "--json")
    assert (told.returncode, json.loads(told.stdout)["streams"]) == (
        0, {"started": [BYBIT], "ended": [], "reconnected": []},
    )  # fmt: skip
    told = call(rig, "markets", "add", "okx", "ETH-USDT")
    assert (told.returncode, told.stdout.splitlines()[1:]) == (0, [f"streams reconnected: {OKX}"])
    wiring = rig.wiring()
    second = until(lambda: live(wiring, OKX, UPBIT, BYBIT), "the new markets are live", 40)
    assert second[UPBIT] == first[UPBIT]
    assert second[OKX] != first[OKX]
    rows = json.loads(call(rig, "markets", "list", "--json").stdout)
    assert {(row["exchange"], row["symbol"], row["stream"], *row["state"].values()) for row in rows} == {
        ("okx", "BTC-USDT", OKX, "live", "live"), ("okx", "ETH-USDT", OKX, "live", "live"),
        ("upbit", "KRW-BTC", UPBIT, "live", "live"), ("bybit", "BTCUSDT", BYBIT, "live", "live"),
    }  # fmt: skip

    text = rig.path.read_text()
    rig.path.write_text(text.replace('exchange = "okx"', 'exchange = "okex"').replace(rig.prefix, "elsewhere"))
    (refused,) = until(lambda: running.says("settings.refused"), "what is not right is refused", 20)
    assert "did you mean okx?" in refused["faults"][0]
    rig.path.write_text(text)

    told = call(rig, "markets", "remove", "upbit", "KRW-BTC")
    assert (told.returncode, told.stdout.splitlines()[1:]) == (0, [f"streams ended: {UPBIT}"])
    until(lambda: UPBIT not in wiring.board.leased([UPBIT]), "its lease is given back", 20)
    until(lambda: UPBIT not in {depth.stream for depth in wiring.buffer.depths()}, "its list is flushed", 20)
    assert live(wiring, OKX, BYBIT) == {OKX: second[OKX], BYBIT: second[BYBIT]}

    assert running.stop() == 0, running.log.read_text()[-3000:]
    server.halt()
    ended = {(entry["stream"], entry["reason"]) for entry in running.says("stream.stopped")}
    assert ended == {(UPBIT, "market_removed"), (OKX, "stop"), (BYBIT, "stop")}
    assert drain_spools(wiring)
    finish(wiring)
    assert {row["epoch"]: row["reason"] for row in connections(wiring)} == {
        first[OKX]: "plan_changed", first[UPBIT]: "market_removed", second[OKX]: "stop", second[BYBIT]: "stop",
    }  # fmt: skip
    (successor,) = (row for row in connections(wiring) if row["epoch"] == second[OKX])
    assert json.loads(successor["overlaps"]) == [first[OKX]]
    assert figures(wiring, server.sent_file).figures["lost"] == 0
    texts = {data for found in archived(wiring).values() for _, data in found}
    compare(wiring, [entry for entry in server.sent() if not entry.get("maybe") or entry["data"] in texts])


# the commands


def test_check_online_asks_each_venue_and_names_each_symbol_it_does_not_list(
    rig: Rig, exchange_server: StartExchanges
) -> None:
    server = exchange_server(rate=1)
    rig.write(
        {"binance": ["btcusdt", "btcusdx"], "coinbase": ["BTC-USD"], "upbit": ["KRW-BTC"], "okx": ["BTC-USD"],
         "bybit": ["BTCUSDT"]},
        server.venues,
    )  # fmt: skip
    told = call(rig, "check", "--online", "--json")
    faults = json.loads(told.stdout)["faults"]
    assert told.returncode == 1
    assert [fault.partition(" is not in the venue's list")[0] for fault in faults] == [
        "symbols: binance/btcusdx", "symbols: okx/BTC-USD",
    ]  # fmt: skip
    assert "did you mean btcusdt" in faults[0] and "did you mean BTC-USDT" in faults[1]
    assert call(rig, "check").returncode == 0

    rig.write({"binance": ["btcusdt"], "okx": ["BTC-USDT"]}, server.venues)
    told = call(rig, "check", "--online")
    assert (told.returncode, told.stdout.splitlines()[-1][:9]) == (0, "0 faults,")
    server.let("http,venue=okx,status=451,on=rest", "http,venue=binance,status=429,retry_after_s=7,on=rest")
    told = call(rig, "check", "--online")
    found = [line for line in told.stdout.splitlines() if ": symbols: " in line]
    assert told.returncode == 1
    assert [line.partition("; ")[0] for line in found] == [
        "warning: symbols: binance could not be asked for its symbols: HTTP 429, asked too often",
        "fault: symbols: okx could not be asked for its symbols: HTTP 451",
    ]
    assert "ask again in 7 s" in found[0] and "[exchanges.okx] ws_url, rest_url or proxy" in found[1]


def test_adding_with_check_changes_nothing_when_the_venue_does_not_list_the_symbol(
    rig: Rig, exchange_server: StartExchanges
) -> None:
    server = exchange_server(rate=1)
    rig.write({"okx": ["BTC-USDT"]}, server.venues)
    before = rig.path.read_bytes()
    told = call(rig, "markets", "add", "okx", "ETH-USDT", "ETH-USTD", "--check")
    assert (told.returncode, told.stdout) == (1, "")
    assert "okx/ETH-USTD is not in the venue's list" in told.stderr and "ETH-USDT" in told.stderr
    server.stop()
    told = call(rig, "markets", "add", "okx", "ETH-USDT", "--check")
    assert (told.returncode, "okx could not be asked for its symbols" in told.stderr) == (1, True)
    assert rig.path.read_bytes() == before
