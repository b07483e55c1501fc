"""`python -m steady [-n 20] [--workers 3] [--beside 1] [PATH ...]`: run tests again and again.

`make test-steady ARGS="-n 20 tests/unit"`. Each run has a seed of its own and, with `--beside`,
processes beside it that keep as many cores busy: what passes only on an idle machine shows. With
`--late 30` all that threads of the tests' processes do begins and ends up to 30 ms late. It ends
with every test that ever failed, in which runs and why, and the time by folder; its exit status
is 1 if any failed. Nothing is repeated until it passes. `--of REPORT ...` reads reports that are
there instead, as `make test` leaves one in `build/tests.xml`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from steady import late as late_threads
from steady import results
from steady.results import Result

REPORTS: Final = Path("build") / "steady"
BUSY: Final = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
# A shell has what it runs in the background ignore Ctrl-C, and so would pytest.
PYTEST: Final = """\
import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main())
"""
EX_TERMINATED: Final = 128 + signal.SIGTERM
NOTHING_RAN: Final = {2, 3, 4, 5}
"""pytest's exit statuses for what is no test's failure: interrupted, its own, usage, no tests."""


def main() -> int:
    """Run, or read what has been run; print what it shows."""
    parser = argparse.ArgumentParser(prog="python -m steady", description=__doc__)
    parser.add_argument("paths", nargs="*", default=[], help="what to run (everything)")
    parser.add_argument("-n", "--times", type=int, default=20, help="how often (20)")
    parser.add_argument("--workers", type=int, default=0, help="processes that test (this one)")
    parser.add_argument("--beside", type=int, default=0, help="cores that something else uses (0)")
    parser.add_argument("--late", type=float, default=0, help="most ms that threads are late (0)")
    parser.add_argument("--slowest", type=int, default=10, help="how many slow tests to name (10)")
    parser.add_argument("--of", nargs="+", type=Path, metavar="REPORT", help="read, run nothing")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EX_TERMINATED))
    if asked.of:
        runs = [results.read(report) for report in asked.of]
    else:
        with _busy(asked.beside):
            runs = list(_runs(asked.paths, asked.times, asked.workers, asked.late))
    _tell(runs, asked.slowest)
    return 1 if results.failures(runs) else 0


def _runs(paths: Sequence[str], times: int, workers: int, late_ms: float) -> Iterator[list[Result]]:
    REPORTS.mkdir(parents=True, exist_ok=True)
    late = ["-p", late_threads.__name__] if late_ms else []
    for seed in range(1, times + 1):
        report = REPORTS / f"{seed}.xml"
        report.unlink(missing_ok=True)
        begun = time.monotonic()
        ended = _whole_run(
            [
                *(sys.executable, "-c", PYTEST, "-q", f"-n{workers}", f"--junitxml={report}"),
                *(*late, *paths),
            ],
            {late_threads.SEED: str(seed), late_threads.MOST_MS: str(late_ms)},
        )
        if ended.returncode in NOTHING_RAN:
            sys.exit(f"pytest ended with {ended.returncode}:\n{ended.stdout[-3000:]}")
        run = results.read(report)
        failed = sum(bool(one.why) for one in run)
        took = time.monotonic() - begun
        print(f"run {seed} of {times}: {len(run)} tests, {failed} failed, {took:.0f} s", flush=True)
        if failed:
            (REPORTS / f"{seed}.log").write_text(ended.stdout, encoding="utf-8")
        yield run


def _whole_run(
    command: Sequence[str], settings: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `command`; if we are ended meanwhile, have it end as at Ctrl-C, with all that it started.

    It is in a group of its own: a terminal's Ctrl-C would be its second one.
    """
    running = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        printed, _ = running.communicate()
    except BaseException:
        running.send_signal(signal.SIGINT)
        running.communicate()
        raise
    return subprocess.CompletedProcess(command, running.returncode, printed)


@contextmanager
def _busy(cores: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    beside = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in beside:
            process.kill()
            process.wait()


def _tell(runs: Sequence[Sequence[Result]], slow: int) -> None:
    print("\n| folder | tests | least | median | most |\n| --- | ---: | ---: | ---: | ---: |")
    for folder, tests, least, middle, most in results.by_folder(runs):
        print(f"| {folder} | {tests} | {least:.0f} s | {middle:.0f} s | {most:.0f} s |")
    print("\n| the slowest | median |\n| --- | ---: |")
    for name, seconds in results.slowest(runs, slow):
        print(f"| `{name}` | {seconds:.1f} s |")
    failures = results.failures(runs)
    print(f"\nin {len(runs)} runs {len(failures)} tests ever failed")
    for name, when in sorted(failures.items()):
        print(f"{name}: in {len(when)} ({', '.join(map(str, when))})")
        for why in sorted(set(when.values())):
            print(f"    {why[:300]}")


if __name__ == "__main__":
    sys.exit(main())
