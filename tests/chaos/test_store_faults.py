"""A store that is busy, away, slow, refuses, forgets, lies or damages: nothing is removed here before what is stored is
proved, the failure says its stage, and when the store is well again the next cycle makes the archive whole."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app import telemetry_archive
from app.cli import collector
from app.errors import StoreError, StoreRefused, StoreUnavailable
from app.metrics import VALUES
from app.objects import layout
from app.objects.bucket import BucketStore
from app.pipeline.archive import ArchiveReport
from app.pipeline.verify import verify
from app.store.ledger import SEALED, VERIFIED
from app.wiring import Wiring
from tests.chaos.sealed import (
    Sealed,
    an_hour,
    assert_archived,
    assert_nothing_removed_unproved,
    conflicts_of,
    sealed_hours,
)  # fmt: skip
from tests.support import s3_proxy, s3_servers
from tests.support.crash import Nursery
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig
from tests.support.s3_proxy import Fault, Proxy, refusal, within, without

ALWAYS = 10**6
PARTS = {"binance/btcusdt/orderbook", "binance/btcusdt/trade", "okx/BTC-USDT/trade"}
ACCESS, SECRET = s3_servers.ACCESS_KEY, s3_servers.SECRET_KEY


@pytest.fixture(scope="module")
def sealed(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """Two sealed segments, three objects to be."""
    rig = Rig(tmp_path_factory.mktemp("sealed"), redis_server.url)
    return sealed_hours(rig, an_hour("binance", 1, "btcusdt"), an_hour("okx", 2, "BTC-USDT", feeds="t"))


class Servers:
    """Real S3 servers by name, each with a proxy before it, started when they are first asked for."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._started: dict[str, tuple[s3_servers.Server, Proxy]] = {}
        #: boto3 takes most of a second to make one.
        self._clients: dict[tuple[str, int, float], Any] = {}

    def get(self, name: str) -> tuple[s3_servers.Server, Proxy]:
        """A server and its proxy, which behaves."""
        if name not in self._started:
            server = self._stack.enter_context(
                s3_servers.moto() if name == "moto" else s3_servers.rclone(self._directory)
            )
            self._started[name] = server, self._stack.enter_context(s3_proxy.before(server.url))
        server, proxy = self._started[name]
        proxy.checksums = "server"
        proxy.faults.clear()
        proxy.requests.clear()
        proxy.begun.clear()
        return server, proxy

    def store(
        self, url: str, bucket: str, attempts: int = 1, faster: float = 1, patience_s: float = 1.5
    ) -> BucketStore:
        """The store of the application, with patience for tests."""
        store = BucketStore(
            bucket, "us-east-1", url, ACCESS, SECRET,
            read_timeout_s=patience_s, attempts=attempts, monotonic_s=lambda: time.monotonic() * faster,
        )  # fmt: skip
        made_for = url, attempts, patience_s
        if made_for not in self._clients:
            self._clients[made_for] = store._connect()
        store._client = self._clients[made_for]
        return store


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, tmp_path_factory.mktemp("rclone"))


