"""`collector completion`: what a shell needs to complete commands, options, markets, exchanges and rows of the drill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from click.shell_completion import CompletionItem, get_completion_class

from app.errors import CollectorError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    For this shell:         eval "$(collector completion bash)"         (zsh the same; fish: collector completion fish | source)
    For every bash:         collector completion bash > ~/.local/share/bash-completion/completions/collector
    For every zsh:          collector completion zsh > DIRECTORY-OF-fpath/_collector
    For every fish:         collector completion fish > ~/.config/fish/completions/collector.fish

    Markets are those of the settings file that CONFIG_PATH names, as it is when the key is pressed; nothing is connected to.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "collector", "_COLLECTOR_COMPLETE").source())


def markets(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """EXCHANGE/SYMBOL of every market of the settings."""
    return _fitting(begun, (f"{exchange}/{symbol}" for exchange, symbol in _markets()))


def exchanges(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Every exchange there is."""
    from app.exchanges import EXCHANGES

    return _fitting(begun, EXCHANGES)


def symbols(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Symbols of the exchange that was named before, as they are recorded."""
    return _fitting(begun, (symbol for exchange, symbol in _markets() if exchange == context.params.get("exchange")))


def rows(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Rows that are drilled, each with its promise, after those that are written already: `K1,R` is completed to `K1,R3`."""
    from app.drill.catalogue import ROWS

    before, comma, last = begun.rpartition(",")
    written = before.upper().split(",")
    return [
        CompletionItem(f"{before}{comma}{row.id}", help=row.promise)
        for row in ROWS
        if row.drilled and row.id.startswith(last.upper()) and row.id not in written
    ]


def feeds(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """One feed, or both."""
    from app.model import FEEDS

    return _fitting(begun, (*FEEDS, ",".join(FEEDS)))


def _fitting(begun: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(begun)]


def _markets() -> Sequence[tuple[str, str]]:
    """None where the settings cannot be read: a completion has nobody to tell it to."""
    from app.config import load

    try:
        return [(market.exchange, market.symbol) for market in load().settings.all_markets()]
    except CollectorError:
        return []
