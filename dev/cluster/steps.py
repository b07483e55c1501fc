"""Run the commands of a step: one line on the terminal, everything else in a log."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from cluster.errors import ClusterError, StepFailed
from cluster.paths import cache_root

T = TypeVar("T")
PAUSES_S: Final = (5.0, 20.0, 60.0)  # a proxy or a mirror that has a bad moment


def say(text: str) -> None:
    """Tell progress on stderr: stdout belongs to what a command prints for scripts."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(what: str, why: str = "") -> Iterator[None]:
    """Say what begins (and why it takes its time), then how long it took."""
    print(f"==> {what}{f' ({why})' if why else ''} …", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(" failed")
        raise
    say(f" {time.monotonic() - started:.0f} s")


def log_path(name: str) -> Path:
    """Return the log of `name`, in a folder that exists."""
    path = cache_root() / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def run(
    command: Sequence[str | Path],
    *,
    log: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float | None = None,
) -> None:
    """Run `command` with its output appended to the log `log`; raise StepFailed if it fails."""
    path = log_path(log)
    shown = shlex.join(str(part) for part in command)
    with path.open("ab") as out:
        out.write(f"$ {shown}\n".encode())
        out.flush()
        since = out.tell()
        try:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(shown, f"no end after {timeout_s:.0f} s", path, since=since) from None
        except FileNotFoundError:
            raise StepFailed(shown, "no such command", path, since=since) from None
    if done.returncode:
        raise StepFailed(shown, f"exit status {done.returncode}", path, since=since)


def again(command: Callable[[], T], *, pauses_s: Sequence[float] = PAUSES_S) -> T:
    """Run `command`, which may be repeated, once more after each pause; its last failure counts."""
    for pause_s in pauses_s:
        try:
            return command()
        except ClusterError as failure:
            say(f"\n    {str(failure).splitlines()[0]}: again in {pause_s:.0f} s")
        time.sleep(pause_s)
    return command()


def output(command: Sequence[str | Path], *, timeout_s: float = 60) -> str | None:
    """Return what `command` prints, or None if it fails, is missing or takes too long: a probe."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
