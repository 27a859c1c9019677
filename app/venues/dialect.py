"""The words that all venues share. Everything here and in the dialects is pure: time and randomness are given.

A *topic* is one series of frames (a channel of a market), the same for everybody who subscribed to it. A *session* is
what one connection may say and hear. A *venue* has the markets, makes topics and sessions, and answers REST.
Times are microseconds since the Unix epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar

import msgspec

from app.venues.instruments import Instrument
from app.venues.market import Market, Step

ORDERBOOK, TRADE = "orderbook", "trade"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One order book frame or one trade, as a collector should store it."""

    #: In the venue's canonical spelling.
    symbol: str
    feed: str
    #: The trade's id as the venue says it; None for books.
    id: str | None
    #: The exact text: a book's whole frame, a trade's smallest JSON object.
    data: str


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One WebSocket message and the events in it (none: it is a control frame)."""

    text: str
    events: tuple[Event, ...] = ()
    binary: bool = False


class Send(msgspec.Struct, frozen=True):
    """Send this frame to the client."""

    frame: Frame


class Join(msgspec.Struct, frozen=True):
    """The client gets this topic from now on: its opening frames (such as a snapshot), then the live ones."""

    topic: str
    opening: bool = True
    live: bool = True


class Leave(msgspec.Struct, frozen=True):
    """The client gets this topic no more."""

    topic: str


class Close(msgspec.Struct, frozen=True):
    """Close the connection once everything before is sent."""

    code: int
    reason: str


Action = Send | Join | Leave | Close


def say(text: str) -> Send:
    """A control frame."""
    return Send(Frame(text))


class Topic:
    """One series of frames. Only advanced while somebody is subscribed; `begin` is told when the first one comes."""

    #: `orderbook`, `trade`, or "" for a control series such as heartbeats.
    feed: str = ORDERBOOK
    #: Whether its numbers may start over.
    restarts: bool = False

    def __init__(self, name: str, market: Market) -> None:
        self.name, self.market = name, market
        self.symbol = market.instrument.symbol

    def begin(self, now_us: int) -> None:
        """Take up the series at the market's present state."""

    def opening(self, now_us: int) -> list[Frame]:
        """What a new subscriber gets first."""
        return []

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        """What subscribers get after the market made this step."""
        return []

    def quiet(self, now_us: int) -> list[Frame]:
        """What subscribers get because of the time alone. Asked some times a second."""
        return []

    def restarted(self, now_us: int) -> list[Frame]:
        """The numbers start over, as after a maintenance: what subscribers get now."""
        return []


class Session(ABC):
    """One connection's side of the protocol."""

    def __init__(self, venue: Venue, number: int, now_us: int) -> None:
        self.venue, self.opened_us = venue, now_us
        self.random = Random(f"{venue.seed}:{venue.name}:connection {number}")
        #: Topics subscribed to, in order.
        self.topics: dict[str, None] = {}

    def opened(self) -> list[Action]:
        """What follows from the opening handshake alone."""
        return []

    @abstractmethod
    def received(self, text: str, now_us: int) -> list[Action]:
        """The answer to one message of the client, whatever is in it."""

    def due(self, now_us: int, heard_us: int, pushed_us: int) -> list[Action]:
        """What the time demands. `heard_us`: last bytes from the client; `pushed_us`: last frame sent to it."""
        return []

    def farewell(self, now_us: int) -> list[Action]:
        """What the venue says some time before it closes a connection on purpose."""
        return []

    def join(self, topic: str, opening: bool = True, live: bool = True) -> list[Action]:
        """Subscribe; nothing where that is so already."""
        if topic in self.topics:
            return []
        self.topics[topic] = None
        return [Join(topic, opening, live)]

    def leave(self, topic: str) -> list[Action]:
        """Unsubscribe; nothing where there is no such subscription."""
        if topic not in self.topics:
            return []
        del self.topics[topic]
        return [Leave(topic)]


