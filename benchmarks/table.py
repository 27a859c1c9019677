"""The table of benchmarks/README.md: targets, floors, medians and ratios over the runs of benchmarks/results.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = dict[str, Any]
#: What is asked, its target, and of one run: the figure, the floor (None: there is none), their ratio (None: as floor).
Question = tuple[str, str, Callable[[Run], float], Callable[[Run], float] | None, Callable[[Run], float] | None]


def _ingest(connections: int) -> Callable[[Run], Run]:
    return lambda run: next(one for one in run["ingest"] if one["connections"] == connections)


def _archive(feed: str, rows: int) -> Callable[[Run], Run]:
    return lambda run: next(one for one in run["archive"] if (one["feed"], one["rows"]) == (feed, rows))


def _latency(rate: int) -> Callable[[Run], Run]:
    return lambda run: next(one for one in run["latency"] if one["rate"] == rate)


def questions() -> list[Question]:
    """In the order of the table."""
    found: list[Question] = []
    for connections, target in ((1, ""), (20, "25,000; 50,000 with the fastest transport"), (200, "15,000")):
        one = _ingest(connections)
        found += [
            (
                f"frames/s over TLS, {connections} connections, kept for 60 s", target,
                lambda run, one=one: one(run)["frames_per_s"], None, None,
            ),
            (
                f"processor of a stream process for a frame there, us; bare websocket-client ({connections})", "ratio <= 1.5",
                lambda run, one=one: one(run)["stream_us_per_frame"], lambda run, one=one: one(run)["bare"]["same_us"],
                lambda run, one=one: one(run)["cpu_ratio"],
            ),
        ]  # fmt: skip
    for rate in (1_000, 5_000, 10_000):
        target = "<= 80" if rate == 10_000 else ""
        at = _latency(rate)
        found.append(
            (
                f"socket -> Redis at {rate:,}/s, p99 ms",
                target,
                lambda run, at=at: at(run)["redis"]["p99_ms"],
                None,
                None,
            )
        )
    for table in ("orderbooks", "trades"):
        of: Callable[[Run], Run] = lambda run, table=table: run["flush"][table]  # noqa: E731
        found.append((
            f"flush, {table}, rows/s; sqlite3.executemany", "ratio >= 0.8", lambda run, of=of: of(run)["flush_rows_per_s"],
            lambda run, of=of: of(run)["floor_rows_per_s"], lambda run, of=of: of(run)["ratio"],
        ))  # fmt: skip
    for feed in ("orderbook", "trade"):
        for rows in (100_000, 1_000_000):
            kept = _archive(feed, rows)
            found += [
                (
                    f"archive, {rows:,} rows of {feed}, rows/s; bare select -> ParquetWriter", "ratio >= 0.8",
                    lambda run, kept=kept: kept(run)["rows_per_s"], lambda run, kept=kept: kept(run)["floor_rows_per_s"],
                    lambda run, kept=kept: kept(run)["ratio"],
                ),
                (
                    f"its peak memory, MiB; the floor's ({rows:,} of {feed})", "<= 150",
                    lambda run, kept=kept: kept(run)["peak_mib"], lambda run, kept=kept: kept(run)["floor_peak_mib"], None,
                ),
            ]  # fmt: skip
    found.append((
        "socket -> segment beside the archive, p99 ms; without", "ratio <= 2", lambda run: run["beside"]["beside"]["p99_ms"],
        lambda run: run["beside"]["quiet"]["p99_ms"], lambda run: run["beside"]["ratio"],
    ))  # fmt: skip
    found += [
        ("all processes at rest but Redis, MiB", "<= 700", lambda run: run["footprint"]["rest_total_mib"], None, None),
        ("all processes at 1,000 events/s, cores", "", lambda run: run["footprint"]["work_total_cores"], None, None),
        ("`import app`, s", "<= 0.4", lambda run: run["footprint"]["imports"]["app_s"], None, None),
        ("start to first stored event, s", "", lambda run: run["footprint"]["first_row_s"], None, None),
    ]
    for processes in (1, 2):
        found.append((
            f"frames/s with {processes} stream processes, steps of a ladder", "",
            lambda run, processes=processes: next(
                one["frames_per_s"] for one in run["scale"]["processes"] if one["stream_processes"] == processes
            ), None, None,
        ))  # fmt: skip
    return found


def lines(runs: list[Run]) -> list[str]:
    """The table in Markdown: medians over `runs`; of a figure of several runs, the least and the greatest too."""
    made = [
        "| what | target | median (least to greatest) | floor | ratio | runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for what, target, figure, floor, ratio in questions():
        mine = _each(runs, figure)
        if not mine:
            continue
        spread = f" ({_said(min(mine))} to {_said(max(mine))})" if len(mine) > 1 else ""
        cells = [what, target, _said(statistics.median(mine)) + spread]
        cells += [_said(statistics.median(_each(runs, ask))) if ask else "" for ask in (floor, ratio)]
        made.append(f"| {' | '.join([*cells, str(len(mine))])} |")
    return made


def _each(runs: list[Run], ask: Callable[[Run], float]) -> list[float]:
    """Of the runs that have it: a benchmark may have failed."""
    found = []
    for run in runs:
        try:
            found.append(ask(run))
        except (KeyError, StopIteration):
            continue
    return found


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


if __name__ == "__main__":
    told = json.loads(Path(__file__).with_name("results.json").read_text())
    print("\n".join(lines(told["runs"])))
