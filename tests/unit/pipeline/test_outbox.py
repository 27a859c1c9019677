"""The memory queue: bounded, fair between markets, and nothing in it is ever unaccounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import ORDERBOOK, TRADE, UNDECODED, Batch, EpochEnd, Event, Gap, Loss, Quarantined, Range, runs
from app.pipeline.outbox import GIVE_WAY_S, HALF_FULL_S, OVERHEAD_BYTES, Allowance, Bell, Epoch, Lane, Outbox

MARKETS = ("A", "B", "C")
END = EpochEnd(99, "stop", ())


def outbox(
    *,
    max_bytes: int = 10_000,
    markets: int = len(MARKETS),
    max_events: int = 500,
    allowance: Allowance | None = None,
    bell: Bell | None = None,
) -> Outbox:
    return Outbox(
        "okx-0-trade", "okx", max_bytes=max_bytes, share_bytes=lambda: max_bytes // max(markets, 1),
        allowance=allowance or Allowance(10**9), max_events=max_events, bell=bell,
    )  # fmt: skip


def event(number: int, symbol: str = "A", feed: str = TRADE, size: int = 0) -> Event:
    """An event that takes `size` bytes in the queue, or as few as one can."""
    data = "x" * max(size - OVERHEAD_BYTES, 0)
    return Event(symbol, feed, number, str(number), 1000 + number, None, data)


def gap(number: int, symbol: str = "A") -> Gap:
    return Gap(symbol, TRADE, number, "1", "2", 2, 1, 2, "missing_ids")


def add(lane: Lane, unit: Event | Quarantined | Gap) -> bool:
    """Whether it was taken."""
    refused = lane.add([unit])
    assert refused in ([], [unit])
    return not refused


def taken(box: Outbox) -> list[Batch]:
    """Everything that waits."""
    batches = []
    while (found := box.take()) is not None:
        batches.append(found)
    return batches


# one step at a time


def test_what_a_market_may_always_hold_follows_the_plan() -> None:
    share = [1_000]
    box = Outbox(
        "okx-0-trade", "okx",
        max_bytes=400, share_bytes=lambda: share[0], allowance=Allowance(10**9), max_events=500,
    )  # fmt: skip
    lane = box.begin(Epoch("e1", 77))
    assert [add(lane, event(number, size=250)) for number in (1, 2, 3)] == [True, True, True]
    share[0] = 500
    assert not add(lane, event(4, size=250))


def test_a_batch_holds_what_was_added_in_order_with_its_ranges() -> None:
    box = outbox()
    lane = box.begin(Epoch("e1", 77))
    units: list[Event | Quarantined | Gap] = [
        event(1), event(1, "B"), gap(2), event(2), Quarantined(UNDECODED, UNDECODED, 1, 5, "not_json", b"?"), event(4),
    ]  # fmt: skip
    assert [add(lane, unit) for unit in units] == [True] * 6
    assert box.queued == 6
    assert box.take() == Batch(
        "okx-0-trade", "okx", "e1", 1, 77,
        (Range("A", TRADE, 1, 2), Range("A", TRADE, 4, 4), Range("B", TRADE, 1, 1), Range(UNDECODED, UNDECODED, 1, 1)),
        (event(1), event(1, "B"), event(2), event(4)),
        (Quarantined(UNDECODED, UNDECODED, 1, 5, "not_json", b"?"),),
        gaps=(gap(2),),
    )  # fmt: skip
    assert (box.take(), box.queued) == (None, 0)


def test_an_epoch_is_on_record_before_it_has_any_data() -> None:
    box = outbox()
    box.begin(Epoch("e1", 77))
    assert box.take() == Batch("okx-0-trade", "okx", "e1", 1, 77)
    assert box.take() is None


def test_a_batch_holds_at_most_so_many_units_and_the_end_comes_with_the_last() -> None:
    box = outbox(max_events=2)
    lane = box.begin(Epoch("e1", 77))
    for number in range(1, 6):
        add(lane, event(number))
    lane.end(END)
    found = [(b.number, [e.number for e in b.events], b.end) for b in taken(box)]
    assert found == [(1, [1, 2], None), (2, [3, 4], None), (3, [5], END)]


def test_an_epoch_that_is_over_goes_out_to_its_end_before_others_and_none_share_a_batch() -> None:
    box = outbox(max_events=1)
    first, second = box.begin(Epoch("e1", 1)), box.begin(Epoch("e2", 2))
    for number in (1, 2):
        add(first, event(number))
        add(second, event(number))
    second.end(END)
    box.begin(Epoch("e3", 3))
    found = [(b.epoch, b.number, [e.number for e in b.events], b.end) for b in taken(box)]
    assert found == [
        ("e2", 1, [1], None), ("e2", 2, [2], END), ("e1", 1, [1], None), ("e3", 1, [], None), ("e1", 2, [2], None),
    ]  # fmt: skip


def test_epochs_that_are_open_at_once_take_turns_and_say_what_they_overlap() -> None:
    box = outbox(max_events=2)
    old, new = box.begin(Epoch("e1", 1)), box.begin(Epoch("e2", 2, ("e1",)))
    for number in range(1, 5):
        add(old, event(number))
        add(new, event(number))
    found = [(b.epoch, [e.number for e in b.events], b.overlaps) for b in taken(box)]
    assert found == [("e1", [1, 2], ()), ("e2", [1, 2], ("e1",)), ("e1", [3, 4], ()), ("e2", [3, 4], ("e1",))]


def test_when_the_queue_is_full_the_newest_is_refused_and_declared_as_one_run() -> None:
    box = outbox(max_bytes=1000, markets=1)
    lane = box.begin(Epoch("e1", 1))
    assert [add(lane, event(number, size=500)) for number in range(1, 6)] == [True, True, False, False, False]
    assert box.refused == 3
    found = box.take()
    assert found is not None
    assert [e.number for e in found.events] == [1, 2]
    assert found.losses == (Loss("A", TRADE, 3, 5, 3, 1003, 1005, "queue_full"),)
    assert add(lane, event(6, size=500))
    last = box.take()
    assert last is not None and (last.ranges, last.losses) == ((Range("A", TRADE, 6, 6),), ())


def test_refusals_that_are_not_consecutive_are_declared_as_runs_of_their_own() -> None:
    box = outbox(max_bytes=1000, markets=1)
    lane = box.begin(Epoch("e1", 1))
    sizes = [500, 600, 300, 700, 800, 200]
    assert [add(lane, event(n, size=size)) for n, size in enumerate(sizes, 1)] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]
    found = box.take()
    assert found is not None
    assert sorted((loss.first, loss.last, loss.count) for loss in found.losses) == [(2, 2, 1), (4, 5, 2)]


def test_a_flood_of_one_market_takes_no_other_markets_place() -> None:
    box = outbox(max_bytes=9000)
    lane = box.begin(Epoch("e1", 1))
    flood = [add(lane, event(number, "A", size=1000)) for number in range(1, 100)]
    assert flood == [True] * 9 + [False] * 90
    for symbol in ("B", "C"):
        assert [add(lane, event(n, symbol, size=1000)) for n in range(1, 5)] == [True, True, True, False]
    batches = taken(box)
    kept = Counter(e.symbol for b in batches for e in b.events)
    assert kept == {"A": 9, "B": 3, "C": 3}
    assert {(x.symbol, x.first, x.last) for b in batches for x in b.losses} == {("A", 10, 99), ("B", 4, 4), ("C", 4, 4)}


def test_a_flood_of_one_stream_takes_no_other_streams_place_in_the_process() -> None:
    allowance = Allowance(5000)
    flooded, quiet = outbox(markets=1, allowance=allowance), outbox(markets=1, allowance=allowance)
    flood, drops = flooded.begin(Epoch("e1", 1)), quiet.begin(Epoch("e2", 1))
    assert [add(flood, event(n, size=1000)) for n in range(1, 13)] == [True] * 10 + [False] * 2
    assert add(drops, event(1, size=1000))
    taken(flooded)
    taken(quiet)
    assert allowance.held_bytes == 0


def test_an_event_larger_than_the_queue_is_taken_while_its_market_holds_nothing() -> None:
    box = outbox(max_bytes=1000)
    lane = box.begin(Epoch("e1", 1))
    assert add(lane, event(1, size=50_000))
    assert not add(lane, event(2, size=50_000))
    found = box.take()
    assert found is not None and [e.number for e in found.events] == [1]
    assert add(lane, event(3, size=50_000))


def test_a_gap_is_never_refused() -> None:
    box = outbox(max_bytes=1000, markets=1)
    lane = box.begin(Epoch("e1", 1))
    add(lane, event(1, size=900))
    assert add(lane, gap(2))
    found = box.take()
    assert found is not None and found.gaps == (gap(2),)


# waking, and giving way


class Rings(Bell):
    """Writes down how it is rung."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bool] = []

    def ring(self, pressing: bool) -> None:
        self.heard.append(pressing)


