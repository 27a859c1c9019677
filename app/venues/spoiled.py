"""Payloads that no venue should send, and the bytes of frames that no library would. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from random import Random

NUMBER = re.compile(r'(?<=:)"?-?\d[\d.eE+-]*"?')
KEY = re.compile(r'"(\w+)":')
#: Deeper than any parser that recurses, and far below a recorder's limit on a frame's size.
NESTING = 50_000
DIGITS = 5_000
CHUNK = 64 << 10
TEXT, BINARY = 1, 2
#: What `kind=` of a garbage fault means.
KINDS = {
    "bytes": "random bytes, in a binary frame",
    "text": "random printable characters that are no JSON",
    "utf8": "invalid UTF-8 in the middle of the frame",
    "truncated": "the first half of the frame",
    "nesting": "50,000 opening brackets and as many closing ones",
    "hugeint": "one of the frame's numbers with 5,000 digits",
    "nan": "one of the frame's numbers as NaN",
    "renamed": "the frame with every key renamed",
    "empty": "no bytes at all",
}


def spoil(kind: str, text: str, binary: bool, random: Random) -> tuple[int, bytes]:
    """Opcode and payload: the frame `text`, spoiled in one of the ways of KINDS."""
    opcode = BINARY if binary else TEXT
    match kind:
        case "bytes":
            return BINARY, random.randbytes(random.randint(1, 2_000))
        case "text":
            return opcode, "".join(random.choices("abcdefgh <>&;:,.!?()", k=random.randint(1, 2_000))).encode()
        case "utf8":
            whole = text.encode()
            middle = len(whole) // 2
            return opcode, whole[:middle] + b"\xff\xc3\x28" + whole[middle:]
        case "truncated":
            return opcode, text.encode()[: len(text) // 2]
        case "nesting":
            return opcode, b"[" * NESTING + b"]" * NESTING
        case "hugeint":
            return opcode, _one_number(text, "9" * DIGITS, random)
        case "nan":
            return opcode, _one_number(text, "NaN", random)
        case "renamed":
            return opcode, KEY.sub(r'"\1_v2":', text).encode()
    return opcode, b""


def _one_number(text: str, instead: str, random: Random) -> bytes:
    found = list(NUMBER.finditer(text))
    if not found:
        return instead.encode()
    one = random.choice(found)
    return (text[: one.start()] + instead + text[one.end() :]).encode()


def head(opcode: int, length: int, rsv1: bool = False) -> bytes:
    """The head of a whole, unmasked frame (RFC 6455, 5.2)."""
    first = bytes([0x80 | (0x40 if rsv1 else 0) | opcode])
    if length < 126:
        return first + bytes([length])
    if length < 1 << 16:
        return first + b"\x7e" + length.to_bytes(2, "big")
    return first + b"\x7f" + length.to_bytes(8, "big")


def padding(size: int) -> Iterator[bytes]:
    """JSON of exactly `size` bytes, in pieces: an object with one long text, where there is room for one."""
    begin, end = (b'{"padding":"', b'"}') if size > 14 else (b"", b"")
    left = size - len(begin) - len(end)
    yield begin
    while left > 0:
        yield b"0" * min(left, CHUNK)
        left -= CHUNK
    yield end


def bomb(size: int) -> bytes:
    """A permessage-deflate payload (RFC 7692, 7.2.1) that inflates to `padding(size)`."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(deflate.compress(piece) for piece in padding(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return packed.removesuffix(b"\x00\x00\xff\xff")


#: venue -> the body of a refusal; `{status}`, and `{until}` in milliseconds since the Unix epoch.
REFUSALS = {
    "binance": '{"code":-1003,"msg":"Too many requests; current limit is 6000 request weight per 1 MINUTE."}',
    "coinbase": '{"message":"Too many requests"}',
    "upbit": '{"error":{"name":"too_many_requests"}}',
    "okx": '{"code":"50011","data":[],"msg":"Too Many Requests"}',
    "bybit": '{"retCode":10006,"retMsg":"Too many visits. Exceeded the API Rate Limit.","result":{}}',
}
BANNED = {
    "binance": '{"code":-1003,"msg":"Way too much request weight used; IP banned until {until}."}',
    "upbit": '{"error":{"name":"too_many_requests","message":"blocked"}}',
}
ELSEWHERE = {
    "binance": '{"code":0,"msg":"Service unavailable from a restricted location according to \'b. Eligibility\' in '
    'https://www.binance.com/en/terms. Please contact customer service if you believe you received this message in error."}',
}
#: 403 of a CloudFront edge, which is what a blocked country or a burst of requests meets; no JSON.
FORBIDDEN = "<html><head><title>403 Forbidden</title></head><body><h1>access too frequent</h1></body></html>"
ANY = '{"error":"HTTP {status}"}'


def refusal(venue: str, status: int, until_ms: int) -> bytes:
    """The body with which `venue` refuses a request with `status`."""
    if status == 403:
        return FORBIDDEN.encode()
    words = {429: REFUSALS, 418: BANNED, 451: ELSEWHERE}.get(status, {}).get(venue, ANY)
    return words.replace("{until}", str(until_ms)).replace("{status}", str(status)).encode()
