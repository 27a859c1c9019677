"""What rate do stream worker, Redis and flush sustain, without a drop and without growing lag? See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rig.stack import Cpu, Load, Stack, cpu_s

#: Seconds of frames: growth that is none, and what may wait anywhere. A flush comes every 5 s and takes as long.
FLUSH_S, WAITS_S = 2, 15
#: Connections -> the first rate that is tried; the next one is lower by DOWN. Below LEAST nothing is looked for.
FIRST = {1: 48_000, 20: 50_000, 200: 26_000}
DOWN, LEAST = 0.9, 2_000
#: A ladder measures nothing before the load has come as far as segments; after so long it shows whether what waits grows.
COMES_S, SHOWS_S = 10, 30


def grown(waiting: list[int]) -> int:
    """By how much more frames waited at all times of the last third than at any time of the first."""
    third = max(1, len(waiting) // 3)
    return min(waiting[-third:]) - max(waiting[:third])


def sustained(stack: Stack, rate: float, seconds: float, comes_s: float = 3) -> dict[str, Any]:
    """Load `stack` for `seconds`, once it was for `comes_s`; what came of it.

    `kept`: nothing was refused, and nothing waited longer at the end.

    Over as soon as it is clear that it was not kept: something was refused, the venue owes a second of frames, frames wait
    too long (kernel buffers of 200 sockets hide seconds of them from everybody else), or longer and longer.
    """
    before_refused, began_sent = stack.refused(), stack.load.last["sent"]
    stack.load.rate(rate)
    time.sleep(comes_s)
    cpu, began_s, sent = Cpu(stack.pids()), time.monotonic(), stack.load.last["sent"]
    owed, waiting = [], []
    while time.monotonic() - began_s < seconds:
        time.sleep(1)
        owed.append(stack.load.last["owed"])
        waiting.append(stack.load.last["sent"] - stack.stored())  # in sockets, memory queues and lists
        if stack.refused() > before_refused or max(owed) >= rate or waiting[-1] > rate * WAITS_S:
            break
        if time.monotonic() - began_s > SHOWS_S and grown(waiting) >= rate * FLUSH_S:
            break
    took_s = time.monotonic() - began_s
    cores, sent = cpu.cores(), stack.load.last["sent"] - sent
    third = max(1, len(waiting) // 3)
    kept = (
        stack.refused() == before_refused
        and max(owed) < rate
        and sent > 0.95 * rate * took_s
        and grown(waiting) < rate * FLUSH_S
        and max(waiting) <= rate * WAITS_S
    )
    return {
        "rate": rate, "sent_per_s": round(sent / took_s), "kept": kept, "refused": stack.refused() - before_refused,
        "owed": max(owed[-third:]), "waiting": waiting[-1], "cores": cores, "total_sent": stack.load.last["sent"] - began_sent,
    }  # fmt: skip


def settle(stack: Stack) -> None:
    """No load, until nothing waits."""
    stack.load.rate(0)
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s and (stack.in_redis() or stack.queued() or stack.load.last["owed"]):
        time.sleep(0.5)


def largest(stack: Stack, rate: float, seconds: float, say: bool) -> dict[str, Any]:
    """The first rate of a ladder down from `rate` that is kept for `seconds`."""
    while True:
        tried = sustained(stack, rate, seconds, COMES_S)
        if say:
            print("  ", json.dumps(tried), file=sys.stderr)
        settle(stack)
        rate = round(rate * DOWN)
        if tried["kept"] or rate < LEAST:
            return tried


def floor(connections: int, rate: float, seconds: float, cpu_pin: int) -> dict[str, float]:
    """Frames a second and processor of a bare loop, at `rate` and at all it can take; on the subject's processor, if it
    has one."""
    with tempfile.TemporaryDirectory() as directory:
        load = Load(Path(directory), cpu_pin)
        bare = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rig") / "bare.py"), load.url, load.certificate, str(connections)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if cpu_pin >= 0:
            os.sched_setaffinity(bare.pid, {cpu_pin})
        assert bare.stdout is not None
        found = {}
        try:
            while load.last["connections"] < connections:
                time.sleep(0.2)
            for name, wanted in (("same", rate), ("most", 200_000.0)):
                load.rate(wanted)
                time.sleep(3)
                cpu, began_s, sent = cpu_s(bare.pid), time.monotonic(), load.last["sent"]
                time.sleep(seconds)
                took_s, sent = time.monotonic() - began_s, load.last["sent"] - sent
                cores = (cpu_s(bare.pid) - cpu) / took_s
                found[f"{name}_per_s"] = round(sent / took_s)
                found[f"{name}_us"] = round(cores / (sent / took_s) * 1e6, 1)
                found[f"{name}_venue_cores"] = load.last["cpu"]
        finally:
            bare.kill()
            bare.wait()
            load.close()
    return found


def measure(
    connections: int, first: float, seconds: float, say: bool, settings: dict[str, dict[str, object]]
) -> dict[str, Any]:
    """Subject and floor, in one run."""
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), connections=connections, settings=settings)
        try:
            stack.wait_open()
            settle(stack)
            best = largest(stack, first, seconds, say)
            stack.flush()
            sent, stored, refused = stack.load.last["sent"], stack.stored(), stack.refused()
        finally:
            stack.close()
    cpu_pin = int(str(settings.get("websocket", {}).get("cpu_pin", -1)))
    bare = floor(connections, best["sent_per_s"], 4.0, cpu_pin)
    us = best["cores"]["stream"] / best["sent_per_s"] * 1e6
    return {
        "connections": connections, "settings": settings, "frames_per_s": best["sent_per_s"], "kept": best["kept"],
        "cores": best["cores"],
        "stream_us_per_frame": round(us, 1), "bare": bare, "cpu_ratio": round(us / bare["same_us"], 2),
        "sent": sent, "stored": stored, "refused": refused,
    }  # fmt: skip


def main() -> None:
    """A table for people on stderr, one JSON object on stdout."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--connections", type=int, nargs="*", default=[1, 20, 200])
    words.add_argument("--first", type=float, help="the rate that is tried first; each next one is lower by a tenth")
    words.add_argument("--secs", type=float, default=60, help="how long the rate that is told must have been kept")
    words.add_argument(
        "--set", nargs="*", default=["websocket.cpu_pin=0"], help="settings; --set without any: as they come"
    )
    words.add_argument("--verbose", action="store_true")
    given = words.parse_args()
    settings: dict[str, dict[str, object]] = {}
    for word in given.set:
        name, _, value = word.partition("=")
        section, _, key = name.rpartition(".")
        settings.setdefault(section, {})[key] = json.loads(value)
    found = [
        measure(connections, given.first or FIRST.get(connections, 20_000), given.secs, given.verbose, settings)
        for connections in given.connections
    ]
    columns = (
        "connections",
        "frames/s",
        "us/frame",
        "bare us/frame",
        "ratio",
        "bare at most/s",
        "stream",
        "redis",
        "worker",
    )
    print("  ".join((*columns, "venue cores")), file=sys.stderr)
    for one in found:
        cores, bare = one["cores"], one["bare"]
        print(
            f"{one['connections']:>11}  {one['frames_per_s']:>8,}  {one['stream_us_per_frame']:>8}  {bare['same_us']:>13}"
            f"  {one['cpu_ratio']:>5}  {bare['most_per_s']:>14,}  {cores['stream']:>6}  {cores['redis']:>5}"
            f"  {cores['worker']:>6}  {cores['venue']:>5}",
            file=sys.stderr,
        )  # fmt: skip
    print(json.dumps({"ingest": found}))


if __name__ == "__main__":
    main()