def test_a_new_epoch_a_full_batch_an_end_and_the_close_are_pressing_and_ring() -> None:
    bell = Rings()
    box = outbox(max_events=3, bell=bell)
    assert not box.pressing
    lane = box.begin(Epoch("e1", 1))
    assert (box.pressing, bell.heard) == (True, [True])
    assert box.take() is not None and not box.pressing
    assert add(lane, event(1)) and add(lane, event(2)) and not box.pressing
    assert bell.heard == [True, False]  # of what waits the first rings
    assert add(lane, event(3)) and box.pressing
    assert bell.heard == [True, False, True]
    assert box.take() is not None and not box.pressing
    lane.end(END)
    assert (box.pressing, bell.heard) == (True, [True, False, True, True])
    assert box.take() is not None and not box.pressing
    box.close()
    assert (box.pressing, bell.heard) == (True, [True, False, True, True, True])


def test_a_bell_that_is_not_idle_is_rung_by_what_is_pressing_alone() -> None:
    bell = Bell()
    bell.ring(False)
    assert not bell._rung.is_set()
    bell.idle = True
    bell.ring(False)
    bell.wait(60)  # at once: it was rung
    assert not bell._rung.is_set()
    bell.idle = False
    bell.ring(True)
    bell.wait(60)


@pytest.mark.parametrize(
    ("behind", "left_alone_s"),
    [
        pytest.param({"max_events": 2}, GIVE_WAY_S, id="two full batches wait"),
        pytest.param({"max_bytes": 8 * OVERHEAD_BYTES}, HALF_FULL_S, id="half of the queue is taken"),
        pytest.param(
            {"allowance": Allowance(8 * OVERHEAD_BYTES)}, HALF_FULL_S, id="half of what the process may hold is taken"
        ),
    ],
)
def test_a_connection_whose_sender_is_behind_is_left_alone_until_a_batch_is_taken(
    behind: dict[str, Any], left_alone_s: float
) -> None:
    box = outbox(**behind)
    lane = box.begin(Epoch("e", 1))
    assert lane.add([event(1), event(2), event(3)]) == [] and lane.behind_s() == 0
    assert lane.add([event(4)]) == [] and lane.behind_s() == left_alone_s
    box.stuck = True
    assert lane.behind_s() == 0, "nothing is gained by waiting for a sender that gets rid of nothing"
    box.stuck = False
    assert box.take() is not None
    assert lane.behind_s() == 0


