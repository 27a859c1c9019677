"""The account of a demo: what came in, what became of it, and whether the archive is what the exchanges say they sent.

The audit finds out everything; a rehearsal asks for more than balance: nothing lost, nothing quarantined, all archived.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.model import ORDERBOOK, TRADE
from app.pipeline.audit import Audit, audit
from app.wiring import Wiring


@dataclass
class Account:
    """The figures, the audit that they come from, and what is wrong in sentences."""

    figures: dict[str, Any]
    audit: Audit
    faults: list[str] = field(default_factory=list)


def account(wiring: Wiring, *sent: Path) -> Account:
    """Recount everything that `wiring` can see. Raises: as `app.pipeline.audit.audit`."""
    found = audit(wiring, deep=True, sent=sent)
    totals = found.totals()
    assert found.deep is not None
    exchanges: dict[str, dict[str, int]] = {}
    for b in found.balances:
        if b.feed in (ORDERBOOK, TRADE):
            feeds = exchanges.setdefault(b.exchange, {ORDERBOOK: 0, TRADE: 0})
            feeds[b.feed] += b.archived
    figures: dict[str, Any] = {
        "received": totals["received"],
        "stored": totals["segments"] + totals["archived"],
        **{name: totals[name] for name in ("duplicates", "replays", "quarantined", "lost")},
        "archived": found.deep.rows,
        "objects": found.deep.objects,
        "verified": found.deep.verified,
        "exchanges": dict(sorted(exchanges.items())),
    }
    faults = [f"{d.what}: {d.where}: {d.why}" for d in found.differences]
    if unfit := {n: totals[n] for n in ("quarantined", "lost", "unknown_losses") if totals[n]}:
        faults.append(f"{unfit}; a rehearsal should have none")
    if figures["archived"] != figures["stored"]:
        faults.append(f"{figures['archived']} rows archived of {figures['stored']} stored")
    if found.sent is not None and (found.sent.unread or found.sent.explained):
        faults.append(f"{found.sent.unread + found.sent.explained} sent events are not in the archive")
    faults += [
        f"{exchange} delivered no {feed}"
        for exchange, feeds in exchanges.items()
        for feed, count in feeds.items()
        if not count
    ]
    return Account(figures, found, faults)
