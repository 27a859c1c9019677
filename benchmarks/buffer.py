"""How many bytes does an event take in Redis, and what does it cost to put it there and take it out? See benchmarks/README.md.

Captured frames as events, in batches as large as a stream makes them at different rates, against the plainest list there is:
one JSON object an event. Both are pushed to a real Redis. Frames: COLLECTOR_FRAMES, else ../shared/frames beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from app.buffer.client import connect
from app.buffer.events import EventBuffer
from app.codec import BatchCodec
from app.launch import redis_server
from app.model import Batch, Event, runs

FRAMES = Path(os.environ.get("COLLECTOR_FRAMES") or Path(__file__).resolve().parents[2] / "shared" / "frames")
FILES = (
    ("coinbase book", "coinbase/exchange_level2.jsonl", "orderbook"),
    ("binance diff", "binance/spot_depth_diff_combined.jsonl", "orderbook"),
    ("upbit book", "upbit/orderbook_simple.jsonl", "orderbook"),
    ("okx book", "okx/books_2022_noseq.jsonl", "orderbook"),
    ("upbit trade", "upbit/trade_simple.jsonl", "trade"),
)
EPOCH = "ab" * 16


def events(path: Path, feed: str) -> list[Event]:
    """Each frame as an event."""
    us = 1_700_000_000_000_000
    lines = path.read_text("utf-8").splitlines()
    return [Event("BTC-USD", feed, n, str(10**10 + n), us + n * 997, us, line) for n, line in enumerate(lines, 1)]


def subject(client: redis.Redis, found: list[Event], size: int) -> dict[str, float]:
    """Batches through the codec and the push script; the head read and decoded again."""
    buffer, codec = EventBuffer(client, "bench", 1 << 40), BatchCodec()
    client.flushall()
    batches = []
    for number, start in enumerate(range(0, len(found), size), 1):
        part = tuple(found[start : start + size])
        batches.append(
            Batch("s", "coinbase", EPOCH, number, 1, tuple(runs((e.symbol, e.feed, e.number) for e in part)), part)
        )
    began_s = time.process_time()
    elements = [codec.encode(batch) for batch in batches]
    for element in elements:
        buffer.push("s", element)
    in_s, began_s = time.process_time() - began_s, time.process_time()
    while taken := buffer.head("s", 200, 8 << 20):
        for element in taken:
            codec.decode(element)
        buffer.acknowledge("s", taken)
    out_s = time.process_time() - began_s
    count = len(found)
    return {
        "bytes": round(sum(map(len, elements)) / count, 1), "in_us": round(in_s / count * 1e6, 1),
        "out_us": round(out_s / count * 1e6, 1),
    }  # fmt: skip


def plain(client: redis.Redis, found: list[Event]) -> dict[str, float]:
    """One JSON object an event, one RPUSH each; LPOP in hundreds."""
    client.flushall()
    began_s, size = time.process_time(), 0
    for event in found:
        text = json.dumps({
            "symbol": event.symbol, "feed": event.feed, "id": event.sequence_id, "received": event.received_us,
            "exchange": event.exchange_us, "data": event.data,
        })  # fmt: skip
        size += len(text)
        client.rpush("plain", text)
    in_s, began_s = time.process_time() - began_s, time.process_time()
    while texts := client.lpop("plain", 100):
        for text in texts:
            json.loads(text)
    out_s, count = time.process_time() - began_s, len(found)
    return {
        "bytes": round(size / count, 1), "in_us": round(in_s / count * 1e6, 1), "out_us": round(out_s / count * 1e6, 1),
    }  # fmt: skip


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--batches", type=int, nargs="*", default=[1, 10, 50, 500], help="events a batch")
    given = words.parse_args()
    if not FRAMES.is_dir():
        raise SystemExit(f"no captured frames at {FRAMES}: set COLLECTOR_FRAMES")
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = redis_server.RedisServer(
            redis_server.find(os.environ), directory / "redis", redis_server.free_port(), directory / "redis.log"
        )
        try:
            client = connect(server.url, 10)
            for what, file, feed in FILES:
                frames = events(FRAMES / file, feed)
                raw = sum(len(event.data.encode()) for event in frames) / len(frames)
                one: dict[str, Any] = {"what": what, "frames": len(frames), "raw_bytes": round(raw, 1)}
                one["plain"] = plain(client, frames)
                one["batches"] = {
                    size: {**told, "smaller": round(raw / told["bytes"], 1)}
                    for size in given.batches
                    if size <= 2 * len(frames)
                    for told in [subject(client, frames, size)]
                }
                found.append(one)
        finally:
            server.stop()
    heads = "what           frames  raw bytes  plain: bytes in/out us   by events a batch: times smaller (in/out us)"
    print(heads, file=sys.stderr)
    for one in found:
        bare = one["plain"]
        row = "  ".join(f"{n}: {t['smaller']}x ({t['in_us']}/{t['out_us']})" for n, t in one["batches"].items())
        print(
            f"{one['what']:<14} {one['frames']:>6}  {one['raw_bytes']:>9}  {bare['bytes']:>8}"
            f" {bare['in_us']:>6}/{bare['out_us']:<6}   {row}",
            file=sys.stderr,
        )
    print(json.dumps({"buffer": found}))


if __name__ == "__main__":
    main()
