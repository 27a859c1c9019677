"""What every store must do: a directory, two real S3 servers, and a strict one in memory."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.errors import KeyTaken, StoreUnavailable, VerifyFailed
from app.objects.bucket import BucketStore
from app.objects.local import LocalStore
from app.objects.store import Capabilities, Proof, Store
from tests.support import s3_servers
from tests.support.strict_s3 import StrictS3, strict_s3

KEY = "binance/btcusdt/trade/2026-03-01/1772323200000.parquet"
BODY = b"PAR1 the first bytes under the key PAR1"
OTHER = b"PAR1 quite other bytes, and as many PAR1"[: len(BODY)]


@dataclass
class Case:
    """A store, its back door, and what was seen of it."""

    store: Store
    #: Replace an object's bytes without the store knowing.
    tamper: Callable[[str, bytes], None]
    capabilities: Capabilities
    proof: str


class Servers:
    """Starts each server once, when the first test asks for it."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._started: dict[str, s3_servers.Server] = {}

    def get(self, name: str) -> s3_servers.Server:
        if name not in self._started:
            running = s3_servers.moto() if name == "moto" else s3_servers.rclone(self._directory)
            self._started[name] = self._stack.enter_context(running)
        return self._started[name]

    @property
    def directory(self) -> Path:
        return self._directory


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, tmp_path_factory.mktemp("rclone"))


def a_bucket(url: str, region: str = "us-west-2") -> BucketStore:
    bucket = f"archive-{uuid.uuid4().hex}"
    return BucketStore(bucket, region, url, s3_servers.ACCESS_KEY, s3_servers.SECRET_KEY, attempts=2)


