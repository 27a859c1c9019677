"""A line every minute from every lasting process: that it is there, what it is, how much it does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app import metrics, telemetry_logs
from app.clock import monotonic_s

EVERY_S = 60.0
#: Field of the line -> the counter (app/metrics.py) whose sum it is, where this process counts it.
COUNTERS = {
    "received": "collector_messages_received_total",
    "stored": "collector_messages_stored_total",
    "archived": "collector_snapshots_archived_total",
}
#: What else a process knows of itself; each answers facts for the next line.
sources: list[Callable[[], Mapping[str, object]]] = []


class Pulse:
    """The facts of one line after the other; what is counted also a second since the one before."""

    def __init__(self, now_s: float) -> None:
        self._began_s = self._told_s = now_s
        self._before: dict[str, float] = {}

    def facts(self, now_s: float, counted: Iterable[tuple[str, float]]) -> dict[str, Any]:
        """Of the line due at `now_s`. `counted`: name of each sample, value."""
        sums = dict.fromkeys(COUNTERS, 0.0)
        names = {counter: name for name, counter in COUNTERS.items()}
        for counter, value in counted:
            if counter in names:
                sums[names[counter]] += value
        since_s, self._told_s = max(now_s - self._told_s, 0.001), now_s
        facts: dict[str, Any] = {"uptime_s": round(now_s - self._began_s)}
        for name, total in sums.items():
            if total:
                facts[name] = int(total)
                facts[f"{name}_per_s"] = round((total - self._before.get(name, 0.0)) / since_s, 1)
        self._before = sums
        return facts


def begin(process: str, *more: Callable[[], Mapping[str, object]]) -> None:
    """Say every minute that this process, a `stream` or `web`, lives; so do children that are forked from it."""
    sources.extend(more)

    def run() -> None:
        pulse, never = Pulse(monotonic_s()), threading.Event()
        while not never.wait(EVERY_S):
            tell(process, pulse)

    def start() -> None:
        threading.Thread(target=run, name="liveness", daemon=True).start()

    start()
    os.register_at_fork(after_in_child=start)


def tell(process: str, pulse: Pulse) -> None:
    """One line."""
    facts = pulse.facts(monotonic_s(), ((name, value) for (name, _), value in metrics.counted().items()))
    for source in sources:
        facts.update(source())
    telemetry_logs.process_alive(process, **facts, rss_mib=rss_mib(), threads=threading.active_count())


def rss_mib() -> float | None:
    """Resident memory of this process in MiB; None where the system has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
