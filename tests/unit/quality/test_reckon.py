"""What is found out about connections that cannot speak for themselves any more."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from app.model import BUFFER_LOST, UNCLEAN_END, Batch, EpochEnd, Loss, Range
from app.quality.balance import conserve
from app.quality.reckon import FOUND_LATER, OVERLAP_US, SUCCESSOR_US, Going, reckon
from app.quality.records import ARCHIVED, REDIS, SEGMENT, SPOOL, Epoch, Lost, Records, Run

A, B = "0a" * 16, "0b" * 16
T = 1_790_000_000_000_000
NOW = T + 60_000_000
FEED = ("BTC-USDT", "trade")
NOBODY = Going()
PLANNED = Going(planned={"okx-0": {FEED}})


def run(place: str, first: int, last: int, epoch: str = A) -> Run:
    return Run(place, "okx", epoch, *FEED, first, last, last - first + 1, first_us=T + first, last_us=T + last)


def epoch(name: str = A, opened_us: int = T, last: int | None = None, **more: object) -> Epoch:
    made = Epoch(name, "okx-0", "okx", opened_us, **more)  # type: ignore[arg-type]
    return made if last is None else made._replace(ended_us=T + last, reason="stop", last_numbers=((FEED, last),))


def records(epochs: Iterable[Epoch], *units: Run | Lost) -> Records:
    made = Records()
    for one in epochs:
        made.add_epoch(one)
    made.runs = [unit for unit in units if isinstance(unit, Run)]
    made.losses = {unit for unit in units if isinstance(unit, Lost)}
    return made


def after(known: Records, found: Iterable[Batch]) -> Records:
    """What is on record once `found` has gone its way."""
    for batch in found:
        known.add_batch(batch, SEGMENT)
    return known


SUCCESSOR = epoch(B, T + 9_000)


def test_an_epoch_without_end_that_was_followed_by_another_gets_one() -> None:
    known = records([epoch(), SUCCESSOR], run(SEGMENT, 1, 5), run(SEGMENT, 1, 2, B))
    found = reckon(known, Going({B}, {"okx-0"}, {"okx-0": {FEED}}), NOW)
    assert found == [
        Batch(
            "okx-0", "okx", A, FOUND_LATER + NOW, T, kind="finding",
            losses=(Loss(*FEED, 6, 6, None, T + 5, T + 9_000, UNCLEAN_END),),
            end=EpochEnd(T + 5, UNCLEAN_END, (Range(*FEED, 1, 5),)),
        )
    ]  # fmt: skip
    assert reckon(after(known, found), Going({B}, {"okx-0"}), NOW + 30) == []


def test_what_is_going_on_or_under_way_or_being_left_on_purpose_gets_none() -> None:
    stored = (run(SEGMENT, 1, 5), run(SEGMENT, 1, 2, B))
    assert reckon(records([epoch(), SUCCESSOR], *stored), Going({A, B}), NOW) == []
    assert reckon(records([epoch(), SUCCESSOR], *stored, run(REDIS, 6, 7)), Going({B}), NOW) == []
    assert reckon(records([epoch(), SUCCESSOR], *stored, run(SPOOL, 6, 7)), Going({B}), NOW) == []
    left = SUCCESSOR._replace(overlaps=(A,))
    third = epoch("0c" * 16, T + 10_000, overlaps=(B,))
    assert reckon(records([epoch(), left], *stored), Going({B}, {"okx-0"}), NOW) == []
    late_us = left.opened_us + OVERLAP_US
    for later, now_us, over_us in (([left], late_us, late_us), ([left, third], NOW, third.opened_us)):
        (batch,) = reckon(records([epoch(), *later], *stored), Going({B, third.id}, {"okx-0"}), now_us)
        assert (batch.epoch, batch.losses[0].end_us) == (A, over_us)


def test_the_next_connection_is_waited_for_unless_none_will_come() -> None:
    known = records([epoch()], run(SEGMENT, 1, 5))
    assert reckon(known, PLANNED, NOW) == []
    assert reckon(known, Going(streams={"okx-0"}), NOW + 2 * SUCCESSOR_US) == []
    (late,) = reckon(known, PLANNED, T + 6 + SUCCESSOR_US)
    (gone,) = reckon(known, NOBODY, NOW)
    assert [loss.end_us for loss in (*late.losses, *gone.losses)] == [T + 6 + SUCCESSOR_US, NOW]


def test_a_spool_that_comes_back_moves_the_declaration_on_and_a_real_end_voids_it() -> None:
    known = records([epoch(), SUCCESSOR], run(SEGMENT, 1, 5))
    after(known, reckon(known, NOBODY, NOW))
    known.runs.append(run(SEGMENT, 6, 8))
    more = [batch for batch in reckon(known, Going({B}), NOW) if batch.epoch == A]
    assert [loss.first for batch in more for loss in batch.losses] == [9]
    after(known, more)
    assert [batch for batch in reckon(known, Going({B}), NOW) if batch.epoch == A] == []
    known.add_epoch(epoch(last=8))
    assert (known.epochs[A].reason, reckon(known, Going({B}), NOW)) == ("stop", [])
    assert [balance.unknown_losses for balance in conserve(known).balances] == [0]


def test_a_feed_of_which_nothing_came_out_may_have_been_in_the_hands_of_the_dead() -> None:
    quiet = ("ETH-USDT", "trade")
    known = records([epoch(), SUCCESSOR], run(SEGMENT, 1, 5), run(SEGMENT, 1, 2, B))
    (found,) = reckon(known, Going({B}, planned={"okx-0": {FEED, quiet}}), NOW)
    assert found.losses == (
        Loss(*FEED, 6, 6, None, T + 5, T + 9_000, UNCLEAN_END), Loss(*quiet, 1, 1, None, T, T + 9_000, UNCLEAN_END),
    )  # fmt: skip
    assert found.end is not None and found.end.last_numbers == (Range(*FEED, 1, 5),)
    after(known, [found])
    more = Going({B}, planned={"okx-0": {FEED, quiet, ("SOL-USDT", "trade")}})
    assert reckon(known, more, NOW) == [], "a market that was added since was not collected then"


def test_a_loss_whose_extent_became_known_gives_way_to_a_declaration_after_it() -> None:
    known = records([epoch(), SUCCESSOR], run(SEGMENT, 1, 5))
    after(known, reckon(known, Going({B}), NOW))
    known.losses.add(Lost("okx", A, *FEED, 6, 7, 2, T + 5, T + 8, "buffer_lost"))
    known.runs.append(run(SEGMENT, 8, 8))
    (more,) = reckon(known, Going({B}), NOW)
    assert [loss.first for loss in more.losses] == [9]
    assert reckon(after(known, [more]), Going({B}), NOW) == []


def test_findings_and_refetched_events_are_no_connections_whose_end_is_missed() -> None:
    for kind in ("finding", "rest"):
        assert reckon(records([epoch(kind=kind)], run(SEGMENT, 1, 5)), NOBODY, NOW) == []


def test_a_connection_known_by_its_name_alone_lost_every_batch() -> None:
    first = epoch("0c" * 16, T, 4)
    known = records([first, SUCCESSOR._replace(after=A)], run(SEGMENT, 1, 4, first.id), run(SEGMENT, 1, 2, B))
    assert reckon(known, Going({A, B}, {"okx-0"}), NOW) == [], "somebody says that it is there"
    found = reckon(known, Going({B}, {"okx-0"}, {"okx-0": {FEED}}), NOW)
    assert found == [
        Batch(
            "okx-0", "okx", A, FOUND_LATER + NOW, T + 4, kind="finding",
            losses=(Loss(*FEED, 1, 1, None, T + 4, T + 9_000, BUFFER_LOST),), end=EpochEnd(T + 9_000, UNCLEAN_END, ()),
        )
    ]  # fmt: skip
    assert reckon(after(known, found), Going({B}, {"okx-0"}), NOW + 30) == []
    assert [balance.unknown_losses for balance in conserve(known).balances] == [1]


def test_of_a_connection_without_a_known_one_before_it_nobody_knows_since_when_it_was() -> None:
    known = records([SUCCESSOR._replace(after=A)], run(SEGMENT, 1, 2, B))
    (found,) = reckon(known, Going({B}, {"okx-0"}), NOW)
    assert found.losses == (Loss(*FEED, 1, 1, None, T + 9_000, T + 9_000, BUFFER_LOST),), "the feeds of the next one"
    for kind in (REDIS, SPOOL):
        waits = records([SUCCESSOR._replace(after=A), epoch()], run(SEGMENT, 1, 2, B), run(kind, 1, 2))
        assert reckon(waits, Going({B}, {"okx-0"}), NOW) == []


@given(
    st.lists(st.sampled_from((SEGMENT, ARCHIVED, "declared")), max_size=20),
    st.lists(st.sampled_from((SPOOL, REDIS)), max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_after_one_reckoning_everything_is_declared_and_a_second_finds_nothing(
    fates: list[str], under_way: list[str], ended: bool, alone: bool
) -> None:
    known = records([epoch(last=len(fates) + len(under_way) if ended else None), *([] if alone else [SUCCESSOR])])
    for number, fate in enumerate([*fates, *under_way], 1):
        if fate == "declared":
            known.losses.add(Lost("okx", A, *FEED, number, number, 1, T + number, T + number, "buffer_lost"))
        else:
            known.runs.append(run(fate, number, number))
    found = reckon(known, NOBODY, NOW)
    assert [batch.epoch for batch in found if batch.epoch == A] == ([] if ended or under_way else [A])
    after(known, found)
    assert reckon(known, NOBODY, NOW + 1) == []
    assert conserve(known).differences == []
