"""How far a long command is: a bar on stderr where that is a terminal; in a pipe, in a log, with TERM=dumb nothing at all."""

from __future__ import annotations

import logging
import os
import sys
import time
from types import TracebackType
from typing import Any, Self

import click

#: A bar is drawn at most so often.
EVERY_S = 0.1
#: To the start of the line, and what stands on it away.
_CLEAR = "\r\033[K"


class Progress:
    """One bar for each thing that is done in turn; call it with what that is, how much is done, and of how much.

    While it is open, log lines below WARNING are left out on a terminal: they say the same object by object. Colours are
    never used.
    """

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bar: Any = None
        self._what, self._drawn_s, self._began_s = "", 0.0, 0.0
        self._level: int | None = None

    def __enter__(self) -> Self:
        root = logging.getLogger()
        if self.shown:
            self._level = root.level
            root.setLevel(max(root.level, logging.WARNING))
            for handler in root.handlers:
                handler.addFilter(self._before_a_line)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        root = logging.getLogger()
        if self._level is not None:
            root.setLevel(self._level)
            for handler in root.handlers:
                handler.removeFilter(self._before_a_line)

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        """`done` of `total` `unit` (rows, objects, s) of `what`; 0: how many there are is not known."""
        if not self.shown:
            return
        now_s = time.monotonic()
        if what != self._what:
            self._end()
            self._what, self._began_s = what, now_s
            endless = iter(int, 1)  # click asks for one or the other
            self._bar = click.progressbar(
                None if total else endless, total or None, what, file=sys.stderr, show_pos=True, width=0,
                item_show_func=self._rate,
            )  # fmt: skip
            self._bar.render_progress()
        elif now_s - self._drawn_s < EVERY_S and done != total:
            return
        self._drawn_s = now_s
        self._bar.length = total or None
        self._bar.update(done - self._bar.pos, unit)

    def say(self, text: str) -> None:
        """A line of its own, on a terminal above the bar."""
        click.echo(f"{_CLEAR}{text}" if self._bar is not None else text, err=True)
        if self._bar is not None:
            click.echo(self._bar.format_progress_line(), nl=False, err=True)

    def _rate(self, unit: str | None) -> str | None:
        """Behind the time left: what is counted, and how much of it a second."""
        if unit is None or unit == "s":
            return unit
        took_s = time.monotonic() - self._began_s
        return f"{unit}, {self._bar.pos / took_s:,.0f}/s" if took_s > 0.5 else unit

    def _before_a_line(self, record: logging.LogRecord) -> bool:
        if self._bar is not None:
            click.echo(_CLEAR, nl=False, err=True)
        return True

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
        self._what = ""
