"""JSON that is kept for long, in no more room than it needs."""

from typing import Any

import orjson


def compact(value: Any, *, sort_keys: bool = False) -> bytes:
    """Return `value` as JSON.

    orjson makes room for 8 KiB to begin with and gives none of it back: of what is sent or hashed
    nobody notices, but most objects of a cluster have a fifth of that.
    """
    content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    return bytes(memoryview(content))
