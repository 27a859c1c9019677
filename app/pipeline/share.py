"""Which worker is to have which stream. Pure: it is told what stands on the board and says what should change.

A stream that nobody has goes to the worker with the fewest. Where the fullest worker has at least two more than the emptiest,
streams are asked for, one after the other of whoever has most then, and the next pass assigns those that came. So shares end
within one of each other, no more streams move than must, and none does when the shares are equal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

#: In the place of a worker's name: whoever reads the queue of streams first.
ANYONE = ""


class Worker(msgspec.Struct, frozen=True):
    """One stream worker."""

    #: Those it collects and those on their way to it.
    streams: frozenset[str]
    #: How many it can collect.
    threads: int
    #: It has been there long enough to take from others and to be taken from.
    settled: bool = True
    #: A stream failed here lately: others are given to it last, so that a broken host does not attract them all.
    failing: bool = False


def standing(
    told: Mapping[str, Mapping[str, Any]], holders: Mapping[str, str], sent: Mapping[str, str], settle_s: float
) -> dict[str, Worker]:
    """The workers by name.

    `told`: name -> what the worker says of itself (`Presence.told`). `holders`: stream -> token of its lease, which names the
    process. `sent`: stream -> worker it is on its way to. The lease is the truth; what a worker says of itself counts where
    nobody has the lease: it is about to take it, or Redis has lost it.
    """
    workers = {}
    for name, says in told.items():
        streams = {stream for stream, token in holders.items() if token.rpartition(":")[0] == says["process"]}
        streams |= {stream for stream in says["streams"] if stream not in holders}
        streams |= {stream for stream, worker in sent.items() if worker == name and stream not in holders}
        workers[name] = Worker(frozenset(streams), says["threads"], says["up_s"] >= settle_s, says["failing"])
    return workers


def assign(
    streams: Collection[str], leased: Collection[str], workers: Mapping[str, Worker]
) -> tuple[dict[str, str], list[str]]:
    """(stream -> worker it is to be sent to, streams whose holders are to hand them over).

    `leased`: streams that somebody has, or that are on their way to ANYONE. Streams for which no thread is free are in
    neither answer. Without any worker all go to ANYONE.
    """
    taken = set(leased).union(*(worker.streams for worker in workers.values()))
    homeless = sorted(set(streams) - taken)
    if not workers:
        return dict.fromkeys(homeless, ANYONE), []
    load = {name: len(worker.streams) for name, worker in workers.items()}
    assignments = {}
    for stream in homeless:
        free = [name for name, worker in workers.items() if load[name] < worker.threads]
        if not free:
            break
        chosen = min(free, key=lambda name: (workers[name].failing, load[name], name))
        assignments[stream] = chosen
        load[chosen] += 1
    # What a worker says may be older than the lease it gave back: while streams are on their way, none is asked for.
    moving = (set(streams) & taken) - set(leased)
    return assignments, [] if moving else _handovers(set(streams) & set(leased), workers, load)


def _handovers(held: set[str], workers: Mapping[str, Worker], load: Mapping[str, int]) -> list[str]:
    """Streams, one after the other of whoever has most then, that whoever has fewest then should have.

    At most half the largest difference at a time.
    """
    load = dict(load)
    steady = sorted(name for name, worker in workers.items() if worker.settled and not worker.failing)
    offered = {name: sorted(workers[name].streams & held, reverse=True) for name in steady}
    asked: list[str] = []
    most = None
    while True:
        takers = [name for name in steady if load[name] < workers[name].threads]
        givers = [name for name in steady if offered[name]]
        if not takers or not givers:
            return asked
        taker, giver = min(takers, key=lambda name: load[name]), max(givers, key=lambda name: load[name])
        difference = load[giver] - load[taker]
        most = difference // 2 if most is None else most
        if difference < 2 or len(asked) == most:
            return asked
        asked.append(offered[giver].pop())
        load[giver] -= 1
        load[taker] += 1
