from __future__ import annotations

from typing import Any

import pytest

from app.objects.s3_errors import Refusal, line, refusal


def response(status: int, code: str = "", message: str = "", **headers: str) -> dict[str, Any]:
    return {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (502, "502"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
        (400, "BadDigest"),
        (400, "IncompleteBody"),
        (409, "OperationAborted"),
        (409, "ConditionalRequestConflict"),
    ],
)
def test_what_passes_by_itself_is_worth_a_retry(status: int, code: str) -> None:
    assert refusal(response(status, code)).is_worth_a_retry


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (403, "AccessDenied", "allow PutObject, GetObject and ListBucket"),
        (403, "403", "check AWS_ACCESS_KEY and AWS_SECRET_KEY"),
        (403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY and AWS_SECRET_KEY"),
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY and AWS_SECRET_KEY"),
        (403, "RequestTimeTooSkewed", "set the clock of this host right"),
        (400, "ExpiredToken", "renew the session token"),
        (404, "NoSuchBucket", "create the bucket"),
        (301, "PermanentRedirect", "set [aws] region"),
        (400, "AuthorizationHeaderMalformed", "set [aws] region"),
        (409, "BucketAlreadyExists", "someone else owns"),
        (501, "NotImplemented", "use another"),
    ],
)
def test_what_the_operator_must_change_comes_with_its_remedy(status: int, code: str, remedy: str) -> None:
    answer = refusal(response(status, code, "As the store put it."))
    assert not answer.is_worth_a_retry
    assert str(answer).startswith(f"{code} As the store put it.; ")
    assert remedy in str(answer)


def test_an_unknown_refusal_is_told_as_it_came() -> None:
    assert str(refusal(response(418, "Teapot", "short and stout"))) == "Teapot short and stout"
    assert not refusal(response(418, "Teapot")).is_worth_a_retry


def test_the_right_region_is_told_where_the_store_tells_it() -> None:
    from_header = refusal(response(301, "301", "Moved", **{"x-amz-bucket-region": "eu-west-1"}))
    assert str(from_header) == "301 Moved (the bucket's region is eu-west-1); set [aws] region to the bucket's own"
    malformed = response(400, "AuthorizationHeaderMalformed")
    malformed["Error"]["Region"] = "ap-northeast-1"
    assert refusal(malformed).region == "ap-northeast-1"


def test_a_missing_object_is_absent_and_a_missing_bucket_is_not() -> None:
    assert refusal(response(404, "NoSuchKey")).is_absent
    assert refusal(response(404, "404")).is_absent
    assert not refusal(response(404, "NoSuchBucket")).is_absent
    assert not refusal(response(403, "403")).is_absent


def test_an_empty_answer_is_still_one() -> None:
    assert refusal({}) == Refusal("0", 0)


def test_a_strangers_words_are_one_short_line_of_plain_text() -> None:
    answer = refusal(
        response(
            400, "Bad\nCode\x1b[31m", "first\r\nsecond\u2028third" + "x" * 500, **{"x-amz-bucket-region": "r" * 99}
        )
    )
    assert answer.code == "Bad Code [31m"
    assert answer.message.startswith("first second thirdx")
    assert (len(answer.message), len(answer.region or "")) == (200, 32)
    assert line(" a\n\n b ") == "a b"
