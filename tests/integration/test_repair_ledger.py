"""`collector repair-ledger`: the ledger is gone or damaged, and what the data directory holds adds up as before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from app.errors import CollectorError
from app.pipeline import periodic
from app.pipeline.rebuild import RebuildReport
from app.store.ledger import REMOVED, backup_path
from app.wiring import Wiring
from tests.chaos.content import HOUR_US, T0_US, Content, audited, first_hour, held, second_hour
from tests.support.path import NEVER, flush_at
from tests.support.rig import Rig

HOURS = 3


def _recorded(rig: Rig) -> tuple[Wiring, Content]:
    """Two hours archived and removed, a third sealed, a fourth open."""
    wiring, content = rig.wiring(), Content()
    first_hour(content)
    content.push(wiring.buffer)
    flush_at(wiring, T0_US)
    split = len(content.elements)
    second_hour(content)
    content.push(wiring.buffer, content.elements[split:])
    flush_at(wiring, T0_US + HOUR_US)
    for hour in (2, 3):
        split = len(content.elements)
        c = content.connection("okx-0-trade", 30 + hour, T0_US + hour * HOUR_US)
        c.push(*(c.trade("BTC-USDT", 10 * hour + n) for n in range(5)), end="stop")
        content.push(wiring.buffer, content.elements[split:])
        flush_at(wiring, T0_US + hour * HOUR_US)
    assert periodic.archive(wiring, NEVER)["removed_segments"] == [1, 2]
    assert held(rig).facts() == content.expected
    return wiring, content


def _spoil(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096 : len(raw) - 8192] = random.Random(3).randbytes(len(raw) - 12288)
    path.write_bytes(raw)


def _lose(wiring: Wiring, how: str) -> None:
    path = wiring.ledger.path
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    if how == "gone":
        path.unlink()
    elif how == "no database":
        path.write_bytes(b"?" * 40_000)
    else:
        _spoil(path)


def _repaired(rig: Rig, *, dry_run: bool = False) -> RebuildReport:
    return periodic.repair_ledger(rig.wiring(), dry_run=dry_run)


def _ledger(wiring: Wiring) -> dict[str, Any]:
    ledger = wiring.ledger
    return {
        "data_directory": ledger.data_directory,
        "segments": [(s.number, s.path, s.opened_us, s.state) for s in ledger.segments()],
        "objects": [o[:9] for o in ledger.objects()],
    }


@pytest.mark.row("D3")
@pytest.mark.parametrize("how", ["gone", "damaged", "no database"])
def test_a_lost_ledger_is_rebuilt_and_everything_adds_up_as_before(
    rig: Rig, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.wiring.wall_us", lambda: T0_US + 3 * HOUR_US)
    wiring, content = _recorded(rig)
    before, facts, wrong = _ledger(wiring), held(rig), audited(rig)
    _lose(wiring, how)
    if how == "gone":
        dry = _repaired(rig, dry_run=True)
        assert (dry.fault, dry.replaced, dry.differs) == ("gone", False, True)
        assert not wiring.ledger.path.exists()
    if how == "no database":  # the flush of a process that starts does it by itself
        assert periodic.flush(rig.wiring(), NEVER)["failed"] == {}
        assert "rebuilt" in rig.wiring().board.troubles()["segments"]["detail"]
    else:
        report = _repaired(rig)
        assert (report.replaced, report.findings, report.had_backup) == (True, [], True)
    kept = list(wiring.ledger.path.parent.glob("collector.db.corrupt-*[0-9]"))
    assert len(kept) == (how != "gone")
    again = rig.wiring()
    flush_at(again, T0_US + 3 * HOUR_US)  # what was being sealed is sealed
    after = _ledger(again)
    assert after == before
    found = held(rig)
    assert (found.facts(), found.replays) == (content.expected, facts.replays)
    assert audited(rig) == wrong == []
    assert not _repaired(rig).replaced
    assert periodic.flush(rig.wiring(), NEVER, seal=True)["failed"] == {}
    assert periodic.archive(rig.wiring(), NEVER, final=True)["failed"] == {}
    assert {entry.state for entry in rig.wiring().ledger.segments()} == {REMOVED}
    assert held(rig).facts() == content.expected


def test_without_ledger_and_copy_segments_and_manifests_tell_everything_that_left_a_row(rig: Rig) -> None:
    wiring, content = _recorded(rig)
    before = _ledger(wiring)
    _lose(wiring, "gone")
    backup_path(wiring.ledger.path).unlink()
    assert _repaired(rig).replaced
    flush_at(rig.wiring(), T0_US + 3 * HOUR_US)
    assert _ledger(rig.wiring()) == before
    found = held(rig)
    assert found.rows == content.expected.rows
    assert (found.gaps, {key[:3] for key in found.losses}) == (
        content.expected.gaps, {key[:3] for key in content.expected.losses},
    )  # fmt: skip
    with_rows = {(row[7], row[2], {"trades": "trade", "orderbooks": "orderbook"}[row[0]]) for row in found.rows}
    assert {key: found.fates[key] for key in with_rows} == {key: content.expected.fates[key] for key in with_rows}


def test_it_refuses_while_a_flush_runs_or_a_worker_is_there_and_says_what_it_did(rig: Rig) -> None:
    wiring, _ = _recorded(rig)
    lease = wiring.lease("lock:flush", 30)
    assert lease.acquire()
    with pytest.raises(CollectorError, match="stop the processes"):
        _repaired(rig)
    lease.release()
    told = {"process": "a:1", "streams": [], "threads": 8, "since_us": T0_US, "up_s": 9.0, "failing": False}
    wiring.board.join("stream-1@a", told, 60)
    answer = rig.collector("repair-ledger")
    assert (answer.returncode, "stream-1@a" in answer.stderr) == (2, True)
    wiring.board.leave("stream-1@a")
    _lose(wiring, "gone")
    answer = rig.collector("repair-ledger")
    assert (answer.returncode, answer.stdout.splitlines()[0], answer.stdout.splitlines()[-1]) == (
        0, "the ledger is gone", "replaced",
    )  # fmt: skip
