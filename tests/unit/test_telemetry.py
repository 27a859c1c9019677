"""docs/logs.md names every event that the application logs, with its level and fields, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LEVELS = ("info", "warning", "error", "critical")
#: Sentences that many lines end with; docs/logs.md explains them once.
SENTENCES = {"then", "remedy"}


class Logged(NamedTuple):
    """How an event is logged; `more`: with fields that are not named in the call."""

    level: str
    fields: frozenset[str]
    more: bool


def text(node: ast.expr | None) -> str:
    assert isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value


def call(node: ast.Call) -> tuple[str, Logged] | None:
    name = ast.unparse(node.func)
    constant = node.args and isinstance(node.args[0], ast.Constant)
    if not constant or not name.endswith(("_seldom", *(f"log.{level}" for level in LEVELS))):
        return None
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    level = name.rpartition(".")[2]
    if level not in LEVELS:
        level = "warning"
        if "level" in given:
            words = {
                text(part)
                for part in ast.walk(given["level"])
                if isinstance(part, ast.Constant) and part.value in LEVELS
            }
            level = " or ".join(sorted(words))
    fields = frozenset(word for word in given if word) - {"level", "quiet_s", "exc_info"} - SENTENCES
    if "exc_info" in given:
        fields |= {"exception"}
    return text(node.args[0]), Logged(level, fields, None in given)


def logged() -> dict[str, Logged]:
    """Every event of the code: calls of telemetry's logger, and lines that are written past it."""
    found: dict[str, Logged] = {}
    for path in (*ROOT.glob("app/telemetry*.py"), ROOT / "app" / "logs.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict) and "event" in (keys := [ast.literal_eval(key) for key in node.keys if key]):
                values = dict(zip(keys, node.values, strict=True))
                fields = frozenset(keys) - {"event", "level", "timestamp"} - SENTENCES
                found[text(values["event"])] = Logged(text(values["level"]), fields, True)
            elif isinstance(node, ast.Call) and (answer := call(node)):
                event, one = answer
                before = found.get(event, one)
                found[event] = Logged(one.level, one.fields | before.fields, one.more or before.more)
    return found


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(
        r"(?m)^\| `([a-z_]+\.[a-z_]+)` \| (\w+(?: or \w+)?) \| (.*?) ?\|.*\|$",
        (ROOT / "docs" / "logs.md").read_text(encoding="utf-8"),
    )
    names = [row[0] for row in rows]
    assert len(names) == len(set(names)), "an event stands in the table twice"
    return {event: (level, frozenset(re.findall(r"`(\w+)`", fields))) for event, level, fields in rows}


def test_every_event_is_documented_and_nothing_else() -> None:
    assert sorted(documented()) == sorted(logged())


def test_levels_and_fields_are_those_of_the_code() -> None:
    told = documented()
    assert {event: told[event][0] for event in told} == {event: one.level for event, one in logged().items()}
    for event, one in logged().items():
        fields = told[event][1]
        assert fields >= one.fields, event
        assert one.more or fields == one.fields, event


def test_an_event_is_a_noun_and_what_happened_to_it() -> None:
    assert [event for event in logged() if not re.fullmatch(r"[a-z_]+\.[a-z_]+", event)] == []


def test_only_telemetry_and_the_log_itself_log() -> None:
    allowed = {*ROOT.glob("app/telemetry*.py"), ROOT / "app" / "logs.py", ROOT / "app" / "event_log.py"}
    a_line = re.compile(r"getLogger\([^)]|get_logger|logging\.(debug|info|warning|error|critical|exception|log)\(")
    others = [
        path.relative_to(ROOT).as_posix()
        for path in (*(ROOT / "app").rglob("*.py"), *(ROOT / "tasks").rglob("*.py"))
        if path not in allowed and a_line.search(path.read_text(encoding="utf-8"))
    ]
    assert others == []