@dataclass
class Bench:
    """A data directory whose objects go through a proxy to a bucket of its own."""

    rig: Rig
    servers: Servers
    server: s3_servers.Server
    proxy: Proxy
    sealed: Sealed
    #: What `object.failed` said in the last cycle: (stage, subject).
    failed: list[tuple[str, str]]

    @property
    def bucket(self) -> str:
        return str(self.rig.settings.aws.bucket)

    def wiring(self, *, attempts: int = 1, faster: float = 1, patience_s: float = 1.5) -> Wiring:
        """As a process has it; its clock goes `faster` where it looks at the pace of a transfer."""
        return self._with(self.servers.store(self.proxy.url, self.bucket, attempts, faster, patience_s))

    def behind(self) -> Wiring:
        """Wiring that goes round the proxy."""
        return self._with(self.servers.store(self.server.url, self.bucket))

    def _with(self, bucket: BucketStore) -> Wiring:
        wiring = self.rig.wiring()
        wiring.stores = (*(s for s in wiring.stores if s.name == "local"), bucket)
        return wiring

    def cycle(self, wiring: Wiring) -> ArchiveReport | StoreError:
        """One cycle: its report, or why there is none. Nothing unproved is removed, whatever became of it."""
        self.failed.clear()

        def failed(stage: str, subject: str, error: Exception, at: str) -> None:
            assert at in ("", *VALUES["archive_failures_total"]["stage"])
            self.failed.append((stage, subject))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(telemetry_archive, "object_failed", failed)
            try:
                result: ArchiveReport | StoreError = wiring.archive().run(final=True)
            except StoreError as error:
                result = error
        behind = self.behind()
        assert_nothing_removed_unproved(behind, self.sealed)
        return result

    def command(self, *arguments: str) -> Result:
        """What `collector ARGUMENTS` says and how it ends."""
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        environ = {"CONFIG_PATH": str(self.rig.path), "AWS_ACCESS_KEY": ACCESS, "AWS_SECRET_KEY": SECRET}
        try:
            return CliRunner().invoke(collector, list(arguments), env=environ)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)

    def stages(self) -> set[str]:
        return {stage for stage, _ in self.failed}

    def recovers(self, wiring: Wiring, beside: Sequence[str] = (), faults: Sequence[str] | None = None) -> None:
        """The store is well: the next cycle of the same process finishes, and the archive is exactly what was recorded."""
        assert {entry.state for entry in wiring.ledger.segments()} & {SEALED}, "something was to be left to do"
        self.proxy.faults.clear()
        report = self.cycle(wiring)
        assert isinstance(report, ArchiveReport) and report.failed == {}, report
        self.is_whole(beside, faults)

    def is_whole(self, beside: Sequence[str] = (), faults: Sequence[str] | None = None) -> None:
        """But for `beside`, of which `faults` (else all) are faults to whoever reads the archive again."""
        assert_archived(self.behind(), self.sealed, beside=beside, faults=beside if faults is None else faults)

    def key(self, data_type: str = "trade", exchange: str = "binance", symbol: str = "btcusdt") -> str:
        opened = {entry.number: entry.opened_us for entry in self.rig.wiring().ledger.segments()}
        return layout.object_key(exchange, symbol, data_type, opened[1 if exchange == "binance" else 2])


Make = Callable[..., Bench]


@pytest.fixture
def bench(sealed: Sealed, servers: Servers, tmp_path: Path) -> Make:
    """`bench(*faults, server="moto", checksums="server", mode="s3")`: a data directory of its own."""

    def make(
        *faults: Fault, server: str = "moto", checksums: str = "server", mode: str = "s3", of: Sealed = sealed
    ) -> Bench:
        behind, proxy = servers.get(server)
        proxy.checksums = checksums
        proxy.faults += faults
        rig = of.copied_to(Rig(tmp_path, "redis://127.0.0.1:1/0"))
        bucket = f"faults-{uuid.uuid4().hex[:12]}"
        rig.write(storage={"mode": mode}, aws={"bucket": bucket, "endpoint_url": proxy.url, "region": "us-east-1"})
        return Bench(rig, servers, behind, proxy, of, [])

    return make


def verified(wiring: Wiring) -> set[str]:
    """Markets and data types that are proved."""
    return {"/".join(entry[1:4]) for entry in wiring.ledger.objects() if entry.state == VERIFIED}


def whole(result: ArchiveReport | StoreError) -> bool:
    return isinstance(result, ArchiveReport) and result.failed == {} and result.removed_segments == [1, 2]


# S1


@pytest.mark.row("S1")
def test_a_store_that_is_busy_for_a_moment_is_asked_again_and_nothing_has_failed(bench: Make) -> None:
    busy = refusal(503, "SlowDown", "Please reduce your request rate.")
    b = bench(
        Fault("put_object", key=".parquet", instead=busy),
        Fault("get_object", key=".parquet", instead=refusal(500, "InternalError")),
    )
    assert whole(b.cycle(b.wiring(attempts=3)))
    assert b.failed == []
    b.is_whole()


@pytest.mark.row("S1")
@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [("head_object", 503, "503"), ("put_object", 503, "SlowDown"), ("get_object", 500, "InternalError")],
)
def test_a_store_that_stays_busy_leaves_the_rows_here_until_it_is_well(
    bench: Make, operation: str, status: int, code: str
) -> None:
    b = bench(Fault(operation, times=ALWAYS, instead=refusal(status, code)))
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and report.removed_segments == []
    assert (b.stages(), {subject.split()[-1] for _, subject in b.failed}) == ({"unavailable"}, PARTS)
    b.recovers(wiring)


# S2


