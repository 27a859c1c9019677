"""What the completeness, archive and losses pages are told, over real segments and objects: values, bounds and refusals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.model import Repair
from app.objects.layout import manifest_key
from app.web.application import application
from tests.support.batches import EPOCH
from tests.support.four_hours import BTC, ETH, HOUR_US, World
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig


@pytest.fixture(scope="module")
def world(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(Rig(tmp_path_factory.mktemp("pages"), redis_server.url))
    world.record()
    return world


def get(world: World, path: str, status: int = 200) -> Any:
    """The document at `path`, as a browser on this machine gets it."""
    transport = httpx.ASGITransport(application(world.rig.wiring()))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:
            return await client.get(path)

    answer = asyncio.run(ask())
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert abs(document["now_us"] - world.now_us) < 600_000_000
    return document


def test_the_grid_has_a_row_for_each_feed_and_a_cell_for_each_hour(world: World) -> None:
    told = get(world, "/api/completeness?hours=4")
    assert (told["hours_us"], told["unread_objects"]) == (world.hours, 0)
    rows = {(f["exchange"], f["symbol"], f["data_type"]): f["cells"] for f in told["feeds"]}
    assert all(f["configured"] == (f["data_type"] in ("trade", "orderbook")) for f in told["feeds"])
    assert rows[BTC] == [
        {"state": "gap", "value": 4 / 7, "rows": 4, "gaps": 1, "open_gaps": 1,
         "reasons": ["ids 3 to 5 are missing (missing_ids)"]},
        None,
        None,
        {"state": "proved", "value": 1.0, "rows": 2, "provisional": True},
    ]  # fmt: skip
    assert rows[ETH][0] == {"state": "proved", "value": 1.0, "rows": 3}
    assert (rows[ETH][1]["state"], rows[ETH][1]["losses"]) == ("gap", 1)
    assert [cell for feed, cells in rows.items() if feed[:2] == ("upbit", "KRW-BTC") for cell in cells][-3:] == [
        None
    ] * 3


def test_a_cell_opens_its_gap_its_loss_its_connection_and_its_object(world: World) -> None:
    told = get(world, f"/api/completeness/binance/btcusdt/trade/{world.hours[0]}")
    (one,) = told["objects"]
    assert (one["rows"], one["completeness"], one["key"].split("/")[:3]) == (4, 4 / 7, [*BTC])
    (gap,) = told["gaps"]["newest"]
    assert (gap["from_id"], gap["to_id"], gap["repair"], gap["before_us"]) == ("3", "5", None, world.at(0, 2))
    assert [epoch["epoch"] for epoch in told["epochs"]["newest"]] == [EPOCH]
    (loss,) = get(world, f"/api/completeness/binance/ethusdt/trade/{world.hours[1]}")["losses"]["newest"]
    assert (loss["cause"], loss["count"], loss["first"], loss["last"]) == ("queue_full", 2, 6, 7)
    (running,) = get(world, f"/api/completeness/binance/btcusdt/trade/{world.hours[3]}")["running"]
    assert (running["key"], running["rows"], running["completeness"]) == ("", 2, 1.0)


def test_questions_that_make_no_sense_are_refused_with_what_would(world: World) -> None:
    assert "from 1 to 720" in get(world, "/api/completeness?hours=721", 400)["error"]
    assert "from 1 to 720" in get(world, "/api/completeness?hours=x", 400)["error"]
    assert "not the beginning of a UTC hour" in get(world, "/api/completeness/a/b/trade/17", 400)["error"]
    assert "is not EXCHANGE/SYMBOL" in get(world, "/api/archive/objects?market=binance", 400)["error"]
    assert "is not the `next` of a page" in get(world, "/api/archive/objects?before=x", 400)["error"]
    for key in ("../../settings.toml", "binance/btcusdt/trade/2026-01-01/_1.json", "/etc/passwd", ""):
        assert "is not the key of an object" in get(world, f"/api/archive/object?key={key}", 400)["error"]
    key = "binance/btcusdt/trade/1970-01-01/1.parquet"
    assert "there is no object" in get(world, f"/api/archive/object?key={key}", 404)["error"]
    assert "from 1 to" in get(world, "/api/losses?hours=0", 400)["error"]
    cell = "/api/completeness/binance/btcusdt/trade"
    for hour_us in (0, world.hours[0] - 720 * HOUR_US, world.hours[-1] + HOUR_US, 1024 * HOUR_US * 10**6):
        assert "within the last 720 hours" in get(world, f"{cell}/{hour_us}", 400)["error"]
    for beyond in (2**63, 10**20, "9" * 5000, -1):
        assert "give a number from 0 to" in get(world, f"{cell}/{beyond}", 400)["error"]
        assert "is not the `next` of a page" in get(world, f"/api/archive/objects?before={beyond}/a/b/c", 400)["error"]
        for page in ("completeness", "losses"):
            assert "from 1 to" in get(world, f"/api/{page}?hours={beyond}", 400)["error"]


def test_the_archive_tells_objects_sums_and_what_they_cost(world: World) -> None:
    told = get(world, "/api/archive")
    entries = [e for e in world.wiring.ledger.objects() if e.state == "verified"]
    size = sum(e.size_bytes for e in entries)
    assert told["total"] == {"objects": 5, "rows": sum(e.rows for e in entries), "size_bytes": size, "written": 0}
    assert {(f["exchange"], f["symbol"], f["data_type"]): (f["objects"], f["rows"]) for f in told["feeds"]}[ETH] == (
        2,
        7,
    )
    assert told["segments"] == {"open": 1, "sealing": 0, "sealed": 1, "removing": 0, "removed": 1}
    growth = told["growth"]
    assert growth["window_bytes"] == size
    assert growth["bytes_per_month"] == pytest.approx(size * 30.436875 * 86_400e6 / growth["window_us"], rel=1e-6)
    assert growth["cost_per_month_now"] == pytest.approx(size / 1e9 * 0.023)
    assert growth["cost_per_month_added"] == pytest.approx(growth["bytes_per_month"] / 1e9 * 0.023, rel=1e-3, abs=1e-9)
    assert told["next"] == {"seal_us": world.hours[3] + 3_600_000_000, "waiting_segments": 0, "waiting_since_us": None}
    assert (told["troubles"], told["conflicts"]) == ({}, {"total": 0, "newest": []})


def test_objects_are_paged_from_the_newest_on_and_filtered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.api_archive.PAGE_OBJECTS", 2)
    seen, before = [], ""
    for _ in range(5):
        told = get(world, f"/api/archive/objects?before={before}")
        seen += [(row["segment"], row["key"]) for row in told["rows"]]
        assert len(told["rows"]) <= 2
        if (before := told["next"]) is None:
            break
    ledger = [(e.segment, e.key) for e in world.wiring.ledger.objects()]
    assert sorted(seen) == sorted(ledger)
    assert [segment for segment, _ in seen] == sorted((segment for segment, _ in ledger), reverse=True)
    ours = get(world, "/api/archive/objects?market=upbit/KRW-BTC")["rows"]
    assert [(row["exchange"], row["symbol"], row["proved_by"]) for row in ours] == [("upbit", "KRW-BTC", "read_back")]


def test_a_manifest_is_told_as_it_stands_in_the_store(world: World) -> None:
    entry = world.wiring.ledger.objects()[0]
    told = get(world, f"/api/archive/object?key={entry.key}")
    assert told["store"] == "local"
    with world.wiring.store.open(manifest_key(entry.key)) as file:
        assert told["manifest"] == json.loads(file.read())


def test_the_archives_troubles_and_the_counters_of_what_it_wrote_are_told(world: World) -> None:
    board = world.wiring.board
    board.trouble("archive", {"level": "degraded", "detail": "s3: access denied", "since_us": 1}, 60)
    series = {
        ("collector_object_bytes_total", (("kind", kind),)): n for kind, n in (("text", 900.0), ("stored", 100.0))
    }
    world.wiring.tally.add("test", 1, series)
    told = get(world, "/api/archive")
    board.all_well("archive")
    assert told["troubles"]["archive"]["detail"] == "s3: access denied"
    assert told["compression"] == {"text_bytes": 900.0, "stored_bytes": 100.0, "ratio": 9.0}


def test_losses_quarantine_and_the_venues_words_are_told(world: World) -> None:
    stream = next(name for name in world.wiring.streams if name.startswith("upbit"))
    state = {
        "connection": "closed", "since_us": 5, "why": "closed by venue: 1008 <script>alert(1)</script>", "last_error": "no",
        "ends": [[4, "stream_ended", "bye"]], "connections_opened": 3, "closes": {"stream_ended": 2}, "refused": 7,
    }  # fmt: skip
    world.wiring.board.publish(stream, state, 60)
    told = get(world, "/api/losses?hours=24")
    assert told["losses"]["by_cause"] == [
        {"cause": "queue_full", "exchange": "binance", "symbol": "ethusdt", "feed": "trade", "losses": 1, "events": 2,
         "of_unknown_extent": 0, "last_us": world.at(1, 3)}
    ]  # fmt: skip
    (loss,) = told["losses"]["newest"]
    assert (loss["first"], loss["last"], loss["count"], loss["epoch"]) == (6, 7, 2, EPOCH)
    (kept,) = told["quarantine"]["newest"]
    assert kept["head"] == "\\xff<b>\\x1b[0m" + "x" * 192
    assert (kept["reason"], kept["size_bytes"], kept["exchange"]) == ("not_json", 308, "binance")
    assert told["quarantine"]["by_feed"] == [{"exchange": "binance", "symbol": "?", "feed": "?", "count": 1}]
    by_stream = {c["stream"]: c for c in told["connections"]}
    assert by_stream[stream] == {"stream": stream, "exchange": "upbit", "epoch": None, **state}
    others = [c for name, c in by_stream.items() if name != stream]
    assert {(c["connection"], c["why"]) for c in others} == {("down", "no stream worker has it")}


def test_a_repair_shows_in_the_grid_within_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Repair("btcusdt", "trade", EPOCH, 3, world.at(3, 2), "repaired", 3)
    world.put(world.finding(epoch="1d" * 16, repairs=(found,)), world.at(3, 3))
    rows = {
        (f["exchange"], f["symbol"], f["data_type"]): f["cells"]
        for f in get(world, "/api/completeness?hours=4")["feeds"]
    }
    assert rows[BTC][0] == {"state": "repaired", "value": 1.0, "rows": 4, "gaps": 1}
    (repair,) = get(world, f"/api/completeness/binance/btcusdt/trade/{world.hours[0]}")["repairs"]["newest"]
    assert (repair["state"], repair["found"]) == ("repaired", 3)
