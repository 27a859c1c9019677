"""Every metric of Collector: its name, what it says, its labels. Names and buckets of the customer's documents stand first.

A process counts here, in its own memory; app/buffer/tally.py brings the counts of all processes together in Redis, and the
web process shows their sums (app/web). What is a fact at the moment of a scrape is not counted: `GAUGES` are computed then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter
from prometheus_client import Histogram as PlainHistogram
from prometheus_client.utils import floatToGoString

#: Counted by every process for itself; the sums are what is shown.
COUNTED = CollectorRegistry(auto_describe=False)

_MARKET = ("exchange", "symbol")
_FEED = (*_MARKET, "data_type")

Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name of a sample and its labels, by name."""


class Declared(NamedTuple):
    """A metric as it is declared; `name` without the prefix, `buckets` empty for a counter."""

    name: str
    says: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


#: Every counted metric by name, in the order of this file.
DECLARED: dict[str, Declared] = {}


class Histogram(PlainHistogram):
    """One that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """`counts`: observations in each bucket (not those below), the last beyond all bounds; `total`: their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


def _counter(name: str, says: str, labels: tuple[str, ...] = ()) -> Counter:
    DECLARED[name] = Declared(name, says, labels)
    return Counter(f"collector_{name}", says, labels, registry=COUNTED)


def _histogram(name: str, says: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = ()) -> Histogram:
    DECLARED[name] = Declared(name, says, labels, buckets)
    return Histogram(f"collector_{name}", says, labels, registry=COUNTED, buckets=buckets)


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 10000.0)

# connections

RECONNECTS = _counter("websocket_reconnects_total", "Connections opened after the first one of a stream.", _MARKET)
TIMEOUTS = _counter(
    "message_timeouts_total", "Connections that carried the symbol and ended because nothing came.", _MARKET
)
CIRCUIT_BREAKS = _counter(
    "parse_circuit_breaks_total", "Connections closed because too much could not be decoded.", ("exchange",)
)
CLOSES = _counter("connection_closes_total", "Ends of connections by reason.", ("exchange", "reason"))
PINGS = _counter("websocket_pings_total", "Pings sent.", ("exchange",))
PONGS = _counter("websocket_pongs_total", "Pongs (and pings of the venue) received.", ("exchange",))

# what was received

RECEIVED = _counter("messages_received_total", "Events received and numbered.", _FEED)
DROPPED = _counter("messages_dropped_total", "Events refused because the memory queue was full; each is declared lost.")
#: Upper bounds of the customer's buckets, milliseconds.
LATENCY_BUCKETS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 5000)
LATENCY_MS = _histogram(
    "latency_exchange_to_collector_ms",
    "Receive time minus exchange time, milliseconds, where not negative; the clocks' offset is in it.",
    _FEED,
    LATENCY_BUCKETS_MS,
)
LATENCY_NEGATIVE = _counter(
    "latency_negative_total", "Events received before the exchange's time of them: the clocks disagree.", _FEED
)
GAPS = _counter("sequence_gaps_total", "Holes shown by the venue's own numbers.", _FEED)
GAP_SIZE = _histogram("sequence_gap_size", "Missing ids of a hole, where ids count one by one.", _FEED, _SIZES)
OUT_OF_ORDER = _counter("sequence_out_of_order_total", "Events older than the one before them.", _FEED)
SEQUENCE_DUPLICATES = _counter("sequence_duplicates_total", "Events seen again on the same connection.", _FEED)
SPOOLED = _counter("spooled_batches_total", "Batches that went to the spool instead of Redis.", ("exchange",))

# what became of it: received = stored + duplicate + quarantined + lost + what still waits

