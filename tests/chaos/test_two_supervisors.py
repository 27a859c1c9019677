"""Two supervisors, three workers, and every message more than once: each stream is collected once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.support.crash import Nursery, celery_workers, dispatcher
from tests.support.exchanges import ExchangeProcess
from tests.support.path import until
from tests.support.rig import MARKETS, Rig


@pytest.mark.exhaustive
@pytest.mark.row("C3")
@pytest.mark.timeout(180)
def test_every_stream_has_one_holder_and_one_connection_however_often_it_is_dispatched(
    nursery: Nursery, rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    exchange = exchange_server(rate=5)
    rig.write(MARKETS, exchange.venues)
    wiring = rig.wiring()
    names = list(wiring.streams)

    def holders() -> dict[str, int]:
        keys = {name: wiring.redis.get(f"{rig.prefix}:lease:stream:{name}") for name in names}
        return {name: int(token.split(b":")[1]) for name, token in keys.items() if token}

    def opened() -> dict[str, int]:
        return {name: state["connections_opened"] for name, state in wiring.board.states(names).items()}

    with celery_workers(("one", "two", "three"), "streams", rig, threads=2) as workers:
        environ = {"CONFIG_PATH": str(rig.path)}
        supervisors = [nursery.start("supervise", rig.path, environ=environ, rounds=5) for _ in range(2)]
        sent = [name for supervisor in supervisors for name in supervisor.wait().result]
        assert sorted(sent) == names  # each by one of the two, once
        send = dispatcher(rig)
        for name in 3 * names:
            send(name)
        until(lambda: opened() == dict.fromkeys(names, 1), "every stream is collected", 40)
        queue = f"{rig.prefix}:celery:streams"
        until(lambda: wiring.redis.llen(queue) == 0, "every further message is taken too")
        assert holders().keys() == set(names)
        assert set(holders().values()) == {worker.pid for worker in workers.values()}  # two at most fit into each
        assert exchange.status()["connections"] == len(names)
        assert [worker.signal(signal.SIGTERM) for worker in workers.values()] == [0, 0, 0]
    assert holders() == {}
    connections = {(line["venue"], line["connection"]) for line in exchange.sent()}
    assert sorted(venue for venue, _ in connections) == sorted(name.split("-")[0] for name in names)
