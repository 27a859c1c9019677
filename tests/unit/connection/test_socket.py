"""The blocking socket against real servers: one that speaks well, and one that sends the very bytes of a bad day."""

from __future__ import annotations

import queue
import socket
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from select import select
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websocket import WebSocketConnectionClosedException, WebSocketTimeoutException
from websocket._abnf import continuous_frame
from websockets.sync.server import ServerConnection

from app.connection.frames import LOOK_DEEPER, OVERSIZED_HEAD_BYTES, Frames, FrameTooLarge
from app.connection.socket import ConnectionEnded, ConnectionFailed, SendFailed, Socket
from app.launch.redis_server import free_port
from tests.support.websockets_served import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Wire,
    frame,
    served,
    wired,
)  # fmt: skip

#: A frame that must come has this long; one that must not is waited for no longer than `SOON_S`.
LONG_S, SOON_S = 10.0, 0.05
MAX_FRAME_BYTES = 100_000


class OneByOne(Socket):
    """Hands out one payload a call, however many came at once."""

    _waiting: Sequence[bytes | None] = ()

    def next(self, timeout_s: float) -> bytes | None:
        first, *self._waiting = self._waiting or self.receive(timeout_s) or [None]
        return first


@contextmanager
def connected(url: str, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> Iterator[OneByOne]:
    client = OneByOne(url, connect_timeout_s=LONG_S, max_frame_bytes=max_frame_bytes)
    try:
        yield client
    finally:
        client.close()


# data


def test_text_and_binary_frames_come_out_as_the_bytes_that_were_sent() -> None:
    said = ['{"price":"1.0"}', '{"sym":"₿"}', b'{"cd":"KRW-BTC"}', b"\xff\xfe\x00", "", "x" * 70_000]

    def handler(connection: ServerConnection) -> None:
        for message in said:
            connection.send(message)
        connection.recv(timeout=LONG_S)

    with served(handler) as url, connected(url) as client:
        received = [client.next(LONG_S) for _ in said]
        client.send("enough")
    assert received == [message.encode() if isinstance(message, str) else message for message in said]


def test_a_frame_that_drips_in_does_not_keep_the_reader_from_its_timers() -> None:
    go, seen = Event(), Event()
    payload = b"x" * 300

    def script(wire: Wire) -> None:
        wire.accept()
        rest = frame(TEXT, payload)
        while rest and not go.is_set():
            wire.send(rest[:1])
            rest = rest[1:]
            seen.wait(SOON_S / 5)
        wire.send(rest)
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert client.next(SOON_S) is None
        assert client.next(SOON_S) is None
        go.set()
        assert client.next(LONG_S) == payload


def test_a_text_frame_that_is_not_utf_8_is_handed_out_as_it_is() -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, b"\x80broken"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert client.next(LONG_S) == b"\x80broken"


def test_a_message_in_fragments_is_one_and_a_ping_between_them_is_answered() -> None:
    pongs: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, b"one ", fin=False) + frame(PING, b"there?") + frame(CONTINUATION, b"two ", fin=False))
        pongs.put(wire.receive())
        wire.send(frame(CONTINUATION, b"three") + frame(BINARY, b"next"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert client.next(LONG_S) == b"one two three"
        assert client.next(LONG_S) == b"next"
    assert pongs.get(timeout=LONG_S) == (PONG, b"there?")


def test_what_is_sent_arrives_and_none_is_a_ping() -> None:
    heard: list[object] = []

    def script(wire: Wire) -> None:
        wire.accept()
        heard.extend([wire.receive(), wire.receive()])
        wire.send(frame(PONG, b"") + frame(TEXT, b"done"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        client.send('{"op":"subscribe","sym":"₿"}')
        client.send(None)
        assert client.next(LONG_S) == b"done", "a pong is no data"
    assert heard == [(TEXT, '{"op":"subscribe","sym":"₿"}'.encode()), (PING, b"")]


def test_a_timeout_anywhere_in_a_frame_loses_no_byte() -> None:
    payload = bytes(range(256)) * 3
    wanted = frame(BINARY, payload)
    cuts = [1, 3, 4, 5, 300, len(wanted) - 1, len(wanted)]
    more = queue.SimpleQueue[int]()

    def script(wire: Wire) -> None:
        wire.accept()
        sent = 0
        for cut in cuts:
            more.get(timeout=LONG_S)
            wire.send(wanted[sent:cut])
            sent = cut
        wire.send(frame(TEXT, b"whole"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert client.next(SOON_S) is None
        for cut in cuts[:-1]:
            more.put(cut)
            assert client.next(SOON_S) is None
        more.put(cuts[-1])
        assert client.next(LONG_S) == payload
        assert client.next(LONG_S) == b"whole"


def test_frames_that_came_together_are_handed_out_together_up_to_what_is_no_data() -> None:
    go = Event()
    payloads = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 70_000]
    last = frame(BINARY, b"e" * 300)

    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(b"".join(frame(TEXT, payload) for payload in payloads[:4]))
        go.wait(LONG_S)
        wire.send(frame(TEXT, payloads[4]) + frame(PING, b"") + frame(TEXT, b"f") + last[:50])
        wire.receive()
        wire.send(last[50:])
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        found = client.receive(LONG_S)
        while len(found) < 4:
            found += client.receive(LONG_S)
        go.set()
        while len(found) < 7:
            found += client.receive(LONG_S)
        assert found == [*payloads, b"f", b"e" * 300]
        assert client.control_frames == 1


def cut(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`stream` in pieces of `cuts`, over and over."""
    pieces: list[bytes] = []
    while stream:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def socket_of(pieces: list[bytes | None]) -> Callable[[int], bytes]:
    """Gives one piece a read; None: there is nothing now. Then the end."""

    def read(size: int) -> bytes:
        if not pieces:
            raise WebSocketConnectionClosedException
        piece = pieces.pop(0)
        if piece is None:
            raise WebSocketTimeoutException
        return piece

    return read


def more_of(pieces: list[bytes | None]) -> Callable[[int], bytes]:
    """The same of what is read when it is there."""
    return lambda size: (pieces.pop(0) or b"") if pieces else b""


@given(
    st.lists(
        st.tuples(st.sampled_from([TEXT, BINARY, PING, CONTINUATION]), st.integers(0, 400)), min_size=1, max_size=30
    ),
    st.lists(st.integers(1, 700), min_size=1, max_size=10),
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.booleans(),
)
def test_however_the_bytes_are_cut_every_message_comes_out_once_in_order(
    kinds: list[tuple[int, int]], cuts: list[int], pauses: list[bool], waits: bool
) -> None:
    """A continuation stands for a message in two fragments. There is nothing for a moment where `pauses`, over and over."""
    stream, said = b"", []
    for number, (kind, size) in enumerate(kinds):
        payload = bytes([number]) * size
        if kind == CONTINUATION:
            stream += frame(TEXT, payload, fin=False) + frame(CONTINUATION, b"!")
            said.append(payload + b"!")
        else:
            stream += frame(kind, payload[:125] if kind == PING else payload)
            said += [] if kind == PING else [payload]
    pieces: list[bytes | None] = []
    for n, piece in enumerate(cut(stream, cuts)):
        pieces += [None, piece] if pauses[n % len(pauses)] else [piece]
    frames = Frames(socket_of(pieces), more_of(pieces), MAX_FRAME_BYTES)
    frames.waits = waits
    joined, found = continuous_frame(False, True), []
    while len(found) < len(said):
        with suppress(WebSocketTimeoutException):
            if whole := frames.whole():
                found += whole
                continue
            one = frames.recv_frame()
            if one.opcode in (TEXT, BINARY, CONTINUATION):
                joined.add(one)
                if joined.is_fire(one):
                    found.append(joined.extract(one)[1].data)
    assert found == said


def test_where_a_read_brings_one_record_of_many_all_are_read_as_soon_as_that_was_seen() -> None:
    many: list[bytes | None] = [frame(TEXT, b"%d" % n) for n in range(10)]
    pieces = [*many[:4], None, *many[4:6], None, *many[6:]]
    frames = Frames(socket_of(pieces), more_of(pieces), MAX_FRAME_BYTES)
    frames.waits = False
    assert frames.whole() == [b"0", b"1", b"2", b"3"]
    assert frames.whole() == [b"4", b"5"]
    assert frames.whole() == [b"6", b"7", b"8", b"9"]
    with pytest.raises(WebSocketConnectionClosedException):
        frames.whole()


def test_where_a_read_brings_all_there_is_it_is_seldom_asked_for_more() -> None:
    asked: list[int] = []

    def more(size: int) -> bytes:
        asked.append(size)
        return b""

    frames = Frames(lambda size: frame(TEXT, b"one"), more, MAX_FRAME_BYTES)
    frames.waits = False
    assert [frames.whole() for _ in range(LOOK_DEEPER + 1)] == [[b"one"]] * (LOOK_DEEPER + 1)
    assert len(asked) == 2


def test_what_was_sent_before_the_end_is_received_whole_though_the_end_is_there_already() -> None:
    sent = Event()

    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(b"".join(frame(PING, b"there?") + frame(TEXT, b"%d" % n) for n in range(20)))
        wire.connection.shutdown(socket.SHUT_WR)
        sent.set()
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert sent.wait(LONG_S)
        found: list[bytes] = []
        with pytest.raises(ConnectionEnded):
            while select([client], [], [], LONG_S)[0]:
                found += client.receive(0)
                while not client.dry:
                    found += client.receive(0)
        assert found == [b"%d" % n for n in range(20)]


def test_a_large_frame_that_comes_in_many_pieces_is_joined_once() -> None:
    payload = bytes(range(256)) * 300
    pieces: list[bytes | None] = []
    for piece in cut(frame(BINARY, payload) + frame(TEXT, b"next"), [100]):
        pieces += [piece, None]
    frames = Frames(socket_of(pieces), more_of([]), MAX_FRAME_BYTES)
    frames.waits, found, joins = False, [], 0
    while not found:
        ahead = frames._ahead
        with suppress(WebSocketTimeoutException):
            found = frames.whole() or [frames.recv_frame().data]
        joins += frames._ahead is not ahead
    assert found == [payload] and joins <= 5
    while len(found) < 2:
        with suppress(WebSocketTimeoutException):
            found += frames.whole()
    assert found[1] == b"next"


def test_what_had_come_before_a_send_failed_can_still_be_received(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Event()

    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
        sent.set()
        wire.until_closed()

    def gone(frame: str) -> None:
        raise BrokenPipeError("the peer is gone")

    with wired(script) as url, connected(url) as client:
        assert sent.wait(LONG_S) and not client.dry
        select([client], [], [], LONG_S)
        monkeypatch.setattr(client._ws, "send", gone)
        with pytest.raises(SendFailed, match="the peer is gone"):
            client.send("ping")
        assert client.receive(0) == [b"one", b"two"]


def test_without_waiting_what_is_there_is_received_and_dry_says_when_the_socket_is_to_be_asked_again() -> None:
    go = Event()

    def script(wire: Wire) -> None:
        wire.accept()
        go.wait(LONG_S)
        wire.send(frame(TEXT, b"before") + frame(PING, b"there?") + frame(TEXT, b"behind"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert (client.receive(0), client.dry) == ([], True)
        go.set()
        select([client], [], [], LONG_S)
        assert (client.receive(0), client.dry) == ([b"before"], False)
        assert client.receive(0) == [b"behind"]
        assert client.receive(0) == [] and client.dry
        assert client.control_frames == 1


def test_what_stands_behind_a_ping_that_cannot_be_answered_is_handed_out_before_the_end_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        behind = (frame(PING, b"there?") + frame(TEXT, b"behind")) * 3
        wire.send(frame(TEXT, b"before") + behind)
        wire.until_closed()

    def gone(payload: bytes) -> None:
        raise BrokenPipeError("the peer is gone")

    with wired(script) as url, connected(url) as client:
        monkeypatch.setattr(client._ws, "pong", gone)
        assert [client.next(LONG_S) for _ in range(4)] == [b"before", b"behind", b"behind", b"behind"]
        with pytest.raises(ConnectionEnded, match="the peer is gone"):
            client.next(LONG_S)


# the end


def test_a_close_frame_says_its_code_and_words() -> None:
    with (
        served(lambda connection: connection.close(4008, "slow consumer")) as url,
        connected(url) as client,
        pytest.raises(ConnectionEnded) as ended,
    ):
        client.next(LONG_S)
    assert (ended.value.code, ended.value.text) == (4008, "slow consumer")
    assert str(ended.value) == "close frame 4008 'slow consumer'"


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [(b"", None, "no reason given"), (b"\x03\xf1", 1009, "no reason given"), (b"\x03\xe8bye \xff", 1000, "bye \ufffd")],
)
def test_a_close_frame_may_lack_words_or_code(payload: bytes, code: int | None, text: str) -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(CLOSE, payload))
        wire.until_closed()

    with wired(script) as url, connected(url) as client, pytest.raises(ConnectionEnded) as ended:
        client.next(LONG_S)
    assert (ended.value.code, ended.value.text) == (code, text)


def test_data_before_the_end_is_received_before_the_end_is_told() -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, b"last words") + frame(TEXT, b"half a fra", announced=400))

    with wired(script) as url, connected(url) as client:
        assert client.next(LONG_S) == b"last words"
        with pytest.raises(ConnectionEnded) as ended:
            client.next(LONG_S)
    assert (ended.value.code, ended.value.text) == (None, "stream ended without a close frame")


def test_after_the_end_it_says_so_again_and_sending_says_so_too() -> None:
    def script(wire: Wire) -> None:
        wire.accept()

    with wired(script) as url, connected(url) as client:
        for _ in range(2):
            with pytest.raises(ConnectionEnded):
                client.next(LONG_S)
        with pytest.raises(ConnectionEnded):
            client.send("hello?")
        client.say_goodbye(1000)


def test_a_frame_against_the_protocol_ends_the_connection() -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(CONTINUATION, b"of nothing"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client, pytest.raises(ConnectionEnded) as ended:
        client.next(LONG_S)
    assert ended.value.code is None
    assert "WebSocketProtocolException" in ended.value.text


def test_after_our_goodbye_what_was_under_way_is_still_received() -> None:
    heard: list[tuple[int, bytes]] = []

    def script(wire: Wire) -> None:
        wire.accept()
        heard.append(wire.receive())
        wire.send(frame(TEXT, b"under way") + frame(BINARY, b"this too") + frame(CLOSE, b"\x03\xe8"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        client.say_goodbye(1000)
        assert client.next(LONG_S) == b"under way"
        assert client.next(LONG_S) == b"this too"
        with pytest.raises(ConnectionEnded) as ended:
            client.next(LONG_S)
    assert heard == [(CLOSE, b"\x03\xe8")]
    assert ended.value.code == 1000


# frames that are too large


def test_a_frame_at_the_cap_passes_and_one_byte_more_does_not() -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(BINARY, b"a" * MAX_FRAME_BYTES) + frame(BINARY, b"b" * (MAX_FRAME_BYTES + 1)))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert client.next(LONG_S) == b"a" * MAX_FRAME_BYTES
        with pytest.raises(FrameTooLarge) as too_large:
            client.next(LONG_S)
    assert too_large.value.size_bytes == MAX_FRAME_BYTES + 1
    assert too_large.value.head == b"b" * OVERSIZED_HEAD_BYTES


def test_a_frame_that_announces_terabytes_costs_its_head_and_no_more() -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, b"{" * 2 * OVERSIZED_HEAD_BYTES, announced=2**42))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        tracemalloc.start()
        try:
            with pytest.raises(FrameTooLarge) as too_large:
                client.next(LONG_S)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert too_large.value.size_bytes == 2**42
    assert too_large.value.head == b"{" * OVERSIZED_HEAD_BYTES
    assert peak_bytes < 20 * OVERSIZED_HEAD_BYTES


def test_a_frame_whose_head_comes_slowly_is_too_large_all_the_same() -> None:
    more = Event()

    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, b"{" * 10, announced=10 * MAX_FRAME_BYTES))
        assert more.wait(LONG_S)
        wire.send(b"}" * 2 * MAX_FRAME_BYTES)
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert client.next(SOON_S) is None
        assert client.next(SOON_S) is None
        more.set()
        with pytest.raises(FrameTooLarge) as too_large:
            client.next(LONG_S)
    assert too_large.value.head == b"{" * 10 + b"}" * (OVERSIZED_HEAD_BYTES - 10)


def test_fragments_that_together_pass_the_cap_are_too_large() -> None:
    part = b"x" * (MAX_FRAME_BYTES // 2)

    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(TEXT, part, fin=False) + frame(PING, b"") + frame(CONTINUATION, part, fin=False))
        wire.send(frame(CONTINUATION, b"y"))
        wire.until_closed()

    with wired(script) as url, connected(url) as client, pytest.raises(FrameTooLarge) as too_large:
        client.next(LONG_S)
    assert (too_large.value.size_bytes, too_large.value.head) == (MAX_FRAME_BYTES + 1, b"y")


def test_whole_messages_do_not_add_up_to_the_cap() -> None:
    part = b"x" * (MAX_FRAME_BYTES // 2)

    def script(wire: Wire) -> None:
        wire.accept()
        for _ in range(3):
            wire.send(frame(TEXT, part, fin=False) + frame(CONTINUATION, part))
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert [client.next(LONG_S) for _ in range(3)] == [part + part] * 3


# the handshake


@pytest.mark.parametrize("status", ["429 Too Many Requests", "451 Unavailable For Legal Reasons", "503 Overloaded"])
def test_a_handshake_that_is_refused_says_with_which_status(status: str) -> None:
    with wired(lambda wire: wire.refuse(status)) as url, pytest.raises(ConnectionFailed) as failed:
        Socket(url, connect_timeout_s=LONG_S, max_frame_bytes=MAX_FRAME_BYTES)
    assert failed.value.status == int(status[:3])
    assert str(failed.value) == f"the venue answered the handshake with HTTP {status[:3]}"


def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []
    with wired(lambda wire: asked.append(wire.request_line)) as elsewhere:
        with (
            wired(lambda wire: wire.refuse("302 Found", f"Location: {elsewhere}secret")) as url,
            pytest.raises(ConnectionFailed, match=r"[Rr]edirect"),
        ):
            Socket(url, connect_timeout_s=LONG_S, max_frame_bytes=MAX_FRAME_BYTES)
        with pytest.raises(ConnectionFailed):  # the only one that ever comes there
            Socket(f"{elsewhere}own", connect_timeout_s=LONG_S, max_frame_bytes=MAX_FRAME_BYTES)
    assert asked == ["GET /own HTTP/1.1"]


def test_a_name_that_leads_into_a_private_network_is_left_before_anything_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolved = socket.getaddrinfo

    def forged(host: str, *more: object) -> object:
        return resolved("127.0.0.1" if host == "venue.example" else host, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", forged)
    heard: list[object] = []

    def handler(connection: ServerConnection) -> None:
        heard.extend(connection)

    options = {"connect_timeout_s": LONG_S, "max_frame_bytes": MAX_FRAME_BYTES}
    with served(handler) as url:
        url = url.replace("127.0.0.1", "venue.example")
        with pytest.raises(ConnectionFailed, match=r"venue.example leads to 127.0.0.1, which is a private address"):
            Socket(url, **options)  # type: ignore[arg-type]
        Socket(url, **options, private_hosts=("venue.example",)).close()  # type: ignore[arg-type]
    assert heard == []


def test_no_origin_header_is_sent() -> None:
    headers: dict[str, str] = {}

    def script(wire: Wire) -> None:
        headers.update(wire.headers)
        wire.accept()

    with wired(script) as url, connected(url):
        pass
    assert headers["upgrade"] == "websocket"
    assert "origin" not in headers


def test_where_nobody_listens_or_the_handshake_never_ends_no_connection_comes_about() -> None:
    with pytest.raises(ConnectionFailed) as refused:
        Socket(f"ws://127.0.0.1:{free_port()}/", connect_timeout_s=LONG_S, max_frame_bytes=1)
    assert refused.value.status is None
    with wired(Wire.until_closed) as url, pytest.raises(ConnectionFailed, match="Timeout"):
        Socket(url, connect_timeout_s=SOON_S, max_frame_bytes=1)


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "nonsense", "ws://"])
def test_a_url_that_is_none_fails_like_a_connection(url: str) -> None:
    with pytest.raises(ConnectionFailed):
        Socket(url, connect_timeout_s=SOON_S, max_frame_bytes=1)


@pytest.mark.parametrize(
    "headers", [b"Set-Cookie: a/b=c", b'Set-Cookie: Domain=;;\r\nSet-Cookie: "\\x=', b"no colon", b"\xff: x"]
)
def test_no_header_of_the_handshake_is_worse_than_a_failed_connection(headers: bytes) -> None:
    def script(wire: Wire) -> None:
        wire.accept(headers)
        wire.until_closed()

    with wired(script) as url:
        try:
            Socket(url, connect_timeout_s=LONG_S, max_frame_bytes=MAX_FRAME_BYTES).close()
        except ConnectionFailed as failed:
            assert failed.status is None


def trickle(wire: Wire, piece: bytes) -> None:
    """Send `piece` again and again, faster than any timeout, until the client has let go or says something."""
    with suppress(OSError):
        while not select([wire.connection], [], [], 0.005)[0]:
            wire.send(piece)


def test_a_handshake_that_goes_on_and_on_is_given_up() -> None:
    def script(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\n")
        trickle(wire, b"X-And-So-On: x\r\n")

    with wired(script) as url, pytest.raises(ConnectionFailed):
        Socket(url, connect_timeout_s=0.2, max_frame_bytes=MAX_FRAME_BYTES)


@pytest.mark.parametrize(
    ("opening", "piece"),
    [(frame(TEXT, b"", announced=90_000), b"x"), (frame(TEXT, b"", fin=False), frame(CONTINUATION, b"x", fin=False))],
    ids=["bytes of a frame", "fragments of a message"],
)
def test_a_message_that_goes_on_and_on_does_not_keep_the_reader_from_its_timers(opening: bytes, piece: bytes) -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.send(opening)
        trickle(wire, piece)
        wire.until_closed()

    with wired(script) as url, connected(url) as client:
        assert [client.next(SOON_S) for _ in range(3)] == [None] * 3
        client.send("enough")


def test_a_handshake_that_comes_byte_by_byte_is_given_up_in_time() -> None:
    given_up = Event()

    def script(wire: Wire) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 100:
                wire.send(bytes([byte]))
                if given_up.wait(0.05):  # far more often than the timeout, which each byte would begin anew
                    return

    with wired(script) as url, pytest.raises(ConnectionFailed, match=r"not over after 0\.5 s"):
        try:
            Socket(url, connect_timeout_s=0.5, max_frame_bytes=1024)
        finally:
            given_up.set()
