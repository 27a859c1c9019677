from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from app.errors import KeyTaken, StoreRefused, StoreUnavailable, VerifyFailed
from app.objects.local import INCOMING, LocalStore

ROOT = str(Path(__file__).resolve().parents[3])
KEY = "okx/BTC-USDT/orderbook/2026-03-01/1772323200000.parquet"
BODY = b"some bytes of an object"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "objects")
    store.prepare()
    return store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    path.write_bytes(BODY)
    return path


def failing(number: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_preparing_makes_the_directory_and_repeats_without_harm(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "new" / "objects")
    store.prepare()
    store.prepare()
    assert os.listdir(tmp_path / "new" / "objects") == [INCOMING]
    assert os.listdir(tmp_path / "new" / "objects" / INCOMING) == []


def test_an_object_is_a_plain_file_and_nothing_else_stays(store: LocalStore, file: Path) -> None:
    store.put(KEY, file, SHA256)
    assert (store.root / KEY).read_bytes() == BODY
    assert (store.root / KEY).stat().st_nlink == 1
    assert os.listdir(store.root / INCOMING) == []


def test_the_file_is_durable_before_it_has_its_key_and_every_directory_after(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link
    names = {os.stat(store.root).st_ino: "objects"}

    def noted_fsync(descriptor: int) -> None:
        kind = "directory" if os.path.isdir(f"/dev/fd/{descriptor}") else "file"
        steps.append(names.get(os.fstat(descriptor).st_ino, kind))
        fsync(descriptor)

    def noted_link(old: Path, new: Path) -> None:
        steps.append("link")
        link(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    store.put(KEY, file, SHA256)
    # okx in objects, BTC-USDT, orderbook and the day each in its parent; then the file and, last, its day.
    assert steps == ["objects", "directory", "directory", "directory", "file", "link", "directory"]


def test_adopting_makes_durable_what_a_killed_writer_may_only_have_linked(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(KEY, file, SHA256)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda d: synced.append("directory" if os.path.isdir(f"/dev/fd/{d}") else "file"))
    assert store.put(KEY, file, SHA256) is False
    assert synced == ["file", "directory"]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_put_killed_at_any_step_is_done_by_the_next(
    store: LocalStore, file: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, step, killed)
        with pytest.raises(Killed):
            store.put(KEY, file, SHA256)
    assert list(store.keys()) == []
    assert store.put(KEY, file, SHA256) is True
    assert store.prove(KEY, SHA256, len(BODY)).how == "read_back"


def test_a_killed_process_leaves_no_object_and_its_temporary_file_goes_at_the_next_start(tmp_path: Path) -> None:
    root, path = tmp_path / "objects", tmp_path / "a.parquet"
    path.write_bytes(BODY)
    script = (
        "import os, signal, sys; from pathlib import Path; from app.objects.local import LocalStore\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"LocalStore(Path(sys.argv[1])).put({KEY!r}, Path(sys.argv[2]), {SHA256!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    assert subprocess.run([sys.executable, "-c", script, str(root), str(path)], env=environment).returncode == -9
    store = LocalStore(root)
    assert len(os.listdir(root / INCOMING)) == 1
    assert list(store.keys()) == []
    store.prepare()
    assert os.listdir(root / INCOMING) == []
    assert store.put(KEY, path, SHA256) is True


def test_a_temporary_file_that_another_process_holds_stays(store: LocalStore) -> None:
    held = store.root / INCOMING / "held.tmp"
    with open(held, "xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        store.prepare()
        assert held.exists()
    store.prepare()
    assert not held.exists()


def test_of_two_writers_at_once_one_stores_and_the_other_adopts_or_is_refused(
    store: LocalStore, tmp_path: Path
) -> None:
    bodies = [BODY, BODY, b"other bytes"]
    answers: list[str] = []
    barrier = Barrier(len(bodies))

    def put(i: int, body: bytes) -> None:
        path = tmp_path / f"{i}.parquet"
        path.write_bytes(body)
        barrier.wait()
        try:
            answers.append("stored" if store.put(KEY, path, hashlib.sha256(body).hexdigest()) else "adopted")
        except KeyTaken:
            answers.append("taken")

    threads = [Thread(target=put, args=(i, body)) for i, body in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = (store.root / KEY).read_bytes()
    assert won in bodies
    assert sorted(answers) == (["adopted", "stored", "taken"] if won == BODY else ["stored", "taken", "taken"])


def test_taken_by_a_link_that_came_between_is_never_replaced(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def overtaken(old: Path, new: Path) -> None:
        Path(new).write_bytes(b"other bytes")
        link(old, new)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(KeyTaken, match="11 bytes, not 23"):
        store.put(KEY, file, SHA256)
    assert (store.root / KEY).read_bytes() == b"other bytes"


@pytest.mark.parametrize(
    ("number", "step", "kind", "remedy"),
    [
        (errno.ENOSPC, "fsync", StoreUnavailable, "the disk is full: free space"),
        (errno.EDQUOT, "fsync", StoreUnavailable, "quota"),
        (errno.EIO, "fsync", StoreUnavailable, "input/output error"),
        (errno.ESTALE, "fsync", StoreUnavailable, "tried again later"),
        (errno.EACCES, "link", StoreRefused, "read and write permission"),
        (errno.EROFS, "link", StoreRefused, "read-only"),
        (errno.EPERM, "link", StoreRefused, "hard links"),
        (errno.EOPNOTSUPP, "link", StoreRefused, "no hard links"),
    ],
)
def test_an_error_of_the_disk_says_what_where_and_what_to_do(
    store: LocalStore,
    file: Path,
    number: int,
    step: str,
    kind: type[StoreUnavailable],
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, step, failing(number))
    with pytest.raises(kind) as raised:
        store.put(KEY, file, SHA256)
    for part in ("store local", KEY, os.strerror(number), remedy):
        assert part in str(raised.value)
    monkeypatch.undo()
    assert list(store.keys()) == []
    assert os.listdir(store.root / INCOMING) == []


def test_a_file_where_the_root_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "objects").write_bytes(b"")
    with pytest.raises(StoreRefused, match="a file stands where a directory is needed"):
        LocalStore(tmp_path / "objects").prepare()


def test_a_symbolic_link_out_of_the_root_is_refused(store: LocalStore, file: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (store.root / "okx").symlink_to(outside)
    with pytest.raises(StoreRefused, match="leads outside"):
        store.put(KEY, file, SHA256)
    with pytest.raises(StoreRefused, match="leads outside"):
        store.open(KEY)
    assert os.listdir(outside) == []
    assert list(store.keys()) == []


def test_a_root_that_is_itself_a_symbolic_link_is_fine(file: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "objects").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "objects")
    store.prepare()
    assert store.put(KEY, file, SHA256) is True
    assert list(store.keys()) == [KEY]


def test_a_source_that_cannot_be_read_is_the_callers_error(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put(KEY, tmp_path / "absent.parquet", SHA256)


def test_a_directory_under_the_key_is_no_object(store: LocalStore) -> None:
    (store.root / KEY).mkdir(parents=True)
    with pytest.raises(VerifyFailed, match="there is no object"):
        store.prove(KEY, SHA256, len(BODY))


def test_strangers_files_are_not_keys(store: LocalStore, file: Path) -> None:
    store.put(KEY, file, SHA256)
    (store.root / ".DS_Store").write_bytes(b"")
    (store.root / "okx" / "my notes.txt").write_bytes(b"")
    assert list(store.keys()) == [KEY]


def test_keys_look_only_into_directories_that_can_hold_the_prefix(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for exchange in ("binance", "okx", "okx2"):
        store.put(f"{exchange}/x/trade/2026-03-01/1.parquet", file, SHA256)
    seen: list[str] = []
    scandir = os.scandir

    def noted_scandir(path: Path) -> object:
        seen.append(path.name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted_scandir)
    assert list(store.keys("okx/")) == ["okx/x/trade/2026-03-01/1.parquet"]
    assert seen == ["objects", "okx", "x", "trade", "2026-03-01"]
