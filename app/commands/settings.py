"""How every subcommand gets its settings: read once, warnings to stderr, all faults at once."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from app.config import Loaded, load
from app.logs import configure
from app.wiring import Wiring


def loaded() -> Loaded:
    """The settings of this process. Raises: SettingsError."""
    found = load()
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    configure(os.environ.get("COLLECTOR_LOG_LEVEL") or found.settings.collector.log_level)
    return found


def wired(step: Callable[[str], None] = lambda name: None) -> Wiring:
    """The wiring of this process; `step` hears of each step of a flush or archive. Raises: SettingsError."""
    found = loaded()
    return Wiring(found.settings, file=found.file, step=step)
