"""What is read from the reports of runs, and what a run leaves behind that is ended."""

import os
import signal
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from steady import late
from steady.results import by_folder, failures, read, slowest

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_hosts" name="test_a[v1.2]" time="{a}"/>
<testcase classname="tests.unit.test_hosts.TestHosts" name="test_b" time="1.5">{b}</testcase>
<testcase classname="tests.e2e.test_small" name="test_c" time="60"/>
</testsuite></testsuites>"""
WAITS = """
import pathlib, pytest, signal

@pytest.fixture
def server():
    yield
    pathlib.Path("taken down").touch()

def test_it(server):
    pathlib.Path("begun").write_text("yes")
    signal.pause()
"""
IGNORED = {False: signal.SIG_DFL, True: signal.SIG_IGN}  # a shell's "&" ignores Ctrl-C
FAILED = '<failure message="assert 1 == 2&#10; +  more">all of it</failure>'


def runs(tmp_path):
    report = tmp_path / "report.xml"
    for told in (REPORT.format(a=0.5, b=""), REPORT.format(a=2.5, b=FAILED)):
        report.write_text(told)
        yield read(report)


def test_a_test_that_fails_once_is_named_with_its_run_and_its_reason(tmp_path):
    name = "tests/unit/test_hosts.py::TestHosts::test_b"
    assert failures(list(runs(tmp_path))) == {name: {2: "assert 1 == 2"}}


def test_time_is_told_by_folder_and_by_test(tmp_path):
    both = list(runs(tmp_path))
    assert by_folder(both) == [("e2e", 1, 60, 60, 60), ("unit", 2, 2, 3, 4)]
    assert slowest(both, 2) == [
        ("tests/e2e/test_small.py::test_c", 60),
        ("tests/unit/test_hosts.py::test_a[v1.2]", 1.5),
    ]


@pytest.mark.parametrize("ignored", [False, True], ids=["as usual", "in the background"])
def test_who_ends_it_ends_the_run_and_what_that_started(tmp_path, ignored):
    (tmp_path / "test_it.py").write_text(WAITS)
    os.mkfifo(tmp_path / "begun")
    steady = subprocess.Popen(
        [sys.executable, "-m", "steady", "-n1", "test_it.py"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "dev")},
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, IGNORED[ignored]),
    )
    assert (tmp_path / "begun").read_text() == "yes"  # waits until it has
    steady.terminate()
    assert steady.wait() == 128 + signal.SIGTERM
    assert (tmp_path / "taken down").exists()


@pytest.fixture
def slept(monkeypatch):
    """Threads are late by up to 30 ms; nobody sleeps, and how long each would have is here."""
    times = []
    monkeypatch.setenv(late.MOST_MS, "30")
    monkeypatch.setattr("time.sleep", times.append)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", late._late)
    return times


def test_threads_are_late_before_and_after_what_they_do(slept):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda *args, **named: (args, named, len(slept)), 1, b=2).result() == (
            (1,),
            {"b": 2},
            1,
        )
        for _ in range(50):
            pool.submit(int)
    assert len(slept) == 2 * 51
    assert 0 <= min(slept) < max(slept) <= 0.03
    assert len(set(slept)) == len(slept)


def test_being_late_keeps_nothing_that_a_job_was_given(slept):
    class Given:
        pass

    def fails(_):
        raise ValueError

    given = Given()
    held = weakref.ref(given)
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(fails, given).exception().with_traceback(None), ValueError)
        del given
    assert held() is None


def test_a_run_of_late_threads_tells_its_processes(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import concurrent.futures, steady.late, os\n"
        "def test_it():\n"
        "    assert concurrent.futures.ThreadPoolExecutor.submit is steady.late._late\n"
        "    assert os.environ[steady.late.MOST_MS] == '30.0'\n"
    )
    subprocess.run(
        [sys.executable, "-m", "steady", "-n1", "--workers", "1", "--late", "30", "test_it.py"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "dev")},
        cwd=tmp_path,
        check=True,
    )
