"""Rows <-> one Parquet file. The only importer of pyarrow, and only when called: it weighs 50 MB.

The file depends on the rows alone, not on how they were cut into chunks: the same rows under the same pyarrow give the
same bytes, so that an archive run that was killed writes the same object again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from glob import escape
from itertools import accumulate, groupby
from operator import sub
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from app.objects.disk import fsync_directory, make_directories

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

# Read by Arrow when it is first used. Its own choice keeps 20 MiB more of what was given back, and a pool that is chosen
# later is not that of its Parquet writer (docs/performance.md). Elsewhere a build may come without it.
if sys.platform == "linux":
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")

#: exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch. The rest is constant in a file.
Row = tuple[str, int, int | None, str, str]
#: The same of many rows.
Columns = tuple[tuple[str, ...], tuple[int, ...], tuple[int | None, ...], tuple[str, ...], tuple[str, ...]]

#: Name, Arrow type, nullable; in the order of the file.
COLUMNS = (
    ("exchange", "string", False),
    ("symbol", "string", False),
    ("data_type", "string", False),
    ("exchange_sequence_id", "string", False),
    ("timestamp_collector", "int64", False),
    ("timestamp_exchange", "int64", True),
    ("data", "string", False),
    ("epoch", "string", False),
)
_CONSTANT = ("exchange", "symbol", "data_type")
_VARYING = tuple(name for name, _, _ in COLUMNS if name not in _CONSTANT)

#: Rows, and bytes of text, that are Python objects at once. More is not faster and costs memory.
CHUNK_ROWS = 2_000
CHUNK_BYTES = 256 * 1024
#: A row group is closed by the chunk that brings it to this much text, in bytes, or this many rows. It bounds the memory,
#: and so does their number: the writer keeps 7 KiB of each to the end (docs/performance.md).
GROUP_BYTES = 8 * 1024 * 1024
GROUP_ROWS = 100_000
MINUTE_US = 60_000_000
#: Smaller ones compress worse, larger ones no better.
_PAGE_BYTES = 256 * 1024


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. Ids are of the first and last row; times are the smallest and largest, in microseconds."""

    rows: int
    size_bytes: int
    #: Hex, of the bytes as they were handed to the disk.
    sha256: str
    first_id: str | None
    last_id: str | None
    first_us: int | None
    last_us: int | None
    first_exchange_us: int | None
    last_exchange_us: int | None
    #: Smallest timestamp_collector - timestamp_exchange.
    clock_offset_us: int | None
    #: (minute, the same of the rows received in it), by minute, in microseconds.
    clock_offsets: tuple[tuple[int, int], ...] = ()
    #: Characters of `data` of all rows.
    text_bytes: int = 0


@cache
def schema() -> pa.Schema:
    """The Arrow schema of every file."""
    import pyarrow as pa

    return pa.schema([pa.field(name, getattr(pa, kind)(), nullable) for name, kind, nullable in COLUMNS])


def version() -> str:
    """Version of pyarrow, for the manifest."""
    import pyarrow as pa

    return str(pa.__version__)


def write(
    path: Path,
    chunks: Iterable[Sequence[Row]],
    *,
    exchange: str,
    symbol: str,
    data_type: str,
    metadata: Mapping[str, str] | None = None,
) -> Written:
    """Write all rows of `chunks`, in order, to `path`, which appears whole and durable or not at all.

    `metadata` goes into the file's footer: it must not differ between two runs that shall give the same bytes. Memory
    is bounded by one row group, or by the largest single row, beside the chunk that the caller holds. No rows give a
    valid, empty file.
    Raises: OSError from the disk, and whatever `chunks` raises; nothing is left behind then. What a killed process
    left is removed by the next write to the same path.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    make_directories(path.parent)
    for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{token_hex(8)}.tmp")
    tally = _Tally()
    try:
        with open(temporary, "xb") as file:
            sink = _HashingSink(file)
            with pq.ParquetWriter(
                sink,
                schema(),
                compression="zstd",
                compression_level=1,
                use_dictionary=[*_CONSTANT, "epoch"],
                write_statistics=[name for name, _, _ in COLUMNS if name != "data"],
                data_page_size=_PAGE_BYTES,
                store_schema=False,
            ) as writer:
                for group in _groups(chunks, (exchange, symbol, data_type), tally):
                    writer.write_table(group, row_group_size=max(1, group.num_rows))
                    del group  # before the next one is made
                if metadata:
                    writer.add_key_value_metadata(dict(sorted(metadata.items())))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)
    return tally.written(sink.sha256(), sink.size_bytes)


def read(source: Path | BinaryIO) -> Iterator[list[Row]]:
    """The rows of a file that `write` made, in order, at most `CHUNK_ROWS` at a time and one row group in memory.

    Raises: ValueError where it is no such file.
    """
    import pyarrow.parquet as pq

    # Read by the thread that asks: one of Arrow's that is still in Python when the process ends aborts it (SIGABRT).
    with pq.ParquetFile(source, pre_buffer=False) as file:
        if not file.schema_arrow.equals(schema()):
            raise ValueError(f"{source}: its columns are not those of an archived object: {file.schema_arrow.names}")
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=[group], columns=list(_VARYING), use_threads=False):
                yield list(zip(*(batch.column(name).to_pylist() for name in _VARYING), strict=True))


def _groups(chunks: Iterable[Sequence[Row]], constants: tuple[str, str, str], tally: _Tally) -> Iterator[pa.Table]:
    """Row groups as tables. Cut by the rows alone, so that the caller's chunks leave no trace in the file."""
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    batch = _no_rows()
    batch_bytes = group_rows = group_bytes = 0
    for chunk in filter(None, chunks):
        # Rows are turned into columns once; whatever is asked of all rows of a column is then asked in C.
        columns: Columns = tuple(zip(*chunk, strict=True))  # type: ignore[assignment]
        tally.add(columns)
        # Characters, not bytes: the venues write ASCII, and counting must not cost an encoding.
        texts = zip(map(len, columns[0]), map(len, columns[3]), map(len, columns[4]), strict=True)
        sizes = list(accumulate([a + b + c for a, b, c in texts], initial=0))
        start = 0
        while start < len(chunk):
            fills = bisect_left(sizes, sizes[start] + CHUNK_BYTES - batch_bytes, start + 1)
            end = min(fills, start + CHUNK_ROWS - len(batch[0]), len(chunk))
            for held, column in zip(batch, columns, strict=True):
                held.extend(column[start:end])
            batch_bytes += sizes[end] - sizes[start]
            start = end
            if batch_bytes < CHUNK_BYTES and len(batch[0]) < CHUNK_ROWS:
                continue
            group_rows, group_bytes = group_rows + len(batch[0]), group_bytes + batch_bytes
            batches.append(_batch(batch, constants))
            batch, batch_bytes = _no_rows(), 0
            if group_bytes >= GROUP_BYTES or group_rows >= GROUP_ROWS:
                yield pa.Table.from_batches(batches)
                batches = []
                group_rows = group_bytes = 0
    if batch[0]:
        batches.append(_batch(batch, constants))
    if batches:
        yield pa.Table.from_batches(batches)