@pytest.mark.row("S2")
@pytest.mark.parametrize("server", ["moto", "rclone"])
def test_a_put_whose_answer_was_lost_is_the_same_object_at_the_next_attempt(bench: Make, server: str) -> None:
    b = bench(
        Fault("put_object", key=".parquet", cut="after"),
        server=server,
    )
    assert whole(b.cycle(b.wiring(attempts=2)))
    assert (b.failed, conflicts_of(b.rig.wiring().ledger)) == ([], [])
    b.is_whole()


@pytest.mark.row("S2")
@pytest.mark.parametrize(
    ("ending", "fault"),
    [(".parquet", {"withheld": True}), (".parquet", {"cut": "before"}), (".json", {"cut": "after"})],
    ids=["withheld", "never passed on", "manifest"],
)
def test_a_put_that_was_never_answered_is_the_same_object_in_the_next_cycle(
    bench: Make, fault: dict[str, Any], ending: str
) -> None:
    b = bench(Fault("put_object", key=ending, **fault))
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and report.removed_segments == [2]
    assert b.failed == [("unavailable", "segment 1 binance/btcusdt/orderbook")]
    b.recovers(wiring)
    sent = b.proxy.asked("put_object", ".parquet") + b.proxy.asked("put_object", ".json")
    # What had arrived was not sent again.
    assert len(sent) == 6 + (fault.get("cut") == "before")


@pytest.mark.row("K6")
@pytest.mark.parametrize(
    ("fault", "sent"), [({"withheld": True}, 1), ({"bytes_per_s": 500}, 2)], ids=["stored", "on its way"]
)
def test_a_process_killed_in_the_middle_of_an_upload_leaves_one_object_to_the_next(
    bench: Make, nursery: Nursery, fault: dict[str, Any], sent: int
) -> None:
    b = bench(Fault("put_object", key=".parquet", **fault))
    run = nursery.start(
        "archive", b.rig.path, final=True, environ={"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    )
    key = b.key("orderbook")
    b.proxy.until(lambda: key in b.proxy.begun)
    run.signal(signal.SIGKILL)
    assert run.wait().was_killed
    b.recovers(b.wiring())
    assert b.proxy.asked("put_object", ".parquet").count(key) == sent
    assert conflicts_of(b.rig.wiring().ledger) == []


# S3


@pytest.mark.row("S3")
@pytest.mark.parametrize(
    ("code", "remedy"), [("AccessDenied", "check AWS_ACCESS_KEY"), ("RequestTimeTooSkewed", "set the clock")]
)
def test_refused_credentials_are_named_and_the_next_cycle_of_the_same_process_uses_new_ones(
    bench: Make, code: str, remedy: str
) -> None:
    told = refusal(403, code)
    b = bench(*(Fault(f"{operation}_object", times=ALWAYS, instead=told) for operation in ("head", "put", "get")))
    b.proxy.faults += [
        Fault("head_bucket", times=ALWAYS, instead=told),
        Fault("put_object", ALWAYS, s3_proxy.PROBE_KEY, told),
    ]
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport)
    assert [stage for stage, _ in b.failed] == ["refused"] * 3
    assert all(remedy in report.failed[subject] for _, subject in b.failed), report.failed
    b.recovers(wiring)


# S4


@pytest.mark.row("S4")
def test_an_object_that_crawls_is_given_up_and_the_others_go_on(bench: Make) -> None:
    b = bench(Fault("get_object", key=".parquet", bytes_per_s=1500))
    wiring = b.wiring(faster=60)
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and report.objects == 2
    assert (b.stages(), len(verified(wiring))) == ({"unavailable"}, 2)
    assert "given up below" in " ".join(report.failed.values())
    b.recovers(wiring)


@pytest.mark.row("S4")
def test_an_upload_that_crawls_is_given_up(bench: Make, tmp_path: Path) -> None:
    b = bench(Fault("put_object", key="1.parquet", bytes_per_s=64 * 1024))
    (store,) = b.wiring(faster=600, patience_s=30).stores
    store.prepare()
    path = tmp_path / "large.parquet"
    path.write_bytes(bytes(16 * 1024 * 1024))
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable, match="given up below"):
        store.put(
            "okx/BTC-USDT/trade/1970-01-01/1.parquet",
            path,
            "080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e",
        )
    assert time.monotonic() - began_s < 60, "the whole of it takes more than four minutes"
    assert list(store.keys()) == []


