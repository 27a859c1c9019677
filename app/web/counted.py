"""The counts of all processes as metric families: every set of labels that can be known is there from the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from prometheus_client.core import Metric

from app.metrics import DECLARED, VALUES, Declared, Series, zeros
from app.model import UNDECODED
from app.pipeline.plan import Stream

#: Metrics that count frames which could not be decoded, too: their symbol and data type are `?`.
_UNDECODED = ("messages_received_total", "messages_quarantined_total")
Labels = dict[str, str]


def families(sums: Mapping[Series, float], streams: Mapping[str, Stream]) -> Iterator[Metric]:
    """Every declared metric: `sums` as the tally has them, 0 for what of the plan was not counted yet."""
    names = {series: metric for metric in DECLARED.values() for series in _names(metric)}
    found: dict[str, dict[Series, float]] = {name: {} for name in DECLARED}
    for metric in DECLARED.values():
        for labels in _planned(metric, streams):
            found[metric.name].update(dict.fromkeys(zeros(metric, labels), 0.0))
    for series, value in sorted(sums.items()):
        counted = names.get(series[0])
        if counted is None:
            continue  # of another version
        samples = found[counted.name]
        if series not in samples:
            samples.update(dict.fromkeys(zeros(counted, {k: v for k, v in series[1] if k != "le"}), 0.0))
        samples[series] = value
    for metric in DECLARED.values():
        kind = "histogram" if metric.buckets else "counter"
        family = Metric(f"collector_{metric.name}".removesuffix("_total"), metric.says, kind)
        for (name, pairs), value in found[metric.name].items():
            family.add_sample(name, dict(pairs), value)
        yield family


def _names(metric: Declared) -> tuple[str, ...]:
    name = f"collector_{metric.name}"
    return tuple(f"{name}_{part}" for part in ("bucket", "count", "sum")) if metric.buckets else (name,)


def _planned(metric: Declared, streams: Mapping[str, Stream]) -> Iterator[Labels]:
    known = VALUES.get(metric.name, {})
    values = [known[label] for label in metric.labels if label in known]
    own = [label for label in metric.labels if label in known]
    for labels in _markets(metric, streams):
        for chosen in product(*values):
            yield {**labels, **dict(zip(own, chosen, strict=True))}


def _markets(metric: Declared, streams: Mapping[str, Stream]) -> Iterator[Labels]:
    """What the plan says of the labels exchange, symbol and data_type, each set once."""
    wanted = [label for label in metric.labels if label in ("exchange", "symbol", "data_type")]
    if not wanted:
        yield {}
        return
    seen: dict[tuple[str, ...], Labels] = {}
    for stream in streams.values():
        feeds = list(product(stream.subscription.symbols, stream.subscription.feeds))
        if metric.name in _UNDECODED:
            feeds.append((UNDECODED, UNDECODED))
        for symbol, feed in feeds:
            every = {"exchange": stream.exchange, "symbol": symbol, "data_type": feed}
            labels = {label: every[label] for label in wanted}
            seen[tuple(labels.values())] = labels
    yield from seen.values()
