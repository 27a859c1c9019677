"""Asks a venue over REST, within the budget that all workers share, and obeys when it says to stay away.

An answer is bounded in time and in bytes, also once it is unpacked; redirects are not followed, and where the name of the
venue leads is looked at before anything is said there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from app.addresses import peer_complaint
from app.buffer.budget import Budget
from app.connection import tls
from app.connection.backoff import DEFAULT_RETRY_AFTER_S, told_s
from app.errors import Interrupted, VenueUnavailable
from app.exchanges.base import Pace
from app.interruptible import interruptible

TIMEOUT_S = 5.0
#: An answer takes at most so long and so much, however slowly it trickles and however small it was packed.
ANSWER_S = 20.0
MAX_BODY_BYTES = 32 * 1024 * 1024
#: An answer is unpacked in pieces of at most so much.
PIECE_BYTES = 256 * 1024
_HEADERS = {"User-Agent": "collector", "Accept-Encoding": "gzip"}


class Answer(NamedTuple):
    status: int
    body: bytes
    #: Of its Retry-After, as it was sent; empty where there is none.
    retry_after: str = ""


class Rest:
    """The REST of one venue. Safe to share between threads. `private_hosts`: as `[security] private_hosts`."""

    def __init__(
        self,
        venue: str,
        url: str,
        proxy: str | None,
        pace: Pace,
        budget: Budget,
        monotonic_s: Callable[[], float],
        private_hosts: Collection[str] = (),
    ) -> None:
        self.venue = venue
        self._url, self._proxy, self._pace, self._budget = url, proxy, pace, budget
        self._now_s, self._private_hosts = monotonic_s, private_hosts

    def get(self, path: str) -> Answer:
        """The answer to one GET of `path` below the venue's URL: neither 429, 418 nor of the 5xx.

        Raises: VenueUnavailable, at once where the budget is used up; BufferUnavailable.
        """
        wait_s = self._budget.take(self.venue, "rest", self._pace)
        if wait_s > 0:
            raise VenueUnavailable(self.venue, f"the shared budget of requests is used up for {wait_s:.1f} s", wait_s)
        answer = ask(self.venue, self._url, path, self._proxy, self._now_s, self._private_hosts)
        if answer.status in (418, 429):
            told = told_s(answer.retry_after)
            self.stay_away(f"HTTP {answer.status}", DEFAULT_RETRY_AFTER_S if told is None else told)
        if answer.status >= 500:
            raise VenueUnavailable(self.venue, f"HTTP {answer.status}")
        return answer

    def stay_away(self, words: str, seconds: float) -> None:
        """The venue wants to be left alone: every worker obeys. Raises: VenueUnavailable, always; BufferUnavailable."""
        self._budget.block(self.venue, seconds)
        raise VenueUnavailable(self.venue, f"{words}: nobody asks for {seconds:.0f} s", seconds)


def ask(
    venue: str,
    url: str,
    path: str,
    proxy: str | None,
    monotonic_s: Callable[[], float],
    private_hosts: Collection[str] = (),
) -> Answer:
    """Whatever `venue` answers to one GET of `path` below `url`, outside any budget. Raises: VenueUnavailable."""
    until_s = monotonic_s() + ANSWER_S
    try:
        whole = partial(_answer, url.rstrip("/") + path, proxy, private_hosts)
        return interruptible(whole, lambda: monotonic_s() > until_s, f"ask {venue}")
    except Interrupted as error:
        raise VenueUnavailable(venue, f"no whole answer within {ANSWER_S:.0f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise VenueUnavailable(venue, f"{type(error).__name__}: {error}") from error
    except ValueError as error:  # also a kind of proxy that httpx has not
        raise VenueUnavailable(venue, str(error)) from error


def _answer(url: str, proxy: str | None, private_hosts: Collection[str]) -> Answer:
    host = urlsplit(proxy or url).hostname or ""

    def trace(event: str, told: dict[str, Any]) -> None:
        """httpcore says where it has come to before it says a word there."""
        if event.endswith("connect_tcp.complete"):
            stream = told["return_value"]
            if why := peer_complaint(stream.get_extra_info("server_addr")[0], host, private_hosts):
                stream.close()
                raise ValueError(why)

    body = bytearray()
    with (
        httpx.Client(verify=tls.context(), timeout=TIMEOUT_S, proxy=proxy, trust_env=False, headers=_HEADERS) as client,
        client.stream("GET", url, extensions={"trace": trace}) as response,
    ):
        for piece in _unpacked(response):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise ValueError(f"an answer of more than {MAX_BODY_BYTES} bytes")
    return Answer(response.status_code, bytes(body), response.headers.get("retry-after", ""))


def _unpacked(response: httpx.Response) -> Iterator[bytes]:
    """The body in pieces of bounded size: a few packed bytes may stand for a thousand times as many."""
    packing = response.headers.get("content-encoding", "identity").lower()
    if packing not in ("identity", "gzip"):
        raise ValueError(f"an answer packed as {packing!r}, where only gzip was asked for")
    packed = zlib.decompressobj(wbits=31)
    for raw in response.iter_raw():
        if packing == "identity":
            yield raw
            continue
        while raw:
            try:
                yield packed.decompress(raw, PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(f"an answer that cannot be unpacked: {error}") from error
            raw = packed.unconsumed_tail
    if packing == "gzip":
        yield packed.flush()
