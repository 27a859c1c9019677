"""docs/cli.md is the contract: every command and option stands in it, and every `--json` answer has the shape it says.

One small installation for all: a few seconds of two built-in exchanges, archived, with a gap, a loss and a quarantined frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from app.cli import collector
from app.clock import wall_us
from app.codec import BatchCodec
from app.drill.run import Report
from app.drill.soak import Point, Soaked
from app.drill.verdict import KEPT, Figures, Verdict
from app.model import EpochEnd, Gap, Loss, Range
from app.quality.balance import Difference
from tests.integration.test_commands import call
from tests.support.batches import batch, event, undecoded
from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, finish, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, Rig

CLI_MD = (CHECKOUT / "docs" / "cli.md").read_text(encoding="utf-8")
EPOCH = "1c" * 16

#: A word of a shape, and what fits it.
KINDS: dict[str, Any] = {
    "text": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "any": lambda v: True,
}


def shapes() -> dict[str, list[Any]]:
    """Heading of docs/cli.md (`collector verify --json`) -> the shapes below it; one of them fits."""
    found = {}
    for heading, body in re.findall(r"(?ms)^## `(collector [\w -]+?)`$(.*?)(?=^## |\Z)", CLI_MD):
        found[heading] = [json.loads(block) for block in re.findall(r"(?s)```json\n(.*?)```", body)]
    return found


def misfits(shape: Any, value: Any, where: str = "") -> list[str]:
    """Where `value` is not of this shape: a key too much or too few, or of another type."""
    if isinstance(shape, str):
        fits = any(KINDS[word](value) for word in shape.split("|"))
        return [] if fits else [f"{where}: {value!r} is no {shape}"]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [fault for place, one in enumerate(value) for fault in misfits(shape[0], one, f"{where}[{place}]")]
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    if "*" in shape:
        return [fault for key, one in value.items() for fault in misfits(shape["*"], one, f"{where}.{key}")]
    known = {key.removesuffix("|null").removesuffix("?"): key for key in shape}
    faults = [f"{where}.{key} is not in docs/cli.md" for key in value.keys() - known.keys()]
    for name, key in known.items():
        if name not in value:
            faults += [] if "?" in key else [f"{where}.{name} is in docs/cli.md and not in the answer"]
        elif not (key.endswith("|null") and value[name] is None):
            faults += misfits(shape[key], value[name], f"{where}.{name}")
    return faults


def as_told(heading: str, answer: Any) -> None:
    """Fails where the answer has none of the shapes of `heading`."""
    found = [misfits(shape, answer) for shape in shapes()[heading]]
    assert found and [] in found, (heading, min(found, key=len), answer)


def test_a_shape_tells_a_key_too_much_one_too_few_and_another_type() -> None:
    shape = {"a": "integer", "b?": "text|null", "c|null": [{"*": "number"}]}
    assert misfits(shape, {"a": 1, "c": None}) == misfits(shape, {"a": 1, "b": None, "c": [{"x": 0.5}]}) == []
    assert misfits(shape, {"c": [{"x": True}], "d": 1}) == [
        ".d is not in docs/cli.md", ".a is in docs/cli.md and not in the answer", ".c[0].x: True is no number",
    ]  # fmt: skip
    assert misfits(shape, {"a": True, "c": {}}) == [".a: True is no integer", ".c: {} is no list"]


# every command and option


def commands(command: click.Command, name: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """(name, command) of every command that can be called, in the order of `--help`."""
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from commands(found, f"{name} {below}", context)
    else:
        yield name, command


def listed() -> list[str]:
    """The rows that the table of docs/cli.md must have."""
    rows = []
    for name, command in commands(collector, "collector", click.Context(collector)):
        arguments = " ".join(
            p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)
        )
        arguments = arguments.replace("|", r"\|")
        rows.append(f"| `{f'{name} {arguments}'.strip()}` | {command.get_short_help_str(300)} |")
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts[0]} does not say what it is for"
                rows.append(f"| {' '.join(f'`{word}`' for word in option.opts)} | {option.help} |")
    return rows


def test_every_command_and_option_is_in_the_table_with_the_words_of_its_help() -> None:
    table = re.search(r"(?s)^## Commands and options$.*?\| --- \| --- \|\n(.*?)\n\n", CLI_MD, re.MULTILINE)
    assert table is not None
    found, wanted = table[1].splitlines(), listed()
    assert [row for row in wanted if row not in found] == [], "put these into the table"
    assert [row for row in found if row not in wanted] == [], "take these out of it"
    assert found == wanted, "the order is that of --help"


def test_every_command_with_json_has_a_shape_and_no_other_section_has_one() -> None:
    with_json = {
        f"{name} --json"
        for name, command in commands(collector, "collector", click.Context(collector))
        if any("--json" in option.opts for option in command.params)
    }
    always = {"collector flush", "collector archive", "collector demo"}
    assert {heading for heading, found in shapes().items() if found} == with_json | always


# what they answer


@pytest.fixture(scope="module")
def installation(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """`rig` after two venues were recorded; `server`; and the answers that had to be asked for on the way."""
    rig = Rig(tmp_path_factory.mktemp("contract"), redis_server.url)
    server = ExchangeProcess(rig.directory / "exchanges", rate=20)
    answers: dict[str, Any] = {}

    def ask(*arguments: str) -> Any:
        return json.loads(call(rig, *arguments).stdout.splitlines()[-1])

    try:
        rig.write({"binance": ["btcusdt"], "okx": ["BTC-USDT"]}, server.venues)
        wiring = rig.wiring()
        with Collecting(wiring) as collecting:
            until(collecting.live, "every feed is live", 60)
            wiring.board.join("stream-1@a", WORKER, 60)
            wiring.board.trouble("flush", {"level": "warning", "detail": "disk: 83 %", "since_us": wall_us()}, 60)
            answers["status"] = ask("status", "--json")
            answers["list"] = ask("markets", "list", "--json")
            wiring.board.leave("stream-1@a")
        server.halt()
        assert wiring.buffer.push("binance-0-orderbook.trade", BatchCodec().encode(broken()))
        answers["gaps"] = ask("gaps", "--json")
        answers["flush"] = ask("flush")
        answers["dry"] = ask("repair", "--dry-run", "--json")
        answers["flush --final"] = ask("flush", "--final")
        answers["archive"] = ask("archive")
        finish(wiring)
        answers["archive --final"] = ask("archive", "--final")
        yield {"rig": rig, "server": server, "ask": ask, **answers}
    finally:
        server.stop()


WORKER = {"process": "a:1", "streams": [], "threads": 8, "since_us": 1, "up_s": 9.0, "failing": False}


def broken() -> Any:
    """A batch with everything that can be amiss."""
    now_us = wall_us()
    events = [event(1, "1", received_us=now_us - 9), event(2, "9", received_us=now_us - 8)]
    gap = Gap("btcusdt", "trade", 2, "2", "8", 7, now_us - 9, now_us - 8, "missing_ids")
    loss = Loss("btcusdt", "trade", 3, 3, 1, now_us - 8, now_us - 7, "queue_full")
    last = (Range("btcusdt", "trade", 1, 3), Range("?", "?", 1, 1))
    end = EpochEnd(now_us, "stop", last)
    return batch(1, [*events, undecoded(1)], epoch=EPOCH, losses=[loss], gaps=[gap], end=end)


def test_what_runs_and_what_waits_is_told_as_documented(installation: dict[str, Any]) -> None:
    status = installation["status"]
    as_told("collector status --json", status)
    assert status["feeds"] and status["streams"] and status["workers"] and status["troubles"], "nothing is left out"
    as_told("collector markets list --json", installation["list"])
    as_told("collector gaps --json", installation["gaps"])
    assert [gap["from_id"] for gap in installation["gaps"]["gaps"]] == ["2"]
    as_told("collector exchange-server --json", installation["server"]._told)


def test_flush_and_archive_tell_what_they_did_as_documented(installation: dict[str, Any]) -> None:
    for name in ("flush", "flush --final", "archive", "archive --final"):
        as_told(f"collector {name.split()[0]}", installation[name])
    held = installation["rig"].wiring().lease("lock:flush", 30)
    assert held.acquire()
    skipped = [installation["ask"]("flush", *more) for more in ((), ("--final",))]
    held.release()
    for answer in skipped:
        assert answer["skipped"]
        as_told("collector flush", answer)


def test_what_is_stored_is_told_as_documented(installation: dict[str, Any]) -> None:
    ask, rig, server = (installation[name] for name in ("ask", "rig", "server"))
    audit = ask("audit", "--deep", "--sent", str(server.sent_file), "--json")
    as_told("collector audit --json", audit)
    assert audit["feeds"] and audit["differences"] and audit["deep"] and audit["sent"]
    as_told("collector audit --json", ask("audit", "--json"))
    as_told("collector verify --json", ask("verify", "--json"))
    as_told("collector repair-ledger --json", ask("repair-ledger", "--dry-run", "--json"))
    (path, *_) = sorted(rig.settings.storage.local_path.rglob("binance/btcusdt/trade/**/*.parquet"))
    hour = f"{datetime.fromtimestamp(int(path.stem) / 1000, UTC):%Y-%m-%dT%H}"
    certificate = ask("certificate", "--market", "binance/btcusdt", "--hour", hour, "--json")
    as_told("collector certificate --json", certificate)
    assert certificate["objects"]
    moved = path.with_suffix(".away")
    path.rename(moved)
    faulty = ask("verify", "--json")
    moved.rename(path)
    as_told("collector verify --json", faulty)
    assert faulty["faults"]


def test_settings_markets_and_repairs_are_told_as_documented(installation: dict[str, Any]) -> None:
    ask, rig = installation["ask"], installation["rig"]
    as_told("collector check --json", ask("check", "--online", "--json"))
    as_told("collector markets add --json", ask("markets", "add", "okx", "ETH-USDT", "--json"))
    as_told("collector markets remove --json", ask("markets", "remove", "okx", "ETH-USDT", "--json"))
    as_told("collector repair --json", installation["dry"])
    assert installation["dry"]["missing"]
    as_told("collector repair --json", ask("repair", "--market", "okx/BTC-USDT", "--json"))
    held = rig.wiring().lease("lock:repair", 30)
    assert held.acquire()
    skipped = ask("repair", "--json")
    held.release()
    as_told("collector repair --json", skipped)


def test_drill_and_soak_tell_as_documented() -> None:
    """Their answers are made of these; test_drill.py and test_soak.py run them."""
    figures, differs = Figures(sent=1), [Difference("event 1", "binance/btcusdt trade", "nowhere")]
    verdicts = [Verdict("K1", "p", KEPT, "seen", 30, 1.23, figures), Verdict("K9", "p", "test only", "needs root")]
    drill: Any = json.loads(json.dumps(Report(verdicts, figures, 1, differs, 2.0).as_dict()))
    as_told("collector drill --json", drill)
    points = [Point(0.1, 1, None, 0, {"stream": 50}), Point(5.0, 9, 0.4, 3, {"stream": 51})]
    soak = Soaked(1, 60.0, [(15.0, "Binance cut")], points, figures, 1, differs)
    as_told("collector soak --json", json.loads(json.dumps(soak.as_dict())))
