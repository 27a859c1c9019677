"""The soak: load for minutes, a fault every few seconds, and in the end every event accounted for."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.clock import monotonic_s, wall_us
from app.drill.catalogue import LEASE_S
from app.drill.installation import SECOND, STREAM_WORKERS, Broken, Installation
from app.drill.verdict import Figures
from app.quality.balance import Difference

#: A fault so often, the first one after as long.
EVERY_S = 15.0
SERIES_S = 5.0
#: Events of all markets for each frame a second and feed: five venues, two markets, two feeds; OKX and Bybit send about
#: three trades a frame.
EVENTS_PER_RATE = 28
MEASURED = (*STREAM_WORKERS, "worker", "archive")


def _killed(process: str) -> Callable[[Installation], None]:
    return lambda site: site.kill(process)


def _venue(fault: str) -> Callable[[Installation], None]:
    word = "do" if fault.partition(",")[0] in ("cut", "close", "half-open", "planned-cut", "reset") else "faults"

    def strike(site: Installation) -> None:
        site.control(word, fault)

    return strike


def _redis_killed(site: Installation) -> None:
    site.redis.process.kill()
    site.redis.process.wait()
    site.start_redis()


def _redis_away(site: Installation) -> None:
    site.redis.stop()
    site.abort.wait(5)
    site.start_redis()


def _links_cut(site: Installation) -> None:
    site.wiring.redis.client_kill_filter(_type="normal")


def _frozen(site: Installation) -> None:
    with site.frozen(SECOND):
        site.abort.wait(LEASE_S + 6)


def _locked(site: Installation) -> None:
    with site.segment_locked():
        site.abort.wait(6)


def _store_away(site: Installation) -> None:
    objects = site.wiring.settings.storage.local_path
    aside = objects.with_name("objects.away")
    objects.mkdir(exist_ok=True)
    objects.rename(aside)
    objects.write_text("no directory\n")
    site.abort.wait(8)
    objects.unlink()
    aside.rename(objects)


#: Each is over within EVERY_S; what follows from it need not be.
STRIKES: dict[str, Callable[[Installation], None]] = {
    "kill -9 of a stream worker": _killed("stream"),
    "kill -9 of the other stream worker": _killed(SECOND),
    "kill -9 of the flush": _killed("worker"),
    "kill -9 of the archive": _killed("archive"),
    "kill -9 of beat": _killed("beat"),
    "Redis killed, started again": _redis_killed,
    "Redis away for 5 s": _redis_away,
    "every link to Redis cut": _links_cut,
    "a stream worker asleep for longer than its lease": _frozen,
    "the open segment locked for 6 s": _locked,
    "the store away for 8 s": _store_away,
    "Binance cut": _venue("cut,venue=binance"),
    "Coinbase cut": _venue("cut,venue=coinbase,how=fin"),
    "Upbit closes": _venue("close,venue=upbit,code=1012"),
    "Bybit half open": _venue("half-open,venue=bybit"),
    "OKX says that it will close": _venue("planned-cut,venue=okx,close_s=10"),
    "Binance loses frames": _venue("lose,venue=binance,count=5"),
    "Bybit repeats frames": _venue("duplicate,venue=bybit,count=5,times=3"),
    "OKX sends garbage": _venue("garbage,venue=okx,count=5,kind=truncated"),
}


def schedule(seed: int, seconds: float, names: Iterable[str] = STRIKES) -> list[tuple[float, str]]:
    """(second, strike): all of them in an order of chance before any comes again. The same seed gives the same.

    The last one comes EVERY_S before the end at the latest.
    """
    chance, drawn = random.Random(seed), list[str]()
    found, at_s = [], EVERY_S
    while at_s <= seconds - EVERY_S:
        if not drawn:
            drawn = sorted(names)
            chance.shuffle(drawn)
        found.append((at_s, drawn.pop()))
        at_s += EVERY_S
    return found


@dataclass
class Point:
    """What was measured at one moment."""

    at_s: float
    sent: int
    #: Seconds since the newest stored event of the venue that is furthest behind was received.
    lag_s: float | None
    #: Events in Redis.
    waiting: int
    #: Mebibytes of resident memory, by process.
    rss_mib: dict[str, int]


@dataclass
class Soaked:
    """What the soak came to."""

    seed: int
    seconds: float = 0.0
    strikes: list[tuple[float, str]] = field(default_factory=list)
    series: list[Point] = field(default_factory=list)
    total: Figures = field(default_factory=Figures)
    archived: int = 0
    differences: list[Difference] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract of `collector soak` (docs/cli.md)."""
        return {
            "balanced": not self.differences,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "strikes": [{"at_s": at_s, "fault": name} for at_s, name in self.strikes],
            "series": [asdict(point) for point in self.series],
            "total": {**asdict(self.total), "archived": self.archived},
            "differences": [asdict(difference) for difference in self.differences],
        }


def soak(
    site: Installation,
    seconds: float,
    seed: int,
    say: Callable[[str], None],
    collected: Callable[[float], None] = lambda seconds: None,
) -> Soaked:
    """From the start of the processes to the account; `collected` hears how long it has gone on. Raises: CollectorError."""
    result = Soaked(seed)
    todo = schedule(seed, seconds)
    try:
        site.start()
        say(f"collecting for {seconds:g} s; a fault every {EVERY_S:g} s, seed {seed}")
        began_s, measured = monotonic_s(), 0
        while (now_s := monotonic_s() - began_s) < seconds:
            site.check()
            collected(now_s)
            if now_s >= measured * SERIES_S:
                measured = int(now_s / SERIES_S) + 1
                result.series.append(point := _measure(site, now_s))
                say(shown(point))
            if todo and now_s >= todo[0][0]:
                _, name = todo.pop(0)
                say(f"{now_s:5.0f} s  STRIKE: {name}")
                result.strikes.append((round(now_s, 1), name))
                STRIKES[name](site)
            site.abort.wait(0.2)
        result.seconds = monotonic_s() - began_s
        site.control("faults", method="DELETE")
        site.settle()
        say("at work again; halting the exchanges, draining, archiving, reading every object again")
        final = site.finish()
    except Broken as error:
        result.differences = [Difference("the end", str(site.directory), str(error))]
        return result
    assert final.audit.deep is not None
    result.total, result.archived, result.differences = final.total, final.audit.deep.rows, final.audit.differences
    return result


def _measure(site: Installation, at_s: float) -> Point:
    waiting, lag_s = 0, None

    def look() -> bool:
        nonlocal waiting, lag_s
        waiting = sum(depth.events for depth in site.wiring.buffer.depths())
        newest = site.newest_us()
        if len(newest) == len(site.markets):
            lag_s = round((wall_us() - min(newest.values())) / 1e6, 1)
        return True

    site.wait(look, "Redis answers")
    sent = sum(sum(feeds.values()) for feeds in site.control("status", method="GET")["sent"].values())
    return Point(round(at_s, 1), sent, lag_s, waiting, {name: _rss_mib(site.processes.pid(name)) for name in MEASURED})


def _rss_mib(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, IndexError):
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return int(told.stdout.strip() or 0) >> 10


def shown(point: Point) -> str:
    """A point for people."""
    lag = "-" if point.lag_s is None else f"{point.lag_s:.1f} s"
    memory = ", ".join(f"{name} {mib}" for name, mib in point.rss_mib.items())
    return f"{point.at_s:5.0f} s  {point.sent:>9,} sent  lag {lag:>7}  {point.waiting:>7,} in Redis  MiB: {memory}"
