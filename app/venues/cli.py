"""`collector exchange-server`: the built-in exchanges on one port."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import msgspec

from app.clock import monotonic_s, wall_us
from app.venues.binance import Binance
from app.venues.bybit import Bybit
from app.venues.coinbase import Coinbase
from app.venues.dialect import Venue
from app.venues.faults import CATALOGUE, LIMITS, Fault, FaultError, faults
from app.venues.floor import Floor
from app.venues.instruments import replayed
from app.venues.okx import Okx
from app.venues.replay import Recording, files, load
from app.venues.sent import Sent
from app.venues.server import ExchangeServer
from app.venues.upbit import Upbit

VENUES: dict[str, type[Venue]] = {venue.name: venue for venue in (Binance, Coinbase, Upbit, Okx, Bybit)}
#: Where ids start with a given seed. Without one they start at the time, so that a restarted venue never repeats an id.
SEEDED_FIRST_ID = 1_000_000_000


class Urls(msgspec.Struct):
    """What a user sets under [exchanges.<venue>], and a URL to look at."""

    ws_url: str
    rest_url: str
    symbols_url: str


class Listening(msgspec.Struct):
    """The one line of `--json`."""

    host: str
    port: int
    control: str
    seed: int
    venues: dict[str, Urls]


def listening(host: str, port: int, seed: int) -> Listening:
    """The URLs of every venue of a server on this host and port."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    venues = {}
    for name, venue in VENUES.items():
        rest = f"http://{place}/{name}"
        venues[name] = Urls(f"ws://{place}/{name}{venue.ws_base}", rest, rest + venue.symbols_path)
    return Listening(host, port, f"http://{place}/control", seed, venues)


def table(told: Listening) -> str:
    """`told` as the lines of a settings.toml, with the rest as comments."""
    lines = [f"# built-in exchanges on port {told.port}, seed {told.seed}; for settings.toml:"]
    for name, urls in told.venues.items():
        lines += ["", f"[exchanges.{name}]", f'ws_url = "{urls.ws_url}"', f'rest_url = "{urls.rest_url}"']
        lines += [f"# symbols: {urls.symbols_url}"]
    stop, status = f"curl -X POST {told.control}/stop", f"curl {told.control}/status"
    return "\n".join([*lines, "", f"# stop the data, keep the connections: {stop}   (and /start)   {status}"])


def recordings(directory: Path | None, chosen: tuple[tuple[str, Path], ...]) -> dict[str, Recording] | None:
    """Each venue's recording: of `chosen` files where there are any, else of `directory`. None: nothing to replay.

    Raises: OSError, UnicodeDecodeError.
    """
    if directory is None and not chosen:
        return None
    found = {}
    for name, venue in VENUES.items():
        paths = [path for wanted, path in chosen if wanted == name]
        if not paths and directory:
            paths = files(directory, name)
        found[name] = load(venue, paths)
    return found


