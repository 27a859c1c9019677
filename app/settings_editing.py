"""Markets added to and removed from the text of a settings file; everything else in it stays as it is, byte for byte.

The text is cut into its tables, and only the tables of the markets concerned are rewritten, by tomlkit, which keeps their
layout and comments. Pure: text in, text out. Whether the result is right is for settings_file to see.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable

import tomlkit
from tomlkit.items import Array

from app.config import Settings
from app.errors import SettingsError
from app.model import FEEDS, Market

#: Words of a user for data types.
WORDS = {data_type: word for word, data_type in FEEDS.items()}
#: A market and one of its data types: what is recorded.
Feed = tuple[Market, str]


def recorded(settings: Settings) -> set[Feed]:
    """Every feed that these settings record."""
    return {(Market(g.exchange, s), feed) for g in settings.markets for s in g.symbols for feed in g.feeds}


def default_feeds(settings: Settings) -> tuple[str, ...]:
    """Data types of a market whose group names no feeds."""
    return tuple(FEEDS[word] for word in settings.collector.feeds)


def added(text: str, settings: Settings, exchange: str, symbols: Collection[str], feeds: Collection[str]) -> str:
    """`text`, whose settings are `settings`, with canonical `symbols` that it does not have yet.

    They join the first group of the exchange that has these `feeds` (data types), and neither address nor timeout of its
    own; where there is none, a new group comes after the last one. Raises: SettingsError.
    """
    parts = _tables(text)
    where = _groups(parts, settings)
    for number, group in zip(where, settings.markets, strict=True):
        plain = group.base_url is None and group.data_timeout_secs is None
        if plain and group.exchange == exchange and set(group.feeds) == set(feeds):
            parts[number] = _extended(parts[number], symbols)
            return "".join(parts)
    own = None if set(feeds) == set(default_feeds(settings)) else feeds
    parts[where[-1]] = _with_group(parts[where[-1]], exchange, symbols, own)
    return "".join(parts)


def removed(text: str, settings: Settings, exchange: str, gone: Callable[[str], bool]) -> str:
    """`text`, whose settings are `settings`, without the symbols of the exchange, as written there, that are `gone`.

    A comment behind such a symbol goes with it. A group without symbols goes too; comments with a line of their own stay.
    Raises: SettingsError.
    """
    parts = _tables(text)
    for number, group in zip(_groups(parts, settings), settings.markets, strict=True):
        if group.exchange == exchange:
            left = [symbol for symbol in _symbols(parts[number]) if not gone(symbol)]
            parts[number] = _reduced(parts[number], left) if left else _comments(parts[number])
            if not parts[number]:  # nor is there anything to keep apart from what came before
                parts[number - 1] = re.sub(r"(?<=\n)\r?\n\Z", "", parts[number - 1])
    return "".join(parts)


def _tables(text: str) -> list[str]:
    """`text`, cut before the header of each table; what precedes the first header comes first, and may be empty.

    A `[` that opens a line inside a list or a long text is no header: what precedes it is no TOML by itself.
    """
    found = [""]
    for line in _lines(text):
        if line.lstrip().startswith("[") and _is_toml(found[-1]):
            found.append(line)
        else:
            found[-1] += line
    return found


def _groups(parts: Iterable[str], settings: Settings) -> list[int]:
    """Which of the tables are [[markets]], in the order of the groups of `settings`. Raises: SettingsError."""
    found = []
    for number, part in enumerate(parts):
        if part.lstrip().startswith("["):
            ((name, table),) = tomllib.loads(part).items()
            if name.lower() == "markets" and isinstance(table, list):
                found.append(number)
    if len(found) != len(settings.markets):
        raise SettingsError(
            f"the file has {len(found)} tables [[markets]], the settings in effect have {len(settings.markets)} groups;"
            " write every group as a table [[markets]], or edit the file by hand"
        )
    return found


def _with_group(part: str, exchange: str, symbols: Collection[str], feeds: Collection[str] | None) -> str:
    """The table `part` and a new [[markets]] behind it, before the comments that introduce what follows."""
    end = "\r\n" if "\r\n" in part else "\n"
    lines = _lines(part)
    last = max(number for number, line in enumerate(lines) if not _is_comment(line)) + 1
    if not lines[last - 1].endswith("\n"):
        lines[last - 1] += end
    group = ["", "[[markets]]", f"exchange = {json.dumps(exchange)}", f"symbols = {json.dumps(list(symbols))}"]
    if feeds is not None:
        group.append(f"feeds = {json.dumps([WORDS[feed] for feed in feeds])}")
    return "".join([*lines[:last], *(line + end for line in group), *lines[last:]])


def _extended(part: str, symbols: Collection[str]) -> str:
    wanted = [*_symbols(part), *symbols]

    def in_lines(listed: Array) -> None:
        for symbol in symbols:
            listed.add_line(symbol)

    # tomlkit 0.15 forgets the comma behind a last symbol that a comment on a line of its own follows.
    return _rewritten(part, wanted, lambda listed: listed.extend(symbols), in_lines)


def _reduced(part: str, wanted: list[str]) -> str:
    def remove(listed: Array) -> None:
        for symbol in [symbol for symbol in listed if symbol not in wanted]:
            listed.remove(symbol)

    return _rewritten(part, wanted, remove)


def _rewritten(part: str, wanted: list[str], *ways: Callable[[Array], None]) -> str:
    """The [[markets]] table with the `wanted` symbols, by the first of the `ways` that comes to it. Raises: SettingsError."""
    for way in ways:
        document = tomlkit.parse(part)
        ((group,),) = document.values()
        way(group["symbols"])
        text = tomlkit.dumps(document)
        if _is_toml(text) and _symbols(text) == wanted:
            return re.sub(r"\r?\n", "\r\n", text) if "\r\n" in part else text
    raise SettingsError(f"this table cannot be changed; edit the file by hand: {part.strip()}")


def _symbols(part: str) -> list[str]:
    """As they are written in a [[markets]] table."""
    ((group,),) = tomllib.loads(part).values()
    return list(group["symbols"])


def _comments(part: str) -> str:
    """What is left of a table that goes: lines without a key, but for the empty ones that came first."""
    left = "".join(line for line in _lines(part) if _is_comment(line))
    return re.sub(r"\A(?:[ \t]*\r?\n)+", "", left)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
