from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

import app.venues.floor
from app.clock import wall_us
from app.venues.binance import Binance
from app.venues.coinbase import Coinbase
from app.venues.dialect import Event, Frame, Join, Venue
from app.venues.floor import Floor
from app.venues.replay import Recording

TRADES, BOOK = "btcusdt@trade", "btcusdt@depth@100ms"
Scene = Callable[[Floor], Awaitable[None]]


class Client:
    """A connection whose frames a test can wait for."""

    def __init__(self, venue: Venue) -> None:
        self.venue, self.session = venue, venue.session(1, {}, wall_us())
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.heard_us = self.pushed_us = wall_us()

    def put(self, frame: Frame) -> None:
        self.frames.put_nowait(frame)

    def perform(self, actions: list[object], exchange: Floor) -> None:
        assert actions == []

    async def drained(self) -> None:
        """Tests take frames when they like."""

    async def room(self) -> None:
        """Always."""

    async def take(self, frames: int) -> list[str]:
        return [(await asyncio.wait_for(self.frames.get(), 5)).text for _ in range(frames)]


def play(scene: Scene, rate: float = 200, recordings: dict[str, Recording] | None = None) -> None:
    async def main() -> None:
        floor = Floor(rate, wall_us, recordings)
        floor.open()
        try:
            await scene(floor)
        finally:
            await asyncio.gather(*floor.close(), return_exceptions=True)

    asyncio.run(main())


def admitted(floor: Floor, venue: Venue) -> Client:
    client = Client(venue)
    floor.admit(client)  # type: ignore[arg-type]
    return client


def join(floor: Floor, client: Client, topic: str) -> None:
    client.session.join(topic)
    floor.join(client, Join(topic))  # type: ignore[arg-type]


def binance() -> Venue:
    return Binance(Binance.listing(), 7, 1_000)


def trade_ids(texts: list[str]) -> list[int]:
    return [json.loads(text)["data"]["t"] for text in texts]


def test_all_subscribers_of_a_topic_get_the_same_frames() -> None:
    async def scene(floor: Floor) -> None:
        venue = binance()
        first, second = admitted(floor, venue), admitted(floor, venue)
        for client in (first, second):
            join(floor, client, BOOK)
        texts = await first.take(20)
        assert texts == await second.take(20)
        firsts, lasts = ([json.loads(text)["data"][key] for text in texts] for key in "Uu")
        assert firsts[1:] == [last + 1 for last in lasts[:-1]]

    play(scene)


def test_a_market_goes_on_without_listeners_so_that_an_outage_costs_trades() -> None:
    async def scene(floor: Floor) -> None:
        venue = binance()
        client, witness = admitted(floor, venue), admitted(floor, venue)
        for each in (client, witness):
            join(floor, each, TRADES)
        before = trade_ids(await client.take(5))
        floor.gone(client)  # type: ignore[arg-type]
        missed = trade_ids(await witness.take(30))
        again = admitted(floor, venue)
        join(floor, again, TRADES)
        after = trade_ids(await again.take(1))
        assert before == [*range(before[0], before[0] + 5)]
        assert after[0] > missed[-1] > before[-1]

    play(scene)


def test_after_stop_nothing_comes_and_a_new_subscription_opens_at_the_start() -> None:
    async def scene(floor: Floor) -> None:
        venue = Coinbase({"ETH-USD": Coinbase.listing()["ETH-USD"], "BTC-USD": Coinbase.listing()["BTC-USD"]}, 7, 1_000)
        early, late = admitted(floor, venue), admitted(floor, venue)
        join(floor, early, "matches:BTC-USD")
        await early.take(3)
        assert await floor.stop() and floor.stopped
        waiting = early.frames.qsize()
        join(floor, late, "level2_batch:BTC-USD")
        join(floor, late, "matches:BTC-USD")
        floor.leave(late, "matches:BTC-USD")  # type: ignore[arg-type]
        join(floor, late, "heartbeat:BTC-USD")
        (heartbeat,) = await late.take(1)
        assert json.loads(heartbeat)["type"] == "heartbeat", "the connection lives"
        assert (early.frames.qsize(), late.frames.qsize()) == (waiting, 0)
        floor.start()
        kinds = [json.loads(text)["type"] for text in await late.take(4)]
        assert [kind for kind in kinds if kind != "heartbeat"][:2] == ["snapshot", "l2update"]

    play(scene)


def test_leaving_a_topic_ends_its_frames_alone() -> None:
    async def scene(floor: Floor) -> None:
        client = admitted(floor, binance())
        join(floor, client, BOOK)
        join(floor, client, TRADES)
        await client.take(5)
        floor.leave(client, BOOK)  # type: ignore[arg-type]
        await client.take(client.frames.qsize())
        assert {json.loads(text)["stream"] for text in await client.take(10)} == {TRADES}

    play(scene)


def test_unknown_topics_stay_silent() -> None:
    async def scene(floor: Floor) -> None:
        client = admitted(floor, binance())
        join(floor, client, "nosuch@trade")
        join(floor, client, TRADES)
        assert {json.loads(text)["stream"] for text in await client.take(5)} == {TRADES}

    play(scene)


@pytest.mark.parametrize("rate", [0, 500])
def test_a_recording_is_played_once_to_each_connection_as_far_as_it_subscribed(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.venues.floor, "SETTLE_US", 20_000)
    frames = [
        (topic, Frame(f"{topic} {n}", (Event("btcusdt", "trade", str(n), str(n)),)))
        for n in range(3)
        for topic in (TRADES, BOOK, "ethusdt@trade")
    ]
    expected = [frame.text for topic, frame in frames if topic != BOOK]

    async def scene(floor: Floor) -> None:
        venue = binance()
        first, second = admitted(floor, venue), admitted(floor, venue)
        for client in (first, second):
            join(floor, client, TRADES)
            join(floor, client, "ethusdt@trade")
        assert await first.take(len(expected)) == await second.take(len(expected)) == expected
        join(floor, first, BOOK)
        join(floor, first, TRADES)
        assert await first.take(3) == [frame.text for topic, frame in frames if topic == BOOK]
        assert (first.frames.qsize(), second.frames.qsize()) == (0, 0)

    play(scene, rate, {"binance": Recording(frames, ["btcusdt", "ethusdt"], [])})
