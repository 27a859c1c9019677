"""The rules that stand, and what they do to frames. What they do to markets is in `weather`, to requests in `gate`.

While no rule stands, every hook here is unset and the exchanges run as if this module were not there.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from app.venues import tricks
from app.venues.connection import Connection
from app.venues.detour import Detour
from app.venues.dialect import Frame, Venue
from app.venues.faults import Fault, FaultError
from app.venues.floor import Floor
from app.venues.rules import Rule
from app.venues.sent import Sent
from app.venues.spoiled import KINDS, spoil
from app.venues.weather import Weather

#: What can be done at once, to connections that are there.
AT_ONCE = ("half-open", "cut", "close", "planned-cut", "oversized", "bomb", "reset")
#: A garbage payload up to this size is written into the sent file as it is, in base64.
SHOWN_BYTES = 4096


class Held(msgspec.Struct):
    """A frame that waits until `after` more of its feed have been sent."""

    frame: Frame
    after: int


class Mischief:
    """Lets faults strike and writes into the sent file that they did."""

    def __init__(
        self,
        venues: dict[str, Venue],
        floor: Floor,
        sent: Sent,
        now_us: Callable[[], int],
        seed: int,
        patience: float = 1,
    ) -> None:
        self.venues, self.floor, self.sent, self.now_us, self.seed = venues, floor, sent, now_us, seed
        self.rules: list[Rule] = []
        self._number = 0
        self._frames: list[Rule] = []
        self._told: set[tuple[object, ...]] = set()
        self._held: dict[tuple[Connection, str, str], list[Held]] = {}
        self._weather = Weather(self, patience)
        self._weather.rewire()

    def add(self, faults: list[Fault]) -> list[Rule]:
        """From now on, these faults too."""
        added = [self._rule(fault) for fault in faults]
        self.rules += added
        self._rewire()
        return added

    def remove(self, number: int | None = None) -> None:
        """No more of this rule, or of any. What has happened, such as a half-open connection, stays."""
        self.rules = [rule for rule in self.rules if number not in (None, rule.number)]
        self.release()
        self._rewire()

    def listed(self) -> list[dict[str, Any]]:
        """Every rule, what it has done, and whether it may strike now."""
        now_us = self.now_us()
        return [
            {"rule": rule.number} | rule.fault.plain() | {"struck": rule.struck, "awake": rule.awake(now_us)}
            for rule in self.rules
        ]

    def of(self, *names: str) -> list[Rule]:
        """The rules of these faults."""
        return [rule for rule in self.rules if rule.name in names]

    def do(self, fault: Fault) -> list[dict[str, Any]]:
        """Let it strike at once, wherever it fits. Returns where. Raises: FaultError."""
        if fault.name not in AT_ONCE:
            raise FaultError(f"{fault.name} cannot be done at once; that can: {', '.join(AT_ONCE)}. Add it as a fault")
        if unfit := set(fault.limits) - {"venue", "symbol", "connection", "count"}:
            raise FaultError(f"what is done at once is not limited by {', '.join(sorted(unfit))}")
        rule, now_us, done = self._rule(fault), self.now_us(), []
        rule.count = fault.limits.get("count", 0)
        if fault.name == "reset":
            return self._weather.reset_now(rule)
        for connection in sorted(self.floor.connections, key=lambda one: one.number):
            there = rule.fits(connection.venue.name, connection=connection.number) and self._about(connection, rule)
            if there and rule.awake(now_us) and not connection.ended:
                rule.struck += 1
                if fault.name in ("half-open", "cut"):
                    self._end(rule, connection, {})
                else:
                    self._strike(rule, connection, Frame(""), {})
                done.append({"venue": connection.venue.name, "connection": connection.number})
        return done

    def admit(self, connection: Connection) -> None:
        """A client is there."""
        connection.tamper = self._tamper if self._frames else None

    def release(self) -> None:
        """Send what is held back for reordering."""
        held, self._held = self._held, {}
        for (connection, _, _), waiting in held.items():
            for one in waiting:
                connection.queue(one.frame)

    def close(self) -> None:
        """The server ends: no connection is slow or silent any more."""
        for connection in self.floor.connections:
            if isinstance(connection.socket.transport, Detour):
                connection.socket.transport.abort()

    def tell(self, rule: Rule, venue: str, connection: int | None, facts: dict[str, Any]) -> None:
        """Write that a fault struck."""
        self.sent.fault(rule.name, venue, connection, {"rule": rule.number, "at_us": self.now_us()} | facts)

    def tell_once(self, rule: Rule, venue: str, connection: int | None, facts: dict[str, Any]) -> None:
        """The same, for a fault that lasts: once for each of these facts."""
        about = (rule.number, venue, connection, *facts.values())
        if about not in self._told:
            self._told.add(about)
            if rule.fault.kind.place != "frame":
                rule.struck += 1
            self.tell(rule, venue, connection, facts)

    def _rule(self, fault: Fault) -> Rule:
        self._number += 1
        return Rule(self._number, fault, self.seed, self.now_us())

    def _rewire(self) -> None:
        self._frames = [rule for rule in self.rules if rule.fault.kind.place == "frame"]
        for connection in self.floor.connections:
            self.admit(connection)
        self._weather.rewire()

    def _tamper(self, connection: Connection, frame: Frame) -> None:
        """In place of a connection's outbox: what becomes of this frame."""
        if connection.ended:
            return
        now_us, event = self.now_us(), frame.events[0]
        facts = {"symbol": event.symbol, "feed": event.feed}
        subject = f"{connection.number}:{event.symbol}:{event.feed}"
        for rule in self._frames:
            if (
                rule.awake(now_us)
                and rule.fits(connection.venue.name, event.symbol, event.feed, connection.number)
                and rule.strikes(subject)
                and self._strike(rule, connection, frame, facts)
            ):
                return
        connection.queue(frame)
        if self._held:
            self._count_down(connection, event.symbol, event.feed)

    def _strike(self, rule: Rule, connection: Connection, frame: Frame, facts: dict[str, Any]) -> bool:
        """Do it. Returns whether the frame is not to be sent any more, or has been."""
        name, params, events = connection.venue.name, rule.params, frame.events
        match rule.name:
            case "lose":
                self.tell(rule, name, connection.number, facts)
                self.sent.withheld(name, connection.number, events)
                return True
            case "silence":
                self.tell_once(rule, name, connection.number, facts)
                self.sent.withheld(name, connection.number, events)
                return True
            case "duplicate":
                self.tell(rule, name, connection.number, facts | {"times": params["times"]})
                for _ in range(params["times"] - 1):
                    connection.queue(frame)
                return False
            case "reorder":
                self.tell(rule, name, connection.number, facts | {"by": params["by"]})
                waiting = self._held.setdefault((connection, events[0].symbol, events[0].feed), [])
                waiting.append(Held(frame, params["by"]))
                return True
            case "slow":
                self._then(rule, connection, facts, partial(tricks.send_slowly, connection, frame, params["byte_s"]))
                return True
            case "garbage":
                self._spoil(rule, connection, frame, facts)
                return False
            case "oversized":
                size = params["bytes"]
                facts = facts | {"bytes": size}
                self._then(rule, connection, facts, partial(tricks.send_oversized, connection, size))
                return False
            case "bomb":
                size = params["bytes"]
                facts = facts | {"bytes": size, "negotiated": bool(connection.socket.protocol.extensions)}
                self._then(rule, connection, facts, partial(tricks.send_bomb, connection, size))
                return False
            case "planned-cut":
                self.tell(rule, name, connection.number, facts | {"close_s": params["close_s"]})
                connection.perform(connection.session.farewell(self.now_us()), self.floor)
                if params["close_s"]:
                    loop = asyncio.get_running_loop()
                    loop.call_later(params["close_s"], connection.close, params["code"], "planned restart")
                return False
            case "close":
                code, reason = params["code"], params["reason"]
                facts = facts | {"code": code}
                self._then(rule, connection, facts, partial(tricks.close, connection, code, reason))
                return True

        async def end() -> bool:
            self._end(rule, connection, facts)
            return False

        connection.then(lambda _: end())
        return True

    def _then(
        self, rule: Rule, connection: Connection, facts: dict[str, Any], trick: Callable[[], Awaitable[bool]]
    ) -> None:
        """Do the trick when the frames before have been handed over, and tell it then."""

        async def deed(connection: Connection) -> bool:
            self.tell(rule, connection.venue.name, connection.number, facts)
            return await trick()

        connection.then(deed)

    def _end(self, rule: Rule, connection: Connection, facts: dict[str, Any]) -> None:
        self.tell(rule, connection.venue.name, connection.number, facts)
        if rule.name == "cut":
            tricks.cut(connection, rule.params["how"])
            return
        tricks.half_open(connection)
        self._weather.watch(connection)

    def _spoil(self, rule: Rule, connection: Connection, frame: Frame, facts: dict[str, Any]) -> None:
        random = rule.random(f"{connection.number}:{facts['symbol']}:{facts['feed']}:payload")
        kind = rule.params["kind"]
        kind = random.choice(sorted(KINDS)) if kind == "any" else kind
        opcode, payload = spoil(kind, frame.text, frame.binary, random)
        facts = facts | {"kind": kind, "opcode": opcode, "bytes": len(payload)}
        facts["sha256"] = hashlib.sha256(payload).hexdigest()
        if len(payload) <= SHOWN_BYTES:
            facts["base64"] = b64encode(payload).decode()
        self._then(rule, connection, facts, partial(tricks.send, connection, opcode, payload))

    def _count_down(self, connection: Connection, symbol: str, feed: str) -> None:
        key = (connection, symbol, feed)
        waiting = self._held.pop(key, [])
        for one in waiting:
            one.after -= 1
            if not one.after:
                connection.queue(one.frame)
        if left := [one for one in waiting if one.after]:
            self._held[key] = left

    @staticmethod
    def _about(connection: Connection, rule: Rule) -> bool:
        """Whether the connection is subscribed to the rule's symbol, if it has one."""
        return rule.symbol is None or any(rule.symbol in topic.lower() for topic in connection.session.topics)
