"""What many viewers follow is computed once for all of them, and only while somebody does (server-sent events)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

#: A browser that lost the connection opens it again after so long.
RETRY_MS = 1000
#: Viewers at once, of all streams of events of one page.
MOST_VIEWERS = 32
#: A viewer looks at least so often whether the process ends.
LOOK_S = 0.5
#: A stream lasts so long, then its browser opens it again: a viewer who vanished without a word has its seat no longer.
LONGEST_S = 300.0
#: Beyond that, for a viewer who takes nothing any more.
CUT_S = 30.0


class Seats:
    """How many may look at once: each holds a connection."""

    def __init__(self, most: int = MOST_VIEWERS) -> None:
        self.most, self.taken = most, 0

    def take(self) -> bool:
        """False where none is free."""
        free = self.taken < self.most
        self.taken += free
        return free

    def leave(self) -> None:
        self.taken -= 1


class Broadcast:
    """`tell` is called on a thread every `every_s` while there is a viewer; it returns the event's name and document.

    A viewer that is slower than that misses documents, never the latest. What `tell` raises ends all viewers. None stays
    longer than `longest_s`: whoever is still there comes back by itself.
    """

    def __init__(self, tell: Callable[[], tuple[str, Any]], every_s: float, longest_s: float = LONGEST_S) -> None:
        self._tell, self._every_s, self.longest_s = tell, every_s, longest_s
        self._mailboxes: set[asyncio.Queue[bytes]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._latest: bytes | None = None

    @property
    def viewers(self) -> int:
        return len(self._mailboxes)

    async def watch(self, over: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """Events, as they go over the wire, until `over` or for `longest_s`."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self.longest_s
        mailbox: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._mailboxes.add(mailbox)
        if self._pump is None or self._pump.done():
            self._pump, self._latest = asyncio.create_task(self._run()), None
        elif self._latest is not None:
            mailbox.put_nowait(self._latest)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while not over() and now_s() < until_s:
                try:
                    yield await asyncio.wait_for(mailbox.get(), LOOK_S)
                except TimeoutError:
                    if self._pump.done():
                        self._pump.result()
                        return
        finally:
            self._mailboxes.discard(mailbox)

    async def _run(self) -> None:
        while self._mailboxes:
            name, document = await run_in_threadpool(self._tell)
            self._latest = f"event: {name}\ndata: ".encode() + msgspec.json.encode(document) + b"\n\n"
            for mailbox in self._mailboxes:
                if mailbox.full():
                    mailbox.get_nowait()
                mailbox.put_nowait(self._latest)
            await asyncio.sleep(self._every_s)


class _Events(StreamingResponse):
    """A stream of events; `left` is called when its viewer is gone, however that comes about, or `cut_s` are over."""

    def __init__(self, events: AsyncGenerator[bytes, None], left: Callable[[], None], cut_s: float) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events, self._left, self._cut_s = events, left, cut_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._cut_s) as cut:
                await super().__call__(scope, receive, send)
        except TimeoutError:
            if not cut.expired():
                raise
        finally:
            self._left()
            await self._events.aclose()


def followed(request: Request, broadcast: Broadcast, seats: Seats) -> Response:
    """The answer to a viewer of `broadcast`: its events, or that there is no seat."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    if not seats.take():
        words = f"{seats.most} viewers are connected, which is the most: close a page elsewhere"
        return JSONResponse({"error": words}, 503, {"Retry-After": "5"})
    return _Events(broadcast.watch(request.app.state.over), seats.leave, broadcast.longest_s + CUT_S)
