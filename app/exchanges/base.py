"""What an exchange must say about itself. Everything here is pure: no clock, no network, no randomness.

An exchange module turns the venue's words into `Decoded` events and control messages, and tells the connection what to
send and when. It decodes only the envelope: who, what, when, identity, continuity. The text itself is stored untouched.
docs/add-an-exchange.md walks through a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

#: The identity of a book that was asked for over REST begins so.
ASKED = "rest-"


class Pace(msgspec.Struct, frozen=True):
    """So many requests a second from one address, and so many at once after a rest."""

    per_s: float
    burst: int


class Limits(msgspec.Struct, frozen=True):
    """What the venue allows. Source of each figure: docs/exchanges.md."""

    #: Most markets one connection may carry (both feeds).
    markets_per_connection: int
    #: Client messages a second on one connection; subscribe frames are paced to it.
    messages_per_s: float
    #: A socket idle in this direction for so long is cut by the venue; for the reader of the docs and the built-in tests.
    idle_timeout_s: float
    #: The venue cuts every connection after so long; None where it names no time.
    lifetime_s: float | None = None
    #: Connection attempts, and REST calls, from one address; shared by all workers.
    connects: Pace = Pace(1.0, 5)
    rest: Pace = Pace(2.0, 5)
    #: Subscribe and unsubscribe requests an hour on one connection, None where the venue names no bound.
    requests_per_hour: int | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """What the client sends on a timer of its own. `frame` None means a protocol PING."""

    every_s: float
    frame: str | None


class Subscription(msgspec.Struct, frozen=True):
    """What one connection carries: canonical symbols, data types (`orderbook`, `trade`) and the venue's channel names."""

    symbols: tuple[str, ...]
    feeds: tuple[str, ...]
    orderbook_channel: str
    trade_channel: str


class Request(msgspec.Struct, frozen=True):
    """One client message that asks for data. `id` is what the venue's answer will carry, "" where it carries none."""

    id: str
    frame: str
    #: The (symbol, feed) pairs it asks for.
    feeds: tuple[tuple[str, str], ...]
    #: Where the user gave a key, `Exchange.signer` puts a token into the frame at the moment it is sent.
    sign: bool = False


#: (frame, now in seconds since the Unix epoch, a nonce unique per call) -> the frame with its token.
Signer = Callable[[str, int, str], str]


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """One event of a frame, before it is numbered."""

    symbol: str
    feed: str
    #: "" where the venue gives no identity: the session then uses `epoch-number`.
    sequence_id: str
    exchange_us: int | None
    data: str
    #: Continuity: the previous event of this (symbol, feed) must have had `last == follows`. None: this event starts
    #: anew (a snapshot), or, with `last` None too, the venue's ids cannot tell.
    follows: int | None = None
    last: int | None = None
    #: The ids count one by one, so that the size of a hole is known.
    dense: bool = False


class Ack(msgspec.Struct, frozen=True):
    """The venue accepted these feeds. `request_id` "" where the answer carries none."""

    request_id: str
    feeds: tuple[tuple[str, str], ...] = ()


class Rejected(msgspec.Struct, frozen=True):
    """The venue refused. `feeds` as far as the words or the request id tell; empty: all of the request's, or unknown."""

    request_id: str
    message: str
    feeds: tuple[tuple[str, str], ...] = ()


class Notice(msgspec.Struct, frozen=True):
    """Anything else that is not data: `kind` is pong, heartbeat, shutdown (the venue will close soon) or status."""

    kind: str
    message: str = ""


class Counted(msgspec.Struct, frozen=True, gc=False):
    """This frame's number, where the venue counts every frame of the connection one by one, whatever it carries.

    It comes before the other messages of its frame. The session tells a hole from it, which may be in any of the books.
    """

    number: int


Message = Decoded | Ack | Rejected | Notice | Counted


class Decoder(ABC):
    """Decodes the frames of one connection; may hold that connection's symbol map, nothing else."""

    @abstractmethod
    def decode(self, frame: str) -> Sequence[Message]:
        """The messages of one frame, in the venue's order. A frame may hold many trades.

        Raises: FrameRejected when the frame is not JSON, lacks a needed field, or names a symbol or channel that was
        not asked for. The whole frame is then quarantined: never half of one. Where frames are `Counted`, the exception
        carries the number, unless a book was in the frame: that book has a hole now, and the next number shows it.
        """


class Exchange(ABC):
    """One venue. Stateless; everything about one connection lives in `Decoder`."""

    name: ClassVar[str]
    ws_url: ClassVar[str]
    rest_url: ClassVar[str]
    #: Channel names a user may set; the first is the default.
    orderbook_channels: ClassVar[tuple[str, ...]]
    trade_channels: ClassVar[tuple[str, ...]]
    limits: ClassVar[Limits]
    heartbeat: ClassVar[Heartbeat | None]
    #: Path below `rest_url` that lists the venue's symbols.
    symbols_path: ClassVar[str]
    #: The canonical spelling in words, for error messages: "lower case without a dash, such as btcusdt".
    symbol_example: ClassVar[str]
    #: Whether requests for public data may be signed with a key of the user's.
    takes_key: ClassVar[bool] = False

    @abstractmethod
    def canonical(self, symbol: str) -> str:
        """The spelling under which `symbol` is stored. Raises: InvalidSymbol."""

    def delivered(self, symbol: str) -> str:
        """The symbol that the venue's frames name where `symbol` was asked for; two that share one cannot both be recorded."""
        return symbol

    def signer(self, api_key: str, api_secret: str) -> Signer:
        """What signs this user's requests, where the exchange `takes_key`.

        Raises: ValueError with the end of a sentence about `api_secret`, which it never quotes.
        """
        raise NotImplementedError

    @abstractmethod
    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        """The URL to connect to, from the base URL of the settings."""

    @abstractmethod
    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        """The frames that ask for everything in `subscription`, split to the venue's limits.

        `nonce` is unique per connection.
        """

    @abstractmethod
    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        """The frames that make the venue start one feed anew (a fresh snapshot) without touching the others."""

    @abstractmethod
    def decoder(self, subscription: Subscription) -> Decoder:
        """A decoder for one connection with this subscription."""

    def dense_span(self, sequence_id: str, data: str) -> tuple[int, int] | None:
        """The trade ids that a stored trade stands for, (first, last), where the venue's ids count one by one.

        None where they do not, or where it cannot be told from what is given; `data` is "" where the text is not at hand.
        Where they count, `sequence_id` ends with the last of them.
        """
        return None

    def book_path(self, subscription: Subscription, symbol: str) -> str | None:
        """Path and query below `rest_url` of the book that the changes of this subscription begin with.

        None where the channel brings its snapshots itself.
        """
        return None

    def asked_book(self, symbol: str, body: bytes) -> Decoded:
        """The answer to `book_path` as an event: `last` is the last change it includes, `follows` None, `data` the body.

        Its identity begins with `ASKED`. Raises: FrameRejected.
        """
        raise NotImplementedError

    @abstractmethod
    def listed(self, body: bytes) -> frozenset[str]:
        """Canonical symbols open for trading, from the answer to `symbols_path`. Raises: FrameRejected."""
