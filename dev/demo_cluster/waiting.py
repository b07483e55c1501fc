"""Wait until something is so, and say what was there instead when it takes too long."""

import time
from collections.abc import Callable
from typing import TypeVar

from demo_cluster.errors import NotYet, TookTooLong

Seen = TypeVar("Seen")


def eventually(
    what: str, look: Callable[[], Seen], *, within_s: float, every_s: float = 0.5, hint: str = ""
) -> Seen:
    """Return what `look` returns once it no longer raises NotYet. Raises TookTooLong.

    what: completes "waited for …". hint: what a person can do to find out more.
    """
    give_up = time.monotonic() + within_s
    while True:
        try:
            return look()
        except NotYet as instead:
            if time.monotonic() > give_up:
                told = f"Waited {within_s:.0f} s for {what}. Last seen: {instead}"
                raise TookTooLong(f"{told}\n{hint}".rstrip()) from None
            time.sleep(every_s)
