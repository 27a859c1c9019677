"""The `collector` command. Each subcommand lives in a file of its own and is imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from app.errors import CollectorError, SettingsError

_COMMANDS = {
    "check": "app.commands.check:check",
    "run": "app.commands.run:run",
    "demo": "app.commands.demo:demo",
    "drill": "app.commands.drill:drill",
    "soak": "app.commands.soak:soak",
    "status": "app.commands.status:status",
    "markets": "app.commands.markets:markets",
    "exchange-server": "app.venues.cli:exchange_server",
    "db": "app.commands.db:db",
    "flush": "app.commands.stations:flush",
    "archive": "app.commands.stations:archive",
    "certificate": "app.commands.certificate:certificate",
    "gaps": "app.commands.gaps:gaps",
    "repair": "app.commands.repair:repair",
    "repair-ledger": "app.commands.repair_ledger:repair_ledger",
    "verify": "app.commands.verify:verify",
    "audit": "app.commands.audit:audit",
    "web": "app.commands.web:web",
    "exporter": "app.commands.exporter:exporter",
    "completion": "app.commands.completion:completion",
}


class _Lazy(click.Group):
    """Subcommands by name, imported when needed: `collector --help` does not pay for pyarrow."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, context: click.Context) -> Any:
        """Errors that the operator can act on are one message and exit code 2, never a traceback."""
        try:
            return super().invoke(context)
        except SettingsError as error:
            for fault in error.faults:
                click.echo(f"error: {fault}", err=True)
            context.exit(2)
        except CollectorError as error:
            click.echo(f"error: {error}", err=True)
            context.exit(2)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="collector")
def collector() -> None:
    """Record crypto exchanges' order books and trades, and prove the record complete.

    \b
    Try it without an exchange, an account or a cloud:   collector demo --duration 60
    See what your settings mean and what is missing:     collector check
    Record for real on this machine:                     collector run
    On several hosts, start the lines of the Procfile:   celery -A app worker, celery -A app beat, ...

    Settings come from settings.toml (or the file that CONFIG_PATH names) and from COLLECTOR_SECTION__KEY in the
    environment. Data goes to stdout, messages to stderr. Exit codes: 0 fine, 1 something was found, 2 cannot run.
    """


def main() -> None:
    """Entry point of the `collector` script."""
    collector(prog_name="collector")


if __name__ == "__main__":
    main()
