"""One JSON object a line on stderr: for each thing that changed or went wrong, not each request."""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, TextIO

import orjson

from yoloserve.errors import without_credentials
from yoloserve.telemetry.tracing import current

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

STDERR = 2
PIECE = 8192  # bytes of a line, at most
# Who sends damaged pictures could fill the log: callers are told, and the metrics count.
ABOUT_PICTURES = (
    "libpng ",
    "Corrupt JPEG",
    "Premature end of JPEG",
    "Unsupported JPEG",
    "TIFF",
    # libjpeg says these of pictures that it reads as well.
    "Warning: unknown JFIF revision number",
    "Inconsistent progression sequence",
    "Invalid SOS parameters",
)
LEAVE_S = 10.0  # to tell of what was written last, at most


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message, the request's ids, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(trace.as_dict() if (trace := current.get()) else {}),
            **{key: value for key, value in vars(record).items() if key not in STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        written = orjson.loads(orjson.dumps(line, default=str))
        return orjson.dumps(_without_credentials(written)).decode()


def _without_credentials(written: Any) -> Any:
    """Look into each text by itself: in a line of JSON nobody could tell where an address ends."""
    if isinstance(written, str):
        return without_credentials(written)
    if isinstance(written, dict):
        return {key: _without_credentials(value) for key, value in written.items()}
    if isinstance(written, list):
        return [_without_credentials(value) for value in written]
    return written


def set_level(level: str) -> None:
    """Write from now on what matters so much."""
    logging.getLogger().setLevel(level.upper())


def beside_the_host(package: str) -> None:
    """Write the lines of `package` to stderr where the process, and its log, are another's."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger(package)
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)


@contextmanager
def configured() -> Iterator[None]:
    """Send every logger's lines through the formatter, and what libraries write to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Their "started", "waiting" and "finished" say nothing that ours do not. The reader of
    # forms has a line for each that is broken: the caller is told, and the metrics count.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    for chatty in ("uvicorn", "uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    before = sys.stderr
    try:
        with _own_stderr() as handler.stream:
            yield
    finally:
        handler.stream = before


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """Keep stderr for ourselves; what others write to its descriptor becomes lines of the log.

    libpng, libjpeg, libtiff and the runtimes write there as they like, and take no other place.
    The pipe never blocks them, who may hold the lock that its reader needs: what is too much for
    it is lost. What kills the process is told past it, by Python's own handler.
    """
    before, (reader, writer) = sys.stderr, os.pipe()
    os.set_blocking(writer, False)
    written = os.fdopen(reader, "rb", 0)
    with os.fdopen(os.dup(STDERR), "w", 1, encoding="utf-8", errors="backslashreplace") as kept:
        os.dup2(writer, STDERR)
        os.close(writer)
        sys.stderr = kept
        faulthandler.enable(kept)
        telling = threading.Thread(target=_tell, args=(written,), name="stderr", daemon=True)
        telling.start()
        try:
            yield kept
        finally:
            # The pipe's only end to write, so its reader is done; but a child may have another.
            os.dup2(kept.fileno(), STDERR)
            telling.join(LEAVE_S)
            faulthandler.disable()
            sys.stderr = before


def _tell(written: IO[bytes]) -> None:
    """Log what libraries say, but of pictures."""
    log = logging.getLogger("stderr")
    with written:
        for line in _lines(written):
            log.log(logging.DEBUG if line.startswith(ABOUT_PICTURES) else logging.WARNING, line)


def _lines(written: IO[bytes]) -> Iterator[str]:
    """Give each line, a long one in pieces, as soon as it is whole."""
    rest = b""
    while piece := written.read(PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) >= PIECE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            if line.strip():
                yield line.decode("utf-8", "backslashreplace").strip()