STORED = _counter("messages_stored_total", "Events stored in a segment.", _FEED)
DUPLICATES = _counter("messages_duplicate_total", "Events that stood there already.", _FEED)
QUARANTINED = _counter("messages_quarantined_total", "Frames and rows kept as they came, not stored as events.", _FEED)
LOST = _counter("messages_lost_total", "Events declared lost, where their number is known.", (*_FEED, "cause"))
LOSSES = _counter(
    "losses_declared_total", "Declarations of a loss, also of one whose extent nobody knows.", (*_FEED, "cause")
)
REPLAYED = _counter(
    "messages_replayed_total", "Events that came out of Redis or a spool again; not received again.", _FEED
)

# flush

DB_WRITE_SECONDS = _histogram("db_write_seconds", "One write of the database.", ("operation",), _SECONDS)
DB_WRITTEN = _counter("db_snapshots_written_total", "Rows written.")
DB_ERRORS = _counter("db_insert_errors_total", "Claims and rows that the database refused.", ("error_type",))

# archive

ARCHIVES = _counter("archives_completed_total", "Archive cycles that ended without a failure.")
ARCHIVED = _counter("snapshots_archived_total", "Rows in objects proved equal in every store.")
UPLOAD_SECONDS = _histogram("s3_upload_seconds", "One put of an object, whatever the store.", ("status",), _SECONDS)
UPLOAD_FAILURES = _counter("s3_upload_failures_total", "Puts of objects that failed after every attempt.")
UPLOAD_RETRIES = _counter("s3_upload_retries_total", "Attempts of requests to the bucket after the first.")
ARCHIVE_FAILURES = _counter("archive_failures_total", "What kept an object or segment from being archived.", ("stage",))
PARQUET_ROWS = _counter("parquet_rows_total", "Rows written to Parquet.")
OBJECT_BYTES = _counter("object_bytes_total", "Objects written: their `data` as text, and the files.", ("kind",))

# gaps

BOOKS_BROKEN = _counter("books_broken_total", "Verdicts against a rebuilt book.", (*_MARKET, "kind"))
REPAIRS = _counter("gap_repairs_total", "Gaps and seams settled, by state.", ("exchange", "state"))

#: Metric -> label -> every value it may have, where that does not follow from the markets: counters begin at 0, not at
#: their first event. Other values may come (a new reason), and are counted all the same.
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "connection_closes_total": {
        "reason": (
            "stop", "handed_over", "lease_lost", "market_removed", "plan_changed", "planned_rotation", "venue_notice",
            "close_frame", "stream_ended", "dead_timeout", "data_timeout", "ping_failed", "subscribe_rejected",
            "oversized_frame", "circuit_breaker", "sender_died", "error",
        )
    },
    "messages_lost_total": {"cause": ("queue_full", "buffer_lost", "not_encodable", "segment_damaged")},
    "losses_declared_total": {"cause": ("queue_full", "buffer_lost", "not_encodable", "segment_damaged", "unclean_end")},
    "books_broken_total": {"kind": ("continuity", "crossed", "rest")},
    "db_write_seconds": {"operation": ("insert", "seal")},
    "db_insert_errors_total": {"error_type": ("locked", "full", "io", "damaged", "constraint", "other")},
    "s3_upload_seconds": {"status": ("success", "failure")},
    "archive_failures_total": {
        "stage": (
            "fetch", "parquet", "upload", "verify_size", "verify_head", "timeout",
            "verify_sha256", "conflict", "manifest", "removal", "store",
        )
    },
    "object_bytes_total": {"kind": ("text", "stored")},
    "gap_repairs_total": {"state": ("repaired", "partly", "unrepairable", "unknowable")},
}  # fmt: skip

#: Work that is done again and again, and says when it last succeeded.
STATIONS = ("supervise", "flush", "archive", "certify", "repair", "reckon")
#: States of a feed; `down`: no worker has its stream.
FEED_STATES = ("subscribing", "live", "quiet", "stale", "halted", "rejected", "down")

