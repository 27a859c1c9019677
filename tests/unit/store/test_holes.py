"""Batches that vanished between their push and the flush show as declared losses, by the numbers alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import TRADE, UNDECODED, Batch, EpochEnd, Loss, Range
from app.store.known import KnownRanges
from tests.support import segments
from tests.support.batches import EPOCH, OPENED_US, batch, event, undecoded

END_US = OPENED_US + 10**6


def losses(path: Path) -> list[tuple[object, ...]]:
    sql = "SELECT symbol, feed, first, last, count, start_us, end_us, cause FROM losses ORDER BY symbol, feed, first"
    return segments.query(path, sql)


def end(**last: int) -> EpochEnd:
    return EpochEnd(END_US, "stop", tuple(Range(symbol, TRADE, 1, number) for symbol, number in last.items()))


def test_numbers_missing_between_two_batches_are_declared_with_their_times(tmp_path: Path) -> None:
    segment = segments.opened(tmp_path)
    segments.stored(segment, batch(1, [event(1), event(2), event(1, symbol="ethusdt")]))
    segments.stored(segment, batch(4, [event(7), event(8), event(2, symbol="ethusdt")]))
    assert losses(segment.path) == [("btcusdt", TRADE, 3, 6, 4, OPENED_US + 2, OPENED_US + 7, "buffer_lost")]


def test_a_hole_within_one_claim_has_its_times_too(tmp_path: Path) -> None:
    segment = segments.opened(tmp_path)
    segments.stored(segment, batch(1, [event(1)]), batch(2, [event(2)]), batch(4, [event(5)]), batch(6, [event(7)]))
    assert [row[2:4] + row[5:7] for row in losses(segment.path)] == [
        (3, 4, OPENED_US + 2, OPENED_US + 5), (6, 6, OPENED_US + 5, OPENED_US + 7),
    ]  # fmt: skip


def test_an_epoch_whose_beginning_vanished_is_missing_it_from_the_first_number(tmp_path: Path) -> None:
    segment = segments.opened(tmp_path)
    segments.stored(segment, batch(9, [event(41), undecoded(3)]))
    assert losses(segment.path) == [
        (UNDECODED, UNDECODED, 1, 2, 2, OPENED_US, OPENED_US + 3, "buffer_lost"),
        ("btcusdt", TRADE, 1, 40, 40, OPENED_US, OPENED_US + 41, "buffer_lost"),
    ]


def test_the_last_word_of_an_epoch_shows_what_vanished_before_it(tmp_path: Path) -> None:
    segment = segments.opened(tmp_path)
    segments.stored(segment, batch(1, [event(1)]))
    segments.stored(segment, batch(5, [event(4)], end=end(btcusdt=6, ethusdt=2)))
    assert losses(segment.path) == [
        ("btcusdt", TRADE, 2, 3, 2, OPENED_US + 1, OPENED_US + 4, "buffer_lost"),
        ("btcusdt", TRADE, 5, 6, 2, OPENED_US + 4, END_US, "buffer_lost"),
        ("ethusdt", TRADE, 1, 2, 2, OPENED_US, END_US, "buffer_lost"),
    ]


def test_what_the_stream_itself_declared_is_not_declared_again(tmp_path: Path) -> None:
    refused = Loss("btcusdt", TRADE, 3, 5, 3, OPENED_US, OPENED_US, "queue_full")
    segment = segments.opened(tmp_path)
    # A refusal travels with the next batch, which may be of numbers before it.
    segments.stored(segment, batch(1, [event(1)], losses=[refused]))
    segments.stored(segment, batch(2, [event(2)]), batch(4, [event(8)], end=end(btcusdt=8)))
    assert [row[2:5] + row[7:] for row in losses(segment.path)] == [(3, 5, 3, "queue_full"), (6, 7, 2, "buffer_lost")]


def test_a_hole_over_the_turn_of_a_segment_is_seen_and_nothing_is_declared_twice(tmp_path: Path) -> None:
    first, second = segments.opened(tmp_path, 1), segments.opened(tmp_path, 2)
    segments.stored(first, batch(1, [event(1)]), batch(3, [event(3)]))
    known = KnownRanges()
    segments.sealed(first).load_known(known, [EPOCH])
    segments.stored(second, batch(3, [event(3)]), batch(5, [event(5)]), known=known)
    assert [row[2:4] + row[5:7] for row in losses(first.path)] == [(2, 2, OPENED_US + 1, OPENED_US + 3)]
    assert [row[2:4] + row[5:7] for row in losses(second.path)] == [(4, 4, OPENED_US + 3, OPENED_US + 5)]


def test_a_loss_of_unknown_extent_names_no_number(tmp_path: Path) -> None:
    """What is stored beyond it after all shows how much was lost, also over the turn of a segment."""
    first, second = segments.opened(tmp_path, 1), segments.opened(tmp_path, 2)
    unclean = Loss("btcusdt", TRADE, 2, 2, None, OPENED_US + 1, END_US, "unclean_end")
    segments.stored(first, batch(1, [event(1)]), batch(2**62, [], losses=[unclean]))
    known = KnownRanges()
    segments.sealed(first).load_known(known, [EPOCH])
    segments.stored(second, batch(3, [event(4)]), known=known)
    assert [row[2:5] + row[7:] for row in losses(first.path)] == [(2, 2, None, "unclean_end")]
    assert [row[2:5] + row[7:] for row in losses(second.path)] == [(2, 3, 2, "buffer_lost")]


def test_a_loss_of_unknown_extent_gives_way_to_the_known_one_that_begins_there(tmp_path: Path) -> None:
    unclean = Loss("btcusdt", TRADE, 2, 2, None, OPENED_US + 1, END_US, "unclean_end")
    batches = batch(1, [event(1)]), batch(2**62, [], losses=[unclean]), batch(3, [event(4)])
    at_once, segment = segments.opened(tmp_path, 1), segments.opened(tmp_path, 2)
    segments.stored(at_once, *batches)
    segments.stored(segment, *batches[:2])
    segments.stored(segment, batches[2])
    assert (
        losses(at_once.path)
        == losses(segment.path)
        == [("btcusdt", TRADE, 2, 3, 2, OPENED_US + 1, OPENED_US + 4, "buffer_lost")]
    )


def test_what_comes_back_after_it_was_declared_is_stored_all_the_same(tmp_path: Path) -> None:
    segment = segments.opened(tmp_path)
    segments.stored(segment, batch(1, [event(1)]), batch(3, [event(3)]))
    segments.stored(segment, batch(2, [event(2)]), batch(4, [event(4)]))
    assert segments.identities(segment.path) == ["1", "3", "2", "4"]
    assert [row[2:4] for row in losses(segment.path)] == [(2, 2)]


def test_where_a_kept_segment_cannot_be_read_no_hole_is_claimed(tmp_path: Path) -> None:
    segment, known = segments.opened(tmp_path), KnownRanges()
    known.doubt([EPOCH])
    segments.stored(segment, batch(7, [event(7)]), known=known)
    assert losses(segment.path) == []


#: Units of each batch, whether Redis forgot it, and after how many batches a claim ends.
PUSHED = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(PUSHED, st.integers(1, 5))
def test_every_number_is_stored_or_declared_lost_and_never_both(pushed: list[tuple[int, bool]], claim: int) -> None:
    batches: list[Batch] = []
    kept: set[int] = set()
    number = 0
    for at, (units, forgotten) in enumerate(pushed, 1):
        numbers = range(number + 1, number + units + 1)
        number += units
        if not forgotten:
            batches.append(batch(at, [event(n) for n in numbers]))
            kept.update(numbers)
    batches.append(batch(len(pushed) + 1, [], end=end(btcusdt=number)))
    with tempfile.TemporaryDirectory() as directory:
        segment = segments.opened(Path(directory))
        for start in range(0, len(batches), claim):
            segments.stored(segment, *batches[start : start + claim])
        declared = [n for row in losses(segment.path) for n in range(int(str(row[2])), int(str(row[3])) + 1)]
        segment.engine.dispose()
    assert sorted(declared) == sorted(set(range(1, number + 1)) - kept)
