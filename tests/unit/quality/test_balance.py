"""Conservation over random epochs: each number in one class, each drop found, nothing else reported."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.model import UNCLEAN_END
from app.quality.balance import Balance, conserve, placed
from app.quality.numbers import size
from app.quality.records import ARCHIVED, REDIS, SEGMENT, SPOOL, Epoch, Lost, Records, Run

E = "0a" * 16
WHERE = f"okx/BTC-USDT trade, epoch {E}"


def run(place: str, first: int, last: int, *, epoch: str = E, **more: int) -> Run:
    """Numbers first..last at a place; all stored where nothing else is said."""
    decided = {"stored": last - first + 1} if place in (SEGMENT, ARCHIVED) and not more else more
    return Run(place, "okx", epoch, "BTC-USDT", "trade", first, last, **decided)


def lost(first: int, last: int, size: int | None = None, cause: str = "queue_full") -> Lost:
    return Lost("okx", E, "BTC-USDT", "trade", first, last, size, 5, 9, cause)


def epoch(last: int | None = None, reason: str = "stop") -> Epoch:
    ended = (7, reason, ((("BTC-USDT", "trade"), last),)) if last is not None else ()
    return Epoch(E, "okx-0", "okx", 1, "stream", (), *ended)


def conserved(*units: Run | Lost | Epoch) -> tuple[Balance, list[tuple[str, str]]]:
    records = Records()
    for unit in units:
        if isinstance(unit, Epoch):
            records.add_epoch(unit)
        elif isinstance(unit, Lost):
            records.losses.add(unit)
        else:
            records.runs.append(unit)
    result = conserve(records)
    (balance,) = result.balances
    return balance, [(d.what, d.where) for d in result.differences]


FATES = (SPOOL, REDIS, SEGMENT, ARCHIVED, "duplicates", "quarantined", "lost", "dropped")


@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=40), st.booleans(), st.data())
def test_every_number_is_in_exactly_one_class_and_every_undeclared_drop_is_found(
    fates: list[str], ended: bool, data: st.DataObject
) -> None:
    """Each number gets a fate; those on their way may also be seen further back. An end tells of drops at the tail."""
    units: list[Run | Lost | Epoch] = [epoch(len(fates) if ended else None)]
    for number, fate in enumerate(fates, 1):
        if fate in ("duplicates", "quarantined"):
            units.append(run(SEGMENT, number, number, **{fate: 1}))
        elif fate == "lost":
            units.append(lost(number, number, 1))
        elif fate != "dropped":
            units.append(run(fate, number, number))
            behind = {REDIS: [SPOOL], SEGMENT: [SPOOL, REDIS], ARCHIVED: [REDIS]}.get(fate, [])
            units += [run(place, number, number) for place in behind if data.draw(st.booleans())]
    units = data.draw(st.permutations(units))
    known = len(fates) if ended else max((n for n, fate in enumerate(fates, 1) if fate != "dropped"), default=0)
    if not known:
        return
    balance, differences = conserved(*units)
    count = [fates[:known].count(fate) for fate in FATES]
    assert balance == Balance("okx", "BTC-USDT", "trade", known, *count[:7], holes=count[7], epochs_open=not ended)
    assert balance.accounted + balance.holes == balance.received
    dropped = {n for n, fate in enumerate(fates[:known], 1) if fate == "dropped"}
    found = [what.removeprefix("numbers ").split("..") for what, _ in differences]
    assert {n for first, last in found for n in range(int(first), int(last) + 1)} == dropped
    assert {where for _, where in differences} <= {WHERE}


def test_what_was_declared_lost_and_came_back_counts_as_what_it_is_now() -> None:
    balance, differences = conserved(
        epoch(10), run(SEGMENT, 1, 4), lost(5, 8, 4), run(ARCHIVED, 6, 7), run(REDIS, 9, 10)
    )
    assert (balance.segments, balance.archived, balance.redis, balance.lost, balance.received) == (4, 2, 2, 2, 10)
    assert differences == []


def test_a_loss_of_unknown_extent_stands_until_the_epoch_says_its_end() -> None:
    unknown = lost(5, 5, None, UNCLEAN_END)
    dead, _ = conserved(epoch(4, UNCLEAN_END), run(SEGMENT, 1, 4), unknown)
    assert (dead.received, dead.unknown_losses, dead.lost) == (4, 1, 0)
    later, differences = conserved(epoch(4, UNCLEAN_END), epoch(6), run(SEGMENT, 1, 4), run(REDIS, 5, 6), unknown)
    assert (later.received, later.unknown_losses, differences) == (6, 0, [])


def test_a_real_end_counts_whichever_comes_first() -> None:
    for ends in ((epoch(4, UNCLEAN_END), epoch(6)), (epoch(6), epoch(4, UNCLEAN_END))):
        balance, differences = conserved(*ends, run(SEGMENT, 1, 4))
        assert (balance.received, differences) == (6, [("numbers 5..6", WHERE)])


def test_numbers_stored_twice_and_ranges_that_do_not_add_up_are_named() -> None:
    balance, differences = conserved(
        epoch(9), run(ARCHIVED, 1, 5), run(SEGMENT, 4, 8), run(SEGMENT, 9, 9, stored=0, duplicates=2), lost(20, 22, 1)
    )
    assert differences == [
        ("numbers 4..5", WHERE), ("range 9..9", WHERE), ("loss 20..22", WHERE), ("numbers 10..19", WHERE),
    ]  # fmt: skip
    assert balance.holes == 10


@given(st.lists(st.tuples(st.sampled_from((SPOOL, REDIS, SEGMENT)), st.integers(1, 20), st.integers(0, 5)), max_size=9))
def test_the_classes_of_one_feed_never_share_a_number(seen: list[tuple[str, int, int]]) -> None:
    parts = placed([run(place, first, first + more) for place, first, more in seen], [lost(3, 9, 7)])
    numbers = [n for spans in parts.values() for first, last in spans for n in range(first, last + 1)]
    assert len(numbers) == len(set(numbers)) == sum(size(spans) for spans in parts.values())
