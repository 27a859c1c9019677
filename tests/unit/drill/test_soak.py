"""The schedule of a soak: by chance, and yet the same for the same seed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.drill.soak import EVERY_S, STRIKES, Point, schedule, shown


@given(st.integers(), st.floats(0, 7200), st.sets(st.text(max_size=3), min_size=1, max_size=8))
def test_every_fault_strikes_before_any_comes_again_and_none_at_the_end(
    seed: int, seconds: float, names: set[str]
) -> None:
    found = schedule(seed, seconds, names)
    assert [at_s for at_s, _ in found] == [EVERY_S * (n + 1) for n in range(len(found))]
    assert all(at_s <= seconds - EVERY_S for at_s, _ in found)
    times = Counter(name for _, name in found)
    assert max(times.values(), default=0) - min((times[name] for name in names), default=0) <= 1
    assert found == schedule(seed, seconds, sorted(names, reverse=True))


def test_another_seed_strikes_in_another_order() -> None:
    orders = {tuple(name for _, name in schedule(seed, 600)) for seed in range(5)}
    assert len(orders) == 5
    assert all(set(order) <= set(STRIKES) for order in orders)


def test_a_point_is_shown_on_a_line() -> None:
    point = Point(30.2, 90_000, 1.25, 4321, {"stream": 81, "archive": 160})
    assert shown(point) == "   30 s     90,000 sent  lag   1.2 s    4,321 in Redis  MiB: stream 81, archive 160"
