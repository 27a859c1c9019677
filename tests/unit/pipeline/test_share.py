"""Who is to have which stream: whatever stands on the board, shares end within one of each other and then stay."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.pipeline.share import ANYONE, Worker, assign, standing

#: Streams and workers of one moment: each worker's number of streams and threads, and how many streams nobody has.
LOADS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=5)
HOMELESS = st.integers(0, 12)


def scene(loads: list[tuple[int, int]], homeless: int) -> tuple[list[str], set[str], dict[str, Worker]]:
    """(all streams, those with a lease, workers) with so many streams each, and so many threads left."""
    streams = [f"s{number:03d}" for number in range(sum(load for load, _ in loads) + homeless)]
    random.Random(len(streams)).shuffle(streams)
    rest = iter(streams)
    workers = {
        f"w{number}": Worker(frozenset(next(rest) for _ in range(load)), load + left)
        for number, (load, left) in enumerate(loads)
    }
    return streams, set().union(*(worker.streams for worker in workers.values())), workers


def moved(workers: dict[str, Worker], assignments: dict[str, str], handovers: list[str]) -> dict[str, Worker]:
    """The workers after everything has been done that was asked for."""
    got = {name: {s for s, worker in assignments.items() if worker == name} for name in workers}
    return {name: replace(w, streams=(w.streams - set(handovers)) | got[name]) for name, w in workers.items()}


@given(LOADS, HOMELESS)
def test_each_stream_that_nobody_has_is_assigned_once_while_threads_are_free(
    loads: list[tuple[int, int]], homeless: int
) -> None:
    streams, leased, workers = scene(loads, homeless)
    assignments, _ = assign(streams, leased, workers)
    assert assignments.keys() <= set(streams) - leased
    assert len(assignments) == min(homeless, sum(left for _, left in loads))
    assert all(len(w.streams) <= w.threads for w in moved(workers, assignments, []).values())


@given(LOADS, HOMELESS)
def test_it_depends_on_nothing_but_what_is_there(loads: list[tuple[int, int]], homeless: int) -> None:
    streams, leased, workers = scene(loads, homeless)
    turned = dict(reversed(workers.items()))
    assert assign(list(reversed(streams)), sorted(leased), turned) == assign(streams, leased, workers)


@given(LOADS, HOMELESS)
def test_shares_end_within_one_of_each_other_and_no_stream_moves_more_often_than_needed(
    loads: list[tuple[int, int]], homeless: int
) -> None:
    streams, leased, workers = scene(loads, homeless)
    assignments, handovers = assign(streams, leased, workers)
    workers, moves = moved(workers, assignments, []), 0
    first = {name: len(worker.streams) for name, worker in workers.items()}
    while handovers:
        counts = [len(worker.streams) for worker in workers.values()]
        assert len(handovers) <= (max(counts) - min(counts)) // 2
        assert len(set(handovers)) == len(handovers)
        moves += len(handovers)
        workers = moved(workers, {}, handovers)
        held = set().union(*(worker.streams for worker in workers.values()))
        workers = moved(workers, assign(handovers, held, workers)[0], [])
        assert sum(len(worker.streams) for worker in workers.values()) == sum(counts)
        _, handovers = assign(streams, set().union(*(worker.streams for worker in workers.values())), workers)
    last = {name: len(worker.streams) for name, worker in workers.items()}
    takers = [last[name] for name, worker in workers.items() if last[name] < worker.threads]
    assert not takers or max(last.values()) - min(takers) <= 1
    assert moves == sum(max(0, first[name] - last[name]) for name in workers)


def test_nothing_moves_while_the_shares_differ_by_one_or_a_worker_is_new_or_failing() -> None:
    one, four = frozenset("a"), frozenset("bcde")
    held = one | four
    assert assign(held, held, {"w": Worker(one, 9), "v": Worker(frozenset("bc"), 9)}) == ({}, [])
    assert assign(held, held, {"w": Worker(one, 9), "v": Worker(four, 9)}) == ({}, ["b"])
    for worker in (Worker(one, 9, settled=False), Worker(one, 9, failing=True), Worker(one, 1)):
        assert assign(held, held, {"w": worker, "v": Worker(four, 9)}) == ({}, [])
    assert assign(held, held, {"w": Worker(one, 9), "v": Worker(four, 9, settled=False)}) == ({}, [])


def test_while_a_stream_is_on_its_way_no_other_is_asked_for() -> None:
    """One has given back a stream and has not said so yet: what it says is older than the lease."""
    workers = {"full": Worker(frozenset("abcd"), 9), "new": Worker(frozenset(), 9)}
    assert assign("abcd", "abcd", workers) == ({}, ["a", "b"])
    assert assign("abcd", "bcd", workers) == ({}, [])
    assert assign("abcde", "bcd", workers) == ({"e": "new"}, [])
    assert assign("abcd", "", workers) == ({}, [])


def test_without_a_worker_on_the_board_anyone_may_take_a_stream() -> None:
    assert assign("abc", "b", {}) == ({"a": ANYONE, "c": ANYONE}, [])


def test_a_worker_where_a_stream_failed_is_given_streams_last() -> None:
    workers = {"broken": Worker(frozenset(), 9, failing=True), "sound": Worker(frozenset("abcd"), 5)}
    assert assign("abcdefg", "abcd", workers)[0] == {"e": "sound", "f": "broken", "g": "broken"}


def says(process: str, *streams: str, up_s: float = 60) -> dict[str, object]:
    return {"process": process, "streams": list(streams), "threads": 8, "up_s": up_s, "failing": False}


def test_the_lease_says_who_has_a_stream_and_a_worker_says_it_only_where_there_is_no_lease() -> None:
    told = {"w1": says("host:1", "mine", "lost", "without-lease"), "w2": says("host:2", up_s=9.9)}
    holders = {"mine": "host:1:aa", "lost": "host:2:bb", "elses": "host:11:cc"}
    sent = {"on-its-way": "w2", "lost": "w1", "to-the-dead": "w3", "to-any": ANYONE}
    assert standing(told, holders, sent, 10) == {
        "w1": Worker(frozenset({"mine", "without-lease"}), 8),
        "w2": Worker(frozenset({"lost", "on-its-way"}), 8, settled=False),
    }
