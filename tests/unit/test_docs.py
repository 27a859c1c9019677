"""docs/settings.md and settings.toml say what the dataclasses of app/config.py say."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from app.config import SECTIONS, ExchangeSettings, MarketGroup
from app.exchanges import EXCHANGES
from app.settings_sources import OLDER_NAMES

ROOT = Path(__file__).parents[2]
SETTINGS_MD = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
SETTINGS_TOML = (ROOT / "settings.toml").read_text(encoding="utf-8")

#: Unit that the end of a key promises.
UNITS = {"_secs": "s", "_ms": "ms", "_days": "days", "_bytes": "bytes", "_events": "events"}


def documented() -> dict[str, list[tuple[str, str, str]]]:
    """Section -> (key, default, unit) of the rows of docs/settings.md."""
    tables = {}
    for heading, body in re.findall(r"(?ms)^## \[+([\w.]+)\]+$(.*?)(?=^## |\Z)", SETTINGS_MD):
        tables[heading] = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*?) ?\| \S.* \|$", body)
    return tables


def defaults(cls: type) -> dict[str, Any]:
    """Key -> default as a value of TOML; None and no default at all are told in words."""
    plain = {f.name: f.default for f in fields(cls)}
    return {
        name: list(d) if isinstance(d, tuple) else str(d) if isinstance(d, Path) else d for name, d in plain.items()
    }


def value(cell: str) -> Any:
    return None if cell == "none" else tomllib.loads(f"v = {cell.strip('`')}")["v"]


def test_every_key_is_documented_in_order_with_its_default() -> None:
    tables = documented()
    assert {name: {key: value(cell) for key, cell, _ in tables[name]} for name in SECTIONS} == {
        name: defaults(cls) for name, cls in SECTIONS.items()
    }
    assert {name: [key for key, _, _ in tables[name]] for name in SECTIONS} == {
        name: list(defaults(cls)) for name, cls in SECTIONS.items()
    }


def test_the_tables_of_exchanges_and_markets_have_every_key() -> None:
    tables = documented()
    assert list(tables) == [*SECTIONS, "exchanges.NAME", "markets"]
    assert [key for key, _, _ in tables["exchanges.NAME"]] == list(defaults(ExchangeSettings))
    assert [key for key, _, _ in tables["markets"]] == list(defaults(MarketGroup))
    optional = {key for key, cell, _ in tables["markets"] + tables["exchanges.NAME"] if cell == "none"}
    known = {**defaults(MarketGroup), **defaults(ExchangeSettings)}
    assert optional - {"proxy"} == {key for key, default in known.items() if default is None}
    assert known["proxy"] is MISSING


def test_the_unit_is_the_one_that_the_name_promises() -> None:
    rows = [row for table in documented().values() for row in table]
    named = {key: unit for key, _, unit in rows for end in UNITS if key.endswith(end)}
    assert named == {key: UNITS[end] for key, _, _ in rows for end in UNITS if key.endswith(end)}


def test_the_commented_lines_of_settings_toml_show_the_defaults() -> None:
    examples = {("aws", "bucket"), ("aws", "home_server_name"), ("aws", "endpoint_url"), ("web", "token")}
    examples |= {("security", "private_hosts")}
    shown = tomllib.loads(re.sub(r"(?m)^# (?=[a-z_]+ = )", "", SETTINGS_TOML))
    expected = {
        (name, key): default for name, cls in SECTIONS.items() for key, default in defaults(cls).items()
        if key not in ("access_key", "secret_key")
    }  # fmt: skip
    assert {(name, key): v for name in SECTIONS for key, v in shown[name].items()}.keys() == expected.keys()
    different = {pair for pair, default in expected.items() if shown[pair[0]][pair[1]] != default}
    assert different == examples | {("collector", "feeds")}


def test_exchanges_and_older_names_are_listed() -> None:
    assert [name for name in EXCHANGES if f"`{name}`" not in SETTINGS_MD] == []
    assert [name for name in OLDER_NAMES if f"`{name}`" not in SETTINGS_MD] == []
