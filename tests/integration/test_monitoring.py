"""Every query of the dashboards and alerts, put to a real Prometheus that watches a real installation.

The installation is a rehearsal with every process; Prometheus runs with monitoring/prometheus.yml, its addresses replaced.
What node-exporter has to answer is asked where it is installed (Debian: prometheus-node-exporter); elsewhere that test is
skipped, and tests/unit/test_monitoring.py sees that these queries can be parsed.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from app.launch.redis_server import free_port
from app.launch.rehearsal import Rehearsal, Tables
from tests.support import prometheus
from tests.support.monitoring import MONITORING, Query, alerts, queries, rules

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(240)]

#: Data has to be there after this, on a machine that does other things as well.
PATIENCE_S = 90.0
NODE_EXPORTER = "prometheus-node-exporter"
CRITICAL = {rule["alert"] for rule in rules() if rule["labels"]["severity"] == "critical"}


class Installation(Rehearsal):
    """Small, and quick to archive."""

    tables: ClassVar[Tables] = {"collector": {"batch_interval_secs": 1}, "storage": {"segment_secs": 5}}
    markets: ClassVar[Mapping[str, list[str]]] = {"binance": ["btcusdt"], "okx": ["BTC-USDT"], "bybit": ["BTCUSDT"]}


@dataclass
class Seen:
    """What Prometheus said, in the order in which it happened."""

    #: Names of the queries that never returned anything, and selectors of alerts that did not.
    empty: list[str] = field(default_factory=list)
    #: The same of the host's; None where there is no node-exporter.
    empty_of_host: list[str] | None = None
    #: Alert -> what its expression returned: while all was well, without stream workers, without Redis.
    well: dict[str, Any] = field(default_factory=dict)
    no_streams: dict[str, Any] = field(default_factory=dict)
    no_redis: dict[str, Any] = field(default_factory=dict)
    known_alerts: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    root = tmp_path_factory.mktemp("monitoring")
    installation = Installation(root / "installation", None, 5, lambda text: None)
    try:
        installation.start()
        with (
            node_exporter(root / "node-exporter.log") as node,
            prometheus.running(root / "prometheus", {}, text=configuration(installation, node)) as server,
        ):
            yield told(installation, server, node)
    finally:
        installation.close()


@contextmanager
def node_exporter(log: Path) -> Iterator[int | None]:
    """The port of one of our own; None where it is not installed."""
    if shutil.which(NODE_EXPORTER) is None:
        yield None
        return
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}"], stdout=output, stderr=output
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def configuration(installation: Installation, node: int | None) -> str:
    """monitoring/prometheus.yml, asking this installation, once a second, and nobody else."""
    addresses = {
        "collector": installation.web_port, "flower": installation.flower_port, "exporter": installation.exporter_port,
    }  # fmt: skip
    if node is not None:
        addresses["node"] = node
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in addresses]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{addresses[job['job_name']]}"]}]
        job.pop("authorization", None)  # on loopback the web process wants none
    return yaml.safe_dump(config)


def told(installation: Installation, server: prometheus.Prometheus, node: int | None) -> Seen:
    for job in ("collector", "flower", "exporter", *(["node"] if node is not None else [])):
        server.until(f'up{{job="{job}"}} == 1', f"{job} is scraped", PATIENCE_S)
    wanted = list(queries())
    wanted += [Query(f"{alert.name}: {selector}", selector) for alert in alerts() for selector in alert.selectors]
    found = Seen(empty=unanswered(server, [query for query in wanted if not query.of_the_host]))
    if node is not None:
        found.empty_of_host = unanswered(server, [query for query in wanted if query.of_the_host and answerable(query)])
    server.until("sum(collector_websocket_connected) == count(collector_websocket_connected)", "all are connected")
    found.well = holding(server)
    groups = server._get("rules")["groups"]
    found.known_alerts = {rule["name"] for group in groups for rule in group["rules"]}
    installation.processes.stop("stream")
    server.until("sum(collector_websocket_connected) == 0", "the board shows no connection")
    found.no_streams = holding(server)
    installation.redis.stop()
    server.until("collector_redis_up == 0", "the web process misses Redis")
    found.no_redis = holding(server)
    installation.start_redis()  # so that everything ends at once when it is told to
    return found


def answerable(query: Query) -> bool:
    """Whether this kernel can: some are built without pressure stall information."""
    return "node_pressure_" not in query.expr or Path("/proc/pressure").is_dir()


def unanswered(server: prometheus.Prometheus, wanted: Iterable[Query]) -> list[str]:
    """The names of those that return nothing however long one waits. A query that is refused raises."""
    missing, until_s = list(wanted), time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < until_s:
        missing = [query for query in missing if not server.query(query.expr)]
        time.sleep(0.5)
    return [f"{query.name}: {query.expr}" for query in missing]


def holding(server: prometheus.Prometheus) -> dict[str, Any]:
    """Alert of ours -> series for which its expression is true now, whatever its patience."""
    return {alert.name: rows for alert in alerts() if not alert.of_the_host and (rows := server.query(alert.expr))}


def test_every_query_and_every_selector_of_an_alert_returns_data(seen: Seen) -> None:
    assert seen.empty == []


def test_every_query_of_the_host_returns_data(seen: Seen) -> None:
    if seen.empty_of_host is None:
        pytest.skip(f"{NODE_EXPORTER} is not installed (Debian: apt-get install {NODE_EXPORTER})")
    assert seen.empty_of_host == []


def test_prometheus_knows_every_alert(seen: Seen) -> None:
    assert seen.known_alerts == {alert.name for alert in alerts()}


def test_while_all_is_well_no_critical_alert_holds(seen: Seen) -> None:
    assert {name: rows for name, rows in seen.well.items() if name in CRITICAL} == {}


def test_without_stream_workers_it_is_said_that_nothing_is_recorded(seen: Seen) -> None:
    assert {"CollectorNoConnection", "CollectorStreamsUnowned"} <= set(seen.no_streams)
    assert list(seen.no_streams["CollectorStreamsUnowned"].values()) == [3.0]


def test_without_redis_it_is_said_and_what_only_redis_knows_is_silent(seen: Seen) -> None:
    assert "CollectorRedisDown" in seen.no_redis
    assert {"CollectorNoConnection", "CollectorDropping", "CollectorLosses"} & set(seen.no_redis) == set()
