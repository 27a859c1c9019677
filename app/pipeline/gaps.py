"""What is missing and what became of it: gaps with their newest repair, and intervals of which nothing can be told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.model import TRADE
from app.pipeline.seams import SEAM, SIDES, last_id

REFETCH = "refetch"
OPEN, PARTLY, REPAIRED, UNREPAIRABLE, UNKNOWABLE = "open", "partly", "repaired", "unrepairable", "unknowable"
STATES = (OPEN, PARTLY, REPAIRED, UNREPAIRABLE, UNKNOWABLE)
#: A venue's REST may lag: what it lacks so long after a gap, it does not have.
SETTLED_US = 3600 * 1_000_000
#: Between the ids that are not stored and the venue's words on why.
REMAIN = " remain: "

Row = Mapping[str, Any]


def states(gaps: Iterable[Row], repairs: Iterable[Row]) -> list[dict[str, Any]]:
    """Each gap with `state`, `found`, `detail` and `found_us` of its newest repair (`open`, 0, "", None: there is none),
    the oldest first."""
    newest: dict[tuple[Any, ...], Row] = {}
    for repair in repairs:
        key = _key(repair)
        if key not in newest or newest[key]["found_us"] < repair["found_us"]:
            newest[key] = repair
    told = []
    for gap in gaps:
        repair = newest.get(_key(gap), {})
        told.append(
            {
                **gap,
                "state": repair.get("state", OPEN),
                "found": repair.get("found", 0),
                "detail": repair.get("detail", ""),
                "found_us": repair.get("found_us"),
            }
        )
    return sorted(told, key=lambda gap: (gap["after_us"], *map(str, _key(gap))))


def closed(gap: Row) -> bool:
    """Whether a gap, as `states` tells it, is not asked for any more."""
    if gap["state"] == PARTLY:
        return bool(gap["found_us"] - gap["after_us"] >= SETTLED_US)
    return gap["state"] in (REPAIRED, UNREPAIRABLE)


def unknowable(checks: Iterable[Row]) -> list[dict[str, Any]]:
    """Seams of which nothing can be told and that no later fetch proved.

    `asked`: whether one was tried; `why` in words; `epoch`: the one that begins there, None where the check does not say.
    """
    fetched: dict[tuple[Any, ...], Row] = {}
    seams: dict[tuple[Any, ...], Row] = {}
    for check in checks:
        kind = seams if check["kind"] == SEAM else fetched if check["kind"] == REFETCH else None
        key = check["exchange"], check["symbol"], check["feed"], check["start_us"], check["end_us"]
        if kind is not None and (key not in kind or kind[key]["checked_us"] < check["checked_us"]):
            kind[key] = check
    left = []
    for key, check in seams.items():
        again = fetched.get(key)
        if check["verdict"] == UNKNOWABLE and (again is None or again["verdict"] == UNKNOWABLE):
            named = SIDES.match(check["detail"])
            why = again["detail"] if again else check["detail"][named.end() if named else 0 :]
            left.append({**check, "asked": again is not None, "why": why, "epoch": named[1] if named else None})
    return sorted(left, key=lambda check: (check["end_us"], check["exchange"], check["symbol"], check["feed"]))


def runs_left(first: int, last: int, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What remains of first..last without `spans`, ascending.

    >>> runs_left(1, 9, [(4, 5), (0, 1), (9, 12)])
    [(2, 3), (6, 8)]
    """
    left, at = [], first
    for start, end in sorted(spans):
        if start > last:
            break
        if start > at:
            left.append((at, start - 1))
        at = max(at, end + 1)
    return [*left, (at, last)] if at <= last else left


def size(runs: Iterable[tuple[int, int]]) -> int:
    """How many ids these are."""
    return sum(last - first + 1 for first, last in runs)


def words(runs: Iterable[tuple[int, int]], most: int = 8) -> str:
    """Runs of ids for people: `5, 7..9`."""
    found = list(runs)
    named = [str(first) if first == last else f"{first}..{last}" for first, last in found[:most]]
    return ", ".join(named) + (f" and {size(found[most:])} more" if len(found) > most else "")


def arrived(ranges: Iterable[Row]) -> Iterator[tuple[tuple[int, int], Row]]:
    """The ids that epochs of kind `rest` brought and that are stored, of feeds whose ids count; each with its range.

    Each such epoch has consecutive ids and is stored whole, or its row says that something was quarantined.
    """
    for row in ranges:
        if row["feed"] == TRADE and not row["quarantined"]:
            yield span(row), row


def span(row: Row) -> tuple[int, int]:
    """The ids of a range of such an epoch."""
    return int(row["first_id"].partition("-")[0]), last_id(row["last_id"])


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two runs of ids have one in common."""
    return one[0] <= other[1] and other[0] <= one[1]


def _key(row: Row) -> tuple[Any, ...]:
    return row["epoch"], row["symbol"], row["feed"], row["number"]
