"""One function per observable fact about the judging of books; the rest is in telemetry.py."""

from __future__ import annotations

from app import metrics, telemetry


def books_certified(rows: int, checks: int, seconds: float) -> None:
    telemetry.log.info("books.certified", rows=rows, checks=checks, seconds=round(seconds, 3))


def books_behind(segment: int, behind_s: float) -> None:
    telemetry.log.warning(
        "books.behind", segment=segment, behind_s=round(behind_s, 1), then="the next run goes on from there"
    )


def books_skipped(segment: int, why: str) -> None:
    telemetry.log.warning("books.skipped", segment=segment, why=why)


def book_broken(exchange: str, symbol: str, kind: str, start_us: int, end_us: int, detail: str) -> None:
    metrics.BOOKS_BROKEN.labels(exchange, symbol, kind).inc()
    telemetry._seldom("book.broken", f"{exchange} {symbol} {kind}", exchange=exchange, symbol=symbol, kind=kind,
            start_us=start_us, end_us=end_us, detail=detail)  # fmt: skip


def book_unanswered(exchange: str, symbol: str, error: Exception) -> None:
    telemetry._seldom("book.unanswered", f"{exchange} {symbol}", exchange=exchange, symbol=symbol, error=str(error))
