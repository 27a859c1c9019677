"""The local spool: what Redis could not take is on the disk, in order, and comes out again whatever happened."""

from __future__ import annotations

import errno
import gc
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.buffer import spool as module
from app.buffer.spool import Bound, Spool, read_records, size_bytes, streams
from app.codec import BatchCodec
from app.errors import SpoolFull
from tests.support.batches import batch, event
from tests.support.rig import CHECKOUT

RECORD_BYTES = 8


def spool(root: Path, *, stream: str = "okx-0-trade", max_bytes: int = 10**6) -> Spool:
    """As a process opens it: locked."""
    opened = Spool(Bound(root, max_bytes, time.monotonic), stream)
    assert opened.lock()
    return opened


def drained(box: Spool, most: int = 10**6) -> list[bytes]:
    """What is delivered when at most so many are taken."""
    delivered: list[bytes] = []

    def deliver(element: bytes) -> bool:
        if len(delivered) == most:
            return False
        delivered.append(element)
        return True

    assert box.drain(deliver) is (not box)
    return delivered


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.spool"))


@contextmanager
def small_files(size: int) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "FILE_BYTES", size)
    try:
        yield
    finally:
        patch.undo()


def test_elements_come_out_in_order_and_then_nothing_is_left(tmp_path: Path) -> None:
    box = spool(tmp_path)
    assert not box
    for element in (b"one", b"two", b"three"):
        box.append(element)
    assert box
    assert drained(box) == [b"one", b"two", b"three"]
    assert (bool(box), files(tmp_path), size_bytes(tmp_path)) == (False, [], 0)


