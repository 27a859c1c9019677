"""What is struck when: rows that do not disturb each other at once, the others one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.drill import archive, processes, redis, venues
from app.drill.installation import Installation
from app.drill.verdict import Seen

Strike = Callable[[Installation], Seen]


@dataclass(frozen=True)
class Step:
    """One strike, and the rows whose promise it puts to the test."""

    rows: tuple[str, ...]
    strike: Strike


@dataclass(frozen=True)
class Round:
    """Lanes that go on at the same time, each its steps in turn; then everything sent is accounted for."""

    lanes: tuple[tuple[Step, ...], ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for lane in self.lanes for step in lane)


def _lane(**strikes: Strike) -> tuple[Step, ...]:
    return tuple(Step(tuple(rows.split("_")), strike) for rows, strike in strikes.items())


#: Goes on beside the rounds of FIRST: it ends with an account of its own.
ARCHIVE = _lane(
    K4=archive.killed_at(archive.writing),
    K5=archive.killed_at(archive.written),
    K6=archive.killed_at(archive.uploading),
    K7=archive.killed_at(archive.uploaded),
    K8=archive.killed_at(archive.removing),
    C2=archive.longer_than_its_interval,
    C1=processes.two_beats,
    S10=archive.key_taken,
    S9=archive.store_away,
)
FIRST = (
    Round((
        _lane(X1=venues.closed, X9=venues.lost_frame),
        _lane(X4=venues.unknown_symbol, X2=venues.half_open),
        _lane(X3=venues.silent),
        _lane(X5=venues.garbage, X10=venues.renamed, X8=venues.repeats, X6=venues.oversized, X12=venues.burst),
        _lane(X7=venues.endless_handshake, X11=venues.told_to_stay_away),
    )),
    Round((_lane(K1=processes.stream_killed),)),
    Round((_lane(K9=processes.stream_stopped),)),
    Round((_lane(C3_C4=processes.slept_past_its_lease),)),
    Round((
        _lane(O1=processes.onlookers_killed, C6=processes.poisoned, D1=processes.database_locked,
              K2=processes.flush_killed_before_commit),
    )),
    Round((_lane(K3=processes.flush_killed_before_acknowledgement, C5=processes.without_beat),)),
)  # fmt: skip
#: Redis is everybody's.
SECOND = tuple(
    Round((_lane(**{row: strike}),))
    for row, strike in {
        "R1": redis.killed, "R3": redis.away, "R4": redis.full, "R6": redis.links_cut, "R2": redis.forgotten,
        "R5": redis.emptied,
    }.items()
)  # fmt: skip


def chosen(round_: Round, rows: Collection[str]) -> Round:
    """The round with the steps of these rows alone."""
    lanes = (tuple(step for step in lane if set(step.rows) & set(rows)) for lane in round_.lanes)
    return Round(tuple(lane for lane in lanes if lane))
