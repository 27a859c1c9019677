"""A web process on a host without the data directory: it says that it does not know, and makes nothing."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.errors import CollectorError, LedgerElsewhere
from app.web.application import application
from app.web.health import ready
from app.wiring import Wiring
from tests.support.counting import samples
from tests.support.rig import Rig

OF_THE_DATA_DIRECTORY = {"segments", "objects", "unarchived_rows", "oldest_unarchived_seconds", "gaps", "local_bytes"}


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"okx": ["BTC-USDT"]})
    return rig.wiring()


def get(wiring: Wiring, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(wiring))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_no_question_makes_a_ledger_and_none_is_answered_from_an_empty_one(rig: Rig, wiring: Wiring) -> None:
    database = wiring.settings.database.path
    for path in ("/metrics", "/ready", "/api/overview", "/api/archive", "/api/losses", "/api/completeness", "/metrics"):
        answer = get(wiring, path)
        if path == "/metrics":
            found = samples(answer.text)
            assert (found["collector_ledger_up", ()], found["collector_redis_up", ()]) == (0, 1)
            names = {name.removeprefix("collector_") for name, _ in found}
            assert not names & {*OF_THE_DATA_DIRECTORY, "disk_used_ratio"}
        elif path == "/api/overview":
            assert answer.json()["ledger"] is None
        elif path != "/ready":
            assert (answer.status_code, f"{database} is not there" in answer.json()["error"]) == (503, True), path
        assert not database.parent.exists(), path
    assert not any(str(database) in words for words in ready(wiring, 0.0)[0]["missing"]), "others have it"
    _ = rig.wiring().ledger
    assert samples(get(wiring, "/metrics").text)["collector_ledger_up", ()] == 1
    assert get(wiring, "/api/losses").json()["losses"]["total"] == 0


def test_segments_without_their_ledger_are_a_lost_one_and_not_one_elsewhere(wiring: Wiring) -> None:
    lost = wiring.settings.storage.segments_path / "2026-01-01" / "1.db"
    lost.parent.mkdir(parents=True)
    lost.touch()
    with pytest.raises(CollectorError, match="collector repair-ledger") as told:
        _ = wiring.ledger_here
    assert not isinstance(told.value, LedgerElsewhere)
    assert any("repair-ledger" in words for words in ready(wiring, 0.0)[0]["missing"])