@pytest.mark.row("S4")
def test_an_object_that_hangs_in_every_cycle_comes_after_those_that_were_never_tried(bench: Make) -> None:
    b = bench()
    wiring = b.wiring()
    clock_s = [0.0]
    archive = wiring.archive()
    archive._now_s = lambda: clock_s[0]
    (store,) = wiring.stores
    put = store.put

    def hang(key: str, path: Path, sha256: str) -> bool:
        if key != b.key("orderbook"):  # the first in order
            return put(key, path, sha256)
        clock_s[0] += wiring.settings.archive.deadline_secs + 1
        raise StoreUnavailable(store.name, key, "hangs")

    store.put = hang  # type: ignore[method-assign]
    assert (archive.run(final=True).timed_out, verified(wiring)) == (True, set())
    archive.run(final=True)
    assert verified(wiring) == PARTS - {"binance/btcusdt/orderbook"}
    store.put = put  # type: ignore[method-assign]
    b.recovers(wiring)


# S5, S6: the damage is in the store, and stays there beside what is right


@pytest.mark.row("S5")
def test_an_object_of_another_size_is_not_believed_and_stored_again_beside_it(bench: Make) -> None:
    damaged_on_its_way(bench, s3_proxy.truncated, "bytes, not")


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    ("server", "checksums", "change"),
    [("moto", "server", s3_proxy.flipped), ("moto", "echoed", s3_proxy.padded), ("rclone", "server", s3_proxy.flipped)],
    ids=["no checksum", "an echoed checksum", "rclone"],
)
def test_an_object_of_the_right_size_that_was_damaged_on_its_way_is_not_believed(
    bench: Make, change: Callable[[bytes], bytes], server: str, checksums: str
) -> None:
    damaged_on_its_way(bench, change, "sha256", server=server, checksums=checksums)


def damaged_on_its_way(bench: Make, change: Callable[[bytes], bytes], why: str, **options: str) -> None:
    b = bench(Fault("put_object", key=".parquet", body=change), **options)
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and report.removed_segments == [2]
    assert b.failed == [("verify", "segment 1 binance/btcusdt/orderbook")]
    assert why in report.failed["segment 1 binance/btcusdt/orderbook"]
    damaged = b.key("orderbook")
    b.recovers(wiring, beside=[damaged])
    # Never overwritten, on record, and what is right has the next free name.
    assert conflicts_of(wiring.ledger) == [(damaged, 1)]
    (entry,) = [entry for entry in wiring.ledger.objects(1) if entry.data_type == "orderbook"]
    assert entry.key == damaged.replace(".parquet", "-1.parquet")


@pytest.mark.row("S6")
def test_a_store_that_checks_what_it_receives_has_never_anything_damaged(bench: Make) -> None:
    b = bench(Fault("put_object", key=".parquet", body=s3_proxy.flipped), checksums="computed")
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert b.failed == [("unavailable", "segment 1 binance/btcusdt/orderbook")]
    assert isinstance(report, ArchiveReport) and "BadDigest" in report.failed["segment 1 binance/btcusdt/orderbook"]
    b.recovers(wiring)
    assert {entry.proved_by for entry in wiring.ledger.objects()} == {"store_sha256"}
    assert b.proxy.asked("get_object", ".parquet") == []


@pytest.mark.row("S6")
@pytest.mark.parametrize("change", [s3_proxy.flipped, s3_proxy.truncated], ids=["flipped", "truncated"])
def test_a_body_that_was_damaged_on_its_way_back_proves_nothing_and_is_read_again(
    bench: Make, change: Callable[[bytes], bytes]
) -> None:
    b = bench(Fault("get_object", key=".parquet", answer=within(change)))
    wiring = b.wiring()
    b.cycle(wiring)
    assert b.failed == [("verify", "segment 1 binance/btcusdt/orderbook")]
    b.recovers(wiring)
    assert conflicts_of(wiring.ledger) == []


@pytest.mark.row("S6")
def test_a_body_cut_off_on_its_way_back_proves_nothing_and_is_read_again(bench: Make) -> None:
    b = bench(Fault("get_object", key=".parquet", cut="within"))
    wiring = b.wiring()
    b.cycle(wiring)
    assert b.failed == [("unavailable", "segment 1 binance/btcusdt/orderbook")]
    b.recovers(wiring)


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    "change", [s3_proxy.padded, lambda text: text.replace(b'"rows": 3', b'"rows": 4')], ids=["no JSON", "other figures"]
)
def test_a_manifest_that_was_damaged_on_its_way_keeps_nothing_from_the_archive(
    bench: Make, change: Callable[[bytes], bytes]
) -> None:
    b = bench(Fault("put_object", key=".json", body=change))
    wiring = b.wiring()
    b.cycle(wiring)
    assert b.failed == [("verify", "segment 1 binance/btcusdt/orderbook")]
    key = b.key("orderbook")
    b.recovers(wiring, beside=[key, layout.manifest_key(key)], faults=[key])
    assert conflicts_of(wiring.ledger) == [(layout.manifest_key(key), 1)]


