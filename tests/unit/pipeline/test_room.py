"""When the disk is low and when it is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.pipeline.room import COUNT_OBJECTS_S, FULL, LOW, PLENTY_BYTES, Disk, judge, size_bytes

GIB = 1024**3


@pytest.mark.parametrize(
    ("own", "used", "free", "bound", "level"),
    [
        (0, 79, 21, "the file system of data", ""),
        (0, 80, 20, "the file system of data", LOW),
        (0, 90, 10, "the file system of data", FULL),
        (799, 50, 50, "[storage] max_local_bytes", ""),
        (800, 50, 50, "[storage] max_local_bytes", LOW),
        (900, 50, 50, "[storage] max_local_bytes", FULL),
        (5000, 85, 15, "[storage] max_local_bytes", FULL),
        (850, 95, 5, "the file system of data", FULL),
    ],
)
def test_of_both_bounds_the_nearer_one_counts(own: int, used: int, free: int, bound: str, level: str) -> None:
    room = judge(own, 1000, "data", used, free)
    assert (room.bound, room.level) == (bound, level)


def test_a_large_file_system_is_full_only_when_little_of_it_is_left() -> None:
    def level(free: int) -> str:
        return judge(0, 0, "data", 1000 * GIB, free).level

    assert [level(PLENTY_BYTES[LOW]), level(PLENTY_BYTES[LOW] - 1), level(PLENTY_BYTES[FULL] - 1)] == ["", LOW, FULL]


def test_it_says_what_is_used_of_what(tmp_path: Path) -> None:
    said = "85% of [storage] max_local_bytes used (850 of 1000 bytes)"
    assert str(judge(850, 1000, "data", 50, 50)) == said


def test_segments_are_measured_at_once_and_a_local_store_once_a_minute(tmp_path: Path) -> None:
    segments, objects = tmp_path / "segments", tmp_path / "objects"
    now_s = [0.0]
    disk = Disk(segments, [segments], [objects], 1000, lambda: now_s[0])
    assert disk.room().used_bytes == 0 or disk.room().bound != "[storage] max_local_bytes"
    for directory in (segments, objects):
        (directory / "deep").mkdir(parents=True)
        (directory / "deep" / "file").write_bytes(b"x" * 950)
    assert (disk.room().bound, disk.room().used_bytes) == ("[storage] max_local_bytes", 950)
    now_s[0] = COUNT_OBJECTS_S
    assert disk.room().used_bytes == size_bytes(segments) + size_bytes(objects) == 1900
