"""What an hour of a feed is worth, in one word, by the objects and segments that hold it. Pure.

| state      | of all that holds the hour                                                                        |
| ---------- | ------------------------------------------------------------------------------------------------- |
| proved     | everything the venue numbered is there, and always was                                            |
| repaired   | everything is there; what was missing at first was found again                                    |
| gap        | something is missing: counted, or a hole on record whose size nobody knows                        |
| unknowable | nothing is known to be missing, and nothing proves that all is there: the reasons are in words    |

The worst of them is the hour's. An hour that nothing holds has no cell: it was not collected.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from math import nextafter
from typing import Any, NamedTuple

import msgspec

from app.model import ORDERBOOK
from app.objects.completeness import REPAIRED as GAP_REPAIRED
from app.objects.manifest import GapRecord, IdSpan, Manifest, NumberRange
from app.pipeline import gaps
from app.pipeline.certificate import Findings, united
from app.pipeline.facts import epoch_span, told
from app.pipeline.trade_ids import COUNTED

HOUR_US = 3600 * 1_000_000
#: A segment is sealed a moment after its time is over: that moment is no further hour.
SEAL_US = 60 * 1_000_000

PROVED, REPAIRED, GAP, UNKNOWABLE = "proved", "repaired", "gap", "unknowable"
#: From the worst to the best.
STATES = (GAP, UNKNOWABLE, REPAIRED, PROVED)
#: Of so many objects it is remembered what they come to: a month of 100 feeds.
REMEMBERED = 100_000
#: Reasons that a cell tells; opening it tells all.
REASONS = 3

#: exchange, symbol, data type
Feed = tuple[str, str, str]


class Part(NamedTuple):
    """One object, or what one segment that is not archived yet holds of a feed, as it stands now."""

    #: From the opening of the segment to its last row.
    opened_us: int
    until_us: int
    state: str
    #: From above 0 to 1; None where nobody can know.
    value: float | None
    rows: int
    gaps: int
    open_gaps: int
    losses: int
    quarantined: int
    #: Judged by what was seen at receipt: the proof comes with the object.
    provisional: bool
    reasons: tuple[str, ...]


class Cell(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One feed in one UTC hour."""

    state: str
    value: float | None = None
    rows: int
    #: Objects, and segments that are not archived yet.
    parts: int = 1
    gaps: int = 0
    open_gaps: int = 0
    losses: int = 0
    quarantined: int = 0
    #: Some of it is not archived yet, or goes on.
    provisional: bool = False
    reasons: tuple[str, ...] = ()


class Holding(NamedTuple):
    """What a segment that is not archived yet has of one feed: rows of its `ranges` and of their `epochs`."""

    feed: Feed
    ranges: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


def part(now: Manifest, *, provisional: bool = False) -> Part:
    """What `now`, a manifest united with everything found out since, comes to."""
    still_open = sum(gap.repair != GAP_REPAIRED for gap in now.gaps)
    return Part(
        now.opened_us, until(now), _state(now, still_open), now.completeness, now.rows, len(now.gaps), still_open,
        len(now.losses), now.quarantined, provisional, now.completeness_reasons[:REASONS],
    )  # fmt: skip


def _state(now: Manifest, still_open: int) -> str:
    if now.completeness == 1.0:
        return REPAIRED if now.gaps else PROVED
    holes = still_open or any(loss.count for loss in now.losses)
    torn = any(check.kind == "continuity" and check.verdict == "broken" for check in now.checks)
    return GAP if now.completeness is not None or holes or torn else UNKNOWABLE


def cells(parts: Iterable[Part]) -> dict[int, Cell]:
    """UTC hour (its beginning) -> cell, of the parts of one feed."""
    by_hour: dict[int, list[Part]] = {}
    for one in parts:
        for hour_us in hours_of(one.opened_us, one.until_us):
            by_hour.setdefault(hour_us, []).append(one)
    return {hour_us: _cell(tuple(its)) for hour_us, its in by_hour.items()}


