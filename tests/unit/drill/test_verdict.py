"""Verdicts: what was seen and what the account says, against the promise of the row."""

from __future__ import annotations

import pytest

from app.drill.catalogue import BY_ID
from app.drill.verdict import BROKEN, KEPT, Figures, Seen, figures, judge, mine, only_tested
from app.pipeline.sent import SentReport
from app.quality.balance import Balance, Difference

FINE = Figures(sent=100, stored=98, duplicates=2)
MISSING = Difference("event 7", "binance/btcusdt trade", "1 events from here on were sent and are nowhere")


@pytest.mark.parametrize(
    ("row", "seen", "during", "outcome", "why"),
    [
        ("K2", Seen(31.0, "another flush"), FINE, KEPT, "another flush"),
        ("R1", Seen(29.9), FINE, KEPT, ""),
        ("R1", Seen(30.1), FINE, BROKEN, "back at work after 30.1 s; 30 s are promised"),
        ("R1", Seen(2.0, broken="not within 90 s: it is at work again"), FINE, BROKEN, "not within 90 s: it is at work again"),
        ("R1", Seen(2.0), Figures(sent=100, stored=90, lost=10), KEPT, ""),
        ("K2", Seen(2.0), Figures(sent=100, stored=90, lost=10), BROKEN, "10 losses were declared; nothing may be lost"),
        ("K2", Seen(2.0), Figures(unknown_losses=1), BROKEN, "1 losses were declared; nothing may be lost"),
        ("K1", Seen(2.0), Figures(unknown_losses=4, explained=9, unread=2), KEPT, ""),
        ("K9", Seen(2.0), Figures(unread=2), KEPT, ""),
        ("K9", Seen(2.0), Figures(lost=1), BROKEN, "1 losses were declared; nothing may be lost"),
        ("D1", Seen(2.0), Figures(unread=2), BROKEN, "2 sent events were never read"),
        ("D1", Seen(2.0), Figures(explained=3), BROKEN, "3 sent events lie in gaps or losses; nothing may be missing"),
        ("D1", Seen(2.0), Figures(quarantined=1), BROKEN, "1 units went into quarantine"),
        ("X5", Seen(2.0), Figures(quarantined=6), KEPT, ""),
        ("X2", Seen(28.0), Figures(quarantined=6), BROKEN, "6 units went into quarantine"),
        ("K5", Seen(2.0), Figures(lost=5, explained=9), KEPT, ""),  # of what goes on beside it
    ],
)  # fmt: skip
def test_a_promise_is_kept_or_broken_by_what_was_seen_and_counted(
    row: str, seen: Seen, during: Figures, outcome: str, why: str
) -> None:
    verdict = judge(BY_ID[row], seen, during, [])
    assert (verdict.row, verdict.outcome, verdict.why, verdict.figures) == (row, outcome, why, during)


@pytest.mark.parametrize("row", ["K1", "R2", "X1", "K5"])
def test_a_difference_of_the_audit_breaks_every_promise(row: str) -> None:
    verdict = judge(BY_ID[row], Seen(1.0), FINE, [MISSING])
    assert (verdict.outcome, verdict.why) == (BROKEN, f"{MISSING.what}: {MISSING.where}: {MISSING.why}")


def test_a_difference_tells_against_the_rows_of_its_venue_or_of_the_archive() -> None:
    venues = ["binance", "okx"]
    manifest = Difference("manifest of okx/BTC-USDT/trade/2026-11-21/1.parquet", "local", "it describes other bytes")
    nobody = Difference("duplicates", "all feeds", "3 events were sent again, and 2 counted as duplicates")
    scopes = ("all", "binance", "okx", "archive")
    assert [mine(MISSING, scope, venues) for scope in scopes] == [True, True, False, False]
    assert [mine(manifest, scope, venues) for scope in scopes] == [True, False, True, True]
    assert [mine(nobody, scope, venues) for scope in scopes] == [True, True, True, False]


def test_figures_are_summed_over_balances_and_subtracted_field_by_field() -> None:
    balances = [
        Balance("binance", "btcusdt", "trade", received=9, segments=3, archived=4, duplicates=1, lost=1),
        Balance("okx", "BTC-USDT", "trade", received=3, archived=1, quarantined=1, unknown_losses=1),
    ]
    found = figures(balances, 20, SentReport(explained=5, unread=2, refetched=3))
    assert found == Figures(20, 8, 1, 1, 1, 1, 5, 2, 3)
    assert found - Figures(10, 8, 1, 0, 0, 1, 5, 0) == Figures(10, 0, 0, 1, 1, 0, 0, 2, 3)


def test_what_is_only_tested_says_why() -> None:
    assert only_tested(BY_ID["T2"]).as_dict() == {
        "row": "T2", "promise": BY_ID["T2"].promise, "outcome": "test only", "why": "needs a midnight", "within_s": None,
        "recovered_s": None, "figures": None,
    }  # fmt: skip
