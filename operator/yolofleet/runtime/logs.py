"""Log lines as JSON, one a line, with the fields that the caller gave, and what they are about.

All lines of one reconcile carry its id, its detector and the generation of the spec it looks at.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import orjson

_QUIET: Final = {
    "kopf": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "kubernetes": logging.WARNING,
    "urllib3": logging.WARNING,
}


_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


@contextmanager
def about(**fields: Any) -> Iterator[dict[str, Any]]:
    """Add `fields` to every line that is logged from this task meanwhile; yields all of them."""
    known = (_about.get() or {}) | fields
    token = _about.set(known)
    try:
        yield known
    finally:
        _about.reset(token)


def note(**fields: Any) -> None:
    """Add `fields`, known only now, to the lines that are still to come in this `about`."""
    if (known := _about.get()) is not None:
        known.update(fields)


class JsonFormatter(logging.Formatter):
    """Formats a record with its `fields` (given as `extra={"fields": {...}}`)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **(_about.get() or {}),
            **getattr(record, "fields", {}),
            "logger": record.name,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(level: str) -> None:
    """Write all logs of at least `level` to standard error; libraries only their warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
