"""The records: frozen, comparable, never reordered; and the united ranges of numbers."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import Batch, EpochEnd, Event, Gap, Loss, Market, Quarantined, Range, runs
from tests.support.batches import batch, event

#: What stands in Redis and in spools today. A record may gain fields at its end, with a default, and nothing else.
FIELDS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Event: ("symbol", "feed", "number", "sequence_id", "received_us", "exchange_us", "data"),
    Quarantined: ("symbol", "feed", "number", "received_us", "reason", "frame"),
    Loss: ("symbol", "feed", "first", "last", "count", "start_us", "end_us", "cause"),
    Gap: ("symbol", "feed", "number", "from_id", "to_id", "size", "before_us", "after_us", "cause"),
    Range: ("symbol", "feed", "first", "last"),
    EpochEnd: ("ended_us", "reason", "last_numbers"),
    Batch: (
        "stream", "exchange", "epoch", "number", "opened_us", "ranges", "events", "quarantined", "losses", "gaps", "end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("record", FIELDS, ids=lambda record: record.__name__)
def test_fields_of_a_record_keep_their_places_and_new_ones_have_defaults(record: type[msgspec.Struct]) -> None:
    old = FIELDS[record]
    assert record.__struct_fields__[: len(old)] == old
    added = msgspec.structs.fields(record)[len(old) :]
    assert [field.name for field in added if field.required] == []


@pytest.mark.parametrize("record", FIELDS, ids=lambda record: record.__name__)
def test_records_are_frozen_arrays(record: type[msgspec.Struct]) -> None:
    assert record.__struct_config__.frozen
    assert record.__struct_config__.array_like


def test_a_record_of_an_older_writer_reads_with_defaults_and_of_a_newer_one_without_its_news() -> None:
    full = batch(1, [event(1)])
    older = [full.stream, full.exchange, full.epoch, full.number, full.opened_us]
    assert msgspec.convert(older, Batch) == msgspec.structs.replace(full, ranges=(), events=())
    newer = [*msgspec.to_builtins(full.events[0]), "a field of the future"]
    assert msgspec.convert(newer, Event) == full.events[0]


def test_a_market_reads_as_a_path_and_sorts_by_exchange_then_symbol() -> None:
    markets = [Market("okx", "BTC-USDT"), Market("binance", "ethusdt"), Market("binance", "btcusdt")]
    assert [str(market) for market in sorted(markets)] == ["binance/btcusdt", "binance/ethusdt", "okx/BTC-USDT"]


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sets(st.integers(1, 40)), max_size=3), st.randoms())
@settings(deadline=None)
def test_runs_cover_exactly_the_numbers_given_and_never_touch_one_another(
    numbers: dict[str, set[int]], random: object
) -> None:
    waiting = {symbol: sorted(found) for symbol, found in numbers.items() if found}
    arriving: list[tuple[str, str, int]] = []
    while waiting:  # any interleaving of feeds, each ascending
        symbol = random.choice(sorted(waiting))  # type: ignore[attr-defined]
        arriving.append((symbol, "trade", waiting[symbol].pop(0)))
        if not waiting[symbol]:
            del waiting[symbol]
    by_symbol: dict[str, list[Range]] = defaultdict(list)
    for found in runs(arriving):
        by_symbol[found.symbol].append(found)
    covered = {s: [n for r in found for n in range(r.first, r.last + 1)] for s, found in by_symbol.items()}
    assert covered == {symbol: sorted(found) for symbol, found in numbers.items() if found}
    for found in by_symbol.values():
        assert all(before.last + 1 < after.first for before, after in pairwise(found))
