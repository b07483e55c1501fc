"""The operator with a wall clock that can be set while it runs: a module in place of `yolofleet`.

Its monotonic clock goes on as ever, as it does when a machine's clock is set.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

VARIABLE: Final = "FAULTS_CLOCK"


class Clock:
    """The other end: sets the clock of the operators that run with `environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(timedelta())
        self.environment = {VARIABLE: str(file)}

    def shift(self, by: timedelta) -> None:
        """Let the clock be wrong by so much from now on."""
        self._file.write_text(str(by.total_seconds()))


class Shifted(datetime):
    """The time that the file says it is."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Return the wrong time."""
        wrong_by = timedelta(seconds=float(Path(os.environ[VARIABLE]).read_text() or 0))
        return datetime.now(tz) + wrong_by


def main() -> int:
    """Run the operator by the wrong clock."""
    from faults import heard
    from yolofleet import __main__ as operator
    from yolofleet.runtime import events, leader

    for module in (operator, events, leader):
        setattr(module, datetime.__name__, Shifted)
    heard.speak()
    return operator.main()
