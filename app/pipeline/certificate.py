"""The certificate of an hour: what its manifest says, united with everything that was found out about it later.

Manifests are never written again. Later findings stand in kept segments and in the ledger; where that ledger is not here (the
archive is read on another machine, or the ledger is lost), in the manifests of the segments that followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import msgspec

from app.errors import VerifyFailed
from app.model import Market
from app.objects import layout, manifest
from app.objects.layout import ObjectKey
from app.objects.manifest import CheckRecord, GapRecord, LossRecord, Manifest, RepairRecord
from app.objects.store import Store
from app.pipeline.facts import judged, told
from app.store.ledger import OPEN, SEALED, SEALING, Ledger
from app.store.segment import SealedSegment

R = TypeVar("R")

#: The longest segment.
LONGEST_US = 86_400 * 1_000_000
#: Findings about an hour come soon after it; manifests are read so far on where there is no ledger.
LATER_US = 7 * 86_400 * 1_000_000


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """One object as it stands now. `now.completeness` may differ from `at_sealing.completeness`."""

    at_sealing: Manifest
    now: Manifest
    #: Where later findings were looked for: `ledger` or `later manifests`.
    findings: str


class Findings(msgspec.Struct, frozen=True):
    """Records of one feed, whenever they were made."""

    gaps: tuple[GapRecord, ...] = ()
    losses: tuple[LossRecord, ...] = ()
    repairs: tuple[RepairRecord, ...] = ()
    checks: tuple[CheckRecord, ...] = ()


def certificates(
    store: Store, ledger: Ledger | None, segments_root: Path, market: Market, start_us: int, end_us: int
) -> list[Certificate]:
    """One for each object of `market` whose segment was open in [start_us, end_us), by key; none where there is none.

    Raises: StoreError; ValueError where a manifest is none.
    """
    keys = _keys(store, market)
    # However many objects there are, what was found out about a feed is read once, and so is each manifest.
    read = cache(partial(_read, store))
    recorded = cache(partial(_recorded, ledger, segments_root, market))
    found = []
    for key in keys:
        opened_us = key.start_ms * 1000
        if not start_us - LONGEST_US <= opened_us < end_us:
            continue
        described = read(key)
        if described is None or described.sealed_us <= start_us:
            continue
        ours = ledger is not None and ledger.data_directory == described.data_dir
        later = recorded(key.data_type) if ours else _manifests(read, keys, key)
        now = united(described, later)
        found.append(Certificate(at_sealing=described, now=now, findings="ledger" if ours else "later manifests"))
    return found


def united(described: Manifest, later: Findings) -> Manifest:
    """`described` with those of `later` that speak of it, judged anew. Pure."""
    first, last = (
        described.first_collector_us or described.opened_us,
        described.last_collector_us or described.sealed_us,
    )
    epochs = {r.epoch for r in described.ranges}
    own = {(gap.epoch, gap.number) for gap in described.gaps}
    gaps = [
        gap for gap in later.gaps
        if (gap.epoch, gap.number) not in own and gap.epoch in epochs and first <= gap.after_us <= last
    ]  # fmt: skip
    named = own | {(gap.epoch, gap.number) for gap in gaps}
    return judged(
        msgspec.structs.replace(
            described,
            gaps=(*described.gaps, *gaps),
            losses=_both(described.losses, (loss for loss in later.losses if _touch(loss, first, last))),
            repairs=_both(described.repairs, (r for r in later.repairs if (r.epoch, r.number) in named)),
            checks=_both(described.checks, (check for check in later.checks if _touch(check, first, last))),
        )
    )


def _touch(record: LossRecord | CheckRecord, first: int, last: int) -> bool:
    return record.start_us <= last and record.end_us >= first


def _both(own: tuple[R, ...], later: Iterable[R]) -> tuple[R, ...]:
    return tuple(dict.fromkeys((*own, *later)))


def _keys(store: Store, market: Market) -> list[ObjectKey]:
    found = []
    for key in store.keys(f"{market.exchange}/{market.symbol}/"):
        if key.endswith(".parquet"):
            found.append(layout.parse_key(key))
    return sorted(found, key=lambda key: (key.data_type, key.server or "", key.start_ms, key.suffix))


def _read(store: Store, key: ObjectKey) -> Manifest | None:
    """The manifest of an object; None where the archive is about to write it."""
    try:
        with store.open(layout.manifest_key(str(key))) as file:
            return manifest.decode(file.read())
    except VerifyFailed:
        return None


def _recorded(ledger: Ledger | None, segments_root: Path, market: Market, data_type: str) -> Findings:
    """What the ledger and the kept segments say of a feed."""
    assert ledger is not None
    where = {"exchange": market.exchange, "symbol": market.symbol, "feed": data_type}
    kept = [
        SealedSegment(segments_root / entry.path, settled=entry.state == SEALED)
        for entry in ledger.segments(OPEN, SEALING, SEALED)
        if (segments_root / entry.path).exists()
    ]

    def rows(name: str) -> Iterator[dict[str, object]]:
        yield from ledger.records(name, **where)
        for segment in kept:
            yield from segment.records(name, **where)

    return Findings(
        told(GapRecord, rows("gaps")),
        told(LossRecord, rows("losses")),
        told(RepairRecord, rows("repairs")),
        told(CheckRecord, rows("checks")),
    )


def _manifests(read: Callable[[ObjectKey], Manifest | None], keys: Iterable[ObjectKey], key: ObjectKey) -> Findings:
    """What manifests of the same feed say that were written after `key`."""
    later = [
        described
        for other in keys
        if (other.data_type, other.server) == (key.data_type, key.server)
        and key.start_ms < other.start_ms <= key.start_ms + LATER_US // 1000
        and (described := read(other)) is not None
    ]
    return Findings(
        tuple(gap for m in later for gap in m.gaps),
        tuple(loss for m in later for loss in m.losses),
        tuple(repair for m in later for repair in m.repairs),
        tuple(check for m in later for check in m.checks),
    )
