"""Objects in an S3 bucket. The only importer of boto3 and botocore, and only when used: they take a second to load.

One `put_object` an object, never multipart: a composite checksum proves nothing about the whole. There is no delete.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from app.errors import KeyTaken, StoreError, StoreRefused, StoreUnavailable, VerifyFailed
from app.objects import s3_errors
from app.objects.disk import sha256_of
from app.objects.endpoint import checked_endpoint, is_loopback, leads_astray, stay
from app.objects.layout import checked_key, is_key
from app.objects.pace import Pace, PacedFile, TooSlow
from app.objects.probe import PROBE_KEY, Answer, probe
from app.objects.s3_errors import Refusal
from app.objects.store import Capabilities, Proof

#: The most one put may carry. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html
MAX_OBJECT_BYTES = 5 * 1024**3
#: How often a put is tried that meets another writer of the same key (409).
CONFLICT_ATTEMPTS = 3
#: How much of a body is waited for at once; between two pieces it is seen whether it goes too slowly.
PIECE_BYTES = 16 * 1024

Answered = dict[str, Any] | Refusal


class BucketStore:
    """Objects in `bucket`. Without keys, boto3's own sources answer: environment, profile, role.

    A transfer that crawls is given up by `monotonic_s` (`pace`); without a clock none is. `retried` is called at each
    attempt of a request after the first.

    Raises: SettingsError for an endpoint that `endpoint.checked_endpoint` does not allow.
    """

    def __init__(
        self,
        bucket: str,
        region: str,
        endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        *,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        attempts: int = 5,
        monotonic_s: Callable[[], float] = lambda: 0.0,
        private_hosts: Collection[str] = (),
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = f"s3:{bucket}"
        self.bucket, self.region = bucket, region
        self._endpoint_url = checked_endpoint(endpoint_url, private_hosts) if endpoint_url else None
        self._access_key, self._secret_key, self._private_hosts = access_key, secret_key, private_hosts
        self._connect_timeout_s, self._read_timeout_s, self._attempts = connect_timeout_s, read_timeout_s, attempts
        self._now_s, self._retried = monotonic_s, retried
        self._lock = Lock()
        self._client: Any = None
        self._capabilities: Capabilities | None = None
        #: Until the store answers 501 to it.
        self._sends_if_none_match = True

    def prepare(self) -> None:
        """As `Store.prepare`. Where the bucket may not be looked at (403), the first put tells what is allowed."""
        answer = self._ask("", "head_bucket")
        if not isinstance(answer, Refusal):
            region = answer.get("BucketRegion")
            # Stores other than AWS have regions in name only.
            if self._endpoint_url is None and region not in (None, self.region):
                detail = f"the bucket is in {region}, not {self.region}; set [aws] region to it"
                raise StoreRefused(self.name, "", detail)
            return
        if answer.status == 403:
            return
        if answer.status != 404:
            raise self._failure("", answer)
        # us-east-1 is the one region that must not be named.
        # Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
        where = {"CreateBucketConfiguration": {"LocationConstraint": self.region}} if self.region != "us-east-1" else {}
        made = self._ask("", "create_bucket", **where)
        if isinstance(made, Refusal) and made.code != "BucketAlreadyOwnedByYou":
            raise self._failure("", made)

    def capabilities(self) -> Capabilities:
        """As `Store.capabilities`. A policy that closes the probe's key leaves them unseen, and so not believed."""
        if self._capabilities is None:
            self._capabilities = probe(self._probe)
        return self._capabilities

    def put(self, key: str, path: Path, sha256: str) -> bool:
        """As `Store.put`. Safe to repeat when an answer was lost: the second put finds its own bytes."""
        checked_key(key)
        with open(path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > MAX_OBJECT_BYTES:
                detail = f"{size_bytes} bytes are more than one put may carry (5 GiB); set [storage] segment_secs lower"
                raise StoreRefused(self.name, key, detail)
            # Before anything is sent: bytes that rotted here would take the name for ever.
            if (found := sha256_of(file)) != sha256:
                raise VerifyFailed(self.name, key, f"{path} has sha256 {found}, not {sha256}; write it anew")
            if self._is_taken(key):
                return self._adopt(key, sha256, size_bytes)
            attempts, body = 0, PacedFile(file, Pace(self._now_s))
            while isinstance(answer := self._send(key, body, sha256), Refusal):
                attempts += 1
                if answer.status == 412:
                    return self._adopt(key, sha256, size_bytes)
                if answer.code != "ConditionalRequestConflict" or attempts == CONFLICT_ATTEMPTS:
                    raise self._failure(key, answer)
            return True

    def prove(self, key: str, sha256: str, size_bytes: int) -> Proof:
        """As `Store.prove`. A checksum is believed only from a store that was seen to refuse a wrong one."""
        checked_key(key)
        if self.capabilities().refuses_wrong_sha256:
            head = self._ask(key, "head_object", Key=key, ChecksumMode="ENABLED")
            if not isinstance(head, Refusal):
                self._compare_size(key, head.get("ContentLength"), size_bytes)
                computed = head.get("ChecksumSHA256")
                # A composite one (`...-3`) is a hash of hashes, and says nothing about ours.
                if computed and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" and "-" not in computed:
                    self._compare_sha256(key, base64.b64decode(computed).hex(), sha256)
                    return Proof(how="store_sha256", sha256=sha256, size_bytes=size_bytes)
            elif head.is_absent:
                raise _Absent(self.name, key, "there is no such object")
            elif head.status != 403:
                raise self._failure(key, head)
        return self._read_back(key, sha256, size_bytes)

    def open(self, key: str) -> BinaryIO:
        """As `Store.open`: a temporary copy on the local disk, so that a reader can seek. OSError if that is full."""
        with ExitStack() as on_failure:
            file = on_failure.enter_context(tempfile.TemporaryFile())
            for piece in self._pieces(key, self._get(checked_key(key))):
                file.write(piece)
            file.seek(0)
            on_failure.pop_all()
        return cast(BinaryIO, file)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """As `Store.keys`, which passes over the probe's key too; the order is the store's."""
        page = self._ask("", "list_objects_v2", Prefix=prefix)
        while not isinstance(page, Refusal):
            yield from filter(is_key, (entry["Key"] for entry in page.get("Contents", ())))
            if not page.get("IsTruncated"):
                return
            page = self._ask("", "list_objects_v2", Prefix=prefix, ContinuationToken=page["NextContinuationToken"])
        raise self._failure("", page)

    def _is_taken(self, key: str) -> bool:
        head = self._ask(key, "head_object", Key=key)
        if not isinstance(head, Refusal):
            return True
        if head.is_absent:
            return False
        # Without ListBucket S3 answers 403 for a free key. The put decides then, if the store was seen to do that.
        if head.status == 403 and self.capabilities().refuses_overwrite:
            return False
        raise self._failure(key, head)

    def _send(self, key: str, file: PacedFile, sha256: str) -> Answered:
        if self._sends_if_none_match:
            file.seek(0)
            answer = self._put_object(key, file, sha256, if_none_match=True)
            if not (isinstance(answer, Refusal) and answer.status == 501):
                return answer
            self._sends_if_none_match = False
        file.seek(0)
        return self._put_object(key, file, sha256, if_none_match=False)

    def _put_object(self, key: str, body: PacedFile | bytes, sha256: str, if_none_match: bool) -> Answered:
        condition = {"IfNoneMatch": "*"} if if_none_match else {}
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        return self._ask(key, "put_object", Key=key, Body=body, ChecksumSHA256=checksum, **condition)

    def _probe(self, body: bytes, sha256: str, if_none_match: bool) -> Answer:
        answer = self._put_object(PROBE_KEY, body, sha256, if_none_match)
        if not isinstance(answer, Refusal):
            return Answer.STORED
        if answer.status == 412:
            return Answer.TAKEN
        if answer.code in s3_errors.MISMATCH:
            return Answer.MISMATCH
        if answer.code in s3_errors.UNSUPPORTED or answer.code == "AccessDenied":
            return Answer.REFUSED
        raise self._failure(PROBE_KEY, answer)

    def _adopt(self, key: str, sha256: str, size_bytes: int) -> bool:
        try:
            self.prove(key, sha256, size_bytes)
        except _Absent as error:
            raise StoreUnavailable(self.name, key, "the key was taken a moment ago and is free now") from error
        except VerifyFailed as error:
            raise KeyTaken(self.name, key, f"other bytes stand there: {error.detail}") from error
        return False

    def _read_back(self, key: str, sha256: str, size_bytes: int) -> Proof:
        answer = self._get(key)
        with closing(answer["Body"]):
            self._compare_size(key, answer.get("ContentLength"), size_bytes)
            stored, stored_bytes = hashlib.sha256(), 0
            for piece in self._pieces(key, answer):
                stored.update(piece)
                stored_bytes += len(piece)
        self._compare_size(key, stored_bytes, size_bytes)
        self._compare_sha256(key, stored.hexdigest(), sha256)
        return Proof(how="read_back", sha256=sha256, size_bytes=size_bytes)

    def _compare_size(self, key: str, stored_bytes: int | None, size_bytes: int) -> None:
        if stored_bytes not in (None, size_bytes):
            raise VerifyFailed(self.name, key, f"{stored_bytes} bytes, not {size_bytes}", "size")

    def _compare_sha256(self, key: str, stored: str, sha256: str) -> None:
        if stored != sha256:
            raise VerifyFailed(self.name, key, f"sha256 {stored}, not {sha256}", "sha256")

    def _get(self, key: str) -> dict[str, Any]:
        answer = self._ask(key, "get_object", Key=key)
        if isinstance(answer, Refusal):
            raise _Absent(self.name, key, "there is no such object") if answer.is_absent else self._failure(key, answer)
        return answer

    def _pieces(self, key: str, answer: dict[str, Any]) -> Iterator[bytes]:
        pace = Pace(self._now_s)
        with self._faults(key), closing(answer["Body"]) as body:
            for piece in body.iter_chunks(PIECE_BYTES):
                pace.moved(len(piece))
                yield piece

    def _ask(self, key: str, operation: str, **arguments: Any) -> Answered:
        """The store's answer, or its refusal. Raises: as `_faults`, where it gave neither."""
        with self._faults(key):
            client = self._connected()
            from botocore.exceptions import ClientError  # type: ignore[import-untyped]

            try:
                return cast("dict[str, Any]", getattr(client, operation)(Bucket=self.bucket, **arguments))
            except ClientError as error:
                return s3_errors.refusal(error.response)

    def _failure(self, key: str, refusal: Refusal) -> StoreError:
        if refusal.code in s3_errors.CREDENTIALS:
            # What a probe was refused for want of them was not the store's doing.
            self._client = self._capabilities = None
        kind = StoreUnavailable if refusal.is_worth_a_retry else StoreRefused
        return kind(self.name, key, self._redacted(str(refusal)))

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        """What boto3 raises where no answer came: a lost connection may come back, a missing credential may not."""
        from botocore import exceptions as boto  # type: ignore[import-untyped]

        try:
            yield
        except boto.FlexibleChecksumError as error:
            detail = "the bytes read back do not have the store's own checksum"
            raise VerifyFailed(self.name, key, detail, "sha256") from error
        except TooSlow as error:
            raise StoreUnavailable(self.name, key, str(error)) from error
        except boto.BotoCoreError as error:
            detail = self._redacted(s3_errors.line(f"{type(error).__name__}: {error}")[:300])
            refused = (
                boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound, boto.ParamValidationError,
                boto.ValidationError, boto.UnauthorizedSSOTokenError,
            )  # fmt: skip
            if isinstance(error, refused) or "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise StoreRefused(self.name, key, detail) from error
            raise StoreUnavailable(self.name, key, detail) from error

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        from boto3.session import Session  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        config: dict[str, Any] = {
            "retries": {"mode": "standard", "total_max_attempts": self._attempts},
            "connect_timeout": self._connect_timeout_s,
            "read_timeout": self._read_timeout_s,
            "tcp_keepalive": True,
            # An endpoint from the environment would go round `checked_endpoint`.
            "ignore_configured_endpoint_urls": True,
        }
        if self._endpoint_url is not None:
            config["request_checksum_calculation"] = config["response_checksum_validation"] = "when_required"
            config["s3"] = {"addressing_style": "path"}
            if is_loopback(self._endpoint_url):
                config["proxies"] = {}
        session = Session(self._access_key, self._secret_key)
        client = session.client("s3", self.region, endpoint_url=self._endpoint_url, config=Config(**config))
        if self._endpoint_url is not None:  # Amazon's own names may lead into a private network of its customer
            client.meta.events.register("before-call.s3", stay)
            client.meta.events.register("before-send.s3", self._before_send)
        client.meta.events.register("needs-retry.s3", self._attempted)
        return client

    def _before_send(self, request: Any, **_: Any) -> None:
        """Of every request, also one that was sent elsewhere: a name that leads into a private network is refused."""
        if why := leads_astray(request.url, self._private_hosts):
            raise StoreRefused(self.name, "", why)

    def _attempted(self, attempts: int, **_: Any) -> None:
        """Botocore asks after each attempt of a request, the `attempts`th, whether it is to be made again."""
        if attempts > 1:
            self._retried()

    def _redacted(self, text: str) -> str:
        for secret in (self._secret_key, self._access_key):
            if secret:
                text = text.replace(secret, "***")
        return text


class _Absent(VerifyFailed):
    """There is nothing under the key."""
