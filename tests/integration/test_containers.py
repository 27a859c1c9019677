"""Against the Redis that docker-compose.yml names, in a container, with a Celery worker in another one (pytest-celery)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import (
    RESULT_TIMEOUT,
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestSetup,
    RedisTestBackend,
    RedisTestBroker,
)

from app.codec import BatchCodec
from tests.support.batches import STREAM, batch, event
from tests.support.path import archived, finish
from tests.support.rig import CHECKOUT, Rig

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]


@pytest.fixture
def default_redis_broker_image() -> str:
    """The image of docker-compose.yml: what is deployed is what is tested."""
    lines = (CHECKOUT / "docker-compose.yml").read_text().splitlines()
    (image,) = {line.split("image:")[1].strip() for line in lines if "image: redis:" in line}
    return image


@pytest.fixture
def celery_broker_cluster(celery_redis_broker: RedisTestBroker) -> Iterator[CeleryBrokerCluster]:
    """Redis alone: another broker is none of ours."""
    cluster = CeleryBrokerCluster(celery_redis_broker)
    yield cluster
    cluster.teardown()


@pytest.fixture
def celery_backend_cluster(celery_redis_backend: RedisTestBackend) -> Iterator[CeleryBackendCluster]:
    """The worker of the plugin answers by a result."""
    cluster = CeleryBackendCluster(celery_redis_backend)
    yield cluster
    cluster.teardown()


def test_a_task_travels_through_the_redis_of_the_compose_file(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready()
    result = celery_setup.ping.s().apply_async(queue=celery_setup.worker.worker_queue)
    assert result.get(timeout=RESULT_TIMEOUT) == "pong"


def test_the_buffer_scripts_run_on_the_redis_of_the_compose_file(
    celery_broker_cluster: CeleryBrokerCluster, tmp_path: Path
) -> None:
    url: Any = celery_broker_cluster[0].container.celeryconfig["host_url"]
    rig = Rig(tmp_path, url)
    rig.write({"binance": ["btcusdt"]})
    wiring = rig.wiring()
    elements = [BatchCodec().encode(batch(n, [event(n)])) for n in (1, 2, 2)]
    assert [wiring.buffer.push(STREAM, element) for element in elements] == [1, 2, 3]
    finish(wiring)
    assert archived(wiring) == {("binance", "btcusdt", "trade"): [("1", '{"t":1}'), ("2", '{"t":2}')]}