@pytest.fixture(params=["local", "moto", "rclone", "strict"])
def case(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[Case]:
    name: str = request.param
    if name == "local":
        root = tmp_path / "objects"
        yield prepared(Case(LocalStore(root), writer(root), Capabilities(False, True), "read_back"))
    elif name == "strict":
        with strict_s3() as server:
            bucket = a_bucket(server.url)
            yield prepared(Case(bucket, replacer(server, bucket), Capabilities(True, True), "store_sha256"))
    elif name == "moto":
        bucket = a_bucket(servers.get(name).url)
        yield prepared(Case(bucket, putter(servers.get(name), bucket), Capabilities(False, True), "read_back"))
    else:
        bucket = a_bucket(servers.get(name).url)
        on_disk, by_put = writer(servers.directory / bucket.bucket), putter(servers.get(name), bucket)

        def tamper(key: str, body: bytes) -> None:
            # rclone remembers sizes for minutes: on its disk it only misses what keeps the size.
            (on_disk if len(body) == len(stored(bucket, key)) else by_put)(key, body)

        yield prepared(Case(bucket, tamper, Capabilities(False, False), "read_back"))


def writer(root: Path) -> Callable[[str, bytes], None]:
    def write(key: str, body: bytes) -> None:
        assert (root / key).exists()
        (root / key).write_bytes(body)

    return write


def putter(server: s3_servers.Server, bucket: BucketStore) -> Callable[[str, bytes], None]:
    client = server.client()
    return lambda key, body: client.put_object(Bucket=bucket.bucket, Key=key, Body=body)


def replacer(server: StrictS3, bucket: BucketStore) -> Callable[[str, bytes], None]:
    return lambda key, body: server.buckets[bucket.bucket].update({key: body})


def prepared(case: Case) -> Case:
    case.store.prepare()
    return case


@pytest.fixture
def a_file(tmp_path: Path) -> Callable[[bytes], Path]:
    def made(body: bytes) -> Path:
        path = tmp_path / f"{sha256(body)}.parquet"
        path.write_bytes(body)
        return path

    return made


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def stored(store: Store, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


def test_what_was_put_is_proved_and_read_back_as_it_was(case: Case, a_file: Callable[[bytes], Path]) -> None:
    assert case.store.put(KEY, a_file(BODY), sha256(BODY)) is True
    assert case.store.prove(KEY, sha256(BODY), len(BODY)) == Proof(case.proof, sha256(BODY), len(BODY))
    assert stored(case.store, KEY) == BODY


def test_an_object_larger_than_any_buffer_is_proved(case: Case, a_file: Callable[[bytes], Path]) -> None:
    body = bytes(range(256)) * 4096 * 5 + b"odd"
    assert case.store.put(KEY, a_file(body), sha256(body)) is True
    assert case.store.prove(KEY, sha256(body), len(body)) == Proof(case.proof, sha256(body), len(body))


def test_the_same_bytes_put_twice_are_adopted(case: Case, a_file: Callable[[bytes], Path]) -> None:
    assert case.store.put(KEY, a_file(BODY), sha256(BODY)) is True
    assert case.store.put(KEY, a_file(BODY), sha256(BODY)) is False
    assert stored(case.store, KEY) == BODY


def test_other_bytes_never_replace_the_first(case: Case, a_file: Callable[[bytes], Path]) -> None:
    case.store.put(KEY, a_file(BODY), sha256(BODY))
    for other in (OTHER, BODY[:-1], BODY + b"!"):
        with pytest.raises(KeyTaken):
            case.store.put(KEY, a_file(other), sha256(other))
    assert stored(case.store, KEY) == BODY


def test_a_file_that_is_not_what_its_sha256_says_is_not_stored(case: Case, a_file: Callable[[bytes], Path]) -> None:
    with pytest.raises(VerifyFailed, match="write it anew"):
        case.store.put(KEY, a_file(OTHER), sha256(BODY))
    assert list(case.store.keys()) == []


def test_a_flipped_bit_of_the_same_size_is_found(case: Case, a_file: Callable[[bytes], Path]) -> None:
    case.store.put(KEY, a_file(BODY), sha256(BODY))
    case.tamper(KEY, BODY[:-1] + bytes([BODY[-1] ^ 1]))
    with pytest.raises(VerifyFailed, match="sha256"):
        case.store.prove(KEY, sha256(BODY), len(BODY))


def test_a_truncated_object_is_found(case: Case, a_file: Callable[[bytes], Path]) -> None:
    case.store.put(KEY, a_file(BODY), sha256(BODY))
    case.tamper(KEY, BODY[:-7])
    with pytest.raises(VerifyFailed, match=f"{len(BODY) - 7} bytes, not {len(BODY)}"):
        case.store.prove(KEY, sha256(BODY), len(BODY))


def test_an_object_cut_and_filled_up_to_its_size_is_found(case: Case, a_file: Callable[[bytes], Path]) -> None:
    case.store.put(KEY, a_file(BODY), sha256(BODY))
    case.tamper(KEY, BODY[:10] + bytes(len(BODY) - 10))
    with pytest.raises(VerifyFailed, match="sha256"):
        case.store.prove(KEY, sha256(BODY), len(BODY))


def test_an_absent_object_is_neither_proved_nor_opened(case: Case) -> None:
    with pytest.raises(VerifyFailed, match="no "):
        case.store.prove(KEY, sha256(BODY), len(BODY))
    with pytest.raises(VerifyFailed, match="no "):
        case.store.open(KEY)


def test_keys_are_listed_ascending_below_a_prefix_without_the_probe(
    case: Case, a_file: Callable[[bytes], Path]
) -> None:
    case.store.capabilities()
    keys = [
        "binance/btcusdt/trade/2026-03-01/2.parquet",
        "binance/btcusdt/trade/2026-03-01/_2.json",
        "binance/btcusdt/trade/2026-03-02/1.parquet",
        "binance/ethusdt/trade/2026-03-01/1.parquet",
        "okx/BTC-USDT/orderbook/2026-03-01/1.parquet",
        "okx/BTC/orderbook/2026-03-01/1.parquet",
    ]
    for key in reversed(keys):
        case.store.put(key, a_file(BODY), sha256(BODY))
    assert list(case.store.keys()) == keys
    assert list(case.store.keys("binance/btcusdt/")) == keys[:3]
    assert list(case.store.keys("binance/btcusdt/trade/2026-03-01/2.p")) == keys[:1]
    assert list(case.store.keys("upbit/")) == []


def test_capabilities_are_what_this_store_was_seen_to_do(case: Case) -> None:
    assert case.store.capabilities() == case.capabilities


def test_preparing_again_changes_nothing(case: Case, a_file: Callable[[bytes], Path]) -> None:
    case.store.put(KEY, a_file(BODY), sha256(BODY))
    case.store.prepare()
    assert list(case.store.keys()) == [KEY]
    assert stored(case.store, KEY) == BODY


def test_a_key_that_could_leave_the_root_is_refused_everywhere(case: Case, a_file: Callable[[bytes], Path]) -> None:
    path = a_file(BODY)
    climbing = ["../out.parquet", "/etc/passwd", "a/../../out", "a/./b", "a\\b", "a/%2e%2e/b", "a/\u2025/b"]
    odd = ["", "a//b", "a/", ".x", "a/b\n", "a/b\0", "a/" + "b" * 65]
    for key in climbing + odd:
        with pytest.raises(ValueError, match="cannot be a key"):
            case.store.put(key, path, sha256(BODY))
        with pytest.raises(ValueError, match="cannot be a key"):
            case.store.prove(key, sha256(BODY), len(BODY))
        with pytest.raises(ValueError, match="cannot be a key"):
            case.store.open(key)
    assert list(case.store.keys()) == []


@pytest.mark.parametrize(("region", "location"), [("us-east-1", None), ("eu-west-1", "eu-west-1")])
def test_a_missing_bucket_is_created_in_the_region_of_the_settings(
    servers: Servers, region: str, location: str | None
) -> None:
    server = servers.get("moto")
    store = a_bucket(server.url, region)
    store.prepare()
    store.prepare()
    assert server.client().get_bucket_location(Bucket=store.bucket)["LocationConstraint"] == location


def test_an_endpoint_that_nobody_serves_is_unavailable(a_file: Callable[[bytes], Path]) -> None:
    with strict_s3() as server:
        url = server.url
    store = a_bucket(url)
    with pytest.raises(StoreUnavailable, match="EndpointConnectionError"):
        store.prepare()
    with pytest.raises(StoreUnavailable):
        store.put(KEY, a_file(BODY), sha256(BODY))
    with pytest.raises(StoreUnavailable):
        store.prove(KEY, sha256(BODY), len(BODY))
