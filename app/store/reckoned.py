"""The numbers of a damaged segment: what its ranges say was stored, laid beside the rows that could be read. Pure.

Rows of an epoch and market stand in the order of their numbers, so that the place of missing rows is that of missing
numbers; where duplicates or quarantined frames lie between, how many are missing is exact and which is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from app.model import Loss

CAUSE = "segment_damaged"
Row = dict[str, Any]
#: exchange, symbol, feed, epoch
Key = tuple[str, str, str, str]


@dataclass
class Seen:
    """Rows of one epoch and market that could be read."""

    rows: int = 0
    #: Of these, before the first that could not; when that one's neighbours were received.
    before: int = 0
    start_us: int | None = None
    end_us: int | None = None
    #: Rows are missing since the last one.
    interrupted: bool = False
    ever_interrupted: bool = False

    def add(self, received_us: int) -> None:
        if self.interrupted:
            self.ever_interrupted, self.interrupted, self.end_us = True, False, received_us
        if not self.ever_interrupted:
            self.before, self.start_us = self.before + 1, received_us
        self.rows += 1


def settle(
    seen: dict[Key, Seen],
    ranges: list[Row],
    lost: list[Row],
    elsewhere: list[Row],
    whole: bool,
    opened_us: int,
    closed_us: int,
) -> tuple[list[Row], dict[tuple[str, str], list[Loss]]]:
    """The ranges that are true of the rows, and by (exchange, epoch) what is declared lost.

    `ranges` and `lost` are those of the segment, `whole` when all of its ranges could be read, `elsewhere` the ranges of
    its epochs in other files. The segment was filled from `opened_us` to `closed_us`.
    """
    kept: list[Row] = []
    losses: dict[tuple[str, str], list[Loss]] = {}
    by_key: dict[Key, list[Row]] = {key: [] for key in seen}
    for row in sorted(ranges, key=lambda row: row["first"]):
        by_key.setdefault(_key(row), []).append(row)
    if not whole:
        for row in elsewhere:
            by_key.setdefault(_key(row), [])
    for key, held in by_key.items():
        rows = seen.get(key, Seen())
        lose = partial(_lose, losses, key, opened_us, closed_us)
        extra = rows.rows - sum(row["stored"] for row in held)
        at, end = rows.before, rows.before - min(extra, 0)
        begin = 0
        for row in held:
            cut = max(0, min(end, begin + row["stored"]) - max(at, begin))
            offset = max(at, begin) - begin
            begin += row["stored"]
            if not cut:
                kept.append(row)
                continue
            mixed = bool(row["duplicates"] or row["quarantined"])
            first = row["last"] - cut + 1 if mixed else row["first"] + offset
            lose(first, first + cut - 1, cut, rows.start_us or row.get("first_us"), rows.end_us or row.get("last_us"))
            kept += _around(row, first, first + cut - 1, cut, row["stored"] - cut if mixed else offset)
        if not whole:
            others = [(r["first"], r["last"]) for r in [*held, *lost, *elsewhere] if _key(r) == key]
            ended = any(row.get("later") for row in elsewhere if _key(row) == key)
            _fill(key, max(extra, 0), others, ended, rows, kept, lose)
    return kept, losses


def _lose(
    losses: dict[tuple[str, str], list[Loss]], key: Key, opened_us: int, closed_us: int,
    first: int, last: int, count: int | None, start_us: int | None, end_us: int | None,
) -> None:  # fmt: skip
    exchange, symbol, feed, epoch = key
    loss = Loss(symbol, feed, first, last, count, start_us or opened_us, end_us or closed_us, CAUSE)
    losses.setdefault((exchange, epoch), []).append(loss)


def _fill(
    key: Key, rows_left: int, others: list[tuple[int, int]], ended: bool, rows: Seen, kept: list[Row], lose: Any
) -> None:
    """Numbers of ranges that could not be read: they lie where no other range or loss of the epoch is."""
    exchange, symbol, feed, epoch = key
    next_number = 1
    for first, last in [*sorted(others), (None, None)]:
        space = None if first is None else first - next_number
        stored = rows_left if space is None else min(space, rows_left)
        if stored > 0:
            kept.append(
                {"epoch": epoch, "exchange": exchange, "symbol": symbol, "feed": feed, "first": next_number,
                 "last": next_number + stored - 1, "stored": stored, "duplicates": 0, "conflicts": 0, "quarantined": 0}
            )  # fmt: skip
            rows_left -= stored
            next_number += stored
        if first is None or last is None:
            if ended:
                return
            lose(next_number, next_number - 1, None, rows.start_us, rows.end_us)
        else:
            if first > next_number:
                lose(next_number, first - 1, first - next_number, rows.start_us, rows.end_us)
            next_number = max(next_number, last + 1)


def _around(row: Row, first: int, last: int, cut: int, left: int) -> list[Row]:
    """What remains of a range without the numbers first..last, `left` of its stored rows being below them."""
    parts = []
    if row["first"] < first:
        parts.append({**row, "last": first - 1, "stored": left, "last_id": None, "last_us": None})
    if last < row["last"]:
        right = row["stored"] - cut - left
        parts.append({**row, "first": last + 1, "stored": right, "first_id": None, "first_us": None})
        if len(parts) == 2:  # outcomes beside the stored ones are counted once
            parts[1] |= {"duplicates": 0, "quarantined": 0, "conflicts": 0}
    return parts


def _key(row: Row) -> Key:
    return row["exchange"], row["symbol"], row["feed"], row["epoch"]
