"""How every subcommand gets its settings: read once, warnings to stderr, all faults at once."""

from __future__ import annotations

from collections.abc import Callable

import click

from app import liveness
from app.config import Loaded, load
from app.logs import configure
from app.wiring import Wiring


def loaded(process: str | None = None) -> Loaded:
    """The settings of this process, and its log: with a file where its type is named. Raises: SettingsError."""
    found = load()
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    log = configure(settings=found.settings, process=process)
    if process:
        liveness.begin(process, lambda: {"log_lines_dropped": log.dropped})
    return found


def wired(process: str | None = None, step: Callable[[str], None] = lambda name: None) -> Wiring:
    """The wiring of this process; `process` as above, `step` hears of a flush or archive. Raises: SettingsError."""
    found = loaded(process)
    return Wiring(found.settings, file=found.file, step=step)