async def serve(
    host: str,
    port: int,
    rate: float,
    seed: int | None,
    sent: Sent,
    replay: dict[str, Recording] | None,
    as_json: bool,
    asked: list[Fault],
    patience: float,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises: OSError."""
    start_us, start_s = wall_us(), monotonic_s()

    def now_us() -> int:
        # A venue's timestamps never go back, whatever the wall clock does meanwhile.
        return start_us + int((monotonic_s() - start_s) * 1e6)

    first_id = start_us // 1000 if seed is None else SEEDED_FIRST_ID
    seed = start_us // 1000 if seed is None else seed
    venues = [
        venue(
            {symbol: replayed(symbol) for symbol in replay[name].symbols} if replay else venue.listing(), seed, first_id
        )
        for name, venue in VENUES.items()
    ]
    finished = asyncio.Event()
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[bool]] = set()
    floor = Floor(rate, now_us, replay)
    async with ExchangeServer(venues, floor, sent, now_us, host, port, asked, patience) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, finished.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: stopping.add(asyncio.create_task(server.stop())))
        told = listening(host, server.port, seed)
        click.echo(msgspec.json.encode(told).decode() if as_json else table(told))
        await server.serve_until(finished)


def _venue_and_file(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[tuple[str, Path], ...]:
    chosen = []
    for value in given:
        name, equals, path = value.partition("=")
        if not equals or name not in VENUES or not Path(path).is_file():
            raise click.BadParameter(f"{value!r}: write VENUE=FILE with one of {', '.join(VENUES)} and a file")
        chosen.append((name, Path(path)))
    return tuple(chosen)


def catalogue() -> str:
    """Every fault with what it does and its parameters, as lines."""
    lines = []
    for name, kind in CATALOGUE.items():
        spec = ",".join([name, *(f"{key}={param.default}" for key, param in kind.params.items())])
        lines += [spec, f"    {kind.text}"]
        lines.append(f"    limits: {', '.join(limit for limit in LIMITS if limit in kind.limits)}")
    return "\n".join(lines)


def _list_faults(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        click.echo(catalogue())
        context.exit()


def _asked(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[Fault]:
    """Each value is a file of faults, or the faults themselves."""
    found = []
    for value in given:
        try:
            text = Path(value).read_text() if "," not in value and Path(value).is_file() else value
            found += faults(text)
        except (FaultError, OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(str(error)) from error
    return found


@click.command("exchange-server")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0 (default) picks a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no login.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Frames a second for each market and feed. When replaying: frames a second for each connection, "
    "0 as fast as it reads.",
)
@click.option("--seed", type=int, help="The same seed gives the same markets, at other times. Default: new each run.")
@click.option(
    "--sent",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a JSON line here for each event sent: what a complete recording must hold.",
)
@click.option(
    "--frames",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Replay DIR/<venue>/*.jsonl (raw frames, one a line) instead of generating.",
)
@click.option(
    "--frames-file",
    multiple=True,
    metavar="VENUE=FILE",
    callback=_venue_and_file,
    help="Replay this file of a venue; may be repeated.",
)
@click.option(
    "--faults",
    "asked",
    multiple=True,
    metavar="FILE_OR_SPEC",
    callback=_asked,
    help="What is to go wrong, as 'name,key=value,...' or a file of such lines or of JSON; may be repeated. "
    "Limits of each: venue, symbol, feed, connection, probability, count, skip, after_s, for_s. --list-faults shows them.",
)
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List the faults and exit.",
)
@click.option(
    "--heartbeat-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiply every wait of the venues' heartbeat rules: with 0.01 OKX cuts a client that neither "
    "pings nor gets data in 0.3 s.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the URLs as one line of JSON.")
def exchange_server(
    port: int,
    host: str,
    rate: float,
    seed: int | None,
    sent: Path | None,
    frames: Path | None,
    frames_file: tuple[tuple[str, Path], ...],
    asked: list[Fault],
    heartbeat_scale: float,
    as_json: bool,
) -> None:
    """Serve the built-in exchanges: Binance, Coinbase, Upbit, OKX and Bybit on one loopback port.

    They speak as the real ones do, refusals, limits and quirks included, and make up the data: about twenty
    well-known bases in each venue's spelling (btcusdt, BTC-USD, KRW-BTC, BTC-USDT, BTCUSDT) and TEST0001 to TEST0999.
    A symbol that is not listed is refused, or met with silence, as the venue would.

    The URLs are printed as lines for settings.toml. Rehearse with them, then prove the recording:

    \b
        collector exchange-server --port 8900 --rate 20 --sent sent.jsonl
        collector run                          (with those URLs in settings.toml)
        curl -X POST localhost:8900/control/stop
        ... and compare what was recorded with sent.jsonl

    Let things go wrong, from the start or while it runs (--list-faults; every strike is a line of the sent file):

    \b
        --faults 'lose,venue=binance,feed=trade,probability=0.01'    holes of known ids
        --faults 'half-open,venue=okx,after_s=5'                     silence without a FIN
        --faults 'http,venue=upbit,status=429,retry_after_s=3,for_s=10'
        curl -d cut,venue=bybit localhost:8900/control/do            at once, on every connection there is
        curl -X DELETE localhost:8900/control/faults                 all is well again

    /control/stop (or SIGUSR1) stops the data and keeps the connections, /control/start goes on, /control/status
    counts. SIGTERM or Ctrl-C closes every connection with 1001 and finishes the sent file.
    """
    if not rate and not frames and not frames_file:
        raise click.BadParameter("0 is for replaying with --frames; generating needs a rate", param_hint="--rate")
    try:
        replay = recordings(frames, frames_file)
        for notice in [notice for recording in (replay or {}).values() for notice in recording.notices]:
            click.echo(notice, err=True)
        asyncio.run(serve(host, port, rate, seed, Sent(sent), replay, as_json, asked, heartbeat_scale))
    except (OSError, UnicodeDecodeError) as fault:
        raise click.ClickException(str(fault)) from fault


if __name__ == "__main__":
    exchange_server()
