"""One scrape: the counts of all processes from Redis, and gauges computed now from Redis, the ledger and the disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError

from app.buffer.events import Depth
from app.buffer.spool import sizes
from app.clock import monotonic_s, wall_us
from app.errors import BufferUnavailable, CollectorError
from app.metrics import FEED_STATES, GAUGES, STATIONS, Series
from app.pipeline.gaps import OPEN, PARTLY, REPAIRED, UNREPAIRABLE, states
from app.pipeline.room import FULL, LOW, Room, size_bytes
from app.store.figures import Figures, figures
from app.web.counted import families
from app.web.health import bounds_s
from app.web.look import Look
from app.wiring import Wiring

#: A scrape is answered within this, whatever hangs.
ANSWER_S = 0.8
#: Figures of the ledger and the disk are read so often at most, and shown so long while they are read again.
LEDGER_S, LEDGER_STALE_S = 5.0, 60.0
DAY_US = 86_400 * 1_000_000
#: Segments that may wait beside those that are sealed while the archive is not late.
SEGMENTS_BESIDE = 3

Feed = tuple[str, str, str]


class Redis(NamedTuple):
    """What Redis says at one moment."""

    sums: dict[Series, float]
    states: dict[str, dict[str, Any]]
    held: set[str]
    depths: dict[str, Depth]
    oldest_us: dict[str, int]
    successes: dict[str, int]
    troubles: dict[str, dict[str, Any]]
    completeness: dict[Feed, float]
    memory: tuple[int, int]


class Local(NamedTuple):
    """What this host's data directory says."""

    figures: Figures
    gaps: dict[str, int]
    #: Where the oldest of the open ones begins.
    gap_open_since_us: int | None
    local_bytes: int
    room: Room


