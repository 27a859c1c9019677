"""Where one connection of a feed ends and the next begins: did anything come between? Pure, from what is stored alone.

| feed                                   | verdict                                                                    |
| -------------------------------------- | -------------------------------------------------------------------------- |
| trades whose ids count one by one      | proved, or broken: a gap of cause `restart`, unless one is on record        |
| other trades, books                    | proved where the connections overlapped, else unknowable                   |

The verdict is a `Check` of kind `seam` from the last event before to the first one after; the epoch that begins there
opens its detail, which marks the seam as judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from app.model import TRADE, Check, Gap

SEAM = "seam"
#: How the detail of a seam's check begins: the epochs after and before.
SIDES = re.compile(r"([0-9a-f]{32}) after ([0-9a-f]{32}): ")
#: A feed as one epoch carried it: (epoch, symbol, feed).
Key = tuple[str, str, str]


class Presence(NamedTuple):
    """One feed of one epoch, from its first stored event to its last."""

    epoch: str
    symbol: str
    feed: str
    number: int
    first_id: str
    first_us: int
    last_id: str
    last_us: int
    #: Every identity that its ranges name.
    ids: tuple[str, ...]


class Seam(NamedTuple):
    """The last event before (`None`: the feed was never stored before) and the first event after."""

    before: Presence | None
    after: Presence
    #: Both sides were received by connections that were open at the same time.
    overlapping: bool
    #: Identities at the ends of everything stored before.
    earlier: tuple[str, ...] = ()


class Judged(NamedTuple):
    check: Check
    gap: Gap | None = None


def epoch_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an epoch as it is stored, `overlaps` as a list."""
    return {**row, "overlaps": msgspec.json.decode(row.get("overlaps", "[]"))}


def presences(ranges: Iterable[Mapping[str, Any]]) -> dict[Key, Presence]:
    """What each epoch carried of each feed; `ranges` ascending by number within these. Without any event: not there."""
    found: dict[Key, Presence] = {}
    for row in ranges:
        ends = [(row.get(f"{end}_id"), row.get(f"{end}_us")) for end in ("first", "last")]
        known = [(identity, us) for identity, us in ends if identity is not None and us is not None]
        if not known:
            continue
        key = row["epoch"], row["symbol"], row["feed"]
        ids = tuple(identity for identity, _ in known)
        (first_id, first_us), (last_id, last_us) = known[0], known[-1]
        if (so_far := found.get(key)) is None:
            found[key] = Presence(*key, row["first"], first_id, first_us, last_id, last_us, ids)
        else:
            found[key] = so_far._replace(last_id=last_id, last_us=last_us, ids=so_far.ids + ids)
    return found


def seam(after: Presence, others: Iterable[Presence], epochs: Mapping[str, Mapping[str, Any]]) -> Seam:
    """The seam at which `after` begins. `others`: the same feed as other epochs carried it; `epochs`: their records."""
    earlier = [one for one in others if one.epoch != after.epoch and one.first_us <= after.first_us]
    if not earlier:
        return Seam(None, after, False)
    before = max(earlier, key=lambda one: one.last_us)
    overlapping = before.last_us >= after.first_us or _both_open(before.epoch, after, epochs)
    return Seam(before, after, overlapping, tuple(identity for one in earlier for identity in one.ids))


def _both_open(before: str, after: Presence, epochs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether `before` was still open when the first event of `after` came, by its own word."""
    if before not in epochs[after.epoch]["overlaps"]:
        return False
    ended_us = epochs[before]["ended_us"]
    return ended_us is None or ended_us >= after.first_us


def judge(
    joint: Seam, first: tuple[int, int] | None, gaps: Iterable[Mapping[str, Any]], checked_us: int
) -> Judged | None:
    """The verdict on a seam; None where there was nothing before it.

    `first`: the ids of the first trade after it, None where the venue's ids cannot tell. `gaps`: those on record of the
    epoch that begins there.
    """
    before, after = joint.before, joint.after
    if before is None:
        return None

    def found(verdict: str, words: str, gap: Gap | None = None) -> Judged:
        detail = f"{after.epoch} after {before.epoch}: {words}"
        span_us = before.last_us, max(before.last_us, after.first_us)
        return Judged(Check(after.symbol, after.feed, SEAM, *span_us, verdict, checked_us, detail), gap)

    if first is not None:
        known = [last_id(identity) for identity in joint.earlier]
        if max(map(last_id, after.ids)) < min(known):
            return found("unknowable", f"ids start over: {max(known)}, then {first[0]}")
        if first[0] <= max(known) + 1:
            return found("proved", f"ids go on: {max(known)}, then {first[0]}")
        missing = max(known) + 1, first[0] - 1
        own = [gap for gap in gaps if (gap["epoch"], gap["symbol"], gap["feed"]) == after[:3]]
        last = min((int(g["from_id"]) for g in own if int(g["to_id"]) >= missing[1]), default=first[0]) - 1
        words = f"ids {missing[0]}..{missing[1]} are missing"
        if last < missing[0]:
            return found("broken", f"{words}, as the gap on record says")
        number = 0 if any(gap["number"] == after.number for gap in own) else after.number
        size = last - missing[0] + 1
        return found(
            "broken",
            words,
            Gap(
                after.symbol, after.feed, number, str(missing[0]), str(last), size, before.last_us, after.first_us,
                "restart",
            ),
        )  # fmt: skip
    if joint.overlapping:
        return found("proved", "overlapping connections")
    if after.feed == TRADE and after.first_id == before.last_id:
        return found("proved", "the same trade on both sides")
    what = "its ids cannot tell" if after.feed == TRADE else "a new connection begins a new series"
    return found("unknowable", what)


def last_id(identity: str) -> int:
    """The last id that a trade stands for, where ids count: its identity ends with it."""
    return int(identity.rpartition("-")[2])


def sides(detail: str) -> tuple[str, str]:
    """The epochs before and after the seam whose check has this detail. Raises: ValueError."""
    named = SIDES.match(detail)
    if named is None:
        raise ValueError(f"not the detail of a seam: {detail[:80]}")
    return named[2], named[1]


def marks(checks: Iterable[Mapping[str, Any]]) -> set[Key]:
    """The seams judged already, by (epoch that begins there, symbol, feed)."""
    return {(row["detail"][:32], row["symbol"], row["feed"]) for row in checks if row["kind"] == SEAM}
