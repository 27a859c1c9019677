from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.venues.tape import Tape, Trade

ids = st.lists(st.integers(1, 9), max_size=60).map(lambda steps: [sum(steps[: n + 1]) for n in range(len(steps))])


def taped(numbers: list[int], kept: int = 1000) -> Tape:
    tape = Tape(kept)
    for number in numbers:
        tape.append(Trade(number, 1, 5, 7, number % 2 == 0, 11 * number, 13))
    return tape


@given(numbers=ids, asked=st.integers(0, 500))
def test_trades_are_found_by_id_from_both_sides(numbers: list[int], asked: int) -> None:
    tape = taped(numbers)
    assert [one.id for one in tape.newest_first()] == numbers[::-1]
    assert [one.id for one in tape.newest_first(asked)] == [n for n in numbers if n < asked][::-1]
    place = tape.place(asked)
    assert [one.id for one in tape.between(place, place + 5)] == [n for n in numbers if n >= asked][:5]


@given(count=st.integers(0, 300), kept=st.integers(1, 50))
def test_the_newest_are_kept_and_not_twice_as_many(count: int, kept: int) -> None:
    tape = taped([*range(1, count + 1)], kept)
    assert min(count, kept) <= len(tape) < 2 * kept or count == 0
    assert [one.id for one in tape.newest_first()] == [*range(count, count - len(tape), -1)]


def test_a_trade_comes_back_as_it_was() -> None:
    tape, trade = Tape(), Trade(17_510_687_993_360_000, 3, 8_400_000, 5, True, 1_790_000_000_123_456, 91)
    tape.append(trade)
    assert tape[0] == trade and tape[0].taker_buys is True
