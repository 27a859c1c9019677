"""One value at a time: conversion to its type, its own rules, and the sentence that says what is wrong with it.

Nothing is repaired silently: a value of the wrong type is a fault even where Python would take it: true is no number,
and "5" in a file is none either.
"""

from __future__ import annotations

import difflib
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from app.settings_rules import complaint, shown
from app.settings_sources import Sources


class Reading:
    """One reading of the tree: collects faults, and the origin of every key that was given and right.

    Methods take a `key` (`exchanges.okx.proxy`, for the person) and a `rule` (`exchanges.proxy`, for settings_rules).
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.faults: list[str] = list(sources.faults)
        #: Keys that have a fault: they take part in no further rule, so that one slip gives one sentence.
        self.faulty: set[str] = set()
        self.origins: dict[str, str] = {}
        #: Known once [security] is read, before everything else.
        self.private_hosts: tuple[str, ...] = ()

    def fault(self, key: str, rule: str, value: object, why: str) -> None:
        """Add the sentence `key = value (origin) why`, with secrets as stars."""
        origin = self.origins.get(key) or self.sources.origin(key)
        self.faults.append(f"{key} = {_as_written(rule, value)} ({origin}) {why}")
        self.faulty.add(key)

    def table(self, key: str, value: object, known: Iterable[str]) -> dict[str, Any]:
        """`value` as a table of `known` keys; other keys are faults and left out.

        The value of an unknown key is not told: it may be a secret whose name is misspelt.
        """
        known = tuple(known)
        if not isinstance(value, dict):
            self.faults.append(
                f"{key} ({self.sources.origin(key)}) is no table; write [{key}] and its keys in lines below"
            )
            return {}
        for name in sorted(set(value) - set(known)):
            unknown = f"{key}.{name}"
            self.faults.append(f"{unknown} ({self.sources.origin(unknown)}) is no setting; {meant(name, known)}")
        return {name: value[name] for name in known if name in value}

    def record(self, cls: type, key: str, rule: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of dataclass `cls` that are given and right."""
        hints, answer = get_type_hints(cls), {}
        for name, value in given.items():
            converted = self.value(f"{key}.{name}", f"{rule}.{name}", hints[name], value)
            if converted is not MISSING:
                answer[name] = converted
                self.origins[f"{key}.{name}"] = self.sources.origin(f"{key}.{name}")
        return answer

    def value(self, key: str, rule: str, hint: Any, value: object) -> Any:
        """`value` converted to the type `hint`; MISSING after a fault."""
        try:
            converted = convert(hint, value, self.sources.texts.get(key))
        except ValueError as error:
            self.fault(key, rule, value, str(error))
            return MISSING
        why = complaint(rule, converted, self.private_hosts)
        if why is not None:
            self.fault(key, rule, converted, why)
            return MISSING
        return converted


def names(cls: type) -> tuple[str, ...]:
    """The keys a dataclass of the settings has."""
    return tuple(f.name for f in fields(cls))


def meant(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest of `known`, else all of them."""
    known = tuple(known)
    near = difflib.get_close_matches(name.lower(), known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"


def convert(hint: Any, value: object, text: str | None = None) -> Any:
    """`value` as the type `hint`. `text`: the environment's own spelling, which is what a text setting gets.

    Raises: ValueError with the end of a sentence.
    """
    if isinstance(hint, types.UnionType):  # None is said by leaving the key out
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    if hint in (str, Path):
        return hint(_text(hint, value if isinstance(value, str) else text))
    if hint is int:
        if type(value) is not int:
            raise ValueError("is no whole number; write digits only, without quotes")
        return value
    if hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError("is no number; write it without quotes")
        return value
    if isinstance(value, str) and text is not None:
        value = [word.strip() for word in value.split(",")]
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise ValueError('is no list of texts; write ["first", "second"]')
    return tuple(value)


def _text(hint: Any, value: str | None) -> str:
    if value is None:
        raise ValueError("is no text; put it into quotes")
    if not value.strip() or "\0" in value:
        raise ValueError("is empty; give a value or leave the key out")
    if hint is Path and value.startswith("~"):
        raise ValueError("begins with '~', which only a shell knows; write the whole path")
    return value


def _as_written(rule: str, value: object) -> str:
    """`value` as one writes it in TOML, so that 5 and "5" look different."""
    if isinstance(value, str | Path):
        return json.dumps(shown(rule, str(value)), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=str)
