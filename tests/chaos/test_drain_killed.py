"""Whoever delivers a spool is killed at every boundary: each batch in it comes to be stored once, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.buffer import spool as spools
from tests.chaos.content import Content, first_hour, held, numbers
from tests.support.crash import Nursery, Outcome, places
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

#: A spool of several files, each of a few batches: one goes before the next is begun.
FILE_BYTES = 700


@pytest.mark.exhaustive
@pytest.mark.row("K1")
def test_a_spool_whose_delivery_is_killed_at_any_boundary_is_stored_once_and_in_order(
    nursery: Nursery, tmp_path: Path, redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "FILE_BYTES", FILE_BYTES)
    content = Content()
    first_hour(content)

    def attempt(number: int, kill_at: int | None) -> tuple[Rig, Outcome]:
        directory = tmp_path / str(number)
        directory.mkdir()
        rig = Rig(directory, redis_server.url)
        wiring = rig.wiring()
        for stream in dict(content.elements):
            spool = wiring.spool(stream)
            assert spool.lock()
            for element in (element for name, element in content.elements if name == stream):
                spool.append(element)
            spool.close()
        return rig, nursery.run("drain", rig.path, kill_at=kill_at, effects=True)

    whole = attempt(0, None)[1].passed
    assert whole.count("effect.push") == len(content.elements)
    assert whole.count("effect.unlink") > len(dict(content.elements)), "a stream's spool is of several files"
    for number in places(whole):
        rig, outcome = attempt(number, number)
        assert (outcome.was_killed, outcome.passed) == (number <= len(whole), whole[:number])
        assert nursery.run("drain", rig.path).result is True
        wiring = rig.wiring()
        delivered = [(d.stream, e) for d in wiring.buffer.depths() for e in wiring.buffer.head(d.stream, 1000, 2**30)]
        # What was pushed and not yet forgotten by the spool is pushed again, whole: the order of what is new stays.
        assert [e for e in dict.fromkeys(delivered)] == [
            e for s in sorted(dict(content.elements)) for e in dict.fromkeys(content.elements) if e[0] == s
        ]
        replays = sum(last - first + 1 for _, e in delivered for *_, first, last in numbers(e))
        report = wiring.flush().run()
        assert (report.failed, wiring.buffer.depths()) == ({}, [])
        found = held(rig)
        assert found.facts() == content.expected
        assert found.replays == replays - sum(len(fate.numbers) for fate in found.fates.values())
