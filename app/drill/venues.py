"""Faults of a venue, struck through the built-in exchanges' control (docs/rehearse.md)."""

from __future__ import annotations

from app.clock import wall_us
from app.drill.installation import UNKNOWN, Broken, Installation
from app.drill.verdict import Seen
from app.store.ledger import OPEN, SEALED, SEALING
from app.store.reading import gaps_and_quarantined

#: Those that cannot pass for data: what was sent under an event's own id and names is what is stored of it.
KINDS = ("bytes", "text", "utf8", "truncated", "nesting", "empty")
BURST, BURST_S = 50, 10
RETRY_AFTER_S = 3


def _replaced(site: Installation, venue: str, strike: str) -> Seen:
    """The venue's connection is struck at once, and another one is live."""
    names = site.names(venue)
    before = site.epochs(names)
    struck_us = wall_us()
    site.control("do", strike)
    again_s = site.live_again(names, before, struck_us, f"{venue} is live on another connection")
    return Seen(again_s, _why(site, names))


def _why(site: Installation, names: list[str]) -> str:
    closes = {
        reason: times
        for state in site.states().values()
        if state["stream"] in names
        for reason, times in state["closes"].items()
    }
    return ", ".join(f"{reason} {times}" for reason, times in sorted(closes.items()))


def _gaps(site: Installation, venue: str) -> set[str]:
    """Gaps of the venue on record in kept segments and the ledger, by name."""
    paths = [(site.wiring.ledger.path, False)]
    for entry in site.wiring.ledger.segments(OPEN, SEALING, SEALED):
        path = site.wiring.settings.storage.segments_path / entry.path
        if path.exists():
            paths.append((path, entry.state == SEALED))
    return {
        named for exchange, *_, named in gaps_and_quarantined(paths) if exchange == venue and named.endswith(" gap")
    }


def closed(site: Installation) -> Seen:
    """X1: a clean close, and then one that is announced."""
    seen = _replaced(site, "binance", "close,venue=binance,code=1001")
    site.abort.wait(1.5)  # the gap of the close gets on record
    gaps, names = _gaps(site, "binance"), site.names("binance")
    before = site.epochs(names)
    site.control("do", "planned-cut,venue=binance,close_s=15")
    site.wait(lambda: site.live(names, before), "binance is live on the connection that was opened first")
    site.abort.wait(1.5)
    if more := _gaps(site, "binance") - gaps:
        raise Broken(f"a close that was announced made {len(more)} gaps")
    return Seen(seen.recovered_s, "the announced close made no gap")


def half_open(site: Installation) -> Seen:
    """X2."""
    names = site.names("okx")
    before = site.epochs(names)
    site.control("do", "half-open,venue=okx")

    def noticed() -> bool:
        states = site.states()
        return all(states[n]["connection"] != "open" or states[n]["epoch"] != before[n] for n in names if n in states)

    noticed_s = site.wait(noticed, "it is noticed")
    again_s = site.wait(lambda: site.live(names, before), "okx is live on another connection")
    return Seen(noticed_s, f"noticed; live again {again_s:.1f} s later")


def silent(site: Installation) -> Seen:
    """X3."""
    names = site.names("coinbase")
    before = site.epochs(names)
    rule = max(r["rule"] for r in site.control("faults", "silence,venue=coinbase")["rules"])

    def stale() -> bool:
        feeds = [feed["state"] for name in names for feed in site.states().get(name, {}).get("feeds", ())]
        return bool(feeds) and all(state != "live" for state in feeds) and "stale" in feeds

    stale_s = site.wait(lambda: stale() or site.epochs(names) != before, "its feeds are stale")
    again_s = site.wait(lambda: site.epochs(names) != before, "a new connection is opened")
    site.control(f"faults?rule={rule}", method="DELETE")
    site.wait(lambda: site.live(names, before), "coinbase is live again")
    return Seen(stale_s + again_s, f"stale after {stale_s:.0f} s, then a new connection")


def unknown_symbol(site: Installation) -> Seen:
    """X4: it is in the settings from the start."""
    (name,) = site.names("okx")
    state = site.states()[name]
    feeds = [feed for feed in state["feeds"] if feed["symbol"] == UNKNOWN]
    site.wait(lambda: site.live([name]), "the others are live")
    if {feed["state"] for feed in feeds} != {"rejected"} or not all(feed["why"] for feed in feeds):
        raise Broken(f"{UNKNOWN}: {feeds}")
    if state["connections_opened"] > 2:
        raise Broken(f"{state['connections_opened']} connections were opened for it")
    return Seen(None, f"{UNKNOWN} rejected: {feeds[0]['why']}")


