"""monitoring/: by Prometheus's own tools, by the catalogue of metrics, and by what Grafana needs.

Whether the queries return anything is seen by tests/integration/test_monitoring.py on a running demo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import metrics
from tests.support.monitoring import DASHBOARDS, MONITORING, alerts, dashboard, labels_of, panels, queries, rules
from tests.support.prometheus import promtool
from tests.support.rig import CHECKOUT

OPERATIONS = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
RULE_TESTS = Path(__file__).parents[1] / "fixtures" / "alerts" / "rules_test.yml"
#: What the predecessor's two dashboards showed.
PREDECESSOR = {
    "collector": [
        "WebSocket connections", "Time since last message", "Reconnects (5m)", "Reconnects (since start)", "Pings/s",
        "Pongs/s", "Orderbook msgs/s", "Trade msgs/s", "Messages dropped", "Channel Queue Depth", "Message timeouts (1h)",
        "Parse circuit breaks (1h)", "Exchange-to-Collector Latency p50/p95/p99", "Parquet rows/s", "Buffer & Queue Depth",
        "Segments by state", "Total rows", "Write Errors (1h)", "S3 Upload Failures (1h)", "S3 Upload Retries (1h)",
        "S3 Upload Duration p50/p95", "Uptime",
    ],
    "system": [
        "CPU", "Memory", "Disk free", "Uptime", "CPU by mode", "Load", "Swap", "Disk used by mount", "Network bytes/s",
        "Network packets/s",
    ],
}  # fmt: skip


def known() -> dict[str, set[str]]:
    """Every series that the web process can show: its name and the labels it may be asked by."""
    found = {f"collector_{name}": set(labels) for name, (_, labels) in metrics.GAUGES.items()}
    for declared in metrics.DECLARED.values():
        name, labels = f"collector_{declared.name}", set(declared.labels)
        if declared.buckets:
            found |= {f"{name}_bucket": {*labels, "le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found


# Prometheus's own tools


def test_promtool_finds_no_fault_in_the_rules_and_names_one(tmp_path: Path) -> None:
    done = promtool("check", "rules", str(MONITORING / "alerts.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "alerts.yml"
    broken.write_text(
        (MONITORING / "alerts.yml").read_text().replace("collector_redis_up == 0", "collector_redis_up =")
    )
    done = promtool("check", "rules", str(broken))
    assert done.returncode != 0
    assert "CollectorRedisDown" in done.stdout + done.stderr


def test_promtool_finds_no_fault_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text((MONITORING / "alerts.yml").read_text())
    (tmp_path / "token").write_text("0123456789abcdef")
    text = (MONITORING / "prometheus.yml").read_text()
    assert "/run/secrets/web_token" in text
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/web_token", str(tmp_path / "token")))
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.row("S3")
@pytest.mark.row("S9")
def test_alerts_fire_when_they_should_and_then_only(tmp_path: Path) -> None:
    file = tmp_path / "rules_test.yml"
    file.write_text(f"rule_files: [{MONITORING / 'alerts.yml'}]\n{RULE_TESTS.read_text()}")
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboards_can_be_parsed(tmp_path: Path) -> None:
    """node-exporter's too, which is not installed everywhere."""
    recorded = [{"record": f"q{n}", "expr": query.expr} for n, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


# the catalogue


@pytest.mark.parametrize("query", [*alerts(), *queries()], ids=lambda query: query.name)
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: Any) -> None:
    catalogue = known()
    asked = [labels_of(selector) for selector in query.selectors]
    assert asked, query.expr
    for name, labels in asked:
        if name.startswith("collector_"):
            assert name in catalogue
            assert labels <= catalogue[name]


def test_every_metric_is_on_a_dashboard_or_watched_by_an_alert() -> None:
    asked = {labels_of(selector)[0] for query in (*alerts(), *queries()) for selector in query.selectors}
    shown = {name for name in known() if name in asked or re.sub("_(bucket|sum|count)$", "_bucket", name) in asked}
    # Their bytes and events say as much.
    assert set(known()) - shown <= {"collector_buffer_batches", "collector_spool_events"}


def test_counters_are_asked_for_their_increase_or_their_sum_and_gauges_are_not() -> None:
    """`increase()` over a fixed window: a bare counter says nothing of now, and the increase of a gauge nothing at all."""
    counters = {name for name in known() if name.endswith(("_total", "_bucket", "_sum", "_count"))}
    for query in alerts():
        for inside in re.findall(r"(?:increase|rate)\((\w+)", query.expr):
            assert inside in counters or not inside.startswith("collector_"), query
        for selector in query.selectors:
            name, _ = labels_of(selector)
            if name in counters:
                assert re.search(rf"(increase|rate)\({name}", query.expr), query


# alerts and their sections


def sections() -> dict[str, str]:
    """Alert -> its section of docs/operations.md."""
    page = OPERATIONS.split("\n## Alerts\n", 1)[1]
    return dict(re.findall(r"(?ms)^### (\w+)$\n(.*?)(?=^### |^## |\Z)", page))


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert sorted(sections()) == sorted(query.name for query in alerts())
    assert len(sections()) == len(re.findall(r"(?m)^### ", OPERATIONS.split("\n## Alerts\n", 1)[1]))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
    section = sections()[rule["alert"]]
    meaning = section.split("- **Look at**:")[0].strip()
    assert len(meaning) > 40
    assert "- **Do**: " in section


def test_alerts_that_a_section_names_are_there() -> None:
    named = set(re.findall(r"\b(?:Collector|Host)[A-Z]\w+", OPERATIONS))
    assert named <= {query.name for query in alerts()}


# Grafana


def titles(name: str) -> list[str]:
    return [panel["title"] for panel in panels(name)]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_predecessors_panels_are_all_there(name: str) -> None:
    assert [title for title in PREDECESSOR[name] if title not in titles(name)] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    board = dashboard(name)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert (board["refresh"], board["timezone"]) == ("10s", "utc")
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert len(set(titles(name))) == len(titles(name))
    for panel in panels(name):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
            assert target["legendFormat"], panel["title"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= set(variables), panel["title"]


def cells(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    at = panel["gridPos"]
    assert at["x"] + at["w"] <= 24, panel["title"]
    for x in range(at["x"], at["x"] + at["w"]):
        for y in range(at["y"], at["y"] + at["h"]):
            yield x, y


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_over_another(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard(name)["panels"]:
        for cell in cells(panel):
            assert cell not in taken, (panel["title"], taken[cell])
            taken[cell] = panel["title"]


def test_the_dashboards_have_names_of_their_own_and_grafana_is_given_them() -> None:
    assert {dashboard(name)["uid"] for name in DASHBOARDS} == {"collector", "collector-system"}
    assert {path.stem for path in (MONITORING / "grafana" / "dashboards").glob("*.json")} == set(DASHBOARDS)
    provisioning = MONITORING / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "collector.yml").read_text())["providers"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    assert mounted["./monitoring/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)


def test_prometheus_asks_the_processes_of_the_compose_file_at_their_ports() -> None:
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]
    jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"][0] for job in jobs}
    for job, service in (("collector", "web"), ("flower", "flower"), ("exporter", "exporter")):
        host, port = targets[job].split(":")
        assert host == service
        assert compose[service]["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert port in " ".join(compose[service]["command"])
    assert targets["node"].startswith("host.docker.internal:")
    assert compose["prometheus"]["extra_hosts"] == ["host.docker.internal:host-gateway"]
