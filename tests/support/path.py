"""The path of the data inside the test process: streams in threads, flush and archive at clocks of the test's choosing,
and the archive read back without the application's own reader."""

from __future__ import annotations

import io
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import pyarrow.parquet
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from app.clock import monotonic_s
from app.launch.proof import Account, account
from app.pipeline import periodic
from app.pipeline.flush import Flush, FlushReport
from app.pipeline.stream import StreamRunner
from app.pipeline.supervise import collect, drain_spools
from app.wiring import Wiring

T = TypeVar("T")
#: exchange, symbol, data type, and the exact text.
Item = tuple[str, str, str, str]
#: Venues whose books have no identity across frames: what is sent twice is kept twice.
WITHOUT_BOOK_IDS = {"coinbase"}
NEVER = threading.Event()


def until(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """Poll until `condition` is true and return it; fail with `what` when that takes longer than `seconds`."""
    end_s = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return answer


class Collecting(AbstractContextManager["Collecting"]):
    """Every stream of a wiring (or those named), each on a thread, as a worker runs them."""

    def __init__(self, wiring: Wiring, *names: str) -> None:
        self.wiring, self.names = wiring, names or tuple(wiring.streams)
        self.stop = threading.Event()
        self.runners: dict[str, StreamRunner] = {}
        self.reasons: dict[str, str] = {}
        self._faults: list[Exception] = []
        make = wiring.runner

        def runner(stream: Any, *parts: Any) -> StreamRunner:
            made = self.runners[stream.name] = make(stream, *parts)
            return made

        wiring.runner = runner  # type: ignore[method-assign]
        self._threads = [threading.Thread(target=self._run, args=(name,), daemon=True) for name in self.names]
        for thread in self._threads:
            thread.start()

    def _run(self, name: str) -> None:
        try:
            self.reasons[name] = collect(self.wiring, name, self.stop)
        except Exception as error:  # noqa: BLE001 - told to the test, which waits for this thread
            self._faults.append(error)

    def frames(self) -> int:
        """Frames read so far, by what the streams say in memory: Redis is not asked."""
        return sum(runner.progress.frames for runner in list(self.runners.values()))

    def feeds(self) -> dict[tuple[str, str, str], tuple[str, str]]:
        """(exchange, symbol, feed) -> (state, why) as the board has it."""
        states = self.wiring.board.states(list(self.names))
        return {
            (state["exchange"], feed["symbol"], feed["feed"]): (feed["state"], feed["why"])
            for state in states.values()
            for feed in state["feeds"]
        }

    def live(self) -> bool:
        """Whether every feed of every stream is live."""
        markets = sum(len(self.wiring.streams[name].subscription.symbols) for name in self.names)
        feeds = self.feeds()
        return len(feeds) == 2 * markets and all(state == "live" for state, _ in feeds.values())

    def more(self, frames: int, seconds: float = 20) -> None:
        """Wait until so many further frames have been read."""
        wanted = self.frames() + frames
        until(lambda: self.frames() >= wanted, f"{frames} more frames", seconds)

    def join(self, seconds: float = 30) -> dict[str, str]:
        """Wait for the streams to end; why each did. Raises what a stream raised."""
        end_s = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
            assert not thread.is_alive(), "a stream does not end"
        if self._faults:
            raise self._faults[0]
        return self.reasons

    def finish(self, seconds: float = 30) -> dict[str, str]:
        """Ask the streams to stop, and wait."""
        self.stop.set()
        return self.join(seconds)

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        if kind is None:
            self.join()


def flush_at(wiring: Wiring, wall_us: int) -> FlushReport:
    """One flush run that believes it is `wall_us`."""
    settings = wiring.settings.storage
    return Flush(
        wiring.buffer,
        wiring.ledger,
        settings.segments_path,
        segment_secs=settings.segment_secs,
        wall_us=lambda: wall_us,
        monotonic_s=monotonic_s,
    ).run()


def archive_once(wiring: Wiring) -> dict[str, object]:
    """One cycle as beat runs it."""
    report = periodic.archive(wiring, NEVER)
    assert report["failed"] == {}
    return report


def finish(wiring: Wiring) -> None:
    """Everything that is on its way into the archive, and no segment left."""
    assert drain_spools(wiring)
    flushed = periodic.flush(wiring, NEVER, deadline_s=None, seal=True)
    assert (flushed["failed"], wiring.buffer.depths()) == ({}, [])
    archived = periodic.archive(wiring, NEVER, final=True)
    assert (archived["failed"], archived["timed_out"]) == ({}, False)
    assert segment_files(wiring) == []


def segment_files(wiring: Wiring) -> list[Path]:
    """Files of segments that are still there."""
    return sorted(path for path in wiring.settings.storage.segments_path.rglob("*") if path.is_file())


def records(wiring: Wiring, name: str) -> list[dict[str, Any]]:
    """Records of removed segments: epochs, ranges, losses, gaps, quarantine, replays."""
    return wiring.ledger.records(name)


def connections(wiring: Wiring) -> list[dict[str, Any]]:
    """Rows of `epochs` that are connections: questions over REST and what was found out later have theirs as well."""
    return [row for row in records(wiring, "epochs") if row["kind"] == "stream"]


def archived(wiring: Wiring) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """(exchange, symbol, data type) -> (exchange_sequence_id, data) of every row of every object."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for key in sorted(wiring.store.keys("")):
        if not key.endswith(".parquet"):
            continue
        with wiring.store.open(key) as file:
            table = pyarrow.parquet.read_table(io.BytesIO(file.read()))
        names = ("exchange", "symbol", "data_type", "exchange_sequence_id", "data")
        for exchange, symbol, data_type, identity, data in zip(*(table[n].to_pylist() for n in names), strict=True):
            found.setdefault((exchange, symbol, data_type), []).append((identity, data))
    return found


def compare(wiring: Wiring, sent: Iterable[dict[str, Any]], exchange: str = "") -> dict[tuple[str, str], int]:
    """Assert that the archive (of one exchange) holds every sent event once, text equal to the byte, and nothing else.

    Returns the events that were sent again, by (exchange, feed).
    """
    rows = {key: found for key, found in archived(wiring).items() if key[0] == exchange or not exchange}
    book_texts: dict[tuple[str, str, str], Counter[str]] = {}
    trade_texts: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for entry in sent:
        key = entry["venue"], entry["symbol"], entry["feed"]
        if entry["feed"] == "trade":
            trade_texts.setdefault(key, {}).setdefault(entry["id"], []).append(entry["data"])
        else:
            book_texts.setdefault(key, Counter())[entry["data"]] += 1
    assert rows.keys() == book_texts.keys() | trade_texts.keys()
    again: Counter[tuple[str, str]] = Counter()
    for key, found in rows.items():
        if key in trade_texts:
            held = dict(found)
            assert len(held) == len(found), f"an id stands twice in {key}"
            assert held.keys() == trade_texts[key].keys()
            assert [i for i, text in held.items() if text not in trade_texts[key][i]] == []
            sent_count = sum(map(len, trade_texts[key].values()))
        else:
            texts = Counter(text for _, text in found)
            if key[0] in WITHOUT_BOOK_IDS:
                assert texts == book_texts[key]
            else:
                assert texts == Counter(book_texts[key].keys())
            sent_count = book_texts[key].total()
        if sent_count > len(found):
            again[key[0], key[2]] += sent_count - len(found)
    return dict(again)


def figures(wiring: Wiring, sent: Path) -> Account:
    """The demo's own account of this archive, with its books balanced: every number, every row, every event sent."""
    result = account(wiring, sent)
    assert result.audit.differences == []
    assert result.figures["archived"] == result.figures["stored"]
    return result


Script = Callable[[ServerConnection, int], None]


class Scripted(AbstractContextManager["Scripted"]):
    """A venue of the test's own, on a port of its own: what each connection hears is a function of the test.

    `script` gets the connection and its number (1, 2, ...) after the client's first message; the connection then stays
    open until the client closes it. With `tls` it speaks TLS.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script, self._scheme = script, "wss" if tls else "ws"
        #: Clients that were let in so far.
        self.connections = 0
        self._server: Server = serve(self._converse, "127.0.0.1", 0, compression=None, ping_interval=None, ssl=tls)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def venue(self) -> dict[str, str]:
        """Settings: there is no REST behind it, which a collector has to bear."""
        return {"ws_url": f"{self._scheme}://127.0.0.1:{self.port}", "rest_url": f"http://127.0.0.1:{self.port}/none"}

    def _converse(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            connection.recv(timeout=10)
            self._script(connection, self.connections)
            while True:
                connection.recv()
        except (ConnectionClosed, TimeoutError):
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(5)


def bybit_trade(symbol: str, number: int, padding: int = 0) -> str:
    """A Bybit frame with one trade."""
    trade = {
        "i": str(number), "T": 1_790_000_000_000 + number, "p": "1.5", "v": "2", "S": "Buy", "s": symbol, "BT": False,
    }  # fmt: skip
    if padding:
        trade["x"] = "x" * padding
    frame = {"topic": f"publicTrade.{symbol}", "ts": 1_790_000_000_000 + number, "type": "snapshot", "data": [trade]}
    return msgspec.json.encode(frame).decode()