#: Name without prefix -> what it says, labels. Computed at each scrape, never counted.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "start_timestamp_seconds": ("When this web process started, Unix seconds.", ()),
    "redis_up": ("1 when Redis answered this scrape.", ()),
    "ledger_up": ("1 when the ledger could be read at this scrape.", ()),
    "websocket_connected": ("1 while the connection that carries the symbol is open.", _MARKET),
    "last_message_timestamp_seconds": ("When data of the symbol last came, Unix seconds.", _MARKET),
    "feed_age_seconds": ("Seconds since the last data of a feed.", _FEED),
    "feed_state": ("1 for the state a feed is in, 0 for the others.", (*_FEED, "state")),
    "channel_queue_depth": ("Events that wait in the Redis lists of all streams.", ()),
    "buffer_batches": ("Batches in the Redis list.", ("stream",)),
    "buffer_events": ("Events in the Redis list.", ("stream",)),
    "buffer_bytes": ("Bytes in the Redis list.", ("stream",)),
    "oldest_unstored_seconds": ("Age of the oldest event that waits in the Redis list; 0: none waits.", ("stream",)),
    "memory_queue_events": ("Events in the memory queue of the stream.", ("stream",)),
    "spool_bytes": (
        "Bytes in the spool of the stream; absent where neither it nor this host's disk says.",
        ("stream",),
    ),
    "spool_events": ("Events that wait in the spool of the stream.", ("stream",)),
    "streams": ("Streams of the plan: in all, held by a worker, open.", ("state",)),
    "station_last_success_timestamp_seconds": (
        "When a station last ran without trouble, Unix seconds; 0: not in the memory of this Redis.",
        ("station",),
    ),
    "station_bound_seconds": (
        "A station is late so long after its last run without trouble, by the settings.",
        ("station",),
    ),
    "station_troubled": ("1 while something keeps a station from its work.", ("station",)),
    "segments": ("Segments by state.", ("state",)),
    "segments_bound": ("Segments that may wait to be archived and removed while the archive is not late.", ()),
    "objects": ("Objects by state; what several stores hold counts in each.", ("state",)),
    "unarchived_rows": ("Rows of sealed segments that are not in a verified object of every store.", ()),
    "oldest_unarchived_seconds": ("Age of the oldest sealed segment that is not archived; 0: there is none.", ()),
    "gaps": ("Gaps of the last 24 hours by what became of them.", ("state",)),
    "oldest_open_gap_seconds": ("Age of the oldest open gap of the last 24 hours; 0: there is none.", ()),
    "completeness_ratio": (
        "Of the newest object: 1 where proved complete, less where what is missing was counted; absent where unknowable.",
        _FEED,
    ),
    "clock_offset_seconds": (
        "Smallest receive minus exchange time of the last minutes: the clocks' offset and the shortest way.",
        ("exchange",),
    ),
    "local_bytes": ("Bytes of segments, unfinished objects and local objects.", ()),
    "disk_used_ratio": ("Part of the disk, or of [storage] max_local_bytes, that is used.", ()),
    "disk_level": ("1 for the level that the disk has reached, by share and by what is free.", ("level",)),
    "redis_memory_bytes": ("What Redis uses.", ()),
    "redis_memory_max_bytes": ("Its maxmemory; 0 without one.", ()),
}


def zeros(metric: Declared, labels: dict[str, str]) -> Iterator[Series]:
    """The series of a metric that has been counted nothing of yet, for one set of labels."""
    name = f"collector_{metric.name}"
    if not metric.buckets:
        yield name, tuple(sorted(labels.items()))
        return
    for bound in (*metric.buckets, float("inf")):
        le = str(floatToGoString(bound))  # type: ignore[no-untyped-call]
        yield f"{name}_bucket", tuple(sorted({**labels, "le": le}.items()))
    for part in ("count", "sum"):
        yield f"{name}_{part}", tuple(sorted(labels.items()))


def counted() -> dict[Series, float]:
    """Every sample of this process by now. Sums only grow; times of creation are left out."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in COUNTED.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }
