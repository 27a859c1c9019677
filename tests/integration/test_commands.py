"""The commands as an operator calls them: processes, their output and their exit codes."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from app.cli import collector
from app.codec import BatchCodec
from app.model import EpochEnd, Range
from tests.support.batches import STREAM, batch, event
from tests.support.path import archived, finish, segment_files
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

PASSWORD = "pa55-never-shown"


def push(rig: Rig, first: int = 1, count: int = 3) -> None:
    """Trades `first`, `first + 1`, ... of an epoch that ends, in the list."""
    epoch = f"{first:032x}"
    end = EpochEnd(1_772_323_300_000_000, "stop", (Range("btcusdt", "trade", 1, count),))
    codec = BatchCodec()
    events = [event(n, str(first + n - 1)) for n in range(1, count + 1)]
    assert rig.wiring().buffer.push(STREAM, codec.encode(batch(1, events, epoch=epoch, end=end)))


class Called(NamedTuple):
    """What a command answered."""

    returncode: int
    stdout: str
    stderr: str


def call(rig: Rig, *arguments: str, given: str = "", **environ: str) -> Called:
    """A command in this process: the same code as a process runs, without the second that one takes to start."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    try:
        answer = CliRunner().invoke(
            collector, list(arguments), input=given, env={"CONFIG_PATH": str(rig.path), **environ}
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook = hooks
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return Called(answer.exit_code, answer.stdout, answer.stderr)


def trades(rig: Rig) -> list[str]:
    """Ids of the archived trades."""
    return sorted(identity for rows in archived(rig.wiring()).values() for identity, _ in rows)


@pytest.fixture
def recorder(rig: Rig) -> Rig:
    """A rig that records one market."""
    rig.write({"binance": ["btcusdt"]})
    return rig


@pytest.mark.parametrize("name", sorted(collector.list_commands(None)))  # type: ignore[arg-type]
def test_every_command_explains_itself(name: str) -> None:
    answer = CliRunner().invoke(collector, [name, "--help"])
    assert (answer.exit_code, answer.output.startswith(f"Usage: collector {name}")) == (0, True), answer.output


def test_the_command_line_lists_every_command_and_its_version(rig: Rig) -> None:
    with ThreadPoolExecutor(2) as both:
        helped, version = both.map(rig.collector, ("--help", "--version"))
    assert (helped.returncode, version.returncode) == (0, 0)
    for name in collector.list_commands(None):  # type: ignore[arg-type]
        assert f"\n  {name} " in helped.stdout
    assert version.stdout.strip().endswith("0.1.0")


# check


def test_check_passes_good_settings_and_shows_each_with_its_origin(recorder: Rig) -> None:
    done = call(recorder, "check", "--json", COLLECTOR_COLLECTOR__BATCH_INTERVAL_SECS="7")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["faults"]) == (0, [])
    settings = answer["settings"]
    assert settings["collector.batch_interval_secs"]["origin"] == "environment COLLECTOR_COLLECTOR__BATCH_INTERVAL_SECS"
    assert float(settings["collector.batch_interval_secs"]["value"]) == 7
    assert settings["redis.prefix"]["value"] == recorder.prefix
    assert (
        settings["redis.prefix"]["origin"].startswith(str(recorder.path))
        or "settings.toml" in (settings["redis.prefix"]["origin"])
    )
    assert settings["websocket.max_retry_delay_secs"]["origin"] == "default"


@pytest.mark.row("R4")
def test_check_lists_everything_that_is_missing_at_once(own_redis: RedisProcess, tmp_path: Path) -> None:
    rig = Rig(tmp_path, own_redis.url)
    own_redis.client().config_set("maxmemory-policy", "allkeys-lru")
    (tmp_path / "file").write_text("in the way")
    rig.write(
        {"binance": ["btcusdt"]},
        archive={"dir": str(tmp_path / "file" / "archive")},
        spool={"dir": str(tmp_path / "file" / "spool")},
        aws={"bucket": "out-of-reach", "region": "us-east-1", "endpoint_url": "http://127.0.0.1:1"},
    )
    done = rig.collector("check", AWS_ACCESS_KEY="AKIDNEVERSHOWN", AWS_SECRET_KEY=PASSWORD)
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault: ")]
    assert done.returncode == 2
    for words in ("maxmemory-policy is allkeys-lru", "[archive] dir", "[spool] dir", "out-of-reach"):
        assert len([fault for fault in faults if words in fault]) == 1, (words, faults)
    assert f"{len(faults)} faults" in done.stdout.splitlines()[-1]
    assert PASSWORD not in done.stdout + done.stderr
    assert "AKIDNEVERSHOWN" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_check_names_an_unreachable_redis_and_missing_credentials_without_showing_secrets(tmp_path: Path) -> None:
    rig = Rig(tmp_path, f"redis://:{PASSWORD}@127.0.0.1:1/0")
    rig.write(
        {"binance": ["btcusdt"]},
        aws={"bucket": "market-data", "region": "us-east-1", "endpoint_url": "http://127.0.0.1:1"},
    )
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    done = rig.collector("check", AWS_SHARED_CREDENTIALS_FILE="/dev/null", **nothing)
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault: ")]
    assert done.returncode == 2
    assert [fault.split(":")[1].strip() for fault in faults] == ["Redis", "store"]
    assert "cannot be reached" in faults[0]
    assert "credentials" in faults[1].lower()
    assert PASSWORD not in done.stdout + done.stderr
    assert "********" in done.stdout


