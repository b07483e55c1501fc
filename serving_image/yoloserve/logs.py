"""One JSON object a line on stderr: for each thing that changed or went wrong, not each request."""

import logging
import sys
from datetime import UTC, datetime

import orjson

from yoloserve.errors import without_credentials
from yoloserve.tracing import current

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


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
        return without_credentials(orjson.dumps(line, default=str).decode())


def configure() -> None:
    """Send every logger's lines through the formatter."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Their "started", "waiting" and "finished" say nothing that ours do not. The reader of forms
    # has a line for each that is broken: the caller is told, and the metrics count.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    for chatty in ("uvicorn", "uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