class Scrape:
    """A Prometheus collector. `collect` answers within a second although Redis or the disk hang."""

    def __init__(self, wiring: Wiring, started_s: float) -> None:
        self._wiring, self._started_s = wiring, started_s
        self._redis = Look("look at Redis", self._ask_redis, (BufferUnavailable,), monotonic_s=monotonic_s)
        self._local = Look(
            "look at the ledger", self._ask_local, (SQLAlchemyError, CollectorError, OSError), monotonic_s=monotonic_s,
            keep_s=LEDGER_S, stale_s=LEDGER_STALE_S,
        )  # fmt: skip
        self._spools = Look(
            "look at the spools", self._ask_spools, (OSError,), monotonic_s=monotonic_s,
            keep_s=LEDGER_S, stale_s=LEDGER_STALE_S,
        )  # fmt: skip
        #: When data of each market last came: kept while nobody has its stream.
        self._last_us: dict[tuple[str, str], int] = {}

    def collect(self) -> Iterator[Metric]:
        """Every metric; those of Redis are left out while it does not answer, those of the ledger while it does not."""
        until_s = monotonic_s() + ANSWER_S
        self._local.begin()
        self._spools.begin()
        redis = self._redis.answer(until_s - monotonic_s())
        local = self._local.answer(until_s - monotonic_s())
        spools = self._spools.answer(until_s - monotonic_s()) or {}
        yield _gauge("start_timestamp_seconds", [((), self._started_s)])
        yield _gauge("redis_up", [((), redis is not None)])
        yield _gauge("ledger_up", [((), local is not None)])
        if redis is not None:
            yield from families(redis.sums, self._wiring.streams)
            yield from self._of_feeds(redis)
            yield from self._of_streams(redis)
            yield from self._of_stations(redis)
        yield from self._of_spools(redis.states if redis is not None else {}, spools)
        yield from self._bounds()
        if local is not None:
            yield from _of_ledger(local)

    def _ask_redis(self) -> Redis:
        wiring, board, buffer = self._wiring, self._wiring.board, self._wiring.buffer
        names = list(wiring.streams)
        depths = {depth.stream: depth for depth in buffer.depths()}
        beat_s = board.last_beat_s()
        successes = {**board.successes(), **({"supervise": beat_s} if beat_s is not None else {})}
        return Redis(
            wiring.tally.sums(), board.states(names), board.leased(names), depths, buffer.oldest_us(list(depths)),
            successes, board.troubles(), board.completeness(), buffer.memory(),
        )  # fmt: skip

    def _ask_local(self) -> Local:
        wiring, storage = self._wiring, self._wiring.settings.storage
        found = figures(wiring.ledger_here, tuple(store.name for store in wiring.stores))
        since_us = wall_us() - DAY_US
        records = wiring.stored.records
        gaps = dict.fromkeys((OPEN, PARTLY, REPAIRED, UNREPAIRABLE), 0)
        open_since_us = None
        for gap in states(
            records("gaps", since=("after_us", since_us)), records("repairs", since=("found_us", since_us))
        ):
            gaps[gap["state"]] = gaps.get(gap["state"], 0) + 1
            if gap["state"] == OPEN and open_since_us is None:  # the oldest comes first
                open_since_us = gap["after_us"]
        held = size_bytes(storage.segments_path) + size_bytes(wiring.settings.archive.dir)
        return Local(found, gaps, open_since_us, held + found.store_bytes.get("local", 0), wiring.disk.room())

    def _ask_spools(self) -> dict[str, int]:
        """Stream -> bytes in its spool, of the streams that have one on this host."""
        return sizes(self._wiring.settings.spool.dir)

    def _bounds(self) -> Iterator[Metric]:
        """What is late, by the settings."""
        bounds = bounds_s(self._wiring.settings)
        yield _gauge("station_bound_seconds", [((name,), bound_s) for name, bound_s in bounds.items()])
        waiting = SEGMENTS_BESIDE + bounds["archive"] / self._wiring.settings.storage.segment_secs
        yield _gauge("segments_bound", [((), waiting)])

    def _of_spools(self, told: Mapping[str, Mapping[str, Any]], here: Mapping[str, int]) -> Iterator[Metric]:
        """By the streams themselves, and of those that say nothing by this host's disk; left out where nobody knows."""
        known = {
            name: told[name].get("spool_bytes", 0) if name in told else here.get(name) for name in self._wiring.streams
        }
        yield _gauge("spool_bytes", [((name,), size) for name, size in sorted(known.items()) if size is not None])

    def _of_feeds(self, redis: Redis) -> Iterator[Metric]:
        now_us = wall_us()
        connected, age, last, state, ratio = [], [], [], [], []
        for name, stream in self._wiring.streams.items():
            told = redis.states.get(name)
            if told is None and name in redis.held:
                continue  # somebody runs it and cannot say so: a full Redis takes no state
            feeds = {(f["symbol"], f["feed"]): f for f in told["feeds"]} if told else {}
            for symbol in stream.subscription.symbols:
                market = stream.exchange, symbol
                connected.append((market, told is not None and told["connection"] == "open"))
                for feed in stream.subscription.feeds:
                    labels = *market, feed
                    one = feeds.get((symbol, feed))
                    now = one["state"] if one else "subscribing" if told else "down"
                    state += [((*labels, known), known == now) for known in FEED_STATES]
                    last_us = one.get("last_us") if one else None
                    if last_us is not None:
                        self._last_us[market] = max(last_us, self._last_us.get(market, 0))
                    if one is not None:
                        age.append((labels, (now_us - last_us) / 1e6 if last_us is not None else one["age_s"]))
                    if labels in redis.completeness:
                        ratio.append((labels, redis.completeness[labels]))
                if market in self._last_us:
                    last.append((market, self._last_us[market] / 1e6))
        yield _gauge("websocket_connected", connected)
        yield _gauge("last_message_timestamp_seconds", last)
        yield _gauge("feed_age_seconds", age)
        yield _gauge("feed_state", state)
        yield _gauge("completeness_ratio", ratio)

    def _of_streams(self, redis: Redis) -> Iterator[Metric]:
        now_us, planned = wall_us(), self._wiring.streams
        names, none = sorted(planned.keys() | redis.depths.keys()), Depth("", 0, 0, 0)
        depths = {name: redis.depths.get(name, none) for name in names}
        yield _gauge("channel_queue_depth", [((), sum(depth.events for depth in depths.values()))])
        yield _gauge("buffer_batches", [((name,), depth.batches) for name, depth in depths.items()])
        yield _gauge("buffer_events", [((name,), depth.events) for name, depth in depths.items()])
        yield _gauge("buffer_bytes", [((name,), depth.bytes) for name, depth in depths.items()])
        ages = {name: (now_us - us) / 1e6 for name, us in redis.oldest_us.items()}
        yield _gauge("oldest_unstored_seconds", [((name,), ages.get(name, 0.0)) for name in names])
        for metric, key in (("memory_queue_events", "queued"), ("spool_events", "spool_events")):
            yield _gauge(metric, [((name,), state.get(key, 0)) for name, state in sorted(redis.states.items())])
        open_ = sum(state["connection"] == "open" for state in redis.states.values())
        yield _gauge("streams", [(("planned",), len(planned)), (("held",), len(redis.held)), (("open",), open_)])
        offsets: dict[str, list[int]] = {}
        for name, state in redis.states.items():
            if (offset_us := state.get("offset_us")) is not None:
                offsets.setdefault(planned[name].exchange, []).append(offset_us)
        yield _gauge("clock_offset_seconds", [((venue,), min(found) / 1e6) for venue, found in offsets.items()])

    def _of_stations(self, redis: Redis) -> Iterator[Metric]:
        done = [((name,), redis.successes.get(name, 0)) for name in STATIONS]
        yield _gauge("station_last_success_timestamp_seconds", done)
        told = {name: notice["level"] == "degraded" for name, notice in redis.troubles.items()}
        yield _gauge("station_troubled", [((n,), told.get(n, False)) for n in sorted({*STATIONS, "segments"})])
        used, most = redis.memory
        yield _gauge("redis_memory_bytes", [((), used)])
        yield _gauge("redis_memory_max_bytes", [((), most)])


def _of_ledger(local: Local) -> Iterator[Metric]:
    found = local.figures
    since_us = found.unarchived_since_us
    yield _gauge("segments", [((state,), count) for state, count in found.segments.items()])
    yield _gauge("objects", [((state,), count) for state, count in found.objects.items()])
    yield _gauge("unarchived_rows", [((), found.unarchived_rows)])
    yield _gauge("oldest_unarchived_seconds", [((), 0 if since_us is None else (wall_us() - since_us) / 1e6)])
    yield _gauge("gaps", [((state,), count) for state, count in local.gaps.items()])
    open_us = local.gap_open_since_us
    yield _gauge("oldest_open_gap_seconds", [((), 0 if open_us is None else (wall_us() - open_us) / 1e6)])
    yield _gauge("local_bytes", [((), local.local_bytes)])
    yield _gauge("disk_used_ratio", [((), local.room.share)])
    yield _gauge("disk_level", [((level,), level == local.room.level) for level in (LOW, FULL)])


def _gauge(name: str, samples: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    says, labels = GAUGES[name]
    family = GaugeMetricFamily(f"collector_{name}", says, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family
