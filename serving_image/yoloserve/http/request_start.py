"""When a gateway met the request: `x-request-start: t=1764440000.123`, in seconds since 1970.

What waits before the server, in a proxy's queue, waits for its answer as well. nginx, Envoy and
most routers can write the header; who asks can as well, so it is believed where a setting says so.
"""

import re
from collections.abc import Sequence

HEADER = "x-request-start"
STAMP = re.compile(r"t=(\d{1,12}(?:\.\d{1,9})?)", re.ASCII)
OLDEST_S = 10.0  # a request that old is one of a clock that is wrong


def waited_s(stamps: Sequence[str], now: float) -> float | None:
    """Say how long a request was under way, or None where its stamps cannot be meant.

    stamps: every value of the header; of two, one is the caller's. now: seconds since 1970.
    """
    if len(stamps) != 1 or not (stamp := STAMP.fullmatch(stamps[0])):
        return None
    waited = now - float(stamp[1])
    return waited if 0 <= waited <= OLDEST_S else None
