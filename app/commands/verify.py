"""`collector verify`: read the archive again."""

from __future__ import annotations

import json
import sys

import click

from app.commands import completion
from app.commands.gaps import Moment, market_option
from app.commands.progress import Progress
from app.commands.settings import wired
from app.errors import StoreError
from app.objects.store import Store
from app.pipeline.verify import Fault, Scope, VerifyReport
from app.pipeline.verify import verify as verify_objects
from app.store.ledger import Ledger


def _markets(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(None, (market_option(context, parameter, market) for market in given)))


@click.command()
@click.argument("prefix", default="")
@click.option(
    "--since", type=Moment(), help="Only objects that begin at this time (UTC) or later, or 90s, 15m, 6h, 2d ago."
)
@click.option("--until", type=Moment(), help="Only objects that begin before.")
@click.option(
    "--market",
    "markets",
    multiple=True,
    metavar="EXCHANGE/SYMBOL",
    callback=_markets,
    shell_complete=completion.markets,
    help="Only this market; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def verify(prefix: str, since: int | None, until: int | None, markets: tuple[str, ...], as_json: bool) -> None:
    """Read objects and manifests again and say what is wrong.

    PREFIX narrows it, as in `binance/btcusdt/trade/`; so do times and markets: an object begins when its segment was
    opened. Every object is read whole and hashed, in each store where there are two; nothing is believed that was
    written down earlier. Exit code 0 when all is right, 1 with one line for each fault.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until")
    wiring = wired()
    scope = Scope(prefix, markets, _ms(since), _ms(until))
    with Progress() as progress:
        reports = {store.name: _verified(store, wiring.ledger, scope, progress) for store in wiring.stores}
    if as_json:
        click.echo(json.dumps(_together(reports)))
    else:
        for name, report in reports.items():
            # Where there is one store, it need not be named.
            where = f"{name}: " if len(reports) > 1 else ""
            for fault in report.faults:
                click.echo(f"{where}{fault.key}: {fault.fault}" if fault.key else fault.fault)
            said = f"{report.verified} of {report.objects} objects verified, {report.rows} rows"
            click.echo(f"{where}{said}, {len(report.faults)} faults")
    sys.exit(1 if any(report.faults for report in reports.values()) else 0)


def _verified(store: Store, ledger: Ledger, scope: Scope, progress: Progress) -> VerifyReport:
    """The report of one store; one that cannot be read is a fault, and keeps no other one from being read."""

    def read(report: VerifyReport) -> None:
        progress(store.name, report.objects, report.listed, "objects")

    try:
        return verify_objects(store, ledger, scope=scope, progress=read)
    except StoreError as error:
        return VerifyReport(faults=[Fault("", str(error))])


def _together(reports: dict[str, VerifyReport]) -> dict[str, object]:
    """One shape whether there is one store or two: sums over the stores, each fault with the store it is in."""
    figures = {
        name: sum(getattr(report, name) for report in reports.values()) for name in ("objects", "verified", "rows")
    }
    faults = [{"store": name, **fault._asdict()} for name, report in reports.items() for fault in report.faults]
    return {"stores": list(reports), **figures, "faults": faults}


def _ms(time_us: int | None) -> int | None:
    return None if time_us is None else time_us // 1000
