"""Faults of Redis: killed, away, full, emptied, its memory gone, its links cut."""

from __future__ import annotations

import shutil

from app.clock import wall_us
from app.drill.installation import Installation
from app.drill.processes import something_waits
from app.drill.verdict import Seen

AWAY_S = 10.0
CUTS = 5


def _back(site: Installation) -> float:
    """Seconds from now until something that comes from now on is stored, and every stream is live."""
    back_us = wall_us()
    return site.wait(lambda: site.stored_since(back_us) and site.live(site.names()), "it is at work again")


def killed(site: Installation) -> Seen:
    """R1."""
    site.redis.process.kill()
    site.redis.process.wait()
    site.start_redis()
    return Seen(_back(site))


def away(site: Installation) -> Seen:
    """R3."""
    site.redis.stop()
    spooled_s = site.wait(lambda: site.spooling() >= set(site.names()), "each stream spools")
    site.abort.wait(max(0.0, AWAY_S - spooled_s))
    site.start_redis()
    again_s = _back(site)
    site.wait(lambda: not site.spooling(), "the spools are drained")
    return Seen(again_s, f"away for {max(AWAY_S, spooled_s):.0f} s")


def full(site: Installation) -> Seen:
    """R4."""
    site.wiring.redis.config_set("maxmemory", 1)
    try:
        site.wait(lambda: site.spooling() >= set(site.names()), "each stream spools")
    finally:
        site.wiring.redis.config_set("maxmemory", 0)
    again_s = _back(site)
    site.wait(lambda: not site.spooling(), "the spools are drained")
    return Seen(again_s)


def forgotten(site: Installation) -> Seen:
    """R2: what a Redis without persistence keeps over a restart is nothing."""
    with something_waits(site) as waiting:
        site.redis.process.kill()
        site.redis.process.wait()
        shutil.rmtree(site.directory / "redis")
        site.start_redis()
    return Seen(_back(site), f"about {waiting} events forgotten")


def emptied(site: Installation) -> Seen:
    """R5."""
    with something_waits(site) as waiting:
        site.wiring.redis.flushall()
    return Seen(_back(site), f"about {waiting} events forgotten")


def links_cut(site: Installation) -> Seen:
    """R6."""
    cut = 0
    for _ in range(CUTS):
        cut += site.wiring.redis.client_kill_filter(_type="normal")
        site.abort.wait(0.5)
    site.wiring.redis.delete(f"{site.wiring.settings.redis.prefix}:beat")
    cut_us = wall_us()
    again_s = site.wait(
        lambda: site.wiring.board.last_beat_s() and site.stored_since(cut_us) and site.live(site.names()),
        "the workers consume again",
    )
    return Seen(again_s, f"{cut} links cut")