class Answer(msgspec.Struct, frozen=True):
    """A REST answer: a JSON body, its HTTP status, and headers beside the usual ones."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def answer(value: Any, status: int = 200) -> Answer:
    """`value` as a JSON answer."""
    return Answer(msgspec.json.encode(value), status)


class Venue(ABC):
    """One exchange. `instruments` by canonical symbol is all that it lists."""

    name: ClassVar[str]
    #: Below the venue's own part of the URL; the first is told to users.
    ws_paths: ClassVar[tuple[str, ...]]
    #: How a user sets `ws_url`, below the venue's part of the URL: a collector may add to it.
    ws_base: ClassVar[str] = ""
    #: A path that lists the symbols.
    symbols_path: ClassVar[str]
    #: A protocol PING from the server so often, and how long its PONG may take.
    ping_every_s: ClassVar[float | None] = None
    pong_within_s: ClassVar[float] = 60
    levels: ClassVar[int] = 500
    max_count: ClassVar[int] = 1

    def __init__(self, instruments: dict[str, Instrument], seed: int, first_id: int) -> None:
        self.instruments, self.seed, self.first_id = instruments, seed, first_id
        self.markets: dict[str, Market] = {}
        self.topics: dict[str, Topic] = {}
        #: Listed symbols, in lower case, that this moment's request must not find.
        self.refused: frozenset[str] = frozenset()
        #: The heartbeat rules' waits are multiplied by this. `strict`: data sent does not keep a client alive.
        self.patience = 1.0
        self.strict = False

    def knows(self, symbol: str) -> bool:
        """Whether a subscription to `symbol` is granted."""
        return symbol in self.instruments and symbol.lower() not in self.refused

    @property
    def listed(self) -> list[Instrument]:
        """What the list of symbols shows."""
        return [one for one in self.instruments.values() if one.symbol.lower() not in self.refused]

    @classmethod
    @abstractmethod
    def listing(cls) -> dict[str, Instrument]:
        """What this venue lists, by canonical symbol."""

    @staticmethod
    @abstractmethod
    def read(line: str) -> tuple[str, Frame] | None:
        """A recorded frame of this venue and the name of its topic, or None where it is no order book or trade.

        Raises: msgspec.DecodeError where it is not JSON or not of any known shape.
        """

    @abstractmethod
    def session(self, number: int, query: dict[str, str], now_us: int) -> Session:
        """A session for connection `number`, opened with this query."""

    @abstractmethod
    def rest(self, path: str, query: dict[str, str], now_us: int) -> Answer | None:
        """The answer to GET `path` below the venue's part of the URL; None: there is no such path."""

    @abstractmethod
    def make_topic(self, name: str, now_us: int) -> Topic | None:
        """A new topic; None where the market or the channel does not exist."""

    def topic(self, name: str, now_us: int) -> Topic | None:
        """The topic of that name, the same object each time; None where it does not exist."""
        topic = self.topics.get(name) or self.make_topic(name, now_us)
        if topic is None or not self.knows(topic.symbol):
            return None
        self.topics[name] = topic
        return topic

    def market(self, symbol: str, now_us: int) -> Market:
        """The market of a listed symbol, opened at its first use. The seed and the symbol alone decide its course."""
        market = self.markets.get(symbol)
        if market is None:
            random = Random(f"{self.seed}:{self.name}:{symbol}")
            market = self.markets[symbol] = self.make_market(self.instruments[symbol], random, now_us)
        return market

    def make_market(self, instrument: Instrument, random: Random, now_us: int) -> Market:
        """A new market in this venue's manner."""
        return Market(instrument, random, self.levels, self.first_id, now_us, self.max_count)

    def steps(self, market: Market, now_us: int) -> Iterator[Step]:
        """The market's next steps, all of this moment; each is made when asked for, so that frames show it alone.

        One trade a step on average: at most venues a frame carries one.
        """
        yield market.step(market.random.choice((0, 1, 1, 1, 2)), now_us)

    def refusal(self, origin: str | None, address: str, now_us: int) -> int | None:
        """The HTTP status that refuses a request, from its Origin header and the client's address; None: admitted."""
        return None

    def recorded_as(self, topic: str) -> str:
        """The name under which `read` finds frames of this topic."""
        return topic


def decoded(text: str) -> Any:
    """The JSON value of `text`, None where it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def encoded(value: Any) -> str:
    """`value` as JSON text."""
    return msgspec.json.encode(value).decode()