def test_a_store_that_computes_checksums_and_does_not_tell_them_is_read_back(bench: Make) -> None:
    b = bench(Fault("head_object", ALWAYS, answer=without(s3_proxy.SHA256_HEADER)), checksums="computed")
    assert whole(b.cycle(b.wiring()))
    assert {entry.proved_by for entry in b.rig.wiring().ledger.objects()} == {"read_back"}
    b.is_whole()


# S7


@pytest.mark.row("S7")
@pytest.mark.parametrize("checksums", ["server", "computed"])
def test_an_object_that_is_not_there_after_its_put_is_not_believed(bench: Make, checksums: str) -> None:
    gone = refusal(404, "NoSuchKey")
    b = bench(checksums=checksums)
    b.proxy.faults = [Fault("get_object", 1, ".parquet", gone)]
    if checksums == "computed":
        # The first HEAD finds the name free, the second one is the proof.
        b.proxy.faults = [Fault("head_object", 1, ".parquet"), Fault("head_object", 1, ".parquet", gone)]
    wiring = b.wiring()
    b.cycle(wiring)
    assert b.failed == [("verify", "segment 1 binance/btcusdt/orderbook")]
    b.recovers(wiring)
    assert conflicts_of(wiring.ledger) == []


# S8


@pytest.mark.row("S8")
def test_a_bucket_in_another_region_is_named_with_the_remedy_by_check_and_by_the_archive(bench: Make) -> None:
    b = bench(Fault("head_bucket", ALWAYS, instead=refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")))
    b.behind().stores[0].prepare()
    wiring = b.wiring()
    error = b.cycle(wiring)
    assert isinstance(error, StoreRefused) and "region" in str(error) and "eu-west-1" in str(error), error
    assert (b.stages(), wiring.ledger.objects()) == ({"refused"}, [])
    checked = b.command("check")
    assert checked.exit_code != 0 and "region" in checked.output
    b.recovers(wiring)


@pytest.mark.row("S8")
def test_a_bucket_that_goes_away_in_a_cycle_is_refused_by_name_and_never_made_by_a_put(bench: Make) -> None:
    b = bench(Fault("put_object", ALWAYS, instead=refusal(404, "NoSuchBucket")))
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and "NoSuchBucket" in " ".join(report.failed.values())
    assert (b.stages(), b.proxy.asked("create_bucket")) == ({"refused"}, [""])
    b.recovers(wiring)


# S10


@pytest.mark.row("S10")
@pytest.mark.parametrize(
    ("server", "faults"),
    [
        ("moto", [{"times": ALWAYS, "forgets": ("if-none-match",)}]),
        ("moto", [{"instead": refusal(501, "NotImplemented")}]),
        ("rclone", []),
    ],
    ids=["ignored", "not implemented", "rclone"],
)
def test_a_store_without_conditions_never_has_anything_overwritten_either(
    bench: Make, server: str, faults: list[dict[str, Any]]
) -> None:
    b = bench(*(Fault("put_object", **fault) for fault in faults), server=server)
    wiring = b.wiring()
    wiring.stores[0].prepare()
    foreign = b.key("orderbook")
    client, bucket = b.behind().stores[0]._connected(), b.bucket  # type: ignore[attr-defined]
    client.put_object(Bucket=bucket, Key=foreign, Body=b"PAR1 somebody else's PAR1")
    assert whole(b.cycle(wiring))
    assert client.get_object(Bucket=bucket, Key=foreign)["Body"].read() == b"PAR1 somebody else's PAR1"
    assert conflicts_of(wiring.ledger) == [(foreign, 1)]
    b.is_whole(beside=[foreign])


# S9


@pytest.mark.row("S9")
def test_after_hours_without_a_store_one_cycle_stores_them_all_in_their_order(
    bench: Make, redis_server: RedisProcess, tmp_path: Path
) -> None:
    (tmp_path / "day").mkdir()
    rig = Rig(tmp_path / "day", redis_server.url)
    day = sealed_hours(rig, *(an_hour("okx", 1 + n, "BTC-USDT", feeds="t") for n in range(8)))
    b = bench(Fault("head_bucket", ALWAYS, cut="before"), of=day)
    wiring = b.wiring()
    for _ in range(8):
        assert isinstance(b.cycle(wiring), StoreUnavailable)
        assert b.failed == [("unavailable", f"s3:{b.bucket}")]
    assert (wiring.ledger.objects(), b.proxy.asked("put_object")) == ([], [])
    b.recovers(wiring)
    starts = [layout.parse_key(key).start_ms for key in b.proxy.asked("put_object", ".parquet")]
    assert starts == sorted(entry.opened_us // 1000 for entry in wiring.ledger.segments())


# Two stores


def test_a_segment_goes_when_both_stores_have_proved_it_and_verify_reads_both(bench: Make) -> None:
    b = bench(mode="both")
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert whole(report) and isinstance(report, ArchiveReport) and report.objects == 6
    b.is_whole()
    assert wiring.ledger.totals()[1:] == (3, 9)
    done = b.command("verify", "--json")
    told = {"stores": ["local", f"s3:{b.bucket}"], "objects": 6, "verified": 6, "rows": 18, "faults": []}
    assert (done.exit_code, json.loads(done.stdout)) == (0, told)


def test_a_bucket_that_is_away_keeps_nothing_from_the_directory_and_every_segment_here(bench: Make) -> None:
    b = bench(Fault("head_bucket", ALWAYS, cut="before"), mode="both")
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and (report.objects, report.removed_segments) == (3, [])
    assert (b.failed, list(report.failed)) == ([("unavailable", f"s3:{b.bucket}")], [f"s3:{b.bucket}"])
    done = b.command("verify")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "local: 3 of 3 objects verified, 9 rows, 0 faults")
    assert f"store s3:{b.bucket}: " in done.stdout
    b.recovers(wiring)


def test_a_directory_that_cannot_be_written_keeps_nothing_from_the_bucket_and_every_segment_here(bench: Make) -> None:
    b = bench(mode="both")
    root = b.rig.settings.storage.local_path
    root.write_text("a file stands in its place")
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and (report.objects, report.removed_segments) == (3, [])
    assert b.failed == [("refused", "local")]
    root.unlink()
    b.recovers(wiring)
    assert len(b.proxy.asked("put_object", ".parquet")) == 3


def test_an_object_damaged_on_its_way_to_one_of_two_stores_keeps_its_segment_here(bench: Make) -> None:
    b = bench(
        Fault("get_object", key=".parquet", answer=within(s3_proxy.flipped)),
        mode="both",
    )
    wiring = b.wiring()
    report = b.cycle(wiring)
    assert isinstance(report, ArchiveReport) and (report.objects, report.removed_segments) == (5, [2])
    assert b.failed == [("verify", "segment 1 binance/btcusdt/orderbook")]
    b.recovers(wiring)


# The data directory is lost


@pytest.mark.row("S10")
def test_the_same_hours_archived_from_another_data_directory_go_beside_the_first_ones(bench: Make) -> None:
    """As after the directory was deleted, or by a second collector without a name of its own: nothing tells them apart."""
    b = bench()
    first = b.wiring()
    assert whole(b.cycle(first))
    held = {key: stored(b, key) for key in list(first.stores[0].keys())}
    shutil.rmtree(b.rig.directory / "data")
    b.sealed.copied_to(b.rig)
    connection = sqlite3.connect(b.rig.settings.database.path)
    with connection:
        assert connection.execute("UPDATE meta SET value = 'another' WHERE key = 'data_directory'").rowcount == 1
    connection.close()
    second = b.wiring()
    assert whole(b.cycle(second))
    assert {key: stored(b, key) for key in held} == held
    keys = {entry.key for entry in second.ledger.objects()}
    assert keys == {key.replace(".parquet", "-1.parquet") for key in held if key.endswith(".parquet")}
    assert {key for key, _ in conflicts_of(second.ledger)} == {key for key in held if key.endswith(".parquet")}
    # Both are described, and neither ledger is needed to read them.
    report = verify(b.behind().stores[0], None)
    assert (report.objects, report.verified, report.faults) == (6, 6, [])
    b.is_whole(beside=list(held), faults=[])


def stored(b: Bench, key: str) -> bytes:
    with b.behind().stores[0].open(key) as file:
        return file.read()