def test_a_second_outage_loses_nothing_of_what_it_spools(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for outage in (b"first", b"second", b"third"):
        elements = [outage + b" %d" % n for n in range(4)]
        for element in elements:
            box.append(element)
        assert drained(box) == elements


def test_order_is_kept_over_many_files(tmp_path: Path) -> None:
    elements = [b"%d" % n * 30 for n in range(25)]
    with small_files(100):
        box = spool(tmp_path)
        for element in elements:
            box.append(element)
        assert len(files(tmp_path)) > 5
        assert drained(box, most=10) == elements[:10]
        left = len(files(tmp_path))
        assert left < 10, "delivered files leave the disk while others wait"
        assert drained(box) == elements[10:]
    assert files(tmp_path) == []


def test_a_partial_drain_delivers_nothing_twice_in_the_same_process(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for n in range(6):
        box.append(b"%d" % n)
    assert drained(box, most=2) == [b"0", b"1"]
    assert drained(box, most=1) == [b"2"]
    box.append(b"6")
    assert drained(box) == [b"3", b"4", b"5", b"6"]


def test_an_element_whose_delivery_raised_is_delivered_again(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for element in (b"one", b"two"):
        box.append(element)

    def deliver(element: bytes) -> bool:
        if element == b"two":
            raise ConnectionError
        return True

    with pytest.raises(ConnectionError):
        box.drain(deliver)
    assert drained(box) == [b"two"]


def test_a_restart_delivers_again_what_stood_in_an_undelivered_file(tmp_path: Path) -> None:
    before = spool(tmp_path)
    for n in range(4):
        before.append(b"%d" % n)
    drained(before, most=2)
    before.close()
    after = spool(tmp_path)
    after.append(b"4")
    assert drained(after) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("cut", [1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, RECORD_BYTES + 4])
def test_a_torn_tail_ends_a_file_and_what_stands_before_it_is_whole(tmp_path: Path, cut: int) -> None:
    before = spool(tmp_path)
    for element in (b"one", b"two", b"torn!"):
        before.append(element)
    before.close()
    (path,) = files(tmp_path)
    whole = path.stat().st_size - RECORD_BYTES - len(b"torn!")
    with path.open("r+b") as file:
        file.truncate(whole + cut)
    after = spool(tmp_path)
    after.append(b"later")
    assert drained(after) == [b"one", b"two", b"later"]
    assert files(tmp_path) == []


def test_zeros_that_the_file_system_left_are_no_elements(tmp_path: Path) -> None:
    before = spool(tmp_path)
    before.append(b"one")
    before.close()
    (path,) = files(tmp_path)
    with path.open("ab") as file:
        file.write(bytes(4096))
    assert drained(spool(tmp_path)) == [b"one"]


@pytest.mark.parametrize("at", [RECORD_BYTES, -1], ids=["its content", "its end"])
def test_an_element_whose_checksum_is_wrong_is_not_delivered(tmp_path: Path, at: int) -> None:
    before = spool(tmp_path)
    before.append(b"good")
    before.append(b"spoiled")
    before.close()
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[RECORD_BYTES + len(b"good") + at if at >= 0 else at] ^= 1
    path.write_bytes(content)
    assert drained(spool(tmp_path)) == [b"good"]


def test_a_record_is_its_length_its_checksum_and_the_element(tmp_path: Path) -> None:
    box = spool(tmp_path)
    box.append(b"element")
    (path,) = files(tmp_path)
    assert path.relative_to(tmp_path) == Path("okx-0-trade/000000000001.spool")
    assert path.read_bytes() == b"\x00\x00\x00\x07" + zlib.crc32(b"element").to_bytes(4, "big") + b"element"
    assert list(read_records(path)) == [(b"element", RECORD_BYTES + 7)]


def test_a_full_spool_refuses_and_writes_nothing_and_takes_again_when_drained(tmp_path: Path) -> None:
    box = spool(tmp_path, max_bytes=100)
    box.append(b"a" * 80)
    with pytest.raises(SpoolFull) as full:
        box.append(b"b" * 50)
    assert (full.value.size_bytes, full.value.max_bytes) == (88, 100)
    assert size_bytes(tmp_path) == 88
    assert drained(box) == [b"a" * 80]
    box.append(b"b" * 50)
    assert drained(box) == [b"b" * 50]


def test_a_file_that_cannot_be_removed_is_told_of_and_delivered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = spool(tmp_path)
    box.append(b"one")
    real = Path.unlink

    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OSError, match="Read-only"):
        drained(box)
    assert not box, "nothing waits: batches go to Redis again"
    monkeypatch.setattr(Path, "unlink", real)
    box.append(b"two")
    assert drained(box) == [b"two"]
    assert size_bytes(tmp_path) == 0


def test_the_bound_is_that_of_all_streams_together(tmp_path: Path) -> None:
    bound = Bound(tmp_path, 100, time.monotonic)
    one, other = Spool(bound, "a"), Spool(bound, "b")
    assert one.lock() and other.lock()
    one.append(b"x" * 80)
    with pytest.raises(SpoolFull):
        other.append(b"y" * 80)
    assert streams(tmp_path) == ["a"]
    drained(one)
    other.append(b"y" * 80)
    assert streams(tmp_path) == ["b"]


def test_what_other_processes_spool_is_looked_up_once_a_second_and_ones_own_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, looks = [100.0], list[Path]()

    def look(root: Path) -> int:
        looks.append(root)
        return size_bytes(root)

    monkeypatch.setattr(module, "size_bytes", look)
    bound = Bound(tmp_path, 1000, lambda: now_s[0])
    for _ in range(5):
        bound.take(100)
    assert looks == [tmp_path]
    theirs = spool(tmp_path, stream="theirs")
    theirs.append(b"x" * 692)
    looks.clear()
    bound.take(500)
    with pytest.raises(SpoolFull) as full:
        bound.take(1)
    assert (full.value.size_bytes, looks) == (1000, [])
    now_s[0] += module.LOOK_S
    bound.take(300)  # what was counted and never written is forgotten
    with pytest.raises(SpoolFull):
        bound.take(1)
    assert looks == [tmp_path]
    drained(theirs)
    bound.look_again()
    bound.take(1000)
    assert looks == [tmp_path, tmp_path]


@contextmanager
def disk_that_takes(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond `size` bytes: writes end there, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [20_000, 300], ids=["large", "small"])
def test_a_full_disk_leaves_no_half_record_and_the_next_append_is_whole(tmp_path: Path, size: int) -> None:
    box = spool(tmp_path)
    box.append(b"before")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    with disk_that_takes(len(whole) + 100), pytest.raises(OSError):
        box.append(b"x" * size)
    gc.collect()
    assert path.read_bytes() == whole
    box.append(b"after")
    assert drained(box) == [b"before", b"after"]


def test_a_spool_has_one_owner_on_a_host(tmp_path: Path) -> None:
    box = spool(tmp_path)
    assert Spool(Bound(tmp_path, 10**6, time.monotonic), "okx-0-trade").lock() is False
    assert Spool(Bound(tmp_path, 10**6, time.monotonic), "another").lock() is True
    box.close()
    assert Spool(Bound(tmp_path, 10**6, time.monotonic), "okx-0-trade").lock() is True


HOLDER = """
import sys, time
from pathlib import Path
from app.buffer.spool import Bound, Spool
box = Spool(Bound(Path(sys.argv[1]), 10**6, time.monotonic), "okx-0-trade")
box.append(b"from another process") if box.lock() else None
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts another process that holds the spool."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_another_processs_spool_is_ours_as_soon_as_it_was_killed(
    tmp_path: Path, holder: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = holder()
    mine = Spool(Bound(tmp_path, 10**6, time.monotonic), "okx-0-trade")
    assert mine.lock() is False
    process.kill()
    process.wait(10)
    assert mine.lock() is True
    assert drained(mine) == [b"from another process"]


def test_reading_stops_where_a_record_is_torn_and_can_begin_in_the_middle(tmp_path: Path) -> None:
    box = spool(tmp_path)
    for element in (b"one", b"two"):
        box.append(element)
    (path,) = files(tmp_path)
    ends = [end for _, end in read_records(path)]
    assert list(read_records(path, ends[0])) == [(b"two", ends[1])]
    assert list(read_records(path, ends[1])) == []


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 80)),
        st.tuples(st.just("append"), st.integers(1, 80)),
        st.tuples(st.just("drain"), st.integers(0, 6)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=30,
)


@given(steps)
@settings(deadline=None, max_examples=60)
def test_everything_appended_is_delivered_in_order_and_again_only_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, todo: list[tuple[str, int]]
) -> None:
    root = tmp_path_factory.mktemp("spool")
    with small_files(120):
        box = spool(root)
        waiting: list[int] = []
        unsure: set[int] = set()
        appended = delivered = 0
        for kind, amount in [*todo, ("drain", 10**6)]:
            if kind == "append":
                appended += 1
                box.append(b"%d " % appended + b"x" * amount)
                waiting.append(appended)
            elif kind == "restart":
                unsure.update(range(1, delivered + 1))
                box.close()
                box = spool(root)
            else:
                got = [int(element.split()[0]) for element in drained(box, most=amount)]
                again = [n for n in got if n not in waiting]
                assert got == sorted(got)
                assert set(again) <= unsure
                assert [n for n in got if n in waiting] == waiting[: len(got) - len(again)]
                del waiting[: len(got) - len(again)]
                unsure -= set(got)
                delivered = max([delivered, *got])
        assert waiting == []
        assert files(root) == []
        box.close()


def test_what_is_kept_of_two_damaged_files_is_kept_of_both(tmp_path: Path) -> None:
    told: list[int] = []
    spool = Spool(
        Bound(tmp_path, 10**6, time.monotonic), "s", lambda path, at_byte, size_bytes: told.append(size_bytes)
    )
    assert spool.lock()
    for text in (b"first", b"second"):
        spool.append(text)
        (path,) = spool.directory.glob("*.spool")
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert spool.drain(lambda element: True)
    kept = sorted(path.read_bytes()[8:] for path in spool.directory.glob("*.damaged"))
    assert kept == [b"firs?", b"secon?"]
    assert len(told) == 2


def test_what_waits_is_told_by_the_heads_of_its_records(tmp_path: Path) -> None:
    elements = [BatchCodec().encode(batch(n, [event(n * 10 + i) for i in range(n)])) for n in (1, 2, 3)]
    with small_files(1):  # each in a file of its own
        box = spool(tmp_path)
        assert box.waiting() == (0, 0)
        for element in elements:
            box.append(element)
    size = sum(map(len, elements)) + 3 * RECORD_BYTES
    assert box.waiting() == (size, 6)
    drained(box, 1)
    assert box.waiting() == (size - len(elements[0]) - RECORD_BYTES, 5)
    torn = files(tmp_path)[-1]
    torn.write_bytes(torn.read_bytes() + bytes(64))
    assert box.waiting()[1] == 5, "a torn end is no batch"
