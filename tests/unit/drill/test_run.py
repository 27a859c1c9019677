"""The drill over a played installation: what becomes of strikes, accounts and faults, and the exit code."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import app.drill.run as running
from app.cli import collector
from app.drill.installation import Account, Broken
from app.drill.plan import Round, Step
from app.drill.run import Drill, line, table
from app.drill.verdict import Figures, Seen
from app.errors import CollectorError
from app.objects.manifest import Manifest  # noqa: F401 - the audit's report knows it
from app.pipeline.audit import Audit
from app.pipeline.verify import VerifyReport
from app.quality.balance import Difference

LOST = Difference("event 7", "binance/btcusdt trade", "1 events from here on were sent and are nowhere")


class Played:
    """An installation that is not there. Each account has ten events more; `differences` from the n-th account on."""

    differences: dict[int, Difference] = {}  # noqa: RUF012
    ended = ""

    def __init__(self, directory: Path | str = ".", *_: Any, **__: Any) -> None:
        self.directory = Path(directory)
        self.abort = threading.Event()
        self.said: list[str] = []
        self.accounts = 0

    def start(self) -> None:
        self.said.append("start")

    def settle(self) -> None:
        self.said.append("settle")

    def control(self, word: str, body: str = "", method: str = "POST") -> dict[str, Any]:
        return {}

    def account(self) -> Account:
        self.accounts += 1
        found = Audit(deep=VerifyReport(rows=10 * self.accounts))
        found.differences = [d for n, d in self.differences.items() if n <= self.accounts]
        return Account(
            Figures(sent=10 * self.accounts, stored=10 * self.accounts), {"binance": Figures(), "okx": Figures()}, found
        )

    finish = account

    def close(self) -> None:
        self.said.append("close")


def fine(site: Any) -> Seen:
    return Seen(1.5, "well")


def plan(monkeypatch: pytest.MonkeyPatch, **strikes: Callable[[Any], Seen]) -> set[str]:
    """These rows, one after the other."""
    rounds = tuple(Round(((Step((row,), strike),),)) for row, strike in strikes.items())
    monkeypatch.setattr(running, "ARCHIVE", ())
    monkeypatch.setattr(running, "FIRST", rounds)
    monkeypatch.setattr(running, "SECOND", ())
    return set(strikes)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Played]]:
    """The command works on a played installation."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    kind = type("PlayedNow", (Played,), {"differences": {}})
    monkeypatch.setattr("app.drill.installation.Installation", kind)
    monkeypatch.setattr("app.logs.configure", lambda level: None)
    yield kind
    for number, handler in kept.items():
        signal.signal(number, handler)


def drill(*arguments: str) -> Result:
    return CliRunner().invoke(collector, ["drill", *arguments])


def test_each_row_has_what_was_sent_between_two_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = plan(monkeypatch, K2=fine, D1=fine)
    report = Drill(Played(), rows, lambda text: None).run()  # type: ignore[arg-type]
    assert [(v.row, v.outcome, v.recovered_s, v.why, v.figures) for v in report.verdicts] == [
        ("K2", "kept", 1.5, "well", Figures(10, 10)), ("D1", "kept", 1.5, "well", Figures(10, 10)),
    ]  # fmt: skip
    assert (report.kept, report.archived, report.total) == (True, 40, Figures(40, 40))
    assert "40 events sent, 40 archived and read again" in "\n".join(table(report))


def test_a_promise_that_is_not_kept_a_fault_of_ours_and_a_missing_event_each_break_their_row_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(site: Any) -> Seen:
        raise Broken("not within 90 s: it is at work again")

    def odd(site: Any) -> Seen:
        raise KeyError("stream")

    rows = plan(monkeypatch, K2=late, K3=odd, D1=fine, C5=fine)
    site = Played()
    site.differences = {4: LOST}
    report = Drill(site, rows, lambda text: None).run()  # type: ignore[arg-type]
    assert [(v.row, v.outcome, v.why) for v in report.verdicts] == [
        ("K2", "broken", "not within 90 s: it is at work again"), ("K3", "broken", "KeyError: 'stream'"),
        ("D1", "broken", f"{LOST.what}: {LOST.where}: {LOST.why}"), ("C5", "kept", "well"),
    ]  # fmt: skip
    assert not report.kept


def test_an_installation_that_does_not_come_to_work_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, site = plan(monkeypatch, K2=fine), Played()

    def start() -> None:
        raise Broken("not within 90 s: every stream is live")

    monkeypatch.setattr(site, "start", start)
    with pytest.raises(CollectorError, match="does not come to work: not within 90 s"):
        Drill(site, rows, lambda text: None).run()  # type: ignore[arg-type]


def test_all_kept_is_exit_code_0_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, played: type[Played]) -> None:
    plan(monkeypatch, K2=fine)
    result = drill("--only", "k2", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["kept"], told["broken"], told["test_only"], told["differences"]) == (1, 0, 0, [])
    assert told["rows"][0]["figures"]["sent"] == 10
    (directory,) = [text.split(": ", 1)[1] for text in result.stderr.splitlines() if text.startswith("settings, data")]
    assert not Path(directory).exists()


def test_one_broken_is_exit_code_1_and_the_directory_stays(
    monkeypatch: pytest.MonkeyPatch, played: type[Played], tmp_path: Path
) -> None:
    plan(monkeypatch, K2=fine)
    played.differences = {2: LOST}
    result = drill("--only", "K2", "--keep", str(tmp_path / "kept"))
    assert result.exit_code == 1, result.output
    assert f"K2   broken            1.5 s      10      10      0     0  {LOST.what}" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("0 kept, 1 broken")


def test_what_cannot_run_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, played: type[Played]) -> None:
    def ends(site: Any) -> Seen:
        site.ended = "the built-in exchanges ended"
        raise CollectorError(site.ended)

    plan(monkeypatch, K2=ends)
    result = drill("--only", "K2")
    assert (result.exit_code, "error: the built-in exchanges ended" in result.stderr) == (2, True)
    result = drill("--only", "K2,T2")
    assert (result.exit_code, "T2 is test only: it needs a midnight" in result.stderr) == (2, True)


def test_the_whole_list_names_what_is_only_tested_too(monkeypatch: pytest.MonkeyPatch, played: type[Played]) -> None:
    plan(monkeypatch, K2=fine)
    told = json.loads(drill("--json").stdout)
    assert {row["row"] for row in told["rows"] if row["outcome"] == "test only"} >= {"K10", "S1", "T1", "O2"}
    assert line(running.only_tested(running.BY_ID["T2"])).split()[:3] == ["T2", "test", "only"]
