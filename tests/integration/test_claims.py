"""One transaction for several lists: a claim takes the heads of as many as fit, and none pays for another."""

from __future__ import annotations

import threading

import pytest

from app.codec import BatchCodec
from app.model import TRADE
from tests.support import batches as made
from tests.support.path import archived, finish
from tests.support.rig import Rig

STREAMS = [f"binance-{at}" for at in range(4)]


class Killed(BaseException):
    """The process ends here."""


def push(rig: Rig, batches: int) -> None:
    """So many batches of two events in each list, each event of the market its stream is named after."""
    wiring, codec = rig.wiring(), BatchCodec()
    for number in range(1, batches + 1):
        for at, stream in enumerate(STREAMS):
            events = [made.event(n, f"{at}-{n}", feed=TRADE) for n in (2 * number - 1, 2 * number)]
            element = codec.encode(made.batch(number, events, epoch=f"{at:032x}", stream=stream))
            assert wiring.buffer.push(stream, element)


def wanted(batches: int, streams: int = len(STREAMS)) -> list[str]:
    return sorted(f"{at}-{n}" for at in range(streams) for n in range(1, 2 * batches + 1))


def stored(rig: Rig) -> list[str]:
    """Identities of all rows, once everything is in the archive."""
    finish(rig.wiring())
    return sorted(identity for rows in archived(rig.wiring()).values() for identity, _ in rows)


def steps(rig: Rig) -> tuple[list[str], dict[str, object]]:
    """The boundaries that a run passes, and its report."""
    passed: list[str] = []
    report = rig.wiring(step=passed.append).flush().run()
    return [name.removeprefix("flush.") for name in passed if name.startswith("flush.")], report.as_dict()


def test_lists_that_fit_into_one_claim_are_stored_in_one_transaction_and_acknowledged_one_by_one(rig: Rig) -> None:
    push(rig, 3)
    passed, report = steps(rig)
    assert passed == ["before_commit", "after_commit", *["after_acknowledge"] * 4]
    assert (report["batches"], report["stored"], report["failed"]) == (12, 24, {})
    assert rig.wiring().buffer.depths() == []
    assert stored(rig) == wanted(3)


def test_a_claim_that_is_full_leaves_the_other_lists_to_the_next(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pipeline.flush.CLAIM_BATCHES", 5)
    push(rig, 3)
    # 3 + 2, then 3 + 2, and the one that was left of the second and of the fourth list.
    passed, report = steps(rig)
    assert passed.count("after_commit") == 3
    assert (report["batches"], report["stored"], report["replays"]) == (12, 24, 0)
    assert stored(rig) == wanted(3)


def test_a_flusher_killed_between_two_acknowledgements_replays_what_was_not_acknowledged(rig: Rig) -> None:
    push(rig, 2)
    left = [2]

    def kill(name: str) -> None:
        left[0] -= name == "flush.after_acknowledge"
        if not left[0]:
            raise Killed

    with pytest.raises(Killed):
        rig.wiring(step=kill).flush().run()
    assert sorted(depth.stream for depth in rig.wiring().buffer.depths()) == STREAMS[2:]
    report = rig.wiring().flush().run()
    assert (report.counts.stored, report.counts.replays, report.counts.duplicates) == (0, 8, 0)
    assert stored(rig) == wanted(2)


def test_a_list_that_cannot_be_stored_stays_and_the_others_of_its_claim_do_not(rig: Rig) -> None:
    push(rig, 1)
    wiring = rig.wiring()
    newer = bytearray(BatchCodec().encode(made.batch(1, [made.event(1)], epoch=f"{9:032x}", stream="binance-9")))
    newer[1] = 2  # the format of a version to come
    assert wiring.buffer.push("binance-9", bytes(newer)) is not None
    report = wiring.flush().run()
    assert report.failed == {"binance-9": "NewerFormat"}
    assert (report.batches, report.counts.stored, report.counts.replays) == (4, 8, 0)
    assert [depth.stream for depth in wiring.buffer.depths()] == ["binance-9"]


def test_a_claim_that_fails_as_a_whole_is_stored_list_by_list(rig: Rig) -> None:
    """Locked by somebody for a moment: the first transaction fails, the next ones do not."""
    push(rig, 2)
    faults = [OSError("not now")]

    def step(name: str) -> None:
        if name == "flush.before_commit" and faults:
            raise faults.pop()

    report = rig.wiring(step=step).flush().run()
    assert (report.failed, report.counts.stored, report.counts.replays) == ({}, 16, 0)
    assert rig.wiring().buffer.depths() == []
    assert stored(rig) == wanted(2)


def test_a_stop_is_heeded_between_the_lists_of_a_claim_that_failed(rig: Rig) -> None:
    push(rig, 1)
    faults, stop = [OSError("not now")], threading.Event()

    def step(name: str) -> None:
        if name == "flush.before_commit" and faults:
            raise faults.pop()
        if name == "flush.after_commit":
            stop.set()

    report = rig.wiring(step=step).flush().run(keep_going=lambda: not stop.is_set())
    assert (report.failed, report.counts.stored, len(rig.wiring().buffer.depths())) == ({}, 2, 3)
    assert stored(rig) == wanted(1)
