from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.venues.control import BODY_BYTES, split


@given(
    body=st.binary(max_size=300), cut=st.integers(0, 400), name=st.sampled_from(["Content-Length", "content-length"])
)
def test_a_request_is_held_back_until_its_body_is_there_and_then_said_to_have_none(
    body: bytes, cut: int, name: str
) -> None:
    head = f"POST /control/faults HTTP/1.1\r\nHost: x\r\n{name}: {len(body)}\r\nX-Content-Length: 5\r\n\r\n".encode()
    whole = head + body
    if cut < len(whole):
        assert split(whole[:cut]) is None
    assert split(whole) == (head.replace(f"\n{name}: {len(body)}".encode(), f"\n{name}: 0".encode()), body)


def test_a_request_without_a_body_passes_as_it_is() -> None:
    request = b"GET /okx/ws/v5/public HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    assert split(request) == (request, b"")


def test_what_is_too_large_is_left_to_the_library() -> None:
    large = f"POST / HTTP/1.1\r\nContent-Length: {BODY_BYTES + 1}\r\n\r\n".encode()
    assert split(large) == (large, b"")
    endless = b"x" * (BODY_BYTES + 1)
    assert split(endless) == (endless, b"")
