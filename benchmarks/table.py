"""The table of benchmarks/README.md: targets, floors, medians and ratios over the runs of benchmarks/results.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from buffer import FILES

Run = dict[str, Any]
#: What is asked, its target, and where in a run its figure stands, its floor, their ratio ("": there is none).
Question = tuple[str, str, str, str, str]


def questions() -> Iterator[Question]:
    """In the order of the table."""
    for connections, target in ((1, ""), (20, "25,000; 50,000 with the fastest transport"), (200, "15,000")):
        at = f"ingest[connections={connections}]"
        yield f"frames/s over TLS, {connections} connections, kept for 60 s", target, f"{at}.frames_per_s", "", ""
        what = f"processor of a stream process for a frame there, µs; bare websocket-client ({connections})"
        yield what, "ratio <= 1.5", f"{at}.stream_us_per_frame", f"{at}.bare.same_us", f"{at}.cpu_ratio"
    for rate in (1_000, 5_000, 10_000):
        at, target = f"latency[rate={rate}]", "<= 80" if rate == 10_000 else ""
        for end in ("redis", "segment"):
            where = "Redis" if end == "redis" else "segment"
            yield f"socket -> {where} at {rate:,}/s, p99 ms", target, f"{at}.{end}.p99_ms", "", ""
            target = ""
    for table in ("orderbooks", "trades"):
        at = f"flush.{table}"
        yield (
            f"flush, {table}, rows/s; sqlite3.executemany", "ratio >= 0.8",
            f"{at}.flush_rows_per_s", f"{at}.floor_rows_per_s", f"{at}.ratio",
        )  # fmt: skip
    for feed in ("orderbook", "trade"):
        for rows in (100_000, 1_000_000):
            at = f"archive[feed={feed},rows={rows}]"
            what = f"archive, {rows:,} rows of {feed}, rows/s; bare select -> ParquetWriter"
            yield what, "ratio >= 0.8", f"{at}.rows_per_s", f"{at}.floor_rows_per_s", f"{at}.ratio"
            yield (
                f"its peak memory, MiB; the floor's ({rows:,} of {feed})",
                "<= 143 (150 MB)",
                f"{at}.peak_mib",
                f"{at}.floor_peak_mib",
                "",
            )
    what = "socket -> segment beside the archive, p99 ms; without"
    yield what, "ratio <= 2", "beside.beside.p99_ms", "beside.quiet.p99_ms", "beside.ratio"
    for what, *_ in FILES:
        yield (
            f"{what} frames, 50 a batch, times smaller in Redis than their text",
            ">= 3",
            f"buffer[what={what}].batches.50.smaller",
            "",
            "",
        )
    yield "all processes at rest but Redis, MiB", "<= 700", "footprint.rest_total_mib", "", ""
    yield "all processes at 1,000 events/s, cores", "", "footprint.work_total_cores", "", ""
    yield "`import app`, s", "<= 0.4", "footprint.imports.app_s", "", ""
    yield "`import app.celery`, s", "", "footprint.imports.celery_app_s", "", ""
    yield "start to first stored event, s", "", "footprint.first_row_s", "", ""
    for count in (1, 2):
        what = f"frames/s with {count} stream processes, steps of a ladder"
        yield what, "", f"scale.processes[stream_processes={count}].frames_per_s", "", ""
    for markets in (5, 50, 500):
        yield f"stream worker at rest with {markets} markets, cores", "", f"scale.rest[markets={markets}].cores", "", ""


def lines(runs: list[Run]) -> list[str]:
    """The table in Markdown: medians over `runs`, the least and the greatest too where there are several."""
    made = [
        "| what | target | median (least to greatest) | floor | ratio | runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for what, target, *places in questions():
        figures, floors, ratios = (
            [found for run in runs if (found := _at(run, place)) is not None] for place in places
        )
        if figures:
            spread = f" ({_said(min(figures))} to {_said(max(figures))})" if len(figures) > 1 else ""
            floor, ratio = (_said(statistics.median(found)) if found else "" for found in (floors, ratios))
            cells = (what, target, _said(statistics.median(figures)) + spread, floor, ratio, str(len(figures)))
            made.append(f"| {' | '.join(cells)} |")
    return made


def _at(run: Run, place: str) -> float | None:
    """The figure at `place`: names of keys, and in brackets what an element of a list must say. None: it was not measured."""
    found: Any = run
    try:
        for word in place.split(".") if place else [""]:
            name, _, wanted = word.rstrip("]").partition("[")
            found = found[name]
            for key, _, value in (one.partition("=") for one in wanted.split(",") if one):
                found = [one for one in found if str(one[key]).removesuffix(".0") == value]
            found = found[0] if wanted else found
    except (KeyError, IndexError):
        return None
    return float(found)


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


if __name__ == "__main__":
    told = json.loads(Path(__file__).with_name("results.json").read_text())
    print("\n".join(lines(told["runs"])))
