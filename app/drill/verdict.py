"""Whether a promise was kept, told from what was seen of the recovery and from the account of what was sent. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.drill.catalogue import ALL, ARCHIVE, LOST, QUARANTINED, UNREAD, Row
from app.pipeline.sent import SentReport
from app.quality.balance import Balance, Difference

KEPT, BROKEN, TEST_ONLY = "kept", "broken", "test only"


@dataclass(frozen=True)
class Figures:
    """Events of everybody or of a venue, until an account or between two."""

    sent: int = 0
    #: In segments and objects.
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    #: Declared, with their number.
    lost: int = 0
    #: Declared losses of which nobody knows the extent.
    unknown_losses: int = 0
    #: Sent and not held: inside a declared loss, gap or quarantined frame; at the end of a connection that broke. Of
    #: everybody together only.
    explained: int = 0
    unread: int = 0
    #: Stored although no connection brought them: asked for later. Of everybody together only.
    refetched: int = 0

    def __sub__(self, before: Figures) -> Figures:
        return Figures(**{f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Seen:
    """What was seen while the fault was there. `recovered_s`: how long it took to be back at work."""

    recovered_s: float | None = None
    note: str = ""
    #: In what the promise was not kept; empty where it was.
    broken: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of one row."""

    row: str
    promise: str
    outcome: str
    #: Why it is broken or only tested; else what was seen.
    why: str = ""
    within_s: float | None = None
    recovered_s: float | None = None
    figures: Figures | None = None

    def as_dict(self) -> dict[str, Any]:
        """One of `rows` of `collector drill --json` (docs/cli.md)."""
        told = asdict(self)
        return {**told, "recovered_s": None if self.recovered_s is None else round(self.recovered_s, 1)}


def figures(balances: Iterable[Balance], sent: int, report: SentReport | None = None) -> Figures:
    """The sum of `balances`; with what the audit found out about everything sent, where it is about everybody."""
    found = list(balances)
    return Figures(
        sent=sent,
        stored=sum(b.segments + b.archived for b in found),
        **{
            name: sum(getattr(b, name) for b in found)
            for name in ("duplicates", "quarantined", "lost", "unknown_losses")
        },
        **({name: getattr(report, name) for name in ("explained", "unread", "refetched")} if report else {}),
    )


def mine(difference: Difference, scope: str, venues: Collection[str]) -> bool:
    """Whether a difference tells against a row of `scope`: what names a venue tells against that venue's rows alone."""
    text = f"{difference.what} {difference.where}"
    if scope == ARCHIVE:
        return difference.what.startswith(("manifest", "object")) or "archived" in difference.why
    named = [venue for venue in venues if venue in text]
    return scope == ALL or not named or scope in named


def judge(row: Row, seen: Seen, during: Figures, differences: Iterable[Difference]) -> Verdict:
    """`differences`: those of the audit after the fault that were not there before it and tell against this row."""

    def told(outcome: str, why: str) -> Verdict:
        return Verdict(row.id, row.promise, outcome, why, row.within_s, seen.recovered_s, during)

    if seen.broken:
        return told(BROKEN, seen.broken)
    for difference in differences:
        return told(BROKEN, f"{difference.what}: {difference.where}: {difference.why}")
    if row.within_s is not None and seen.recovered_s is not None and seen.recovered_s > row.within_s:
        return told(BROKEN, f"back at work after {seen.recovered_s:.1f} s; {row.within_s:g} s are promised")
    if row.scope != ARCHIVE:
        lost = during.lost + during.unknown_losses
        if LOST not in row.allows and lost > 0:
            return told(BROKEN, f"{lost} losses were declared; nothing may be lost")
        if QUARANTINED not in row.allows and during.quarantined > 0:
            return told(BROKEN, f"{during.quarantined} units went into quarantine")
    if row.scope == ALL:
        if UNREAD not in row.allows and during.unread > 0:
            return told(BROKEN, f"{during.unread} sent events were never read")
        if not row.allows and during.explained > 0:
            return told(BROKEN, f"{during.explained} sent events lie in gaps or losses; nothing may be missing")
    return told(KEPT, seen.note)


def only_tested(row: Row) -> Verdict:
    """Of a row that no drill strikes."""
    return Verdict(row.id, row.promise, TEST_ONLY, row.test_only, row.within_s)
