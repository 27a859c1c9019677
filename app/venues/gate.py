"""Where faults take hold of what clients ask: opening handshakes, REST requests, messages."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from app.venues.connection import Connection
from app.venues.detour import Dribble
from app.venues.dialect import Action, Answer, Leave, Send, Venue
from app.venues.mischief import Mischief
from app.venues.spoiled import FORBIDDEN, refusal


async def delayed_or_refused(mischief: Mischief, venue: Venue, handshake: bool) -> Answer | None:
    """The answer to a request that a fault refuses; None: go on, perhaps after a while."""
    for rule in mischief.of("late-rest", "http"):
        if rule.name == "late-rest":
            wanted = not handshake
        else:
            wanted = rule.params["on"] in ("both", "handshake" if handshake else "rest")
        if not (wanted and rule.awake(mischief.now_us()) and rule.fits(venue.name) and rule.strikes(venue.name)):
            continue
        on = "handshake" if handshake else "rest"
        if rule.name == "late-rest":
            mischief.tell(rule, venue.name, None, {"on": on, "s": rule.params["s"]})
            await asyncio.sleep(rule.params["s"])
            continue
        status, retry_after_s = rule.params["status"], rule.params["retry_after_s"]
        mischief.tell(rule, venue.name, None, {"on": on, "status": status, "retry_after_s": retry_after_s})
        body = refusal(venue.name, status, mischief.now_us() // 1000 + 1000 * retry_after_s)
        headers = [("Retry-After", str(retry_after_s))] if retry_after_s else []
        if body == FORBIDDEN.encode():
            headers.append(("Content-Type", "text/html"))
        return Answer(body, status, tuple(headers))
    return None


async def opening(mischief: Mischief, socket: ServerConnection, venue: Venue, number: int) -> None:
    """Before the opening handshake of connection `number` is answered."""
    now_us = mischief.now_us()
    # A bomb goes off properly only where compression was agreed on, so a rule for one agrees to it.
    for rule in mischief.of("compress", "bomb"):
        fits = rule.fits(venue.name, connection=number) and not socket.protocol.available_extensions
        if fits and (rule.name == "bomb" or (rule.awake(now_us) and rule.strikes(venue.name))):
            # Each message by itself: a frame made by hand then fits between those of the library.
            socket.protocol.available_extensions = [ServerPerMessageDeflateFactory(server_no_context_takeover=True)]
            if rule.name == "compress":
                mischief.tell(rule, venue.name, number, {})
    for rule in mischief.of("slow-handshake"):
        if rule.awake(now_us) and rule.fits(venue.name, connection=number) and rule.strikes(venue.name):
            byte_s = rule.params["byte_s"]
            mischief.tell(rule, venue.name, number, {"byte_s": byte_s})
            if not byte_s:
                await socket.wait_closed()
            else:
                Dribble(socket, byte_s)
            return


def hear(mischief: Mischief, connection: Connection, text: str) -> None:
    """One message of a client, and what the session makes of it, late or with a symbol refused."""
    venue, now_us = connection.venue, mischief.now_us()
    refused = []
    for rule in mischief.of("refuse-symbol"):
        fits = rule.fits(venue.name, connection=connection.number) and _asks(text, rule.symbol)
        if fits and rule.awake(now_us) and rule.strikes(str(connection.number)):
            refused.append(str(rule.symbol))
            mischief.tell(rule, venue.name, connection.number, {"symbol": rule.fault.limits["symbol"]})
    venue.refused = frozenset(refused)
    try:
        actions = connection.session.received(text, now_us)
        connection.perform(_late(mischief, connection, text, actions), mischief.floor)
    finally:
        venue.refused = frozenset()


def unlisted(mischief: Mischief, venue: Venue) -> frozenset[str]:
    """The symbols that the venue's list leaves out at this moment."""
    rules, now_us = mischief.of("refuse-symbol"), mischief.now_us()
    dropped = [
        rule for rule in rules if rule.params["listing"] == "drop" and rule.awake(now_us) and rule.fits(venue.name)
    ]
    return frozenset(str(rule.symbol) for rule in dropped)


def _asks(text: str, symbol: str | None) -> bool:
    return symbol is not None and symbol in text.lower()


def _late(mischief: Mischief, connection: Connection, text: str, actions: list[Action]) -> list[Action]:
    """What is to be done now; the rest comes later."""
    # A pong, or what an unsubscription brings, is no acknowledgement that anybody waits for.
    if "ping" in text[:80].lower() or (actions and all(isinstance(action, Leave) for action in actions)):
        return actions
    now_us = mischief.now_us()
    for rule in mischief.of("late-ack"):
        said = [action for action in actions if isinstance(action, Send)]
        if not (said and rule.awake(now_us) and rule.fits(connection.venue.name, connection=connection.number)):
            continue
        if rule.strikes(str(connection.number)):
            mischief.tell(rule, connection.venue.name, connection.number, {"s": rule.params["s"]})
            for action in said:
                asyncio.get_running_loop().call_later(rule.params["s"], connection.queue, action.frame)
            return [action for action in actions if not isinstance(action, Send)]
    return actions
