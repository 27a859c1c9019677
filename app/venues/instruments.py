"""What the built-in exchanges list: about twenty well-known bases, and TEST0001 to TEST0999 for load tests."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

#: Base -> (price in the smallest unit, decimals of that unit), in US dollars. A rehearsal needs plausible, not current.
DOLLARS: dict[str, tuple[int, int]] = {
    "BTC": (8_400_000, 2),
    "ETH": (270_000, 2),
    "SOL": (19_000, 2),
    "XRP": (22_000, 4),
    "DOGE": (21_000, 5),
    "ADA": (68_000, 5),
    "AVAX": (24_100, 3),
    "LINK": (15_200, 3),
    "DOT": (46_000, 4),
    "LTC": (98_000, 3),
    "BCH": (41_000, 2),
    "TRX": (27_000, 5),
    "XLM": (29_000, 5),
    "UNI": (72_000, 4),
    "NEAR": (29_000, 4),
    "ATOM": (47_000, 4),
    "APT": (59_000, 4),
    "SUI": (31_000, 4),
    "ARB": (42_000, 5),
    "OP": (81_000, 5),
} | {f"TEST{n:04d}": (10_000 + 17 * n, 3) for n in range(1, 1000)}

WON_PER_DOLLAR = 1450
#: Upbit's KRW ticks: from this price in won upwards, the tick in tenths of a won.
WON_TICKS = ((2_000_000, 10_000), (1_000_000, 5_000), (100_000, 500), (10_000, 100), (1_000, 10), (0, 1))


class Instrument(msgspec.Struct, frozen=True):
    """One listed instrument. Prices are integers of 10**-price_decimals, sizes of 10**-size_decimals."""

    symbol: str
    base: str
    quote: str
    price_decimals: int
    size_decimals: int
    tick: int
    #: Where the market opens, and to which it is drawn back.
    price: int
    #: An ordinary order, about 2,000 dollars.
    lot: int


def listing(form: str, quote: str, size_decimals: int) -> Iterator[Instrument]:
    """Every instrument against `quote` (a dollar, or KRW); `form` makes the symbol, such as "{base}-{quote}"."""
    for base, (price, decimals) in DOLLARS.items():
        symbol = form.format(base=base, quote=quote)
        lot = 2_000 * 10 ** (decimals + size_decimals) // price
        tick = 1
        if quote == "KRW":
            won = price * WON_PER_DOLLAR // 10**decimals
            tick = next(tick for start, tick in WON_TICKS if won >= start)
            price, decimals = won * 10 // tick * tick, 1
        yield Instrument(symbol, base, quote, decimals, size_decimals, tick, price, lot)


def replayed(symbol: str) -> Instrument:
    """An instrument of which only the name is known, from recorded frames."""
    return Instrument(symbol, symbol, "", 2, 8, 1, 1_000_000, 1)
