"""How much of what the venue sent stands in an object: 1.0 only where proved, a smaller number where what is missing was
counted, None where nobody can know. Pure: a function of what a manifest says, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import nextafter
from typing import NamedTuple

from app.model import ORDERBOOK
from app.objects.manifest import GapRecord, LossRecord, Manifest

#: Books whose numbers count frames one by one, so that the size of a hole is a number of rows.
ONE_FRAME_A_NUMBER = frozenset({"bybit"})
REPAIRED = "repaired"
#: Kinds of the checks where one connection ends and the next begins: as judged from what is stored, and after the venue
#: was asked for all of its trades in between.
SEAM, REFETCH = "seam", "refetch"
#: Cause of the loss that a dead process leaves: it may have had more in its hands, or not.
UNCLEAN_END = "unclean_end"

Span = tuple[int, int]


class Completeness(NamedTuple):
    """`value` from above 0 to 1, or None: unknowable. `reasons`: why it is not 1.0, in words."""

    value: float | None
    reasons: tuple[str, ...]


class _Missing(NamedTuple):
    """So many are missing, or (None) nobody knows how many, and why."""

    number: int | None
    why: str


def completeness(manifest: Manifest) -> Completeness:
    """Of the object's presence: from its first row to its last.

    Trades whose ids count one by one are judged by the ids that stand in the object, books by the checks of their continuity.
    Gaps count until a repair says `repaired`, losses and broken checks wherever they touch the object's time.
    """
    if not manifest.rows:
        return Completeness(None, ("there are no rows",))
    losses = [loss for loss in manifest.losses if not _told_otherwise(manifest, loss)]
    lost = [_lost(loss) for loss in losses if _touches(manifest, loss.start_us, loss.end_us)]
    if manifest.data_type == ORDERBOOK:
        have, missing = manifest.rows, [*lost, *_book(manifest)]
    elif manifest.ids is None:
        have, missing = manifest.rows, [*lost, _Missing(None, "the ids of these trades do not tell what is missing")]
    else:
        have, found = _trades(manifest)
        missing = [*lost, *found]
        if None not in {
            one.number for one in missing
        }:  # what was received and given up is among the ids that are missing
            largest = max(sum(one.number or 0 for one in part) for part in (lost, found))
            return _of(have, largest, missing)
    counts = [one.number for one in missing]
    return _of(have, None if None in counts else sum(count or 0 for count in counts), missing)


def standing(manifest: Manifest, gap: GapRecord) -> tuple[str | None, int]:
    """State and finds of the newest repair of `gap`; (None, 0) where there was none."""
    of_it = [r for r in manifest.repairs if (r.epoch, r.number) == (gap.epoch, gap.number)]
    newest = max(of_it, key=lambda r: r.found_us, default=None)
    return (gap.repair, gap.found) if newest is None else (newest.state, newest.found)


def _of(have: int, missing: int | None, why: Iterable[_Missing]) -> Completeness:
    reasons = tuple(dict.fromkeys(one.why for one in why))
    if missing is None or (missing == 0 and reasons):
        return Completeness(None, reasons)
    return Completeness(1.0 if not missing else min(have / (have + missing), nextafter(1.0, 0.0)), reasons)


def _told_otherwise(manifest: Manifest, loss: LossRecord) -> bool:
    """Whether something better than a declaration says what a dead process lost: its own last word, or what came after.

    Rows that follow in this object have ids or checks, and these tell whether anything is missing before them.
    """
    if loss.cause != UNCLEAN_END:
        return False
    said = any(e.epoch == loss.epoch and e.reason not in (None, UNCLEAN_END) for e in manifest.epochs)
    found = any(r.epoch == loss.epoch and r.first <= loss.first <= r.last for r in manifest.ranges)
    return said or found or loss.start_us < (manifest.last_collector_us or 0)


def _lost(loss: LossRecord) -> _Missing:
    count = "an unknown number of" if loss.count is None else loss.count
    return _Missing(loss.count, f"{count} events of epoch {loss.epoch[:8]} were given up: {loss.cause}")


def _trades(manifest: Manifest) -> tuple[int, list[_Missing]]:
    """Ids that the object has, and what is missing of them."""
    assert manifest.ids is not None
    first, last, holes = manifest.ids.first, manifest.ids.last, list(manifest.ids.holes)
    have = last - first + 1 - sum(b - a + 1 for a, b in holes)
    missing = []
    for gap in manifest.gaps:
        state, found = standing(manifest, gap)
        ids = _ids(gap)
        if ids is None:
            if state != REPAIRED:
                missing.append(_Missing(None, _open(gap)))
            continue
        inside = sum(b - a + 1 for a, b in _common(holes, ids))
        holes = list(_without(holes, ids))
        if state == REPAIRED:
            continue
        size = ids[1] - ids[0] + 1
        beyond = size - sum(b - a + 1 for a, b in _common([(first, last)], ids))
        count = max(0, min(inside + beyond, size - found))
        missing.append(_Missing(count or None, _open(gap)))
    first_us, last_us = manifest.first_collector_us or 0, manifest.last_collector_us or 0
    fetched = {(c.start_us, c.end_us) for c in manifest.checks if c.kind == REFETCH and c.verdict == "proved"}
    for check in manifest.checks:  # a seam that is broken has its gap, which counts
        if check.kind != SEAM or check.verdict != "unknowable" or (check.start_us, check.end_us) in fetched:
            continue
        if check.start_us <= last_us and check.end_us >= first_us:
            missing.append(_Missing(None, f"between two connections: {check.detail}"))
    if holes:
        count = sum(b - a + 1 for a, b in holes)
        missing.append(_Missing(count, f"{count} ids are missing, the first of them {holes[0][0]}"))
    return have, missing


def _book(manifest: Manifest) -> Iterator[_Missing]:
    """What is missing of a book, or not proved to be there."""
    counted: list[Span] = [(loss.start_us, loss.end_us) for loss in manifest.losses if loss.count is not None]
    for gap in manifest.gaps:
        if standing(manifest, gap)[0] != REPAIRED:
            known = manifest.exchange in ONE_FRAME_A_NUMBER and gap.size is not None and gap.size > 0
            yield _Missing(gap.size if known else None, _open(gap))
            if known:
                counted.append((gap.before_us, gap.after_us))
    if manifest.quarantined:
        yield _Missing(None, f"{manifest.quarantined} frames are in quarantine")
    first, last = manifest.first_collector_us, manifest.last_collector_us
    if first is None or last is None:
        yield _Missing(None, "its rows have no times")
        return
    proved: list[Span] = []
    for check in manifest.checks:
        span = check.start_us, check.end_us
        if span[1] < first or span[0] > last:
            continue
        if check.kind == "continuity" and check.verdict == "proved":
            proved.append(span)
        elif check.verdict == "broken":
            explained = check.kind == "continuity" and any(a <= span[1] and span[0] <= b for a, b in counted)
            if explained:
                proved.append(span)
            else:
                yield _Missing(None, f"{check.kind} is broken: {check.detail}")
        elif check.kind == "continuity":
            yield _Missing(None, f"continuity is unknowable: {check.detail}")
    if not _covers(proved, (first, last)):
        yield _Missing(None, "its continuity is not proved from the first row to the last")


def _open(gap: GapRecord) -> str:
    return f"ids {gap.from_id} to {gap.to_id} are missing ({gap.cause})"


def _ids(gap: GapRecord) -> Span | None:
    """The ids of a gap whose ids count one by one, as numbers."""
    if not (gap.from_id.isdecimal() and gap.to_id.isdecimal()) or int(gap.from_id) > int(gap.to_id):
        return None
    return int(gap.from_id), int(gap.to_id)


def _touches(manifest: Manifest, start_us: int, end_us: int) -> bool:
    """Whether an interval touches the time of the object or of its segment."""
    first = min(manifest.opened_us, manifest.first_collector_us or manifest.opened_us)
    last = max(manifest.sealed_us, manifest.last_collector_us or manifest.sealed_us)
    return start_us <= last and end_us >= first


def _common(spans: Iterable[Span], with_: Span) -> Iterator[Span]:
    for a, b in spans:
        if max(a, with_[0]) <= min(b, with_[1]):
            yield max(a, with_[0]), min(b, with_[1])


def _without(spans: Iterable[Span], out: Span) -> Iterator[Span]:
    for a, b in spans:
        if b < out[0] or a > out[1]:
            yield a, b
            continue
        if a < out[0]:
            yield a, out[0] - 1
        if b > out[1]:
            yield out[1] + 1, b


def _covers(spans: Iterable[Span], whole: Span) -> bool:
    """Whether the intervals, which touch or overlap, cover `whole`."""
    at, begun = whole[0], False
    for a, b in sorted(spans):
        if a > at:
            return False
        begun, at = True, max(at, b)
    return begun and at >= whole[1]
