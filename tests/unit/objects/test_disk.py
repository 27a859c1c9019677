from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.objects import disk


@given(st.binary(max_size=4000))
def test_the_hash_of_a_file_is_the_hash_of_its_bytes_however_it_is_cut(body: bytes) -> None:
    assert disk.sha256_of(io.BytesIO(body)) == hashlib.sha256(body).hexdigest()
    assert b"".join(disk.pieces(io.BytesIO(body))) == body


def test_a_large_file_is_read_in_pieces_of_a_mebibyte() -> None:
    body = bytes(disk.PIECE_BYTES * 2 + 5)
    assert [len(piece) for piece in disk.pieces(io.BytesIO(body))] == [disk.PIECE_BYTES, disk.PIECE_BYTES, 5]


def test_every_new_directory_is_made_durable_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(disk, "fsync_directory", synced.append)
    disk.make_directories(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    disk.make_directories(tmp_path / "a" / "b" / "c")
    assert len(synced) == 3


def test_a_file_in_the_way_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError):
        disk.make_directories(tmp_path / "a" / "b")
    disk.fsync_directory(tmp_path)
