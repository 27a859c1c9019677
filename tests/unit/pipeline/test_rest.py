"""How a venue's REST is asked: what bounds an answer, and where a question must not go."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from app.clock import monotonic_s
from app.errors import VenueUnavailable
from app.pipeline import rest
from app.pipeline.rest import Answer, ask

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(b"...", b"...")` is the URL of a server that says these pieces to whoever asks, and hangs up."""
    listeners: list[socket.socket] = []
    over = threading.Event()

    def start(*pieces: bytes, pause_s: float = 0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer() -> None:
            while not over.is_set():
                with suppress(OSError), listener.accept()[0] as peer:
                    asked.append(peer.recv(65_536))
                    for piece in pieces:
                        peer.sendall(piece)
                        over.wait(pause_s)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    asked: list[bytes] = []
    start.asked = asked  # type: ignore[attr-defined]
    yield start
    over.set()
    for listener in listeners:
        listener.close()


def head(status: str = "200 OK", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(url: str, **options: object) -> Answer:
    return ask("okx", url + "/", "/list", None, monotonic_s, **options)  # type: ignore[arg-type]


def test_an_answer_comes_with_its_status_its_words_and_its_retry_after(serve: Serve) -> None:
    assert answer(serve(head("429 Slow", Retry_After="77"), b"no")) == Answer(429, b"no", "77")
    assert b"GET /list HTTP/1.1" in serve.asked[0]  # type: ignore[attr-defined]


def test_a_packed_answer_is_unpacked(serve: Serve) -> None:
    body = bytes(range(256)) * 5000
    packed = gzip.compress(body)
    cut = len(packed) // 3
    assert answer(serve(head(Content_Encoding="gzip"), packed[:cut], packed[cut:])).body == body


def test_a_bomb_is_given_up_at_the_bound_and_not_after_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_BODY_BYTES", 1_000_000)
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    held: list[int] = []
    unpacked = rest._unpacked

    def watched(response: object) -> Iterator[bytes]:
        for piece in unpacked(response):  # type: ignore[arg-type]
            held.append(len(piece))
            yield piece

    monkeypatch.setattr(rest, "_unpacked", watched)
    with pytest.raises(VenueUnavailable, match="an answer of more than 1000000 bytes"):
        answer(serve(head(Content_Encoding="gzip"), bomb))
    assert max(held) <= rest.PIECE_BYTES and sum(held) <= 1_000_000 + rest.PIECE_BYTES


@pytest.mark.parametrize("packing", ["br", "deflate", "gzip, gzip", "zstd"])
def test_a_packing_that_was_not_asked_for_is_refused(serve: Serve, packing: str) -> None:
    with pytest.raises(VenueUnavailable, match=f"packed as '{packing}'"):
        answer(serve(head(Content_Encoding=packing), gzip.compress(b"{}")))


def test_what_is_no_gzip_is_no_answer(serve: Serve) -> None:
    with pytest.raises(VenueUnavailable, match="cannot be unpacked"):
        answer(serve(head(Content_Encoding="gzip"), b"{}"))


@pytest.mark.parametrize("where", ["head", "body"])
def test_an_answer_that_trickles_is_given_up_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(rest, "ANSWER_S", 0.3)
    whole = head() if where == "body" else b""
    url = serve(
        whole, *(bytes([byte]) for byte in (b"x" * 200 if where == "body" else head(X="y" * 200))), pause_s=0.05
    )
    began_s = time.monotonic()
    with pytest.raises(VenueUnavailable, match="no whole answer within"):
        answer(url)
    assert time.monotonic() - began_s < 5, "the 200 bytes would take ten"


def test_a_redirect_is_an_answer_and_is_followed_nowhere(serve: Serve) -> None:
    elsewhere = serve(head(), b"secret")
    assert answer(serve(head("302 Found", Location=f"{elsewhere}/list"))).status == 302
    assert len(serve.asked) == 1  # type: ignore[attr-defined]


def test_a_name_that_leads_into_a_private_network_is_asked_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(head(), b"[]").replace("127.0.0.1", "venue.example")
    resolved = socket.getaddrinfo

    def forged(host: str, *rest: object, **more: object) -> object:
        return resolved("127.0.0.1" if host == "venue.example" else host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", forged)
    with pytest.raises(VenueUnavailable, match=r"venue.example leads to 127.0.0.1, which is a private address"):
        answer(url)
    assert serve.asked in ([], [b""])  # type: ignore[attr-defined]
    assert answer(url, private_hosts=["venue.example"]).body == b"[]"


@pytest.mark.parametrize("url", ["http://[", "ftp://127.0.0.1", "http://127.0.0.1:1"])
def test_what_cannot_be_asked_is_no_answer(url: str) -> None:
    with pytest.raises(VenueUnavailable):
        answer(url)
