"""The bucket's behaviour under faults, against a strict server on a loopback port."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.exceptions as boto  # type: ignore[import-untyped]
import pytest

from app.errors import KeyTaken, SettingsError, StoreError, StoreRefused, StoreUnavailable, VerifyFailed
from app.objects import bucket as bucket_module
from app.objects.bucket import MAX_OBJECT_BYTES, BucketStore
from app.objects.probe import PROBE_BODY, PROBE_KEY
from app.objects.store import Capabilities, Proof
from tests.support.strict_s3 import Fault, StrictS3, strict_s3

KEY = "okx/BTC-USDT/orderbook/2026-03-01/1772323200000.parquet"
BODY = b"some bytes of an object"
SHA256 = hashlib.sha256(BODY).hexdigest()
PROVED_BY_STORE = Proof("store_sha256", SHA256, len(BODY))
READ_BACK = Proof("read_back", SHA256, len(BODY))
SECRET = "canary-secret-key-000"


@pytest.fixture
def server() -> Iterator[StrictS3]:
    with strict_s3() as server:
        server.buckets["archive"] = {}
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    path.write_bytes(BODY)
    return path


def a_store(server: StrictS3, region: str = "us-west-2", **options: Any) -> BucketStore:
    options = {"attempts": 1, "read_timeout_s": 5, **options}
    return BucketStore("archive", region, server.url, "canary-access-key", SECRET, **options)


def puts(server: StrictS3) -> list[dict[str, str]]:
    return [headers for method, path, headers in server.requests if method == "PUT" and path == f"/archive/{KEY}"]


def test_one_put_carries_the_checksum_the_condition_and_the_bytes(server: StrictS3, file: Path) -> None:
    assert a_store(server).put(KEY, file, SHA256) is True
    (headers,) = puts(server)
    assert headers["x-amz-checksum-sha256"] == base64.b64encode(bytes.fromhex(SHA256)).decode()
    assert headers["if-none-match"] == "*"
    assert [name for name in headers if "crc" in name or "trailer" in name] == []
    assert server.buckets["archive"][KEY] == BODY


def test_a_store_that_refuses_wrong_checksums_is_believed_without_reading(server: StrictS3, file: Path) -> None:
    store = a_store(server)
    store.put(KEY, file, SHA256)
    assert store.prove(KEY, SHA256, len(BODY)) == PROVED_BY_STORE
    assert [path for method, path, _ in server.requests if method == "GET"] == []


@pytest.mark.parametrize("kind", ["COMPOSITE", "OTHER"])
def test_a_checksum_that_is_not_of_the_whole_object_proves_nothing(server: StrictS3, file: Path, kind: str) -> None:
    server.checksum_type = kind
    store = a_store(server)
    store.put(KEY, file, SHA256)
    assert store.prove(KEY, SHA256, len(BODY)) == READ_BACK


def test_a_checksum_without_a_type_is_of_the_whole_object(server: StrictS3, file: Path) -> None:
    server.checksum_type = None
    store = a_store(server)
    store.put(KEY, file, SHA256)
    assert store.prove(KEY, SHA256, len(BODY)) == PROVED_BY_STORE


def test_a_store_that_returns_no_checksum_is_read_back(server: StrictS3, file: Path) -> None:
    server.returns_checksum = False
    store = a_store(server)
    store.put(KEY, file, SHA256)
    assert store.prove(KEY, SHA256, len(BODY)) == READ_BACK


def test_a_checksum_that_is_merely_echoed_is_not_believed(server: StrictS3, file: Path) -> None:
    server.checks_sha256 = False
    store = a_store(server)
    store.put(KEY, file, SHA256)
    assert store.capabilities() == Capabilities(refuses_wrong_sha256=False, refuses_overwrite=True)
    assert store.prove(KEY, SHA256, len(BODY)) == READ_BACK


def test_the_probe_uses_one_key_three_puts_and_no_delete(server: StrictS3) -> None:
    a_store(server).capabilities()
    store = a_store(server)
    assert store.capabilities() == store.capabilities() == Capabilities(True, True)
    assert server.buckets["archive"] == {PROBE_KEY: PROBE_BODY}
    assert [(method, path) for method, path, _ in server.requests] == [("PUT", f"/archive/{PROBE_KEY}")] * 6


def test_a_policy_that_closes_the_probes_key_leaves_the_store_read_back(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 403, "AccessDenied", key=PROBE_KEY, times=9))
    store = a_store(server)
    store.put(KEY, file, SHA256)
    assert store.capabilities() == Capabilities(False, False)
    assert store.prove(KEY, SHA256, len(BODY)) == READ_BACK


def test_a_probe_that_was_refused_with_everything_else_is_made_again_with_new_credentials(
    server: StrictS3, file: Path
) -> None:
    """Where the policy allows no listing, a HEAD never says that a key is free: only what was seen of the store can."""
    server.faults.append(Fault("HEAD", 403, "AccessDenied", times=9))
    server.faults.append(Fault("PUT", 403, "AccessDenied", key=PROBE_KEY, times=2))
    store = a_store(server)
    with pytest.raises(StoreRefused, match="403"):
        store.put(KEY, file, SHA256)
    assert store.put(KEY, file, SHA256) is True
    assert store.capabilities() == Capabilities(True, True)


def test_a_probe_without_an_answer_is_tried_again_next_time(server: StrictS3) -> None:
    server.faults.append(Fault("PUT", 503, "SlowDown", key=PROBE_KEY))
    store = a_store(server)
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        store.capabilities()
    assert store.capabilities() == Capabilities(True, True)


@pytest.mark.parametrize("code", ["NotImplemented", "InvalidRequest", "InvalidArgument"])
def test_a_store_that_knows_no_checksum_header_is_read_back(server: StrictS3, code: str) -> None:
    server.faults.append(Fault("PUT", 400, code, key=PROBE_KEY, times=3))
    assert a_store(server).capabilities() == Capabilities(False, False)


def test_an_answer_lost_after_the_store_had_the_bytes_is_found_by_the_retry(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 500, "InternalError", after=True))
    store = a_store(server, attempts=3)
    assert store.put(KEY, file, SHA256) is False
    assert store.prove(KEY, SHA256, len(BODY)) == PROVED_BY_STORE
    assert len(puts(server)) == 2


def test_a_timeout_after_the_store_had_the_bytes_is_found_by_the_next_cycle(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", hangs=True))
    store = a_store(server, read_timeout_s=0.3)
    with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
        store.put(KEY, file, SHA256)
    assert store.put(KEY, file, SHA256) is False
    assert len(puts(server)) == 1


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")])
def test_a_store_in_trouble_is_worth_a_retry(server: StrictS3, file: Path, status: int, code: str) -> None:
    store = a_store(server)
    for method in ("HEAD", "PUT"):
        server.faults.append(Fault(method, status, code))
        with pytest.raises(StoreUnavailable):
            store.put(KEY, file, SHA256)
    assert store.put(KEY, file, SHA256) is True
    server.faults += [Fault("HEAD", status, code), Fault("GET", status, code)]
    with pytest.raises(StoreUnavailable):
        store.prove(KEY, SHA256, len(BODY))
    with pytest.raises(StoreUnavailable):
        store.open(KEY)


def test_slow_down_is_retried_before_it_is_an_error(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 503, "SlowDown"))
    retried: list[None] = []
    store = a_store(server, attempts=2, retried=lambda: retried.append(None))
    assert store.put(KEY, file, SHA256) is True
    assert len(retried) == 1, "the one attempt after the first is told"
    store.prove(KEY, SHA256, len(BODY))
    assert len(retried) == 1, "requests that are answered at once are none"


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (403, "AccessDenied", "allow PutObject"),
        (403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "ExpiredToken", "renew the session token"),
    ],
)
def test_a_refusal_names_its_cause_and_passes_when_the_cause_is_gone(
    server: StrictS3, file: Path, status: int, code: str, remedy: str
) -> None:
    store = a_store(server)
    server.faults.append(Fault("PUT", status, code))
    with pytest.raises(StoreRefused, match=remedy) as raised:
        store.put(KEY, file, SHA256)
    assert code in str(raised.value)
    assert store.put(KEY, file, SHA256) is True


def test_a_redirect_names_the_right_region(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-1"}, times=2))
    with pytest.raises(StoreRefused, match=r"the bucket's region is eu-west-1\); set \[aws\] region"):
        a_store(server).put(KEY, file, SHA256)


def test_a_bucket_that_is_gone_is_refused_and_never_made_by_a_put(server: StrictS3, file: Path) -> None:
    store = a_store(server)
    del server.buckets["archive"]
    with pytest.raises(StoreRefused, match=r"NoSuchBucket.*create the bucket"):
        store.put(KEY, file, SHA256)
    assert server.buckets == {}


def test_another_writer_between_head_and_put_is_never_replaced(server: StrictS3, file: Path) -> None:
    server.buckets["archive"][KEY] = b"other bytes"
    server.faults.append(Fault("HEAD", 404, ""))
    with pytest.raises(KeyTaken, match="11 bytes, not 23"):
        a_store(server).put(KEY, file, SHA256)
    assert server.buckets["archive"][KEY] == b"other bytes"


def test_a_conflict_with_another_writer_is_tried_again(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 409, "ConditionalRequestConflict", times=2))
    assert a_store(server).put(KEY, file, SHA256) is True
    server.faults.append(Fault("PUT", 409, "ConditionalRequestConflict", times=3))
    del server.buckets["archive"][KEY]
    with pytest.raises(StoreUnavailable, match="ConditionalRequestConflict"):
        a_store(server).put(KEY, file, SHA256)


def test_taken_and_then_free_again_is_worth_a_retry(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 412, "PreconditionFailed"))
    store = a_store(server)
    with pytest.raises(StoreUnavailable, match="is free now"):
        store.put(KEY, file, SHA256)
    assert store.put(KEY, file, SHA256) is True


def test_a_store_without_conditions_gets_the_put_without_one_from_then_on(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 501, "NotImplemented"))
    store = a_store(server)
    assert store.put(KEY, file, SHA256) is True
    del server.buckets["archive"][KEY]
    assert store.put(KEY, file, SHA256) is True
    assert [headers.get("if-none-match") for headers in puts(server)] == ["*", None, None]


def test_without_the_right_to_list_the_put_itself_finds_out_whether_the_key_is_free(
    server: StrictS3, file: Path
) -> None:
    store = a_store(server)
    server.faults.append(Fault("HEAD", 403, "", times=9))
    assert store.put(KEY, file, SHA256) is True
    assert store.put(KEY, file, SHA256) is False
    assert store.prove(KEY, SHA256, len(BODY)) == READ_BACK


def test_without_the_right_to_list_and_without_conditions_nothing_is_put(server: StrictS3, file: Path) -> None:
    server.checks_if_none_match = False
    server.faults.append(Fault("HEAD", 403, ""))
    with pytest.raises(StoreRefused, match="ListBucket"):
        a_store(server).put(KEY, file, SHA256)
    assert puts(server) == []


def test_bytes_changed_on_the_way_are_refused_by_the_store_and_worth_a_retry(server: StrictS3, file: Path) -> None:
    server.faults.append(Fault("PUT", 400, "BadDigest"))
    store = a_store(server)
    with pytest.raises(StoreUnavailable, match="BadDigest"):
        store.put(KEY, file, SHA256)
    assert store.put(KEY, file, SHA256) is True


def test_a_body_cut_short_on_the_way_back_is_never_a_proof(server: StrictS3, file: Path) -> None:
    server.returns_checksum = False
    store = a_store(server)
    store.put(KEY, file, SHA256)
    server.faults.append(Fault("GET", cut_to_bytes=5, times=2))
    with pytest.raises(StoreUnavailable):
        store.prove(KEY, SHA256, len(BODY))
    with pytest.raises(StoreUnavailable):
        store.open(KEY)
    assert store.prove(KEY, SHA256, len(BODY)) == READ_BACK


def test_an_object_gone_after_its_put_is_not_proved(server: StrictS3, file: Path) -> None:
    store = a_store(server)
    store.put(KEY, file, SHA256)
    del server.buckets["archive"][KEY]
    with pytest.raises(VerifyFailed, match="no such object"):
        store.prove(KEY, SHA256, len(BODY))


def test_an_object_too_large_for_one_put_is_refused_before_it_is_read(server: StrictS3, tmp_path: Path) -> None:
    sparse = tmp_path / "large.parquet"
    sparse.touch()
    os.truncate(sparse, MAX_OBJECT_BYTES + 1)
    with pytest.raises(
        StoreRefused, match=r"more than one put may carry \(5 GiB\); set \[storage\] segment_secs lower"
    ):
        a_store(server).put(KEY, sparse, SHA256)
    assert server.requests == []


def test_a_missing_bucket_is_made_in_its_region_and_us_east_1_is_not_named(server: StrictS3) -> None:
    for region in ("us-east-1", "eu-west-1"):
        server.buckets.clear()
        a_store(server, region).prepare()
        constraint = server.regions["archive"]
        assert ("eu-west-1" in constraint) == (region == "eu-west-1")
        assert ("LocationConstraint" in constraint) == (region != "us-east-1")


def test_a_bucket_that_may_not_be_looked_at_is_not_made(server: StrictS3) -> None:
    server.faults.append(Fault("HEAD", 403, "", key=""))
    a_store(server).prepare()
    assert [method for method, _, _ in server.requests] == ["HEAD"]


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (301, {"x-amz-bucket-region": "eu-west-1"}, "the bucket's region is eu-west-1"),
        (400, {}, r"check \[aws\] region"),
    ],
)
def test_a_bucket_elsewhere_is_refused_at_the_start(
    server: StrictS3, status: int, headers: dict[str, str], told: str
) -> None:
    server.faults.append(Fault("HEAD", status, "", key="", headers=headers, times=2))
    with pytest.raises(StoreRefused, match=told):
        a_store(server).prepare()


def test_a_bucket_made_meanwhile_by_ourselves_is_fine_and_by_others_is_refused(server: StrictS3) -> None:
    server.faults += [Fault("HEAD", 404, "", key="", times=2), Fault("PUT", 409, "BucketAlreadyOwnedByYou", key="")]
    a_store(server).prepare()
    server.faults.append(Fault("PUT", 409, "BucketAlreadyExists", key=""))
    with pytest.raises(StoreRefused, match="someone else owns a bucket of this name"):
        a_store(server).prepare()


def test_aws_tells_the_region_of_a_bucket_that_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BucketStore("archive", "us-west-2")
    monkeypatch.setattr(store, "_ask", lambda *_, **__: {"BucketRegion": "eu-west-1"})
    with pytest.raises(StoreRefused, match="the bucket is in eu-west-1, not us-west-2"):
        store.prepare()
    monkeypatch.setattr(store, "_ask", lambda *_, **__: {"BucketRegion": "us-west-2"})
    store.prepare()


def test_keys_come_page_by_page_without_what_is_not_ours(server: StrictS3) -> None:
    keys = [f"okx/BTC-USDT/trade/2026-03-01/{i}.parquet" for i in range(7)]
    strangers = ["my notes.txt", PROBE_KEY, "../x", "okx//x"]
    server.buckets["archive"] = dict.fromkeys([*strangers, *keys], b"")
    server.page_size = 3
    assert list(a_store(server).keys()) == keys
    assert list(a_store(server).keys("okx/BTC-USDT/trade/2026-03-01/5")) == keys[5:6]
    server.faults.append(Fault("GET", 503, "SlowDown", key=""))
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        list(a_store(server).keys())


def test_an_opened_object_can_be_read_from_any_place(server: StrictS3) -> None:
    server.buckets["archive"][KEY] = BODY
    with a_store(server).open(KEY) as file:
        assert file.seekable()
        assert file.seek(-6, os.SEEK_END) == len(BODY) - 6
        assert file.read() == b"object"


def test_rotated_credentials_are_looked_up_without_a_restart(
    server: StrictS3, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "old-secret")
    store = BucketStore("archive", "us-west-2", server.url, attempts=1)
    server.faults.append(Fault("PUT", 403, "InvalidAccessKeyId"))
    with pytest.raises(StoreRefused):
        store.put(KEY, file, SHA256)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new-key")
    store.put(KEY, file, SHA256)
    assert ["Credential=new-key/" in headers["authorization"] for headers in puts(server)] == [False, True]


def test_no_credentials_at_all_are_refused_by_name(server: StrictS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreRefused, match="NoCredentialsError"):
        BucketStore("archive", "us-west-2", server.url).prepare()


def test_an_endpoint_in_the_environment_does_not_go_round_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://169.254.169.254")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://169.254.169.254")
    client = BucketStore("archive", "us-west-2", None, "key", "secret")._connected()
    assert client.meta.endpoint_url == "https://s3.us-west-2.amazonaws.com"
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": 5}
    assert (client.meta.config.connect_timeout, client.meta.config.read_timeout) == (10, 60)


def test_a_proxy_of_the_environment_is_not_asked_for_this_host(
    server: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    a_store(server).prepare()
    assert [method for method, _, _ in server.requests] == ["HEAD"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_followed_by_nothing(file: Path, status: int) -> None:
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.server.server_name, self.headers.get("Authorization", "")))  # type: ignore[attr-defined]
            self.send_response(status)
            self.send_header("Location", f"http://127.0.0.2:{self.server.server_address[1]}{self.path}")  # type: ignore[misc]
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as here:
        other = ThreadingHTTPServer(("127.0.0.2", here.server_address[1]), Handler)
        with other:
            for one in (here, other):
                threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
            store = BucketStore(
                "archive", "us-west-2", f"http://127.0.0.1:{here.server_address[1]}", "k", "s", attempts=1
            )
            for call in (store.prepare, lambda: store.put(KEY, file, SHA256), lambda: store.open(KEY)):
                with pytest.raises(StoreError):
                    call()
            for one in (here, other):
                one.shutdown()
    assert asked and {name for name, _ in asked} == {"127.0.0.1" if here.server_name != "localhost" else "localhost"}


def test_an_endpoint_whose_name_leads_into_a_private_network_is_sent_nothing(
    server: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = socket.getaddrinfo

    def forged(host: str, *more: object, **options: object) -> object:
        return resolved("127.0.0.1" if host == "s3.example" else host, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", forged)
    port = server.url.rpartition(":")[2]
    url = f"https://s3.example:{port}"
    with pytest.raises(StoreRefused, match=r"s3.example leads to 127.0.0.1, which is a private address"):
        BucketStore("archive", "us-west-2", url, "k", "s", attempts=1).prepare()
    assert server.requests == []
    named = BucketStore("archive", "us-west-2", url.replace("https", "http"), "k", "s", private_hosts=["s3.example"])
    named.prepare()
    assert [method for method, _, _ in server.requests] == ["HEAD"]


def test_an_endpoint_in_the_clear_is_a_fault_of_the_settings() -> None:
    with pytest.raises(SettingsError, match="use https"):
        BucketStore("archive", "us-west-2", "http://minio:9000")


def test_no_error_shows_a_secret(server: StrictS3, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = a_store(server)
    shown = [repr(store), str(vars(bucket_module))]
    faults = [
        Fault("PUT", 403, "SignatureDoesNotMatch", f"you signed with {SECRET} of canary-access-key"),
        Fault("PUT", 503, "SlowDown", SECRET),
        Fault("HEAD", 301, SECRET),
    ]
    for fault in faults:
        server.faults.append(fault)
        with pytest.raises(StoreError) as raised:
            store.put(KEY, file, SHA256)
        shown += [str(raised.value), repr(raised.value), "".join(traceback.format_exception(raised.value))]
    text = "\n".join([*shown, caplog.text])
    assert "SlowDown" in text
    assert SECRET not in text
    assert "canary-access-key" not in text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.FlexibleChecksumError(error_msg="Expected checksum a did not match b"), VerifyFailed),
        (boto.SSLError(endpoint_url="https://s3", error="CERTIFICATE_VERIFY_FAILED: expired"), StoreRefused),
        (boto.SSLError(endpoint_url="https://s3", error="UNEXPECTED_EOF_WHILE_READING"), StoreUnavailable),
        (boto.PartialCredentialsError(provider="env", cred_var="secret_key"), StoreRefused),
        (boto.ParamValidationError(report="Invalid bucket name"), StoreRefused),
        (boto.CredentialRetrievalError(provider="iam-role", error_msg="timed out"), StoreUnavailable),
        (boto.ConnectionClosedError(endpoint_url="https://s3"), StoreUnavailable),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), StoreUnavailable),
    ],
)
def test_what_boto3_raises_is_a_retry_a_refusal_or_a_mismatch(error: Exception, kind: type[StoreError]) -> None:
    with pytest.raises(kind), BucketStore("archive", "us-west-2")._faults(KEY):
        raise error
