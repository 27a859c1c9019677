"""What a scrape says, and what this process counts from now on as if it had just begun."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app import metrics
from app.buffer.tally import Reporter
from app.web.scrape import Scrape
from app.wiring import Wiring

#: Name of a sample, its labels by name.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
FEED = ("exchange", "symbol", "data_type")
#: received = the sum of these + what waits. What a damaged segment lost had been stored before.
OUTCOMES = ("stored", "duplicate", "quarantined", "lost")


def reporter(wiring: Wiring) -> Reporter:
    """Brings what is counted from now on, for the tests of one process share one memory."""
    before = metrics.counted()

    def counted() -> dict[metrics.Series, float]:
        return {series: value - before.get(series, 0.0) for series, value in metrics.counted().items()}

    return Reporter(wiring.tally, uuid.uuid4().hex, counted)


def samples(text: str) -> Samples:
    """The text of /metrics as Prometheus reads it. Fails where a series stands twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
    return found


def scraped(wiring: Wiring) -> Samples:
    """What `/metrics` of this wiring tells now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(wiring, 0.0))
    return samples(generate_latest(registry).decode())


def by_feed(found: Samples, name: str) -> dict[tuple[str, str, str], float]:
    """Sums of a counter by (exchange, symbol, data type), where they are above 0; whatever other labels it has."""
    sums: dict[tuple[str, str, str], float] = {}
    for (sample, labels), value in found.items():
        if sample == f"collector_{name}" and value:
            told = dict(labels)
            key = told["exchange"], told["symbol"], told["data_type"]
            sums[key] = sums.get(key, 0.0) + value
    return sums


def unaccounted(found: Samples) -> dict[tuple[str, str, str], float]:
    """received - stored - duplicate - quarantined - lost of each feed, where that is not 0."""
    left = dict(by_feed(found, "messages_received_total"))
    for outcome in OUTCOMES:
        for feed, events in by_feed(found, f"messages_{outcome}_total").items():
            left[feed] = left.get(feed, 0.0) - events
    return {feed: events for feed, events in left.items() if events}


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels."""
    wanted: Mapping[str, str] = labels
    return sum(
        value
        for (sample, pairs), value in found.items()
        if sample == f"collector_{name}" and wanted.items() <= dict(pairs).items()
    )