def garbage(site: Installation) -> Seen:
    """X5."""
    names = site.names("bybit")
    before = site.epochs(names)
    _strike_all(site, *(f"garbage,venue=bybit,feed=trade,kind={kind}" for kind in KINDS))
    site.abort.wait(1.0)
    again_s = site.wait(lambda: site.live(names), "bybit is live")
    kept = "on the same connection" if site.epochs(names) == before else "on another connection"
    return Seen(again_s, f"{len(KINDS)} kinds of garbage, live {kept}")


def _strike_all(site: Installation, *faults: str) -> None:
    """Every one of these rules has struck, and is gone."""
    rules = []
    for fault in faults:
        rules.append(max(r["rule"] for r in site.control("faults", fault)["rules"]))

    def struck() -> bool:
        told = {r["rule"]: r["struck"] for r in site.control("faults", method="GET")["rules"]}
        return all(told.get(rule, 1) for rule in rules)

    site.wait(struck, f"{', '.join(faults)} struck")
    for rule in {r["rule"] for r in site.control("faults", method="GET")["rules"]} & set(rules):
        site.control(f"faults?rule={rule}", method="DELETE")


def oversized(site: Installation) -> Seen:
    """X6."""
    first = _replaced(site, "bybit", "oversized,venue=bybit,bytes=67108864")
    second = _replaced(site, "bybit", "bomb,venue=bybit,bytes=67108864")
    return Seen(max(first.recovered_s or 0.0, second.recovered_s or 0.0), second.note)


def endless_handshake(site: Installation) -> Seen:
    """X7."""
    site.control("faults", "slow-handshake,venue=upbit,byte_s=0")
    return _replaced(site, "upbit", "cut,venue=upbit")


def repeats(site: Installation) -> Seen:
    """X8."""
    names = site.names("bybit")
    site.wait(lambda: site.live(names), "bybit is live")
    gaps = _gaps(site, "bybit")
    _strike_all(site, "duplicate,venue=bybit,times=3,feed=trade", "duplicate,venue=bybit,times=2,feed=orderbook")
    site.control("do", "reset,venue=bybit")
    reset_us = wall_us()
    site.wait(lambda: site.newest_us().get("bybit", 0) > reset_us + 1_000_000, "what came afterwards is stored")
    if more := _gaps(site, "bybit") - gaps:
        raise Broken(f"{len(more)} gaps of which there are none")
    return Seen(None, "frames three times and twice, numbers started over: no gap")


def lost_frame(site: Installation) -> Seen:
    """X9."""
    gaps = _gaps(site, "binance")
    _strike_all(site, "lose,venue=binance,feed=trade")
    recorded_s = site.wait(lambda: _gaps(site, "binance") - gaps, "the gap is on record")
    return Seen(recorded_s, f"on record {recorded_s:.1f} s after it was made")


def renamed(site: Installation) -> Seen:
    """X10."""
    _strike_all(site, *(f"garbage,venue=bybit,feed={feed},kind=renamed" for feed in ("orderbook", "trade")))
    return Seen(site.wait(lambda: site.live(site.names("bybit")), "bybit is live"), "a book and a trade")


def told_to_stay_away(site: Installation) -> Seen:
    """X11."""
    site.control("faults", f"http,venue=upbit,status=429,retry_after_s={RETRY_AFTER_S},on=handshake,count=1")
    seen = _replaced(site, "upbit", "cut,venue=upbit")
    if (seen.recovered_s or 0.0) < RETRY_AFTER_S:
        raise Broken(f"back after {seen.recovered_s:.1f} s; Retry-After said {RETRY_AFTER_S} s")
    return seen


def burst(site: Installation) -> Seen:
    """X12."""
    names = site.names("bybit")
    before = sum(site.states()[name]["events"] for name in names)
    site.control("faults", f"burst,venue=bybit,factor={BURST},for_s={BURST_S}")
    site.abort.wait(BURST_S)
    after_us = wall_us()
    events = sum(site.states()[name]["events"] for name in names) - before
    short_s = site.wait(lambda: site.newest_us().get("bybit", 0) > after_us, "what came afterwards is stored")
    if refused := sum(site.states()[name]["refused"] for name in names):
        raise Broken(f"{refused} events were refused")
    return Seen(short_s, f"{events / BURST_S:.0f} events/s")
