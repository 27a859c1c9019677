from pathlib import Path

from app.venues.bybit import Bybit
from app.venues.dialect import Event, Frame
from app.venues.replay import files, load

BOOK = '{"topic":"orderbook.50.XYUSDT","type":"delta","data":{"s":"XYUSDT","b":[["1.10", "0"]]}}'
TRADE = '{"topic":"publicTrade.XZUSDT","type":"snapshot","data":[{"i":"5"}]}'


def test_only_the_files_of_data_frames_are_taken_in_order_of_name(tmp_path: Path) -> None:
    folder = tmp_path / "okx"
    folder.mkdir()
    for name in (
        "trades.jsonl", "books.jsonl", "control.jsonl", "control_text.jsonl", "acks_2022.jsonl", "rest.jsonl",
        "exchange_subscriptions.jsonl", "notes.txt",
    ):  # fmt: skip
        (folder / name).touch()
    assert files(tmp_path, "okx") == [folder / "books.jsonl", folder / "trades.jsonl"]
    assert files(tmp_path, "upbit") == []


def test_frames_keep_their_order_and_their_exact_text_and_the_rest_is_told(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(TRADE + "\r\n" + BOOK + '\n\n{"op":"ping"}\nnot json\n')
    second.write_text('{"topic":"tickers.XYUSDT","data":{}}\n' + TRADE)
    recording = load(Bybit, [first, second])
    trade = ("publicTrade.XZUSDT", Frame(TRADE, (Event("XZUSDT", "trade", "5", '{"i":"5"}'),)))
    book = ("orderbook.50.XYUSDT", Frame(BOOK, (Event("XYUSDT", "orderbook", None, BOOK),)))
    assert recording.frames == [trade, book, trade]
    assert recording.symbols == ["XZUSDT", "XYUSDT"]
    assert recording.notices == [
        f"{first}: 2 lines are not frames of bybit: skipped",
        f"{second}: 1 frames are neither order book nor trade: skipped",
    ]
