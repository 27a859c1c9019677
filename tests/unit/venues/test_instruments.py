import pytest

from app.venues.cli import VENUES
from app.venues.instruments import DOLLARS, listing

SPELLINGS = {
    "binance": ("btcusdt", "test0001usdt", "test0999usdt"),
    "coinbase": ("BTC-USD", "TEST0001-USD", "TEST0999-USD"),
    "upbit": ("KRW-BTC", "KRW-TEST0001", "KRW-TEST0999"),
    "okx": ("BTC-USDT", "TEST0001-USDT", "TEST0999-USDT"),
    "bybit": ("BTCUSDT", "TEST0001USDT", "TEST0999USDT"),
}


@pytest.mark.parametrize("name", VENUES)
def test_a_venue_lists_its_own_spelling(name: str) -> None:
    listed = VENUES[name].listing()
    assert set(SPELLINGS[name]) <= set(listed)
    assert all(symbol == instrument.symbol for symbol, instrument in listed.items())
    assert len(listed) == len(DOLLARS) == 1019


@pytest.mark.parametrize("quote", ["USDT", "KRW"])
def test_every_price_is_a_whole_number_of_ticks_and_far_from_the_last_one(quote: str) -> None:
    for instrument in listing("{base}-{quote}", quote, 8):
        assert instrument.price % instrument.tick == 0, instrument
        assert instrument.price // instrument.tick >= 1_000, instrument
        assert instrument.lot > 0, instrument


def test_upbit_quotes_bitcoin_in_ticks_of_a_thousand_won() -> None:
    bitcoin = next(listing("{quote}-{base}", "KRW", 8))
    assert (bitcoin.symbol, bitcoin.price, bitcoin.tick) == ("KRW-BTC", 1_218_000_000, 10_000)
