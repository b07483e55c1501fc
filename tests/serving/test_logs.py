"""One JSON object on each line of stderr, whoever wrote it."""

import json
import logging
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent

import pytest

from yoloserve.errors import without_credentials
from yoloserve.telemetry import logs

SERVING = str(Path(__file__).parents[2] / "serving_image")


def run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run it in a process of its own, for the descriptor of stderr is the whole process's."""
    begin = (
        "import logging, os, sys; from yoloserve.telemetry import logs\nwith logs.configured():\n"
    )
    return subprocess.run(
        [sys.executable, "-c", begin + indent(code, "  ")],
        env=os.environ | {"PYTHONPATH": SERVING},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_a_library_writes_to_stderr_is_a_line_of_the_log() -> None:
    code = "os.write(2, b'warning: \\xff half'); os.write(2, b' a line\\n\\nand the next\\n')\n"
    lines = [json.loads(line) for line in run(code).stderr.splitlines()]
    assert [(line["message"], line["logger"], line["level"]) for line in lines] == [
        ("warning: \\xff half a line", "stderr", "warning"),
        ("and the next", "stderr", "warning"),
    ]


def test_a_line_without_end_is_told_in_pieces() -> None:
    code = "[os.write(2, b'x' * 20_000) for _ in range(3)]; os.write(2, b'\\n')\n"
    lines = [json.loads(line) for line in run(code).stderr.splitlines()]
    assert "".join(line["message"] for line in lines) == "x" * 60_000
    assert max(len(line["message"]) for line in lines) < 20_000


def test_what_is_said_of_damaged_pictures_is_for_the_caller_alone() -> None:
    code = """
import cv2, numpy as np
from yoloserve.images.decoding import decode
good = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8))[1]
for place in range(41, len(good) - 12):
    bad = good.copy()
    bad[place] ^= 0x55
    try:
        decode(bad.tobytes(), max_pixels=1000)
    except Exception as error:
        last = error
logging.getLogger("here").info(type(last).__name__)
"""
    lines = [json.loads(line) for line in run(code).stderr.splitlines()]
    assert [line["message"] for line in lines] == ["InvalidImage"]


def test_what_is_said_of_good_pictures_is_no_warning() -> None:
    code = """
import cv2, numpy as np
from yoloserve.images.decoding import decode
good = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
good[good.tobytes().index(b"JFIF") + 5] = 3
print(decode(good.tobytes(), max_pixels=10_000).shape)
"""
    told = run(code)
    assert (told.stdout, told.stderr) == ("(64, 64, 3)\n", "")


def test_a_long_word_is_looked_through_once() -> None:
    word = "x" * 1_000_000  # hours, if each letter was looked at once for each before it
    assert without_credentials(f"{word} {word}://a:b@c/?d") == f"{word} {word}://…@c/?…"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (
            "https://nexus:8081/npm/@vision/gate.onnx?a",
            "https://nexus:8081/npm/@vision/gate.onnx?…",
        ),
        ("https://[2001:db8::7]/gate@7/a.onnx", "https://[2001:db8::7]/gate@7/a.onnx"),
        ("oci://r:5000/g@sha512:12#a@7.onnx", "oci://r:5000/g@sha512:12#a@7.onnx"),
        ("s3://bucket/cam:1@gate.onnx", "s3://bucket/cam:1@gate.onnx"),
        ("s3://KEY:se/cret@bucket/a.onnx", "s3://…@bucket/a.onnx"),
        ("https://me:se/cret@nexus:8081/a", "https://…@nexus:8081/a"),
        ("https://me:cret@sha256:8443/a.onnx", "https://…@sha256:8443/a.onnx"),
    ],
)
def test_what_is_no_user_of_an_address_stays(word: str, shown: str) -> None:
    assert without_credentials(f"no {word}, now") == f"no {shown}, now"


def test_a_line_with_a_password_stays_one_of_json() -> None:
    word = "https://me:it's\"\\s3cret@h/x?a"
    extra = {
        "uri": word,
        "tried": [{"uri": word, "code": 404}],
        "at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    record = logging.makeLogRecord({"msg": f"no {word}, see a@b", **extra})
    line = logs.JsonFormatter().format(record)
    assert "s3cret" not in line
    told = json.loads(line)
    assert told["message"] == "no https://…@h/x?…, see a@b"
    assert told["tried"] == [{"uri": "https://…@h/x?…", "code": 404}]
    assert told["at"] == "2026-01-01T00:00:00+00:00"


def test_a_child_that_stays_holds_nobody_up() -> None:
    stays = "print(subprocess.Popen(['sleep', '300'], stdout=subprocess.DEVNULL).pid)"
    code = f"import subprocess; logs.LEAVE_S = 0.1; {stays}"
    told = run(code)
    try:
        assert told.returncode == 0
    finally:
        os.kill(int(told.stdout), signal.SIGKILL)


def test_a_library_that_writes_more_than_anybody_reads_does_not_wait() -> None:
    """The reader needs the lock that whoever writes may hold."""
    code = """
import ctypes
libc = ctypes.PyDLL(None)  # keeps the lock, as an extension module that writes an error does
line = b"y" * 999 + b"\\n"
for _ in range(1000):
    libc.write(2, line, len(line))
"""
    assert run(code).returncode == 0


def test_what_kills_the_process_is_told() -> None:
    told = run("import ctypes; ctypes.string_at(0)")
    assert told.returncode < 0
    assert "Segmentation fault" in told.stderr


def test_stderr_is_as_before_afterwards() -> None:
    after = "pass\nos.write(2, b'one\\n'); print('two', file=sys.stderr)"
    begin = "import os, sys; from yoloserve.telemetry import logs\nwith logs.configured(): "
    told = subprocess.run(
        [sys.executable, "-c", begin + after],
        env=os.environ | {"PYTHONPATH": SERVING},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stderr == "one\ntwo\n"
