"""The drill: strike, see it recover, account for everything sent, judge; row by row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from app.clock import monotonic_s
from app.drill.catalogue import BY_ID, ROWS
from app.drill.installation import Account, Broken, Installation, new
from app.drill.plan import ARCHIVE, FIRST, SECOND, Round, Step, chosen
from app.drill.verdict import BROKEN, KEPT, TEST_ONLY, Figures, Seen, Verdict, judge, mine, only_tested
from app.errors import CollectorError
from app.quality.balance import Difference


@dataclass
class Report:
    """The verdicts in the order of the catalogue, and the account of everything at the end."""

    verdicts: list[Verdict] = field(default_factory=list)
    total: Figures = field(default_factory=Figures)
    #: Events archived, read again byte by byte.
    archived: int = 0
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def kept(self) -> bool:
        return not self.differences and all(verdict.outcome != BROKEN for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract of `collector drill` (docs/cli.md)."""
        outcomes = [verdict.outcome for verdict in self.verdicts]
        return {
            "kept": outcomes.count(KEPT),
            "broken": outcomes.count(BROKEN),
            "test_only": outcomes.count(TEST_ONLY),
            "seconds": round(self.seconds, 1),
            "rows": [verdict.as_dict() for verdict in self.verdicts],
            "total": {**asdict(self.total), "archived": self.archived},
            "differences": [asdict(difference) for difference in self.differences],
        }


class Drill:
    """One run over `rows` on an installation that is not started yet."""

    def __init__(
        self,
        site: Installation,
        rows: Collection[str],
        say: Callable[[str], None],
        judged: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._site, self._rows, self._say, self._judged = site, rows, say, judged
        self._verdicts: dict[str, Verdict] = {
            row.id: only_tested(row) for row in ROWS if row.id in rows and not row.drilled
        }
        self._account: Account

    def run(self) -> Report:
        """Everything, from the start of the processes to the last account. Raises: CollectorError."""
        began_s = monotonic_s()
        self._site.onlookers = "O1" in self._rows
        try:
            self._site.start()
            self._account = before = self._site.account()
        except Broken as error:
            raise CollectorError(f"the installation does not come to work: {error}") from error
        archive = chosen(Round((ARCHIVE,)), self._rows)
        seen: dict[Step, Seen] = {}
        faults: list[CollectorError] = []
        beside = threading.Thread(
            target=self._lane, args=(archive.steps, seen, faults), name="archive lane", daemon=True
        )
        beside.start()
        for round_ in FIRST:
            self._round(chosen(round_, self._rows), faults)
        beside.join()
        if archive.steps:
            self._judge(archive, seen, before, faults)
        for round_ in SECOND:
            self._round(chosen(round_, self._rows), faults)
        report = Report([self._verdicts[row.id] for row in ROWS if row.id in self._verdicts])
        self._say("halting the exchanges, draining, archiving, reading every object again")
        try:
            final = self._site.finish()
        except Broken as error:
            report.differences = [Difference("the end", str(self._site.directory), str(error))]
        else:
            assert final.audit.deep is not None
            report.total, report.archived = final.total, final.audit.deep.rows
            report.differences = final.audit.differences
        report.seconds = monotonic_s() - began_s
        return report

    def _round(self, round_: Round, faults: list[CollectorError]) -> None:
        """Its lanes at once, and the account."""
        if not round_.lanes:
            return
        before, seen = self._account, dict[Step, Seen]()
        try:
            self._site.settle()
        except Broken as error:
            seen = {step: Seen(broken=f"not struck: {error}") for step in round_.steps}
        else:
            threads = [
                threading.Thread(target=self._lane, args=(lane, seen, faults), daemon=True) for lane in round_.lanes
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self._site.control("faults", method="DELETE")
        self._judge(round_, seen, before, faults)

    def _lane(self, steps: Sequence[Step], seen: dict[Step, Seen], faults: list[CollectorError]) -> None:
        for step in steps:
            self._say(f"{', '.join(step.rows)}: {'; '.join(BY_ID[row].promise for row in step.rows)}")
            try:
                seen[step] = step.strike(self._site)
            except Broken as error:
                seen[step] = Seen(broken=str(error))
            except CollectorError as error:
                if self._site.abort.is_set() or self._site.ended:
                    faults.append(error)
                    return
                seen[step] = Seen(broken=str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the promise was not seen to be kept
                seen[step] = Seen(broken=f"{type(error).__name__}: {error}")

    def _judge(self, round_: Round, seen: dict[Step, Seen], before: Account, faults: list[CollectorError]) -> None:
        """The account, and with it the verdicts of these steps."""
        if faults:
            raise faults[0]
        try:
            self._account = after = self._site.account()
        except Broken as error:
            after = before
            seen = {step: Seen(broken=one.broken or str(error)) for step, one in seen.items()}
        found = new(after.audit.differences, before.audit.differences)
        for step in round_.steps:
            for row in (BY_ID[name] for name in step.rows if name in self._rows):
                against = [d for d in found if mine(d, row.scope, after.venues)]
                verdict = judge(row, seen[step], after.of(row.scope) - before.of(row.scope), against)
                self._verdicts[row.id] = verdict
                self._say(line(verdict))
                self._judged(len(self._verdicts))


def line(verdict: Verdict) -> str:
    """A verdict for people."""
    took = "" if verdict.recovered_s is None else f"{verdict.recovered_s:.1f} s"
    if took and verdict.within_s is not None:
        took += f" of {verdict.within_s:g}"
    f = verdict.figures
    counted = f"{f.sent:>7,} {f.stored:>7,} {f.duplicates:>6,} {f.lost + f.unknown_losses:>5,}" if f else f"{'':>28}"
    return f"{verdict.row:<4} {verdict.outcome:<9} {took:>13} {counted}  {verdict.why}".rstrip()


HEADER = f"{'ROW':<4} {'OUTCOME':<9} {'RECOVERED':>13} {'SENT':>7} {'STORED':>7} {'AGAIN':>6} {'LOST':>5}  WHY"


def table(report: Report) -> list[str]:
    """Every verdict, the account and the last word, as lines."""
    lines = [HEADER, *(line(verdict) for verdict in report.verdicts), ""]
    t = report.total
    lines.append(
        f"{t.sent:,} events sent, {report.archived:,} archived and read again, {t.duplicates:,} duplicates,"
        f" {t.quarantined:,} quarantined, {t.lost:,} declared lost, {t.unknown_losses:,} losses of unknown extent,"
        f" {t.explained:,} inside losses and gaps, {t.unread:,} unread at the end of broken connections,"
        f" {t.refetched:,} asked for later"
    )
    lines += [f"NOT balanced: {d.what}: {d.where}: {d.why}" for d in report.differences[:20]]
    counts = report.as_dict()
    lines.append(
        f"{counts['kept']} kept, {counts['broken']} broken, {counts['test_only']} test only; {report.seconds:.0f} s"
    )
    return lines


def listed() -> list[str]:
    """Every row with its promise, for `--list`."""
    return [
        f"{row.id:<4} drilled    {row.promise}"
        if row.drilled
        else f"{row.id:<4} {TEST_ONLY}  {row.promise} ({row.test_only})"
        for row in ROWS
    ]


def unknown(rows: Iterable[str]) -> list[str]:
    """A sentence for each that cannot be drilled."""
    found = []
    for row in rows:
        if row not in BY_ID:
            found.append(f"{row} is no row; `collector drill --list` names them")
        elif not BY_ID[row].drilled:
            found.append(f"{row} is test only: it {BY_ID[row].test_only}")
    return found