def test_faults_of_the_settings_are_one_line_each_and_no_traceback(rig: Rig) -> None:
    rig.path.write_text(
        '[storage]\nmode = "s3"\nsegment_secs = 1\n[collector]\nbatch_interval = 5\n'
        '[[markets]]\nexchange = "kraken"\nsymbols = ["XBTUSD"]\n'
    )
    for process in (call(rig, "flush"), call(rig, "web", "--port", "1"), rig.collector("check")):
        lines = process.stderr.splitlines()
        assert (process.returncode, process.stdout) == (2, "")
        assert all(line.startswith("error: ") for line in lines), lines
        for words in ("storage.mode", "segment_secs", "batch_interval", "kraken"):
            assert any(words in line for line in lines), (words, lines)


def test_an_unknown_exchange_is_one_line_that_says_which_there_are(rig: Rig) -> None:
    rig.path.write_text('[[markets]]\nexchange = "kraken"\nsymbols = ["XBTUSD"]\n')
    done = rig.collector("check")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("error: ")
    assert "kraken" in line
    assert "binance" in line


def test_check_warns_of_a_data_directory_that_others_can_change(recorder: Rig) -> None:
    assert call(recorder, "check").returncode == 0
    data = recorder.settings.database.path.parent
    data.chmod(0o775)
    done = call(recorder, "check", "--json")
    warnings = [warning for warning in json.loads(done.stdout)["warnings"] if "chmod" in warning]
    assert (done.returncode, warnings) == (
        0, [f"directories: {data} can be changed by its group or others, and what it holds with it; chmod go-w {data}"],
    )  # fmt: skip


# flush, archive, verify


def test_flush_then_archive_final_leave_objects_and_no_segment(recorder: Rig) -> None:
    push(recorder)
    done = call(recorder, "flush")
    report = json.loads(done.stdout)
    assert (done.returncode, report["stored"], report["batches"], report["failed"]) == (0, 3, 1, {})
    push(recorder, 100, 2)
    done = call(recorder, "archive")
    assert (done.returncode, json.loads(done.stdout)["objects"]) == (0, 0)
    assert segment_files(recorder.wiring()) != []

    done = recorder.collector("archive", "--final")
    report = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, report["rows"], report["failed"]) == (0, 5, {})
    assert segment_files(recorder.wiring()) == []
    assert trades(recorder) == ["1", "100", "101", "2", "3"]

    done = recorder.collector("verify")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["1 of 1 objects verified, 5 rows, 0 faults"]
    assert done.stderr == ""


def test_flush_final_drains_the_spool_and_seals(recorder: Rig) -> None:
    wiring = recorder.wiring()
    spool = wiring.spool(STREAM)
    assert spool.lock()
    spool.append(BatchCodec().encode(batch(1, [event(1)])))
    spool.close()
    done = call(recorder, "flush", "--final")
    report = json.loads(done.stdout)
    assert (done.returncode, report["stored"], report["spools_empty"], report["sealed"]) == (0, 1, True, [1])
    assert [entry.state for entry in recorder.wiring().ledger.segments()] == ["sealed"]


def test_flush_says_that_another_one_is_going_on(recorder: Rig) -> None:
    lease = recorder.wiring().lease("lock:flush", 30)
    assert lease.acquire()
    done = call(recorder, "flush")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"skipped": "another run is going on"})


def test_a_station_without_redis_is_one_line(recorder: Rig) -> None:
    done = call(recorder, "flush", COLLECTOR_REDIS__URL=f"redis://:{PASSWORD}@127.0.0.1:1/0")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("error: Redis: ")
    assert PASSWORD not in line


def test_another_data_directory_may_not_flush_the_same_redis(recorder: Rig, tmp_path: Path) -> None:
    push(recorder)
    assert call(recorder, "flush").returncode == 0
    done = call(recorder, "flush", COLLECTOR_DATABASE__PATH=str(tmp_path / "elsewhere" / "collector.db"))
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert str(recorder.directory / "data" / "collector.db") in line


@pytest.fixture
def archive(recorder: Rig) -> Iterator[Rig]:
    """A rig with three archived objects of one trade each."""
    for symbol in ("aausdt", "bbusdt", "ccusdt"):
        element = BatchCodec().encode(batch(1, [event(1, symbol=symbol)], epoch=symbol.encode().hex().ljust(32, "0")))
        assert recorder.wiring().buffer.push(STREAM, element)
    finish(recorder.wiring())
    yield recorder


