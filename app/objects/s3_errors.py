"""What the error codes of S3 mean for us: retry, or call the operator, and what to tell. Pure.

Source of the codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; a HEAD has no body, so its
code is the status alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

#: Codes that say the bytes did not have the checksum sent with them (AWS, MinIO, Ceph, Garage).
MISMATCH = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})

#: Codes that say the store does not know a header or method that was used.
UNSUPPORTED = frozenset({"InvalidArgument", "InvalidRequest", "MethodNotAllowed", "NotImplemented"})

#: Below 500 and yet worth a retry.
_RETRIES = frozenset(
    {
        *MISMATCH,  # our own file was hashed before it was sent: it changed on the way
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
_KEYS = "check AWS_ACCESS_KEY and AWS_SECRET_KEY, or the profile or role that Collector runs under"
_REGION = "set [aws] region to the bucket's own"
_REMEDIES = {
    "301": _REGION,
    "400": "a HEAD gives no reason: check [aws] region and the credentials",
    "403": f"{_KEYS}, and that its policy allows PutObject, GetObject and ListBucket",
    "AccessDenied": "allow PutObject, GetObject and ListBucket on the bucket to Collector's user or role",
    "AllAccessDisabled": "the account or bucket is disabled: ask whoever owns it",
    "AuthorizationHeaderMalformed": _REGION,
    "BucketAlreadyExists": "someone else owns a bucket of this name: set [aws] bucket to another",
    "ExpiredToken": "renew the session token",
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _KEYS,
    "InvalidBucketName": "set [aws] bucket to 3 to 63 lower-case letters, digits, dots and hyphens",
    "InvalidToken": "renew the session token",
    "NoSuchBucket": "create the bucket, or set [aws] bucket to one that exists",
    "NotImplemented": "the store lacks what Collector needs: use another",
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "set the clock of this host right (NTP)",
    "SignatureDoesNotMatch": _KEYS,
}
#: After one of these the credentials are looked up anew: they may have been rotated meanwhile.
CREDENTIALS = frozenset(
    {"403", "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)


class Refusal(msgspec.Struct, frozen=True):
    """One error answer, reduced to what matters."""

    code: str
    status: int
    message: str = ""
    #: The bucket's region, where the answer tells.
    region: str | None = None

    @property
    def is_absent(self) -> bool:
        """There is no such object (a HEAD cannot tell a missing object from a missing bucket)."""
        return self.status == 404 and self.code != "NoSuchBucket"

    @property
    def is_worth_a_retry(self) -> bool:
        return (self.status >= 500 and self.status != 501) or self.status == 429 or self.code in _RETRIES

    def __str__(self) -> str:
        """What was said and what to do, in one sentence."""
        said = " ".join(part for part in (self.code, self.message) if part)
        region = f" (the bucket's region is {self.region})" if self.region else ""
        remedy = _REMEDIES.get(self.code)
        return f"{said}{region}; {remedy}" if remedy else f"{said}{region}"


def refusal(response: Mapping[str, Any]) -> Refusal:
    """The parsed error response of botocore. The message is a stranger's text: one line, at most 200 characters."""
    error = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    region = error.get("Region") or headers.get("x-amz-bucket-region")
    return Refusal(
        code=line(error.get("Code") or str(status))[:64],
        status=status,
        message=line(error.get("Message") or "")[:200],
        region=line(region)[:32] if region else None,
    )


def line(text: object) -> str:
    """`text` as one line of printable ASCII."""
    return re.sub(r"[^\x21-\x7e]+", " ", str(text)).strip()