def _no_rows() -> list[list[Any]]:
    return [[] for _ in _VARYING]


def _batch(columns: Sequence[list[Any]], constants: tuple[str, str, str]) -> pa.RecordBatch:
    import pyarrow as pa

    rows = len(columns[0])
    arrays = dict(zip(_CONSTANT, (pa.repeat(pa.scalar(text), rows) for text in constants), strict=True))
    for name, column in zip(_VARYING, columns, strict=True):
        arrays[name] = pa.array(column, schema().field(name).type)
    return pa.record_batch([arrays[name] for name, _, _ in COLUMNS], schema=schema())


class _HashingSink:
    """A file object as pyarrow wants it, that hashes on the way: a bit that rots later on the disk does not match."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha = hashlib.sha256()
        self.size_bytes = 0
        self.closed = False

    def write(self, piece: Any) -> int:
        self._file.write(piece)
        self._sha.update(piece)
        self.size_bytes += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self.size_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """pyarrow is done; the file stays open to be made durable."""
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def sha256(self) -> str:
        return self._sha.hexdigest()


class _Tally:
    """Counts rows as they pass."""

    def __init__(self) -> None:
        self._rows = self._text_bytes = 0
        self._ids: tuple[str, ...] | None = None
        self._collector: tuple[int, int] | None = None
        self._exchange: tuple[int, int] | None = None
        self._offsets: dict[int, int] = {}

    def add(self, columns: Columns) -> None:
        ids, collector, exchange, data, _ = columns
        self._rows += len(ids)
        self._text_bytes += sum(map(len, data))
        self._ids = (self._ids or ids)[0], ids[-1]
        self._collector = _widened(self._collector, collector)
        if None in exchange:
            timed = [(ours, theirs) for ours, theirs in zip(collector, exchange, strict=True) if theirs is not None]
            if not timed:
                return
            collector, exchange = zip(*timed, strict=True)
        self._exchange = _widened(self._exchange, exchange)  # type: ignore[arg-type]  # no None is left
        offsets = map(sub, collector, exchange)
        minutes = [us // MINUTE_US for us in (min(collector), max(collector))]
        if minutes[0] == minutes[1]:
            self._offset(minutes[0], min(offsets))
            return
        for minute, group in groupby(zip(collector, offsets, strict=True), lambda row: row[0] // MINUTE_US):
            self._offset(minute, min([offset_us for _, offset_us in group]))

    def _offset(self, minute: int, offset_us: int) -> None:
        self._offsets[minute] = min(offset_us, self._offsets.get(minute, offset_us))

    def written(self, sha256: str, size_bytes: int) -> Written:
        return Written(
            rows=self._rows,
            size_bytes=size_bytes,
            sha256=sha256,
            first_id=self._ids[0] if self._ids else None,
            last_id=self._ids[1] if self._ids else None,
            first_us=self._collector[0] if self._collector else None,
            last_us=self._collector[1] if self._collector else None,
            first_exchange_us=self._exchange[0] if self._exchange else None,
            last_exchange_us=self._exchange[1] if self._exchange else None,
            clock_offset_us=min(self._offsets.values(), default=None),
            clock_offsets=tuple((minute * MINUTE_US, offset) for minute, offset in sorted(self._offsets.items())),
            text_bytes=self._text_bytes,
        )


def _widened(bounds: tuple[int, int] | None, values: Sequence[int]) -> tuple[int, int]:
    low, high = min(values), max(values)
    return (low, high) if bounds is None else (min(low, bounds[0]), max(high, bounds[1]))