def test_verify_names_each_object_that_is_not_what_it_was(archive: Rig) -> None:
    root = archive.settings.storage.local_path
    flipped, gone, bare = sorted(root.rglob("*.parquet"))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.chmod(0o600)
    flipped.write_bytes(content)
    gone.unlink()
    (manifest,) = [path for path in bare.parent.iterdir() if path.suffix == ".json"]
    manifest.unlink()

    plain, as_json, narrowed = (
        call(archive, "verify", *arguments) for arguments in ((), ("--json",), ("binance/aausdt/",))
    )
    keys = [str(path.relative_to(root)) for path in (flipped, gone, bare)]
    assert (plain.returncode, as_json.returncode, narrowed.returncode) == (1, 1, 1)
    faults = {fault["key"]: fault["fault"] for fault in json.loads(as_json.stdout)["faults"]}
    assert "its bytes have sha256" in faults.pop(keys[0])
    assert "the store has no such object" in faults.pop(keys[1])
    assert "no manifest" in faults.pop(keys[2])
    # What the object that is gone has left behind is named as well.
    assert [key.startswith("binance/bbusdt/") and key.endswith(".json") for key in faults] == [True]
    lines = plain.stdout.splitlines()
    for key in keys:
        assert len([line for line in lines if line.startswith(f"{key}: ")]) == 1
    assert lines[-1] == "0 of 2 objects verified, 0 rows, 4 faults"
    assert narrowed.stdout.splitlines()[-1] == "0 of 1 objects verified, 0 rows, 1 faults"


def test_verify_reads_the_markets_and_hours_that_are_asked_for(archive: Rig) -> None:
    (start_ms,) = {int(path.stem) for path in archive.settings.storage.local_path.rglob("*.parquet")}
    hour = datetime.fromtimestamp(start_ms / 1000, UTC)
    this, next_ = (f"{at:%Y-%m-%dT%H}" for at in (hour, hour + timedelta(hours=1)))

    def objects(*arguments: str) -> int:
        done = call(archive, "verify", "--json", *arguments)
        report = json.loads(done.stdout)
        assert (done.returncode, report["stores"], report["faults"]) == (0, ["local"], [])
        assert report["verified"] == report["objects"] == report["rows"]
        return int(report["objects"])

    assert objects("--since", this, "--until", next_) == 3
    assert objects("--since", next_) == objects("--until", this) == 0
    assert objects("--market", "binance/aausdt", "--market", "binance/ccusdt") == 2
    assert objects("--market", "binance/aausdt", "--since", this) == 1
    assert objects("binance/b", "--market", "binance/aausdt") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "is no time"),
        (["--since", "2026-03-02", "--until", "2026-03-01T10"], "is not before --until"),
        (["--market", "btcusdt"], "is not EXCHANGE/SYMBOL"),
    ],
)
def test_verify_says_what_is_wrong_with_what_it_was_asked(archive: Rig, arguments: list[str], said: str) -> None:
    done = call(archive, "verify", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


# db, status


def test_db_answers_statements_over_all_segments_and_prints_paths(recorder: Rig) -> None:
    push(recorder)
    assert call(recorder, "flush", "--final").returncode == 0
    push(recorder, 100, 2)
    assert call(recorder, "flush").returncode == 0
    sql = "select segment, symbol, count(*) from trades group by 1, 2"
    calls: tuple[tuple[str, ...], ...] = (
        ("--sql", sql), ("--paths",), ("--sql", "selec 1"), ("--sql", "delete from segment1.trades"),
        ("--sql", "select count(*) from ledger.segments"),
    )  # fmt: skip
    told, paths, wrong, deleted, ledger = (call(recorder, "db", *arguments) for arguments in calls)
    assert (told.returncode, told.stdout) == (0, "1\tbtcusdt\t3\n2\tbtcusdt\t2\n")
    assert (paths.returncode, sorted(map(Path, paths.stdout.splitlines()))) == (
        0,
        [path for path in segment_files(recorder.wiring()) if path.suffix == ".db"],
    )
    for refused in (wrong, deleted):
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: ")
        assert len(refused.stderr.splitlines()) == 1
    assert (ledger.returncode, ledger.stdout) == (0, "2\n")

    statements = "select exchange_sequence_id\n  from trades order by id;\nselec 2;\nselect 7;\n.quit\nselect 8;\n"
    shell = call(recorder, "db", given=statements)
    said = shell.stdout.replace("sqlite> ", "").replace("   ...> ", "").split("\n")
    assert shell.returncode == 0
    assert sorted(line for line in said if line.isdigit()) == sorted(["1", "2", "3", "100", "101", "7"])
    assert any(line.startswith("error: ") for line in said)
    assert "Traceback" not in shell.stderr


def test_status_shows_a_stream_that_nobody_runs_as_down(recorder: Rig) -> None:
    done = call(recorder, "status", "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, answer["total"], answer["bad"]) == (1, 2, 2)
    assert {(row["symbol"], row["feed"], row["state"]) for row in answer["feeds"]} == {
        ("btcusdt", "orderbook", "down"), ("btcusdt", "trade", "down"),
    }  # fmt: skip