def test_a_closed_queue_still_gives_what_it_holds() -> None:
    box = outbox()
    lane = box.begin(Epoch("e1", 1))
    add(lane, event(1))
    box.close()
    found = box.take()
    assert found is not None and [e.number for e in found.events] == [1]
    assert box.take() is None


def test_a_reader_and_a_sender_at_once_lose_and_repeat_nothing() -> None:
    box = outbox(max_bytes=50_000, max_events=50)
    batches: list[Batch] = []

    def send() -> None:
        while (found := box.take()) is not None or not done:
            if found is not None:
                batches.append(found)

    done: list[bool] = []
    sender = Thread(target=send)
    sender.start()
    for epoch in range(20):
        lane = box.begin(Epoch(f"e{epoch}", epoch))
        for number in range(1, 201):
            for symbol in MARKETS:
                add(lane, event(number, symbol))
        lane.end(END)
    done.append(True)
    sender.join(30)
    assert accounted(batches) == {(f"e{e}", s, TRADE): list(range(1, 201)) for e in range(20) for s in MARKETS}
    assert {b.epoch for b in batches if b.end} == {f"e{epoch}" for epoch in range(20)}


# whatever happens


def accounted(batches: Sequence[Batch]) -> dict[tuple[str, str, str], list[int]]:
    """Every number of a batch or a loss, by epoch and feed, as often as it is named."""
    found: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for batch in batches:
        for unit in (*batch.events, *batch.quarantined):
            found[batch.epoch, unit.symbol, unit.feed].append(unit.number)
        for loss in batch.losses:
            assert loss.count == loss.last - loss.first + 1
            found[batch.epoch, loss.symbol, loss.feed] += range(loss.first, loss.last + 1)
    return {key: sorted(numbers) for key, numbers in found.items()}


