"""Recorded frames: read from JSON-lines files, one raw frame a line, and grouped by the topic they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from app.venues.dialect import Frame, Venue

#: Files of a recording that hold no data frames.
NO_DATA = ("control", "acks", "rest")
NO_DATA_WITHIN = ("_subscriptions", "control_text")


class Recording(msgspec.Struct):
    """One venue's recorded data frames with the names of their topics, in file order, and their symbols."""

    frames: list[tuple[str, Frame]]
    symbols: list[str]
    #: Sentences about what was left out, and why.
    notices: list[str]


def files(directory: Path, venue: str) -> list[Path]:
    """The files of `directory`/`venue` that hold data frames, by name."""
    return sorted(
        path
        for path in (directory / venue).glob("*.jsonl")
        if not path.name.startswith(NO_DATA) and not any(part in path.name for part in NO_DATA_WITHIN)
    )


def load(venue: type[Venue], paths: Iterable[Path]) -> Recording:
    """Every frame of these files that is an order book or a trade of `venue`; the rest is told in `notices`.

    Raises: OSError, UnicodeDecodeError.
    """
    recording = Recording([], [], [])
    symbols: dict[str, None] = {}
    for path in paths:
        other = unreadable = 0
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                text = line.rstrip("\r\n")
                if not text:
                    continue
                try:
                    read = venue.read(text)
                except msgspec.DecodeError:
                    unreadable += 1
                    continue
                if read is None:
                    other += 1
                    continue
                recording.frames.append(read)
                symbols.update((event.symbol, None) for event in read[1].events)
        if unreadable:
            recording.notices.append(f"{path}: {unreadable} lines are not frames of {venue.name}: skipped")
        if other:
            recording.notices.append(f"{path}: {other} frames are neither order book nor trade: skipped")
    recording.symbols = list(symbols)
    return recording
