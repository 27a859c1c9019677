"""Frames written as the venues write them, for tests where the numbers in them matter, and what a stream makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from app.codec import BatchCodec
from app.connection.session import Session
from app.exchanges import exchange_of
from app.exchanges.base import Subscription
from app.model import ORDERBOOK, TRADE, Batch, Event, Gap
from app.pipeline.outbox import Allowance, Epoch, Outbox
from app.sequence import Continuity

NOW_US = 1_790_000_000_000_000
MS = NOW_US // 1000
TIME = "2026-09-21T14:13:20.123456Z"
SYMBOLS = {"binance": "btcusdt", "coinbase": "BTC-USD", "upbit": "KRW-BTC", "okx": "BTC-USDT", "bybit": "BTCUSDT"}


def received(
    exchange: str,
    connections: Sequence[Sequence[str]],
    *,
    channel: str = "",
    source: str | None = None,
    epoch: int = 0,
    at_us: int = NOW_US,
) -> list[Batch]:
    """What one stream makes of the frames of its connections, a millisecond after one another: a batch for each."""
    venue = exchange_of(exchange, source)
    symbols = (SYMBOLS[exchange],)
    asked = Subscription(symbols, (ORDERBOOK, TRADE), channel or venue.orderbook_channels[0], venue.trade_channels[0])
    continuity, codec, made = Continuity(), BatchCodec(), []
    outbox = Outbox(
        f"{exchange}-0",
        exchange,
        max_bytes=1 << 24,
        share_bytes=lambda: 1 << 24,
        allowance=Allowance(1 << 24),
        max_events=1000,
    )
    for number, frames in enumerate(connections, epoch + 1):
        session = Session(
            venue, asked, continuity, epoch=f"{number:032x}", dead_timeout_s=30, data_timeout_s={symbols[0]: 10.0}
        )
        at_us += 1000
        lane = outbox.begin(Epoch(session.epoch, at_us))
        session.opened(0.0, at_us)
        for n, frame in enumerate(frames):
            for unit in session.received(frame.encode(), at_us + n, n / 100):
                assert isinstance(unit, Event | Gap) and not lane.add([unit])
        lane.end(session.end(at_us + len(frames), "stop"))
        batch = outbox.take()
        assert batch is not None and batch.end is not None
        made.append(codec.decode(codec.encode(batch)))
    return made


def coinbase(kind: str, rest: str) -> str:
    return f'{{"type":"{kind}","product_id":"BTC-USD",{rest}}}'


def l2update(price: str, time: str = TIME) -> str:
    return coinbase("l2update", f'"changes":[["buy","{price}","0.1"]],"time":"{time}"')


def upbit(price: str, ms: int, kind: str = "REALTIME") -> str:
    level = f'{{"ap":{price},"bp":1.0,"as":1.0,"bs":1.0}}'
    return f'{{"ty":"orderbook","cd":"KRW-BTC","obu":[{level}],"tms":{ms},"st":"{kind}","lv":0}}'


def okx(action: str, before: int, last: int, ms: int = MS, levels: str = '["1","2","0","1"]') -> str:
    row = f'{{"asks":[{levels}],"bids":[],"ts":"{ms}","checksum":0,"seqId":{last},"prevSeqId":{before}}}'
    return f'{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{row}]}}'


def okx_trades(*rows: tuple[int, int]) -> str:
    """Rows of (tradeId, count), all with one seqId."""
    told = ",".join(
        f'{{"instId":"BTC-USDT","tradeId":"{id}","px":"1","sz":"2","side":"buy","ts":"{MS}","count":"{n}","source":"0","seqId":77}}'
        for id, n in rows
    )
    return f'{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{told}]}}'


def bybit(kind: str, u: int, seq: int, cts: int = MS, ts: int = MS, depth: int = 50) -> str:
    data = f'{{"s":"BTCUSDT","b":[["{seq}","1"]],"a":[],"u":{u},"seq":{seq}}}'
    return f'{{"topic":"orderbook.{depth}.BTCUSDT","ts":{ts},"type":"{kind}","data":{data},"cts":{cts}}}'


def bybit_trades(*ids: int) -> str:
    told = ",".join(f'{{"i":"{id}","T":{MS},"p":"1","v":"2","S":"Buy","seq":5,"s":"BTCUSDT","BT":false}}' for id in ids)
    return f'{{"topic":"publicTrade.BTCUSDT","ts":{MS},"type":"snapshot","data":[{told}]}}'


def advanced(number: int, channel: str, event: str) -> str:
    return f'{{"channel":"{channel}","timestamp":"{TIME}","sequence_num":{number},"events":[{event}]}}'


def advanced_book(number: int, kind: str, price: str) -> str:
    update = f'{{"side":"bid","event_time":"{TIME}","price_level":"{price}","new_quantity":"1"}}'
    return advanced(number, "l2_data", f'{{"type":"{kind}","product_id":"BTC-USD","updates":[{update}]}}')


def advanced_trades(number: int, *ids: int) -> str:
    """The newest first, as the venue sends them."""
    told = ",".join(
        f'{{"trade_id":"{id}","product_id":"BTC-USD","price":"1","size":"2","side":"BUY","time":"{TIME}"}}'
        for id in sorted(ids, reverse=True)
    )
    return advanced(number, "market_trades", f'{{"type":"update","trades":[{told}]}}')


def binance(u: int, price: str) -> str:
    book = f'{{"lastUpdateId":{u},"bids":[["{price}","1"]],"asks":[]}}'
    return f'{{"stream":"btcusdt@depth20@100ms","data":{book}}}'


def binance_trade(id: int) -> str:
    trade = f'{{"e":"trade","E":{MS},"s":"BTCUSDT","t":{id},"p":"1","q":"2","T":{MS},"m":true,"M":true}}'
    return f'{{"stream":"btcusdt@trade","data":{trade}}}'
