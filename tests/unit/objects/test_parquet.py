from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.objects import parquet
from app.objects.parquet import Row, Written

ROOT = str(Path(__file__).resolve().parents[3])
EPOCH = "0a" * 16
ROWS: list[Row] = [
    ("101", 1_772_323_200_000_900, 1_772_323_200_000_100, '{"p":"64000.10","q":"0.5"}', EPOCH),
    ("103", 1_772_323_200_000_700, None, '{"p":"64000.20","n":"\u20bf"}', EPOCH),
    ("102", 1_772_323_200_000_800, 1_772_323_200_000_300, "", "0b" * 16),
]
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
ANY_ROWS = st.lists(st.tuples(TEXT, INT64, st.none() | INT64, TEXT, TEXT), max_size=30)


def write(path: Path, chunks: Iterable[Sequence[Row]]) -> Written:
    return parquet.write(
        path, chunks, exchange="binance", symbol="btcusdt", data_type="trade", metadata={"b": "2", "a": "1"}
    )


def rows_of(path: Path) -> list[Row]:
    return [row for chunk in parquet.read(path) for row in chunk]


def trades(count: int) -> Iterator[Row]:
    for i in range(count):
        yield str(10**9 + i), 10**15 + i, 10**15 + i - 70, f'{{"t":{i},"p":"{64000 + i % 977}.10"}}', EPOCH


def test_the_schema_of_a_file_is_the_documented_one(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ROWS])
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [(field.name, str(field.type), field.nullable) for field in file.schema_arrow] == [
        ("exchange", "string", False),
        ("symbol", "string", False),
        ("data_type", "string", False),
        ("exchange_sequence_id", "string", False),
        ("timestamp_collector", "int64", False),
        ("timestamp_exchange", "int64", True),
        ("data", "string", False),
        ("epoch", "string", False),
    ]
    group = file.metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    assert [(c.path_in_schema, c.compression, c.has_dictionary_page, c.is_stats_set) for c in columns] == [
        ("exchange", "ZSTD", True, True),
        ("symbol", "ZSTD", True, True),
        ("data_type", "ZSTD", True, True),
        ("exchange_sequence_id", "ZSTD", False, True),
        ("timestamp_collector", "ZSTD", False, True),
        ("timestamp_exchange", "ZSTD", False, True),
        ("data", "ZSTD", False, False),
        ("epoch", "ZSTD", True, True),
    ]
    assert file.metadata.metadata == {b"a": b"1", b"b": b"2"}
    assert parquet.version() == pa.__version__


def test_any_parquet_reader_finds_the_constants_in_every_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ROWS])
    assert pq.read_table(tmp_path / "a.parquet").slice(1, 1).to_pylist() == [
        {
            "exchange": "binance",
            "symbol": "btcusdt",
            "data_type": "trade",
            "exchange_sequence_id": "103",
            "timestamp_collector": 1_772_323_200_000_700,
            "timestamp_exchange": None,
            "data": '{"p":"64000.20","n":"\u20bf"}',
            "epoch": EPOCH,
        }
    ]


def test_what_was_written_is_told_in_ids_by_order_and_times_by_size(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    written = write(path, [ROWS[:1], [], ROWS[1:]])
    assert written == Written(
        rows=3,
        size_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        first_id="101",
        last_id="102",
        first_us=1_772_323_200_000_700,
        last_us=1_772_323_200_000_900,
        first_exchange_us=1_772_323_200_000_100,
        last_exchange_us=1_772_323_200_000_300,
        clock_offset_us=500,
        clock_offsets=((1_772_323_200_000_000, 500),),
        text_bytes=sum(len(row[3]) for row in ROWS),
    )
    assert rows_of(path) == ROWS
    assert os.listdir(path.parent) == ["a.parquet"]


def test_no_rows_make_an_empty_file_that_can_be_read(tmp_path: Path) -> None:
    written = write(tmp_path / "a.parquet", [])
    assert (written.rows, written.first_id, written.last_us, written.clock_offset_us) == (0, None, None, None)
    assert rows_of(tmp_path / "a.parquet") == []
    assert pq.read_table(tmp_path / "a.parquet").schema.names == [name for name, _, _ in parquet.COLUMNS]


@settings(deadline=None, max_examples=60)
@given(rows=ANY_ROWS)
def test_all_rows_come_back_as_they_were(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    write(path, [rows])
    assert rows_of(path) == rows


@pytest.mark.parametrize("size", [1, 7, 1999, 2000, 2001, 50_000])
def test_the_same_rows_make_the_same_bytes_however_they_are_cut(size: int, tmp_path: Path) -> None:
    rows = list(trades(5_000 if size < 1999 else 50_000))
    whole = write(tmp_path / "whole.parquet", [rows])
    cut = write(tmp_path / "cut.parquet", (rows[i : i + size] for i in range(0, len(rows), size)))
    assert cut == whole
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_row_group_is_closed_by_the_chunk_that_brings_it_to_its_bytes_or_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3_000)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1_000_000)
    large: list[Row] = [("x", 1, None, "y" * 600_000, EPOCH)] * 5
    write(tmp_path / "a.parquet", [list(trades(7_000)), large])
    metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4_000, 3_001, 2, 2]
    assert [len(chunk) for chunk in parquet.read(tmp_path / "a.parquet")] == [2_000, 2_000, 2_000, 1_001, 2, 2]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("error", [Killed(), ValueError("bad row"), OSError(errno.ENOSPC, "No space left on device")])
