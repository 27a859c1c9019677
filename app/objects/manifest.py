"""What an object holds, in words: one JSON beside each Parquet file, written once and never again.

Fields may be added with a default; none is renamed, retyped or removed (docs/formats.md). A later finding about the
same hour is a record of its own that names this key.
"""

from __future__ import annotations

import msgspec

FORMAT = 1


class NumberRange(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers first..last of one epoch, and what became of the events that bore them."""

    epoch: str
    first: int
    last: int
    stored: int
    #: Same identity (and, for books, the same bytes) was already stored.
    duplicates: int = 0
    quarantined: int = 0
    #: Of those stored: same identity as another event, other bytes, hence stored as `id~hash`.
    conflicts: int = 0
    #: Identity and receive time of the events that bear the first and the last number; None where these are no events.
    first_id: str | None = None
    last_id: str | None = None
    first_us: int | None = None
    last_us: int | None = None


class EpochSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that fed this object. None: not known when the manifest was written."""

    epoch: str
    opened_us: int | None = None
    ended_us: int | None = None
    reason: str | None = None
    #: `stream` (a connection) or `rest` (events that were asked for to close a gap).
    kind: str = "stream"
    #: Epochs that were still going on when this one began: their events came twice, and were stored once.
    overlaps: tuple[str, ...] = ()


class GapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A proven hole in what the venue sent; fields as in `app.model.Gap`."""

    epoch: str
    number: int
    from_id: str
    to_id: str
    size: int | None
    before_us: int
    after_us: int
    cause: str
    #: State and finds of its newest repair when this was written; None: none yet.
    repair: str | None = None
    found: int = 0


class LossRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that were received and then given up; fields as in `app.model.Loss`."""

    epoch: str
    first: int
    last: int
    count: int | None
    start_us: int
    end_us: int
    cause: str


class RepairRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out, while this segment was open, about a gap of this or an earlier one; as `app.model.Repair`."""

    epoch: str
    number: int
    found_us: int
    state: str
    found: int
    detail: str
    #: The epoch that brought what was found.
    by_epoch: str


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on an interval of this feed; fields as in `app.model.Check`."""

    kind: str
    start_us: int
    end_us: int
    verdict: str
    checked_us: int
    detail: str


class IdSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Trade ids of this object, where the venue's count one by one: all from first to last but the holes (from, to)."""

    first: int
    last: int
    holes: tuple[tuple[int, int], ...] = ()


class MinuteOffset(msgspec.Struct, frozen=True, kw_only=True):
    """Smallest receive time minus exchange time of the rows received in the minute that began at `minute_us`."""

    minute_us: int
    offset_us: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One object. Times are microseconds since the Unix epoch, None where there are none."""

    format: int = FORMAT
    #: Key of the object; the manifest's own is `layout.manifest_key(key)`.
    key: str
    exchange: str
    symbol: str
    data_type: str
    server: str | None = None
    #: Number of the segment, and UUID of the data directory that numbered it.
    segment: int
    data_dir: str
    opened_us: int
    sealed_us: int
    rows: int
    size_bytes: int
    #: Hex, of the whole object.
    sha256: str
    #: Of the first and last row in the order of the file, which is the order they were stored in.
    first_id: str | None = None
    last_id: str | None = None
    #: Smallest and largest of the rows, whatever their order.
    first_collector_us: int | None = None
    last_collector_us: int | None = None
    first_exchange_us: int | None = None
    last_exchange_us: int | None = None
    #: Smallest receive time minus exchange time: the true offset of the clocks is at most this.
    clock_offset_us: int | None = None
    #: The same for each minute with rows that have both: upper bounds, they hold the way of the frame too.
    clock_offsets: tuple[MinuteOffset, ...] = ()
    #: None where the venue's trade ids do not count, or too much is missing to be listed.
    ids: IdSpan | None = None
    #: Events that came again and are stored once, by the ranges.
    duplicates: int = 0
    ranges: tuple[NumberRange, ...] = ()
    epochs: tuple[EpochSpan, ...] = ()
    gaps: tuple[GapRecord, ...] = ()
    losses: tuple[LossRecord, ...] = ()
    repairs: tuple[RepairRecord, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    #: Frames and rows of this market and data type kept in the quarantine of the segment.
    quarantined: int = 0
    #: As `app.objects.completeness` says of the facts above, at sealing; findings that came later may say more.
    completeness: float | None = None
    completeness_reasons: tuple[str, ...] = ()
    collector_version: str
    #: The same rows give the same bytes only under the same one.
    pyarrow_version: str


def encode(manifest: Manifest) -> bytes:
    """Its JSON: keys sorted, two spaces, one newline at the end. Equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(text: bytes) -> Manifest:
    """The manifest in `text`; fields of a newer Collector are ignored.

    Raises: ValueError where it is not one, or of a format this Collector does not know.
    """
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise ValueError(f"manifest of format {manifest.format}; this Collector reads format {FORMAT}")
    return manifest
