"""Questions whose numbers are beyond every bound, and many viewers who ask the same."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from app.clock import wall_us
from app.store.listing import Listing
from app.store.stored import Stored
from app.web.application import application
from app.web.asked import MOST, number
from app.wiring import Wiring
from tests.support.rig import Rig

HOUR_US = 3600 * 1_000_000


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"okx": ["BTC-USDT"]})
    wiring = rig.wiring()
    _ = wiring.ledger
    return wiring


def get(app: Starlette, path: str) -> tuple[int, dict[str, Any]]:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.get(path, timeout=30)

    answer = asyncio.run(ask())
    return answer.status_code, answer.json()


@given(st.integers(0, MOST), st.integers(0, MOST), st.integers(0, 2**70))
def test_a_number_within_its_bounds_is_itself_and_any_other_is_refused(least: int, most: int, asked: int) -> None:
    if least <= asked <= most:
        assert number("n", str(asked), least, most) == asked
    else:
        with pytest.raises(ValueError, match=f"from {least} to {most}"):
            number("n", str(asked), least, most)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "²", "١", " 1", "1_0", "9" * 5000])
def test_what_is_no_number_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"n is .* give a number from 1 to 720") as told:
        number("n", text, 1, 720)
    assert len(str(told.value)) < 80


def test_only_hours_that_the_grid_can_show_are_opened(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = 1_000_000 * HOUR_US + 1_234_567
    monkeypatch.setattr("app.web.api_completeness.wall_us", lambda: now_us)
    app, last = application(wiring), now_us // HOUR_US
    cells = "/api/completeness/okx/BTC-USDT/trade"
    told = {n: get(app, f"{cells}/{(last - n) * HOUR_US}")[0] for n in (-(10**6), -1, 0, 719, 720, 721, last)}
    assert told == {-(10**6): 400, -1: 400, 0: 200, 719: 200, 720: 400, 721: 400, last: 400}
    for beyond in (2**63, 10**20, "9" * 5000):
        for path in (f"{cells}/{beyond}", f"/api/archive/objects?before={beyond}/a/b/c", f"/api/losses?hours={beyond}"):
            status, answer = get(app, path)
            assert (status, "error" in answer) == (400, True), path[:60]


def test_an_hour_that_is_opened_reads_the_records_of_its_feed_alone(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str | None, ...]] = []
    records = Stored.records

    def seen(self: Stored, name: str, **where: Any) -> list[dict[str, Any]]:
        read.append(tuple(where.get(column) for column in ("exchange", "symbol", "feed")))
        return records(self, name, **where)

    monkeypatch.setattr(Stored, "records", seen)
    hour_us = wall_us() // HOUR_US * HOUR_US
    assert get(application(wiring), f"/api/completeness/okx/BTC-USDT/trade/{hour_us}")[0] == 200
    assert set(read) == {("okx", "BTC-USDT", "trade")}


def test_the_losses_are_read_once_for_all_who_ask_at_the_same_time(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    now_s = 100.0
    records, quarantined = Stored.records, Listing.quarantined
    monkeypatch.setattr(Stored, "records", lambda self, name, **w: read.append(name) or records(self, name, **w))
    monkeypatch.setattr(Listing, "quarantined", lambda self, n: read.append("quarantine") or quarantined(self, n))
    monkeypatch.setattr("app.web.api_losses.monotonic_s", lambda: now_s)
    app = application(wiring)
    first = get(app, "/api/losses?hours=24")
    now_s += 4
    assert get(app, "/api/losses?hours=24") == first
    assert (first[0], read) == (200, ["losses", "quarantine"])
    assert get(app, "/api/losses?hours=25")[1]["hours"] == 25
    now_s += 2
    assert get(app, "/api/losses?hours=24")[1]["now_us"] > first[1]["now_us"]
    assert read == ["losses", "quarantine"] * 3
