"""What may change while the server runs, and by what revisions know each other."""

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from yoloserve.live import LOOK_AGAIN_S, MOST_BYTES, Live, LiveSettings
from yoloserve.shadow.keys import Keys

NOW = datetime(2026, 11, 29, 7, tzinfo=UTC)
KEY, TOKEN, OTHER = "k" * 16, "t" * 16, "o" * 16


def order(**changes: Any) -> dict[str, Any]:
    usual = {
        "revision": "gate-0000aaaa",
        "percent": 100,
        "max_per_second": 20.0,
        "until": (NOW + timedelta(minutes=10)).isoformat(),
        "keep_frames": False,
        "token": None,
    }
    return usual | changes


def write(file: Path, content: str) -> None:
    other = file.with_suffix(".new")
    other.write_text(content)
    os.replace(other, file)  # as Kubernetes does with a mounted ConfigMap


def live(tmp_path: Path, content: str | None, clock, now: datetime = NOW) -> Live:
    if content is not None:
        write(tmp_path / "live.json", content)
    return Live(tmp_path, clock=clock, wall=now.timestamp)


def told(**shadow: Any) -> str:
    return json.dumps({"shadow": order(**shadow)})


def test_without_a_file_there_is_nothing_to_do(tmp_path: Path, clock) -> None:
    assert live(tmp_path, None, clock).shadow() is None
    assert Live(None).settings == LiveSettings()


def test_what_the_file_says_is_done_soon(tmp_path: Path, clock) -> None:
    file = live(tmp_path, None, clock)
    write(tmp_path / "live.json", told(percent=12.5))
    assert not file.look()
    clock.now += LOOK_AGAIN_S
    assert file.look()
    assert (shadow := file.shadow())
    assert shadow.percent == 12.5
    (tmp_path / "live.json").unlink()
    clock.now += LOOK_AGAIN_S
    assert file.look()
    assert file.shadow() is None


def test_an_order_ends_with_its_time(tmp_path: Path, clock) -> None:
    assert live(tmp_path, told(), clock, NOW + timedelta(minutes=9)).shadow()
    assert live(tmp_path, told(), clock, NOW + timedelta(minutes=10)).shadow() is None


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        '{"shadow": 1}',
        '{"log_level": "loud"}',
        told(until="2026-11-29T07:10:00"),  # of which time zone?
        told(percent=101),
        told(percent="many"),
        told(max_per_second=-1),
        told(token="short"),
        told(revision="g" * 64),
        '{"shadow": null}' + " " * MOST_BYTES,
        "\udcff",
    ],
)
def test_of_a_broken_file_what_was_said_before_stands_and_it_is_told_once(
    tmp_path: Path, clock, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = live(tmp_path, told(token=TOKEN), clock)
    (tmp_path / "live.json").write_bytes(broken.encode(errors="surrogateescape"))
    for _ in range(3):
        clock.now += LOOK_AGAIN_S
        assert not file.look()
    assert file.shadow()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["live.json not read"]
    assert TOKEN not in str(caplog.records[0].__dict__)


def test_a_broken_file_fails_no_start(tmp_path: Path, clock) -> None:
    assert live(tmp_path, "{", clock).settings == LiveSettings()


def test_what_a_later_operator_adds_is_passed_over(tmp_path: Path, clock) -> None:
    more = json.dumps({"shadow": order(colour="red"), "weather": "fine", "log_level": "debug"})
    assert live(tmp_path, more, clock).settings.log_level == "debug"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    return file


def test_only_the_key_is_taken(tmp_path: Path, key_file: Path, clock) -> None:
    keys = Keys(key_file, live(tmp_path, None, clock), is_open=False, clock=clock)
    assert keys.shown() == KEY
    assert keys.takes(KEY)
    assert not any(map(keys.takes, ("", KEY[:-1], KEY + "x", OTHER, "é" * 16)))


def test_a_changed_key_is_read_again_and_a_missing_one_lets_nobody_in(
    tmp_path: Path, key_file: Path, clock
) -> None:
    keys = Keys(key_file, live(tmp_path, None, clock), is_open=False, clock=clock)
    for content, shown in ((OTHER, OTHER), ("short", ""), ("é" * 16, ""), (KEY, KEY)):
        write(key_file, content)
        clock.now += 2
        assert keys.shown() == shown
        assert keys.takes(shown) is bool(shown)
    key_file.unlink()
    clock.now += 2
    assert not keys.takes(KEY)
    assert not keys.takes("")


def test_the_token_stands_in_for_a_key_only_where_access_is_open(tmp_path: Path, clock) -> None:
    file = live(tmp_path, told(token=TOKEN), clock)
    assert Keys(None, file, is_open=True).takes(TOKEN)
    assert Keys(None, file, is_open=True).shown() == TOKEN
    assert not Keys(None, file, is_open=False).takes(TOKEN)
    assert not Keys(None, file, is_open=False).shown()


def test_the_token_ends_with_the_order(tmp_path: Path, clock) -> None:
    over = live(tmp_path, told(token=TOKEN), clock, NOW + timedelta(hours=1))
    assert not Keys(None, over, is_open=True).takes(TOKEN)


def test_neither_key_nor_token_is_in_the_log(tmp_path: Path, key_file: Path, clock, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    file = live(tmp_path, told(token=TOKEN), clock)
    assert TOKEN not in repr(file.settings)
    write(key_file, "hunter2")
    Keys(key_file, file, is_open=True)
    assert caplog.records
    assert "hunter2" not in str([record.__dict__ for record in caplog.records])