def hour_of(us: int) -> int:
    """The beginning of the UTC hour."""
    return us - us % HOUR_US


def until(told: Manifest) -> int:
    """The time of the last row, as far as the segment was open then: some come a moment after the turn of the hour."""
    last_us = told.last_collector_us if told.last_collector_us is not None else told.sealed_us
    return max(told.opened_us, min(last_us, told.sealed_us - SEAL_US))


def hours_of(opened_us: int, until_us: int) -> range:
    """The UTC hours in which a segment was filled."""
    return range(hour_of(opened_us), until_us + 1, HOUR_US)


@lru_cache(REMEMBERED)
def _cell(parts: tuple[Part, ...]) -> Cell:
    """What the parts come to together."""
    rows = sum(one.rows for one in parts)
    values = [one.value for one in parts]
    value = None
    if None not in values:
        sent = sum(one.rows / one.value for one in parts if one.value)
        complete = all(one == 1.0 for one in values)
        value = 1.0 if complete else min(rows / sent, nextafter(1.0, 0.0)) if sent else None
    return Cell(
        state=min((one.state for one in parts), key=STATES.index), value=value, rows=rows, parts=len(parts),
        gaps=sum(one.gaps for one in parts), open_gaps=sum(one.open_gaps for one in parts),
        losses=sum(one.losses for one in parts), quarantined=sum(one.quarantined for one in parts),
        provisional=any(one.provisional for one in parts),
        reasons=tuple(dict.fromkeys(reason for one in parts for reason in one.reasons))[:REASONS],
    )  # fmt: skip


def so_far(held: Holding, opened_us: int, now_us: int, found: Findings) -> Manifest | None:
    """A manifest of what a segment holds until now, without the rows being read; None where no event was stored.

    Trades are judged by the ids that were seen at receipt: inside a connection every hole in them is a gap on record, and
    between two connections the seam is judged. Books are judged up to where their continuity has been checked.
    """
    exchange, symbol, data_type = held.feed
    ranges = told(NumberRange, held.ranges)
    times = [us for r in ranges for us in (r.first_us, r.last_us) if us is not None]
    rows = sum(r.stored for r in ranges)
    if not rows or not times:
        return None
    first_us, last_us = min(times), max(times)
    ids = None
    if data_type == ORDERBOOK:
        judged = [c.end_us for c in found.checks if c.kind == "continuity" and c.end_us >= first_us]
        last_us = min(last_us, max(judged, default=last_us))
    elif exchange in COUNTED:
        ids = _ids(held.ranges, found.gaps)
    seen = Manifest(
        key="", exchange=exchange, symbol=symbol, data_type=data_type, segment=0, data_dir="", opened_us=opened_us,
        sealed_us=now_us, rows=rows, size_bytes=0, sha256="", first_collector_us=first_us, last_collector_us=last_us,
        ids=ids, duplicates=sum(r.duplicates for r in ranges), ranges=ranges,
        epochs=tuple(map(epoch_span, held.epochs)), quarantined=sum(r.quarantined for r in ranges),
        collector_version="", pyarrow_version="",
    )  # fmt: skip
    return united(seen, found)


def _ids(ranges: Iterable[dict[str, Any]], found: Iterable[GapRecord]) -> IdSpan | None:
    try:
        spans = [gaps.span(row) for row in ranges if row.get("first_id") is not None and row.get("last_id") is not None]
        holes = [(int(gap.from_id), int(gap.to_id)) for gap in found]
    except ValueError:
        return None
    if not spans:
        return None
    first, last = min(first for first, _ in spans), max(last for _, last in spans)
    inside = gaps.runs_left(first, last, holes)
    return IdSpan(first=first, last=last, holes=tuple((a[1] + 1, b[0] - 1) for a, b in pairwise(inside)))