adding = st.tuples(
    st.just("add"), st.sampled_from(MARKETS), st.sampled_from([TRADE, ORDERBOOK]), st.integers(OVERHEAD_BYTES, 2500)
)
steps = st.lists(
    st.one_of(
        adding, adding, adding, adding,
        st.tuples(st.sampled_from(["undecoded", "gap", "take", "begin", "end and begin", "others come", "others go"])),
    ),
    max_size=80,
)  # fmt: skip


@given(steps, st.integers(1, 7))
@settings(deadline=None, max_examples=200)
def test_every_unit_is_in_one_batch_or_in_one_declared_loss_and_the_bounds_hold(
    todo: list[tuple[object, ...]], max_events: int
) -> None:
    max_bytes, process_bytes, largest = 6000, 8000, 2500
    allowance = Allowance(process_bytes)
    box = outbox(max_bytes=max_bytes, max_events=max_events, allowance=allowance)
    numbers: Counter[tuple[str, str, str]] = Counter()
    added: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    gaps: list[Gap] = []
    held: Counter[str] = Counter()
    batches: list[Batch] = []
    epochs = ["e0"]
    ended: list[str] = []
    others = refused = 0
    lane = box.begin(Epoch("e0", 0))

    def size(unit: Event | Quarantined | Gap) -> int:
        content = unit.data if isinstance(unit, Event) else unit.frame if isinstance(unit, Quarantined) else ""
        return OVERHEAD_BYTES + len(content)

    def keep(batch: Batch | None) -> None:
        if batch is not None:
            batches.append(batch)
            for unit in (*batch.events, *batch.quarantined, *batch.gaps):
                held[unit.symbol] -= size(unit)

    def give(unit: Event | Quarantined) -> None:
        nonlocal refused
        key = (epochs[-1], unit.symbol, unit.feed)
        added[key].append(unit.number)
        taken_in = add(lane, unit)
        fits = held.total() + size(unit) <= max_bytes and allowance.held_bytes + size(unit) <= process_bytes
        within_share = held[unit.symbol] + size(unit) <= max_bytes // len(MARKETS)
        if fits or within_share:
            assert taken_in, "neither full nor beyond its share"
        if taken_in:
            held[unit.symbol] += size(unit)
        else:
            refused += 1
        share = max(max_bytes // len(MARKETS), largest)
        assert held.total() <= max_bytes + (len(MARKETS) + 1) * share + len(gaps) * OVERHEAD_BYTES

    for kind, *details in todo:
        if kind == "add":
            symbol, feed, bytes_ = details
            key = (epochs[-1], str(symbol), str(feed))
            numbers[key] += 1
            assert isinstance(bytes_, int)
            give(event(numbers[key], str(symbol), str(feed), bytes_))
        elif kind == "undecoded":
            key = (epochs[-1], UNDECODED, UNDECODED)
            numbers[key] += 1
            give(Quarantined(UNDECODED, UNDECODED, numbers[key], 5, "not_json", b"?" * 300))
        elif kind == "gap":
            gaps.append(gap(len(gaps)))
            assert add(lane, gaps[-1])
            held["A"] += OVERHEAD_BYTES
        elif kind == "take":
            keep(box.take())
        elif kind == "others come":
            others += 8000
            allowance.add(8000)
        elif kind == "others go" and others:
            others -= 8000
            allowance.add(-8000)
        elif kind in ("begin", "end and begin"):
            if kind == "end and begin":
                lane.end(EpochEnd(9, epochs[-1], ()))
                ended.append(epochs[-1])
            epochs.append(f"e{len(epochs)}")
            lane = box.begin(Epoch(epochs[-1], len(epochs)))
        assert allowance.held_bytes - others == held.total() or kind == "take"
    lane.end(EpochEnd(9, epochs[-1], ()))
    ended.append(epochs[-1])
    box.close()
    while (batch := box.take()) is not None:
        keep(batch)

    assert accounted(batches) == dict(added)
    assert sorted((unit for batch in batches for unit in batch.gaps), key=lambda g: g.number) == gaps
    assert (box.refused, box.queued, allowance.held_bytes - others) == (refused, 0, 0)
    assert sum(loss.count or 0 for batch in batches for loss in batch.losses) == refused
    assert {batch.epoch for batch in batches} == set(epochs)
    by_epoch = {epoch: [batch for batch in batches if batch.epoch == epoch] for epoch in epochs}
    for epoch, found in by_epoch.items():
        assert [batch.number for batch in found] == list(range(1, len(found) + 1))
        assert [batch.end.reason if batch.end else None for batch in found[:-1]] == [None] * (len(found) - 1)
        assert (found[-1].end.reason if found[-1].end else None) == (epoch if epoch in ended else None)
        for batch in found:
            units = (*batch.events, *batch.quarantined)
            assert len(units) + len(batch.gaps) <= max_events
            assert batch.ranges == tuple(runs((unit.symbol, unit.feed, unit.number) for unit in units))
    for symbol in MARKETS:
        for feed in (TRADE, ORDERBOOK):
            for epoch, found in by_epoch.items():
                stored = [e.number for b in found for e in b.events if (e.symbol, e.feed) == (symbol, feed)]
                assert stored == sorted(stored), epoch


def test_the_allowance_of_a_process_is_what_its_queues_hold() -> None:
    allowance = Allowance(10**6)
    boxes = [outbox(allowance=allowance) for _ in range(3)]
    for n, box in enumerate(boxes, 1):
        lane = box.begin(Epoch(f"e{n}", 1))
        add(lane, event(1, size=1000 * n))
    assert allowance.held_bytes == 6000
    boxes[1].take()
    assert allowance.held_bytes == 4000


@pytest.mark.parametrize("markets", [0, 1])
def test_a_queue_for_one_market_or_none_has_the_whole_as_its_share(markets: int) -> None:
    box = outbox(max_bytes=1000, markets=markets, allowance=Allowance(0))
    lane = box.begin(Epoch("e1", 1))
    assert [add(lane, event(n, size=500)) for n in (1, 2, 3)] == [True, True, False]


def test_what_comes_after_the_sender_has_left_takes_no_place_from_other_streams() -> None:
    allowance = Allowance(10**6)
    box = outbox(allowance=allowance)
    lane = box.begin(Epoch("e1", 77))
    assert add(lane, event(1, size=500))
    assert (box.abandon(), allowance.held_bytes) == (1, 0)
    assert not add(lane, event(2, size=500))
    assert allowance.held_bytes == 0
