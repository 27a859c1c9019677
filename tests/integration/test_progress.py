"""Long commands on a real terminal and in a pipe: a bar on the one, nothing in the other, the same answer on both."""

from __future__ import annotations

import json
import re

import pytest

from app.codec import BatchCodec
from app.commands.progress import Progress
from app.drill.installation import Installation
from app.model import EpochEnd, Range
from tests.integration.test_commands import call
from tests.support.batches import STREAM, batch, event
from tests.support.path import finish
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig
from tests.support.terminal import run, terminal

SYMBOLS = ("aausdt", "bbusdt", "ccusdt")
#: A colour. What moves the cursor or clears the line is none.
COLOUR = re.compile(r"\033\[[\d;]*m")


def recorded(rig: Rig) -> Rig:
    """Three markets with two trades each, in the list."""
    rig.write({"binance": list(SYMBOLS)})
    for symbol in SYMBOLS:
        events = [event(n, symbol=symbol) for n in (1, 2)]
        end = EpochEnd(1_772_323_300_000_000, "stop", (Range(symbol, "trade", 1, 2),))
        element = BatchCodec().encode(batch(1, events, epoch=symbol.encode().hex().ljust(32, "0"), end=end))
        assert rig.wiring().buffer.push(STREAM, element)
    return rig


@pytest.fixture(scope="module")
def archived(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """An installation with three objects."""
    rig = recorded(Rig(tmp_path_factory.mktemp("archived"), redis_server.url))
    finish(rig.wiring())
    return rig


@pytest.mark.parametrize(
    ("arguments", "bars"),
    [
        (("verify",), {"local": "3/3"}),
        (("audit", "--deep"), {"manifests": "3/3", "objects read whole": "3/3"}),
    ],
)
def test_a_terminal_shows_how_far_it_is_and_a_pipe_only_the_answer(
    archived: Rig, arguments: tuple[str, ...], bars: dict[str, str]
) -> None:
    code, answer, screen = run(archived, *arguments, "--json", NO_COLOR="1")
    piped = call(archived, *arguments, "--json")
    assert (code, json.loads(answer)) == (piped.returncode, json.loads(piped.stdout)) and code == 0
    assert piped.stderr == ""
    for what, last in bars.items():
        drawn = [line for line in screen.split("\r") if what in line]
        assert drawn and last in drawn[-1], screen
    assert not COLOUR.search(screen)
    assert screen.endswith("\033[?25h\r\n"), "the cursor is back, and what follows begins on a line of its own"


def test_a_terminal_that_can_only_print_gets_no_bar(archived: Rig) -> None:
    assert run(archived, "verify", TERM="dumb") == (0, "3 of 3 objects verified, 6 rows, 0 faults\n", "")


def test_an_archive_on_a_terminal_counts_rows_and_in_a_pipe_logs_each_object(rig: Rig) -> None:
    recorded(rig)
    assert call(rig, "flush", "--final").returncode == 0
    code, answer, screen = run(rig, "archive")
    assert (code, json.loads(answer)["rows"]) == (0, 6)
    assert "6/6" in screen.split("\r")[-2], screen
    assert "object.verified" not in screen
    for symbol in SYMBOLS:
        element = BatchCodec().encode(batch(1, [event(9, symbol=symbol)], epoch=symbol.encode().hex().ljust(32, "1")))
        assert rig.wiring().buffer.push(STREAM, element)
    assert call(rig, "flush", "--final").returncode == 0
    piped = call(rig, "archive")
    assert (piped.returncode, json.loads(piped.stdout)["rows"]) == (0, 3)
    assert "\033" not in piped.stderr and "\r" not in piped.stderr


def test_a_line_that_is_said_stands_above_the_bar() -> None:
    with terminal() as screen, Progress() as progress:
        progress.say("starting")
        progress("drill", 0, 4, "rows")
        progress("drill", 1, 4, "rows")
        progress.say("K1 kept")
        progress("drill", 4, 4, "rows")
    assert screen.text.startswith("starting\r\n")
    before, _, after = screen.text.partition("K1 kept\r\n")
    assert before.endswith("\r\033[K") and after.startswith("drill  [") and "4/4" in after


@pytest.mark.parametrize("command", ["drill", "soak"])
def test_drill_and_soak_open_a_bar_on_a_terminal(rig: Rig, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(site: Installation) -> None:
        """It would take seconds; the bar is there before."""
        from app.errors import CollectorError

        raise CollectorError("not today")

    monkeypatch.setattr(Installation, "start", start)
    code, answer, screen = run(rig, command, "--json")
    assert (code, answer) == (2, "")
    assert "error: not today" in screen
    assert ("0/" in screen) == (command == "drill"), "a soak counts seconds once it collects"
