from __future__ import annotations

import hashlib
from itertools import product

import pytest

from app.objects.layout import is_key
from app.objects.probe import PROBE_BODY, PROBE_KEY, PROBE_PREFIX, Answer, probe
from app.objects.store import Capabilities

BOTH = list(product([False, True], repeat=2))
RIGHT = hashlib.sha256(PROBE_BODY).hexdigest()


class Bucket:
    """One key of a store that checks as much as it is told to."""

    def __init__(self, checks_sha256: bool, checks_if_none_match: bool, takes_sha256: bool = True) -> None:
        self.checks_sha256, self.checks_if_none_match = checks_sha256, checks_if_none_match
        self.takes_sha256 = takes_sha256
        self.stored: list[bytes] = []

    def put(self, body: bytes, sha256: str, if_none_match: bool) -> Answer:
        if if_none_match and self.checks_if_none_match and self.stored:
            return Answer.TAKEN
        if not self.takes_sha256:
            return Answer.REFUSED
        if self.checks_sha256 and hashlib.sha256(body).hexdigest() != sha256:
            return Answer.MISMATCH
        self.stored.append(body)
        return Answer.STORED


@pytest.mark.parametrize(("checks_sha256", "checks_if_none_match"), BOTH)
def test_a_store_is_believed_in_what_it_was_seen_to_refuse(checks_sha256: bool, checks_if_none_match: bool) -> None:
    bucket = Bucket(checks_sha256, checks_if_none_match)
    seen = Capabilities(refuses_wrong_sha256=checks_sha256, refuses_overwrite=checks_if_none_match)
    assert probe(bucket.put) == seen
    assert probe(bucket.put) == seen


@pytest.mark.parametrize(("checks_sha256", "checks_if_none_match"), BOTH)
def test_the_probe_only_ever_stores_the_same_bytes(checks_sha256: bool, checks_if_none_match: bool) -> None:
    bucket = Bucket(checks_sha256, checks_if_none_match)
    probe(bucket.put)
    probe(bucket.put)
    assert set(bucket.stored) == {PROBE_BODY}


def test_a_store_that_refuses_every_checksum_is_not_believed() -> None:
    assert probe(Bucket(True, False, takes_sha256=False).put) == Capabilities(False, False)
    assert probe(lambda *_: Answer.MISMATCH) == Capabilities(False, False)
    assert probe(lambda *_: Answer.REFUSED) == Capabilities(False, False)


def test_a_wrong_checksum_refused_for_another_reason_is_not_belief() -> None:
    def put(body: bytes, sha256: str, if_none_match: bool) -> Answer:
        return Answer.STORED if sha256 == RIGHT else Answer.REFUSED

    assert probe(put) == Capabilities(False, False)


def test_a_store_that_gives_no_answer_is_not_judged() -> None:
    def put(body: bytes, sha256: str, if_none_match: bool) -> Answer:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        probe(put)


def test_no_object_can_have_the_probes_key() -> None:
    assert PROBE_KEY.startswith(PROBE_PREFIX)
    assert not is_key(PROBE_KEY)