def test_an_error_while_rows_are_read_leaves_nothing_behind(error: BaseException, tmp_path: Path) -> None:
    def chunks() -> Iterator[list[Row]]:
        yield list(trades(3_000))
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "a.parquet", chunks())
    assert os.listdir(tmp_path) == []


def test_a_row_of_a_wrong_type_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ROWS])
    wrong = [("104", "not a time", None, "{}", EPOCH)]
    with pytest.raises((TypeError, ValueError)):
        write(tmp_path / "a.parquet", [wrong])  # type: ignore[list-item]
    assert rows_of(tmp_path / "a.parquet") == ROWS
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.parquet", [ROWS])
    assert os.listdir(tmp_path) == []


def test_the_file_is_durable_before_it_has_its_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("directory" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        fsync(descriptor)

    def noted_replace(old: Path, new: Path) -> None:
        steps.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write(tmp_path / "a.parquet", [ROWS])
    assert steps == ["file", "rename", "directory"]


def test_what_a_killed_write_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".a.parquet.0123456789abcdef.tmp").write_bytes(b"PAR1 half")
    (tmp_path / ".b.parquet.0123456789abcdef.tmp").write_bytes(b"someone else's")
    write(tmp_path / "a.parquet", [ROWS])
    assert sorted(os.listdir(tmp_path)) == [".b.parquet.0123456789abcdef.tmp", "a.parquet"]


def test_a_process_killed_while_it_writes_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from app.objects import parquet\n"
        "def chunks():\n"
        "    for i in range(40): yield [(str(i), 1, None, 'x' * 200_000, 'e')]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "parquet.write(Path(sys.argv[1]), chunks(), exchange='a', symbol='b', data_type='trade')\n"
    )
    path = tmp_path / "a.parquet"
    ended = subprocess.run([sys.executable, "-c", script, str(path)], env={**os.environ, "PYTHONPATH": ROOT})
    assert ended.returncode == -9
    assert not path.exists()
    write(path, [ROWS])
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_a_file_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 is not enough PAR1")
    with pytest.raises(ValueError):
        rows_of(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="its columns are not those"):
        rows_of(tmp_path / "b.parquet")


PEAK = """
import resource, sys
from pathlib import Path
from app.objects import parquet
count, size, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
body = "".join(chr(33 + i * 7 % 90) for i in range(size))
step = max(1, min(2000, 4_000_000 // size))
def chunks():
    for start in range(0, count, step):
        yield [(str(i), 10**15 + i, 10**15, body + str(i), "e" * 32) for i in range(start, min(count, start + step))]
parquet.write(path, chunks(), exchange="a", symbol="b", data_type="trade")
rows = sum(len(chunk) for chunk in parquet.read(path))
assert rows == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "linux" else 1024))
"""


def peak_kib(count: int, size: int, path: Path) -> int:
    command = [sys.executable, "-c", PEAK, str(count), str(size), str(path)]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


@pytest.mark.parametrize(
    ("few", "many", "size"), [(40_000, 300_000, 100), (10_000, 80_000, 1_500), (10, 60, 3_000_000)]
)
def test_memory_does_not_grow_with_the_rows(few: int, many: int, size: int, tmp_path: Path) -> None:
    growth_kib = peak_kib(many, size, tmp_path / "many.parquet") - peak_kib(few, size, tmp_path / "few.parquet")
    assert growth_kib < 24 * 1024


def test_a_file_is_read_by_the_thread_that_asks(tmp_path: Path) -> None:
    path = tmp_path / "object.parquet"
    write(path, [ROWS])
    script = (
        "import os, sys; import pyarrow.parquet; from app.objects import parquet; before = os.listdir('/proc/self/task')\n"
        "with open(sys.argv[1], 'rb') as file: rows = list(parquet.read(file))\n"
        "print(len(rows[0]), set(os.listdir('/proc/self/task')) - set(before))"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    ended = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, capture_output=True, text=True)
    assert ended.stdout == "3 set()\n"


def test_importing_the_object_side_loads_neither_pyarrow_nor_boto3() -> None:
    script = (
        "import sys, app.objects.parquet, app.objects.bucket, app.objects.local, app.objects.manifest\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'pyarrow', 'boto3', 'botocore', 'numpy'}))"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True)
    assert ended.stdout.strip() == "[]"
