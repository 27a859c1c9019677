"""The metrics that the customer's documents name, literally; and docs/metrics.md says what app/metrics.py declares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from app import metrics
from app.metrics import DECLARED, GAUGES, VALUES, Declared, zeros

ROOT = Path(__file__).parents[2]
METRICS_MD = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")

M = ("exchange", "symbol")
F = ("exchange", "symbol", "data_type")
#: Their names, their labels.
CUSTOMERS: dict[str, tuple[str, ...]] = {
    "collector_websocket_connected": M,
    "collector_websocket_reconnects_total": M,
    "collector_last_message_timestamp_seconds": M,
    "collector_messages_received_total": F,
    "collector_messages_dropped_total": (),
    "collector_message_timeouts_total": M,
    "collector_channel_queue_depth": (),
    "collector_latency_exchange_to_collector_ms": F,
    "collector_sequence_gaps_total": F,
    "collector_sequence_gap_size": F,
    "collector_sequence_out_of_order_total": F,
    "collector_sequence_duplicates_total": F,
    "collector_parse_circuit_breaks_total": ("exchange",),
    "collector_db_write_seconds": ("operation",),
    "collector_db_snapshots_written_total": (),
    "collector_db_insert_errors_total": ("error_type",),
    "collector_archives_completed_total": (),
    "collector_snapshots_archived_total": (),
    "collector_s3_upload_seconds": ("status",),
    "collector_s3_upload_failures_total": (),
    "collector_s3_upload_retries_total": (),
    "collector_archive_failures_total": ("stage",),
    "collector_start_timestamp_seconds": (),
}
HISTOGRAMS = {
    "collector_latency_exchange_to_collector_ms", "collector_sequence_gap_size", "collector_db_write_seconds",
    "collector_s3_upload_seconds",
}  # fmt: skip


def declared() -> dict[str, tuple[str, ...]]:
    """Name -> labels of everything, in order."""
    found = {f"collector_{name}": metric.labels for name, metric in DECLARED.items()}
    return {**found, **{f"collector_{name}": labels for name, (_, labels) in GAUGES.items()}}


def test_the_customers_names_and_labels_are_there_literally() -> None:
    assert {name: declared().get(name) for name in CUSTOMERS} == CUSTOMERS


def test_the_customers_buckets_and_stages_are_there_literally() -> None:
    latency = DECLARED["latency_exchange_to_collector_ms"]
    assert latency.buckets == (1, 5, 10, 25, 50, 100, 250, 500, 1000, 5000)
    stages = VALUES["archive_failures_total"]["stage"]
    assert stages[:6] == ("fetch", "parquet", "upload", "verify_size", "verify_head", "timeout")
    assert {f"collector_{name}" for name, metric in DECLARED.items() if metric.buckets} == HISTOGRAMS
    assert all(DECLARED.keys() & {name.removeprefix("collector_")} for name in HISTOGRAMS)


def test_values_belong_to_labels_that_are_declared() -> None:
    assert {name: set(values) - set(DECLARED[name].labels) for name, values in VALUES.items()} == {
        name: set() for name in VALUES
    }


def test_no_name_is_declared_twice_and_counters_end_as_counters_do() -> None:
    assert DECLARED.keys() & GAUGES.keys() == set()
    assert all(name.endswith("_total") for name, metric in DECLARED.items() if not metric.buckets)
    assert not any(name.endswith("_total") for name in GAUGES)


def documented() -> dict[str, dict[str, tuple[str, ...]]]:
    """Heading -> metric -> labels of the tables of docs/metrics.md."""
    found = {}
    for heading, body in re.findall(r"(?ms)^## (Counters and histograms|Gauges)$(.*?)(?=^## |\Z)", METRICS_MD):
        rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| \S.*? \| \S.* \|$", body)
        found[heading] = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    return found


def test_every_metric_is_documented_with_its_labels_and_nothing_else_is() -> None:
    assert documented() == {
        "Counters and histograms": {name: metric.labels for name, metric in DECLARED.items()},
        "Gauges": {name: labels for name, (_, labels) in GAUGES.items()},
    }


@pytest.mark.parametrize("name", sorted(name for name, metric in DECLARED.items() if metric.buckets))
def test_the_documented_buckets_are_the_declared_ones(name: str) -> None:
    (row,) = re.findall(rf"(?m)^\| `{name}` .* Buckets (.*)\. \|$", METRICS_MD)
    assert tuple(float(bound) for bound in row.split(", ")) == DECLARED[name].buckets


def test_every_value_of_a_label_is_documented() -> None:
    known = {
        value for labels in VALUES.values() for label, values in labels.items() if label != "reason" for value in values
    }
    known |= {*metrics.STATIONS, *metrics.FEED_STATES}
    assert (
        sorted(
            value
            for value in known
            if f"`{value}`" not in METRICS_MD and value not in ("success", "failure", "text", "stored")
        )
        == []
    )


def test_zeros_are_the_series_that_a_counted_metric_has() -> None:
    registry = CollectorRegistry(auto_describe=False)
    histogram = metrics.Histogram("collector_size", "Sizes.", ("feed",), registry=registry, buckets=(1.0, 2.5))
    histogram.labels("trade").observe(0)
    found = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    ]
    assert list(zeros(Declared("size", "Sizes.", ("feed",), (1.0, 2.5)), {"feed": "trade"})) == found


def test_many_observations_at_once_are_as_each_by_itself() -> None:
    registry = CollectorRegistry(auto_describe=False)
    one, many = (
        metrics.Histogram(f"collector_{name}", "Sizes.", registry=registry, buckets=(1.0, 2.5)) for name in "ab"
    )
    for value in (0.5, 1.0, 1.5, 7.0):
        one.observe(value)
    many.add([2, 1, 1], 10.0)
    told = {
        name: [
            (s.name[len(name) :], s.labels, s.value)
            for m in registry.collect()
            for s in m.samples
            if s.name.startswith(name) and "_created" not in s.name
        ]
        for name in ("collector_a", "collector_b")
    }
    assert told["collector_a"] == told["collector_b"] != []
