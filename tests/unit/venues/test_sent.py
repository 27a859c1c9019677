import json
from pathlib import Path

import pytest

import app.venues.sent
from app.venues.dialect import Event
from app.venues.sent import Sent


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_event_is_a_line_with_the_exact_text_between_the_ends_of_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "sent.jsonl"
    sent = Sent(path)
    sent.opened("okx", 3, 1_000)
    sent.events("okx", 3, [Event("BTC-USDT", "trade", "5", '{"p": "1"}'), Event("BTC-USDT", "orderbook", None, "é")])
    sent.events("okx", 3, [Event("BTC-USDT", "trade", "6", "{}")], maybe=True)
    sent.closed("okx", 3, 2_000, 1001, "bye", True)
    sent.close()
    common = {"venue": "okx", "connection": 3}
    assert lines(path) == [
        common | {"opened": 1_000},
        common | {"symbol": "BTC-USDT", "feed": "trade", "id": "5", "data": '{"p": "1"}'},
        common | {"symbol": "BTC-USDT", "feed": "orderbook", "id": None, "data": "é"},
        common | {"symbol": "BTC-USDT", "feed": "trade", "id": "6", "data": "{}", "maybe": True},
        common | {"closed": 2_000, "code": 1001, "reason": "bye", "acknowledged": True},
    ]
    assert sent.counts == {"okx": {"trade": 2, "orderbook": 1}}


def test_lines_are_on_disk_after_a_flush_and_not_held_back_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.venues.sent, "BUFFER_BYTES", 200)
    path = tmp_path / "sent.jsonl"
    sent = Sent(path)
    sent.opened("okx", 1, 0)
    assert path.read_bytes() == b""
    sent.flush()
    assert lines(path) == [{"venue": "okx", "connection": 1, "opened": 0}]
    sent.events("okx", 1, [Event("X", "orderbook", None, "y" * 200)])
    assert [line["data"] for line in lines(path)[1:]] == ["y" * 200]
    sent.close()
    sent.close()


def test_without_a_path_events_are_counted_all_the_same() -> None:
    sent = Sent(None)
    sent.events("upbit", 1, [Event("KRW-BTC", "trade", "1", "{}")])
    sent.flush()
    sent.close()
    assert sent.counts == {"upbit": {"trade": 1}}
