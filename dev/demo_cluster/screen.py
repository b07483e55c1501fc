"""What a person sees: headings, facts, tables, and progress where the output is a terminal."""

import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from demo_cluster.load import Load

BOLD, GREEN, DIM, PLAIN = "\033[1m", "\033[32m", "\033[2m", "\033[0m"
WIDTH: Final = 96
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
TICK_S: Final = 0.2
QUIET_S: Final = 15.0  # where lines cannot be rewritten, one says this often that all is well


def styled(text: str, style: str) -> str:
    """Return `text` in a style on a terminal, as it is elsewhere."""
    return f"{style}{text}{PLAIN}" if sys.stdout.isatty() else text


def heading(text: str) -> None:
    """Begin a chapter."""
    print(f"\n{styled(text, BOLD)}", flush=True)


def fact(text: str) -> None:
    """Tell what is so."""
    for line in textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False):
        print(f"    {line}", flush=True)


def command(text: str) -> None:
    """Show what is typed."""
    print(f"  {styled('$ ' + text, DIM)}", flush=True)


def show(lines: Iterable[str]) -> None:
    """Print a block."""
    for line in lines:
        print(f"    {line}")
    sys.stdout.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; columns of numbers stand to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(rows) and all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = [head, ["─" * width for width in widths], *rows]
    return [
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()


@contextmanager
def step(what: str, load: Load | None = None) -> Iterator[None]:
    """Say what is being done, that it goes on (with the requests answered), how long it took."""
    started = time.monotonic()
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(what, load, started, done), daemon=True)
    ticker.start()
    mark = "✗"
    try:
        yield
        mark = styled("✓", GREEN)
    finally:
        done.set()
        ticker.join()
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        print(f"{clear}  {mark} {what} ({time.monotonic() - started:.1f} s)", flush=True)


def _tick(what: str, load: Load | None, started: float, done: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    turn = 0
    while not done.wait(TICK_S if terminal else QUIET_S):
        asked = f", {load.answered} requests so far" if load else ""
        told = f"{what} … {time.monotonic() - started:.0f} s{asked}"
        if terminal:
            turn += 1
            print(f"\r\033[K  {SPINNER[turn % len(SPINNER)]} {told}", end="", flush=True)
        else:
            print(f"    {told}", flush=True)
