"""The plan of a running process follows the settings file, and nothing else of it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app import telemetry
from app.config import load
from app.pipeline.replan import LOOK_S, Replan, needs_restart
from tests.support.rig import Rig

OKX, UPBIT = "okx-0-orderbook.trade", "upbit-0-orderbook.trade"


@dataclass
class Running:
    """A process at a clock of its own."""

    rig: Rig
    now_s: float = 0.0
    said: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replan = Replan(self.rig.settings, self.rig.path, lambda: self.now_s)

    def looks(self, times: int = 2) -> list[tuple[str, Any]]:
        """What it says when it looks so often, each time after its pause."""
        self.said.clear()
        for _ in range(times):
            self.now_s += LOOK_S
            self.replan.look()
        return list(self.said)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in [name for name in os.environ if name.startswith("COLLECTOR_")]:
        monkeypatch.delenv(name)
    rig = Rig(tmp_path, "redis://127.0.0.1:1/0")
    rig.write({"okx": ["BTC-USDT"], "upbit": ["KRW-BTC"]})
    process = Running(rig)
    monkeypatch.setattr(telemetry, "settings_changed", lambda file, *facts: process.said.append(("changed", facts)))
    monkeypatch.setattr(telemetry, "settings_refused", lambda file, faults: process.said.append(("refused", faults)))
    assert process.looks(3) == []
    yield process


def test_markets_come_and_go_and_streams_without_a_change_stay_equal(running: Running) -> None:
    before = running.replan.streams
    running.rig.write({"okx": ["BTC-USDT", "ETH-USDT"], "upbit": ["KRW-BTC"], "bybit": ["BTCUSDT"]})
    assert running.looks() == [("changed", (("bybit-0-orderbook.trade",), (), (OKX,), []))]
    after = running.replan.streams
    assert after[UPBIT] == before[UPBIT]
    assert after[OKX].subscription.symbols == ("BTC-USDT", "ETH-USDT")
    assert len(running.replan.settings.all_markets()) == 4
    running.rig.write({"upbit": ["KRW-BTC"]})
    assert running.looks() == [("changed", ((), ("bybit-0-orderbook.trade", OKX), (), []))]
    assert running.replan.streams == {UPBIT: before[UPBIT]}


def test_an_exchange_that_goes_elsewhere_reconnects_its_streams_only(running: Running) -> None:
    running.rig.write({"okx": ["BTC-USDT"], "upbit": ["KRW-BTC"]}, {"okx": {"ws_url": "ws://127.0.0.1:1"}})
    assert running.looks() == [("changed", ((), (), (OKX,), []))]
    assert running.replan.settings.exchanges["okx"].ws_url == "ws://127.0.0.1:1"


def test_another_order_or_a_comment_changes_nothing(running: Running) -> None:
    running.rig.write({"okx": ["BTC-USDT", "ETH-USDT"], "upbit": ["KRW-BTC"]})
    running.looks()
    before = running.replan.streams
    running.rig.write({"upbit": ["KRW-BTC"], "okx": ["ETH-USDT", "BTC-USDT"]})
    with running.rig.path.open("a") as file:
        file.write("# a word\n")
    assert running.looks() == []
    assert running.replan.streams == before


def test_what_is_not_right_changes_nothing_and_is_said_once_with_every_fault(running: Running) -> None:
    before = running.replan.streams
    running.rig.write({"okx": ["BTC-USDT"]})
    text = running.rig.path.read_text()
    running.rig.path.write_text(text.replace('"okx"', '"okex"') + "feeds = ['x']\n")
    ((kind, faults),) = running.looks(4)
    assert (kind, len(faults)) == ("refused", 1)
    assert "did you mean okx?" in faults[0]
    assert running.replan.streams == before
    running.rig.path.unlink()
    ((kind, faults),) = running.looks(4)
    assert "cannot be read" in faults[0]
    running.rig.path.write_text(text)
    assert running.looks() == [("changed", ((), (UPBIT,), (), []))]


def test_the_rest_is_named_and_waits_for_a_restart(running: Running) -> None:
    settings = running.replan.settings
    running.rig.write(
        {"okx": ["BTC-USDT"], "upbit": ["KRW-BTC"]}, redis={"prefix": "other"}, websocket={"message_timeout_secs": 77}
    )
    assert running.looks() == [("changed", ((), (), (), ["websocket.message_timeout_secs", "redis.prefix"]))]
    assert running.replan.settings == settings
    assert needs_restart(settings, running.rig.settings) == ["websocket.message_timeout_secs", "redis.prefix"]


def test_the_feeds_of_all_markets_change_with_the_markets(running: Running) -> None:
    running.rig.write({"okx": ["BTC-USDT"], "upbit": ["KRW-BTC"]}, collector={"feeds": ["trades"]})
    gone, new = (OKX, UPBIT), ("okx-0-trade", "upbit-0-trade")
    assert running.looks() == [("changed", (new, gone, (), []))]


def test_secrets_beside_the_file_are_followed_too(running: Running) -> None:
    secrets = running.rig.path.with_name(".secrets.toml")
    secrets.write_text('[exchanges.okx]\nproxy = "http://user:pa55@127.0.0.1:1"\n')
    secrets.chmod(0o600)
    assert running.looks() == [("changed", ((), (), (OKX,), []))]


def test_a_file_is_read_when_it_has_come_to_rest(running: Running) -> None:
    before = running.replan.streams
    for symbol in ("ETH-USDT", "SOL-USDT", "DOGE-USDT"):
        running.rig.write({"okx": ["BTC-USDT", symbol]})
        assert running.looks(1) == []
    assert running.replan.streams == before
    assert running.looks(1) == [("changed", ((), (UPBIT,), (OKX,), []))]
    assert running.replan.streams[OKX].subscription.symbols == ("BTC-USDT", "DOGE-USDT")


def test_a_change_between_the_start_of_a_process_and_its_first_look_is_seen(running: Running) -> None:
    settings = running.replan.settings
    running.rig.write({"okx": ["BTC-USDT"]})
    running.replan = Replan(settings, running.rig.path, lambda: running.now_s)
    assert running.looks() == [("changed", ((), (UPBIT,), (), []))]


def test_it_looks_no_oftener_than_it_says_and_never_without_a_file(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **options: looked.append(path) or stat(path, **options))
    for _ in range(24):
        running.now_s += LOOK_S / 8
        running.replan.look()
    assert looked.count(running.rig.path) == 3
    looked.clear()
    alone = Replan(load(running.rig.path, {}).settings, None, lambda: running.now_s)
    looked.clear()
    alone.look()
    assert looked == []
